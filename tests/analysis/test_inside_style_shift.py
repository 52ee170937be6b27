"""Distances from the source's style: each against numpy, and what is said of them."""

import csv
import warnings
from dataclasses import replace

import numpy as np
import pytest

from featlab.analysis import style
from featlab.analysis.inside.style_page import plot_style, style_table, style_words, write_style
from featlab.analysis.inside.style_shift import GROUPS, SPREAD, STATISTICS, StyleShift, style_shift
from featlab.analysis.page import read_page
from featlab.analysis.people import adapt_people, can_be_split
from featlab.cache import ExtractorInfo, FeatureTable, write_table
from featlab.errors import InputError
from featlab.workspace.workspace import Workspace

QUICK = {
    "head.epochs": 2,
    "head.bottleneck": 6,
    "features.dim": 8,
    "pretrain.validation": False,
    "adapt.sfda-it.iterations": 20,
}
TARGETS = ("s0", "s1")
METHODS = ("pft", "sfda-it", "neutral-shift", "referenced")
GAP = 5


def rows(frames=5, subjects=8):
    rng = np.random.default_rng(3)
    videos = ("joy-a", "joy-b", "neutral-a", "neutral-b")
    subject, video, frame = (part.ravel().astype(np.int32) for part in np.indices((subjects, len(videos), frames)))
    label = (video < 2).astype(np.int16)
    person, joy = 2 * rng.normal(size=(subjects, 12)), rng.normal(size=12)
    spread = rng.uniform(0.2, 0.8, (subjects, 1))[subject]
    embeddings = person[subject] + label[:, None] * joy + spread * rng.normal(size=(len(label), 12))
    return FeatureTable(
        embeddings=embeddings.astype(np.float32),
        label=label,
        subject=subject,
        video=video,
        frame=frame,
        subjects=tuple(f"s{number}" for number in range(subjects)),
        videos=videos,
        classes=("neutral", "joy"),
        neutral="neutral",
    )


def opened(folder, table, **values):
    write_table(folder / "cache.h5", table, ExtractorInfo("toy", "none", "random numbers"))
    return Workspace.open(folder, QUICK | values)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("style"), rows())


@pytest.fixture(scope="module")
def people(workspace):
    return adapt_people(workspace, TARGETS, METHODS)


@pytest.fixture(scope="module")
def shifts(people):
    return {name: style_shift(people, name, GAP) for name in METHODS}


def layers(people, embeddings, offset, *, through):
    """Features, embedding and bottleneck by numpy, from the weights alone."""
    bundle = people.bundle

    def array(tensor):
        return tensor.detach().numpy().astype(np.float64)

    features = (embeddings - array(bundle.projection.mean)) @ array(bundle.projection.components) + offset
    found = {"features": features}
    given = features
    if through:
        first, last = bundle.translator.first, bundle.translator.last
        hidden = np.maximum(features @ array(first.weight).T + array(first.bias), 0)
        given = found["embedding"] = (
            hidden @ array(last.weight).T + array(last.bias) + (features if bundle.translator.residual else 0)
        )
    head = bundle.head
    before = given @ array(head.linear.weight).T + array(head.linear.bias)
    scale = array(head.norm.weight) / np.sqrt(array(head.norm.running_var) + head.norm.eps)
    found["bottleneck"] = (before - array(head.norm.running_mean)) * scale + array(head.norm.bias)
    return found


def statistic(values, name):
    return values.mean(axis=0) if name == "mean" else np.sqrt(values.var(axis=0) + 1e-6)


def test_distances_of_pft_equal_those_of_numpy(people, shifts):
    shift, source, bank = shifts["pft"], people.source, people.bundle.bank
    neutral = {code: (source.subject == code) & (source.label == 0) for code in np.unique(source.subject)}
    plain = {code: layers(people, source.embeddings[mask], 0, through=True) for code, mask in neutral.items()}
    assert shift.layers == ("features", "embedding", "bottleneck")
    for layer in shift.layers:
        for place, name in enumerate(STATISTICS):
            centre = bank.centre(layer)[place].numpy()
            apart = [np.linalg.norm(statistic(part[layer], name) - centre) for part in plain.values()]
            unit = shift.units[layer, name]
            assert unit == pytest.approx(np.median(apart), rel=1e-3)
            assert shift.values(layer, name, "source", "before") == pytest.approx(np.array(apart) / unit, rel=1e-3)
            for number, person in enumerate(people.people):
                offset = person.models["pft"].model.translator.offset.detach().numpy()
                others = person.split.test[person.table.label[person.split.test] == 0]
                for group, wanted in (("adapted rows", person.split.adapt), ("other rows", others)):
                    for side, moved in (("before", 0), ("after", offset)):
                        part = layers(people, person.table.embeddings[wanted], moved, through=True)[layer]
                        expected = np.linalg.norm(statistic(part, name) - centre) / unit
                        found = shift.values(layer, name, group, side)[number]
                        assert found == pytest.approx(expected, rel=2e-3, abs=1e-4)


def test_an_offset_moves_means_onto_the_centre_and_leaves_deviations(shifts):
    for method in ("pft", "neutral-shift"):
        shift = shifts[method]
        # pft weighs frames by how neutral they look, so that their plain mean is nearly there.
        left = 1e-4 if method == "neutral-shift" else 0.05
        assert shift.values("features", "mean", "adapted rows") == pytest.approx([0, 0], abs=left)
        assert (shift.values("features", "mean", "adapted rows", "before") > 0.4).all()
        for group in ("adapted rows", "other rows"):
            before, after = (shift.values("features", "std", group, side) for side in ("before", "after"))
            assert after == pytest.approx(before, abs=1e-4)


def test_one_is_a_typical_source_person(shifts):
    for shift in shifts.values():
        for key in shift.units:
            source = shift.values(*key, "source", "before")
            assert np.median(source) == pytest.approx(1.0)
            assert shift.limit(*key) == pytest.approx(np.percentile(source, SPREAD))
            assert np.isnan(shift.values(*key, "source")).all()


def test_source_people_are_moved_as_a_target_is(people, shifts):
    """Whoever plays a target is moved by the first of two neutral clips, and measured on the second."""
    source, centre = people.source, people.bundle.bank.centre("features")[0].numpy()
    expected = []
    for code in np.unique(source.subject):
        clips = [
            layers(people, source.embeddings[(source.subject == code) & (source.video == video)], 0, through=True)
            for video in (2, 3)
        ]
        expected.append(np.linalg.norm(clips[1]["features"].mean(axis=0) - clips[0]["features"].mean(axis=0)))
    assert centre.shape == (8,)
    found = shifts["pft"].values("features", "mean", "source moved") * shifts["pft"].units["features", "mean"]
    assert found == pytest.approx(expected, rel=1e-3)


def test_methods_that_leave_t_out_have_no_embedding(people, shifts):
    assert shifts["sfda-it"].layers == ("features", "bottleneck")
    person = people.people[0]
    wanted = person.split.adapt
    before = layers(people, person.table.embeddings[wanted], 0, through=False)["features"].mean(axis=0)
    centre = people.bundle.bank.centre("features")[0].numpy()
    expected = np.linalg.norm(before - centre) / shifts["sfda-it"].units["features", "mean"]
    assert shifts["sfda-it"].values("features", "mean", "adapted rows", "before")[0] == pytest.approx(
        expected, rel=1e-3
    )


def test_a_head_without_a_bottleneck_is_measured_where_it_can_be(shifts):
    assert len(shifts["referenced"].values("features", "mean", "other rows")) == 2
    assert len(shifts["referenced"].values("bottleneck", "mean", "other rows")) == 0
    assert any("no target" in word for word in style_words(shifts["referenced"]))
    settle(plot_style(shifts["referenced"]))


def test_a_target_without_other_neutral_rows_has_only_the_adapted_ones(people):
    person = people.people[0]
    kept = np.setdiff1d(person.split.test, np.flatnonzero(person.table.label == 0))
    some = replace(people, people=(replace(person, split=replace(person.split, test=kept)),))
    shift = style_shift(some, "pft", GAP)
    assert len(shift.values("features", "mean", "adapted rows")) == 1
    assert len(shift.values("features", "mean", "other rows")) == 0
    assert "no target has neutral rows that were not adapted on" in style_words(shift)[0]
    assert style_table([shift]).rows[0][-1] == "–"
    settle(plot_style(shift))


def test_one_neutral_frame_a_video_has_no_deviation_to_measure_by(tmp_path):
    workspace = opened(tmp_path, rows(frames=1), **{"head.batch": 8})
    table = workspace.table
    alone = replace(workspace, table=table.take((table.label == 1) | (table.video == 2) | (table.subject == 0)))
    shift = style_shift(adapt_people(alone, ["s0"], ["pft"]), "pft", GAP)
    assert {statistic for _, statistic in shift.units} == {"mean"}
    assert len(settle(plot_style(shift)).axes) == 3


def test_what_cannot_be_measured_is_refused(people):
    bare = replace(people, bundle=replace(people.bundle, bank=None))
    with pytest.raises(InputError, match="no style bank"):
        style_shift(bare, "pft", GAP)
    with pytest.raises(InputError, match="do not differ"):
        style_shift(replace(people, source=people.source.rows_of("s2")), "sfda-it", GAP)


def made(before, after, source=(0.5, 1.0, 1.0, 1.5), layers=("features",)):
    columns = {name: [] for name in ("layer", "statistic", "group", "subject", "before", "after")}
    for layer in layers:
        for name in STATISTICS:
            for group in GROUPS:
                pairs = [(value, float("nan")) for value in source]
                if group != "source":
                    pairs = list(zip(before, after, strict=True))
                for number, pair in enumerate(pairs):
                    for column, value in zip(columns, (layer, name, group, f"s{number}", *pair), strict=True):
                        columns[column].append(value)
    return StyleShift("pft", tuple(layers), columns, {(layer, name): 2.0 for layer in layers for name in STATISTICS})


def test_words_and_table_count_who_is_within_the_spread():
    shift = made([3.0, 1.0, 1.0], [0.5, 0.5, 2.0])
    assert shift.limit("features", "mean") == pytest.approx(np.percentile([0.5, 1.0, 1.0, 1.5], 95))
    word = style_words(shift)[0]
    assert "from 1.00 to 0.50 of a typical source person's distance" in word
    assert "2 of 3 targets end up within the source people's spread, where 2 had been before" in word
    row = style_table([shift]).rows[0]
    assert row == (
        "SFDA-PFT (anchored)",
        "features",
        "mean",
        "1.00",
        "0.50",
        "1.00",
        "0.50",
        "0.50",
        "2 of 3",
        "2 of 3",
    )
    same = made([1.0, 2.0], [1.0, 2.001])
    assert "stays at 1.50" in style_words(same)[0]


def settle(figure):
    """Draw it, so that a layout that does not fit is heard of, and check that all text lies within."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    renderer, page = figure.canvas.get_renderer(), figure.bbox.padded(1.0)
    found = [text for axes in figure.axes for text in [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]]
    found += [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [text.get_window_extent(renderer) for text in found if text.get_text() and text.get_visible()]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    return figure


def lines(panel, label):
    return [tuple(line.get_ydata()) for line in panel.get_lines() if line.get_label() == f"_{label}"]


def test_every_line_of_the_figure_is_a_row_of_the_columns(shifts):
    shift = shifts["pft"]
    panels = iter(settle(plot_style(shift)).axes)
    for name in STATISTICS:
        for layer in shift.layers:
            panel = next(panels)
            for group in ("adapted rows", "other rows"):
                pairs = zip(*(shift.values(layer, name, group, side) for side in ("before", "after")), strict=True)
                assert lines(panel, group) == list(pairs)
            medians = [np.median(shift.values(layer, name, "other rows", side)) for side in ("before", "after")]
            assert lines(panel, "median")[1] == tuple(medians)
            moved = shift.values(layer, name, "source moved")
            assert lines(panel, "moved") == [tuple(np.percentile(moved, [100 - SPREAD, SPREAD]))]
            top = max(max(pair) for group in ("adapted rows", "other rows") for pair in lines(panel, group))
            assert panel.get_ylim()[0] == 0
            assert panel.get_ylim()[1] >= top


def test_nearer_farther_and_unchanged_differ_without_colour():
    panel = plot_style(made([1.0, 1.0, 1.0], [0.5, 1.5, 1.0])).axes[0]
    slopes = [line for line in panel.get_lines() if line.get_label() == "_other rows"]
    assert [line.get_linestyle() for line in slopes] == ["-", "--", ":"]
    assert [line.get_color() for line in slopes[:2]] == [style.GAIN, style.LOSS]


@pytest.mark.parametrize("targets", [1, 2, 36])
@pytest.mark.parametrize("names", [("features",), ("features", "bottleneck"), ("features", "embedding", "bottleneck")])
def test_the_figure_fits_whatever_it_holds(targets, names):
    rng = np.random.default_rng(0)
    settle(plot_style(made(rng.uniform(0.5, 30, targets), rng.uniform(0, 2, targets), layers=names)))


def test_the_page_has_the_numbers_of_the_figures(shifts, tmp_path):
    wanted = [shifts["pft"], shifts["sfda-it"]]
    files = write_style(tmp_path, wanted, "featlab plot style", {})
    assert {path.name for path in files} >= {"style-pft.png", "style-sfda-it.csv", "table_style.md", "page.json"}
    with (tmp_path / "style-pft.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [float(line["before"]) for line in found] == shifts["pft"].columns["before"]
    assert [line["subject"] for line in found] == shifts["pft"].columns["subject"]
    page = read_page(tmp_path)
    assert list(page.summary) == [word for shift in wanted for word in style_words(shift)]
    assert [figure.name for figure in page.figures] == ["style-pft", "style-sfda-it"]


def test_whoever_cannot_be_split_is_told_apart(workspace):
    table = workspace.table
    joyless = replace(table, label=np.where(table.subject == 1, 1, table.label).astype(np.int16))
    fit, failures = can_be_split(replace(workspace, table=joyless), ("s0", "s1", "s2"))
    assert fit == ("s0", "s2")
    assert [name for name, _ in failures] == ["s1"]
    with pytest.raises(InputError, match="has no 'neutral' rows"):
        adapt_people(replace(workspace, table=joyless), ["s1"], ["pft"])

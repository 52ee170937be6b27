"""Ablations: their numbers are those of an evaluation with that setting, and they say what they left out."""

import json
from dataclasses import replace

import numpy as np
import pytest

from featlab import ExtractorInfo, write_table
from featlab.analysis.ablation import ABLATIONS
from featlab.analysis.ablation.figures import plot_surface
from featlab.analysis.ablation.report import ablation_result, ablation_sentences, ablation_tables, draw_ablation
from featlab.analysis.ablation.run import ablate, make_grid, with_values
from featlab.analysis.page import read_page, write_result
from featlab.errors import ConfigError
from featlab.evaluation.results import common_subject_means
from featlab.evaluation.runner import plan, run_tasks
from featlab.evaluation.statistics import holm, wilcoxon
from featlab.evaluation.summary import summarise
from featlab.methods import make_method
from featlab.workspace.workspace import Workspace

METHODS = ("source-only", "neutral-shift", "pft", "oracle")
QUICK = {"head.epochs": 2, "head.bottleneck": 8, "features.dim": 6, "protocol.targets": "3"}
QUICK |= {f"ablate.{name}": "0,1" for name in ("style", "expression", "alignment", "anchor")}
QUICK["ablate.terms"] = "style,anchor"
QUICK |= {"ablate.dims": "4,64,0", "ablate.frames": "1,0", "ablate.counts": "3,4,0,40", "ablate.shares": "0,0.4"}
CHOSEN = {"ablate.methods": METHODS, "protocol.draws": 2, "adapt.oracle.iterations": 10}
DIM = 10


@pytest.fixture(scope="module")
def folder(people, tmp_path_factory):
    root = tmp_path_factory.mktemp("ablations")
    table = people(8, 2, 5, DIM, 2)
    write_table(root / "cache.h5", table, ExtractorInfo("toy", "none", "random numbers"))
    # A second data set, without landmarks.
    other = replace(table, embeddings=table.embeddings[:, :5], landmarks=None)
    write_table(root / "narrow.h5", other, ExtractorInfo("toy", "none", "fewer random numbers"))
    return root


def opened(folder, **how):
    # Not as if the user had set them: only some ablations train an MLP.
    return with_values(Workspace.open(folder, QUICK, **how), {"pretrain.epochs": 2, "pretrain.hidden": 8})


@pytest.fixture(scope="module")
def workspace(folder):
    return opened(folder)


@pytest.fixture(scope="module")
def dims(workspace):
    return ablate("dims", with_values(workspace, CHOSEN))


def scores(rows):
    return {(row.method, row.subject, row.draw): row.macro_f1 for row in rows}


def test_each_dimension_has_the_numbers_of_an_evaluation_with_it_and_a_second_run_trains_nothing(dims, folder):
    assert [(point.setting.label, point.features) for point in dims.points] == [("4", 4), ("full (10)", DIM)]
    shared = {"protocol.methods": METHODS, "protocol.draws": 2, "adapt.oracle.iterations": 10}
    for point, features in zip(dims.points, ({"features.dim": 4}, {"features.reduce": "none"}), strict=True):
        alone = Workspace.open(folder, QUICK | features | shared | {"pretrain.validation": False})
        rows = [row for done in run_tasks(plan(alone)) for row in done.values()]
        assert scores(point.rows) == scores(rows)
        assert [item.macro_f1 for item in point.summaries] == [item.macro_f1 for item in summarise(rows)]
    said, steps = [], []
    again = with_values(opened(folder, notify=said.append), CHOSEN)
    again = ablate("dims", again, jobs=2, on_step=lambda *now: steps.append(now))
    runs = sum(len(point.rows) for point in dims.points)
    assert (said, steps[-1]) == ([], (runs, runs))
    assert [point.rows for point in again.points] == [point.rows for point in dims.points]


def test_what_was_left_out_is_said(dims, workspace):
    assert dims.notes[0] == "left out: 64; the embedding has 10 values"
    assert dims.notes[0] in ablation_tables(dims)["scores"].notes
    assert "left out: 40; there are 5 source subjects" in make_grid("sources", workspace).notes
    bare = replace(workspace, table=replace(workspace.table, landmarks=None))
    assert "left out: landmark; the cache has no landmarks" in make_grid("pairing", bare).notes
    # A source of two subjects with four rows each spans six directions within subjects.
    few = replace(workspace, table=workspace.table.take(workspace.table.frame < 1))
    people = {"protocol.sources": "s00,s01", "protocol.targets": "s05"}
    report = ablate("dims", with_values(few, {**people, "ablate.dims": "8", "ablate.methods": "source-only"}))
    assert report.points[0].features == 6
    assert "8: the source rows span 6 directions, so that many were kept" in report.notes
    ticks = [tick.get_text() for tick in draw_ablation(report).drawn.axes[0].get_xticklabels()]
    assert ticks == ["8\n(6 there)"]


def shown_in(axes, data):
    """What a panel shows of each setting and method, as its lines, bars or cells have it."""
    if axes.images:
        cells = axes.images[0].get_array()
        # The weights are 0 and 1.
        places = [tuple(int(float(weight)) for weight in at.split(";")) for at in data["at"]]
        return [cells[place] for place in places]
    if not axes.containers:
        ticks = [tick.get_text().replace("\n", " ") for tick in axes.get_xticklabels()]
        found = {
            (t, line.get_label()): y for line in axes.get_lines() for t, y in zip(ticks, line.get_ydata(), strict=False)
        }
    else:
        ticks = [tick.get_text() for tick in axes.get_yticklabels()]
        bars = [(bar, group.get_label()) for group in axes.containers for bar in group]
        found = {(ticks[round(bar.get_y() + bar.get_height() / 2)], name): bar.get_width() for bar, name in bars}
    both = zip(data["setting"], data["method"], strict=True)
    return [found.get((setting, method), found.get((method, setting))) for setting, method in both]


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_runs_and_its_files_hold_the_numbers_of_its_results(name, workspace, tmp_path, stored, readable):
    methods = {"bn": "shot-im,shot", "lambda": "pft"}.get(name, "source-only,pft")
    report = ablate(name, with_values(workspace, {"ablate.methods": methods}))
    assert not [row.error for point in report.points for row in point.rows if row.error]
    result = ablation_result(report)
    stored(result)
    readable(result.figures[0].drawn)
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (result.summary, result.figures[0].name) == (ablation_sentences(report), name)
    data = result.figures[0].data
    for axes, group in zip(result.figures[0].drawn.axes, dict.fromkeys(data["group"]), strict=False):
        mine = {
            key: [v for v, other in zip(values, data["group"], strict=True) if other == group]
            for key, values in data.items()
        }
        assert shown_in(axes, mine) == pytest.approx(mine["macro_f1"])
    # The figure's numbers are those that summarising the results in run.json gives.
    assert len(data["macro_f1"]) == len(run["summary"]) == len(result.tables["scores"].rows) * len(report.grid.methods)
    for place, mean in enumerate(data["macro_f1"]):
        key = {name: data[name][place] for name in ("group", "setting", "method")}
        found = {entry["subject"]: entry["macro_f1"] for entry in run["results"] if key.items() <= entry.items()}
        assert len(found) == int(data["subjects"][place])
        assert float(mean) == pytest.approx(np.mean(list(found.values())))


def test_in_a_surface_the_first_weight_goes_upward():
    data = {"data": ["a"] * 4, "group": ["source"] * 4, "at": ["0;0", "0;1", "1;0", "1;1"]}
    data["macro_f1"] = [0.1, 0.2, 0.3, 0.4]
    axes = plot_surface(data, weights={"source": ("up", "right")}).axes[0]
    assert (shown_in(axes, data), axes.get_ylabel()) == ([0.1, 0.2, 0.3, 0.4], "up")


def test_differences_are_over_the_subjects_of_both_and_corrected_over_the_settings(workspace):
    values = {"ablate.methods": "pft", "protocol.draws": 2, "ablate.frames": "1,2,0"}
    report = ablate("neutral", with_values(workspace, values))
    *settings, reference = (list(point.rows) for point in report.points)
    found = report.differences
    assert list(found) == [("cache", "", "1", "pft"), ("cache", "", "2", "pft")]
    raw = []
    for rows, difference in zip(settings, found.values(), strict=True):
        ours, theirs = zip(*common_subject_means(rows, reference).values(), strict=True)
        raw.append(wilcoxon(np.subtract(ours, theirs)))
        assert difference.difference == pytest.approx(np.mean(ours) - np.mean(theirs))
        assert difference.subjects == len(ours)
    assert [difference.p for difference in found.values()] == holm(raw)
    (said,) = ablation_sentences(report)
    assert "from all (p" in said


def test_settings_are_what_they_are_called(workspace):
    def config(name, label, group=""):
        grid = make_grid(name, workspace)
        (setting,) = [item for item in grid.settings if (item.label, item.group) == (label, group)]
        return with_values(workspace, setting.values).config

    alone = config("losses", "style alone")
    idle = make_method("pft", config("lambda", "alignment 0, KL 0", "target").adapt.options).config
    for value, expected in (
        ((alone.pretrain.classification, alone.pretrain.style, alone.pretrain.expression), (0, 1.0, 0)),
        (alone.adapt.options["pft"], {"style": 1.0, "consistency": 0.1, "anchor": 0.1, "optimiser": "lbfgs"}),
        (config("losses", "without anchor").adapt.options["pft"]["anchor"], 0),
        (config("lambda", "style 1, KL 0", "source").pretrain.style, 1),
        (idle.iterations, 0),
        (config("neutral", "1").protocol.frames, 1),
        (config("contamination", "40 %").protocol.contamination, 0.4),
        (config("sources", "3").protocol.source_limit, 3),
        (config("share", "50 %").pretrain.share, 0.5),
        (config("bn", "eval").adapt.options["shot"]["bn_mode"], "eval"),
        (config("layers", "all layers").adapt.options["pft"]["update"], "all"),
        (config("dims", "full (10)").features.reduce, "none"),
    ):
        assert value == expected


def test_fewer_source_subjects_are_some_of_more_and_never_targets(workspace):
    def sources(limit, targets):
        return set(with_values(workspace, {"protocol.source_limit": limit}).source(targets).subjects)

    few, more, everyone = (sources(limit, workspace.targets()) for limit in (2, 4, 0))
    assert len(few) == 2
    assert few < more < everyone
    assert not everyone & set(workspace.targets())
    assert len({frozenset(sources(2, (name,))) for name in workspace.targets()}) > 1


def test_several_data_sets_and_reductions_have_a_panel_each(folder, workspace, tmp_path):
    methods = {"ablate.methods": "source-only,pft"}
    report = ablate("dims", Workspace.open(folder, QUICK | methods | {"ablate.caches": "cache.h5,narrow.h5"}))
    shown = [f"{point.data}: {point.setting.label}" for point in report.points]
    assert shown == ["cache: 4", "cache: full (10)", "narrow: 4", "narrow: full (5)"]
    assert "narrow: left out: 64; the embedding has 5 values" in report.notes
    result = ablation_result(report)
    write_result(tmp_path, result)
    facts = read_page(tmp_path).metadata["data_sets"]
    assert len({facts[name]["cache_digest"] for name in ("cache", "narrow")}) == 2
    assert [axes.get_title(loc="left") for axes in result.figures[0].drawn.axes] == ["cache", "narrow"]
    alone = ablate("dims", Workspace.open(folder, QUICK | methods | {"cache": "narrow.h5"}))
    assert [scores(point.rows) for point in alone.points] == [scores(point.rows) for point in report.points[2:]]
    chosen = {"ablate.reductions": "pca,truncate,random", "ablate.dims": "4", "ablate.methods": "source-only"}
    assert list(ablate("dims", with_values(workspace, chosen)).groups("cache")) == ["pca", "truncate", "random"]


def test_the_table_shows_means_and_intervals_and_one_subject_has_none_and_no_difference(dims, workspace, readable):
    table, (first, *_) = ablation_tables(dims)["scores"], dims.points[0].summaries
    shown = [f"{100 * value:.2f}" for value in (first.macro_f1, *first.ci95)]
    assert table.rows[0][:2] == ("4", "{} [{}, {}]".format(*shown))
    report = ablate("neutral", with_values(workspace, {"protocol.targets": "s03", "ablate.methods": "pft"}))
    assert "over 1 subject no setting differs from all (p ≥ 0.05 after Holm)." in ablation_sentences(report)[0]
    readable(draw_ablation(report).drawn)


def test_what_can_not_be_ablated_is_refused(workspace):
    for name, values, words in (
        ("dims", {"ablate.dims": "64"}, "no dimension of 64"),
        ("dims", {"ablate.dims": "4", "features.reduce": "none"}, "keeps every value"),
        ("dims", {"ablate.methods": "pfft"}, "unknown method"),
        ("sources", {"ablate.counts": "99"}, "there are 5 source subjects"),
        ("sources", {"protocol.source_limit": 3}, "leave it at 0"),
        ("sources", {"protocol.source_limit": 1}, "at least 2 source subjects"),
        ("neutral", {"ablate.frames": ""}, "is empty"),
        ("bn", {"ablate.methods": "pft"}, "no option bn_mode"),
        ("dim", {}, "did you mean"),
        ("dims", {"ablate.caches": "cache.h5,./cache.h5"}, "same name"),
    ):
        with pytest.raises(ConfigError, match=words):
            ablate(name, with_values(workspace, values))

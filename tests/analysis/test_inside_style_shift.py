"""Distances from the source's style: each against numpy, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from featlab.analysis.inside import adapt_people, can_be_split
from featlab.analysis.inside.style_shift import (
    STATISTICS,
    StyleShift,
    plot_style,
    style_result,
    style_sentence,
    style_shift,
    style_table,
)
from featlab.analysis.table import columns_of
from featlab.errors import InputError

TARGETS = ("s00", "s01")
METHODS = ("pft", "sfda-it", "referenced")
NEUTRAL = 1


def rows(people, frames=5):
    """People who also differ in how much they vary."""
    table = people(8, 2, frames, 12, 2, landmarks=False, identity=2.0)
    rng = np.random.default_rng(3)
    spread = rng.uniform(0.2, 0.8, (8, 1))[table.subject]
    moved = table.embeddings + spread * rng.normal(size=table.embeddings.shape)
    return replace(table, embeddings=moved.astype(np.float32))


@pytest.fixture(scope="module")
def workspace(people, opened):
    return opened(rows(people), **{"adapt.sfda-it.iterations": 20})


@pytest.fixture(scope="module")
def adapted(workspace):
    return adapt_people(workspace, TARGETS, METHODS)


@pytest.fixture(scope="module")
def shifts(adapted):
    return {name: style_shift(adapted, name) for name in METHODS}


def layers(adapted, embeddings, offset=0):
    """Features, embedding and bottleneck of rows whose features are moved by an offset."""
    bundle = adapted.bundle
    with torch.no_grad():
        features = bundle.projection(torch.from_numpy(embeddings)) + torch.as_tensor(offset)
        given = bundle.translator(features)
        found = {"features": features, "embedding": given, "bottleneck": bundle.head.bottleneck(given)}
    return {layer: values.double().numpy() for layer, values in found.items()}


def statistic(values, name):
    return values.mean(axis=0) if name == "mean" else np.sqrt(values.var(axis=0) + 1e-6)


def test_distances_of_pft_equal_those_of_numpy(adapted, shifts):
    shift, source, bank = shifts["pft"], adapted.source, adapted.bundle.bank
    neutral = {code: (source.subject == code) & (source.label == NEUTRAL) for code in np.unique(source.subject)}
    plain = {code: layers(adapted, source.embeddings[mask]) for code, mask in neutral.items()}
    assert shift.layers == ("features", "embedding", "bottleneck")
    for layer in shift.layers:
        for place, name in enumerate(STATISTICS):
            centre = bank.layers[layer][place].numpy()
            apart = [np.linalg.norm(statistic(part[layer], name) - centre) for part in plain.values()]
            unit = shift.units[layer, name]
            assert unit == pytest.approx(np.median(apart), rel=1e-3)
            assert shift.values((layer, name), "source", "before") == pytest.approx(np.array(apart) / unit, rel=1e-3)
            for number, person in enumerate(adapted.people):
                offset = person.models["pft"].model.translator.offset.detach().numpy()
                others = person.split.test[person.table.label[person.split.test] == NEUTRAL]
                for group, wanted in (("adapted rows", person.split.adapt), ("other rows", others)):
                    for side, moved in (("before", 0), ("after", offset)):
                        part = layers(adapted, person.table.embeddings[wanted], moved)[layer]
                        expected = np.linalg.norm(statistic(part, name) - centre) / unit
                        found = shift.values((layer, name), group, side)[number]
                        assert found == pytest.approx(expected, rel=2e-3, abs=1e-4)


def test_what_has_no_rows_or_layer_is_measured_where_it_can_be(adapted, shifts, readable):
    assert shifts["sfda-it"].layers == ("features", "bottleneck")
    assert len(shifts["referenced"].values(("features", "mean"), "other rows")) == 2
    assert len(shifts["referenced"].values(("bottleneck", "mean"), "other rows")) == 0
    person = adapted.people[0]
    kept = np.setdiff1d(person.split.test, np.flatnonzero(person.table.label == NEUTRAL))
    some = replace(adapted, people=(replace(person, split=replace(person.split, test=kept)),))
    shift = style_shift(some, "pft")
    assert len(shift.values(("features", "mean"), "adapted rows")) == 1
    assert len(shift.values(("features", "mean"), "other rows")) == 0
    assert "no target has neutral rows that were not adapted on" in style_sentence(shift)
    assert style_table([shift]).rows[0][-1] == "–"
    for found in (shifts["referenced"], shift):
        readable(plot_style(found))


def test_one_neutral_frame_a_video_has_no_deviation_to_measure_by(people, opened, readable):
    workspace = opened(rows(people, frames=1), **{"head.batch": 8})
    table = workspace.table
    alone = replace(workspace, table=table.take((table.label == 0) | (table.video == 2) | (table.subject == 0)))
    shift = style_shift(adapt_people(alone, ["s00"], ["pft"]), "pft")
    assert {statistic for _, statistic in shift.units} == {"mean"}
    readable(plot_style(shift))


def test_what_cannot_be_measured_is_refused_and_who_cannot_be_split_is_told_apart(adapted, workspace):
    table = workspace.table
    angry = replace(table, label=np.where(table.subject == 1, 0, table.label).astype(np.int16))
    angry = replace(workspace, table=angry)
    bare = replace(adapted, bundle=replace(adapted.bundle, bank=None))
    alone = replace(adapted, source=adapted.source.rows_of("s02"))
    for ask, said in (
        (lambda: style_shift(bare, "pft"), "no style bank"),
        (lambda: style_shift(alone, "sfda-it"), "do not differ"),
        (lambda: adapt_people(angry, ["s01"], ["pft"]), "has no 'neutral' rows"),
    ):
        with pytest.raises(InputError, match=said):
            ask()
    fit, failures = can_be_split(angry, ("s00", "s01", "s02"))
    assert (list(fit), [name for name, _ in failures]) == (["s00", "s02"], ["s01"])


def test_sentence_table_and_page_say_who_is_within_the_spread_and_the_figure_fits(shifts, stored, readable):
    # 95 % of the source people are within 1.425, half of them within 1.
    groups = {who: list(zip([3.0, 1.2, 1.0], [0.5, 0.5, 2.0], strict=True)) for who in ("adapted rows", "other rows")}
    groups["source"] = [(value, np.nan) for value in (0.5, 1.0, 1.0, 1.5)]
    lines = [("features", "mean", who, f"s{n}", *pair) for who in groups for n, pair in enumerate(groups[who])]
    columns = columns_of(("layer", "statistic", "group", "subject", "before", "after"), lines)
    shift = StyleShift("pft", ("features",), columns, {("features", "mean"): 2.0})
    assert "features 1.20 to 0.50 (2 of 3 within the source's spread)" in style_sentence(shift)
    row = ("features", "mean", "1.20", "0.50", "1.20", "0.50", "2 of 3", "2 of 3")
    assert style_table([shift]).rows[0] == ("pft", *row)
    wanted = [shifts["pft"], shifts["sfda-it"]]
    result = style_result(wanted)
    assert [figure.name for figure in stored(result).figures] == ["style-pft", "style-sfda-it"]
    assert [figure.data for figure in result.figures] == [shift.columns for shift in wanted]
    assert result.summary == [style_sentence(shift) for shift in wanted]
    for found in (shift, *wanted):
        readable(plot_style(found))

"""What adapting costs: counted by hand, the same as an evaluation counts, and what is said of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from featlab.analysis.cost import (
    ComplexityReport,
    MethodCost,
    measure_complexity,
    model_values,
    with_batch,
)
from featlab.analysis.cost_figure import (
    complexity_data,
    complexity_result,
    complexity_sentences,
    complexity_table,
    plot_complexity,
)
from featlab.errors import ConfigError, InputError
from featlab.evaluation.run import RunNumbers, evaluate_subject
from featlab.methods import get_method, make_method, method_names
from featlab.methods.base import SourceFeatures
from featlab.workspace.stages import bundle_stage

DIM, FEATURES, BOTTLENECK, CLASSES, FRAMES = 12, 6, 8, 2, 7
TARGETS = ("s01", "s02", "s04")
METHODS = ("source-only", "neutral-shift", "adabn", "shot", "pft-poster", "pft", "ftdnn", "oracle")
SMALL = {"features.dim": FEATURES, "head.bottleneck": BOTTLENECK, "pretrain.hidden": 5}
SMALL |= {"adapt.ftdnn.iterations": 20, "adapt.oracle.iterations": 10}


@pytest.fixture(scope="module")
def table(people):
    return people(7, 2, FRAMES, DIM, CLASSES, landmarks=False)


@pytest.fixture(scope="module")
def workspace(table, opened):
    return opened(table, **SMALL)


@pytest.fixture(scope="module")
def report(workspace):
    return measure_complexity(workspace, TARGETS, METHODS, measured=2, repeat=2, batch=16)


def of(report, method):
    return next(cost for cost in report.costs if cost.method == method)


def test_sizes_operations_and_iterations_are_those_of_an_evaluation(workspace, report):
    source = workspace.source(TARGETS)
    bundle, stage = bundle_stage(source, METHODS)
    assert stage.reused  # the very model that was measured
    made = [make_method(name, workspace.config.adapt.options) for name in METHODS]
    numbers = RunNumbers(count_flops=True, gap=workspace.config.protocol.gap)
    how = {"source": SourceFeatures.of(bundle, source.table), "numbers": numbers}
    rows, others = (
        evaluate_subject(bundle, workspace.table.rows_of(subject), made, **how) for subject in ("s01", "s02")
    )
    for cost, row, other in zip(report.costs, rows, others, strict=True):
        assert (cost.method, cost.trainable, cost.selection) == (row.method, row.trainable, row.selection)
        assert cost.adapt_flops == row.flops, row.method
        assert cost.iterations == (row.iterations + other.iterations) / 2, row.method
        assert (cost.failures, cost.subjects) == ((), 2)
        assert not cost.converged > cost.iterations
        assert min(cost.seconds, cost.batch_seconds) > 0
    assert (report.subjects, report.frames) == (("s01", "s02"), (FRAMES, FRAMES))
    assert report.source_rows == (4 * 28, FEATURES)
    for method in ("source-only", "neutral-shift", "adabn"):
        assert (of(report, method).iterations, of(report, method).converged) == (0, 0)
    assert of(report, "shot").iterations == make_method("shot").config.epochs


def test_the_numbers_of_a_model_counted_by_hand(report):
    projection = DIM + DIM * FEATURES
    head = (FEATURES * BOTTLENECK + BOTTLENECK) + 4 * BOTTLENECK + (CLASSES + CLASSES * BOTTLENECK + CLASSES)
    temperature = 1
    assert of(report, "source-only").parameters == projection + head + temperature
    # An affine map of features stands in T's place.
    shifted = projection + head + temperature + FEATURES * FEATURES + FEATURES
    assert of(report, "neutral-shift").parameters == shifted
    assert of(report, "source-only").trainable == 0
    assert of(report, "pft").trainable == FEATURES
    multiplied = 2 * (DIM * FEATURES + FEATURES * BOTTLENECK + BOTTLENECK * CLASSES)
    assert of(report, "source-only").predict_flops == multiplied
    assert of(report, "neutral-shift").predict_flops == multiplied + 2 * FEATURES * FEATURES
    module = torch.nn.BatchNorm1d(3)
    assert model_values(module) == 4 * 3  # a count of steps is no number of the model
    assert "num_batches_tracked" in module.state_dict()


def test_every_batch_size_is_set_and_nothing_else():
    for name in method_names():
        method = make_method(name)
        sized = with_batch(method, 77)
        options = getattr(method.config, "__dataclass_fields__", {})
        changed = {field for field in options if getattr(sized.config, field) != getattr(method.config, field)}
        assert all("batch" in field and getattr(sized.config, field) == 77 for field in changed)
        assert (sized is method) == (not changed)
    assert with_batch(make_method("sfit-T"), 77).config.retrain_batch == 77


def test_a_batch_is_that_many_rows_on_one_thread_and_threads_and_randomness_are_as_before(workspace, monkeypatch):
    seen, threads, shot = [], set(), get_method("shot")
    adapt = shot.adapt

    def spy(self, bundle, target, *, seed=0):
        seen.append((len(target), self.config.batch))
        threads.add(torch.get_num_threads())
        return adapt(self, bundle, target, seed=seed)

    monkeypatch.setattr(shot, "adapt", spy)
    before, state, numpy_state = torch.get_num_threads(), torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    torch.set_num_threads(2)
    try:
        measure_complexity(workspace, TARGETS, ("shot", "pft"), measured=1, repeat=3, batch=16)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    # Once to count, three times the clip, three times the batch.
    assert seen == [(FRAMES, 64)] * 4 + [(16, 16)] * 3
    assert threads == {1}
    assert torch.equal(state, torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


def test_a_subject_without_a_neutral_clip_fails_alone_and_a_clip_may_be_one_frame(table, opened):
    neutral = table.label == table.neutral_code
    there = ((table.subject != 1) | ~neutral) & ((table.subject != 2) | (table.video != 2) | (table.frame == 0))
    workspace = opened(table.take(there), **SMALL)
    found = measure_complexity(workspace, ("s01", "s02"), ("coral", "pft", "shot"), repeat=1, batch=8)
    assert found.frames == (1, 1)
    for cost in found.costs:
        assert (cost.subjects, cost.failures[0][0]) == (1, "s01")
        assert "neutral" in cost.failures[0][1]
    for subject, method, kind in (("s01", "shott", ConfigError), ("nobody", "pft", InputError)):
        with pytest.raises(kind, match="unknown"):
            measure_complexity(workspace, (subject,), (method,))


USUAL = {"trainable": 100, "parameters": 2000, "adapt_flops": 2.5e6, "predict_flops": 1000.0}
USUAL |= {"iterations": 200.0, "converged": 120.0, "batch_seconds": 0.001, "subjects": 2}


def cost(method, seconds, setting="SFDA (model-based)", **changes):
    selection = {"Oracle": "oracle", "UDA (source access)": "source-access"}.get(setting, "source-free")
    return MethodCost(method, selection, setting, seconds=seconds, **USUAL | changes)


COSTS = (
    cost("oracle", 0.5, setting="Oracle"),
    cost("shot", 0.2),
    cost("pft", 0.004, setting="SFDA-PFT", iterations=1, trainable=64, converged=1),
    cost("nrc", 0.6, iterations=100, trainable=300, converged=math.nan),
    cost("safn", 3.0, setting="UDA (source access)"),
    cost("adabn", 0.001, setting="Baselines", iterations=0, converged=0),
    cost("coral", 0.01, setting="Baselines", iterations=0, converged=0),
    cost("source-only", 0.0005, setting="Source-only", trainable=0, iterations=0, converged=0),
)
REPORT = ComplexityReport(COSTS, ("ann", "ben"), (10, 12), (500, 64), 5, 64, "cpu")


def test_the_table_groups_settings_and_marks_who_saw_what():
    table = complexity_table(REPORT)
    names = "source-only, shot, nrc, pft, safn [source access], adabn, coral, oracle"
    assert ", ".join(row[0] for row in table.rows) == names
    assert table.rows[1][1:] == ("100", "2000", "2.500", "0.001", "200", "120", "0.00100", "0.2000")
    assert table.rows[2][table.columns.index("Converged")] == "–"
    assert not any(any(line) for line in table.bold)
    notes = " ".join(table.notes)
    for words in ("ann, ben", "10 to 12 frames", "5 times", "64 rows", "5 %", "500 source rows", "tuned once"):
        assert words in notes
    assert "source rows" not in " ".join(complexity_table(replace(REPORT, costs=COSTS[1:3])).notes)


def test_the_sentence_says_what_pft_costs():
    assert complexity_sentences(REPORT) == [
        "pft adapts to one person in 4.00 ms (median over 2 subjects, 5 runs each), and updates 64 parameters of the "
        "2,000 numbers of its model."
    ]
    assert complexity_sentences(replace(REPORT, costs=COSTS[:2])) == []


def test_the_page_holds_the_numbers_of_the_figure_and_long_names_do_not_overlap(stored, readable):
    result = complexity_result(REPORT)
    page, data = stored(result), complexity_data(REPORT)
    assert (page.kind, page.tables, result.figures[0].data) == ("complexity", ("complexity",), data)
    assert (data["method"][0], data["seconds"]) == ("source-only", sorted(data["seconds"]))
    name = "a-method-with-a-long-name (Somebody and Somebody Else, {})"
    many = replace(REPORT, costs=tuple(cost(name.format(number), 0.001 * 1.4**number) for number in range(29)))
    readable(plot_complexity(complexity_data(many)))

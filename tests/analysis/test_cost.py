"""What adapting costs: counted by hand, the same as an evaluation counts, and what is said of it."""

import math
from dataclasses import replace

import pytest
import torch

from featlab.analysis.cost import measure_complexity, model_values, with_batch
from featlab.analysis.cost_figure import complexity_data, complexity_result, complexity_table, plot_complexity
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
    assert (of(report, "adabn").iterations, of(report, "adabn").converged) == (0, 0)


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


def test_a_batch_is_that_many_rows_on_one_thread_and_threads_are_as_before(workspace, monkeypatch):
    seen, shot, before = [], get_method("shot"), torch.get_num_threads()
    adapt = shot.adapt

    def spy(self, bundle, target, *, seed=0):
        seen.append((len(target), self.config.batch, torch.get_num_threads()))
        return adapt(self, bundle, target, seed=seed)

    monkeypatch.setattr(shot, "adapt", spy)
    torch.set_num_threads(2)
    try:
        measure_complexity(workspace, TARGETS, ("shot", "pft"), measured=1, repeat=3, batch=16)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    # Once to count, three times the clip, three times the batch.
    assert seen == [(FRAMES, 64, 1)] * 4 + [(16, 16, 1)] * 3


def test_a_subject_without_a_neutral_clip_fails_alone_and_a_clip_may_be_one_frame(table, opened):
    neutral = table.label == table.neutral_code
    there = ((table.subject != 1) | ~neutral) & ((table.subject != 2) | (table.video != 2) | (table.frame == 0))
    found = measure_complexity(opened(table.take(there), **SMALL), ("s01", "s02"), ("pft", "shot"), repeat=1, batch=8)
    assert found.frames == (1, 1)
    for cost in found.costs:
        ((who, why),) = cost.failures
        assert (cost.subjects, who, "neutral" in why) == (1, "s01", True)


def test_table_sentence_and_page_hold_the_numbers_and_what_failed_is_said(report, stored, readable):
    table, pft = complexity_table(report), of(report, "pft")
    names = "source-only, neutral-shift, adabn, shot, pft-poster, pft, ftdnn [source access], oracle"
    assert ", ".join(row[0] for row in table.rows) == names
    shown = {"Trainable": str(pft.trainable), "Subject (s)": f"{pft.seconds:.4f}"}
    shown["Adapt (MFLOPs)"] = f"{pft.adapt_flops / 1e6:.3f}"
    assert shown.items() <= dict(zip(table.columns, table.rows[5], strict=True)).items()
    for words in ("s01, s02", f"{FRAMES} frames", "2 times", "16 rows", "112 source rows", "tuned once"):
        assert words in " ".join(table.notes)
    result = complexity_result(report)
    data = result.figures[0].data
    assert (stored(result).kind, data["seconds"]) == ("complexity", sorted(data["seconds"]))
    (said,) = result.summary
    assert "updates 6 parameters of the" in said
    broken = replace(report, costs=(replace(pft, subjects=0, converged=math.nan, failures=(("s01", "no"),)),))
    table, result = complexity_table(broken), complexity_result(broken)
    assert (table.rows[0][1], table.notes[-1]) == ("failed", "pft failed on s01: no")
    assert (result.figures, result.summary) == ([], ["1 of 1 methods failed: pft."])
    name = "a-method-with-a-long-name (Somebody and Somebody Else, {})"
    many = replace(report, costs=tuple(replace(pft, method=name.format(n), seconds=1.4**n) for n in range(29)))
    readable(plot_complexity(complexity_data(many)))

"""What each method costs for one person: parameters, operations, iterations and wall time, measured here and now."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from featlab.analysis.inside import AdaptedPerson, can_be_split
from featlab.compute import one_thread, run_seed
from featlab.errors import FeatlabError, one_line
from featlab.evaluation.run import adapted_model, count_flops
from featlab.methods.base import Method, SourceFeatures
from featlab.methods.registry import make_method
from featlab.model.networks import AdaptedModel, as_tensor
from featlab.protocol.splits import Split
from featlab.workspace.stages import bundle_stage
from featlab.workspace.workspace import Workspace

_ENOUGH = 1.0  # Seconds after which a batch is not timed again: hundreds of steps are their own repetition.
_FAILURES = (FeatlabError, RuntimeError)
"""What a failed run is recorded for. A RuntimeError is how torch says that a computation failed."""
_Timed = Callable[[Method, AdaptedPerson], tuple[float, AdaptedModel]]  # Adapts; gives the seconds and the model.


@dataclass(frozen=True)
class MethodCost:
    """What one method costs; NaN where every subject failed."""

    method: str
    selection: str  # What it may see, one of `featlab.evaluation.results.SELECTIONS`.
    setting: str  # Its group in tables.
    trainable: int = 0  # Parameters that are updated for one person.
    parameters: int = 0  # Numbers in the model that predicts.
    adapt_flops: float = math.nan  # Floating-point operations of one adaptation, as `count_flops` counts them.
    predict_flops: float = math.nan  # Those of predicting one frame.
    iterations: float = math.nan  # Optimiser steps, the median over subjects; 0 for a closed form.
    converged: float = math.nan  # Those until the loss had settled, see `converged_at`; NaN: never.
    batch_seconds: float = math.nan  # Wall time of one step on a batch, or of all of a closed form.
    seconds: float = math.nan  # Median wall time of one adaptation.
    subjects: int = 0  # Who could be adapted to.
    failures: tuple[tuple[str, str], ...] = ()  # What could not be run, and why.


@dataclass(frozen=True)
class ComplexityReport:
    """The costs of several methods, and what they were measured on."""

    costs: tuple[MethodCost, ...]
    subjects: tuple[str, ...]
    frames: tuple[int, int]  # Of the shortest and the longest clip; (0, 0) where no subject could be split.
    source_rows: tuple[int, int]  # Rows and features that methods with source access are given besides.
    repeat: int  # Timed adaptations a subject.
    batch: int  # Rows of a batch.
    device: str


def measure_complexity(
    workspace: Workspace,
    subjects: Sequence[str],
    methods: Sequence[str],
    *,
    measured: int = 0,
    repeat: int = 5,
    batch: int = 64,
    on_method: Callable[[int, int], None] = lambda done, total: None,
) -> ComplexityReport:
    """Take the costs of every method on the first ``measured`` targets, ``repeat`` timed runs each, on one thread."""
    config = workspace.config
    made = [make_method(name, config.adapt.options) for name in methods]
    source = workspace.source(tuple(subjects))
    bundle, _ = bundle_stage(source, tuple(methods))
    features = SourceFeatures.of(bundle, source.table)

    def timed(method: Method, person: AdaptedPerson) -> tuple[float, AdaptedModel]:
        """Adapt as an evaluation does: the same rows, the same seed; return the seconds, and the model."""
        seed = run_seed(bundle.seed, method.name, person.subject)
        start = time.perf_counter()
        model = adapted_model(bundle, person.table, person.split, method, features, seed)
        if features.features.is_cuda:
            # What was sent to a GPU is not yet done.
            torch.cuda.synchronize(features.features.device)
        return time.perf_counter() - start, model

    chosen = tuple(subjects)[: measured or None]
    fit, unfit = can_be_split(workspace, chosen)
    people = [AdaptedPerson(subject, workspace.table.rows_of(subject), split, {}) for subject, split in fit.items()]
    frames = [len(person.split.adapt) for person in people] or [0]
    costs = []
    with one_thread():
        for done, method in enumerate(made, start=1):
            costs.append(_cost(timed, method, people, unfit, repeat, batch))
            on_method(done, len(made))
    rows, width = features.features.shape
    device = features.features.device.type
    return ComplexityReport(tuple(costs), chosen, (min(frames), max(frames)), (rows, width), repeat, batch, device)


def model_values(model: nn.Module) -> int:
    """Return how many floating-point numbers a model holds: weights, and buffers such as a projection's directions."""
    return sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())


def with_batch(method: Method, batch: int) -> Method:
    """Return a method with every option that is a batch size set to ``batch``; itself if it has none."""
    sizes = [item.name for item in fields(method.config) if item.name == "batch" or item.name.endswith("_batch")]
    return type(method)(replace(method.config, **dict.fromkeys(sizes, batch))) if sizes else method


def _cost(
    timed: _Timed,
    method: Method,
    people: Sequence[AdaptedPerson],
    unfit: Sequence[tuple[str, str]],
    repeat: int,
    batch: int,
) -> MethodCost:
    failures = list(unfit)
    runs: list[tuple[float, AdaptedModel]] = []
    finished: list[AdaptedPerson] = []
    adapt_flops = math.nan
    for person in people:
        try:
            runs += [timed(method, person) for _ in range(repeat)]
            if not finished:
                # Not the first run: that makes what a bundle makes once.
                adapt_flops = count_flops(partial(timed, method, person))
        except _FAILURES as error:
            failures.append((person.subject, one_line(error)))
        else:
            finished.append(person)
    cost = MethodCost(method.name, method.selection, method.setting, failures=tuple(failures))
    if not finished:
        return cost
    try:
        taken = _batch_seconds(timed, with_batch(method, batch), finished[0], batch, repeat)
        cost = replace(cost, batch_seconds=taken)
    except _FAILURES as error:
        cost = replace(cost, failures=(*failures, (f"a batch of {batch} rows", one_line(error))))
    models = [model for _, model in runs]
    row = as_tensor(finished[0].table.embeddings[:1], models[0].model.projection.mean.device)
    with torch.no_grad():
        predict_flops = count_flops(partial(models[0].model, row))
    counts = [iterations_to_converge(model.history, model.iterations) for model in models]
    # One that has not converged takes longer than any other.
    converged = statistics.median(math.inf if count is None else count for count in counts)
    return replace(
        cost,
        trainable=models[0].trainable,
        parameters=model_values(models[0].model),
        adapt_flops=adapt_flops,
        predict_flops=predict_flops,
        iterations=statistics.median(model.iterations for model in models),
        converged=converged if math.isfinite(converged) else math.nan,
        seconds=statistics.median(taken for taken, _ in runs),
        subjects=len(finished),
    )


def _batch_seconds(timed: _Timed, method: Method, person: AdaptedPerson, batch: int, repeat: int) -> float:
    """Return the median seconds of a step on a batch, or of the whole of a closed form."""
    rows = np.arange(batch)
    # A short clip is repeated, a long one cut.
    clip = person.table.take(np.resize(person.split.adapt, batch))
    filled = replace(person, table=clip, split=Split(rows, rows[:0]))
    steps: list[float] = []
    spent = 0.0
    while len(steps) < repeat and (not steps or spent < _ENOUGH):
        seconds, model = timed(method, filled)
        steps.append(seconds / max(1, model.iterations))
        spent += seconds
    return statistics.median(steps)


PARTS, MINIMUM = 10, 5
"""The running median takes a tenth of the losses, 5 at least: batches of other rows make a loss jump about."""
TOLERANCE = 0.05
"""Share of the whole fall within which a loss counts as settled."""

CONVERGENCE_RULE = (
    f"the first iteration from which on the loss, smoothed by a centred median over 1/{PARTS} of the iterations "
    f"({MINIMUM} at least), stays within {100 * TOLERANCE:g} % of its whole fall around its last level"
)
"""The rule, for tables."""


def converged_at(losses: Sequence[float]) -> int | None:
    """Return from which iteration on a loss stays where it ends, by `CONVERGENCE_RULE`; 0 without any loss.

    ``None`` for a loss that ends higher than it began, or that is not finite: it has not converged.
    """
    values = np.asarray(losses, dtype=np.float64)
    if not len(values):
        return 0
    if not np.isfinite(values).all():
        return None
    half = min(max(MINIMUM, len(values) // PARTS) // 2, (len(values) - 1) // 2)
    smooth = _running_median(values, half)
    if smooth[-1] > smooth[0]:
        return None
    fall = smooth[: 2 * half + 1].max() - smooth[-1]
    away = np.flatnonzero(np.abs(smooth - smooth[-1]) > TOLERANCE * fall)
    return int(away[-1]) + 2 if len(away) else 1


def iterations_to_converge(history: Sequence[Mapping[str, float]], iterations: int) -> int | None:
    """Return how many iterations an adaptation needed, its stages (told apart by their terms) added up.

    ``None`` when one has not converged, or losses were not logged once an iteration.
    """
    if len(history) != iterations or any("loss" not in entry for entry in history):
        return None
    counts = [converged_at([entry["loss"] for entry in stage]) for _, stage in groupby(history, key=frozenset)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _running_median(values: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """Return the median of 2 ``half`` + 1 values around each but the last ``half``, narrower around the first ones."""
    inner = np.median(np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1), axis=1)
    first = [np.median(values[: 2 * place + 1]) for place in range(half)]
    return np.concatenate([first, inner])

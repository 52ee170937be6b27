"""Run methods on targets, and score them. The only place where a target's labels meet a model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from featlab.bundle.bundle import Bundle
from featlab.cache.table import FeatureTable
from featlab.compute import run_seed
from featlab.errors import FeatlabError, InputError
from featlab.evaluation.metrics import reliability_counts, smooth_probabilities, subject_metrics, video_scores
from featlab.evaluation.results import EvaluationRow
from featlab.methods.base import Method, SourceFeatures
from featlab.model.networks import AdaptedModel
from featlab.protocol.splits import Split, reduced_split, split_dataset, split_target, target_of


@dataclass(frozen=True)
class RunNumbers:
    """How a target's rows are split and scored, and what the rows of results record beside the scores."""

    draw: int = 0  # Number of the draw.
    seed: int = 0  # Number of the seed; what is random in a run follows the bundle's own seed.
    scope: str = "person"  # One of `featlab.config.sections.SCOPES`.
    count_flops: bool = False  # Run every method once more to count its operations.
    smoothing: int = 0  # Window of the second macro F1 in frames, see `featlab.evaluation.metrics`; 1 or 0 for none.
    gap: int = 5  # See `featlab.protocol.splits`.
    frames: int = 0  # Adapt on at most that many frames of one person's clip; 0 takes all.
    contamination: float = 0.0  # Fraction of them that is replaced by test frames of other classes.


def evaluate_subject(
    bundle: Bundle,
    table: FeatureTable,
    methods: Sequence[Method],
    *,
    source: SourceFeatures | None = None,
    numbers: RunNumbers = RunNumbers(),
) -> list[EvaluationRow]:
    """Adapt to one target subject's neutral clip with every method and score each on the subject's test rows.

    With the scope ``dataset``: adapt once to all rows, unlabelled and of all classes, and score each of their subjects.

    Args:
        bundle: Trained without these subjects.
        table: Rows of one subject, or of a data set of them.
        methods: What to run.
        source: Source rows for the methods that need them; without, those fail.
        numbers: How, and what is recorded.

    Returns:
        A row a method and subject. A method that fails gives rows with its error, and the others still run.

    Raises:
        InputError: Not one subject, a source subject, or rows that can't be split.
    """
    names = table.subject_names_present()
    if numbers.scope == "person" and len(names) != 1:
        raise InputError(f"an evaluation takes the rows of one target subject, got {len(names)}")
    bundle.check_new(names)
    if table.classes != bundle.classes:
        raise InputError(f"the rows have classes {', '.join(table.classes)}, the bundle {', '.join(bundle.classes)}")
    if numbers.scope == "person":
        split, seed = split_target(table, numbers.gap), bundle.seed
        split = reduced_split(table, split, seed, frames=numbers.frames, contamination=numbers.contamination)
    else:
        split = split_dataset(table, numbers.gap)
    return [row for method in methods for row in _rows(bundle, table, split, method, source, numbers)]


def _rows(
    bundle: Bundle,
    table: FeatureTable,
    split: Split,
    method: Method,
    source: SourceFeatures | None,
    numbers: RunNumbers,
) -> list[EvaluationRow]:
    """Run one method and return a row a subject."""
    names = table.subject_names_present()
    whole = numbers.scope == "dataset"
    seed = run_seed(bundle.seed, method.name, "the target data set" if whole else names[0])
    start = time.perf_counter()
    try:
        if method.needs_labels and not whole:
            probabilities, model = oracle_probabilities(bundle, table, split, method)
            seconds = time.perf_counter() - start
        else:
            model = adapted_model(bundle, table, split, method, source, seed, whole)
            seconds = time.perf_counter() - start
            probabilities = model.predict_proba(table.embeddings[split.test])
        flops = math.nan
        if numbers.count_flops:
            flops = count_flops(lambda: adapted_model(bundle, table, split, method, source, seed, whole))
    except (FeatlabError, RuntimeError) as error:
        # A RuntimeError is how torch says that a computation failed: out of memory, an eigenvalue that isn't found.
        return failed_rows(method, names, numbers, error, time.perf_counter() - start)
    gain = method.source_gain(bundle)
    cost = {
        "adapt_frames": len(split.adapt),
        "seconds": seconds,
        "iterations": model.iterations,
        "trainable": model.trainable,
        "flops": flops,
        "source_gain": gain.mean if gain else math.nan,
        "carried_share": bundle.share.value if gain else math.nan,
        "share_people": bundle.share.people if gain else 0,
    }
    rows = []
    for name in names:
        mine = table.subject[split.test] == table.subjects.index(name)
        try:
            rows.append(_row(table, split.test[mine], probabilities[mine], method, name, numbers, cost))
        except InputError as error:
            rows += failed_rows(method, [name], numbers, error, seconds)
    return rows


def adapted_model(
    bundle: Bundle,
    table: FeatureTable,
    split: Split,
    method: Method,
    source: SourceFeatures | None,
    seed: int,
    whole: bool = False,
) -> AdaptedModel:
    """Adapt a method as an evaluation does: an oracle gets the labels, a source-access method the source rows.

    ``whole`` says that the target is a data set, not one person's neutral clip.
    """
    target = target_of(table, split.adapt)
    if whole and method.needs_neutral:
        raise InputError(f"{method.name} takes one person's neutral clip; a data set of people and classes is none")
    given: dict[str, Any] = {"labels": table.label[split.adapt]} if method.needs_labels else {}
    if method.needs_source:
        given["source"] = source
    return method.adapt(bundle, target, seed=seed, **given)


ORACLE_FOLDS = 5


def oracle_probabilities(
    bundle: Bundle, table: FeatureTable, split: Split, method: Method
) -> tuple[NDArray[np.float32], AdaptedModel]:
    """Return (m, K) probabilities of the test rows by a model that knows the labels, and the model of the last fold.

    The test rows are dealt into folds; each is predicted by a model tuned on all other rows of the subject, adapt rows
    included. With ``folds = "blocks"`` each test video is cut into 5 blocks in time: the model knows other moments of
    the very video, so this is a ceiling that no method can reach. With ``"videos"`` whole videos are left out.
    """
    fold = _folds(table, split.test, method.config.folds)
    probabilities = np.empty((len(split.test), len(bundle.classes)), dtype=np.float32)
    for number in np.unique(fold):
        held_out = fold == number
        seen = np.concatenate([split.adapt, split.test[~held_out]])
        model = adapted_model(bundle, table, replace(split, adapt=seen), method, None, seed=0)
        probabilities[held_out] = model.predict_proba(table.embeddings[split.test[held_out]])
    return probabilities, model


def _folds(table: FeatureTable, test: NDArray[np.intp], kind: str) -> NDArray[np.int64]:
    """Return (m,) fold numbers of the test rows: blocks in time of each video, or whole videos dealt in turn."""
    videos, code = np.unique(table.video[test], return_inverse=True)
    if kind == "videos" and len(videos) > 1:
        return (code % min(len(videos), ORACLE_FOLDS)).astype(np.int64)
    fold = np.empty(len(test), dtype=np.int64)
    for number in range(len(videos)):
        rows = np.flatnonzero(code == number)
        rows = rows[np.argsort(table.frame[test[rows]], kind="stable")]
        # Each video starts with another fold: those of a single frame would all be left out at once.
        fold[rows] = (number + np.arange(len(rows)) * ORACLE_FOLDS // len(rows)) % ORACLE_FOLDS
    return fold


def failed_rows(
    method: Method,
    subjects: Sequence[str],
    numbers: RunNumbers,
    error: FeatlabError | RuntimeError,
    seconds: float = 0.0,
) -> list[EvaluationRow]:
    """Return a row for each subject on whom a method failed, with the first line of the reason."""
    reason = next(iter(str(error).splitlines()), "failed without a message")
    return [EvaluationRow(**_whose(method, subject, numbers), error=reason, seconds=seconds) for subject in subjects]


def _whose(method: Method, subject: str, numbers: RunNumbers) -> dict[str, Any]:
    """Return the fields of a row that say what was run on whom."""
    who = {"method": method.name, "subject": subject, "selection": method.selection}
    return who | {"draw": numbers.draw, "seed": numbers.seed, "scope": numbers.scope}


def _row(
    table: FeatureTable,
    test: NDArray[np.intp],
    probabilities: NDArray[np.float32],
    method: Method,
    subject: str,
    numbers: RunNumbers,
    cost: Mapping[str, Any],
) -> EvaluationRow:
    """Score one subject's test rows, as they are, smoothed, and video by video."""
    labels, video, neutral = table.label[test], table.video[test], table.neutral_code
    videos = subject_metrics(*video_scores(labels, probabilities, video), neutral)
    smoothed = math.nan
    if numbers.smoothing > 1:
        averaged = smooth_probabilities(probabilities, video, table.frame[test], numbers.smoothing)
        smoothed = subject_metrics(labels, averaged, neutral).macro_f1
    return EvaluationRow(
        **_whose(method, subject, numbers),
        macro_f1_smoothed=smoothed,
        videos=videos.frames,
        video_macro_f1=videos.macro_f1,
        video_accuracy=videos.accuracy,
        video_balanced_accuracy=videos.balanced_accuracy,
        reliability=tuple(reliability_counts(probabilities, labels).ravel().tolist()),
        **vars(subject_metrics(labels, probabilities, neutral)),
        **cost,
    )


def count_flops(run: Callable[[], object]) -> float:
    """Run something once and return its floating-point operations, as torch counts them.

    torch counts matrix products and convolutions, forward and backward; what is done by elements, by decompositions or
    in other libraries (k-means, logistic regression) is not in it. Counting slows a run down, so it is not timed.
    """
    with _Counter() as counter:  # type: ignore[no-untyped-call]
        run()
    return float(counter.flops)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up torch's own formulas: `FlopCounterMode` also follows modules, and imports torch's compiler for it."""

    flops = 0


def _count(self: _Counter, operator: Any, types: Any, given: Any = (), options: Any = None) -> Any:
    from torch.utils.flop_counter import flop_registry

    options = options or {}
    formula = flop_registry.get(operator.overloadpacket)
    if formula is None:
        with self:
            parts = operator.decompose(*given, **options)
        if parts is not NotImplemented:
            return parts
    result = operator(*given, **options)
    if formula is not None:
        self.flops += formula(*given, **options, out_val=result)
    return result


# Not in the class's body: there torch would import its compiler, for a second, to exempt it.
_Counter.__torch_dispatch__ = _count  # type: ignore[assignment, method-assign]

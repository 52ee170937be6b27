"""Lines of results: one method, on one target subject, in one draw, with one seed; and a subject's scores from them.

They are stored as JSON lines.
"""

from __future__ import annotations

import math
import platform
import re
import typing
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.schema import parse_json
from featlab.config.options import check_choice
from featlab.config.sections import SCOPES
from featlab.errors import FeatlabError, InputError, closest, one_line
from featlab.evaluation.metrics import BINS, SubjectMetrics

if TYPE_CHECKING:
    from featlab.workspace.workspace import Workspace

SELECTIONS = ("source-free", "oracle", "source-access")
"""What a method was allowed to see: nothing of source or labels, the target's labels, or the source rows."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(SubjectMetrics):
    """What one run gave: its scores, and how it came about. Older files lack some of what has a default."""

    method: str  # Registry name, e.g. ``"source-only"``, ``"pft"``, ``"oracle"``.
    subject: str  # The target subject.
    draw: int  # Number of the random draw of target subjects.
    seed: int  # Number of the seed within the draw.
    selection: str  # One of `SELECTIONS`.
    scope: str = "person"  # One of `featlab.config.sections.SCOPES`.
    error: str = ""  # Why the run failed, one line; empty when it did not.
    adapt_frames: int = 0  # Rows that the method adapted on.
    seconds: float = 0.0  # Wall time of the adaptation.
    iterations: int = 0  # Optimiser steps.
    trainable: int = 0  # Parameters that were updated.
    flops: float = math.nan  # Of the adaptation's matrix products, as torch counts them; NaN where not counted.
    macro_f1_smoothed: float = math.nan  # Of probabilities averaged over neighbouring frames; NaN when that is off.
    # For each of the 15 bins of `featlab.evaluation.metrics` the test rows in it, the sum of their confidence and
    # those that are right, 45 numbers in all; empty in older files.
    reliability: tuple[float, ...] = ()
    # What the method gained on held-out source people, in macro F1; NaN where it can't tell.
    source_gain: float = math.nan
    # The source model's carried share, and how many held-out source people chose it; NaN where it isn't used.
    carried_share: float = math.nan
    share_people: int = 0
    videos: int = 0  # How many were scored as one row each, see `featlab.evaluation.metrics.video_scores`.
    video_macro_f1: float = math.nan
    video_accuracy: float = math.nan  # WAR of the literature.
    video_balanced_accuracy: float = math.nan  # UAR of the literature.

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, SCOPES)
        check_choice("selection", self.selection, SELECTIONS)
        if not self.error and not math.isfinite(self.macro_f1):
            raise InputError(f"{self.method} on {self.subject} has no finite macro_f1 and no error that says why")
        if len(self.reliability) not in (0, 3 * BINS):
            raise InputError(f"reliability has {len(self.reliability)} numbers, expected {3 * BINS} or none")
        if len(self.confusion) not in (0, len(self.histogram) ** 2):
            raise InputError(f"confusion has {len(self.confusion)} counts, expected {len(self.histogram) ** 2} or none")

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold, of whom it is first; NaN becomes ``None``."""
        names = dict.fromkeys(("method", "subject", "draw", "seed", *vars(self)))
        return {name: jsonable(getattr(self, name)) for name in names}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EvaluationRow:
        """Read back what `to_dict` gave; an InputError names a key or a value that does not fit."""
        kinds = typing.get_type_hints(cls)
        for name in data:
            if name not in kinds:
                raise InputError(f"unknown key {name!r}{closest(str(name), kinds)}")
        missing = [item.name for item in fields(cls) if item.default is MISSING and item.name not in data]
        if missing:
            raise InputError(f"missing {', '.join(missing)}")
        return cls(**{name: _read_value(name, kinds[name], value) for name, value in data.items()})


def read_results(path: Path) -> list[EvaluationRow]:
    """Read rows, one a line; blank lines are passed over, a damaged one is named with its file."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({one_line(error)}); give a .jsonl file of results") from error
    rows = []
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            if not isinstance(data := parse_json(line.decode("utf-8")), dict):
                raise InputError("no JSON object")
            rows.append(EvaluationRow.from_dict(data))
        except ValueError as error:
            why = one_line(error) if isinstance(error, FeatlabError) else f"no JSON ({one_line(error)})"
            raise InputError(f"{path}, line {number}: {why}; remove it, or run the evaluation again") from error
    return rows


def run_facts(workspace: Workspace, targets: Sequence[str] = ()) -> dict[str, Any]:
    """Return what made the results of a run: configuration, digest and extractor of the cache, versions.

    Targets are named where nothing else of the results does it: `featlab forget` finds them by it.
    """
    extractor = workspace.extractor
    return {
        "config": workspace.config.to_dict(),
        "cache_digest": workspace.cache_digest,
        "extractor": {"id": extractor.id, "fingerprint": extractor.fingerprint},
        "versions": versions(),
        **({"targets": [*targets]} if targets else {}),
    }


def versions() -> dict[str, str]:
    """Return the versions that a result depends on; what is not installed under its usual name is left out."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("featlab", "torch", "numpy", "scikit-learn", "faiss-cpu", "h5py"):
        # conda, for one, calls faiss something else.
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def jsonable(value: Any) -> Any:
    """Return ``value`` with NaN as ``None`` and tuples as lists, so that strict JSON can hold it."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, (tuple, list)):
        return [jsonable(item) for item in value]
    return value


def _read_value(name: str, kind: Any, value: Any) -> Any:
    """Return a JSON value as the field's type, or raise. A bool is no integer here, though Python says it is."""
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_read_value(name, typing.get_args(kind)[0], item) for item in value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    if kind is int and type(value) is int and value >= 0:
        return value
    if kind is float and value is None:
        return math.nan
    if kind is float and type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    wanted = {tuple[int, ...]: "whole numbers", tuple[float, ...]: "numbers"}
    raise InputError(f"{name} is {value!r}, expected {wanted.get(kind) or kind.__name__}")


SubjectDraw = tuple[str, int]
"""A subject in one draw: what is compared between methods, since another draw has another source model."""

Field = str | Callable[[EvaluationRow], float]
"""Name of a numeric field of `EvaluationRow`, or what reads a number from a row."""


def subject_means(
    rows: Sequence[EvaluationRow], field: Field = "macro_f1", only: Collection[SubjectDraw] | None = None
) -> dict[str, float]:
    """Return each subject's mean of one field: over seeds within a draw, then over draws; in the order of the rows.

    Rows with an error and those where the field is NaN are left out. ``only`` keeps these (subject, draw).
    """

    def read(row: EvaluationRow) -> float:
        return float(getattr(row, field) if isinstance(field, str) else field(row))

    return {name: float(value) for name, value in _means(rows, read, only).items()}


def common_subject_means(*methods: Sequence[EvaluationRow]) -> dict[str, tuple[float, ...]]:
    """Return each subject's macro F1 in every method given, over the (subject, draw) that all of them finished."""
    finished = [{(row.subject, row.draw) for row in rows if not row.error} for rows in methods]
    means = [subject_means(rows, only=set.intersection(*finished)) for rows in methods]
    return {subject: tuple(scores[subject] for scores in means) for subject in means[0]}


def shared_scores(rows: Sequence[EvaluationRow]) -> dict[str, tuple[float, ...]]:
    """Return the macro F1 of every method but oracles on the subjects that all of them finished, in one order.

    A method without a finished run is left out and stands in nobody's way; no mean where no subject is shared.
    """
    finished: dict[str, list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        if not row.error and row.selection != "oracle":
            finished[row.method].append(row)
    shared = list(common_subject_means(*finished.values()).values()) if finished else []
    return {method: tuple(scores[place] for scores in shared) for place, method in enumerate(finished)}


def pooled_reliability(rows: Sequence[EvaluationRow]) -> NDArray[np.float64] | None:
    """Return the reliability of one method with the frames of all its subjects pooled, every subject weighing the same.

    (15, 3) fractions of the frames, see `featlab.evaluation.metrics.reliability_counts`; ``None`` without a row that
    has it.
    """
    shares = _means([row for row in rows if row.reliability], lambda row: np.array(row.reliability) / row.frames)
    return np.mean(list(shares.values()), axis=0).reshape(-1, 3) if shares else None


def _means(
    rows: Sequence[EvaluationRow], read: Callable[[EvaluationRow], Any], only: Collection[SubjectDraw] | None = None
) -> dict[str, Any]:
    """Return each subject's mean of what is read from rows, a number or an array, as `subject_means` does."""
    by_draw: dict[SubjectDraw, list[Any]] = defaultdict(list)
    for row in rows:
        if not row.error and (only is None or (row.subject, row.draw) in only):
            value = read(row)
            if not np.isnan(value).any():
                by_draw[row.subject, row.draw].append(value)
    by_subject: dict[str, list[Any]] = defaultdict(list)
    for (subject, _), values in by_draw.items():
        by_subject[subject].append(np.mean(values, axis=0))
    return {subject: np.mean(values, axis=0) for subject, values in by_subject.items()}


_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def failure_reasons(rows: Sequence[EvaluationRow]) -> dict[str, list[EvaluationRow]]:
    """Return reason to the rows that failed for it, in the order in which they first appear.

    "needs 8 rows, got 5" on one subject and "needs 8 rows, got 6" on another are the reason "needs 8 rows, got …".
    """
    alike: dict[tuple[str, ...], list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        if row.error:
            alike[tuple(_NUMBER.split(row.error))].append(row)
    return {_merged([row.error for row in group]): group for group in alike.values()}


def _merged(errors: Sequence[str]) -> str:
    """Return messages that differ in numbers only as one, with an ellipsis where they differ."""
    found = [_NUMBER.findall(error) for error in errors]
    numbers = iter([same[0] if len(set(same)) == 1 else "…" for same in zip(*found, strict=True)])
    return _NUMBER.sub(lambda _: next(numbers), errors[0])

"""Which class is taken for which: shares of each subject's frames of a class, averaged over subjects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.analysis.evaluation.words import percent
from featlab.analysis.table import Settings, Table, failure_notes, marked_name, number_text, rows_by_method
from featlab.errors import InputError, closest
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import subject_means

__all__ = [
    "MOST_PANELS",
    "Confusion",
    "confusion_columns",
    "confusion_methods",
    "confusion_of",
    "confusion_table",
    "confusion_words",
]

MOST_PANELS = 4
"""Methods that go side by side."""
_DEFAULT = ("source-only", "pft")
_CHANGES = 2
"""Changes against the first method that are put into words."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """What one method takes for what.

    Attributes:
        method: Registry name.
        selection: One of `featlab.evaluation.results.SELECTIONS`.
        share: float64 (K, K): of the frames of the class of the row, the share predicted as the class of the column,
            mean over subjects; a row sums to 1, or is NaN where no subject has the class.
        subjects: (K,) how many subjects have frames of each class.
    """

    method: str
    selection: str
    share: NDArray[np.float64]
    subjects: tuple[int, ...]


def confusion_methods(rows: Sequence[EvaluationRow], names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return whose confusions to show: those named; else source-only and pft; where neither is there, the first two.

    Raises:
        InputError: A method that the results don't have, too many, or none that finished a run.
    """
    groups = rows_by_method(rows)
    if len(names) > MOST_PANELS:
        raise InputError(f"--methods names {len(names)} methods, and {MOST_PANELS} go side by side; name fewer")
    for name in names:
        if name not in groups:
            raise InputError(f"the results have no method {name!r}, but {', '.join(groups)}{closest(name, groups)}")
    finished = [method for method, group in groups.items() if any(not row.error for row in group)]
    for name in names:
        if name not in finished:
            raise InputError(f"every run of {name} failed: {groups[name][0].error}; leave it out of --methods")
    if not finished:
        raise InputError("every run in the results failed; run the evaluation again")
    usual = [name for name in _DEFAULT if name in finished]
    return tuple(dict.fromkeys(names)) or tuple(usual or finished[: len(_DEFAULT)])


def confusion_of(rows: Sequence[EvaluationRow], method: str) -> Confusion:
    """Average one method's confusions: over seeds within a draw, over draws, then over the subjects that have a class.

    The diagonal is the mean recall of each class, as `featlab.analysis.evaluation.subject_tables` has it.

    Args:
        rows: Results.
        method: One of theirs, with a finished run.

    Raises:
        InputError: Rows without counts, of before there were any, or of different numbers of classes.
    """
    mine = [row for row in rows if row.method == method and not row.error]
    if any(not row.confusion for row in mine):
        raise InputError(
            f"the results of {method} were written before confusions were counted; run the same evaluation again"
        )
    sizes = {len(row.histogram) for row in mine}
    if len(sizes) != 1:
        found = " and ".join(map(str, sorted(sizes)))
        raise InputError(f"results of {found} classes do not go into one figure; give results of one data set")
    count = sizes.pop()
    shares = {id(row): _shares(row, count) for row in mine}

    def cell(label: int, predicted: int) -> Callable[[EvaluationRow], float]:
        return lambda row: float(shares[id(row)][label, predicted])

    means = [[subject_means(mine, cell(label, predicted)) for predicted in range(count)] for label in range(count)]
    share = [[float(np.mean(list(found.values()))) if found else math.nan for found in line] for line in means]
    return Confusion(method, mine[0].selection, np.array(share), tuple(len(line[0]) for line in means))


def confusion_columns(confusions: Sequence[Confusion], classes: Sequence[str]) -> dict[str, list[Any]]:
    """Return the numbers of `featlab.analysis.evaluation.plot_confusion.plot_confusion`, a line a cell.

    Columns: method, label, predicted, share (fraction; NaN where nobody has the class), subjects.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("method", "label", "predicted", "share", "subjects")}
    for item in confusions:
        for place, label in enumerate(classes):
            columns["method"] += [item.method] * len(classes)
            columns["label"] += [label] * len(classes)
            columns["predicted"] += classes
            columns["share"] += item.share[place].tolist()
            columns["subjects"] += [item.subjects[place]] * len(classes)
    return columns


def confusion_table(
    rows: Sequence[EvaluationRow],
    confusions: Sequence[Confusion],
    classes: Sequence[str],
    *,
    settings: Settings | None = None,
) -> Table:
    """Return true classes down, method by method, predicted classes across, in percent; right ones are bold.

    Args:
        rows: Results, for a note on failed runs.
        confusions: Of them.
        classes: The K names.
        settings: Method to (setting, display name).
    """
    cells, bold = [], []
    for item in confusions:
        name = marked_name(item.method, item.selection, settings)
        for place, label in enumerate(classes):
            shares = [number_text(100 * value, 2) for value in item.share[place].tolist()]
            cells.append((name, label, *shares, str(item.subjects[place])))
            bold.append((False, False, *(column == place for column in range(len(classes))), False))
    shown = {item.method: marked_name(item.method, item.selection, settings) for item in confusions}
    groups = {shown[method]: group for method, group in rows_by_method(rows).items() if method in shown}
    return Table(
        title="Share of the frames of each true class (%), by predicted class, mean over target subjects",
        columns=("Method", "True class", *classes, "Subjects"),
        rows=tuple(cells),
        bold=tuple(bold),
        notes=("Subjects: those with test frames of the class; each weighs the same.", *failure_notes(groups)),
        text_columns=2,
        grouped=True,
    )


def confusion_words(
    confusions: Sequence[Confusion], classes: Sequence[str], names: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return what the confusions say, a sentence or two a method.

    Args:
        confusions: The first is what the others are compared with.
        classes: The K names.
        names: Method to display name.
    """
    words = []
    for item in confusions:
        name = (names or {}).get(item.method, item.method)
        mistakes = _mistakes(item.share)
        right = percent(float(np.nanmean(np.diag(item.share))))
        line = f"{name}: {right} % of a class's frames are recognised, in the mean over classes"
        if np.nanmax(mistakes, initial=0.0) > 0:
            label, predicted = _place(mistakes)
            worst = percent(float(mistakes[label, predicted]))
            line += f"; most often {classes[label]} is taken for {classes[predicted]} ({worst} % of its frames)"
        words.append(line + ".")
        if item is not confusions[0]:
            words += _change(confusions[0], item, classes, names or {})
    return tuple(words)


def _change(first: Confusion, item: Confusion, classes: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Return the mistakes whose share changed most, whether they became rarer or more frequent."""
    change = np.nan_to_num(_mistakes(item.share) - _mistakes(first.share))
    said = []
    for place in np.argsort(-np.abs(change), axis=None, kind="stable")[:_CHANGES].tolist():
        label, predicted = divmod(place, len(classes))
        if change[label, predicted]:
            word = "more" if change[label, predicted] > 0 else "less"
            before, after = (percent(float(part.share[label, predicted])) for part in (first, item))
            said.append(f"{classes[label]} is taken for {classes[predicted]} {word} often ({before} to {after} %)")
    against = names.get(first.method, first.method)
    return [f"Compared with {against}, {', and '.join(said)}."] if said else []


def _shares(row: EvaluationRow, count: int) -> NDArray[np.float64]:
    """Return (K, K) shares of the frames of each true class; NaN for one that isn't shown."""
    counts = np.array(row.confusion, dtype=np.float64).reshape(count, count)
    totals = counts.sum(axis=1, keepdims=True)
    return counts / np.where(totals > 0, totals, np.nan)


def _mistakes(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.eye(len(share), dtype=bool), np.nan, share)


def _place(values: NDArray[np.float64]) -> tuple[int, int]:
    """Return row and column of the largest value."""
    row, column = divmod(int(np.nanargmax(values)), values.shape[1])
    return row, column

"""Which class is taken for which: shares of each subject's frames of a class, averaged over subjects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.evaluation import failure_notes, figure_name, method_name, note_access, rows_by_method
from featlab.analysis.evaluation.stored import StoredResults, class_names
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.style import folded
from featlab.analysis.table import Column, Table, columns_of, make_table, number_text, score_text, share_text
from featlab.errors import InputError, closest
from featlab.evaluation.results import EvaluationRow, subject_means

MOST_PANELS = 4  # Methods that go side by side.
_DEFAULT = ("source-only", "pft")


@dataclass(frozen=True, eq=False)
class Confusion:
    """What one method takes for what."""

    method: str  # Registry name.
    selection: str  # One of `featlab.evaluation.results.SELECTIONS`.
    # float64 (K, K): of the frames of the class of the row, the share predicted as the class of the column, mean over
    # subjects; a row sums to 1, or is NaN where no subject has the class.
    share: NDArray[np.float64]
    subjects: tuple[int, ...]  # (K,) how many subjects have frames of each class.


def confusion_methods(rows: Sequence[EvaluationRow], names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return whose confusions to show: those named; else source-only and pft; where neither is there, the first two."""
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
    """Average one method's confusions over seeds in a draw, over draws, then over the subjects who have a class."""
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
    """Return the numbers of `plot_confusion`, a line a cell; NaN where nobody has the class."""
    lines = [
        (item.method, label, predicted, share, item.subjects[place])
        for item in confusions
        for place, label in enumerate(classes)
        for predicted, share in zip(classes, item.share[place].tolist(), strict=True)
    ]
    return columns_of(("method", "label", "predicted", "share", "subjects"), lines)


def confusion_table(rows: Sequence[EvaluationRow], confusions: Sequence[Confusion], classes: Sequence[str]) -> Table:
    """Return true classes down, method by method, predicted classes across, in percent."""

    def share(predicted: int) -> Callable[[tuple[Confusion, int]], str]:
        return lambda line: score_text(float(line[0].share[line[1], predicted]))

    columns = [
        Column[tuple[Confusion, int]]("Method", lambda line: method_name(line[0].method, line[0].selection), text=True),
        Column("True class", lambda line: classes[line[1]], text=True),
        *(Column(name, share(code)) for code, name in enumerate(classes)),
        Column("Subjects", lambda line: str(line[0].subjects[line[1]])),
    ]
    lines = [(item, code) for item in confusions for code in range(len(classes))]
    shown = [item.method for item in confusions]
    groups = {method: group for method, group in rows_by_method(rows).items() if method in shown}
    return make_table(
        "Share of the frames of each true class (%), by predicted class, mean over target subjects",
        columns,
        lines,
        notes=("Subjects: those with test frames of the class; each weighs the same.", *failure_notes(groups)),
        grouped=True,
    )


def confusion_result(stored: StoredResults, methods: Sequence[str]) -> Result:
    """Return the confusions of stored results: the figure, its numbers as a table, one sentence."""
    confusions = [confusion_of(stored.rows, method) for method in confusion_methods(stored.rows, methods)]
    classes, note = class_names(stored, len(confusions[0].share))
    columns = confusion_columns(confusions, classes)
    figure = DrawnFigure(
        "confusion",
        "Which class is taken for which",
        "Of the test frames of each true class, the share that is predicted as each class: within a subject first, "
        "then the mean over the subjects who have the class.",
        plot_confusion(confusions, classes),
        columns,
    )
    right = [f"{share_text(float(np.nanmean(np.diag(item.share))))} with {item.method}" for item in confusions]
    return Result(
        kind="plot",
        title=figure.title,
        summary=[f"Of the frames of a class are recognised, in the mean over classes: {', '.join(right)}."],
        tables={"confusion": confusion_table(stored.rows, confusions, classes)},
        figures=[figure],
        metadata={**stored.facts, "results": stored.name},
        data={"results": stored.path, "confusion": columns},
        notes=[note] if note else [],
    )


def _shares(row: EvaluationRow, count: int) -> NDArray[np.float64]:
    """Return (K, K) shares of the frames of each true class; NaN for one that isn't shown."""
    counts = np.array(row.confusion, dtype=np.float64).reshape(count, count)
    totals = counts.sum(axis=1, keepdims=True)
    return counts / np.where(totals > 0, totals, np.nan)


_EVEN = 0.715  # Share on whose blue black and white letters have the same contrast, by WCAG 2.1.
_SMALL, _MOST = 7, 28  # Classes side by side that go into a paper's column, and onto a page.
_LETTER, _TITLE_LETTER = 0.055, 0.07  # Width of a letter, inches, of a class's name and of a title.
_NAME_LETTERS = 14  # Longest line of a class's name.
_ROOM_FOR_DECIMALS = 0.32  # Side of a cell, inches.


def plot_confusion(confusions: Sequence[Confusion], classes: Sequence[str]) -> Figure:
    """Draw one panel a method: true classes down, predicted ones across, shares of the true class in percent."""
    shown = [folded(name, _NAME_LETTERS) for name in classes]
    panels, count = len(confusions), len(classes)
    longest = _LETTER * max(len(line) for name in shown for line in name.split("\n"))
    width = style.COLUMN if panels < 3 and panels * count <= _SMALL else style.FULL
    across = panels if panels * count <= _MOST else 2
    side = (width - longest - 0.9) / across
    # Names that are too long to lie side by side beneath a panel are tilted.
    tilt: dict[str, Any] = {}
    if longest > side / count:
        tilt = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    selections = [item.selection for item in confusions]
    with style.house_style():
        drawn = style.figure(width, math.ceil(panels / across) * (side + 0.35) + 0.6 + 0.75 * longest * bool(tilt))
        for place, (panel, item) in enumerate(zip(style.panels(drawn, panels, across), confusions, strict=True)):
            panel.imshow(item.share, cmap="Blues", vmin=0, vmax=1)
            for (label, predicted), value in np.ndenumerate(item.share):
                number = number_text(100 * value, int(side / count > _ROOM_FOR_DECIMALS))
                colour, weight = "white" if value > _EVEN else "black", "bold" if label == predicted else "normal"
                look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": colour, "weight": weight}
                panel.text(predicted, label, number, fontsize=6.5, **look)
            title = folded(figure_name(item.method, item.selection), max(15, int(side / _TITLE_LETTER)))
            panel.set_title(title, fontweight="bold", fontsize=7.5)
            # The names stand where no other panel follows to the left or beneath.
            first, last = place % across == 0, place + across >= panels
            panel.set_xticks(range(count), shown if last else [""] * count, **tilt)
            panel.set_yticks(range(count), shown if first else [""] * count)
            panel.set(xlabel="Predicted class" if last else "", ylabel="True class (100 %)" if first else "")
            panel.spines[:].set_visible(False)
            panel.tick_params(length=0)
        note_access(drawn, selections)
    return drawn

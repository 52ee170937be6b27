"""What a table is, whoever makes or renders it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from featlab.evaluation.metrics import BINS
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import failure_reasons

__all__ = [
    "FAILED",
    "MISSING",
    "Settings",
    "Table",
    "best_notes",
    "bold_largest",
    "by_setting",
    "calibration_notes",
    "competes",
    "failure_notes",
    "flops_text",
    "interval_text",
    "label",
    "marked_name",
    "number_of",
    "number_text",
    "p_text",
    "rows_by_method",
    "scope_notes",
    "score_text",
    "share_text",
    "smoothing_notes",
]

MISSING = "–"

Settings = Mapping[str, tuple[str, str]]
"""Method name to (setting, display name), e.g. ``{"shot": ("SFDA (model-based)", "SHOT (Liang et al., 2020)")}``."""


@dataclass(frozen=True)
class Table:
    """Text cells and which of them are the best; how it looks is the business of `featlab.analysis.render`.

    Attributes:
        title: One line above it; may be empty.
        columns: Column names.
        rows: Cells, one tuple a row, each as long as ``columns``.
        bold: Same shape as ``rows``.
        notes: Lines beneath it.
        text_columns: How many columns on the left are words; the rest are numbers and go to the right.
        grouped: Whether rows with the same first cell belong together (shown once, ruled off from the next).
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: tuple[tuple[bool, ...], ...]
    notes: tuple[str, ...] = ()
    text_columns: int = 1
    grouped: bool = False


FAILED = "failed"
"""The cell of what could not be run; a note says why."""

_DEFAULT_SETTINGS: Settings = {
    "source-only": ("Source-only", "Source model (no adaptation)"),
    "oracle": ("Oracle", "Supervised fine-tuning"),
    "pft": ("SFDA-PFT", "SFDA-PFT"),
}
_MARKS = {"oracle": " [target labels]", "source-access": " [source access]"}
_NAMED = 6
"""Subjects that a note names; more of them are counted."""


def rows_by_method(rows: Iterable[EvaluationRow]) -> dict[str, list[EvaluationRow]]:
    """Return method to its rows, in the order in which the methods first appear."""
    groups: dict[str, list[EvaluationRow]] = {}
    for row in rows:
        groups.setdefault(row.method, []).append(row)
    return groups


def label(method: str, selection: str, settings: Settings | None) -> tuple[str, str]:
    """Return (setting, display name); what saw labels or source rows says so, whatever it is called."""
    setting, name = _known_label(method, selection, settings)
    said = selection != "source-access" or "source access" in setting.lower()
    return setting, name if said else name + _MARKS[selection]


def marked_name(method: str, selection: str, settings: Settings | None) -> str:
    """Return the name in a table without settings; what saw labels or source rows is marked, whatever it is called."""
    name = settings[method][1] if settings and method in settings else method
    return name if name == "oracle" else name + _MARKS.get(selection, "")


def by_setting(settings: Mapping[str, str]) -> list[str]:
    """Return the methods with those of one setting together: source-only first, oracles last, else as they came."""
    order = list(dict.fromkeys(settings.values()))
    order.sort(key=lambda setting: {"Source-only": -1, "Oracle": 1}.get(setting, 0))
    return sorted(settings, key=lambda method: order.index(settings[method]))


def competes(selection: str) -> bool:
    """Return whether a method may be the best: not with source rows against those without, nor with target labels."""
    return selection == "source-free"


def bold_largest(
    cells: Sequence[Sequence[str]], competing: Sequence[Sequence[bool]], first: int
) -> tuple[tuple[bool, ...], ...]:
    """Mark the largest number of each column as it is shown, so that what looks equal is equal.

    Args:
        cells: Rows of text.
        competing: For each row, whether its cells from column ``first`` on may be the best.
        first: First column of numbers.
    """
    bold = [[False] * len(line) for line in cells]
    for column in range(first, len(cells[0]) if cells else first):
        values = {
            row: value
            for row, line in enumerate(cells)
            if competing[row][column - first] and (value := number_of(line[column])) is not None
        }
        for row, value in values.items():
            bold[row][column] = value == max(values.values())
    return tuple(tuple(line) for line in bold)


def best_notes(selections: Iterable[str]) -> list[str]:
    """Return what bold means where some methods with source access stand among the others."""
    if "source-access" not in selections:
        return []
    return ["Bold: the best without source rows; methods with source access and oracles do not compete."]


def scope_notes(scopes: Iterable[str]) -> list[str]:
    """Return what was adapted to, where it isn't one person's neutral clip."""
    if "dataset" not in scopes:
        return []
    return ["Adapted to all target subjects together, every class among their rows."]


def smoothing_notes(scores: Iterable[float], window: int) -> list[str]:
    """Return how predictions were smoothed, where some were.

    Args:
        scores: Smoothed scores; NaN where there is none.
        window: Frames averaged over; 0 where nobody knows.
    """
    if all(math.isnan(score) for score in scores):
        return []
    over = f"{window} frames" if window else "neighbouring frames"
    return [
        f"Smoothed: macro F1 after averaging the predicted probabilities over {over} of a video, for every method "
        "alike; all else is frame by frame."
    ]


def calibration_notes(errors: Iterable[float]) -> list[str]:
    """Return what the calibration error is, where there is one."""
    if all(math.isnan(error) for error in errors):
        return []
    return [
        f"ECE: expected calibration error, how far confidence and accuracy are apart in the mean over {BINS} bins, "
        "every subject weighing the same; 0 is the best."
    ]


def failure_notes(groups: Mapping[str, Sequence[EvaluationRow]]) -> list[str]:
    """Return one note a method and reason: how many runs failed, on whom, and why.

    Args:
        groups: Display name to the rows of a method.
    """
    notes = []
    for name, rows in groups.items():
        for reason, failed in failure_reasons(rows).items():
            subjects = list(dict.fromkeys(row.subject for row in failed))
            where = ", ".join(subjects[:_NAMED])
            if len(subjects) > _NAMED:
                where += f" and {len(subjects) - _NAMED} more"
            few = f"{len(failed)} of {len(rows)} runs failed ({where})"
            notes.append(f"{name}: {'every run failed' if len(failed) == len(rows) else few}: {reason}")
    return notes


def score_text(value: float, fractions: bool) -> str:
    """Return 78.31, or 0.7831 as a fraction."""
    return number_text(value, 4) if fractions else number_text(100.0 * value, 2)


def interval_text(bounds: tuple[float, float], fractions: bool) -> str:
    """Return [70.12, 81.50]."""
    if any(math.isnan(bound) for bound in bounds):
        return MISSING
    return f"[{score_text(bounds[0], fractions)}, {score_text(bounds[1], fractions)}]"


def share_text(share: float) -> str:
    """Return 78.3 % for 0.783, for a sentence."""
    return f"{100 * share:.1f} %"


def number_text(value: float, decimals: int) -> str:
    """Return a number with so many decimals; NaN is a dash."""
    return MISSING if math.isnan(value) else f"{value:.{decimals}f}"


def flops_text(flops: float) -> str:
    """Return millions of operations, with three decimals below a hundred of them."""
    millions = flops / 1e6
    return number_text(millions, 0 if millions >= 100 else 3)


def p_text(value: float) -> str:
    """Return a p value, the smallest as a bound."""
    return "<0.001" if value < 0.001 else number_text(value, 3)


def number_of(cell: str) -> float | None:
    """Return the number that a cell shows; ``None`` for words, dashes, stars and bounds."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _known_label(method: str, selection: str, settings: Settings | None) -> tuple[str, str]:
    for known in (settings or {}, _DEFAULT_SETTINGS):
        if method in known:
            return known[method]
    if selection == "oracle":
        return "Oracle", method
    if selection == "source-access":
        return "Source access", method
    if method.startswith("pft-"):
        return "SFDA-PFT", f"SFDA-PFT ({method.removeprefix('pft-')})"
    return "Baselines", method

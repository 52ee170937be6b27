"""Result tables in the form of the papers: methods down, target subjects or numbers across, the best in bold."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from featlab.results import EvaluationRow
from featlab.summary import MethodSummary, subject_means

__all__ = ["MISSING", "Settings", "Table", "per_subject_table", "summary_table"]

MISSING = "–"

Settings = Mapping[str, tuple[str, str]]
"""Method name to (setting, display name), e.g. ``{"shot": ("SFDA (model-based)", "SHOT (Liang et al., 2020)")}``."""

_DEFAULT_SETTINGS: Settings = {
    "source-only": ("Source-only", "Source model (no adaptation)"),
    "oracle": ("Oracle", "Supervised fine-tuning"),
    "pft": ("SFDA-PFT", "SFDA-PFT"),
}


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


def per_subject_table(
    rows: Sequence[EvaluationRow],
    *,
    settings: Settings | None = None,
    title: str = "Macro F1 of each target subject",
    field: str = "macro_f1",
    fractions: bool = False,
    numbered: bool = False,
) -> Table:
    """Return the poster's table: Setting, Method, one column a subject, Average.

    The best of each column is bold (all of equal ones, as shown); methods that saw target labels do not compete, nor
    does an average over fewer subjects than the table has, which is marked with a star. A cell of which every run
    failed says so and a note says why.

    Args:
        rows: Results; seeds and draws are averaged within a subject.
        settings: Method to (setting, display name); methods it does not name get a default.
        title: Above the table.
        field: Which score, a field of `EvaluationRow`.
        fractions: Show 0.7831 instead of 78.31.
        numbered: Head the columns Sub-1, Sub-2, … instead of with the subjects' names.
    """
    groups: dict[str, list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        groups[row.method].append(row)
    subjects = list(dict.fromkeys(row.subject for row in rows))
    labels = {method: _label(method, group[0].selection, settings) for method, group in groups.items()}
    methods = _by_setting({method: label[0] for method, label in labels.items()})
    cells, competes = [], []
    for method in methods:
        means = subject_means(groups[method], field)
        errors = {row.subject for row in groups[method] if row.error} - set(means)
        scores = [means.get(subject, math.nan) for subject in subjects]
        line = [
            "failed" if subject in errors else _score(value, fractions)
            for subject, value in zip(subjects, scores, strict=True)
        ]
        known = [value for value in scores if not math.isnan(value)]
        average = _score(sum(known) / len(known) if known else math.nan, fractions)
        whole = len(known) == len(subjects)
        cells.append((*labels[method], *line, average if whole or not known else average + "*"))
        free = groups[method][0].selection != "oracle"
        competes.append((*[free] * len(subjects), free and whole))
    columns = [f"Sub-{number}" for number in range(1, len(subjects) + 1)] if numbered else subjects
    notes = _failure_notes({labels[method][1]: groups[method] for method in methods})
    if any(line[-1].endswith("*") for line in cells):
        notes.append("* average over fewer subjects than the table has")
    if numbered and subjects:
        notes.append("; ".join(f"{short}\u00a0=\u00a0{name}" for short, name in zip(columns, subjects, strict=True)))
    return Table(
        title=title,
        columns=("Setting", "Method", *columns, "Average"),
        rows=tuple(cells),
        bold=_bold_largest(cells, competes, first=2),
        notes=tuple(notes),
        text_columns=2,
        grouped=True,
    )


def summary_table(
    summaries: Sequence[MethodSummary],
    *,
    settings: Settings | None = None,
    title: str = "Mean over target subjects",
    fractions: bool = False,
    full: bool = False,
) -> Table:
    """Return one line a method: scores, comparison with source-only, cost.

    Args:
        summaries: From `featlab.summary.summarise`; their order is kept.
        settings: Method to (setting, display name); a method it does not name keeps its registry name.
        title: Above the table.
        fractions: Show scores as 0.7831 instead of 78.31.
        full: Every number, too wide for a terminal; by default the ones that decide.
    """
    columns = [column for column in _summary_columns(fractions) if full or column.always]
    cells, competes = [], []
    for item in summaries:
        shown = _summary_name(item, settings)
        cells.append((shown, *(column.show(item) for column in columns)))
        competes.append(tuple(column.best and item.selection != "oracle" for column in columns))
    notes = [
        "Macro F1: mean over subjects with its bootstrap interval. p: Wilcoxon against source-only, Holm-adjusted."
    ]
    notes += [
        f"{_summary_name(item, settings)}: {item.failed} of {item.failed + item.runs} runs failed"
        for item in summaries
        if item.failed
    ]
    return Table(
        title=title,
        columns=("Method", *(column.name for column in columns)),
        rows=tuple(cells),
        bold=_bold_largest(cells, competes, first=1),
        notes=tuple(notes) if summaries else (),
    )


@dataclass(frozen=True)
class _Column:
    name: str
    show: Callable[[MethodSummary], str]
    always: bool = True
    best: bool = False


def _summary_columns(fractions: bool) -> list[_Column]:
    def score(name: str) -> Callable[[MethodSummary], str]:
        return lambda item: _score(getattr(item, name), fractions)

    def interval(name: str) -> Callable[[MethodSummary], str]:
        return lambda item: _interval(getattr(item, name), fractions)

    return [
        _Column("Subjects", lambda item: str(item.subjects), always=False),
        _Column("Macro F1", score("macro_f1"), best=True),
        _Column("95 % interval", interval("ci95")),
        _Column("SD", score("sd"), always=False),
        _Column("SD over seeds", score("seed_sd"), always=False),
        _Column("Macro F1, all classes", score("macro_f1_all"), always=False, best=True),
        _Column("Accuracy", score("accuracy"), always=False, best=True),
        _Column("Balanced accuracy", score("balanced_accuracy"), always=False, best=True),
        _Column("Neutral recall", score("neutral_recall")),
        _Column("Non-neutral recall", score("non_neutral_recall")),
        _Column("Difference to source-only", score("difference_vs_source"), always=False),
        _Column("95 % interval of the difference", interval("difference_ci95"), always=False),
        _Column("Gap closed", lambda item: _number(item.gap_closed, 2)),
        _Column("Win/tie/loss", lambda item: f"{item.wins}/{item.ties}/{item.losses}", always=False),
        _Column(
            "Negative transfer", lambda item: MISSING if item.negative_transfer is None else str(item.negative_transfer)
        ),
        _Column("p", lambda item: _p_value(item.p_vs_source)),
        _Column("Collapsed", lambda item: f"{item.collapsed}/{item.runs}", always=False),
        _Column("Seconds", lambda item: _number(item.seconds, 2)),
        _Column("Iterations", lambda item: _number(item.iterations, 0), always=False),
        _Column("Trainable", lambda item: _number(item.trainable, 0), always=False),
        _Column("Failed", lambda item: str(item.failed), always=False),
    ]


def _summary_name(item: MethodSummary, settings: Settings | None) -> str:
    """Return the name in the first column; what saw labels or source rows is marked, whatever it is called."""
    name = settings[item.method][1] if settings and item.method in settings else item.method
    marks = {"oracle": " [target labels]", "source-access": " [source access]"}
    return name if name == "oracle" else name + marks.get(item.selection, "")


def _label(method: str, selection: str, settings: Settings | None) -> tuple[str, str]:
    """Return (setting, display name); what saw labels or source rows says so even when nobody named it."""
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


def _by_setting(settings: Mapping[str, str]) -> list[str]:
    """Return the methods with those of one setting together: source-only first, oracles last, else as they came."""
    order = list(dict.fromkeys(settings.values()))
    order.sort(key=lambda setting: {"Source-only": -1, "Oracle": 1}.get(setting, 0))
    return sorted(settings, key=lambda method: order.index(settings[method]))


def _bold_largest(
    cells: Sequence[Sequence[str]], competes: Sequence[Sequence[bool]], first: int
) -> tuple[tuple[bool, ...], ...]:
    """Mark the largest number of each column as it is shown, so that what looks equal is equal."""
    bold = [[False] * len(line) for line in cells]
    for column in range(first, len(cells[0]) if cells else first):
        values = {
            row: float(line[column])
            for row, line in enumerate(cells)
            if competes[row][column - first] and _is_number(line[column])
        }
        for row, value in values.items():
            bold[row][column] = value == max(values.values())
    return tuple(tuple(line) for line in bold)


def _failure_notes(groups: Mapping[str, Sequence[EvaluationRow]]) -> list[str]:
    notes = []
    for name, rows in groups.items():
        reasons: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row.error:
                reasons[row.error].append(row.subject)
        for reason, subjects in reasons.items():
            where = ", ".join(dict.fromkeys(subjects))
            notes.append(f"{name}: {len(subjects)} of {len(rows)} runs failed ({where}): {reason}")
    return notes


def _score(value: float, fractions: bool) -> str:
    return _number(value, 4) if fractions else _number(100.0 * value, 2)


def _interval(bounds: tuple[float, float], fractions: bool) -> str:
    if any(math.isnan(bound) for bound in bounds):
        return MISSING
    return f"[{_score(bounds[0], fractions)}, {_score(bounds[1], fractions)}]"


def _number(value: float, decimals: int) -> str:
    return MISSING if math.isnan(value) else f"{value:.{decimals}f}"


def _losses(item: MethodSummary) -> str:
    return MISSING if item.negative_transfer is None else str(item.negative_transfer)


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else _number(value, 3)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True

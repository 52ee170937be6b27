"""The result of an ablation: its numbers column by column, tables, sentences and figures. The unit is the subject."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from featlab.analysis.ablation import figures
from featlab.analysis.ablation.run import AblationReport, Point
from featlab.analysis.evaluation import competes
from featlab.analysis.evaluation.summary import LEVEL
from featlab.analysis.inside.faces import find_faces
from featlab.analysis.inside.pairs import example_pairs, known_strategies, pairs_figure
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.table import MISSING, Table, p_words
from featlab.config.analysis import LOSS_TERMS
from featlab.evaluation.statistics import Comparison, compare_scores
from featlab.evaluation.summary import MethodSummary
from featlab.workspace.workspace import Workspace

_WEIGHTS = {
    "source": ("λ of the style loss", "λ of the KL expression loss"),
    "target": ("λ of the style alignment", "λ of KL to the source model"),
}
_MEASURED = "neutral_recall", "non_neutral_recall", "negative_transfer", "trainable", "iterations", "subjects"
_LONGEST = 30  # Lines up to which a table is printed; the files have it always.


def ablation_result(report: AblationReport, examples: Sequence[DrawnFigure] = ()) -> Result:
    """Return figure, tables and sentences, and ``run.json`` with every result; ``examples`` follow the figure."""
    metadata = dict(next(iter(report.metadata.values())))
    if len(report.data_sets) > 1:
        metadata["data_sets"] = report.by_data_set()
    tables = ablation_tables(report)
    return Result(
        kind="ablate",
        title=f"Ablation: {report.grid.title}",
        summary=ablation_sentences(report),
        tables=tables,
        figures=[draw_ablation(report), *examples],
        metadata=metadata,
        data=report.to_dict(),
        files={"run.json": json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"},
        # Differences are in the sentences where they are clear, and all of them in the files.
        printed=[name for name, table in tables.items() if name != "differences" and len(table.rows) <= _LONGEST],
    )


def draw_ablation(report: AblationReport) -> DrawnFigure:
    """Return the figure of an ablation."""
    grid, data = report.grid, ablation_data(report)
    match grid.figure:
        case "bars":
            drawn = figures.plot_bars(data)
        case "dots":
            drawn = figures.plot_dots(data, terms=LOSS_TERMS if grid.name == "losses" else ())
        case "surface":
            drawn = figures.plot_surface(data, weights=_WEIGHTS)
        case "modes":
            drawn = figures.plot_modes(data)
        case _:
            drawn = figures.plot_lines(data, axis=grid.axis)
    lines = "" if grid.figure in ("surface", "modes") else ", lines are 95 % bootstrap intervals"
    return DrawnFigure(grid.name, grid.title, f"{grid.caption} Means over target subjects{lines}.", drawn, data)


def example_figures(workspace: Workspace, images: Path | None, notify: Callable[[str], None]) -> list[DrawnFigure]:
    """Return the figure of example pairs of the first draw's source rows, for every strategy of the ablation."""
    strategies, left_out = known_strategies(workspace.config.ablate.strategies, workspace.table)
    examples = example_pairs(workspace.source(workspace.targets()), strategies)
    faces = find_faces(workspace, images)
    caption = "Source rows, and beneath each the reference that every strategy chose, always another subject."
    figure = pairs_figure("examples", "Example pairs", caption, examples, faces)
    for line in filter(None, (left_out, faces.note)):
        notify(line)
    return [figure]


def ablation_data(report: AblationReport) -> dict[str, list[Any]]:
    """Return the numbers of every figure and table, an entry a (data set, setting, method); scores are fractions."""
    none = compare_scores(())
    lines = []
    for point in report.points:
        for item in point.summaries:
            other = report.difference(point, item.method) or none
            lines.append(
                {
                    "data": point.data,
                    "group": point.setting.group,
                    "setting": point.setting.label,
                    "at": ";".join(str(part) for part in point.setting.at),
                    "features": point.features,
                    "method": item.method,
                    "macro_f1": item.macro_f1,
                    "low": item.ci95[0],
                    "high": item.ci95[1],
                    "difference": other.difference,
                    "difference_low": other.ci95[0],
                    "difference_high": other.ci95[1],
                    "p": other.p,
                }
                | {name: getattr(item, name) for name in _MEASURED}
            )
    return {name: [line[name] for line in lines] for name in (lines[0] if lines else ())}


def ablation_tables(report: AblationReport) -> dict[str, Table]:
    """Return name to table: ``scores``, and where there is a reference ``differences``; for BatchNorm ``neutral``."""
    title = report.grid.title
    tables = {
        "scores": _table(
            report,
            f"{title}: macro F1",
            lambda point, item: _interval_text(item.macro_f1, item.ci95),
            ("Mean over target subjects and its 95 % bootstrap interval.", *report.notes),
            best=True,
        )
    }
    if report.differences:
        tables["differences"] = _table(
            report,
            f"{title}: difference to {', '.join(dict.fromkeys(report.references.values()))}",
            lambda point, item: _difference_text(report.difference(point, item.method)),
            (
                "Macro F1 against the reference setting, over the same subjects: mean, 95 % bootstrap interval, and p "
                "of Wilcoxon's test, Holm-adjusted over the settings.",
            ),
        )
    if report.grid.name == "bn":
        tables["neutral"] = _table(
            report,
            "Neutral test frames that are called neutral",
            lambda point, item: MISSING if math.isnan(item.neutral_recall) else f"{100 * item.neutral_recall:.1f}",
            ("Mean over target subjects, in %.",),
        )
    return tables


def ablation_sentences(report: AblationReport) -> list[str]:
    """Return what the numbers say of pft, or without it of every method, data set by data set and group by group."""
    about = ["pft"] if "pft" in report.grid.methods else list(report.grid.methods)
    sentences = []
    for data in report.data_sets:
        for group, points in report.groups(data).items():
            where = ", ".join(part for part in (data, group) if part)
            for method in about:
                scored = [
                    (item.macro_f1, point)
                    for point in points
                    for item in point.summaries
                    if item.method == method and not math.isnan(item.macro_f1)
                ]
                if scored:
                    sentences.append(f"{where}: {_sentence(report, method, scored)}")
    return sentences


def _sentence(report: AblationReport, method: str, scored: Sequence[tuple[float, Point]]) -> str:
    (lowest, worst), (highest, best) = (choose(scored, key=lambda entry: entry[0]) for choose in (min, max))
    low, high = f"{100 * lowest:.1f}", f"{100 * highest:.1f}"
    said = f"{method} reaches a macro F1 between {low} ({worst.setting.label}) and {high} ({best.setting.label})."
    if low == high:
        said = f"{method} reaches a macro F1 of {low} in every setting."
    differences = {
        point.setting.label: difference for _, point in scored if (difference := report.difference(point, method))
    }
    if not differences:
        return said
    clear = [
        f"{label} ({100 * difference.difference:+.1f}, {p_words(difference.p)})"
        for label, difference in differences.items()
        if difference.p < LEVEL
    ]
    people = max(difference.subjects for difference in differences.values())
    reference = report.references[worst.data]
    if not clear:
        return f"{said} None differs from {reference} on these {people} people (p ≥ {LEVEL:g} after Holm)."
    return f"{said} Different from {reference} on these {people} people (p < {LEVEL:g} after Holm): {', '.join(clear)}."


def _table(
    report: AblationReport,
    title: str,
    text: Callable[[Point, MethodSummary], str],
    notes: Sequence[str],
    *,
    best: bool = False,
) -> Table:
    """Return one line a setting, one column a method."""
    several = len(report.data_sets) > 1
    grouped = any(point.setting.group for point in report.points)
    heads = [*(["Data"] if several else []), *(["Group"] if grouped else []), report.grid.axis]
    cells, bold = [], []
    for point in report.points:
        by_name = {item.method: item for item in point.summaries}
        words = [*([point.data] if several else []), *([point.setting.group] if grouped else []), point.setting.label]
        items = [by_name.get(name) for name in report.grid.methods]
        cells.append((*words, *(MISSING if item is None else text(point, item) for item in items)))
        # Compared as they are shown, so that what looks equal is equal. Oracles don't compete.
        means = [round(100 * item.macro_f1, 2) if item and competes(item.selection) else math.nan for item in items]
        top = max((value for value in means if not math.isnan(value)), default=None)
        bold.append((*[False] * len(words), *(best and len(items) > 1 and value == top for value in means)))
    return Table(
        title=title,
        columns=(*heads, *report.grid.methods),
        rows=tuple(cells),
        bold=tuple(bold),
        notes=tuple(notes),
        text_columns=len(heads),
        grouped=len(heads) > 1,
    )


def _interval_text(value: float, ci95: tuple[float, float], sign: str = "") -> str:
    if math.isnan(value):
        return MISSING
    low, high = ci95
    interval = "" if math.isnan(low) else f" [{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"
    return f"{100 * value:{sign}.2f}{interval}"


def _difference_text(difference: Comparison | None) -> str:
    if difference is None or math.isnan(difference.difference):
        return MISSING
    return f"{_interval_text(difference.difference, difference.ci95, '+')} {p_words(difference.p)}"

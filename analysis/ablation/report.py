"""The result of an ablation: its numbers column by column, tables, sentences and figures. The unit is the subject."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from featlab.analysis.ablation import figures
from featlab.analysis.ablation.run import AblationReport, Point
from featlab.analysis.evaluation.summary import LEVEL
from featlab.analysis.inside.faces import find_faces
from featlab.analysis.inside.pairs import example_pairs, known_strategies, pairs_figure
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.table import (
    MISSING,
    Column,
    Table,
    count_text,
    interval_text,
    make_table,
    number_text,
    p_words,
    score_text,
)
from featlab.evaluation.statistics import compare_scores
from featlab.evaluation.summary import MethodSummary
from featlab.workspace.workspace import Workspace

_WEIGHTS = {
    "source": ("λ of the style loss", "λ of the KL expression loss"),
    "target": ("λ of the style alignment", "λ of KL to the source model"),
}
_MEASURED = "neutral_recall", "negative_transfer", "trainable", "iterations", "subjects"
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
    caption = f"{grid.caption} Means over target subjects"
    if grid.figure == "surface":
        drawn = figures.plot_surface(data, weights=_WEIGHTS)
    else:
        caption += ", thin lines are 95 % bootstrap intervals"
        if grid.figure == "bars":
            recall = {"neutral_recall": "Neutral frames called neutral (%)"} if grid.name == "bn" else {}
            drawn = figures.plot_bars(data, {"macro_f1": "Macro F1 (%)"} | recall)
        else:
            drawn = figures.plot_lines(data, axis=grid.axis)
    return DrawnFigure(grid.name, grid.title, f"{caption}.", drawn, data)


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
            lambda point, item: f"{score_text(item.macro_f1)} {interval_text(item.ci95)}",
            ("Mean over target subjects and its 95 % bootstrap interval.", *report.notes),
        )
    }
    if report.differences:

        def difference(point: Point, item: MethodSummary) -> str:
            found = report.difference(point, item.method)
            if found is None or math.isnan(found.difference):
                return MISSING
            return f"{_signed(found.difference)} {interval_text(found.ci95, _signed)} {p_words(found.p)}"

        tables["differences"] = _table(
            report,
            f"{title}: difference to {', '.join(dict.fromkeys(report.references.values()))}",
            difference,
            (
                "Macro F1 against the reference setting, over the same subjects: mean, 95 % bootstrap interval, and p "
                "of Wilcoxon's test, Holm-adjusted over the settings.",
            ),
        )
    if report.grid.name == "bn":
        tables["neutral"] = _table(
            report,
            "Neutral test frames that are called neutral",
            lambda point, item: number_text(100 * item.neutral_recall, 1),
            ("Mean over target subjects, in %.",),
        )
    return tables


def _signed(value: float) -> str:
    return f"{100 * value:+.2f}"


def ablation_sentences(report: AblationReport) -> list[str]:
    """Return what the numbers say of pft, or without it of every method, data set by data set and group by group."""
    about = ["pft"] if "pft" in report.grid.methods else list(report.grid.methods)
    return [
        f"{', '.join(filter(None, (data, group)))}: {_sentence(report, method, points)}"
        for data in report.data_sets
        for group, points in report.groups(data).items()
        for method in about
    ]


def _sentence(report: AblationReport, method: str, points: Sequence[Point]) -> str:
    scored = [
        (item.macro_f1, point.setting.label)
        for point in points
        for item in point.summaries
        if item.method == method and not math.isnan(item.macro_f1)
    ]
    if not scored:
        return f"every run of {method} failed."
    score, label = max(scored, key=lambda entry: entry[0])
    said = f"{method} reaches a macro F1 of {100 * score:.1f} at best ({label})"
    found = {point.setting.label: report.difference(point, method) for point in points}
    differences = {name: difference for name, difference in found.items() if difference and difference.subjects}
    if not differences:
        return f"{said}."
    clear = [
        f"{name} ({100 * difference.difference:+.1f}, {p_words(difference.p)})"
        for name, difference in differences.items()
        if difference.p < LEVEL
    ]
    people = count_text(max(difference.subjects for difference in differences.values()), "subject")
    reference = report.references[points[0].data]
    if not clear:
        return f"{said}; over {people} no setting differs from {reference} (p ≥ {LEVEL:g} after Holm)."
    return f"{said}; over {people} different from {reference} (p < {LEVEL:g} after Holm): {', '.join(clear)}."


def _table(
    report: AblationReport, title: str, text: Callable[[Point, MethodSummary], str], notes: Sequence[str]
) -> Table:
    """Return one line a setting, one column a method."""

    def of(method: str) -> Column[Point]:
        def cell(point: Point) -> str:
            return next((text(point, item) for item in point.summaries if item.method == method), MISSING)

        return Column(method, cell)

    heads = [Column[Point](report.grid.axis, lambda point: point.setting.label, text=True)]
    if any(point.setting.group for point in report.points):
        heads.insert(0, Column("Group", lambda point: point.setting.group, text=True))
    if len(report.data_sets) > 1:
        heads.insert(0, Column("Data", lambda point: point.data, text=True))
    columns = [*heads, *map(of, report.grid.methods)]
    return make_table(title, columns, report.points, notes=notes, grouped=len(heads) > 1)

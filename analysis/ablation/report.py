"""What an ablation says: its numbers column by column, tables, and sentences. The unit is the target subject."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.analysis.ablation.run import CACHE_FACTS, AblationReport, Difference, Point
from featlab.analysis.evaluation.methods import competes
from featlab.analysis.evaluation.summary import LEVEL
from featlab.analysis.inside.faces import find_faces
from featlab.analysis.inside.pairs import (
    draw_pairs,
    example_columns,
    example_pairs,
    known_strategies,
    rows_among,
)
from featlab.analysis.page import DrawnFigure, Result, write_result
from featlab.analysis.table import MISSING, Table, p_text
from featlab.cache import atomic_write_text
from featlab.config.analysis import LOSS_TERMS
from featlab.evaluation.summary import MethodSummary
from featlab.methods import get_method
from featlab.workspace.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "ablation_data",
    "ablation_tables",
    "ablation_words",
    "draw_ablation",
    "example_figures",
    "write_ablation",
]


def ablation_data(report: AblationReport) -> dict[str, list[Any]]:
    """Return the numbers of every figure and table, an entry a (data set, setting, method).

    Columns: data, group, setting, at (where the setting stands, parts joined by ``;``), features, method, macro_f1,
    low, high, difference, difference_low, difference_high, p (all against the reference), neutral_recall,
    non_neutral_recall, negative_transfer, trainable, iterations, subjects. Scores are fractions.
    """
    against = report.differences
    none = Difference(math.nan, (math.nan, math.nan), math.nan, 0)
    lines = []
    for point in report.points:
        for item in point.summaries:
            other = against.get((point.data, point.setting.group, point.setting.label, item.method), none)
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
                    "difference": other.value,
                    "difference_low": other.ci95[0],
                    "difference_high": other.ci95[1],
                    "p": other.p,
                    "neutral_recall": item.neutral_recall,
                    "non_neutral_recall": item.non_neutral_recall,
                    "negative_transfer": item.negative_transfer,
                    "trainable": item.trainable,
                    "iterations": item.iterations,
                    "subjects": item.subjects,
                }
            )
    return {name: [line[name] for line in lines] for name in (lines[0] if lines else ())}


def ablation_tables(report: AblationReport) -> dict[str, Table]:
    """Return name to table: ``scores``, and where there is a reference ``differences``; for BatchNorm ``neutral``."""
    against = report.differences
    tables = {
        "scores": _table(
            report,
            f"{report.grid.title}: macro F1",
            lambda point, item: _interval(item.macro_f1, item.ci95),
            ("Mean over target subjects and its 95 % bootstrap interval.", *report.notes),
            best=True,
        )
    }
    if against:
        reference = ", ".join(dict.fromkeys(report.references.values()))
        tables["differences"] = _table(
            report,
            f"{report.grid.title}: difference to {reference}",
            lambda point, item: _difference(
                against.get((point.data, point.setting.group, point.setting.label, item.method))
            ),
            (
                "Macro F1 against the reference setting, over the same subjects: mean, 95 % bootstrap interval, and p "
                "of Wilcoxon's test, Holm-adjusted over the settings.",
            ),
        )
    if report.grid.name == "bn":
        tables["neutral"] = _table(
            report,
            "Neutral test frames that are called neutral",
            lambda point, item: _percent(item.neutral_recall),
            ("Mean over target subjects, in %.",),
        )
    return tables


def ablation_words(report: AblationReport) -> list[str]:
    """Return what the numbers say, a sentence or two a data set, group and method."""
    against = report.differences
    about = [name for name in report.grid.methods if name == "pft"] or list(report.grid.methods)
    lines = []
    for data in report.data_sets:
        for group, points in report.groups(data).items():
            where = ", ".join(part for part in (data, group) if part)
            for method in about:
                scored = [(point, item) for point in points for item in point.summaries if item.method == method]
                scored = [(point, item) for point, item in scored if not math.isnan(item.macro_f1)]
                if scored:
                    lines.append(f"{where}: {_sentence(report, data, group, method, scored, against)}")
    return lines


def _sentence(
    report: AblationReport,
    data: str,
    group: str,
    method: str,
    scored: Sequence[tuple[Point, MethodSummary]],
    against: dict[tuple[str, str, str, str], Difference],
) -> str:
    least = min(scored, key=lambda entry: entry[1].macro_f1)
    most = max(scored, key=lambda entry: entry[1].macro_f1)
    title = get_method(method).title
    said = (
        f"{title} reaches a macro F1 between {100 * least[1].macro_f1:.1f} ({least[0].setting.label}) and "
        f"{100 * most[1].macro_f1:.1f} ({most[0].setting.label})."
    )
    mine = {
        label: difference
        for (of_data, of_group, label, of_method), difference in against.items()
        if (of_data, of_group, of_method) == (data, group, method)
    }
    if not mine:
        return said
    clear = [
        f"{label} ({100 * difference.value:+.1f}, p {_p(difference.p)})"
        for label, difference in mine.items()
        if difference.p < LEVEL
    ]
    people = max(difference.subjects for difference in mine.values())
    reference = report.references[data]
    if not clear:
        return f"{said} None differs from {reference} on these {people} people (p ≥ {LEVEL:g} after Holm)."
    return f"{said} Different from {reference} on these {people} people (p < {LEVEL:g} after Holm): {', '.join(clear)}."


def _table(report: AblationReport, title: str, text: Any, notes: Sequence[str], *, best: bool = False) -> Table:
    """Return one line a setting, one column a method; ``text`` makes a cell of a point and a summary."""
    several = len(report.data_sets) > 1
    grouped = any(point.setting.group for point in report.points)
    names = [get_method(name).title for name in report.grid.methods]
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
        marked = (value == top and len(items) > 1 for value in means)
        bold.append((*[False] * len(words), *(marked if best else [False] * len(items))))
    return Table(
        title=title,
        columns=(*heads, *names),
        rows=tuple(cells),
        bold=tuple(tuple(line) for line in bold),
        notes=tuple(notes),
        text_columns=len(heads),
        grouped=len(heads) > 1,
    )


def _interval(value: float, ci95: tuple[float, float]) -> str:
    if math.isnan(value):
        return MISSING
    low, high = ci95
    interval = "" if math.isnan(low) else f" [{100 * low:.2f}, {100 * high:.2f}]"
    return f"{100 * value:.2f}{interval}"


def _difference(difference: Difference | None) -> str:
    if difference is None or math.isnan(difference.value):
        return MISSING
    low, high = difference.ci95
    interval = "" if math.isnan(low) else f" [{100 * low:+.2f}, {100 * high:+.2f}]"
    return f"{100 * difference.value:+.2f}{interval} p {_p(difference.p)}"


def _percent(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:.1f}"


def _p(value: float) -> str:
    shown = p_text(value)
    return shown.replace("<", "< ") if shown.startswith("<") else f"= {shown}"


_WEIGHTS = {
    "source": ("λ of the style loss", "λ of the KL expression loss"),
    "target": ("λ of the style alignment", "λ of KL to the source model"),
}
_CAPTIONS = {
    "dims": "Macro F1 against the dimension of the features, reduced on source rows only.",
    "pairing": "Macro F1 by how the rows of different source subjects are paired while T is pretrained.",
    "losses": "Macro F1 with loss terms on (filled) and off: the first three train T, the others adapt it.",
    "lambda": "Macro F1 over the weights of two losses, at the source and at the target.",
    "layers": "Macro F1 by which of T's layers adapt; in brackets the parameters that were fitted to a person.",
    "neutral": "Macro F1 against the number of neutral frames that each person was adapted on.",
    "sources": "Macro F1 against the number of source subjects.",
    "contamination": "Macro F1 against the share of the neutral clip that shows other classes.",
    "bn": "What BatchNorm's mode while adapting does to macro F1, and to the recall of neutral.",
}


def draw_ablation(report: AblationReport) -> DrawnFigure:
    """Return the figure of an ablation, drawn from the columns of `featlab.analysis.ablation.report.ablation_data`."""
    from featlab.analysis.ablation import figures as plot_ablation
    from featlab.analysis.ablation import figures as plot_surface

    data = ablation_data(report)
    names = {name: get_method(name).title for name in report.grid.methods}
    drawn: Figure
    match report.grid.name:
        case "pairing":
            drawn = plot_ablation.plot_bars(data, names=names)
        case "losses":
            drawn = plot_ablation.plot_dots(data, names=names, terms=LOSS_TERMS)
        case "layers":
            drawn = plot_ablation.plot_dots(data, names=names)
        case "lambda":
            drawn = plot_surface.plot_surface(data, axes_of=_WEIGHTS)
        case "bn":
            drawn = plot_surface.plot_modes(data, names=names)
        case _:
            drawn = plot_ablation.plot_lines(data, axis=report.grid.axis, names=names)
    caption = f"{_CAPTIONS[report.grid.name]} Means over target subjects, lines are 95 % bootstrap intervals."
    if report.grid.name in ("lambda", "bn"):
        caption = f"{_CAPTIONS[report.grid.name]} Means over target subjects."
    return DrawnFigure(report.grid.name, report.grid.title, caption, drawn, data)


def write_ablation(
    folder: Path, report: AblationReport, *, command: str = "", more: Sequence[DrawnFigure] = ()
) -> list[Path]:
    """Write the figure, its numbers, tables and ``page.json``, then ``run.json`` with every result.

    Args:
        folder: Where; made if missing.
        report: The ablation.
        command: What was typed.
        more: Further figures, after the ablation's own.

    Returns:
        The files, those to look at first.
    """
    facts: dict[str, Any] = dict(next(iter(report.facts.values())))
    if len(report.facts) > 1:
        facts["data_sets"] = {name: {key: item[key] for key in CACHE_FACTS} for name, item in report.facts.items()}
    written = write_result(
        folder,
        Result(
            kind="ablate",
            title=f"Ablation: {report.grid.title}",
            summary=ablation_words(report),
            tables=ablation_tables(report),
            figures=[draw_ablation(report), *more],
            metadata=facts,
        ),
        command,
    )
    written.append(folder / "run.json")
    atomic_write_text(written[-1], json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return written


def example_figures(workspace: Workspace, images: Path | None, notify: Callable[[str], None]) -> list[DrawnFigure]:
    """Return the figure of example pairs of source rows, for every strategy of the ablation.

    Args:
        workspace: Its first draw's source subjects are paired, by ``ablate.strategies``.
        images: Folder of the images; ``None`` looks where `featlab.analysis.inside.faces.find_faces` does.
        notify: Called with one line when faces are missing.
    """
    strategies, left_out = known_strategies(workspace.config.ablate.strategies, workspace.table)
    examples = example_pairs(workspace.source(workspace.targets()), strategies)
    faces = find_faces(workspace, images)
    at = rows_among(workspace.table, examples.source)
    drawn = draw_pairs(examples, lambda row: faces.image(int(at[row])))
    for line in filter(None, (left_out, faces.note)):
        notify(line)
    caption = "Source rows, and beneath each the reference that every strategy chose, always another subject."
    return [DrawnFigure("examples", "Example pairs", caption, drawn, example_columns(examples))]

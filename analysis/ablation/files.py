"""What an ablation leaves in its folder: its page (figures, numbers, tables) and every result in ``run.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.analysis.ablation.report import CACHE_FACTS, AblationReport
from featlab.analysis.ablation.table import ablation_data, ablation_tables, ablation_words
from featlab.analysis.inside.example_pairs import (
    draw_pairs,
    example_columns,
    example_pairs,
    known_strategies,
    rows_among,
)
from featlab.analysis.inside.faces import find_faces
from featlab.analysis.page import DrawnFigure, Result, write_result
from featlab.cache import atomic_write_text
from featlab.config.analysis import LOSS_TERMS
from featlab.methods import get_method
from featlab.workspace.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "draw_ablation",
    "example_figures",
    "write_ablation",
]

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
    """Return the figure of an ablation, drawn from the columns of `featlab.analysis.ablation.table.ablation_data`."""
    from featlab.analysis.ablation import plot as plot_ablation
    from featlab.analysis.ablation import plot_surface

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

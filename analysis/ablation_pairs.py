"""Example pairs beside the ablation of pairing: who each strategy chose, as image strips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from featlab.analysis.example_pairs import draw_pairs, example_columns, example_pairs, known_strategies, rows_among
from featlab.analysis.faces import find_faces
from featlab.analysis.result_page import DrawnFigure, PageFigure
from featlab.workspace import Workspace

__all__ = ["example_figures"]


def example_figures(workspace: Workspace, images: Path | None, notify: Callable[[str], None]) -> list[DrawnFigure]:
    """Return the figure of example pairs of source rows, for every strategy of the ablation.

    Args:
        workspace: Its first draw's source subjects are paired, by ``ablate.strategies``.
        images: Folder of the images; ``None`` looks where `featlab.analysis.faces.find_faces` does.
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
    return [DrawnFigure(PageFigure("examples", "Example pairs", caption), drawn, example_columns(examples))]

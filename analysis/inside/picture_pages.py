"""Pages of `featlab plot pairs` and `clip`: what is drawn, beside its numbers, tables and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featlab.analysis.inside.clip import Clip, clip_columns, clip_name, clip_table, clip_words, draw_clip
from featlab.analysis.inside.faces import Faces
from featlab.analysis.inside.pairs import (
    ExamplePairs,
    agreement_table,
    agreement_words,
    draw_pairs,
    example_columns,
    rows_among,
)
from featlab.analysis.page import DrawnFigure, Result, write_result
from featlab.analysis.table import Table
from featlab.evaluation.results import run_facts
from featlab.workspace.workspace import Workspace

__all__ = ["PicturePage", "write_clip", "write_pairs"]


@dataclass(frozen=True, eq=False)
class PicturePage:
    """What was written, and what there is to say about it.

    Attributes:
        folder: Where.
        files: Those to look at first.
        table: To print.
        words: A sentence each.
        data: The numbers behind the figure, column by column.
        note: What the user should know, or empty.
    """

    folder: Path
    files: Sequence[Path]
    table: Table
    words: tuple[str, ...]
    data: Mapping[str, Sequence[Any]]
    note: str = ""


def write_pairs(workspace: Workspace, examples: ExamplePairs, faces: Faces, command: str) -> PicturePage:
    """Draw example pairs and write their page into ``results/plot-pairs``.

    Args:
        workspace: Where, and what made them.
        examples: Of its source rows.
        faces: Of its rows.
        command: What was typed.
    """
    at = rows_among(workspace.table, examples.source)
    table = agreement_table(examples.agreements)
    words = agreement_words(examples.agreements, workspace.config.pair.label_rule)
    data = example_columns(examples)
    caption = (
        "Source rows on top, and beneath each the reference that every strategy chose, always another subject: the "
        "nearest embedding (cosine), the nearest face shape (landmark), or any row (random)."
    )
    drawn = draw_pairs(examples, lambda row: faces.image(int(at[row])))
    figure = DrawnFigure("pairs", "Who is paired with whom", caption, drawn, data)
    folder = workspace.root / "results" / "plot-pairs"
    return _written(folder, figure, table, words, command, run_facts(workspace), faces.note)


def write_clip(workspace: Workspace, clip: Clip, faces: Faces, command: str) -> PicturePage:
    """Draw a clip over time and write its page into a folder of ``results/`` that is named by it.

    Args:
        workspace: Where, and what made it.
        clip: Of its rows.
        faces: Of its rows.
        command: What was typed.
    """
    table, words, data = clip_table(clip), clip_words(clip), clip_columns(clip)
    decides = " The dotted line is where the decision flips." if len(clip.classes) == 2 else ""
    shaded = f" Shaded: the frames that show {clip.positive}." if 1 in data["shown"] else ""
    caption = (
        f"The probability of {clip.positive} in video {clip.video} of {clip.subject}, before and after {clip.method} "
        f"adapted to {', '.join(clip.adapted_videos)}.{shaded}{decides}"
    )
    drawn = draw_clip(clip, [faces.image(row) for row in clip.rows.tolist()])
    figure = DrawnFigure("clip", f"One clip over time: {clip.subject}", caption, drawn, data)
    folder = workspace.root / "results" / f"plot-clip-{clip_name(clip)}"
    return _written(folder, figure, table, words, command, run_facts(workspace), faces.note)


def _written(
    folder: Path,
    figure: DrawnFigure,
    table: Table,
    words: tuple[str, ...],
    command: str,
    facts: Mapping[str, Any],
    note: str,
) -> PicturePage:
    """Write a page of one figure, and the table that is called as it is."""
    files = write_result(
        folder,
        Result(
            kind="plot",
            title=figure.title,
            summary=words,
            tables={figure.name: table},
            figures=[figure],
            metadata=facts,
        ),
        command,
    )
    return PicturePage(folder, files, table, words, figure.data, note)

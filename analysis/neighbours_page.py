"""The results folder of `featlab plot neighbours`: the figure, the spread as a table and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featlab.analysis.feature_views import EXTRACTED
from featlab.analysis.result_page import DrawnFigure, PageFigure, write_page
from featlab.analysis.source_neighbours import SIDES, Neighbours, Spread, neighbours_data
from featlab.analysis.subject_names import safe_name
from featlab.analysis.table_parts import number_text, share_text
from featlab.analysis.tables import Table
from featlab.methods import get_method

__all__ = ["neighbours_table", "neighbours_words", "write_neighbours"]


def neighbours_table(found: Neighbours) -> Table:
    """Return two lines: how the nearest source frames are spread before and after."""
    rows = tuple(
        (
            name,
            side.largest,
            number_text(side.effective, 2),
            str(side.found),
            number_text(100 * side.largest_share, 1),
            number_text(100 * side.same_class, 1),
        )
        for name, side in zip(SIDES, (found.before, found.after), strict=True)
    )
    return Table(
        title=f"The nearest source frames of {found.frames} frames of {found.subject}",
        columns=("", "Largest", "Effective subjects", "Subjects", "Largest share (%)", "Same class (%)"),
        rows=rows,
        bold=tuple((False,) * len(row) for row in rows),
        notes=(
            f"Of {len(found.subjects)} source subjects. Effective subjects: exp of the entropy of their shares.",
            "Same class: the nearest source frame shows the class of the target's.",
        ),
        text_columns=2,
    )


def neighbours_words(found: Neighbours) -> list[str]:
    """Return what the numbers say, a sentence each."""
    before, after = found.before, found.after
    name = get_method(found.method).title
    words = [
        f"As extracted, the nearest source frames of {found.subject} are of {_subjects(before)} among "
        f"{len(found.subjects)}; {before.largest} has {share_text(before.largest_share)} of them.",
        f"After {name} they are of {_subjects(after)}; {after.largest} has {share_text(after.largest_share)}.",
    ]
    if math.isnan(before.same_class) or math.isnan(after.same_class):
        return [*words, "Without labels nothing says whether the nearest frame shows the same class."]
    change = 100 * (after.same_class - before.same_class)
    verdict = "as often as before" if abs(change) < 0.05 else "more often" if change > 0 else "less often"
    return [
        *words,
        f"The nearest source frame shows the class of the target's {verdict}: {share_text(before.same_class)} before, "
        f"{share_text(after.same_class)} after.",
    ]


def write_neighbours(folder: Path, found: Neighbours, command: str, facts: Mapping[str, Any]) -> list[Path]:
    """Write figure, table and words into a folder.

    Args:
        folder: Where; made if missing.
        found: From `featlab.analysis.source_neighbours.source_neighbours`.
        command: What was typed.
        facts: From `featlab.campaign.run_facts`.

    Returns:
        The files.
    """
    from featlab.analysis.plot_neighbours import plot_neighbours

    name = get_method(found.method).title
    after = "as extracted" if found.reference == EXTRACTED else found.reference
    caption = (
        f"Of {found.frames} test frames of {found.subject}, which were not adapted on, how many have their nearest "
        f"source frame (cosine similarity of features) in each source subject. Left: everyone as extracted. Right: the "
        f"target after {name}, the source rows {after}."
    )
    page = PageFigure(f"neighbours-{safe_name(found.subject)}", f"Whom {found.subject} is nearest to", caption)
    drawn = plot_neighbours(found, titles=("As extracted", f"After {name}"))
    return write_page(
        folder,
        kind="plot",
        title=f"{found.subject} across the source subjects",
        words=neighbours_words(found),
        command=command,
        tables={"spread": neighbours_table(found)},
        figures=[DrawnFigure(page, drawn, neighbours_data(found))],
        facts=facts,
    )


def _subjects(side: Spread) -> str:
    if side.found == 1:
        return "one subject alone"
    return f"{side.found} subjects ({side.effective:.1f} effective ones)"

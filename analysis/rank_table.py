"""Average ranks in order, with the groups of methods that do not differ: the critical-difference diagram in words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from featlab.analysis.table_parts import marked_name, number_text
from featlab.analysis.tables import MISSING, Settings, Table
from featlab.ranks import RankComparison

__all__ = ["friedman_text", "group_numbers", "rank_notes", "rank_table"]


def rank_table(
    compared: RankComparison,
    *,
    selections: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    title: str = "Average rank of the macro F1",
) -> Table:
    """Return one line a method, the best first: its average rank and the groups that it belongs to.

    Args:
        compared: From `featlab.ranks.compare_ranks`.
        selections: Method to what it was allowed to see, for the marks; source-free by default.
        settings: Method to (setting, display name); a method it does not name keeps its registry name.
        title: Above the table.
    """
    groups = group_numbers(compared)
    rows = tuple(
        (
            marked_name(method, (selections or {}).get(method, "source-free"), settings),
            number_text(rank, 2),
            group,
        )
        for method, rank, group in zip(compared.methods, compared.ranks, groups, strict=True)
    )
    return Table(
        title=title,
        columns=("Method", "Rank", "Groups"),
        rows=rows,
        bold=tuple((False,) * 3 for _ in rows),
        notes=rank_notes(compared),
    )


def group_numbers(compared: RankComparison) -> tuple[str, ...]:
    """Return for each method the numbers of its groups, e.g. ``2–4``: methods with one in common do not differ."""
    groups = []
    for place in range(len(compared.methods)):
        mine = [number for number, (first, last) in enumerate(compared.cliques, start=1) if first <= place <= last]
        # The groups ascend, so that those of a method follow each other.
        groups.append(MISSING if not mine else f"{mine[0]}–{mine[-1]}" if len(mine) > 1 else str(mine[0]))
    return tuple(groups)


def rank_notes(compared: RankComparison) -> tuple[str, ...]:
    """Return what the ranks are over, what differs, and whether the test of all methods lets one ask."""
    subjects = "1 subject" if compared.subjects == 1 else f"{compared.subjects} subjects"
    notes = [
        f"1 is the best. Over the {subjects} that all methods finished; oracles left out.",
        "Methods with a group in common differ by less than the critical difference of "
        f"{compared.critical_difference:.2f} (Nemenyi, {compared.level:g}).",
    ]
    if not math.isnan(compared.friedman_p):
        notes.append(f"Friedman: {friedman_text(compared)}.")
    return tuple(notes)


def friedman_text(compared: RankComparison) -> str:
    """Return the p value of Friedman's test, and that it does not speak for any difference where it does not."""
    p = compared.friedman_p
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return shown if p < compared.level else f"{shown}, no evidence that any two methods differ"

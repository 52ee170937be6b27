"""Average ranks in order, with the groups of methods that do not differ: the critical-difference diagram in words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from featlab.analysis.table_parts import marked_name, number_text
from featlab.analysis.tables import MISSING, Settings, Table
from featlab.ranks import RankComparison

__all__ = ["friedman_text", "rank_notes", "rank_table"]


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
    rows = tuple(
        (
            marked_name(method, (selections or {}).get(method, "source-free"), settings),
            number_text(rank, 2),
            _shown(group),
        )
        for method, rank, group in zip(compared.methods, compared.ranks, compared.groups(), strict=True)
    )
    return Table(
        title=title,
        columns=("Method", "Rank", "Groups"),
        rows=rows,
        bold=tuple((False,) * 3 for _ in rows),
        notes=rank_notes(compared),
    )


def _shown(group: range) -> str:
    """Return ``2–4`` for the groups 2, 3 and 4."""
    if not group:
        return MISSING
    return f"{group[0]}–{group[-1]}" if len(group) > 1 else str(group[0])


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

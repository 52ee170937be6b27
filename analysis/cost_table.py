"""What a method costs: steps, seconds, parameters, floating-point operations."""

from __future__ import annotations

from collections.abc import Sequence

from featlab.analysis.table_parts import FAILED, flops_text, marked_name, number_text, scope_notes
from featlab.analysis.tables import Settings, Table
from featlab.summary import MethodSummary

__all__ = ["cost_table"]


def cost_table(
    summaries: Sequence[MethodSummary],
    *,
    settings: Settings | None = None,
    title: str = "Cost of one adaptation",
) -> Table:
    """Return one line a method: iterations, wall seconds, trainable parameters, millions of operations.

    Nothing is bold: what does nothing costs least.

    Args:
        summaries: From `featlab.summary.summarise`; their order is kept.
        settings: Method to (setting, display name); a method it does not name keeps its registry name.
        title: Above the table.
    """
    cells = tuple(
        (
            marked_name(item.method, item.selection, settings),
            number_text(item.iterations, 0) if item.runs else FAILED,
            number_text(item.seconds, 3),
            number_text(item.trainable, 0),
            flops_text(item.flops),
        )
        for item in summaries
    )
    notes = ["Means over target subjects. MFLOPs: millions of floating-point operations in matrix products."]
    notes += [
        f"{marked_name(item.method, item.selection, settings)}: every run failed: {'; '.join(item.reasons)}"
        for item in summaries
        if item.failed and not item.runs
    ]
    return Table(
        title=title,
        columns=("Method", "Iterations", "Seconds", "Trainable", "MFLOPs"),
        rows=cells,
        bold=tuple((False,) * len(line) for line in cells),
        notes=(*notes, *scope_notes(item.scope for item in summaries)) if summaries else (),
    )

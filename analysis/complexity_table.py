"""The table of computational complexity: sizes, operations, iterations and seconds of every method."""

from __future__ import annotations

from collections.abc import Sequence

from featlab.analysis.complexity_report import ComplexityReport, MethodCost
from featlab.analysis.table_parts import FAILED, by_setting, flops_text, marked_name, number_text
from featlab.analysis.tables import MISSING, Settings, Table
from featlab.convergence import CONVERGENCE_RULE

__all__ = ["complexity_table", "ordered_costs"]

_COLUMNS = (
    "Method",
    "Trainable",
    "Model",
    "Carried",
    "Adapt (MFLOPs)",
    "Frame (MFLOPs)",
    "Iterations",
    "Converged",
    "Batch (s)",
    "Subject (s)",
)
_NAMED = 6
"""Subjects that a note names; more of them are counted."""


def complexity_table(
    report: ComplexityReport, *, settings: Settings | None = None, title: str = "Computational complexity"
) -> Table:
    """Return one line a method, those of one setting together.

    Nothing is bold: what does nothing costs least.

    Args:
        report: From `featlab.analysis.complexity.measure_complexity`.
        settings: Method to (setting, display name); a method it does not name keeps its registry name.
        title: Above the table.
    """
    costs = ordered_costs(report.costs)
    rows = tuple(_cells(cost, settings) for cost in costs)
    return Table(
        title=title,
        columns=_COLUMNS,
        rows=rows,
        bold=tuple((False,) * len(_COLUMNS) for _ in rows),
        notes=(*_notes(report), *_failures(costs, settings)),
    )


def ordered_costs(costs: Sequence[MethodCost]) -> list[MethodCost]:
    """Return the costs with those of one setting together, source-only first and oracles last."""
    by_name = {cost.method: cost for cost in costs}
    return [by_name[method] for method in by_setting({cost.method: cost.setting for cost in costs})]


def _cells(cost: MethodCost, settings: Settings | None) -> tuple[str, ...]:
    name = marked_name(cost.method, cost.selection, settings)
    if not cost.subjects:
        return (name, FAILED, *(MISSING,) * (len(_COLUMNS) - 2))
    return (
        name,
        str(cost.trainable),
        str(cost.parameters),
        str(cost.carried),
        flops_text(cost.adapt_flops),
        flops_text(cost.predict_flops),
        _steps_text(cost.iterations),
        _steps_text(cost.converged),
        number_text(cost.batch_seconds, 5),
        number_text(cost.seconds, 4),
    )


def _steps_text(steps: float) -> str:
    """Return a number of steps; a median that lies between two of them keeps its half."""
    return number_text(steps, 1 if steps % 1 else 0)


def _notes(report: ComplexityReport) -> list[str]:
    shown = ", ".join(report.subjects[:_NAMED])
    if len(report.subjects) > _NAMED:
        shown += f" and {len(report.subjects) - _NAMED} more"
    low, high = report.frames
    frames = f"{low} frames" if low == high else f"{low} to {high} frames"
    where = "one thread" if report.device == "cpu" else f"one thread and {report.device}"
    notes = [
        f"Subject: median wall time of adapting to the whole neutral clip of one subject ({shown}; {frames}), "
        f"{report.repeat} times each after a warm-up; {where}. Times depend on the machine, and on what else it does.",
        f"Batch: one iteration on {report.batch} rows, all of it for a closed form: the time of an adaptation to the "
        f"first subject's clip, repeated or cut to {report.batch} rows, over its iterations. Every batch size is "
        f"{report.batch}; a method without one takes as many rows as it is made to.",
        "Trainable: parameters that are updated for one person. Model: all floating-point numbers of the model that "
        "predicts: projection, T or what stands in its place, B and C, BatchNorm statistics included. Carried: numbers "
        "in the bundle beside it: what the method prepared at the source, and the style bank where it is read.",
        "MFLOPs: millions of floating-point operations in matrix products, of one adaptation and of predicting one "
        "frame. What is done by elements, by decompositions or by other libraries is not counted: 0 is not nothing.",
        f"Converged: {CONVERGENCE_RULE}; – where it ends higher than it began. The stages of a method are added up.",
    ]
    selections = {cost.selection for cost in report.costs}
    if "source-access" in selections:
        rows, width = report.source_rows
        notes.append(f"[source access]: is given all {rows:,} source rows of {width} features besides, and labels.")
    if "oracle" in selections:
        notes.append("The oracle is tuned once, on the clip with its labels; an evaluation tunes it once a fold.")
    return notes


def _failures(costs: Sequence[MethodCost], settings: Settings | None) -> list[str]:
    notes = []
    for cost in costs:
        name = marked_name(cost.method, cost.selection, settings)
        reasons: dict[str, list[str]] = {}
        for where, why in cost.failures:
            reasons.setdefault(why, []).append(where)
        notes += [f"{name} failed on {', '.join(where[:_NAMED])}: {why}" for why, where in reasons.items()]
    return notes

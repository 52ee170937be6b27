"""The page of `featlab branches`: whether only identity changes, in words; the table, the figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featlab.analysis.inside.branch_table import branch_table, cosine_text
from featlab.analysis.inside.branches import BranchReport, Knowledge, Measure
from featlab.analysis.inside.plot_branches import branch_data, plot_branches
from featlab.analysis.page import DrawnFigure, Result, write_result
from featlab.analysis.table import share_text
from featlab.evaluation.statistics import bootstrap_interval, mean

__all__ = ["Change", "branch_words", "change", "write_branches"]


@dataclass(frozen=True)
class Change:
    """How much a second measure is above a first, on the subjects that have both.

    Attributes:
        mean: Over subjects; NaN without any.
        low: Of its bootstrap interval over subjects, 95 %; NaN for fewer than two.
        high: Likewise.
    """

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of 0; else 0."""
        return int(self.low > 0) - int(self.high < 0)


def change(before: Measure, after: Measure) -> Change:
    """Return how much ``after`` is above ``before``, subject by subject."""
    both = [
        after.by_subject[subject] - value for subject, value in before.by_subject.items() if subject in after.by_subject
    ]
    return Change(mean(both), *bootstrap_interval(both))


def write_branches(folder: Path, report: BranchReport, *, command: str, facts: Mapping[str, Any]) -> list[Path]:
    """Write table, figure and page.

    Args:
        folder: Where.
        report: From `featlab.analysis.inside.branches.compare_branches`.
        command: What was typed.
        facts: From `featlab.evaluation.campaign.run_facts`.

    Returns:
        The files.
    """
    data = branch_data(report)
    caption = (
        "Left: mean cosine between rows, centred on the mean of the source rows. Right: what a linear probe reads off "
        "each representation, the person and the expression; dashed: guessing. Thin lines are 95 % intervals over "
        "target subjects."
    )
    return write_result(
        folder,
        Result(
            kind="branches",
            title="Does only identity change?",
            summary=branch_words(report),
            tables={"branches": branch_table(report)},
            figures=[DrawnFigure("branches", "Identity and expression", caption, plot_branches(data), data)],
            metadata=facts,
        ),
        command,
    )


def branch_words(report: BranchReport) -> tuple[str, ...]:
    """Return what T does to identity and to expression, and what the two branches are alike by."""
    before, after = report.of("features-before"), report.of("features-after")
    words = [_alike(before, after)]
    identity, expression = (change(getattr(before, name), getattr(after, name)) for name in ("identity", "expression"))
    if math.isfinite(before.identity.mean):
        words.append(
            f"A linear probe names the person in {share_text(before.identity.mean)} of the frames before T and in "
            f"{share_text(after.identity.mean)} after ({_points(identity)}; guessing: "
            f"{share_text(before.identity.chance)})."
        )
    if math.isfinite(before.expression.mean):
        words.append(
            "On people that it was not fitted on, a linear probe finds the expression with a balanced accuracy of "
            f"{share_text(before.expression.mean)} before T and {share_text(after.expression.mean)} after "
            f"({_points(expression)}; guessing: {share_text(before.expression.chance)})."
        )
    if math.isfinite(identity.low) and math.isfinite(expression.low):
        words.append(_verdict(identity, expression, after.identity))
    for name, key in (("expression", "bottleneck-before"), ("identity", "identity-code")):
        words += _branch(name, report.of(key))
    return tuple(words)


def _alike(before: Knowledge, after: Knowledge) -> str:
    expression = (
        f"rows of the same expression on other subjects have a mean cosine of {_cosine(before.fixed_expression)} "
        f"before T and {_cosine(after.fixed_expression)} after"
    )
    if math.isnan(before.fixed_subject.mean):
        return expression[0].upper() + expression[1:] + "."
    return (
        f"Rows of the same subject with other expressions have a mean cosine of {_cosine(before.fixed_subject)} before "
        f"T and {_cosine(after.fixed_subject)} after; {expression}."
    )


def _verdict(identity: Change, expression: Change, left: Measure) -> str:
    """Answer the question whether only identity changes and expression stays."""
    read = "can be read off better" if expression.sign > 0 else "can be read off as well as before"
    if expression.sign < 0:
        lost = "identity and expression get lost" if identity.sign < 0 else "expression gets lost, identity does not"
        return f"So not only identity changes: {lost}."
    if identity.sign >= 0:
        return f"So T does not hide who a person is, and expression {read}."
    if left.low > left.chance:
        return f"So T takes some identity away, not all of it, and expression {read}."
    return f"So T takes identity away, down to what guessing would give, and expression {read}."


def _branch(name: str, row: Knowledge) -> list[str]:
    closer = change(row.fixed_subject, row.fixed_expression)
    if math.isnan(closer.low):
        return []
    by_expression = f"by expression ({_cosine(row.fixed_expression)})"
    by_subject = f"by subject ({_cosine(row.fixed_subject)})"
    if closer.sign == 0:
        return [f"In the {name} branch rows are as alike {by_expression} as {by_subject}."]
    first, second = (by_expression, by_subject) if closer.sign > 0 else (by_subject, by_expression)
    return [f"In the {name} branch rows are more alike {first} than {second}."]


def _points(found: Change) -> str:
    if math.isnan(found.low):
        return "one subject"
    low, middle, high = (f"{100 * value:+.1f}".replace("-", "−") for value in (found.low, found.mean, found.high))
    return f"{middle} points, 95 % interval {low} to {high}"


def _cosine(measure: Measure) -> str:
    return cosine_text(measure.mean).replace("-", "−")

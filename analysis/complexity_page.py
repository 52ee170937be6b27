"""The page of `featlab complexity`: what the costs say in words, the table, the figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featlab.analysis.complexity_report import ComplexityReport, MethodCost
from featlab.analysis.complexity_table import complexity_table
from featlab.analysis.plot_complexity import complexity_data, plot_complexity
from featlab.analysis.result_page import DrawnFigure, PageFigure, write_page
from featlab.analysis.tables import Settings

__all__ = ["complexity_words", "time_text", "write_complexity"]


def write_complexity(
    folder: Path, report: ComplexityReport, *, settings: Settings, command: str, facts: Mapping[str, Any]
) -> list[Path]:
    """Write table, figure and page; the figure is left out where every method failed.

    Args:
        folder: Where.
        report: From `featlab.analysis.complexity.measure_complexity`.
        settings: Method to (setting, display name).
        command: What was typed.
        facts: From `featlab.campaign.run_facts`.

    Returns:
        The files.
    """
    names = {method: name for method, (_, name) in settings.items()}
    figures = []
    if any(cost.subjects for cost in report.costs):
        data = complexity_data(report)
        caption = (
            "Median wall time of adapting to one subject's neutral clip (thin lines: fastest and slowest run), and how "
            "many parameters are updated. Both axes are logarithmic, with a 0 on that of the parameters."
        )
        page = PageFigure("complexity", "Cost of one adaptation", caption)
        figures.append(DrawnFigure(page, plot_complexity(data, names=names), data))
    return write_page(
        folder,
        kind="complexity",
        title="Computational complexity",
        words=complexity_words(report),
        command=command,
        tables={"complexity": complexity_table(report, settings=settings)},
        figures=figures,
        facts=facts,
    )


def complexity_words(report: ComplexityReport, *, reference: str = "pft") -> tuple[str, ...]:
    """Return what the costs say of one method against the published source-free ones and the light baselines.

    Args:
        report: The costs.
        reference: Whom it is about; without it there are no words about anyone.
    """
    by_name = {cost.method: cost for cost in report.costs if cost.subjects}
    failed = [cost.method for cost in report.costs if not cost.subjects]
    words = [f"{len(failed)} of {len(report.costs)} methods failed: {', '.join(failed)}."] if failed else []
    mine = by_name.get(reference)
    if mine is None:
        return tuple(words)
    clips = "1 subject" if mine.subjects == 1 else f"{mine.subjects} subjects"
    words.append(
        f"{reference} adapts to one person in {time_text(mine.seconds)} (median over {clips}, {report.repeat} runs "
        f"each), in {_counted(mine.iterations, 'iteration')}, and updates {_counted(mine.trainable, 'parameter')} of "
        f"the {mine.parameters:,} numbers of its model."
    )
    published = [cost for cost in by_name.values() if cost.setting.startswith("SFDA (") and cost.method != reference]
    if published:
        words += _against_published(mine, published)
    light = [cost for cost in by_name.values() if cost.setting == "Baselines"]
    if light:
        words.append(_against_light(mine, light))
    return tuple(words)


def time_text(seconds: float) -> str:
    """Return a time with three digits, in the unit that suits it: 0.43 ms, 12.4 ms, 1.04 s."""
    if math.isnan(seconds):
        return "–"
    value, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f} {unit}"


def _against_published(mine: MethodCost, published: Sequence[MethodCost]) -> list[str]:
    middle = statistics.median(cost.seconds for cost in published)
    quickest = min(published, key=lambda cost: cost.seconds)
    iterations = statistics.median(cost.iterations for cost in published)
    trainable = statistics.median(cost.trainable for cost in published)
    slower = sum(cost.seconds > mine.seconds for cost in published)
    words = [
        f"That is {_times(mine.seconds, middle)} the median of the {len(published)} published source-free methods here "
        f"({time_text(middle)}); {slower} of the {len(published)} take longer, and the quickest, {quickest.method}, "
        f"takes {time_text(quickest.seconds)}.",
        f"Their medians are {_counted(iterations, 'iteration')} and {_counted(trainable, 'trainable parameter')}.",
    ]
    unsettled = [cost.method for cost in published if math.isnan(cost.converged)]
    if unsettled:
        words.append(f"The loss did not settle, or ended higher than it began: {', '.join(unsettled)}.")
    return words


def _against_light(mine: MethodCost, light: Sequence[MethodCost]) -> str:
    quickest, slowest = (choose(light, key=lambda cost: cost.seconds) for choose in (min, max))
    cheaper = sum(cost.seconds < mine.seconds for cost in light)
    return (
        f"The {len(light)} light baselines take {time_text(quickest.seconds)} ({quickest.method}) to "
        f"{time_text(slowest.seconds)} ({slowest.method}); {cheaper} of them are quicker than {mine.method}."
    )


def _times(mine: float, other: float) -> str:
    """Return "12 times less than" or "1.4 times as much as"."""
    ratio = other / mine if mine > 0 else math.inf
    if ratio >= 1.05:
        return f"{ratio:.{0 if ratio >= 10 else 1}f} times less than"
    return f"{1 / ratio:.1f} times as much as" if ratio < 0.95 else "as much as"


def _counted(number: float, thing: str) -> str:
    return f"{number:,.{1 if number % 1 else 0}f} {thing}{'' if number == 1 else 's'}"

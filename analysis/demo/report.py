"""What the demo tells: steps, tables, what the numbers say in words, what to type next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featlab.analysis.demo.figures import DemoFigure
from featlab.analysis.demo.page import render_page
from featlab.analysis.evaluation.summary import percent
from featlab.analysis.table import Table
from featlab.config.load import Config
from featlab.evaluation.results import EvaluationRow, versions
from featlab.evaluation.summary import MethodSummary
from featlab.methods import get_method

__all__ = ["NO_CLAIM", "STEPS", "DemoReport", "Step", "next_steps"]

NO_CLAIM = (
    "These faces are drawn, for teaching and to see that every part works. The numbers are no claim about real people."
)
STEPS = ("faces", "extract", "train", "pair", "pretrain", "adapt", "evaluate", "pictures")
_SUBJECT = "s041"


@dataclass(frozen=True)
class Step:
    """One step of the demo.

    Attributes:
        name: One of `STEPS`.
        text: What it did.
        seconds: Wall time.
        reused: Whether an earlier run had done it.
    """

    name: str
    text: str
    seconds: float
    reused: bool

    def line(self) -> str:
        """Return it for people."""
        took = "there already" if self.reused else f"{self.seconds:.1f} s"
        return f"{STEPS.index(self.name) + 1}/{len(STEPS)}  {self.name:<9} {self.text} ({took})"


@dataclass(frozen=True, eq=False)
class DemoReport:
    """What the demo made.

    Attributes:
        folder: The workspace.
        config: Its configuration.
        cache_digest: Of its cache.
        method: Registry name of the method that is shown from inside.
        rows: Results: every method on every target subject.
        summaries: One a method.
        per_subject: The table of subjects.
        summary: The table of methods.
        figures: The pictures, in ``figures/`` as .png and .svg.
        steps: What was done.
        next_steps: Commands to type next.
    """

    folder: Path
    config: Config
    cache_digest: str
    method: str
    rows: tuple[EvaluationRow, ...]
    summaries: tuple[MethodSummary, ...]
    per_subject: Table
    summary: Table
    figures: tuple[DemoFigure, ...]
    steps: tuple[Step, ...]
    next_steps: tuple[str, ...]

    @property
    def page(self) -> Path:
        """The page that shows everything."""
        return self.folder / "index.html"

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The pictures, one .png each; beside it lies the .svg."""
        return tuple(self.folder / "figures" / f"{item.name}.png" for item in self.figures)

    @property
    def seconds(self) -> float:
        """Wall time of all steps."""
        return sum(step.seconds for step in self.steps)

    def words(self) -> list[str]:
        """Return what the numbers say, a sentence each."""
        by_name = {item.method: item for item in self.summaries}
        source, shown, oracle = by_name.get("source-only"), by_name.get(self.method), by_name.get("oracle")
        lines = []
        if source and shown:
            lines.append(
                f"Adapting with {get_method(self.method).title} takes the mean macro F1 of {shown.subjects} new people "
                f"from {percent(source.macro_f1)} to {percent(shown.macro_f1)}: {shown.wins} gain, {shown.losses} lose."
            )
        light = [item for item in self.summaries if get_method(item.method).setting == "Baselines"]
        if light and shown:
            best = max(light, key=lambda item: item.macro_f1)
            lines.append(f"The best light baseline, {get_method(best.method).title}, reaches {percent(best.macro_f1)}.")
        if oracle and shown and oracle.macro_f1 < shown.macro_f1:
            lines.append(
                f"The oracle stays below at {percent(oracle.macro_f1)}: fine-tuned on a few dozen frames of one "
                "person, it overfits to how those clips were filmed, so it marks no upper bound here, and “gap closed” "
                "means little."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints: the object of `featlab evaluate`, and where things are."""
        return {
            "note": NO_CLAIM,
            "config": self.config.to_dict(),
            "cache_digest": self.cache_digest,
            "versions": versions(),
            "results": [row.to_dict() for row in self.rows],
            "summary": [item.to_dict() for item in self.summaries],
            "folder": self.folder.as_posix(),
            "page": self.page.as_posix(),
            "figures": [path.as_posix() for path in self.pictures],
            "steps": [asdict(step) for step in self.steps],
            "seconds": self.seconds,
            "next": list(self.next_steps),
        }

    def to_html(self) -> str:
        """Return the page; the pictures must be there."""
        return render_page(
            note=NO_CLAIM,
            words=self.words(),
            tables=(self.per_subject, self.summary),
            figures=self.figures,
            folder=self.folder / "figures",
            steps=[step.line() for step in self.steps],
            commands=self.next_steps,
            facts={"cache digest": self.cache_digest, "seed": self.config.protocol.seed} | versions(),
        )


def next_steps(folder: Path, subjects: Sequence[str]) -> tuple[str, ...]:
    """Return the commands to type next."""
    subject = _SUBJECT if _SUBJECT in subjects else subjects[-1]
    return (
        f"cd {os.path.relpath(folder)}",
        f"featlab adapt --subject {subject}",
        "featlab pair --strategy landmark",
        "featlab evaluate --draws 3",
        "featlab ablate dims",
        "featlab report",
    )

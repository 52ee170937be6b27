"""What a tuning leaves in its folder: the chosen values, the table that chose them, the trials, what made them."""

from __future__ import annotations

import json
from pathlib import Path

from featlab.analysis.render import write_table
from featlab.analysis.tuning_table import trials_table
from featlab.cache import atomic_write_text
from featlab.config_edit import section_text
from featlab.tuning_report import TuningReport

__all__ = ["chosen_text", "write_tuning"]

_ENDINGS = ("md", "csv", "tex")


def write_tuning(folder: Path, report: TuningReport) -> list[Path]:
    """Write a tuning.

    ``chosen.toml`` the choice (removed where there is none), ``table_trials`` as .md, .csv and .tex, ``trials.jsonl``
    a line a candidate, ``run.json`` what made them.

    Args:
        folder: Where; made when it isn't there.
        report: The tuning.

    Returns:
        The files, those to look at first.

    Raises:
        FeatlabError: A file can't be written.
    """
    written = []
    chosen = folder / "chosen.toml"
    if report.chosen is None:
        # One of an earlier run would pass for the choice of this one.
        chosen.unlink(missing_ok=True)
    else:
        atomic_write_text(chosen, chosen_text(report))
        written.append(chosen)
    table = trials_table(report.trials, title=f"Tuning of {report.method} on source subjects")
    for ending in _ENDINGS:
        written.append(folder / f"table_trials.{ending}")
        write_table(written[-1], table)
    lines = [json.dumps(trial.to_dict(), ensure_ascii=False, allow_nan=False) for trial in report.trials]
    written.append(folder / "trials.jsonl")
    atomic_write_text(written[-1], "".join(line + "\n" for line in lines))
    written.append(folder / "run.json")
    atomic_write_text(written[-1], json.dumps(report.facts(), indent=2, ensure_ascii=False) + "\n")
    return written


def chosen_text(report: TuningReport) -> str:
    """Return a section for ``featlab.toml``, with comments that say where it comes from and what it is worth."""
    comments = [report.command, f"Cache {report.plan.side.workspace.cache_digest}", report.verdict]
    if report.chosen is not None:
        score, default = 100 * report.chosen.macro_f1, 100 * report.default.macro_f1
        subjects = f"{report.chosen.subjects} source subjects"
        comments.insert(2, f"Macro F1 {score:.2f} on {subjects}, each a target once; the default {default:.2f}")
    # A line break in what was typed must not end the comment.
    lines = [f"# {' '.join(comment.split())}\n" for comment in comments]
    return "".join(lines) + section_text(("adapt", report.method), report.options)

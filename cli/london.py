"""`featlab london`: the clips of real faces, made from the public download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featlab.cli.common import JobsOption, JsonOption, Output, QuietOption, cpu_count
from featlab.cli.group import SKIPPED

if TYPE_CHECKING:
    from rich.progress import Progress

    from featlab.extraction.london import LondonReport

__all__ = ["london"]


def london(
    originals: Annotated[
        Path, typer.Argument(help="The download, unpacked: NNN_03.jpg and NNN_08.jpg, in any folders.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the clips go.")] = Path("london-morph"),
    people: Annotated[
        str, typer.Option("--people", metavar="morph|all|N,N,…", help="morph: the 62 of the README's table.")
    ] = "morph",
    detector: Annotated[
        str, typer.Option("--detector", metavar="mediapipe[:FILE.task]", help="Who finds the face mesh.")
    ] = "mediapipe",
    size: Annotated[int, typer.Option("--size", min=32, max=512, metavar="PIXELS", help="Side of a frame.")] = 96,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Root of every random number.")] = 0,
    jobs: JobsOption = 0,
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Morph the London Set's photographs into clips of subtle smiles. A killed run goes on person by person."""
    from featlab.extraction.faces.detectors import make_detector
    from featlab.extraction.london import LondonConfig, build_london
    from featlab.extraction.london_photos import find_people, parse_people

    output = Output(json_mode=json_mode, quiet=quiet)
    numbers = parse_people(people)
    # A wrong folder is told before a missing library.
    find_people(originals, numbers)
    found = make_detector(detector, points=478)
    config = LondonConfig(people=numbers, seed=seed, size=size, mesh_info=found.info)
    with output.progress("{task.fields[failed]}") as bars:
        report = build_london(originals, out, found.detect, config, jobs=cpu_count(jobs), on_progress=_Bar(bars))
    _tell(output, report)
    if report.failures:
        raise typer.Exit(SKIPPED)


class _Bar:
    """Shows how many people are done."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("people", total=None, failed="")

    def __call__(self, done: int, total: int, failed: int) -> None:
        self._bars.update(self._task, completed=done, total=total, failed=f"{failed} failed" if failed else "")


def _tell(output: Output, report: LondonReport) -> None:
    from featlab.extraction.shards import failures_path

    listed = failures_path(report.manifest)
    output.json(
        {
            "manifest": report.manifest,
            "subjects": list(report.subjects),
            "rows": report.rows,
            "resumed_subjects": report.resumed,
            "failures": len(report.failures),
            "failures_file": listed if report.failures else None,
            "seconds": round(report.seconds, 3),
        }
    )
    facts = {
        "subjects": len(report.subjects),
        "of an earlier run": report.resumed,
        "rows": f"{report.rows:,}",
        "seconds": f"{report.seconds:.1f}",
    }
    output.facts(str(report.manifest), facts)
    output.show(
        "credit: DeBruine & Jones (2017), doi 10.6084/m9.figshare.5047666.v5, CC BY 4.0; a derivative work",
        "next:",
        f"  featlab extract {report.manifest} --backbone hog --out hog.h5",
    )
    failures = [(failure.path, failure.reason) for failure in report.failures]
    output.warn_of_failures(failures, f"people have no clips; they are listed in {listed}")

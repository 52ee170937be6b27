"""`featlab ablate …`: the protocol again with one setting changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featlab.cli.complete import complete_ablation
from featlab.cli.session import FAILED, SKIPPED, Session, command, names_in, typed_command

_FLAGS = ("targets", "pool", "draws", "methods", "seeds")
_LISTS = {
    "dims": ("dims",),
    "pairing": ("strategies",),
    "losses": ("terms",),
    "lambda": ("style", "expression", "alignment", "anchor"),
    "layers": ("updates",),
    "neutral": ("frames",),
    "sources": ("counts",),
    "contamination": ("shares",),
    "bn": ("modes",),
}
"""Keys of ``[ablate]`` that ``--values`` sets."""


@command(
    "targets",
    "pool",
    "draws",
    "methods",
    "seeds",
    "workspace",
    "caches",
    "settings",
    "seed",
    "device",
    "jobs",
    "json_mode",
    "quiet",
)
def ablate(
    session: Session,
    what: Annotated[
        str,
        typer.Argument(
            metavar="dims|pairing|losses|lambda|layers|neutral|sources|contamination|bn",
            help="dims: dimension of the features. pairing: how source rows are paired. losses: each term on and off. "
            "lambda: weights of the losses. layers: which layers of T adapt. neutral: frames of the clip. sources: "
            "source subjects. contamination: a clip that is not all neutral. bn: BatchNorm's mode.",
            autocompletion=complete_ablation,
        ),
    ],
    grid: Annotated[
        str | None,
        typer.Option(
            "--values", metavar="V,V,…", help="The settings to run; default: what \\[ablate] in the file says."
        ),
    ] = None,
    reduce: Annotated[
        str | None,
        typer.Option(
            "--reduce",
            metavar="NAME,…",
            help="dims: within, pca, truncate, random; a panel each. Default: features.reduce.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="pairing: where the images are, for example pairs."),
    ] = None,
) -> None:
    """Change one setting, see what it does to the score. Resumable: what is finished is kept."""
    from featlab.analysis.ablation.report import ablation_result, example_figures
    from featlab.analysis.ablation.run import ablate as run_ablation

    output = session.output
    more: dict[str, object] = {"ablate.methods": session["methods"], "ablate.reductions": reduce}
    more |= {f"ablate.{key}": _numbers(what, grid) for key in _LISTS.get(what, ())}
    with output.progress() as bars:
        opened = session.open(more)
        protocol = opened.config.protocol
        output.note(f"ablate {what}: {protocol.draws} draws x {protocol.seeds} seeds")
        bar = bars.add_task(f"ablate {what}", total=None)
        report = run_ablation(
            what,
            opened,
            jobs=session.jobs,
            on_step=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    examples = example_figures(opened, images, output.note) if what == "pairing" else []
    output.result(session.workspace / "results" / f"ablate-{what}", ablation_result(report, examples), typed_command())
    rows = [row for point in report.points for row in point.rows]
    failed = [row for row in rows if row.error]
    if failed:
        output.warn(f"{len(failed)} of {len(rows)} runs failed, the first: {failed[0].error}")
        raise typer.Exit(FAILED if len(failed) == len(rows) else SKIPPED)


def _numbers(what: str, text: str | None) -> str | None:
    """Return the values as the file would hold them: ``full`` and ``all`` are 0, and percentages are shares."""
    if text is None:
        return None
    words = names_in(text)
    if what in ("dims", "neutral", "sources"):
        words = ["0" if word in ("full", "all") else word for word in words]
    return ",".join(words)

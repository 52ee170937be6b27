"""`featlab plot …`: pictures of what happens inside."""

from __future__ import annotations

import typer

from featlab.cli.plot_faces import clip, confusion, pairs
from featlab.cli.plot_maps import neighbours, style, tsne

__all__ = ["plot_app"]

plot_app = typer.Typer(name="plot", no_args_is_help=True, help="Pictures of what happens inside, as SVG, PDF and PNG.")


@plot_app.callback()
def plot() -> None:
    """Pictures of what happens inside, as SVG, PDF and PNG, with the numbers behind them as csv."""


for _command in (tsne, neighbours, pairs, clip, confusion, style):
    plot_app.command()(_command)

"""The `featlab` app, put together from small modules of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from featlab import __version__
from featlab.cli import data, source, target
from featlab.cli.ablate import ablate
from featlab.cli.backbone import backbone_app
from featlab.cli.bundle import bundle_app
from featlab.cli.data import layouts
from featlab.cli.evaluate import benchmark, evaluate, methods
from featlab.cli.explain import branches, complexity
from featlab.cli.export import export
from featlab.cli.extract import extract
from featlab.cli.group import FeatlabGroup
from featlab.cli.importing import import_features
from featlab.cli.merge import merge
from featlab.cli.plot import plot_app
from featlab.cli.report import demo, report
from featlab.cli.tune import tune

DATA, SOURCE, TARGET, RESULTS = "Data", "Source subjects", "Target subjects", "Results"

app = typer.Typer(
    name="featlab",
    cls=FeatlabGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"featlab {__version__}")
        raise typer.Exit


@app.callback()
def featlab(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Personalise facial-expression recognition to one new person, on cached features."""


app.command(rich_help_panel=DATA)(data.init)
app.command(rich_help_panel=DATA)(extract)
app.command("import", rich_help_panel=DATA)(import_features)
app.command(rich_help_panel=DATA)(merge)
app.command(rich_help_panel=DATA)(data.inspect)
app.command(rich_help_panel=DATA)(data.verify)
app.command(rich_help_panel=DATA)(layouts)
app.add_typer(backbone_app, name="backbone", rich_help_panel=SOURCE)
app.command(rich_help_panel=SOURCE)(source.train)
app.command(rich_help_panel=SOURCE)(source.pair)
app.command(rich_help_panel=SOURCE)(source.pretrain)
app.add_typer(bundle_app, name="bundle", rich_help_panel=SOURCE)
app.command(rich_help_panel=TARGET)(target.adapt)
app.command(rich_help_panel=TARGET)(target.predict)
app.command(rich_help_panel=TARGET)(export)
app.command(rich_help_panel=RESULTS)(evaluate)
app.command(rich_help_panel=RESULTS)(benchmark)
app.command(rich_help_panel=RESULTS)(tune)
app.command(rich_help_panel=RESULTS)(methods)
app.command(rich_help_panel=RESULTS, no_args_is_help=True)(ablate)
app.add_typer(plot_app, name="plot", rich_help_panel=RESULTS)
app.command(rich_help_panel=RESULTS)(complexity)
app.command(rich_help_panel=RESULTS)(branches)
app.command(rich_help_panel=RESULTS)(report)
app.command(rich_help_panel=RESULTS)(demo)

"""The `featlab` command, put together from small modules; an error ends in one line and the exit code of its kind."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer
from typer import Option
from typer.core import TyperGroup

from featlab import __version__
from featlab.cli.output import inert, print_error
from featlab.cli.session import DONE, FAILED, REFUSED, TYPED
from featlab.errors import FeatlabError, InputError

# The parser's own base class; where it lives changes between releases of Typer, its child has a public name.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
_MOVED = {"london": "this command is now a script of the repository: python benchmarks/london_morph/make_clips.py"}


class FeatlabGroup(TyperGroup):
    """A command group that speaks one line an error."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; one that has moved says where to."""
        if ctx.parent is None and args[0] in _MOVED:
            raise InputError(f"featlab {args[0]}: {_MOVED[args[0]]}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C and SIGTERM say what is left behind."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise typer.Exit(_say_stopped(stop)) from None

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **options: Any,
    ) -> Any:
        """Run the command line and exit with its code; with ``FEATLAB_DEBUG=1`` an error keeps its traceback."""
        TYPED.set(tuple(sys.argv[1:] if args is None else args))
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **options)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **options)
        except FeatlabError as error:
            # What is no bad input: a model's file that computes something else.
            _refuse(error, str(error), FAILED if isinstance(error, RuntimeError) else REFUSED)
        except _UsageError as error:
            line = _usage_line(error)
            if not line:
                # Nothing was asked for: the parser has shown the help.
                sys.exit(REFUSED)
            _refuse(error, line, REFUSED)
        except typer.Abort as error:
            _refuse(error, "aborted", FAILED)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
            _refuse(error, f"{what}; check the folder, its permissions and the free space", REFUSED)
        except MemoryError as error:
            _refuse(error, f"not enough memory ({error or 'for what was asked'}); fewer --jobs take less", FAILED)
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            _refuse(error, f"{text} (this is a bug; run with FEATLAB_DEBUG=1 for the traceback)", FAILED)
        sys.exit(code if isinstance(code, int) else DONE)


def _refuse(error: Exception, line: str, code: int) -> NoReturn:
    if os.environ.get("FEATLAB_DEBUG", "") not in ("", "0"):
        raise error
    print_error(line)
    sys.exit(code)


def _stop(number: int, frame: object) -> NoReturn:
    """Unwind the run, so that its drafts and workers go too; a second signal ends the process at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def _say_stopped(stop: KeyboardInterrupt) -> int:
    """Say that a signal ended the run; return its exit code, as a shell counts it."""
    number = stop.args[0] if stop.args else signal.SIGINT
    word = "interrupted" if number == signal.SIGINT else "terminated"
    print_error(f"{word}; finished work is kept, the same command goes on from there")
    return 128 + int(number)


def _usage_line(error: Any) -> str:
    command = error.ctx.command_path if getattr(error, "ctx", None) else "featlab"
    message = error.format_message().strip().rstrip(".")
    return f"{message}; see {command} --help" if message else ""


DATA, SOURCE, TARGET, RESULTS = "Data", "Source subjects", "Target subjects", "Results"
COMMANDS = {
    "init": (DATA, "data:init"),
    "extract": (DATA, "extract:extract"),
    "import": (DATA, "extract:import_features"),
    "calibrate": (DATA, "data:calibrate"),
    "merge": (DATA, "data:merge"),
    "inspect": (DATA, "data:inspect"),
    "verify": (DATA, "data:verify"),
    "forget": (DATA, "forget:forget"),
    "layouts": (DATA, "extract:layouts"),
    "backbone": (SOURCE, "backbone:backbone_app"),
    "train": (SOURCE, "stages:train"),
    "pair": (SOURCE, "stages:pair"),
    "pretrain": (SOURCE, "stages:pretrain"),
    "bundle": (SOURCE, "exchange:bundle_app"),
    "personalise": (TARGET, "personalise:personalise"),
    "adapt": (TARGET, "stages:adapt"),
    "predict": (TARGET, "predict:predict"),
    "export": (TARGET, "exchange:export"),
    "evaluate": (RESULTS, "evaluate:evaluate"),
    "benchmark": (RESULTS, "evaluate:benchmark"),
    "tune": (RESULTS, "tune:tune"),
    "methods": (RESULTS, "evaluate:methods"),
    "ablate": (RESULTS, "explain:ablate"),
    "plot": (RESULTS, "plot:plot_app"),
    "complexity": (RESULTS, "explain:complexity"),
    "branches": (RESULTS, "explain:branches"),
    "paper": (RESULTS, "explain:paper"),
    "report": (RESULTS, "explain:report"),
    "demo": (RESULTS, "explain:demo"),
}
"""Each command's panel in the help, and the function or group of commands that it is."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"featlab {__version__}")
        raise typer.Exit


def featlab(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Personalise facial-expression recognition to one new person, on cached features."""


def make_app(names: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """Put the command together, of the named ones: what no one asked for is not imported."""
    app = typer.Typer(
        name="featlab",
        cls=FeatlabGroup,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    app.callback()(featlab)
    for name in names:
        panel, where = COMMANDS[name]
        module, attribute = where.split(":")
        found = getattr(import_module(f"featlab.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel, no_args_is_help=name == "ablate")(found)
    return app


def main() -> None:
    """Run the ``featlab`` command; a letter that the output's encoding hasn't is written as its escape (\\u674e)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Of the many objects of torch none ever goes: looking through them takes a tenth of a short command.
    gc.set_threshold(50_000, 20, 100)
    warnings.formatwarning = lambda message, *_, **__: f"featlab: warning: {inert(' '.join(str(message).split()))}\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        # One that is ignored, as behind nohup, stays so.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    first = sys.argv[1:2]
    try:
        make_app(first if set(first) & set(COMMANDS) else COMMANDS)(prog_name="featlab")
    except KeyboardInterrupt as stop:
        # Before the command began, or after its end.
        sys.exit(_say_stopped(stop))
    finally:
        # The process ends, and looking for what nobody needs any more would take longer than many a command.
        gc.freeze()

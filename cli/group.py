"""The `featlab` command as a whole: every error ends in one line and the exit code that the design gives it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from featlab.cli.output import print_error
from featlab.errors import FeatlabError, InputError

__all__ = ["DONE", "FAILED", "REFUSED", "SKIPPED", "FeatlabGroup", "typed_command"]

DONE, FAILED, REFUSED, SKIPPED = 0, 1, 2, 3
"""Exit codes: all well; a run failed; bad usage or input; done, but some items were skipped."""
_INTERRUPTED = 130
# The parser's own base class; where it lives changes between releases of Typer, its child has a public name.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


_TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())
_MOVED = {"london": "this command is now a script of the repository: python benchmarks/london_morph/make_clips.py"}
_SILENT, _WITH_VALUE = ("--json", "--quiet", "-q", "--wide"), ("--jobs", "-j")


def typed_command() -> str:
    """Return the running command as it was typed, but for flags that change no result: what reproduces it."""
    words, skip = ["featlab"], False
    for word in _TYPED.get():
        if skip or word in _SILENT or word.partition("=")[0] in _WITH_VALUE:
            skip = not skip and word in _WITH_VALUE
            continue
        words.append(shlex.quote(word))
    return " ".join(words)


class FeatlabGroup(TyperGroup):
    """A command group that speaks one line an error."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; one that has moved says where to."""
        if ctx.parent is None and args[0] in _MOVED:
            raise InputError(f"featlab {args[0]}: {_MOVED[args[0]]}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C says what is left behind."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print_error("interrupted; finished work is kept, the same command goes on from there")
            raise typer.Exit(_INTERRUPTED) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit with its code.

        With ``FEATLAB_DEBUG=1`` in the environment an error keeps its traceback.
        """
        _TYPED.set(tuple(sys.argv[1:] if args is None else args))
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except FeatlabError as error:
            _refuse(error, str(error), REFUSED)
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
            _refuse(error, f"{what}; check the folder, its permissions and the free space", FAILED)
        except Exception as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            _refuse(error, f"{text} (this is a bug; run with FEATLAB_DEBUG=1 for the traceback)", FAILED)
        sys.exit(code if isinstance(code, int) else DONE)


def _refuse(error: Exception, line: str, code: int) -> NoReturn:
    if os.environ.get("FEATLAB_DEBUG", "") not in ("", "0"):
        raise error
    print_error(line)
    sys.exit(code)


def _usage_line(error: Any) -> str:
    command = error.ctx.command_path if getattr(error, "ctx", None) else "featlab"
    message = error.format_message().strip().rstrip(".")
    return f"{message}; see {command} --help" if message else ""

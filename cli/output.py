"""What a command prints: results on stdout, everything about the way there on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.errors import CONTROL

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from featlab.analysis.page import Result
    from featlab.analysis.table import Table

_SPARE = 8  # Rich says up to so many columns less than a table of all columns takes.
_WIDE = 1000  # Columns where nobody reads along: a file or a pipe has no edge at which to cut a table.
_SPELLED_OUT = 5  # Failures that are named; a list has all of them.


class Output:
    """Where a command's words go."""

    def __init__(self, *, json_mode: bool = False, quiet: bool = False, wide: bool = False) -> None:
        self.json_mode = json_mode  # One JSON object on stdout in place of tables.
        self.quiet = quiet  # No notes and no progress.
        self.wide = wide  # Every column of a table; by default those that decide.
        terminal = sys.stdout.isatty()
        self.stdout = _console(width=None if terminal else _WIDE)
        self.stderr = _console(stderr=True)

    def note(self, *lines: str) -> None:
        """Say on stderr what is going on, a line each."""
        if not self.quiet:
            self._say(*lines)

    def warn(self, *lines: str) -> None:
        """Say on stderr what the user should know, also with --quiet."""
        self._say(*(f"featlab: warning: {line}" for line in lines))

    def warn_of_failures(self, failures: Sequence[tuple[str, str]], rest: str) -> None:
        """Spell the first few (what, why) out, then say how many there are and the ``rest``; nothing without any."""
        for what, why in failures[:_SPELLED_OUT]:
            self.warn(f"{what}: {why}")
        if failures:
            self.warn(f"{len(failures)} {rest}")

    def show(self, *renderables: RenderableType) -> None:
        """Print text or a Rich table on stdout, never cut; nothing with --json."""
        from rich.text import Text

        if self.json_mode:
            return
        for renderable in renderables:
            if isinstance(renderable, str | Text):
                self.stdout.print(renderable, soft_wrap=True)
            else:
                # Rich leaves columns out that do not fit: where all of them need more, the terminal folds the lines.
                needed = self.stdout.measure(renderable, options=self.stdout.options.update_width(_WIDE)).minimum
                width = self.stdout.width
                if needed > width:
                    self.stdout.width = needed + _SPARE
                self.stdout.print(renderable)
                self.stdout.width = width

    def table(self, table: Table) -> None:
        """Print a table of `featlab.analysis` on stdout."""
        from featlab.analysis.render import to_rich

        self.show(to_rich(table, wide=self.wide))

    def result(self, folder: Path, result: Result, command: str, files: Sequence[Path] | None = None) -> None:
        """Print a result, tables, sentences and where its files are, or JSON; write them, unless they are there."""
        from featlab.analysis.page import write_result

        # Before it is written: what may have taken hours to compute is shown where no file can be made, too.
        self.note(*result.notes)
        for table in result.shown():
            self.table(table)
        self.show(*result.summary)
        files = write_result(folder, result, command) if files is None else files
        self.json({**result.metadata, **result.data, "words": result.summary, "files": files})
        pictures = [path.name for path in files if path.suffix == ".svg"]
        others = len(files) - len(pictures)
        self.show(f"{folder}: " + (f"{', '.join(pictures)} and {others} more files" if pictures else f"{others} files"))

    def tell(self, title: str, facts: Mapping[str, Any], said: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Print facts, some ``said`` in other words, none that is 0 or empty; with --json as they are, and ``more``."""
        self.json({**more, **facts})
        shown = {**facts, **(said or {})}
        self.facts(title, {name.replace("_", " "): value for name, value in shown.items() if value})

    def facts(self, title: str, facts: Mapping[str, Any]) -> None:
        """Print names and values, one pair a line, under a title; a value of None is shown as a dash."""
        from rich.text import Text

        width = max((len(name) for name in facts), default=0)
        lines = [Text.assemble((f"  {name:<{width}}  ", "dim"), _worded(value)) for name, value in facts.items()]
        self.show(Text(title, style="bold"), *lines)

    def columns(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, text_columns: int = 1) -> None:
        """Print a plain table: ``text_columns`` words on the left, numbers to the right."""
        from featlab.analysis.table import Table

        cells = tuple(tuple(map(str, row)) for row in rows)
        plain = ((False,) * len(columns),) * len(cells)
        self.table(Table("", tuple(columns), cells, plain, text_columns=text_columns))

    def json(self, data: Mapping[str, Any]) -> None:
        """Print one JSON object on stdout with --json; NaN becomes null."""
        if self.json_mode:
            ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
            text = json.dumps(plain(data), ensure_ascii=ascii_only, allow_nan=False, indent=2)
            # As JSON itself writes such a letter.
            sys.stdout.write(inert(text) + "\n")

    @contextmanager
    def progress(self) -> Iterator[Bars]:
        """Show bars on stderr while the block runs; hidden with --quiet and where stderr is no terminal."""
        from rich import progress
        from rich.table import Column

        bars = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(20),
            progress.MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("{task.fields[words]}", markup=False),
            console=self.stderr,
            transient=True,
            disable=self.quiet or not self.stderr.is_terminal,
        )
        with bars:
            yield Bars(bars)

    @contextmanager
    def stages(self) -> Iterator[Callable[[str, int, int, float], None]]:
        """Show the epochs of training while the block runs: call it with stage, epoch, number of epochs, mean loss."""
        with self.progress() as bars:
            yield lambda stage, epoch, epochs, loss: bars(stage, epoch, epochs, f"loss {loss:.3f}")

    def _say(self, *lines: str) -> None:
        for line in lines:
            self.stderr.print(" ".join(line.splitlines()), soft_wrap=True)


def inert(text: str) -> str:
    """Return text that a terminal shows and doesn't obey: what no name has, but the end of a line, as \\u001b."""
    return CONTROL.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def _console(**how: Any) -> Console:
    """Return a console on which no name moves the cursor or changes a colour, whatever letters it has."""
    from rich.console import Console
    from rich.segment import Segment

    class Inert(Console):
        def render(self, *given: Any, **options: Any) -> Iterator[Segment]:
            for text, style, control in super().render(*given, **options):
                yield Segment(text if control else inert(text), style, control)

    return Inert(markup=False, highlight=False, emoji=False, **how)


class Bars:
    """A bar a stage, made when it first moves: call it with the stage, how much is done and how much there is."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int | None, words: str = "") -> None:
        """Move the bar of a stage, and say something behind it."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, words="")
        self._bars.update(self._tasks[stage], completed=done, total=total, words=words)

    def of(self, stage: str) -> Callable[[int, int], None]:
        """Return the bar of one stage, which is there from now on."""
        self(stage, 0, None)
        return partial(self, stage)


def print_error(line: str) -> None:
    """Print one line on stderr, as it is: no markup, no wrapping."""
    sys.stderr.write(f"featlab: error: {inert(' '.join(line.splitlines()))}\n")
    sys.stderr.flush()


def _worded(value: Any) -> str:
    """Return a fact as a line says it."""
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def plain(value: Any) -> Any:
    """Return ``value`` in types that strict JSON can hold: NaN and infinity become None, paths and others text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)

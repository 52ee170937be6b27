"""Whole commands, from the start of the process to its end.

python benchmarks/claims.py startup
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from claims import Claim, command

from cache import EXTRACTOR, random_table
from featlab import write_table


def claims(folder: Path) -> Iterator[Claim]:
    """Yield the claims about commands that look at a small cache, and about lists."""
    small = str(write_table(folder / "small.h5", random_table(1000, 10), EXTRACTOR))
    for name in ("inspect", "verify"):
        yield Claim(
            f"`featlab {name}`, 1,000 rows",
            '`python -c "import h5py"`',
            2,
            lambda name=name: command("featlab", name, small),
            lambda: command("python", "-c", "import h5py"),
        )
    for words in ("--help", "methods", "layouts"):
        yield Claim(
            f"`featlab {words}`",
            '`python -c "import typer.rich_utils, rich.table"`',
            2,
            lambda words=words: command("featlab", words),
            lambda: command("python", "-c", "import typer.rich_utils, rich.table"),
        )

"""Every fault and attack that is tried on featlab, and what came of it, in one table.

    python benchmarks/trust.py                       # all of them, about an hour on two cores
    python benchmarks/trust.py kills damage          # those of two modules
    python benchmarks/trust.py --scale 0.02          # a fiftieth of each, in a minute or two
    python benchmarks/trust.py --out trust.md

Each module of `MODULES` has a function ``attacks(folder, scale, seed)`` that yields a `Row` for each kind of fault. A
case is *detected* when a command or a reader refused it in one line, *harmless* when the result is the right one all
the same, *lost* when finished work is gone or can't be finished by the same command, *silent* when something wrong was
used without a word, *traceback* when anything but one clear line was printed. The last three have to be zero.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

MODULES = ("kills", "damage", "hostile", "fuzz")


@dataclass(frozen=True)
class Row:
    """A kind of fault or attack: how many were tried, and how each of them ended."""

    what: str
    tried: int
    detected: int = 0
    harmless: int = 0
    lost: int = 0
    silent: int = 0
    traceback: int = 0

    def __post_init__(self) -> None:
        ended = self.detected + self.harmless + self.lost + self.silent + self.traceback
        if ended != self.tried:
            raise ValueError(f"{self.what}: {self.tried} tried, but {ended} ended")

    @property
    def held(self) -> bool:
        return not (self.lost or self.silent or self.traceback)


def rows(modules: list[str], folder: Path, scale: float, seed: int) -> Iterator[Row]:
    """Yield the rows of each module, which works in a folder of its own."""
    for name in modules:
        place = folder / name
        place.mkdir()
        yield from importlib.import_module(f"trust_{name}").attacks(place, scale, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(MODULES), metavar="MODULE")
    parser.add_argument("--scale", type=float, default=1.0, help="The share of the cases that is tried.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # Of the commands, too.
    written = [f"{platform.machine()}, Python {platform.python_version()}, seed {options.seed}.", ""]
    written += [f"| {' | '.join(field.name for field in fields(Row))} |", "|---" + "|---:" * 6 + "|"]
    print("\n".join(written), flush=True)
    held = True
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(options.modules, Path(folder), options.scale, options.seed):
            held &= row.held
            written.append(
                f"| {' | '.join(f'{value:,}' if isinstance(value, int) else value for value in astuple(row))} |"
            )
            print(written[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(written) + "\n", encoding="utf-8")
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()

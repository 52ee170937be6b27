"""Every claim about speed, as a ratio against a named alternative in the same run.

    python benchmarks/claims.py                          # all of them, about twenty minutes
    python benchmarks/claims.py cache pairing --runs 9   # those of two modules
    python benchmarks/claims.py --out claims.md

Each module of `MODULES` has a function ``claims(folder)`` that yields `Claim`s. Ours and the alternative take turns, so
that a busy moment of the machine meets both; the table has the medians, their ratio, and the least and greatest ratio
of a turn. One thread each.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

MODULES = ("cache", "startup", "adaptation", "pairing", "evaluation", "extraction")
LIBRARIES = ("numpy", "h5py", "torch", "faiss-cpu", "scikit-learn")


@dataclass(frozen=True)
class Claim:
    """What is claimed: ``ours`` takes at most ``limit`` times as long as ``theirs``."""

    what: str  # What ours does.
    against: str  # The alternative.
    limit: float  # The greatest ratio of the two times that the claim allows.
    ours: Callable[[], object]
    theirs: Callable[[], object]
    times: float = 1  # One call of `theirs` stands for so many: it is a part of the work, and the rest is extrapolated.
    before: Callable[[], object] = lambda: None  # Runs before each call of ours, and is not timed.


def command(*words: str) -> None:
    """Run ``featlab`` or ``python`` of this environment, as a user would, and fail where it fails."""
    program = Path(sys.executable).with_name(words[0])
    done = subprocess.run([str(program), *words[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr or done.stdout}")


def seconds(work: Callable[[], object]) -> float:
    """Return how long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(claim: Claim, runs: int) -> str:
    """Return the claim's row of the table."""
    turns = []
    for _ in range(runs + 1):
        claim.before()
        turns.append((seconds(claim.ours), claim.times * seconds(claim.theirs)))
    turns = turns[1:]  # The first one reads files and imports modules.
    ours, theirs = (statistics.median(turn) for turn in zip(*turns, strict=True))
    ratios = [mine / other for mine, other in turns]
    met = "yes" if ours <= claim.limit * theirs else "**no**"
    extrapolated = f" (× {claim.times:g})" if claim.times != 1 else ""
    return (
        f"| {claim.what} | {claim.against}{extrapolated} | {ours:.4g} s | {theirs:.4g} s | {ours / theirs:.3g} "
        f"({min(ratios):.3g} to {max(ratios):.3g}) | {claim.limit:g} | {met} |"
    )


def lines(modules: list[str], runs: int, folder: Path) -> Iterator[str]:
    """Yield the table."""
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    yield f"{machine}, {versions}; medians of {runs} runs."
    yield ""
    yield "| what | against | ours | the other | ratio (range) | at most | met |"
    yield "|---|---|---|---|---|---|---|"
    for name in modules:
        place = folder / name
        place.mkdir()
        for claim in importlib.import_module(name).claims(place):
            try:
                yield measure(claim, runs)
            except SystemExit as failed:
                yield f"| {claim.what} | {claim.against} | failed: {str(failed).splitlines()[-1]} | | | | **no** |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(MODULES), metavar="MODULE")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # Of the commands, too.
    import torch

    torch.set_num_threads(1)
    written = []
    with tempfile.TemporaryDirectory() as folder:
        for line in lines(options.modules, options.runs, Path(folder)):
            print(line, flush=True)
            written.append(line)
    if options.out:
        options.out.write_text("\n".join(written) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

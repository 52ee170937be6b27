"""Files that are cut, with a bit turned over, in another's place, or of an older or a newer featlab.

Each file is damaged where it lies and then read as featlab reads it, or checked by what `featlab verify` runs. What a
reader gives is compared bit for bit with what it gave before.

    python benchmarks/trust.py damage
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from artefacts import Artefact, Use, artefacts, made, marks, whole
from disturbed import EXTRACTOR, METHODS, PERSON, SMALL, people, well
from forked import Fault, contents, copied, run
from trust import Row
from trust_kills import row

from featlab import write_table
from featlab.bundle.bundle import load_bundle
from featlab.errors import BundleError, FeatlabError

STEP, SECONDS = 4096, 60
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Damage:
    """What a file holds in place of what was written."""

    path: Path
    data: Callable[[bytes], bytes]


def cut(at: int, data: bytes) -> bytes:
    return data[:at]


def flip(at: int, data: bytes) -> bytes:
    return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]


def put(other: Path, data: bytes) -> bytes:
    return other.read_bytes()


def tried(use: Use, damages: Sequence[Damage]) -> Iterator[str]:
    """Yield how each damage ended; in a fork, of which a new one goes on where one has crashed."""
    done = 0
    while done < len(damages):
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            _try(use, damages[done:], writing)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as told:
            for line in told:
                done += 1
                yield line.strip()
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status:
            yield f"traceback: {damages[done].path.name}, ended by {status}"
            done += 1


def _try(use: Use, damages: Sequence[Damage], writing: int) -> None:
    """Read each damaged file, in a process that ends here; one that hangs is ended by an alarm."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    right = marks(use())
    for damage in damages:
        signal.alarm(SECONDS)
        written = damage.path.read_bytes()
        damage.path.write_bytes(damage.data(written))
        try:
            verdict = "harmless" if marks(use()) == right else f"silent: {damage.path.name}"
        except FeatlabError as error:
            verdict = "traceback: more than a line" if "\n" in str(error) else "detected"
        except Exception as error:
            verdict = f"traceback: {damage.path.name}, {type(error).__name__} {error}".replace("\n", " ")
        damage.path.write_bytes(written)
        os.write(writing, f"{verdict}\n".encode())
    os._exit(0)


def flips(artefact: Artefact, scale: float, rng: random.Random) -> Iterator[Damage]:
    """Yield flipped bits, dealt among the files."""
    for number in range(max(1, round(artefact.share * scale))):
        path = artefact.files[number % len(artefact.files)]
        yield Damage(path, partial(flip, rng.randrange(8 * path.stat().st_size)))


def cuts(artefact: Artefact, scale: float) -> Iterator[Damage]:
    """Yield every length at 4 KiB, and the last byte missing."""
    step = STEP * max(1, round(1 / scale))
    for path in artefact.files:
        size = path.stat().st_size
        for at in sorted({*range(0, size, step), size - 1}):
            yield Damage(path, partial(cut, at))


def swaps(artefact: Artefact, other: Artefact) -> Iterator[Damage]:
    """Yield each file with another's content: of another workspace, and of its neighbour of the same kind."""
    for number, path in enumerate(artefact.files):
        neighbour = artefact.files[(number + 1) % len(artefact.files)]
        for there in (other.files[number % len(other.files)], neighbour):
            # Another whole cache is another input, not damage.
            if there != path and there.suffix == path.suffix != ".h5":
                yield Damage(path, partial(put, there))


def versions(folder: Path) -> Iterator[str]:
    """Yield how caches of an older featlab are read, and its bundles and all of a newer one refused."""
    for name in ("bundle_format_1", "bundle_format_2"):
        try:
            load_bundle(ROOT / "tests/data" / name)
            yield f"silent: {name}"
        except BundleError:
            yield "found"
    for path in sorted((ROOT / "tests/cache/data").glob("*.h5")):
        yield "harmless" if marks(whole(path)) == marks(whole(path)) else f"silent: {path.name}"
    newer = folder / "newer"
    newer.mkdir()
    write_table(newer / "cache.h5", people(9), EXTRACTOR)
    held = ("--targets", "3", *SMALL)
    evaluate = ("evaluate", *METHODS, "--jobs", "1", "--no-plots", *held)
    for words in (("pretrain", *held), ("adapt", *PERSON, *SMALL), evaluate):
        well(run(words, newer, Fault(before=_raise_versions)))
    bundles = [str(path) for path in newer.glob("bundles/*")]
    results = str(next(newer.glob("results/evaluate-*")))
    write_table(newer / "cache.h5", people(9), EXTRACTOR)
    for words in (
        *(("inspect", "--bundle", name) for name in bundles),
        *(("predict", *PERSON, "--bundle", name, *SMALL) for name in bundles),
        ("report", results),
    ):
        ended = run(words, newer)
        yield "detected" if ended.refused else f"silent: {words}, {ended.err}"


def _raise_versions() -> None:
    """Write the next version of each format in this process."""
    import featlab.analysis.page as page
    import featlab.bundle.bundle as bundle
    import featlab.bundle.files as adaptation

    page.PAGE_FORMAT += 1
    adaptation.ADAPTATION_FORMAT += 1
    bundle.BUNDLE_FORMAT += 1


def commands(ours: Sequence[Artefact], place: Path, scale: float, rng: random.Random) -> Iterator[str]:
    """Yield how commands end that use a damaged file: refused, or with what they give when it is whole."""
    scratch = place.with_name("scratch")
    for artefact in ours:
        well(run(artefact.words, copied(place, scratch)))
        expected = contents(scratch)
        for number in range(max(1, round(4 * scale))):
            copied(place, scratch)
            path = scratch / rng.choice(artefact.files).relative_to(place)
            data = path.read_bytes()
            at = rng.randrange(len(data))
            damaged = cut(at, data) if number % 2 else flip(8 * at, data)
            path.write_bytes(damaged)
            ended = run(artefact.words, scratch)
            name = path.relative_to(scratch).as_posix()
            # A file that the command doesn't use stays as it is.
            left = {name} if path.read_bytes() == damaged else set()
            other = [key for key, value in contents(scratch).items() if key not in left and value != expected.get(key)]
            if ended.crashed or ended.code not in (0, 2, 3):
                yield f"traceback: {artefact.words[0]}, {name}: exit {ended.code}, {ended.err}"
            elif ended.code:
                yield "detected"
            else:
                yield f"silent: {artefact.words[0]}, {name}: {other[:3]}" if other else "harmless"


def attacks(folder: Path, scale: float, seed: int) -> Iterator[Row]:
    """Yield a row for each kind of damage to each kind of file."""
    rng = random.Random(seed)
    place, other = made(folder / "space", 0), made(folder / "other", 50)
    ours, theirs = artefacts(place), artefacts(other)
    for artefact in ours:
        yield row(f"a flipped bit: {artefact.name}", tried(artefact.use, list(flips(artefact, scale, rng))))
    every = ((artefact.use, list(cuts(artefact, scale))) for artefact in ours)
    yield row("cut at every 4 KiB", (verdict for use, damages in every for verdict in tried(use, damages)))
    pairs = ((mine.use, list(swaps(mine, yours))) for mine, yours in zip(ours, theirs, strict=True))
    yield row("another file in its place", (verdict for use, damages in pairs for verdict in tried(use, damages)))
    yield row("commands on a damaged file", commands(ours, place, scale, rng))
    yield row("an older or a newer format", versions(folder))

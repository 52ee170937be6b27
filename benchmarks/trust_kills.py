"""Commands that are killed or stopped, find the disk full or the folder closed, meet another run, or lose a worker.

Where and when is drawn from a seed. After each fault no file may hold a part of what it should, what is there may be
used, finished work must be kept, and the same command must end with what a run gives that nothing happened to.

    python benchmarks/trust.py kills
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import forked
from disturbed import EXTRACTOR, Job, jobs, people, prepared, used
from forked import Ended, Fault, contents, copied, drafts, run
from trust import Row

from featlab import write_table

KILLS = 10
FINISHED = ("results/runs", "results/tune-runs", "stages/")
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}
REPLACED = "another cache takes the place"
SPARED = ("extract", "import", "merge")
WITH_WORKERS = """
import sys, featlab.engine
featlab.engine.WORTH = 0.0
from featlab.cli.app import main
main()
"""
"""A command that starts its workers although the work is short."""


def harm(job: Job, place: Path) -> str:
    """Return what is wrong with what a fault left behind, nothing when it may be used."""
    earlier = contents(job.before)
    for name, value in contents(place).items():
        if value not in (earlier.get(name), job.expected.get(name)):
            return f"silent: {name}"
    return "silent: what is there is used" if job.use and used(job, place) != job.used else ""


def finished(job: Job, place: Path, ended: Ended | None = None) -> str:
    """Return what is wrong with a command that ended, or that is run again here; nothing when all is right."""
    done = _finished(place)
    if ended is None:
        # A draft may be of a run that has only just begun: it is taken for dead half a second later.
        time.sleep(0.6 * bool(drafts(place)))
        ended = run(job.words, place)
    # A merge that has been done is refused, as always.
    if ended.code and not (ended.refused and contents(place) == job.expected):
        return "traceback" if ended.crashed else f"lost: exit {ended.code}, {ended.err}"
    if {name: when for name, when in _finished(place).items() if name in done} != done:
        return "lost: made again"
    if (now := contents(place)) != job.expected:
        other = [name for name in now.keys() | job.expected.keys() if now.get(name) != job.expected.get(name)]
        return f"silent: {other[:3]}"
    return f"lost: {left[:2]} left" if (left := drafts(place)) else ""


def _finished(place: Path) -> dict[str, int]:
    """Return when each finished piece of work was written."""
    return {
        name: path.stat().st_mtime_ns
        for path in place.rglob("*.*")
        if (name := path.relative_to(place).as_posix()).startswith(FINISHED) and ".partial" not in name
    }


def refused(job: Job, place: Path, ended: Ended, codes: tuple[int, ...] = (1, 2)) -> str:
    """Say how a command ended that met a fault: refused in one line with nothing left, or done all the same."""
    if ended.code == 0:
        return finished(job, place, ended) or "harmless"
    if not ended.refused or ended.code not in codes:
        return f"traceback: exit {ended.code}, {ended.err}"
    if left := drafts(place):
        return f"lost: {left[:2]} left"
    return harm(job, place) or finished(job, place) or "detected"


def kills(job: Job, place: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Kill a command, in three of five times at an operation on files, else at a random moment."""
    for number in range(count):
        copied(job.before, place)
        if number % 5 < 3:
            run(job.words, place, Fault("kill", rng.randint(1, job.operations)))
        else:
            process = forked.start(job.words, place)
            time.sleep(rng.uniform(0, job.seconds))
            os.kill(process, signal.SIGKILL)
            forked.wait(process, place)
        yield harm(job, place) or finished(job, place) or "harmless"


def full_disk(done: list[Job], place: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Let the disk be full from an operation on, or let no file grow beyond a size."""
    for number in range(count):
        job = done[number % len(done)]
        full = Fault("full", rng.randint(1, job.operations))
        small = Fault(size=rng.randint(8 << 10, 40 << 10))
        copied(job.before, place)
        yield refused(job, place, run(job.words, place, full if number // len(done) % 2 == 0 else small))


def read_only(done: list[Job], place: Path, count: int) -> Iterator[str]:
    """Run in a folder that may not be written, also where all is done already; not as root, who may everything."""
    for job in done[:count]:
        for ready in (False, True):
            copied(job.before, place)
            if ready and run(job.words, place).code:
                raise SystemExit(f"{job.name}: can't be run")
            _allow(place, 0o555, 0o444)
            ended = run(job.words, place, Fault(nobody=True))
            _allow(place, 0o755, 0o644)
            yield refused(job, place, ended, (2,))


def _allow(place: Path, folders: int, files: int) -> None:
    for path in (place, *place.rglob("*")):
        path.chmod(folders if path.is_dir() else files)


def together(job: Job, place: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Run a command twice at once in one folder: one may be refused, and what is there in the end is right."""
    for _ in range(count):
        copied(job.before, place)
        first = forked.start(job.words, place)
        time.sleep(rng.uniform(0, job.seconds / 2))
        second = forked.start(job.words, place)
        both = [forked.wait(process, place) for process in (first, second)]
        well = [ended for ended in both if ended.code == 0]
        odd = [ended for ended in both if ended.code and not (ended.refused and job.name in SPARED)]
        if odd or not well:
            yield f"traceback: {[(ended.code, ended.err) for ended in odd]}"
            continue
        yield finished(job, place, well[0]) or ("harmless" if len(well) == 2 else "detected")


def stops(done: list[Job], place: Path, count: int, rng: random.Random) -> Iterator[str]:
    """Send SIGINT or SIGTERM at a random moment: one line, an exit code of its own, and nothing half written."""
    for number in range(count):
        job, how = done[number % len(done)], [*STOPPED][number // len(done) % 2]
        copied(job.before, place)
        process = forked.start(job.words, place)
        forked.ready(process, place)
        time.sleep(rng.uniform(0.02, max(0.03, job.seconds * 0.8)))
        os.kill(process, how)
        yield refused(job, place, forked.wait(process, place), (STOPPED[how],))


def workers(job: Job, place: Path, count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield what was done to a run with two workers, and how it ended; nobody may outlive it by ten seconds."""
    words = tuple(
        "2" if before == "--jobs" else word for before, word in zip(("", *job.words), job.words, strict=False)
    )
    cache, another = place / "cache.h5", place.with_name("another.h5")
    hows = (
        "SIGINT",
        "SIGTERM",
        "SIGKILL",
        "a worker dies",
        *([REPLACED] if (job.before / cache.name).exists() else []),
    )
    for number in range(count):
        copied(job.before, place)
        write_table(another, people(9, first=70), EXTRACTOR)
        how = hows[number % len(hows)]
        log = place.with_name("workers.log")
        with log.open("w", encoding="utf-8") as file:
            running = subprocess.Popen(
                [sys.executable, "-c", WITH_WORKERS, *words], cwd=place, stdout=file, stderr=file, process_group=0
            )
        while running.poll() is None and len(children := _children(running.pid)) < 2:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 3))
        with suppress(ProcessLookupError):
            if how == REPLACED:
                another.replace(cache)
            elif how == "a worker dies":
                os.kill(rng.choice(children), signal.SIGKILL)
            elif how == "SIGINT":
                # As a terminal does, to all of them.
                os.killpg(running.pid, signal.SIGINT)
            else:
                os.kill(running.pid, getattr(signal, how))
        ended = Ended(running.wait(), "", log.read_text("utf-8", "replace"))
        if -ended.code in STOPPED and ended.err.count("\n") > 5:
            # It had printed all, and was about to end: Python gives signals back to the system before it does.
            ended = Ended(0, "", ended.err)
        orphans = not _gone(running.pid)
        if how == REPLACED:
            shutil.copy(job.before / cache.name, cache)
        if how == "SIGKILL":
            verdict = harm(job, place) or finished(job, place) or "harmless"
        else:
            verdict = refused(job, place, ended, (2,) if how in hows[3:] else (130, 143))
        yield how, "lost: workers are left" if orphans else verdict


def _children(process: int) -> list[int]:
    """Return the workers of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes()
            if parent == process and (b"loky.backend.popen" in words or b"spawn_main" in words):
                found.append(int(folder.name))
    return found


def _gone(group: int) -> bool:
    """Tell whether a process group has ended within ten seconds; what hasn't is killed."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


def row(what: str, verdicts: Iterator[str]) -> Row:
    """Count how cases ended; what is wrong is said, too."""
    count: Counter[str] = Counter()
    for verdict in verdicts:
        word, _, why = verdict.partition(": ")
        count[word] += 1
        if why:
            print(f"    {what}: {verdict}", flush=True)
    return Row(what, count.total(), **count)


def attacks(folder: Path, scale: float, seed: int) -> Iterator[Row]:
    """Yield a row for each kind of fault."""

    def times(number: int) -> int:
        return max(1, round(number * scale))

    rng, place, done = random.Random(seed), folder / "place", []
    # Who has no rights comes as far as here.
    for each in (folder, folder.parent):
        each.chmod(0o711)
    for job in jobs(folder):
        done.append(prepared(job, place))
        yield row(f"kill -9: {job.name}", kills(done[-1], place, times(KILLS), rng))
    by_name = {job.name: job for job in done}
    yield row("a full disk", full_disk(done, place, times(44), rng))
    yield row("a folder that may not be written", read_only(done, place, times(len(done))))
    for names in (SPARED, ("pretrain", "evaluate", "tune", "adapt")):
        what = "two writers of one cache" if names is SPARED else "two runs in one workspace"
        each: Callable[[str], Iterator[str]] = lambda name: together(by_name[name], place, times(4), rng)  # noqa: E731
        yield row(what, (verdict for name in names for verdict in each(name)))
    yield row("SIGINT or SIGTERM", stops(done, place, times(44), rng))
    pairs = [pair for name in ("evaluate", "extract") for pair in workers(by_name[name], place, times(5), rng)]
    for how in dict(pairs):
        yield row(f"two workers: {how}", iter([verdict for what, verdict in pairs if what == how]))

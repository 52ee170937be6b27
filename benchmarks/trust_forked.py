"""Attacks in children of this process: a crash, a hang or a full memory ends one case, and is counted."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from trust import Row

Work = Callable[[], str]
"""Tries one case, and says how it ended: a field of `Row`, and after a colon whatever explains it."""
_MEGABYTES = 1500


def in_children(works: Sequence[Work], *, seconds: float = 120, megabytes: int = _MEGABYTES) -> Iterator[str]:
    """Yield how each case ended; a child does one after the other, and after its end another one goes on.

    Each case has so many seconds, and all of a child so much memory over what this process has.
    """
    done = 0
    while done < len(works):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            _work(works[done:], write, megabytes)
        os.close(write)
        rest = b""
        while select.select([read], [], [], seconds)[0] and (block := os.read(read, 1 << 16)):
            *lines, rest = (rest + block).split(b"\n")
            done += len(lines)
            yield from (line.decode() for line in lines)
        os.kill(child, signal.SIGKILL)
        os.close(read)
        status = os.waitpid(child, 0)[1]
        if done < len(works):
            done += 1
            hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            yield f"traceback: {f'more than {seconds:g} s' if hung else f'the process died ({status})'}"


def _work(works: Sequence[Work], write: int, megabytes: int) -> None:
    """Do them, and end this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for work in works:
        try:
            said = work()
        except BaseException as error:
            said = f"traceback: {type(error).__name__}: {error}"
        os.write(write, " ".join(said.split())[:500].encode() + b"\n")
    os._exit(0)


def counted(what: str, names: Sequence[str], ended: Iterator[str]) -> Row:
    """Return the row of a kind; on stderr, the cases that did not hold."""
    found: Counter[str] = Counter()
    for name, said in zip(names, ended, strict=True):
        word, _, why = said.partition(":")
        found[word] += 1
        if word not in ("detected", "harmless"):
            print(f"{what}: {name}: {said if why else word}", file=sys.stderr)
    return Row(what, len(names), **found)


def featlab(words: Sequence[str], *, harmless: Callable[[], bool] | None, canary: Path) -> str:
    """Run a command in this process, which has to be a child, and say how it ended.

    Args:
        words: What follows ``featlab``.
        harmless: Whether what a command made that took the file is right; None: it has to refuse the file.
        canary: What a payload would write.
    """
    from featlab.cli.app import main

    with canary.with_name("said").open("w+b") as said:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(said.fileno(), stream.fileno())
        sys.argv = ["featlab", *words]
        code: object = 0
        with contextlib.suppress(BrokenPipeError):
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("featlab: error: ")]
    last = lines[-1] if lines else "nothing was said"
    if canary.exists():
        canary.unlink()
        return f"silent: code ran; {last}"
    if any(line.startswith("Traceback") or "this is a bug" in line for line in lines) or code not in (0, 2, 3):
        return f"traceback: exit {code}: {last}"
    if code == 2:
        return "detected" if len(errors) == 1 else f"traceback: {len(errors)} lines: {last}"
    if code == 3:
        return "detected"
    if harmless is None:
        return f"silent: taken without a word: {last}"
    return "harmless" if harmless() else "silent: what it made is wrong"

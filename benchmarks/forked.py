"""Commands in forks of this process, which has imported what they need: a fault costs a fraction of a second.

A fork can be made to fail at the n-th thing that it does to a file of its folder: to be killed there, or to be told
that the disk is full. What it leaves behind is read back as the tables, tensors and results in the files, without
times.
"""

from __future__ import annotations

import builtins
import csv
import errno
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from featlab.extraction.extract import ExtractConfig

ENDED_ITSELF, KILLED = 0, -signal.SIGKILL
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
_CHANGING = ("digest", "bytes", "command", "bold")
NOBODY = 65534


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (minus the signal that killed it), and what it printed."""

    code: int
    out: str
    err: str

    @property
    def refused(self) -> bool:
        """Whether it printed one clear line beside its notes and bars."""
        errors = [line for line in self.err.splitlines() if line.startswith("featlab: error: ")]
        return self.code in (1, 2, 130, 143) and len(errors) == 1 and not self.crashed

    @property
    def crashed(self) -> bool:
        return "Traceback (most recent call last)" in self.err or "this is a bug" in self.err


@dataclass(frozen=True)
class Fault:
    """What happens at the ``at``-th operation on files: ``kill``, or ``full`` for a disk that is full from then on.

    ``size`` is the greatest file that the system lets be written, in bytes. ``nobody`` drops the right of root to write
    everywhere. ``before`` is called in the process before the command.
    """

    kind: str = ""
    at: int = 0
    size: int | None = None
    nobody: bool = False
    before: Callable[[], None] = lambda: None


NONE = Fault()


def start(words: tuple[str, ...], place: Path, fault: Fault = NONE) -> int:
    """Start a command in a folder, in a process group of its own; return the process."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        _command(words, place, fault)
    with suppress(OSError):
        os.setpgid(process, process)
    return process


def wait(process: int, place: Path, seconds: float = 120) -> Ended:
    """Wait for its end; one that takes too long is killed, and its code is 124."""
    until = time.monotonic() + seconds
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > until:
            os.killpg(process, signal.SIGKILL)
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    # One that was killed at once has no files yet.
    logs = [_log(place, process, name) for name in ("out", "err")]
    out, err = (log.read_text("utf-8", "replace") if log.exists() else "" for log in logs)
    return Ended(124 if time.monotonic() > until else code, out, err)


def ready(process: int, place: Path) -> None:
    """Wait until the command itself begins."""
    while not _log(place, process, "ready").exists():
        time.sleep(0.002)


def run(words: tuple[str, ...], place: Path, fault: Fault = NONE) -> Ended:
    """Run a command in a folder."""
    return wait(start(words, place, fault), place)


def operations(words: tuple[str, ...], place: Path) -> int:
    """Run a command; return how many operations on files it makes. What it imports is imported here from now on."""
    ended = run(words, place, Fault("count"))
    if ended.code:
        raise SystemExit(f"{' '.join(words)}: {ended.err}")
    told = json.loads(place.with_suffix(".told").read_text(encoding="utf-8"))
    for name in told["modules"]:
        with suppress(Exception):
            importlib.import_module(name)
    return int(told["operations"])


def _log(place: Path, process: int, name: str) -> Path:
    return place.with_name(f"{place.name}.{process}.{name}")


def _command(words: tuple[str, ...], place: Path, fault: Fault) -> NoReturn:
    """Be the command, to its end."""
    code: Any = 70
    try:
        for handle, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(_log(place, os.getpid(), name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
        os.chdir(place)
        sys.argv = ["featlab", *words]
        sys.dont_write_bytecode = True
        if fault.size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.size, fault.size))
        done = _count(place, fault) if fault.kind else [0]
        from featlab.cli.app import main
        from featlab.extraction import extract

        # Small shards, so that there are some to lose.
        extract.ExtractConfig = lambda **given: ExtractConfig(**{"shard_rows": 8, **given})  # type: ignore[assignment,misc]
        fault.before()
        _log(place, os.getpid(), "ready").touch()
        if fault.nobody and os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        if fault.kind == "count":
            told = {"operations": done[0], "modules": sorted(sys.modules)}
            place.with_suffix(".told").write_text(json.dumps(told), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count(place: Path, fault: Fault) -> list[int]:
    """Count what is done to files of the folder, and fail at the fault's place."""
    import h5py

    done, inside = [0], str(place.resolve())

    def step(writes: bool) -> None:
        done[0] += 1
        if fault.kind == "kill" and done[0] == fault.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "full" and writes and done[0] >= fault.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event not in _CHANGES and event != "open":
            return
        if event == "open" and (not isinstance(args[0], str | bytes) or not args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if os.path.abspath(os.fsdecode(args[0])).startswith(inside):
            step(event == "open")

    def before(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def call(*args: Any, **named: Any) -> Any:
            # What the disk says of HDF5's own writes, RLIMIT_FSIZE shows.
            step(owner is os)
            return plain(*args, **named)

        setattr(owner, name, call)

    def in_halves(path: Path, data: bytes) -> int:
        with builtins.open(path, "wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            step(True)
            return file.write(data[len(data) // 2 :])

    sys.addaudithook(audit)
    Path.write_bytes = in_halves  # type: ignore[method-assign,assignment]
    for owner, name in (
        (os, "fsync"),
        (h5py.Dataset, "__setitem__"),
        (h5py.Group, "create_dataset"),
        (h5py.File, "close"),
    ):
        before(owner, name)
    return done


def contents(place: Path) -> dict[str, Any]:
    """Return what each file of a folder holds, without times; one that can't be read is an Exception.

    Drafts and locks are left out, and shards, of which a cache is made.
    """
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_file() and not any(part in name for part in (".partial", ".lock", ".shards/", ".training/")):
            try:
                found[name] = _READERS.get(path.suffix, lambda path: path.name)(path)
            except Exception as error:
                found[name] = error
    return found


def drafts(place: Path) -> list[str]:
    """Return what a command must not leave when it has ended."""
    return sorted(path.name for path in place.rglob("*") if ".partial" in path.name)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        if "columns" in value and "rows" in value:
            value = value | {"rows": [dict(zip(value["columns"], row, strict=True)) for row in value["rows"]]}
        stays = {name: item for name, item in value.items() if name not in _CHANGING and "econds" not in name}
        return {name: _without_times(item) for name, item in stays.items()}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _cache(path: Path) -> str:
    from featlab import open_cache

    with open_cache(path, verify=True) as cache:
        return cache.digest


def _tensors(path: Path) -> dict[str, str]:
    from safetensors.numpy import load_file

    return {
        name: f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
        for name, array in load_file(path).items()
    }


def _backbone(path: Path) -> Any:
    from featlab.extraction.training.export import read_card

    return _without_times(read_card(path))


def _lines(path: Path) -> list[Any]:
    return [_without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [_without_times(row) for row in csv.DictReader(file)]


_READERS: dict[str, Callable[[Path], Any]] = {
    ".h5": _cache,
    ".safetensors": _tensors,
    ".json": lambda path: _without_times(json.loads(path.read_text(encoding="utf-8"))),
    ".jsonl": _lines,
    ".csv": _table,
    ".pt2": _backbone,
    ".txt": lambda path: path.read_text(encoding="utf-8"),
}


def copied(source: Path, place: Path) -> Path:
    """Return a fresh copy of a folder, with its files' times."""
    shutil.rmtree(place, ignore_errors=True)
    return shutil.copytree(source, place)

"""Files that are either whole or not there: written beside their place, synced, then renamed onto it.

What is new is its owner's alone (a file 0600, a folder 0700), and a file that is replaced keeps its mode. A draft is
locked while its writer lives: the first write of a process into a folder removes those that dead ones have left there.

Digests of files lie beside them, as `sha256sum -c SHA256SUMS` (for one file `<name>.sha256`) checks them. They find
damage and files of different runs; they are no signature: whoever changes a file on purpose can change its line, too.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path
from stat import S_IMODE

from featlab.errors import FeatlabError, one_line

try:
    import fcntl
except ImportError:  # Windows has no such locks: no draft is removed there.
    fcntl = None  # type: ignore[assignment]

SUMS = "SHA256SUMS"
SIDECAR = ".sha256"
_DAMAGED = "damaged: its content is not what was written"

# These can only come from writing, so they are about the partial file even when the error names none.
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_HERE = sha256(platform.node().encode()).hexdigest()[:6]
_DRAFT = re.compile(r"(.+)\.([0-9a-f]{6})[0-9a-f]{8}\.partial(\.old)?", re.DOTALL)
_NEW, _OTHERS = 0.5, 24 * 3600.0
"""Seconds after which a draft of this machine, or of another one, is removed where nobody has locked it."""

_waiting: set[Path] | None = None
"""Folders to sync at the end of `folders_synced_last`; ``None`` outside it."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary `<name>.<random>.partial` beside `path`; rename it onto `path` when the block succeeds.

    The file and its folder are synced to disk, so after a crash or a power loss `path` holds the old content or the
    new one, never a part. Missing folders are made. When the block raises, the temporary file is removed and `path`
    is untouched. Two writers at once do not mix: each has its own temporary file and the last rename wins.

    The temporary name ends in `.partial`, so a library that picks a format by suffix must be told the format. The file
    is there, and empty: write into it, and put no other in its place.
    """
    # Renaming onto a symbolic link would replace the link itself, and split its users from the file they share.
    target = Path(os.path.realpath(path))
    with ExitStack() as opened:
        with _writing(path):
            partial = opened.enter_context(_new_draft(target))
            if target.is_dir():
                raise FeatlabError(
                    f"{path}: can't be written, a folder of that name is in the way; choose another name"
                )
            mode = S_IMODE(target.stat().st_mode) if target.exists() else 0o600
        try:
            yield partial
        except OSError as error:
            if error.filename == str(partial) or error.errno in _DISK_FULL:
                raise cannot_write(path, error) from error
            raise
        with _writing(path):
            _sync_file(partial)
            partial.chmod(mode)
            os.replace(partial, target)
    sync_folder(target.parent)


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` as one whole file (see `atomic_path`)."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as one whole UTF-8 file, line ends kept as they are (see `atomic_path`)."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextmanager
def atomic_folder(path: Path, *, keep: str = "") -> Iterator[Path]:
    """Yield a new folder `<name>.<random>.partial` beside `path`; rename it onto `path` when the block succeeds.

    It gets a file of the digests of its files. A folder at `path` is replaced, unless it holds a file `keep`: another
    run made the same in the meantime, and may be using it. When the block raises, `path` is untouched and nothing is
    left beside it.
    """
    target = Path(os.path.realpath(path))
    with _writing(path), ExitStack() as locks:
        draft = locks.enter_context(_new_draft(target, folder=True))
        with folders_synced_last():
            yield draft
            atomic_write_text(draft / SUMS, sums_of(sorted(draft.iterdir())))
        try:
            draft.rename(target)
        except OSError:
            # Tried first, so that of two runs that end at the same moment one finds what the other has made.
            if keep and (target / keep).exists():
                return
            if not target.is_dir():
                raise
            # No system call exchanges two folders everywhere: the old one goes once the new one is in its place.
            # Locked, nobody takes it for one that a dead writer left.
            locks.enter_context(_locked(target))
            old = draft.with_name(f"{draft.name}.old")
            target.rename(old)
            try:
                draft.rename(target)
            except BaseException:
                old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
        sync_folder(target.parent)


@contextmanager
def _writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system says inside the block into the one line about the path."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each its owner's alone and lasting through a power cut."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        sync_folder(each.parent)


@contextmanager
def _new_draft(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield an empty draft beside the target, locked; what is left of it afterwards is removed."""
    make_folder(target.parent)
    _sweep(target.parent)
    draft = target.with_name(f"{target.name}.{_HERE}{secrets.token_hex(4)}.partial")
    if folder:
        draft.mkdir(mode=0o700)
    else:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with _locked(draft):
            yield draft
    finally:
        with suppress(OSError):
            shutil.rmtree(draft) if folder else draft.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file or folder, which ends with this process at the latest; yield whether that could be done."""
    handle, done = -1, False
    # Another process has it, or the drive has no locks.
    with suppress(OSError):
        if fcntl is not None:
            handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            done = True
    try:
        yield done
    finally:
        if handle >= 0:
            os.close(handle)


@cache
def _sweep(folder: Path) -> None:
    """Remove the drafts of dead writers in a folder, once a process."""
    now = time.time()
    for path in folder.glob("*.partial*"):
        found = _DRAFT.fullmatch(path.name)
        with suppress(OSError):
            # A new one may not be locked yet, and of another machine a drive may show no locks.
            if not found or now - path.stat().st_mtime < (_NEW if found[2] == _HERE else _OTHERS):
                continue
            with _locked(path) as dead:
                target = path.with_name(found[1])
                if not dead:
                    continue
                if found[3] and not target.exists():
                    path.rename(target)
                elif path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def cannot_write(path: str | os.PathLike[str], error: Exception) -> FeatlabError:
    """Return the error for a file or folder that can't be written."""
    why = f"can't be written ({one_line(error)}); check the folder, its permissions and the free space"
    return FeatlabError(f"{path}: {why}")


def _sync_file(path: Path) -> None:
    # Windows syncs only handles that may write.
    handle = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network drives sync nothing; the file is written all the same.
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


@contextmanager
def folders_synced_last() -> Iterator[None]:
    """Sync the folders of many small files once, when the block ends; till then a power cut may take back whole files.

    No file is ever there in part.
    """
    global _waiting
    outer, _waiting = _waiting, set()
    try:
        yield
    finally:
        folders, _waiting = _waiting, None
        for folder in folders:
            sync_folder(folder)
        _waiting = outer


def sync_folder(path: Path) -> None:
    """Make a rename in this folder last through a power cut; at once, or at the end of `folders_synced_last`."""
    if _waiting is not None:
        _waiting.add(path)
        return
    # Windows opens no folders and some network drives sync none: the rename itself has been done by then.
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sums_of(paths: Iterable[Path]) -> str:
    """Return the text of a file of sums, a line a file."""
    return "".join(f"{sum_of(path)}  {path.name}\n" for path in paths)


def sum_of(path: Path) -> str:
    """Return the sha256 (64 hex digits) of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def read_sums(path: Path) -> dict[str, str]:
    """Return name to sum of a file of sums."""
    lines = path.read_text("utf-8", errors="replace").splitlines()
    # No line leads out of the folder.
    return {os.path.basename(name) or "?": digest for digest, _, name in (line.partition("  ") for line in lines)}


def damages(sums: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a file of sums that are missing or have other content, and what to say of each."""
    for name, digest in read_sums(sums).items():
        path = sums.with_name(name)
        if not path.is_file():
            yield path, f"{path}: is missing, and {sums.name} has a digest of it"
        elif sum_of(path) != digest:
            yield path, f"{path}: {_DAMAGED} (its digest in {sums.name} doesn't fit)"


def check_sum(path: Path, error: type[Exception]) -> None:
    """Raise an ``error`` where the file's folder has sums, and not this one; an older featlab wrote none."""
    sums = path.with_name(SUMS)
    if sums.exists() and read_sums(sums).get(path.name) != sum_of(path):
        raise error(f"{path}: {_DAMAGED} (its digest in {SUMS} doesn't fit); run the command again that wrote it")

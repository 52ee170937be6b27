"""Files that are either whole or not there: written beside their place, synced, then renamed onto it."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featlab.errors import FeatlabError

# These can only come from writing, so they are about the partial file even when the error names none.
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, followed: bool = False) -> Iterator[Path]:
    """Yield a temporary `<name>.<random>.partial` beside `path`; rename it onto `path` when the block succeeds.

    The file and its folder are synced to disk, so after a crash or a power loss `path` holds the old content or the
    new one, never a part. Missing folders are made. When the block raises, the temporary file is removed and `path`
    is untouched. Two writers at once do not mix: each has its own temporary file and the last rename wins.
    ``followed`` leaves the folder's sync to a file that is written there next, without which this one says nothing.

    The temporary name ends in `.partial`, so a library that picks a format by suffix must be told the format.
    """
    # Renaming onto a symbolic link would replace the link itself, and split its users from the file they share.
    target = Path(os.path.realpath(path))
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        in_the_way = target.is_dir()
    except OSError as error:
        raise _cannot_write(path, error) from error
    if in_the_way:
        raise FeatlabError(f"{path}: can't be written, a folder of that name is in the way; choose another name")
    try:
        yield partial
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError) and (error.filename == str(partial) or error.errno in _DISK_FULL):
            raise _cannot_write(path, error) from error
        raise
    try:
        _sync_file(partial)
        os.replace(partial, target)
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise
    if not followed:
        sync_folder(target.parent)


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes, *, followed: bool = False) -> None:
    """Write `data` to `path` as one whole file (see `atomic_path`)."""
    with atomic_path(path, followed=followed) as partial:
        partial.write_bytes(data)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as one whole UTF-8 file, line ends kept as they are (see `atomic_path`)."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextmanager
def atomic_folder(path: Path, *, keep: str = "", error: type[FeatlabError] = FeatlabError) -> Iterator[Path]:
    """Yield a new folder `<name>.<random>.partial` beside `path`; rename it onto `path` when the block succeeds.

    A folder at `path` is replaced, unless it holds a file `keep`: another run made the same in the meantime and may be
    reading it, so it stays. When the block raises, `path` is untouched and nothing is left beside it.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        draft.mkdir(parents=True)
        yield draft
        _put_folder(draft, path, keep)
        sync_folder(path.parent)
    except OSError as caught:
        reason = caught.strerror or str(caught)
        raise error(f"{path}: can't be written ({reason}); check the folder, its permissions and its space") from caught
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put_folder(draft: Path, path: Path, keep: str) -> None:
    try:
        draft.rename(path)
    except OSError:
        if keep and (path / keep).exists():
            return
        if not path.is_dir():
            raise
        # No system call exchanges two folders everywhere: the old one goes once the new one is in its place.
        old = draft.with_name(f"{draft.name}.old")
        path.rename(old)
        try:
            draft.rename(path)
        except BaseException:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _cannot_write(path: str | os.PathLike[str], error: OSError) -> FeatlabError:
    reason = error.strerror or str(error)
    return FeatlabError(f"{path}: can't be written ({reason}); check the folder, its permissions and the free space")


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


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


def sync_folder(path: Path) -> None:
    """Make a rename in this folder last through a power cut."""
    # Windows opens no folders and some network drives sync none: the rename itself has been done by then.
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

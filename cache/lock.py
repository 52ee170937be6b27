"""One writer at a time: an exclusive lock on a folder, given back by the system when its holder dies."""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from featlab.cache.errors import CacheError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = "lock"
_HELD_NAME = "lock.held"
_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})


class FolderLock:
    """Holds `<folder>/lock` from construction to `release`; makes the folder.

    With `flock` the system releases the lock when the process ends, however it ends. Where there is none (Windows, some
    network drives) a file `lock.held` stands for it; a killed run leaves that file behind and the message says so.

    Raises:
        CacheError: another run holds the lock.
        OSError: the folder or the lock file can't be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None
        self._held: Path | None = None
        if fcntl is None or not self._take_flock():
            self._take_file()

    def release(self) -> None:
        """Gives the lock back; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._held is not None:
            self._held.unlink(missing_ok=True)
            self._held = None

    def remove(self) -> None:
        """Removes the lock file while still holding the lock, so that the folder can go too."""
        with suppress(OSError):
            (self._folder / LOCK_NAME).unlink(missing_ok=True)

    def _take_flock(self) -> bool:
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / LOCK_NAME
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its last holder may have removed the file between our open and our lock: then we hold nothing.
                same = path.exists() and os.path.samestat(os.fstat(handle), os.stat(path))
            except OSError as error:
                os.close(handle)
                if error.errno in _TAKEN:
                    raise CacheError(
                        f"{self._folder}: another run is writing this cache; wait for it, or choose another name"
                    ) from error
                return False
            if same:
                self._handle = handle
                return True
            os.close(handle)
            time.sleep(0.01)

    def _take_file(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / _HELD_NAME
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError as error:
            raise CacheError(
                f"{self._folder}: another run is writing this cache; if none is (it was killed), delete {path}"
            ) from error
        self._held = path

"""What featlab asks of HDF5, and nothing else of it: plain checksummed datasets, fixed-length text, guarded reading."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featlab.cache.names import CONTROL
from featlab.errors import CacheError, FeatlabError, one_line

# Small enough that a chunk which two appends share stays in the chunk cache, large enough to read at full speed.
_CHUNK_BYTES = 512 << 10
_CHUNK_CACHE_BYTES = 2 * _CHUNK_BYTES
_MOST_PACKED = 1100
"""Times that the best compressor of HDF5 (deflate) can make a block smaller."""
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_READ_ERRORS = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError)


class UnreadableError(FeatlabError):
    """The system doesn't let the file be read (rights, drive, too many open files); nothing says it is damaged."""

    def __init__(self, path: Path, part: str, reason: str) -> None:
        super().__init__(
            f"{path}: {part}can't be read ({reason}); the file itself may be sound: see to its rights and its drive, "
            "then try again"
        )


class _Sink(io.FileIO):
    """A file whose failed writes HDF5 never sees: it would crash the process when it closes the file."""

    failure: OSError | None = None  # The first; what follows it is dropped.

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while len(rest) and self.failure is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        if self.failure is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.failure = error
        return size or 0


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that appears at `path` whole, or not at all."""
    from featlab.cache.atomic import atomic_path, cannot_write

    with atomic_path(path) as partial:
        try:
            sink = _Sink(partial, "w+")
            try:
                with h5py.File(sink, "w", libver=("v110", "v110"), rdcc_nbytes=_CHUNK_CACHE_BYTES) as file:
                    yield file
            finally:
                sink.close()
                # First of all the full disk: whatever else went wrong follows from it.
                if sink.failure is not None:
                    raise sink.failure
        except (OSError, RuntimeError) as error:
            raise cannot_write(path, error, CacheError) from error


def create_dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """Make a dataset chunked by rows, each chunk with a Fletcher-32 checksum; dtype kind S is UTF-8 text."""
    if dtype.kind == "S":
        dtype = h5py.string_dtype("utf-8", dtype.itemsize)
    row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    rows = min(shape[0], max(1, _CHUNK_BYTES // row_bytes))
    return file.create_dataset(name, shape=shape, dtype=dtype, chunks=(rows, *shape[1:]), fletcher32=True)


def write_array(file: h5py.File, name: str, array: NDArray[Any]) -> None:
    """Write a whole array as a dataset of its own."""
    dataset = create_dataset(file, name, array.shape, array.dtype)
    dataset[:] = array.astype(dataset.dtype)


def stored_blocks(dataset: h5py.Dataset) -> Iterator[NDArray[Any]]:
    """Yield all rows as they lie there, a chunk at a time and without its checksum: for who checks a digest of them."""
    chunk = dataset.chunks
    if not dataset.fletcher32 or dataset.id.get_create_plist().get_nfilters() != 1 or chunk[1:] != dataset.shape[1:]:
        # Not as `create_dataset` makes them.
        yield dataset[:]
        return
    size = int(np.prod(chunk, dtype=np.int64))
    for start in range(0, len(dataset), chunk[0]):
        _, data = dataset.id.read_direct_chunk((start, *(0 for _ in chunk[1:])))
        yield np.frombuffer(data, dataset.dtype, size).reshape(chunk)[: len(dataset) - start]


def write_text_attr(file: h5py.File, name: str, text: str) -> None:
    """Write a fixed-length UTF-8 attribute: it lies in the checksummed header, variable-length text would not."""
    data = text.encode("utf-8")
    file.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", len(data)))


def encode_names(names: Sequence[str], where: str, what: str, may_be_empty: bool = False) -> NDArray[np.bytes_]:
    """Return names as a fixed-length UTF-8 array (kind S, as wide as the longest)."""
    for name in names:
        if not isinstance(name, str) or "\0" in name or not (name or may_be_empty):
            raise CacheError(f"{where}: {name!r} is no {what}: expected text, not empty, without NUL")
        # The path of a file is what it is.
        if not may_be_empty and CONTROL.search(name):
            raise CacheError(f"{where}: {name!r} is no {what}: it holds a control character; rename it")
    try:
        encoded = [name.encode("utf-8") for name in names]
    except UnicodeEncodeError as error:
        raise CacheError(f"{where}: {error.object!r} is no {what}: it can't be written as UTF-8; rename it") from error
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")


def decode_names(array: NDArray[Any]) -> tuple[str, ...]:
    """Return the names that `encode_names` made an array of; other bytes are a UnicodeDecodeError (see `guarded`)."""
    return tuple(name.decode("utf-8") for name in array.tolist())


@contextmanager
def guarded(path: Path, what: str = "") -> Iterator[None]:
    """Turn whatever HDF5 raises inside the block into a CacheError: `what` is damaged, or the system can't read it."""
    try:
        yield
    except CacheError:
        raise
    except _READ_ERRORS as error:
        part = f"{what} " if what else ""
        # HDF5 puts the system's own number into the text of its errors, whatever their class.
        if number := re.search(r"errno = ([1-9]\d*)", str(error)):
            raise UnreadableError(path, part, os.strerror(int(number[1]))) from error
        raise CacheError(
            f"{path}: {part}can't be read, the file is damaged or truncated ({one_line(error)}); make it again with "
            "`featlab extract` or restore a copy"
        ) from error


def open_file(path: Path) -> h5py.File:
    """Open a regular HDF5 file for reading."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb") as opened:
                start = opened.read(len(_SIGNATURE))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheError(f"{path}: no such file; make a cache with `featlab extract` or `featlab import`") from error
    except (OSError, ValueError) as error:
        raise UnreadableError(path, "", one_line(error)) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise CacheError(f"{path}: is {kind}, not a cache; name the .h5 file that `featlab extract` wrote")
    if start != _SIGNATURE:
        raise CacheError(
            f"{path}: is not an HDF5 file, so no cache (or its start is damaged); name the file that "
            "`featlab extract` wrote, or make it again"
        )
    with guarded(path):
        # Caches are renamed into place and never changed there, so a lock would protect nothing; many drives have none.
        return h5py.File(path, "r", locking=False, rdcc_nbytes=_CHUNK_CACHE_BYTES)


def read_attr(file: h5py.File, name: str) -> str | int:
    """Return a scalar attribute, text or whole number; run inside `guarded`."""
    # The shape is looked at first: reading an attribute allocates what it claims to hold.
    if file.attrs.get_id(name).shape != ():
        raise TypeError(f"attribute {name!r} is not a single value")
    value = file.attrs[name]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str):
        return value
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"attribute {name!r} is of type {type(value).__name__}")


def get_dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """Return a dataset of plain values that lie in this file."""
    node: Any = file
    for part in name.split("/"):
        if not isinstance(node, h5py.Group) or part not in node.keys():  # noqa: SIM118 - `in node` follows links
            raise CacheError(f"{path}: has no dataset {name!r}; it is incomplete, make it again with `featlab extract`")
        refuse_link(node, path, part)
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise CacheError(f"{path}: {name!r} is a group, expected a dataset; make the cache again")
    if node.dtype.kind == "O":
        raise CacheError(f"{path}: dataset {name!r} holds objects, which featlab never reads; make the cache again")
    if node.is_virtual or node.external is not None:
        raise CacheError(f"{path}: dataset {name!r} lies in other files, which featlab never follows; copy the data in")
    return node


def check_filled(dataset: h5py.Dataset, path: Path, name: str) -> None:
    """Raise a CacheError when a dataset is larger than what the file holds of it: it would be read as zeros."""
    held = dataset.id.get_storage_size() * (_MOST_PACKED if dataset.compression else 1)
    if held < dataset.nbytes:
        raise CacheError(
            f"{path}: dataset {name!r} promises {dataset.nbytes:,} bytes and holds at most {held:,}; it is incomplete, "
            "make it again with `featlab extract`"
        )


def refuse_link(group: h5py.Group, path: Path, name: str) -> None:
    """Raise a CacheError when `name` in `group` is an external or soft link."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a link"
        raise CacheError(f"{path}: {name!r} is {kind}, which featlab never follows; copy the data in")

"""What featlab asks of HDF5, and nothing else of it: plain checksummed datasets, fixed-length text, guarded reading."""

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from featlab.cache.errors import CacheError

# Small enough that a chunk which two appends share stays in the chunk cache, large enough to read at full speed.
_CHUNK_BYTES = 512 << 10
_CHUNK_CACHE_BYTES = 16 << 20
_READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError)
# Deflate shrinks by 1032 at most: what claims to unfold to more than this is not data.
_MOST_COMPRESSION = 1100
_LARGEST_CHUNK_BYTES = 256 << 20


class _Sink(io.FileIO):
    """A file that HDF5 can write to without ever seeing a write fail, which crashes the process when HDF5 closes it.

    The first failure is kept, and what follows is dropped.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes all of `data`, or notes that it could not."""
        rest = memoryview(data)
        while len(rest) and self.failure is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Sets the file's length, or notes that it could not."""
        if self.failure is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.failure = error
        return size or 0


class NewFile:
    """A new HDF5 file in the 1.10 layout, the oldest one whose own structures carry checksums; use in a `with` block.

    Args:
        path: the file to make.

    Raises:
        OSError: it can't be made, or (from `check` and at the end of the block) a write failed, e.g. on a full disk.
    """

    def __init__(self, path: Path) -> None:
        self._sink = _Sink(path, "w+")
        self.file = h5py.File(self._sink, "w", libver=("v110", "v110"), rdcc_nbytes=_CHUNK_CACHE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.file.close()
        finally:
            self._sink.close()
            # First of all the full disk: whatever else went wrong follows from it.
            self.check()

    def check(self) -> None:
        """Raises the OSError of the first failed write, if there was one."""
        if self._sink.failure is not None:
            raise self._sink.failure


def create_dataset(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """A dataset chunked by rows, each chunk with a Fletcher-32 checksum.

    Args:
        group: where.
        name: its name; groups on the way are made.
        shape: (rows, ...), no axis empty.
        dtype: a number type, or kind S for UTF-8 text of that many bytes.
    """
    if dtype.kind == "S":
        dtype = h5py.string_dtype("utf-8", dtype.itemsize)
    row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    rows = min(shape[0], max(1, _CHUNK_BYTES // row_bytes))
    return group.create_dataset(name, shape=shape, dtype=dtype, chunks=(rows, *shape[1:]), fletcher32=True)


def write_text_attr(file: h5py.File, name: str, text: str) -> None:
    """A fixed-length UTF-8 attribute: it lies in the checksummed header, variable-length text would not."""
    data = text.encode("utf-8")
    file.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", len(data)))


def encode_names(names: Sequence[str], where: str, what: str, may_be_empty: bool = False) -> NDArray[np.bytes_]:
    """Names as a fixed-length UTF-8 array (kind S, as wide as the longest).

    Raises:
        CacheError: a name that is empty, holds NUL or can't be written as UTF-8.
    """
    for name in names:
        if not isinstance(name, str) or "\0" in name or not (name or may_be_empty):
            raise CacheError(f"{where}: {name!r} is no {what}: expected text, not empty, without NUL")
    try:
        encoded = [name.encode("utf-8") for name in names]
    except UnicodeEncodeError as error:
        raise CacheError(f"{where}: {error.object!r} is no {what}: it can't be written as UTF-8; rename it") from error
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")


def decode_names(array: NDArray[Any]) -> tuple[str, ...]:
    """The inverse of `encode_names`.

    Raises:
        UnicodeDecodeError: bytes that are no UTF-8 (a ValueError; `guarded` turns it into a CacheError).
    """
    return tuple(name.decode("utf-8") for name in array.tolist())


@contextmanager
def guarded(path: Path, what: str = "") -> Iterator[None]:
    """Turns whatever HDF5 raises inside the block into a CacheError that says the file is damaged.

    Args:
        path: the file to name.
        what: what was being read, e.g. "dataset 'embeddings'".
    """
    try:
        yield
    except CacheError:
        raise
    except _READ_ERRORS as error:
        part = f"{what} " if what else ""
        raise CacheError(
            f"{path}: {part}can't be read, the file is damaged or truncated ({one_line(error)}); make it again with "
            "`featlab extract` or restore a copy"
        ) from error


def one_line(error: BaseException) -> str:
    """The error's own words on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def open_file(path: Path) -> h5py.File:
    """Opens a regular HDF5 file for reading.

    Raises:
        CacheError: no such file, a folder, not HDF5, truncated, not readable.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheError(f"{path}: no such file; make a cache with `featlab extract` or `featlab import`") from error
    except (OSError, ValueError) as error:
        raise CacheError(f"{path}: can't be opened ({one_line(error)})") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise CacheError(f"{path}: is {kind}, not a cache; name the .h5 file that `featlab extract` wrote")
    if not os.access(path, os.R_OK):
        raise CacheError(f"{path}: can't be opened (permission denied); ask its owner for read access")
    if not h5py.is_hdf5(path):
        raise CacheError(
            f"{path}: is not an HDF5 file, so no cache (or its start is damaged); name the file that "
            "`featlab extract` wrote, or make it again"
        )
    with guarded(path):
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=_CHUNK_CACHE_BYTES)


def read_attr(file: h5py.File, name: str) -> str | int:
    """A scalar attribute, text or whole number.

    Raises:
        KeyError, TypeError, ValueError, OSError: there is none, or it is something else (run inside `guarded`).
    """
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
    """A dataset whose bytes lie in this file and whose claimed size fits the file's.

    Raises:
        CacheError: missing, a link, an object type, stored elsewhere, or larger than the file can hold.
    """
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
    settings = node.id.get_create_plist()
    if settings.get_layout() == h5py.h5d.VIRTUAL or settings.get_external_count() > 0:
        raise CacheError(f"{path}: dataset {name!r} lies in other files, which featlab never follows; copy the data in")
    _check_size(path, name, node)
    return node


def refuse_link(group: h5py.Group, path: Path, name: str) -> None:
    """Raises CacheError when `name` in `group` is an external or soft link."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a link"
        raise CacheError(f"{path}: {name!r} is {kind}, which featlab never follows; copy the data in")


def _check_size(path: Path, name: str, dataset: h5py.Dataset) -> None:
    if dataset.shape is None:
        raise CacheError(f"{path}: dataset {name!r} is empty; make the cache again with `featlab extract`")
    claimed = dataset.dtype.itemsize
    for length in dataset.shape:
        claimed *= length
    stored = min(dataset.id.get_storage_size(), path.stat().st_size)
    most = stored * _MOST_COMPRESSION if dataset.compression is not None else stored
    chunk = dataset.dtype.itemsize
    for length in dataset.chunks or ():
        chunk *= length
    if claimed > most or chunk > _LARGEST_CHUNK_BYTES:
        raise CacheError(
            f"{path}: dataset {name!r} claims {claimed} bytes but holds {stored}, so it is damaged or forged; make the "
            "cache again"
        )

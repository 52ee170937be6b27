"""From a table to the columns that a file holds, checked on the way in; and how columns are written.

Datasets are plain and checksummed, text is of fixed length: a reader can refuse all else.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

import featlab.cache.schema as schema
from featlab.cache.atomic import atomic_path, cannot_write
from featlab.cache.hdf5 import CHUNK_CACHE_BYTES
from featlab.cache.schema import ExtractorInfo, canonical_json
from featlab.cache.table import LARGEST, FeatureTable, closest_names, usable_rows
from featlab.errors import CONTROL, CacheError

# Small enough that a chunk which two appends share stays in the chunk cache, large enough to read at full speed.
_CHUNK_BYTES = CHUNK_CACHE_BYTES // 2

# Equal-length arrays by dataset name ("embeddings", "label", ...): what is stored, a row at a time.
Columns: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Header:
    """What every row of one cache has in common; refuses classes that make no sense and another dtype."""

    extractor: ExtractorInfo
    classes: tuple[str, ...]
    neutral: str
    dtype: str
    prompts: NDArray[np.float32] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.classes or len(self.classes) > np.iinfo(np.int16).max:
            raise CacheError(f"classes: expected 1 to {np.iinfo(np.int16).max} names, got {len(self.classes)}")
        encode_names(self.classes, "classes", "class name")
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise CacheError(f"classes: {repeated[0]!r} is named twice; name every class once")
        if self.neutral not in self.classes:
            raise CacheError(f"neutral: {self.neutral!r} is not a class; {closest_names(self.neutral, self.classes)}")
        if self.dtype not in schema.EMBEDDING_DTYPES:
            raise CacheError(f"dtype: expected one of {', '.join(schema.EMBEDDING_DTYPES)}, got {self.dtype!r}")

    @property
    def run(self) -> str:
        """sha256 hex of all that shards must agree on to be joined."""
        content = schema.FORMAT_VERSION, self.extractor.fingerprint, self.classes, self.neutral, self.dtype
        return hashlib.sha256(canonical_json(content)).hexdigest()


@dataclass(frozen=True, eq=False)
class CodedRows:
    """Columns whose subject and video codes point into their own, sorted name lists."""

    columns: Columns
    subjects: tuple[str, ...]
    videos: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns[schema.EMBEDDINGS])


def encode_table(table: FeatureTable, header: Header, where: str) -> CodedRows:
    """Check the values of a table, whose classes are among the header's; `where` begins the messages."""

    def refuse(bad: NDArray[np.bool_], why: str) -> None:
        if bad.any():
            more = f" ({bad.sum() - 1} more rows like it)" if bad.sum() > 1 else ""
            raise CacheError(f"{where}, {table.describe_row(int(bad.argmax()))}: {why}{more}")

    refuse(~usable_rows(table.embeddings), f"its embedding is not finite, or above {LARGEST:g}; leave the row out")
    with np.errstate(over="ignore"):
        stored = table.embeddings.astype(schema.EMBEDDING_DTYPES[header.dtype], copy=False)
    if stored is not table.embeddings:
        refuse(~_all_finite(stored), f"its embedding is too large for {header.dtype}; write the cache as float32")
    labels = [*map(header.classes.index, table.classes), schema.UNKNOWN_LABEL]
    columns: Columns = {
        schema.EMBEDDINGS: stored,
        schema.LABEL: np.array(labels, dtype=schema.CODE_DTYPES[schema.LABEL])[table.label],
        schema.SUBJECT: table.subject,
        schema.VIDEO: table.video,
        schema.FRAME: table.frame,
    }
    if table.landmarks is not None:
        points = table.landmarks.astype(schema.FLOAT_DTYPE)
        flat = points.reshape(len(points), -1)
        missing = np.isnan(flat).all(axis=1)
        why = "its landmarks are not finite in part; give all of them, or all NaN for no face"
        refuse(~missing & ~_all_finite(flat), why)
        # One NaN among many: the digest is over bytes.
        points[missing] = np.nan
        columns[schema.LANDMARKS] = points
    if table.paths is not None:
        columns[schema.PATHS] = encode_names(table.paths, where, "path", may_be_empty=True)
    if table.faces is not None:
        columns[schema.FACES] = table.faces
    return CodedRows(columns, table.subjects, table.videos)


def _all_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.isfinite(values).all(axis=1)
    return finite


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
    with atomic_path(path) as partial:
        try:
            sink = _Sink(partial, "w+")
            try:
                with h5py.File(sink, "w", libver=("v110", "v110"), rdcc_nbytes=CHUNK_CACHE_BYTES) as file:
                    yield file
            finally:
                sink.close()
                # First of all the full disk: whatever else went wrong follows from it.
                if sink.failure is not None:
                    raise sink.failure
        except (OSError, RuntimeError) as error:
            raise cannot_write(path, error) from error


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

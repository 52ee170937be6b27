"""Reading a cache: by subject or as a whole into RAM, or block by block within a byte budget."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from featlab.cache.errors import CacheError
from featlab.cache.hdf5 import decode_names, guarded, open_file
from featlab.cache.schema import (
    EMBEDDINGS,
    FRAME,
    LABEL,
    LANDMARKS,
    PATHS,
    SUBJECT,
    VIDEO,
    ExtractorInfo,
)
from featlab.cache.structure import Structure, read_structure
from featlab.cache.table import FeatureTable, closest_names
from featlab.cache.verify import find_problems

_READ_BYTES = 8 << 20


class Cache:
    """An open cache. Made by `open_cache`; use it in a `with` block, or close it.

    An open HDF5 file must not cross into a forked process: open the cache again there.
    """

    def __init__(self, path: Path, file: h5py.File, structure: Structure) -> None:
        self._path = path
        self._file = file
        self._structure = structure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._structure.rows

    def close(self) -> None:
        """Closes the file; tables that were read stay valid."""
        self._file.close()

    @property
    def path(self) -> Path:
        """The file, as it was named to `open_cache`."""
        return self._path

    @property
    def dim(self) -> int:
        """D, the length of one embedding."""
        return self._structure.dim

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects, ascending; each has a row."""
        return self._structure.subjects

    @property
    def videos(self) -> tuple[str, ...]:
        """Names of the videos, ascending; two subjects may share one."""
        return self._structure.videos

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, in code order."""
        return self._structure.classes

    @property
    def neutral(self) -> str:
        """The neutral class, one of `classes`."""
        return self._structure.neutral

    @property
    def extractor(self) -> ExtractorInfo:
        """Who made the embeddings."""
        return self._structure.extractor

    @property
    def digest(self) -> str:
        """sha256 of the content, 64 hex digits, as the file states it (`open_cache(verify=True)` checks it)."""
        return self._structure.digest

    @property
    def has_landmarks(self) -> bool:
        """Whether rows have landmarks."""
        return LANDMARKS in self._structure.large

    def read(self, subjects: Sequence[str] | None = None) -> FeatureTable:
        """All rows, or those of the named subjects, in the file's order.

        Names and codes are those of the whole cache, so that tables of different subjects agree. Embeddings come as
        float32, also from a float16 cache.

        Args:
            subjects: which; None for all.

        Raises:
            CacheError: an unknown subject, a damaged file, a row whose embedding is not finite.
        """
        return self._read(self._ranges(subjects))

    def iter_rows(self, byte_budget: int = 64 << 20, subjects: Sequence[str] | None = None) -> Iterator[FeatureTable]:
        """The rows of `read`, in the same order, in tables of at most `byte_budget` bytes and at least one row.

        Args:
            byte_budget: how much one table's arrays and paths may take in RAM.
            subjects: which; None for all.

        Raises:
            CacheError: as `read`.
        """
        step = max(1, byte_budget // self._row_bytes())
        for start, stop in self._ranges(subjects):
            for first in range(start, stop, step):
                yield self._read([(first, min(first + step, stop))])

    def _ranges(self, subjects: Sequence[str] | None) -> list[tuple[int, int]]:
        """Row ranges of the named subjects, ascending, neighbours joined."""
        if subjects is None:
            return [(0, len(self))]
        if isinstance(subjects, str):
            subjects = [subjects]
        codes = {name: code for code, name in enumerate(self.subjects)}
        ranges: list[tuple[int, int]] = []
        for name in sorted(set(subjects)):
            if name not in codes:
                raise CacheError(f"{self._path}: has no subject {name!r}; {closest_names(name, self.subjects)}")
            start, stop = self._structure.offsets[codes[name] : codes[name] + 2].tolist()
            if ranges and ranges[-1][1] == start:
                start = ranges.pop()[0]
            ranges.append((start, stop))
        return ranges

    def _row_bytes(self) -> int:
        codes = sum(column.itemsize for column in self._structure.codes.values())
        large = 0
        for name, dataset in self._structure.large.items():
            # A Python string weighs about 50 bytes more than its letters, and its place in the tuple 8.
            each = dataset.dtype.itemsize + 58 if name == PATHS else np.dtype(np.float32).itemsize
            large += each * int(np.prod(dataset.shape[1:], dtype=np.int64))
        return codes + large

    def _read(self, ranges: list[tuple[int, int]]) -> FeatureTable:
        if not self._file:
            raise CacheError(f"{self._path}: was closed before it was read; read inside the `with` block")
        codes = {name: _join(column, ranges) for name, column in self._structure.codes.items()}
        large = {name: self._floats(name, ranges) for name in self._structure.large if name != PATHS}
        return FeatureTable(
            embeddings=large[EMBEDDINGS],
            label=codes[LABEL],
            subject=codes[SUBJECT],
            video=codes[VIDEO],
            frame=codes[FRAME],
            subjects=self.subjects,
            videos=self.videos,
            classes=self.classes,
            neutral=self.neutral,
            landmarks=large.get(LANDMARKS),
            paths=self._paths(ranges),
        )

    def _floats(self, name: str, ranges: list[tuple[int, int]]) -> NDArray[np.float32]:
        dataset = self._structure.large[name]
        out = np.empty((sum(stop - start for start, stop in ranges), *dataset.shape[1:]), dtype=np.float32)
        step = max(1, _READ_BYTES // out[:1].nbytes) if len(out) else 1
        at = 0
        for start, stop in ranges:
            for first in range(start, stop, step):
                last = min(first + step, stop)
                with guarded(self._path, f"dataset {name!r}"):
                    out[at : at + last - first] = dataset[first:last]
                if name == EMBEDDINGS:
                    self._refuse_not_finite(name, out[at : at + last - first], first)
                at += last - first
        return out

    def _refuse_not_finite(self, name: str, block: NDArray[np.float32], first: int) -> None:
        finite = np.isfinite(block)
        if not finite.all():
            row = self._structure.describe_row(first + int(finite.all(axis=1).argmin()))
            raise CacheError(f"{self._path}: dataset {name!r} is not finite at {row}; make the cache again without it")

    def _paths(self, ranges: list[tuple[int, int]]) -> tuple[str, ...] | None:
        dataset = self._structure.large.get(PATHS)
        if dataset is None:
            return None
        with guarded(self._path, f"dataset {PATHS!r}"):
            return tuple(text for start, stop in ranges for text in decode_names(dataset[start:stop]))


def open_cache(path: str | os.PathLike[str], verify: bool = False) -> Cache:
    """Opens a cache and refuses one that can't be trusted.

    Always checked: the format and its version, types, lengths, links, claimed sizes, names, codes, the order of rows
    and that each is there once. Checksums and finiteness are checked for what is read.

    Args:
        path: the cache file.
        verify: also read everything and check its digest (see `verify_cache`).

    Raises:
        CacheError: what is wrong, in one line, with the file, the dataset and what to do.
    """
    path = Path(path)
    file = open_file(path)
    try:
        structure = read_structure(file, path)
        findings = find_problems(file, path, structure) if verify else []
        if findings:
            more = f" (and {len(findings) - 1} more, see `featlab verify`)" if len(findings) > 1 else ""
            raise CacheError(findings[0] + more)
    except BaseException:
        file.close()
        raise
    return Cache(path, file, structure)


def _join(column: NDArray[Any], ranges: list[tuple[int, int]]) -> NDArray[Any]:
    if not ranges:
        return column[:0].copy()
    return np.concatenate([column[start:stop] for start, stop in ranges])

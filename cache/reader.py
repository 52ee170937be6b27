"""Reading a cache: by subject or as a whole into memory, block by block within a byte budget, or in numbers."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

import featlab.cache.schema as schema
from featlab.cache.hdf5 import Structure, decode_names, guarded, only_in_digest, open_file, read_structure
from featlab.cache.schema import ContentDigest, ExtractorInfo
from featlab.cache.table import LARGEST, FeatureTable, closest_names, usable
from featlab.cache.verify import find_problems
from featlab.errors import CacheError

_READ_BYTES, _LEARN_BYTES = 1 << 20, 16 << 20
Column = TypeVar("Column")


class Cache(Structure):
    """An open cache. Made by `open_cache`; use it in a `with` block, or close it.

    An open HDF5 file must not cross into a forked process: open the cache again there.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.rows

    def close(self) -> None:
        """Close the file; tables that were read stay valid."""
        self.file.close()

    def read(self, subjects: Sequence[str] | None = None) -> FeatureTable:
        """Return all rows, or those of the named subjects, in the file's order.

        Names and codes are those of the whole cache, so that tables of different subjects agree. Embeddings come as
        float32, also from a float16 cache. All rows are checked against the digest of the file; of some subjects'
        only the checksums of what is read are checked: `featlab verify` checks the rest.

        Raises:
            CacheError: An unknown subject, a damaged file, a row whose embedding is not finite, or other content than
                was written.
        """
        if subjects is not None:
            return self._read(self._ranges(subjects))
        digest = self.new_digest()
        table = self._read([(0, len(self))], digest)
        for name, dataset in only_in_digest(self.file, self.path).items():
            with guarded(self.path, f"dataset {name!r}"):
                digest.update(name, dataset[:])
        if not digest.fits(self.digest):
            raise CacheError([*find_problems(self), f"{self.path}: changed while it was read; run again"][0])
        return table

    def iter_rows(self, byte_budget: int = 64 << 20, subjects: Sequence[str] | None = None) -> Iterator[FeatureTable]:
        """Yield the rows of `read`, in order, in tables of at most `byte_budget` bytes and at least one row.

        They are not checked against the digest: `open_cache` with ``verify`` does that first.
        """
        step = max(1, byte_budget // self._row_bytes())
        for start, stop in self._ranges(subjects):
            for first in range(start, stop, step):
                yield self._read([(first, min(first + step, stop))])

    def _ranges(self, subjects: Sequence[str] | None) -> list[tuple[int, int]]:
        """Return the row ranges of the named subjects, ascending, neighbours joined."""
        if subjects is None:
            return [(0, len(self))]
        if isinstance(subjects, str):
            subjects = [subjects]
        ranges: list[tuple[int, int]] = []
        for name in sorted(set(subjects)):
            code = bisect_left(self.subjects, name)
            if self.subjects[code : code + 1] != (name,):
                raise CacheError(f"{self.path}: has no subject {name!r}; {closest_names(name, self.subjects)}")
            start, stop = self.offsets[code : code + 2].tolist()
            if ranges and ranges[-1][1] == start:
                start = ranges.pop()[0]
            ranges.append((start, stop))
        return ranges

    def _row_bytes(self) -> int:
        # Of floats as they are read; a Python string weighs about 50 bytes more than its letters.
        floats = sum(4 * int(np.prod(dataset.shape[1:], dtype=np.int64)) for dataset in self.large.values())
        return floats + (64 + self.large[schema.PATHS].dtype.itemsize if schema.PATHS in self.large else 16)

    def _read(self, ranges: list[tuple[int, int]], digest: ContentDigest | None = None) -> FeatureTable:
        if not self.file:
            raise CacheError(f"{self.path}: was closed before it was read; read inside the `with` block")
        codes = {name: _join(column, ranges) for name, column in self.codes.items()}
        return FeatureTable(
            embeddings=self._floats(schema.EMBEDDINGS, ranges, digest),
            label=codes[schema.LABEL],
            subject=codes[schema.SUBJECT],
            video=codes[schema.VIDEO],
            frame=codes[schema.FRAME],
            subjects=self.subjects,
            videos=self.videos,
            classes=self.classes,
            neutral=self.neutral,
            landmarks=self._floats(schema.LANDMARKS, ranges, digest) if self.has_landmarks else None,
            paths=self._small(schema.PATHS, ranges, digest, decode_names),
            faces=self._small(schema.FACES, ranges, digest, lambda counts: counts.astype(np.uint8, copy=False)),
            prompts=self.prompts,
        )

    def _floats(self, name: str, ranges: list[tuple[int, int]], digest: ContentDigest | None) -> NDArray[np.float32]:
        from concurrent.futures import ThreadPoolExecutor

        dataset = self.large[name]
        out = np.empty((sum(stop - start for start, stop in ranges), *dataset.shape[1:]), dtype=np.float32)
        at = learnt = 0

        # What has been read is hashed beside what is being read.
        with ThreadPoolExecutor(1) as pool, guarded(self.path, f"dataset {name!r}"):
            for raw in _blocks(dataset, ranges) if digest is None else _stored_blocks(dataset):
                block = out[at : at + len(raw)]
                block[:] = raw
                if name == schema.EMBEDDINGS and not (finite := usable(block)).all():
                    if digest is not None:  # Perhaps it is damaged: no checksum has been looked at.
                        raise CacheError(find_problems(self)[0])
                    rows = np.concatenate([np.arange(*each) for each in ranges])
                    row = self.describe_row(rows[at + int(finite.all(axis=1).argmin())])
                    raise CacheError(
                        f"{self.path}: dataset {name!r} is not finite, or above {LARGEST:g}, at {row}; make the cache "
                        "again without it"
                    )
                at += len(raw)
                if digest is not None and (at == len(out) or out[learnt:at].nbytes >= _LEARN_BYTES):
                    pool.submit(digest.update, name, out[learnt:at].astype(dataset.dtype, copy=False))
                    learnt = at
        return out

    def _small(
        self,
        name: str,
        ranges: list[tuple[int, int]],
        digest: ContentDigest | None,
        decoded: Callable[[NDArray[Any]], Column],
    ) -> Column | None:
        if name not in self.large:
            return None
        with guarded(self.path, f"dataset {name!r}"):
            values = _join(self.large[name], ranges)
            if digest is not None:
                digest.update(name, values)
            return decoded(values)


def open_cache(path: str | os.PathLike[str], verify: bool = False) -> Cache:
    """Open a cache and refuse one that can't be trusted.

    Always checked: the format and its version, types, lengths, links, names, codes, the order of rows and that each is
    there once. Checksums and finiteness are checked for what is read; with ``verify`` all is read, and its digest is
    checked (see `verify_cache`).

    Raises:
        CacheError: What is wrong, in one line, with the file, the dataset and what to do.
    """
    path = Path(path)
    file = open_file(path)
    try:
        structure = read_structure(file, path)
        findings = find_problems(structure) if verify else []
        if findings:
            more = f" (and {len(findings) - 1} more, see `featlab verify`)" if len(findings) > 1 else ""
            raise CacheError(findings[0] + more)
    except BaseException:
        file.close()
        raise
    return Cache(**vars(structure))


def _blocks(dataset: h5py.Dataset, ranges: list[tuple[int, int]]) -> Iterator[NDArray[Any]]:
    step = max(1, _READ_BYTES // (4 * int(np.prod(dataset.shape[1:], dtype=np.int64))))
    for start, stop in ranges:
        for first in range(start, stop, step):
            yield dataset[first : min(first + step, stop)]


def _stored_blocks(dataset: h5py.Dataset) -> Iterator[NDArray[Any]]:
    """Yield all rows as they lie there, a chunk at a time and without its checksum: for who checks a digest of them."""
    chunk = dataset.chunks
    if not dataset.fletcher32 or dataset.id.get_create_plist().get_nfilters() != 1 or chunk[1:] != dataset.shape[1:]:
        # Not as `featlab.cache.encode.create_dataset` makes them.
        yield dataset[:]
        return
    size = int(np.prod(chunk, dtype=np.int64))
    for start in range(0, len(dataset), chunk[0]):
        _, data = dataset.id.read_direct_chunk((start, *(0 for _ in chunk[1:])))
        yield np.frombuffer(data, dataset.dtype, size).reshape(chunk)[: len(dataset) - start]


def _join(column: NDArray[Any], ranges: list[tuple[int, int]]) -> NDArray[Any]:
    if not ranges:
        return column[:0].copy()
    return np.concatenate([column[start:stop] for start, stop in ranges])


@dataclass(frozen=True)
class CacheSummary:
    """What a cache holds, in numbers and names."""

    path: str
    format_version: int
    file_bytes: int  # Of the file on disk.
    rows: int  # N.
    dim: int  # D.
    dtype: str  # How embeddings are stored, "float32" or "float16".
    digest: str  # sha256 of the content, as the file states it.
    extractor: ExtractorInfo  # Who made the embeddings.
    neutral: str  # The neutral class.
    classes: Mapping[str, int]  # Rows by class.
    unknown_labels: int  # Rows without a label.
    subjects: Mapping[str, int]  # Rows by subject.
    videos: int  # How many (subject, video) there are.
    landmarks: int  # Points a face, 0 when there are none.
    has_paths: bool  # Whether rows name their image.
    several_faces: int | None  # Rows whose image has more than one face; None where nobody counted.

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return {**asdict(self), "extractor": self.extractor.to_dict()}


def inspect_cache(path: str | os.PathLike[str]) -> CacheSummary:
    """Summarise a cache from its small datasets; embeddings are not read.

    Raises:
        CacheError: As `open_cache`.
    """
    path = Path(path)
    with open_file(path) as file:
        cache = read_structure(file, path)
        large = cache.large
        labels = np.bincount(
            cache.codes[schema.LABEL].astype(np.int64) - schema.UNKNOWN_LABEL, minlength=len(cache.classes) + 1
        )
        videos = np.stack([cache.codes[schema.SUBJECT], cache.codes[schema.VIDEO]], axis=1)
        return CacheSummary(
            path=str(path),
            format_version=schema.FORMAT_VERSION,
            file_bytes=path.stat().st_size,
            rows=cache.rows,
            dim=cache.dim,
            dtype=large[schema.EMBEDDINGS].dtype.name,
            digest=cache.digest,
            extractor=cache.extractor,
            neutral=cache.neutral,
            classes=dict(zip(cache.classes, labels[1:].tolist(), strict=True)),
            unknown_labels=int(labels[0]),
            subjects=dict(zip(cache.subjects, np.diff(cache.offsets).tolist(), strict=True)),
            videos=int(np.any(videos[1:] != videos[:-1], axis=1).sum()) + 1,
            landmarks=int(large[schema.LANDMARKS].shape[1]) if schema.LANDMARKS in large else 0,
            has_paths=schema.PATHS in large,
            several_faces=int((large[schema.FACES][:] > 1).sum()) if schema.FACES in large else None,
        )

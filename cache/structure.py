"""Everything about an open cache but its large arrays, checked: what a reader must know before it trusts a row."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featlab.cache.errors import CacheError
from featlab.cache.hdf5 import decode_names, get_dataset, guarded, read_attr, refuse_link
from featlab.cache.order import first_disorder
from featlab.cache.schema import (
    CODE_DTYPES,
    EMBEDDING_DTYPES,
    EMBEDDINGS,
    FLOAT_DTYPE,
    FORMAT,
    FORMAT_ATTR,
    FORMAT_VERSION,
    FRAME,
    LABEL,
    LANDMARKS,
    OFFSETS_DTYPE,
    PATHS,
    SHARD_FORMAT,
    SUBJECT,
    SUBJECT_OFFSETS,
    SUBJECTS,
    UNKNOWN_LABEL,
    VERSION_ATTR,
    VIDEO,
    VIDEOS,
    ExtractorInfo,
)

_AGAIN = "make it again with `featlab extract`"


@dataclass(frozen=True, eq=False)
class Structure:
    """The small part of a cache, in RAM.

    Attributes:
        extractor: who made the embeddings.
        classes: names of the labels.
        neutral: one of `classes`.
        rows: N.
        dim: D.
        digest: 64 hex digits, as the file states it.
        subjects: names, ascending.
        videos: names, ascending.
        offsets: int64 (S + 1).
        codes: label, subject, video and frame, each (N,), by dataset name.
        large: the datasets that are read on demand, one row a row, by name.
    """

    extractor: ExtractorInfo
    classes: tuple[str, ...]
    neutral: str
    rows: int
    dim: int
    digest: str
    subjects: tuple[str, ...]
    videos: tuple[str, ...]
    offsets: NDArray[np.int64]
    codes: Mapping[str, NDArray[Any]]
    large: Mapping[str, h5py.Dataset]

    def describe_row(self, row: int) -> str:
        """One row in words: "subject 's1', video 'v2', frame 3"."""
        subject, video = self.subjects[self.codes[SUBJECT][row]], self.videos[self.codes[VIDEO][row]]
        return f"subject {subject!r}, video {video!r}, frame {self.codes[FRAME][row]}"


def read_structure(file: h5py.File, path: Path) -> Structure:
    """Reads and checks all that is cheap: attributes, lengths, types, links, sizes, names, codes, order.

    Raises:
        CacheError: anything that can't be trusted; names the file, the dataset and what to do.
    """
    with guarded(path):
        _check_format(file, path)
        for name in file:
            refuse_link(file, path, name)
        extractor, classes, neutral = _read_settings(file, path)
        rows, dim, digest = read_attr(file, "rows"), read_attr(file, "dim"), read_attr(file, "digest")
        if not isinstance(rows, int) or not isinstance(dim, int) or not isinstance(digest, str) or rows < 1 or dim < 1:
            raise CacheError(f"{path}: rows, dim or digest make no sense ({rows!r}, {dim!r}, {digest!r}); {_AGAIN}")
        large = _large_datasets(file, path, rows, dim)
        codes = {
            name: _checked(file, path, name, [dtype], (rows,))[:].astype(dtype.newbyteorder("="), copy=False)
            for name, dtype in CODE_DTYPES.items()
        }
        subjects, videos = _names(file, path, SUBJECTS), _names(file, path, VIDEOS)
        offsets = _checked(file, path, SUBJECT_OFFSETS, [OFFSETS_DTYPE], (len(subjects) + 1,))[:].astype(np.int64)
    structure = Structure(extractor, classes, neutral, rows, dim, digest, subjects, videos, offsets, codes, large)
    _check_codes(path, structure)
    return structure


def _check_format(file: h5py.File, path: Path) -> None:
    if FORMAT_ATTR not in file.attrs:
        raise CacheError(f"{path}: is HDF5 but no featlab cache (no attribute {FORMAT_ATTR}); name another file")
    found = read_attr(file, FORMAT_ATTR)
    if found == SHARD_FORMAT:
        raise CacheError(f"{path}: is one shard of an unfinished cache; run the same `featlab extract` again to finish")
    if found != FORMAT:
        raise CacheError(f"{path}: its {FORMAT_ATTR} is {found!r}, expected {FORMAT!r}; name another file")
    version = read_attr(file, VERSION_ATTR)
    if not isinstance(version, int) or version < 1:
        raise CacheError(f"{path}: its {VERSION_ATTR} is {version!r}, expected a number from 1; {_AGAIN}")
    if version > FORMAT_VERSION:
        raise CacheError(
            f"{path}: is of format version {version}, this featlab reads up to {FORMAT_VERSION}; update featlab"
        )


def _read_settings(file: h5py.File, path: Path) -> tuple[ExtractorInfo, tuple[str, ...], str]:
    texts = {name: str(read_attr(file, name)) for name in ("extractor", "classes", "neutral")}
    extractor = ExtractorInfo.from_dict(json.loads(texts["extractor"]))
    classes = json.loads(texts["classes"])
    neutral = texts["neutral"]
    fits = isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
    if not fits or len(set(classes)) != len(classes) or neutral not in classes:
        raise CacheError(f"{path}: its classes {classes!r} and neutral class {neutral!r} make no sense; {_AGAIN}")
    return extractor, tuple(classes), neutral


def _large_datasets(file: h5py.File, path: Path, rows: int, dim: int) -> dict[str, h5py.Dataset]:
    datasets = {EMBEDDINGS: _checked(file, path, EMBEDDINGS, list(EMBEDDING_DTYPES.values()), (rows, dim))}
    if LANDMARKS in file:
        datasets[LANDMARKS] = _checked(file, path, LANDMARKS, [FLOAT_DTYPE], (rows, None, 2))
    if PATHS in file:
        datasets[PATHS] = _checked(file, path, PATHS, (), (rows,))
    return datasets


def _checked(
    file: h5py.File, path: Path, name: str, dtypes: Sequence[np.dtype[Any]], shape: tuple[int | None, ...]
) -> h5py.Dataset:
    """A dataset of one of `dtypes` (none of them: fixed-length text) and of `shape` (None: any length)."""
    dataset = get_dataset(file, path, name)
    fits = dataset.dtype in dtypes if dtypes else dataset.dtype.kind == "S"
    if not fits:
        wanted = " or ".join(str(dtype) for dtype in dtypes) or "fixed-length text"
        raise CacheError(f"{path}: dataset {name!r} is of type {dataset.dtype}, expected {wanted}; {_AGAIN}")
    lengths = zip(shape, dataset.shape, strict=False)
    if dataset.ndim != len(shape) or any(got == 0 or want not in {None, got} for want, got in lengths):
        wanted = "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"
        raise CacheError(f"{path}: dataset {name!r} is of shape {dataset.shape}, expected {wanted}; {_AGAIN}")
    return dataset


def _names(file: h5py.File, path: Path, name: str) -> tuple[str, ...]:
    names = decode_names(_checked(file, path, name, (), (None,))[:])
    if "" in names or any(after <= before for before, after in pairwise(names)):
        raise CacheError(f"{path}: dataset {name!r} holds an empty or repeated name, or is not sorted; {_AGAIN}")
    return names


def _check_codes(path: Path, cache: Structure) -> None:
    limits = {
        LABEL: (UNKNOWN_LABEL, len(cache.classes)),
        SUBJECT: (0, len(cache.subjects)),
        VIDEO: (0, len(cache.videos)),
    }
    for name, (lowest, count) in limits.items():
        codes = cache.codes[name]
        if codes.min() < lowest or codes.max() >= count:
            raise CacheError(
                f"{path}: dataset {name!r} holds codes from {codes.min()} to {codes.max()}, expected {lowest} to "
                f"{count - 1}; {_AGAIN}"
            )
    lengths = np.diff(cache.offsets)
    ends = cache.offsets[0] == 0 and cache.offsets[-1] == cache.rows
    if not ends or lengths.min() < 1 or np.any(np.repeat(np.arange(len(lengths)), lengths) != cache.codes[SUBJECT]):
        raise CacheError(f"{path}: dataset {SUBJECT_OFFSETS!r} does not fit dataset {SUBJECT!r}; {_AGAIN}")
    row = first_disorder(cache.codes[SUBJECT], cache.codes[VIDEO], cache.codes[FRAME])
    if row is not None:
        here, before = cache.describe_row(row), cache.describe_row(row - 1)
        problem = f"holds {here} twice" if here == before else f"holds {here} after {before}"
        raise CacheError(f"{path}: {problem}; {_AGAIN}")

"""Looking at a cache: what it holds, and whether all of it can be trusted."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featlab.cache.errors import CacheError
from featlab.cache.hdf5 import decode_names, get_dataset, guarded, open_file
from featlab.cache.schema import (
    CODE_DTYPES,
    EMBEDDINGS,
    FORMAT_VERSION,
    LABEL,
    LANDMARKS,
    PATHS,
    SUBJECT_OFFSETS,
    SUBJECTS,
    UNKNOWN_LABEL,
    VIDEOS,
    ContentDigest,
    ExtractorInfo,
)
from featlab.cache.structure import Structure, read_structure

_BLOCK_BYTES = 8 << 20
_UNREAD = (POSE, LAYERS) = ("pose", "layers")


@dataclass(frozen=True)
class CacheSummary:
    """What a cache holds, in numbers and names.

    Attributes:
        path: the file.
        format_version: of the file.
        file_bytes: its size on disk.
        rows: N.
        dim: D.
        dtype: how embeddings are stored, "float32" or "float16".
        digest: sha256 of the content, as the file states it.
        extractor: who made the embeddings.
        neutral: the neutral class.
        classes: rows by class.
        unknown_labels: rows without a label.
        subjects: rows by subject.
        videos: how many (subject, video) there are.
        landmarks: points a face, 0 when there are none.
        has_paths: whether rows name their image.
    """

    path: str
    format_version: int
    file_bytes: int
    rows: int
    dim: int
    dtype: str
    digest: str
    extractor: ExtractorInfo
    neutral: str
    classes: Mapping[str, int]
    unknown_labels: int
    subjects: Mapping[str, int]
    videos: int
    landmarks: int
    has_paths: bool

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        return {**asdict(self), "extractor": self.extractor.to_dict()}


def inspect_cache(path: str | os.PathLike[str]) -> CacheSummary:
    """Summarises a cache from its small datasets; embeddings are not read.

    Raises:
        CacheError: as `open_cache`.
    """
    path = Path(path)
    with open_file(path) as file:
        cache = read_structure(file, path)
        large = cache.large
        labels = np.bincount(cache.codes[LABEL].astype(np.int64) - UNKNOWN_LABEL, minlength=len(cache.classes) + 1)
        videos = np.stack([cache.codes["subject"], cache.codes["video"]], axis=1)
        return CacheSummary(
            path=str(path),
            format_version=FORMAT_VERSION,
            file_bytes=path.stat().st_size,
            rows=cache.rows,
            dim=cache.dim,
            dtype=large[EMBEDDINGS].dtype.name,
            digest=cache.digest,
            extractor=cache.extractor,
            neutral=cache.neutral,
            classes=dict(zip(cache.classes, labels[1:].tolist(), strict=True)),
            unknown_labels=int(labels[0]),
            subjects=dict(zip(cache.subjects, np.diff(cache.offsets).tolist(), strict=True)),
            videos=int(np.any(videos[1:] != videos[:-1], axis=1).sum()) + 1,
            landmarks=int(large[LANDMARKS].shape[1]) if LANDMARKS in large else 0,
            has_paths=PATHS in large,
        )


def verify_cache(path: str | os.PathLike[str]) -> list[str]:
    """Reads everything, in bounded memory: checksums, finiteness, landmarks, text, the digest.

    Returns:
        One line a problem, naming the file and the dataset; an empty list when all is well.

    Raises:
        CacheError: the file can't even be opened as a cache (see `open_cache`).
    """
    path = Path(path)
    with open_file(path) as file:
        return find_problems(file, path, read_structure(file, path))


def find_problems(file: h5py.File, path: Path, cache: Structure) -> list[str]:
    """`verify_cache` of a file that is open and whose structure was read."""
    problems = []
    digest = ContentDigest(cache.extractor, cache.classes, cache.neutral, cache.subjects, cache.videos)
    for name, codes in cache.codes.items():
        digest.update(name, codes)
    readable = True
    for name, dataset in {**cache.large, **_unread(file, path)}.items():
        try:
            problems += _problems_of(path, cache, name, dataset, digest)
        except CacheError as error:
            problems.append(str(error))
            readable = False
    if readable and digest.hexdigest() != cache.digest:
        problems.append(
            f"{path}: its content is not what was written (digest {digest.hexdigest()[:12]}, expected "
            f"{cache.digest[:12]}); make it again with `featlab extract` or restore a copy"
        )
    known = {*cache.large, *CODE_DTYPES, SUBJECTS, VIDEOS, SUBJECT_OFFSETS, *_UNREAD}
    for name in sorted(set(file) - known):
        problems.append(f"{path}: {name!r} is no part of format {FORMAT_VERSION} and no digest covers it; remove it")
    return problems


def _unread(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """Datasets of older files that only the digest covers: head pose, statistics of layers."""
    names = [POSE] if POSE in file else []
    if LAYERS in file:
        names += [f"{LAYERS}/{layer}/{part}" for layer in file[LAYERS] for part in ("mean", "std")]
    return {name: get_dataset(file, path, name) for name in names}


def _problems_of(path: Path, cache: Structure, name: str, dataset: h5py.Dataset, digest: ContentDigest) -> list[str]:
    """Reads one dataset block by block into the digest; at most one problem, of its first bad row.

    Raises:
        CacheError: a checksum that fails, text that is no UTF-8.
    """
    row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
    step = max(1, _BLOCK_BYTES // row_bytes)
    bad, first_bad = 0, 0
    for start in range(0, cache.rows, step):
        with guarded(path, f"dataset {name!r}"):
            block = dataset[start : start + step]
            rows = _bad_rows(name, block)
        digest.update(name, block)
        if rows.any() and not bad:
            first_bad = start + int(rows.argmax())
        bad += int(rows.sum())
    if not bad:
        return []
    return [
        f"{path}: dataset {name!r} is not finite in {bad} of {cache.rows} rows, first at "
        f"{cache.describe_row(first_bad)}; make the cache again without them"
    ]


def _bad_rows(name: str, block: NDArray[Any]) -> NDArray[np.bool_]:
    if name == PATHS:
        decode_names(block)
        return np.zeros(len(block), dtype=np.bool_)
    flat = block.reshape(len(block), -1)
    bad: NDArray[np.bool_] = ~np.isfinite(flat).all(axis=1)
    if name != EMBEDDINGS:
        bad &= ~np.isnan(flat).all(axis=1)
    return bad

"""Whether a cache can be trusted: its structure, checked whenever one is opened, and all of its content."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featlab.cache import schema
from featlab.cache.hdf5 import check_filled, decode_names, get_dataset, guarded, open_file, read_attr, refuse_link
from featlab.cache.names import CONTROL
from featlab.cache.repeats import Repeats
from featlab.cache.schema import FORMAT_VERSION, ContentDigest, ExtractorInfo, first_disorder, parse_json
from featlab.cache.table import LARGEST, shape_text, usable_rows
from featlab.errors import CacheError

_AGAIN = "make it again with `featlab extract`"
_BLOCK_BYTES = 8 << 20
# Datasets of older files that only the digest covers: head pose (N, 3), statistics of layers (N, C).
_POSE, _LAYERS = "pose", "layers"


@dataclass(frozen=True, eq=False)
class Structure:
    """An open file, and the small part of its content in memory."""

    path: Path
    file: h5py.File
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
    prompts: NDArray[np.float32] | None

    @property
    def has_landmarks(self) -> bool:
        """Whether rows have landmarks."""
        return schema.LANDMARKS in self.large

    def describe_row(self, row: int) -> str:
        """Say which row it is: "subject 's1', video 'v2', frame 3"."""
        subject, video = self.subjects[self.codes[schema.SUBJECT][row]], self.videos[self.codes[schema.VIDEO][row]]
        return f"subject {subject!r}, video {video!r}, frame {self.codes[schema.FRAME][row]}"

    def new_digest(self) -> ContentDigest:
        """Return a digest that has learnt all but the large datasets."""
        digest = ContentDigest(self.extractor, self.classes, self.neutral, self.subjects, self.videos)
        for name, codes in self.codes.items():
            digest.update(name, codes)
        if self.prompts is not None:
            digest.update(schema.PROMPTS, self.prompts)
        return digest


def is_cache(path: Path) -> bool:
    """Tell whether a file is a cache, by its name or by its first bytes."""
    if path.suffix == ".h5":
        return True
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def read_structure(file: h5py.File, path: Path) -> Structure:
    """Read and check all that is cheap: attributes, lengths, types, links, names, codes, order."""
    with guarded(path):
        _check_format(file, path)
        for name in file:
            refuse_link(file, path, name)
        extractor, classes, neutral = _read_header(file, path)
        rows, dim, digest = read_attr(file, "rows"), read_attr(file, "dim"), read_attr(file, "digest")
        if not isinstance(rows, int) or not isinstance(dim, int) or not isinstance(digest, str) or rows < 1 or dim < 1:
            raise CacheError(f"{path}: rows, dim or digest make no sense ({rows!r}, {dim!r}, {digest!r}); {_AGAIN}")
        wanted: dict[str, tuple[Sequence[np.dtype[Any]], tuple[int | None, ...]]] = {
            schema.EMBEDDINGS: (list(schema.EMBEDDING_DTYPES.values()), (rows, dim)),
            schema.LANDMARKS: ([schema.FLOAT_DTYPE], (rows, None, 2)),
            schema.PATHS: ((), (rows,)),
            schema.FACES: ([schema.COUNT_DTYPE], (rows,)),
        }
        large = {
            name: _checked(file, path, name, *kind)
            for name, kind in wanted.items()
            if name in file or name == schema.EMBEDDINGS
        }
        codes = {
            name: _checked(file, path, name, [dtype], (rows,))[:].astype(dtype.newbyteorder("="), copy=False)
            for name, dtype in schema.CODE_DTYPES.items()
        }
        subjects, videos = _names(file, path, schema.SUBJECTS, rows), _names(file, path, schema.VIDEOS, rows)
        offsets = _checked(file, path, schema.SUBJECT_OFFSETS, [schema.OFFSETS_DTYPE], (len(subjects) + 1,))[:].astype(
            np.int64
        )
        found = schema.PROMPTS in file
        texts = _checked(file, path, schema.PROMPTS, [schema.FLOAT_DTYPE], (len(classes), dim))[:] if found else None
    structure = Structure(
        path, file, extractor, classes, neutral, rows, dim, digest, subjects, videos, offsets, codes, large, texts
    )
    _check_codes(structure)
    return structure


def _check_format(file: h5py.File, path: Path) -> None:
    if schema.FORMAT_ATTR not in file.attrs:
        raise CacheError(f"{path}: is HDF5 but no featlab cache (no attribute {schema.FORMAT_ATTR}); name another file")
    found = read_attr(file, schema.FORMAT_ATTR)
    if found == schema.SHARD_FORMAT:
        raise CacheError(f"{path}: is one shard of an unfinished cache; run the same `featlab extract` again to finish")
    if found != schema.FORMAT:
        raise CacheError(
            f"{path}: its {schema.FORMAT_ATTR} is {found!r}, expected {schema.FORMAT!r}; name another file"
        )
    version = read_attr(file, schema.VERSION_ATTR)
    if not isinstance(version, int) or version < 1:
        raise CacheError(f"{path}: its {schema.VERSION_ATTR} is {version!r}, expected a number from 1; {_AGAIN}")
    if version > FORMAT_VERSION:
        raise CacheError(
            f"{path}: is of format version {version}, this featlab reads up to {FORMAT_VERSION}; update featlab"
        )


def _read_header(file: h5py.File, path: Path) -> tuple[ExtractorInfo, tuple[str, ...], str]:
    texts = {name: str(read_attr(file, name)) for name in ("extractor", "classes", "neutral")}
    extractor = ExtractorInfo.from_dict(parse_json(texts["extractor"]))
    classes = parse_json(texts["classes"])
    neutral = texts["neutral"]
    fits = isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
    if not fits or len(set(classes)) != len(classes) or neutral not in classes:
        raise CacheError(f"{path}: its classes {classes!r} and neutral class {neutral!r} make no sense; {_AGAIN}")
    return extractor, tuple(classes), neutral


def _checked(
    file: h5py.File, path: Path, name: str, dtypes: Sequence[np.dtype[Any]], shape: tuple[int | None, ...]
) -> h5py.Dataset:
    """Return a dataset of one of `dtypes` (none of them: fixed-length text) and of `shape` (None: any length)."""
    dataset = get_dataset(file, path, name)
    fits = dataset.dtype in dtypes if dtypes else dataset.dtype.kind == "S"
    if not fits:
        wanted = " or ".join(str(dtype) for dtype in dtypes) or "fixed-length text"
        raise CacheError(f"{path}: dataset {name!r} is of type {dataset.dtype}, expected {wanted}; {_AGAIN}")
    lengths = zip(shape, dataset.shape, strict=False)
    if dataset.ndim != len(shape) or any(got == 0 or want not in {None, got} for want, got in lengths):
        wanted = shape_text(shape)
        raise CacheError(f"{path}: dataset {name!r} is of shape {dataset.shape}, expected {wanted}; {_AGAIN}")
    check_filled(dataset, path, name)
    return dataset


def _names(file: h5py.File, path: Path, name: str, rows: int) -> tuple[str, ...]:
    dataset = _checked(file, path, name, (), (None,))
    if len(dataset) > rows:
        raise CacheError(f"{path}: dataset {name!r} holds {len(dataset)} names for {rows} rows; {_AGAIN}")
    names = decode_names(dataset[:])
    if "" in names or any(after <= before for before, after in pairwise(names)):
        raise CacheError(f"{path}: dataset {name!r} holds an empty or repeated name, or is not sorted; {_AGAIN}")
    if torn := next(filter(CONTROL.search, names), None):
        raise CacheError(f"{path}: dataset {name!r} holds {torn!r}, which has a control character; {_AGAIN}")
    return names


def _check_codes(cache: Structure) -> None:
    path = cache.path
    limits = {
        schema.LABEL: (schema.UNKNOWN_LABEL, len(cache.classes)),
        schema.SUBJECT: (0, len(cache.subjects)),
        schema.VIDEO: (0, len(cache.videos)),
    }
    for name, (lowest, count) in limits.items():
        codes = cache.codes[name]
        if codes.min() < lowest or codes.max() >= count:
            raise CacheError(
                f"{path}: dataset {name!r} holds codes from {codes.min()} to {codes.max()}, expected {lowest} to "
                f"{count - 1}; {_AGAIN}"
            )
    keys = [cache.codes[name] for name in (schema.SUBJECT, schema.VIDEO, schema.FRAME)]
    lengths = np.diff(cache.offsets)
    ends = cache.offsets[0] == 0 and cache.offsets[-1] == cache.rows
    if not ends or lengths.min() < 1 or np.any(np.repeat(np.arange(len(lengths)), lengths) != keys[0]):
        raise CacheError(f"{path}: dataset 'subject_offsets' does not fit dataset 'subject'; {_AGAIN}")
    row = first_disorder(*keys)
    if row is not None:
        here, before = cache.describe_row(row), cache.describe_row(row - 1)
        problem = f"holds {here} twice" if here == before else f"holds {here} after {before}"
        raise CacheError(f"{path}: {problem}; {_AGAIN}")


def verify_cache(path: str | os.PathLike[str]) -> list[str]:
    """Read everything, in bounded memory: checksums, finiteness, landmarks, text, the digest.

    Returns:
        One line a problem, naming the file and the dataset; an empty list when all is well.

    Raises:
        CacheError: The file can't even be opened as a cache (see `open_cache`).
    """
    with open_file(Path(path)) as file:
        return find_problems(read_structure(file, Path(path)))


def check_cache(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Verify a cache and, in the same pass, look for equal rows (see `Repeats`).

    Returns:
        Problems and warnings, a line each; of equal rows only where the file itself is right.

    Raises:
        CacheError: As `verify_cache`.
    """
    with open_file(Path(path)) as file:
        cache, repeats = read_structure(file, Path(path)), Repeats()
        if problems := find_problems(cache, repeats):
            return problems, []
        return repeats.find(cache)


def find_problems(cache: Structure, repeats: Repeats | None = None) -> list[str]:
    """Verify a file that is open and whose structure was read; `repeats` learns of its rows. See `verify_cache`."""
    file, path = cache.file, cache.path
    problems = []
    digest = cache.new_digest()
    learners: list[ContentDigest | Repeats] = [digest, repeats] if repeats else [digest]
    readable = True
    for name, dataset in {**cache.large, **only_in_digest(file, path)}.items():
        try:
            problems += _problems_of(cache, name, dataset, learners)
        except CacheError as error:
            problems.append(str(error))
            readable = False
    if readable and not digest.fits(cache.digest):
        problems.append(
            f"{path}: its content is not what was written (digest {digest.hexdigest()[:12]}, expected "
            f"{cache.digest[:12]}); make it again with `featlab extract` or restore a copy"
        )
    names = schema.SUBJECTS, schema.VIDEOS, schema.SUBJECT_OFFSETS, schema.PROMPTS
    known = {*cache.large, *schema.CODE_DTYPES, *names, _POSE, _LAYERS}
    for name in sorted(set(file) - known):
        problems.append(f"{path}: {name!r} is no part of format {FORMAT_VERSION} and no digest covers it; remove it")
    return problems


def only_in_digest(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """Return the datasets of older files that nothing else reads."""
    names = [_POSE] if _POSE in file else []
    if _LAYERS in file:
        with guarded(path, f"group {_LAYERS!r}"):
            names += [f"{_LAYERS}/{layer}/{part}" for layer in file[_LAYERS] for part in file[_LAYERS][layer]]
    return {name: get_dataset(file, path, name) for name in names}


def _problems_of(
    cache: Structure, name: str, dataset: h5py.Dataset, learners: Sequence[ContentDigest | Repeats]
) -> list[str]:
    """Read one dataset block by block, once for all learners; at most one problem, of its first bad row."""
    row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
    step = max(1, _BLOCK_BYTES // row_bytes)
    bad, first_bad = 0, 0
    for start in range(0, cache.rows, step):
        with guarded(cache.path, f"dataset {name!r}"):
            block = dataset[start : start + step]
            rows = _bad_rows(name, block)
        for learner in learners:
            learner.update(name, block)
        if rows.any() and not bad:
            first_bad = start + int(rows.argmax())
        bad += int(rows.sum())
    if not bad:
        return []
    return [
        f"{cache.path}: dataset {name!r} is not finite, or above {LARGEST:g}, in {bad} of {cache.rows} rows, first at "
        f"{cache.describe_row(first_bad)}; make the cache again without them"
    ]


def _bad_rows(name: str, block: NDArray[Any]) -> NDArray[np.bool_]:
    if name == schema.PATHS:
        decode_names(block)
        return np.zeros(len(block), dtype=np.bool_)
    flat = block.reshape(len(block), -1)
    if name == schema.EMBEDDINGS:
        return ~usable_rows(flat)
    # A row of nothing but NaN says that no face was found.
    bad: NDArray[np.bool_] = ~np.isfinite(flat).all(axis=1) & ~np.isnan(flat).all(axis=1)
    return bad

"""Opening a cache file: HDF5 is read guardedly, and the structure is checked before anything relies on it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

import featlab.cache.schema as schema
from featlab.cache.schema import ContentDigest, ExtractorInfo, first_disorder, parse_json
from featlab.cache.table import check_codes, has_shape, row_text, shape_text
from featlab.errors import CONTROL, CacheError, UnreadableError, one_line

CHUNK_CACHE_BYTES = 1 << 20
_AGAIN = "make it again with `featlab extract`"
_MOST_PACKED = 1100
"""Times that the best compressor of HDF5 (deflate) can make a block smaller."""
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_READ_ERRORS = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError)
# Datasets of older files that only the digest covers: head pose (N, 3), statistics of layers (N, C).
POSE, LAYERS = "pose", "layers"


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
        return h5py.File(path, "r", locking=False, rdcc_nbytes=CHUNK_CACHE_BYTES)


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


def refuse_link(group: h5py.Group, path: Path, name: str) -> None:
    """Raise a CacheError when `name` in `group` is an external or soft link."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a link"
        raise CacheError(f"{path}: {name!r} is {kind}, which featlab never follows; copy the data in")


def decode_names(array: NDArray[Any]) -> tuple[str, ...]:
    """Return the names that `encode_names` made an array of; other bytes are a UnicodeDecodeError (see `guarded`)."""
    return tuple(name.decode("utf-8") for name in array.tolist())


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
        """Say which row it is, for a message."""
        subject, video, frame = (self.codes[name][row] for name in (schema.SUBJECT, schema.VIDEO, schema.FRAME))
        return row_text(self.subjects[subject], self.videos[video], frame)

    def new_digest(self) -> ContentDigest:
        """Return a digest that has learnt all but the large datasets."""
        digest = ContentDigest(self.extractor, self.classes, self.neutral, self.subjects, self.videos)
        for name, codes in self.codes.items():
            digest.update(name, codes)
        if self.prompts is not None:
            digest.update(schema.PROMPTS, self.prompts)
        return digest


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
    if version > schema.FORMAT_VERSION:
        raise CacheError(
            f"{path}: is of format version {version}, this featlab reads up to {schema.FORMAT_VERSION}; update featlab"
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
    if 0 in dataset.shape or not has_shape(dataset.shape, shape):
        raise CacheError(
            f"{path}: dataset {name!r} is of shape {dataset.shape}, expected {shape_text(shape)}; {_AGAIN}"
        )
    # One that is larger than what the file holds of it would be read as zeros.
    held = dataset.id.get_storage_size() * (_MOST_PACKED if dataset.compression else 1)
    if held < dataset.nbytes:
        raise CacheError(
            f"{path}: dataset {name!r} promises {dataset.nbytes:,} bytes and holds at most {held:,}; it is incomplete, "
            f"{_AGAIN}"
        )
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
    path, codes = cache.path, cache.codes
    check_codes(f"{path}: label", codes[schema.LABEL], len(cache.classes), lowest=schema.UNKNOWN_LABEL)
    check_codes(f"{path}: subject", codes[schema.SUBJECT], len(cache.subjects))
    check_codes(f"{path}: video", codes[schema.VIDEO], len(cache.videos))
    keys = [codes[name] for name in (schema.SUBJECT, schema.VIDEO, schema.FRAME)]
    lengths = np.diff(cache.offsets)
    ends = cache.offsets[0] == 0 and cache.offsets[-1] == cache.rows
    if not ends or lengths.min() < 1 or np.any(np.repeat(np.arange(len(lengths)), lengths) != keys[0]):
        raise CacheError(f"{path}: dataset 'subject_offsets' does not fit dataset 'subject'; {_AGAIN}")
    row = first_disorder(*keys)
    if row is not None:
        here, before = cache.describe_row(row), cache.describe_row(row - 1)
        problem = f"holds {here} twice" if here == before else f"holds {here} after {before}"
        raise CacheError(f"{path}: {problem}; {_AGAIN}")


def only_in_digest(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """Return the datasets of older files that nothing else reads."""
    names = [POSE] if POSE in file else []
    if LAYERS in file:
        with guarded(path, f"group {LAYERS!r}"):
            names += [f"{LAYERS}/{layer}/{part}" for layer in file[LAYERS] for part in file[LAYERS][layer]]
    return {name: get_dataset(file, path, name) for name in names}

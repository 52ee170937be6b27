"""From rows as people name them to the columns that a file holds, checked on the way in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featlab.cache import schema
from featlab.cache.hdf5 import encode_names
from featlab.cache.schema import ExtractorInfo, Kinds, canonical_json
from featlab.cache.table import LARGEST, FeatureTable, Rows, closest_names, usable_rows
from featlab.errors import CacheError

Describe: TypeAlias = Callable[[int], str]

# Equal-length arrays by dataset name ("embeddings", "label", ...): what is stored, a row at a time.
Columns: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Header:
    """What every row of one cache has in common; refuses classes that make no sense and another dtype."""

    extractor: ExtractorInfo
    classes: tuple[str, ...]
    neutral: str
    dtype: str
    has_landmarks: bool
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
        content = {
            "format_version": schema.FORMAT_VERSION,
            "extractor": self.extractor.fingerprint,
            "classes": list(self.classes),
            "neutral": self.neutral,
            "dtype": self.dtype,
            "has_landmarks": self.has_landmarks,
        }
        return hashlib.sha256(canonical_json(content)).hexdigest()


@dataclass(frozen=True, eq=False)
class CodedRows:
    """Columns whose subject and video codes point into their own, sorted name lists."""

    columns: Columns
    subjects: tuple[str, ...]
    videos: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns[schema.EMBEDDINGS])

    @property
    def kinds(self) -> Kinds:
        """Dtype and shape of one row, by dataset name."""
        return {name: (column.dtype, column.shape[1:]) for name, column in self.columns.items()}


def encode_rows(rows: Rows, header: Header, where: str) -> CodedRows:
    """Check at least one row and code its names; `where` begins the messages."""
    count = len(rows)
    for what, values in (("labels", rows.labels), ("subjects", rows.subjects), ("videos", rows.videos)):
        _check_count(where, what, len(values), count)
    _check_count(where, "frames", len(rows.frames), count)
    encode_names(rows.subjects, where, "subject name")
    encode_names(rows.videos, where, "video name")
    subjects, subject_codes = _code(rows.subjects)
    videos, video_codes = _code(rows.videos)
    if header.has_landmarks != (rows.landmarks is not None):
        held, wanted = ("no", "some") if header.has_landmarks else ("some", "none")
        raise CacheError(f"{where}: holds {held} landmarks, the cache was opened for {wanted}; set has_landmarks")

    def describe(row: int) -> str:
        return f"{where}, subject {rows.subjects[row]!r}, video {rows.videos[row]!r}, frame {rows.frames[row]}"

    columns: Columns = {
        schema.LABEL: _label_codes(rows.labels, header.classes, describe),
        schema.SUBJECT: subject_codes,
        schema.VIDEO: video_codes,
        schema.FRAME: _frames(rows.frames, where),
    }
    return CodedRows(_values(rows, header.dtype, describe, where) | columns, subjects, videos)


def encode_table(table: FeatureTable, header: Header, where: str) -> CodedRows:
    """Check the values of a table, whose classes are among the header's; `where` begins the messages."""
    labels = [*map(header.classes.index, table.classes), schema.UNKNOWN_LABEL]
    columns: Columns = {
        schema.LABEL: np.array(labels, dtype=schema.CODE_DTYPES[schema.LABEL])[table.label],
        schema.SUBJECT: table.subject,
        schema.VIDEO: table.video,
        schema.FRAME: table.frame,
    }
    values = _values(table, header.dtype, lambda row: f"{where}, {table.describe_row(row)}", where)
    return CodedRows(values | columns, table.subjects, table.videos)


def _values(rows: Rows | FeatureTable, dtype: str, describe: Describe, where: str) -> Columns:
    """Return what is no code, checked: embeddings and, where they are there, landmarks, paths and counts of faces."""
    count = len(rows)
    columns: Columns = {schema.EMBEDDINGS: _embeddings(rows.embeddings, dtype, describe, where)}
    if rows.landmarks is not None:
        columns[schema.LANDMARKS] = _landmarks(rows.landmarks, count, describe, where)
    if rows.paths is not None:
        _check_count(where, "paths", len(rows.paths), count)
        columns[schema.PATHS] = encode_names(rows.paths, where, "path", may_be_empty=True)
    if rows.faces is not None:
        _check_count(where, "counts of faces", len(rows.faces), count)
        columns[schema.FACES] = rows.faces.astype(schema.COUNT_DTYPE)
    return columns


def _check_count(where: str, what: str, got: int, expected: int) -> None:
    if got != expected:
        raise CacheError(f"{where}: expected {expected} {what}, one an embedding, got {got}")


def _code(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    known = tuple(sorted(set(names)))
    codes = {name: code for code, name in enumerate(known)}
    return known, np.array([codes[name] for name in names], dtype=schema.CODE_DTYPES[schema.SUBJECT])


def _embeddings(embeddings: NDArray[Any], dtype: str, describe: Describe, where: str) -> NDArray[Any]:
    if embeddings.ndim != 2 or embeddings.shape[1] == 0 or embeddings.dtype.kind != "f":
        raise CacheError(
            f"{where}: expected embeddings of shape (n, D) and a float dtype, got {embeddings.shape} {embeddings.dtype}"
        )
    why = f"its embedding is not finite, or above {LARGEST:g}; leave the row out"
    _refuse_rows(~usable_rows(embeddings), describe, why)
    with np.errstate(over="ignore"):
        stored = embeddings.astype(schema.EMBEDDING_DTYPES[dtype], copy=False)
    if stored is not embeddings:
        _refuse_rows(
            ~_all_finite(stored), describe, f"its embedding is too large for {dtype}; write the cache as float32"
        )
    return stored


def _label_codes(labels: Sequence[str | None], classes: tuple[str, ...], describe: Describe) -> NDArray[np.int16]:
    codes: dict[str | None, int] = {name: code for code, name in enumerate(classes)}
    codes[None] = schema.UNKNOWN_LABEL
    for row, label in enumerate(labels):
        if label not in codes:
            hint = closest_names(str(label), classes)
            raise CacheError(f"{describe(row)}: its label {label!r} is not a class; {hint}")
    return np.array([codes[label] for label in labels], dtype=schema.CODE_DTYPES[schema.LABEL])


def _frames(frames: Sequence[int] | NDArray[np.integer[Any]], where: str) -> NDArray[np.int32]:
    numbers = np.asarray(frames)
    limits = np.iinfo(np.int32)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or numbers.min() < limits.min or numbers.max() > limits.max:
        raise CacheError(f"{where}: expected frames to be whole numbers that fit 32 bits, got {numbers.dtype} numbers")
    return numbers.astype(schema.CODE_DTYPES[schema.FRAME])


def _landmarks(landmarks: NDArray[Any], count: int, describe: Describe, where: str) -> NDArray[Any]:
    if landmarks.ndim != 3 or landmarks.shape[2] != 2 or landmarks.shape[1] == 0:
        raise CacheError(f"{where}: expected landmarks of shape ({count}, P, 2), got {landmarks.shape}")
    _check_count(where, "rows of landmarks", len(landmarks), count)
    stored = landmarks.astype(schema.FLOAT_DTYPE)
    flat = stored.reshape(len(stored), -1)
    missing = np.isnan(flat).all(axis=1)
    partial = ~missing & ~_all_finite(flat)
    _refuse_rows(partial, describe, "its landmarks are not finite in part; give all of them, or all NaN for no face")
    # One NaN among many: the digest is over bytes.
    stored[missing] = np.nan
    return stored


def _all_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.isfinite(values).all(axis=1)
    return finite


def _refuse_rows(bad: NDArray[np.bool_], describe: Describe, why: str) -> None:
    if bad.any():
        others = int(bad.sum()) - 1
        more = f" ({others} more rows like it)" if others else ""
        raise CacheError(f"{describe(int(bad.argmax()))}: {why}{more}")

"""Rows in memory: what is read from a cache, and what is written into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import CacheError, closest

LARGEST = 1e15
"""Of an embedding's values, in size: lengths of rows and sums of squares fit float32."""
_ARRAYS: Mapping[str, tuple[Any, ...]] = {
    "embeddings": (np.float32, None),
    "label": (np.int16,),
    "subject": (np.int32,),
    "video": (np.int32,),
    "frame": (np.int32,),
    "landmarks": (np.float32, None, 2),
    "faces": (np.uint8,),
}
"""Dtype of each of a table's arrays, and the shape of a row; ``None``: of any length."""
RowIndex = NDArray[np.bool_] | NDArray[np.integer[Any]] | Sequence[int] | slice


def usable(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values an embedding may have: finite ones, of at most `LARGEST` in size."""
    return np.asarray(np.abs(values) <= np.float32(LARGEST))


def usable_rows(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows (n, D) hold nothing else."""
    # Half the time of `usable` value by value; NaN is in neither range.
    most = np.float32(LARGEST)
    return np.asarray((rows.max(axis=1, initial=0) <= most) & (rows.min(axis=1, initial=0) >= -most))


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Rows of features, equal-length arrays, with the names behind their codes.

    What is None is not stored. Arrays of different lengths, of another dtype or shape, or a code without a name are a
    CacheError.
    """

    embeddings: NDArray[np.float32]  # (N, D)
    label: NDArray[np.int16]  # (N,), an index into `classes`; -1 where unknown.
    subject: NDArray[np.int32]  # (N,), an index into `subjects`.
    video: NDArray[np.int32]  # (N,), an index into `videos`. Two subjects may share a video name.
    frame: NDArray[np.int32]  # (N,), the frame's number within its video.
    subjects: tuple[str, ...]  # Names of subjects, also of those without a row here.
    videos: tuple[str, ...]  # Names of videos, also of those without a row here.
    classes: tuple[str, ...]  # Names of the labels.
    neutral: str  # The neutral class, one of `classes`.
    landmarks: NDArray[np.float32] | None = None  # (N, P, 2), x, y in pixels; a row of NaN where no face was found.
    paths: tuple[str, ...] | None = None  # Where each row's image came from.
    faces: NDArray[np.uint8] | None = None  # (N,), how many faces each row's image has.
    # (K, D), texts of the classes to a network of pictures and texts: a row's logits are its inner products with them.
    prompts: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        rows = None
        for name, (dtype, *shape) in _ARRAYS.items():
            if (array := getattr(self, name)) is not None:
                _check_array(name, array, dtype, (rows, *shape))
                rows = len(array)
        if self.prompts is not None:
            _check_array("prompts", self.prompts, np.float32, (len(self.classes), self.dim))
        if self.paths is not None and len(self.paths) != rows:
            raise CacheError(f"feature table: expected {rows} paths, one a row, got {len(self.paths)}")
        check_codes("feature table: label", self.label, len(self.classes), lowest=-1)
        check_codes("feature table: subject", self.subject, len(self.subjects))
        check_codes("feature table: video", self.video, len(self.videos))
        if self.neutral not in self.classes:
            raise CacheError(
                f"feature table: the neutral class {self.neutral!r} is not one of the classes {list(self.classes)}"
            )

    @classmethod
    def named(
        cls,
        embeddings: NDArray[np.float32],
        labels: Sequence[str | None],  # None where unknown.
        subjects: Sequence[str],
        videos: Sequence[str],
        frames: Sequence[int] | NDArray[np.integer[Any]],
        *,
        classes: tuple[str, ...],
        neutral: str,
        **optional: Any,
    ) -> FeatureTable:
        """Return the table of rows whose names are spelled out, one of each a row; ``optional`` are its other fields.

        Raises:
            CacheError: As for any table; also a label that is no class, and a frame that is no number of 32 bits.
        """
        codes: dict[str | None, int] = {name: code for code, name in enumerate(classes)} | {None: -1}
        if odd := next((name for name in labels if name not in codes), None):
            raise CacheError(f"feature table: the label {odd!r} is not a class; {closest_names(odd, classes)}")
        number, limits = np.asarray(frames, dtype=None if len(frames) else np.int32), np.iinfo(np.int32)
        if number.dtype.kind not in "iu" or (number < limits.min).any() or (number > limits.max).any():
            raise CacheError(f"feature table: expected frames that are whole numbers of 32 bits, got {number.dtype}")
        (who, subject), (clips, video) = codes_of(subjects), codes_of(videos)
        label = np.array([codes[name] for name in labels], dtype=np.int16)
        frame = number.astype(np.int32, copy=False)
        return cls(embeddings, label, subject, video, frame, who, clips, classes, neutral, **optional)

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def dim(self) -> int:
        """D, the length of one embedding."""
        return int(self.embeddings.shape[1])

    @property
    def neutral_code(self) -> int:
        """The label code of the neutral class."""
        return self.classes.index(self.neutral)

    def take(self, index: RowIndex) -> FeatureTable:
        """Return the rows that `index` (a bool mask, int indices or a slice) picks, in its order; names unchanged.

        A slice gives views; a mask or indices give copies.
        """
        where: Any = index if isinstance(index, slice) else np.asarray(index)
        if not isinstance(where, slice) and where.size == 0:
            where = where.astype(np.intp)
        paths = self.paths
        if paths is not None and isinstance(where, slice):
            paths = paths[where]
        elif paths is not None:
            paths = tuple(paths[row] for row in np.arange(len(self))[where].tolist())
        arrays = {name: array[where] for name in _ARRAYS if (array := getattr(self, name)) is not None}
        return replace(self, paths=paths, **arrays)

    def rows_of(self, *subjects: str) -> FeatureTable:
        """Return the rows of the named subjects, in the table's order.

        Those of one subject are views where each subject's rows lie together in the order of the codes, as in a cache;
        those of everyone are the table itself.
        """
        codes = self._subject_codes(subjects)
        if len(codes) == 1 and self._in_order:
            first, end = np.searchsorted(self.subject, [codes[0], codes[0] + 1])
            return self if end - first == len(self) else self.take(slice(first, end))
        wanted = np.isin(self.subject, codes)
        return self if wanted.all() else self.take(wanted)

    @cached_property
    def _in_order(self) -> bool:
        return bool((self.subject[1:] >= self.subject[:-1]).all())

    def without(self, *subjects: str) -> FeatureTable:
        """Return the rows of everyone but the named subjects, in the table's order."""
        return self.take(~np.isin(self.subject, self._subject_codes(subjects)))

    def subject_names_present(self) -> tuple[str, ...]:
        """Return the names of the subjects that have at least one row here, in code order."""
        return tuple(self.subjects[code] for code in np.unique(self.subject))

    def video_names_present(self) -> tuple[str, ...]:
        """Return the names of the videos that have at least one row here, in code order."""
        return tuple(self.videos[code] for code in np.unique(self.video))

    def describe_row(self, row: int) -> str:
        """Say which row it is, for a message."""
        return row_text(self.subjects[self.subject[row]], self.videos[self.video[row]], self.frame[row])

    def _subject_codes(self, names: tuple[str, ...]) -> NDArray[np.int32]:
        known = self.subjects
        if len(names) == 1 and names[0] in known:  # Many people are asked for one by one.
            return np.array([known.index(names[0])], dtype=np.int32)
        codes = {name: code for code, name in enumerate(known)}
        for name in names:
            if name not in codes:
                raise CacheError(f"no subject {name!r} in the feature table; {closest_names(name, self.subjects)}")
        return np.array([codes[name] for name in names], dtype=np.int32)


def row_text(subject: str, video: str, frame: object) -> str:
    """Return how messages name a row: "subject 's1', video 'v2', frame 3"."""
    return f"subject {subject!r}, video {video!r}, frame {frame}"


def codes_of(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the sorted names, each once, and each row's place among them."""
    known = tuple(sorted(set(names)))
    place = {name: code for code, name in enumerate(known)}
    return known, np.array([place[name] for name in names], dtype=np.int32)


def closest_names(name: str, known: Sequence[str]) -> str:
    """Return half a sentence for who mistyped a name: the closest known names, or the first few."""
    if hint := closest(name, known):
        return hint.removeprefix("; ")
    if not known:
        return "there are none"
    few = ", ".join(repr(other) for other in known[:5])
    return f"there are {len(known)}: {few}" + (", ..." if len(known) > 5 else "")


def _check_array(name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    if array.dtype != dtype:
        raise CacheError(f"feature table: expected {name} of dtype {np.dtype(dtype)}, got {array.dtype}")
    if not has_shape(array.shape, shape):
        raise CacheError(f"feature table: expected {name} of shape {shape_text(shape)}, got {array.shape}")


def same_prompts(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> bool:
    """Tell whether two tables have the same prompts, but for rounding, or both have none."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-4, atol=1e-4)


def has_shape(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    """Tell whether a shape is the wanted one, where None may be of any length."""
    return len(shape) == len(wanted) and all(want in (None, got) for want, got in zip(wanted, shape, strict=True))


def shape_text(shape: Sequence[int | None]) -> str:
    """Return a wanted shape for a message: "(12, any, 2)"."""
    return "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"


def check_codes(what: str, codes: NDArray[Any], names: int, *, lowest: int = 0) -> None:
    """Raise a CacheError when a code has no name."""
    if len(codes) and (codes.min() < lowest or codes.max() >= names):
        raise CacheError(
            f"{what} codes run from {codes.min()} to {codes.max()}, but only {lowest} to {names - 1} have a name; make "
            "it again"
        )

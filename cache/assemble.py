"""Parts of rows, in order, into one cache file: bounded memory, one pass, whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.atomic import atomic_path
from featlab.cache.encode import CodedRows, Columns, Settings
from featlab.cache.errors import CacheError
from featlab.cache.hdf5 import NewFile, create_dataset, encode_names, one_line, write_text_attr
from featlab.cache.order import first_disorder
from featlab.cache.schema import (
    EMBEDDINGS,
    FORMAT,
    FORMAT_ATTR,
    FORMAT_VERSION,
    FRAME,
    OFFSETS_DTYPE,
    SUBJECT,
    SUBJECT_OFFSETS,
    SUBJECTS,
    VERSION_ATTR,
    VIDEO,
    VIDEOS,
    ContentDigest,
)


@dataclass(frozen=True)
class Plan:
    """What must be known before the first row is written.

    Attributes:
        rows: N, how many rows there will be.
        subjects: the names of all subjects, ascending.
        videos: the names of all videos, ascending.
        kinds: dtype and shape of one row, by dataset.
    """

    rows: int
    subjects: tuple[str, ...]
    videos: tuple[str, ...]
    kinds: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]


def write_cache(
    out: str | os.PathLike[str], settings: Settings, plan: Plan, parts: Iterable[tuple[str, CodedRows]]
) -> Path:
    """Writes a cache from parts whose rows, one part after the other, ascend by (subject, video, frame).

    Args:
        out: the cache file; replaced when it exists.
        settings: what all rows have in common.
        plan: what the parts add up to.
        parts: (name for messages, rows), in row order.

    Returns:
        `out` as a Path.

    Raises:
        CacheError: a row twice or out of order; the disk is full.
        FeatlabError: `out` can't be written.
    """
    digest = ContentDigest(settings.extractor, settings.classes, settings.neutral, plan.subjects, plan.videos)
    offsets = np.zeros(len(plan.subjects) + 1, dtype=OFFSETS_DTYPE)
    order = _Order(out, plan)
    with atomic_path(out) as partial, writing(out), NewFile(partial) as new:
        file = new.file
        datasets = {
            name: create_dataset(file, name, (plan.rows, *row_shape), dtype)
            for name, (dtype, row_shape) in plan.kinds.items()
        }
        start = 0
        for part_name, part in parts:
            columns = order.recode(part_name, part)
            stop = start + len(part)
            for name, block in columns.items():
                datasets[name][start:stop] = block.astype(datasets[name].dtype) if block.dtype.kind == "S" else block
                digest.update(name, block)
            new.check()
            offsets[1:] += np.bincount(columns[SUBJECT], minlength=len(plan.subjects))
            start = stop
        if start != plan.rows:
            raise CacheError(f"{out}: expected {plan.rows} rows, got {start}: a shard changed meanwhile; run again")
        for name, names in ((SUBJECTS, plan.subjects), (VIDEOS, plan.videos)):
            _write_array(file, name, encode_names(names, str(out), "name"))
        _write_array(file, SUBJECT_OFFSETS, np.cumsum(offsets))
        write_text_attr(file, FORMAT_ATTR, FORMAT)
        file.attrs[VERSION_ATTR] = FORMAT_VERSION
        write_text_attr(file, "extractor", json.dumps(settings.extractor.to_dict(), sort_keys=True))
        write_text_attr(file, "classes", json.dumps(list(settings.classes)))
        write_text_attr(file, "neutral", settings.neutral)
        file.attrs["rows"] = plan.rows
        file.attrs["dim"] = plan.kinds[EMBEDDINGS][1][0]
        write_text_attr(file, "digest", digest.hexdigest())
    return Path(out)


@contextmanager
def writing(out: str | os.PathLike[str]) -> Iterator[None]:
    """Turns a failed write of HDF5 into a CacheError that names the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise CacheError(
            f"{out}: can't be written ({one_line(error)}); check the folder, its permissions and the free space"
        ) from error


class _Order:
    """Recodes parts onto the plan's names and checks that each starts after the one before it ended."""

    def __init__(self, out: str | os.PathLike[str], plan: Plan) -> None:
        self._out = out
        self._plan = plan
        self._subject_codes = {name: code for code, name in enumerate(plan.subjects)}
        self._video_codes = {name: code for code, name in enumerate(plan.videos)}
        self._last: list[NDArray[Any]] = [np.empty(0, dtype=np.int32)] * 3

    def recode(self, part_name: str, part: CodedRows) -> Columns:
        """The part's columns with the plan's codes.

        Raises:
            CacheError: a row twice, or before its time.
        """
        columns = dict(part.columns)
        columns[SUBJECT] = _translate(part.subjects, self._subject_codes, columns[SUBJECT])
        columns[VIDEO] = _translate(part.videos, self._video_codes, columns[VIDEO])
        keys = [columns[name] for name in (SUBJECT, VIDEO, FRAME)]
        chained = [np.concatenate(pair) for pair in zip(self._last, keys, strict=True)]
        row = first_disorder(*chained)
        if row is not None:
            before, here = (self._describe([key[i] for key in chained]) for i in (row - 1, row))
            if before == here:
                raise CacheError(f"{self._out}: {part_name} holds {here} a second time; keep each frame once")
            raise CacheError(
                f"{self._out}: {part_name} holds {here} after {before}; rows must ascend by subject, video and frame, "
                "within shards and from shard to shard"
            )
        self._last = [key[-1:] for key in keys]
        return columns

    def _describe(self, key: list[Any]) -> str:
        return f"subject {self._plan.subjects[key[0]]!r}, video {self._plan.videos[key[1]]!r}, frame {key[2]}"


def _translate(names: tuple[str, ...], codes: Mapping[str, int], local: NDArray[Any]) -> NDArray[Any]:
    translated: NDArray[Any] = np.array([codes[name] for name in names], dtype=local.dtype)[local]
    return translated


def _write_array(file: Any, name: str, array: NDArray[Any]) -> None:
    dataset = create_dataset(file, name, array.shape, array.dtype)
    dataset[:] = array.astype(dataset.dtype)

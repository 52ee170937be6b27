"""Parts of rows, in order, into one cache file: bounded memory, one pass, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache import schema
from featlab.cache.encode import CodedRows, Header, encode_rows
from featlab.cache.hdf5 import create_dataset, encode_names, new_file, write_array, write_text_attr
from featlab.cache.schema import ContentDigest, ExtractorInfo, Kinds, first_disorder
from featlab.cache.table import FeatureTable, Rows
from featlab.errors import CacheError

_TABLE_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Plan:
    """What must be known before the first row is written: how many there are, all names, ascending, and the kinds."""

    rows: int
    subjects: tuple[str, ...]
    videos: tuple[str, ...]
    kinds: Kinds


def write_cache(out: Path, header: Header, plan: Plan, parts: Iterable[tuple[str, CodedRows]]) -> Path:
    """Write a cache, whole or not at all, from (name for messages, rows) in ascending order; one part is in memory."""
    digest = ContentDigest(header.extractor, header.classes, header.neutral, plan.subjects, plan.videos)
    subject_codes = {name: code for code, name in enumerate(plan.subjects)}
    video_codes = {name: code for code, name in enumerate(plan.videos)}
    offsets = np.zeros(len(plan.subjects) + 1, dtype=schema.OFFSETS_DTYPE)
    last: list[NDArray[Any]] = [np.empty(0, dtype=np.int32)] * 3
    with new_file(out) as file:
        datasets = {
            name: create_dataset(file, name, (plan.rows, *row_shape), dtype)
            for name, (dtype, row_shape) in plan.kinds.items()
        }
        start = 0
        for part_name, part in parts:
            columns = dict(part.columns)
            columns[schema.SUBJECT] = _recoded(columns[schema.SUBJECT], part.subjects, subject_codes)
            columns[schema.VIDEO] = _recoded(columns[schema.VIDEO], part.videos, video_codes)
            keys = [columns[name] for name in (schema.SUBJECT, schema.VIDEO, schema.FRAME)]
            _check_order(f"{out}: {part_name}", plan, [np.concatenate(pair) for pair in zip(last, keys, strict=True)])
            last = [key[-1:] for key in keys]
            stop = start + len(part)
            for name, block in columns.items():
                datasets[name][start:stop] = block.astype(datasets[name].dtype) if block.dtype.kind == "S" else block
                digest.update(name, block)
            offsets[1:] += np.bincount(columns[schema.SUBJECT], minlength=len(plan.subjects))
            start = stop
        if start != plan.rows:
            raise CacheError(f"{out}: expected {plan.rows} rows, got {start}: a shard changed meanwhile; run again")
        for name, names in ((schema.SUBJECTS, plan.subjects), (schema.VIDEOS, plan.videos)):
            write_array(file, name, encode_names(names, str(out), "name"))
        write_array(file, schema.SUBJECT_OFFSETS, np.cumsum(offsets))
        write_text_attr(file, schema.FORMAT_ATTR, schema.FORMAT)
        file.attrs[schema.VERSION_ATTR] = schema.FORMAT_VERSION
        write_text_attr(file, "extractor", json.dumps(header.extractor.to_dict(), sort_keys=True))
        write_text_attr(file, "classes", json.dumps(list(header.classes)))
        write_text_attr(file, "neutral", header.neutral)
        file.attrs["rows"] = plan.rows
        file.attrs["dim"] = plan.kinds[schema.EMBEDDINGS][1][0]
        write_text_attr(file, "digest", digest.hexdigest())
    return out


def _recoded(local: NDArray[Any], names: tuple[str, ...], codes: Mapping[str, int]) -> NDArray[Any]:
    """Return a part's own codes as the plan's."""
    recoded: NDArray[Any] = np.array([codes[name] for name in names], dtype=local.dtype)[local]
    return recoded


def _check_order(part: str, plan: Plan, keys: Sequence[NDArray[Any]]) -> None:
    """Raise a CacheError for a row twice, or before its time; keys are subject, video and frame."""
    row = first_disorder(*keys)
    if row is None:
        return
    before, here = (
        f"subject {plan.subjects[keys[0][at]]!r}, video {plan.videos[keys[1][at]]!r}, frame {keys[2][at]}"
        for at in (row - 1, row)
    )
    if before == here:
        raise CacheError(f"{part} holds {here} a second time; keep each frame once")
    raise CacheError(
        f"{part} holds {here} after {before}; rows must ascend by subject, video and frame, within shards and from "
        "shard to shard"
    )


def write_table(
    path: str | os.PathLike[str], table: FeatureTable, extractor: ExtractorInfo, *, dtype: str = "float32"
) -> Path:
    """Write a table in memory as a cache; its rows may be in any order.

    Args:
        path: The cache file; replaced when it exists.
        table: At least one row. Names of subjects and videos without a row are left out.
        extractor: Who made the embeddings.
        dtype: "float32" or "float16", how embeddings are stored.

    Returns:
        `path` as a Path.

    Raises:
        CacheError: No rows, a row twice, a value that is not finite or that float16 can't hold.
        FeatlabError: The file can't be written.
    """
    header = Header(extractor, table.classes, table.neutral, dtype, table.landmarks is not None)
    if not len(table):
        raise CacheError(f"{path}: the table has no row, and a cache needs one")
    subjects, videos = sorted(table.subject_names_present()), sorted(table.video_names_present())
    video, subject = _ranks(table.videos, videos)[table.video], _ranks(table.subjects, subjects)[table.subject]
    order = np.lexsort((table.frame, video, subject))
    block = max(1, _TABLE_BLOCK_BYTES * len(table) // table.nbytes)

    def coded(index: NDArray[np.intp]) -> CodedRows:
        return encode_rows(_spelled(table.take(index)), header, str(path))

    kinds = {name: (column.dtype, column.shape[1:]) for name, column in coded(order[:1]).columns.items()}
    if table.paths is not None:
        kinds[schema.PATHS] = (encode_names(table.paths, str(path), "path", may_be_empty=True).dtype, ())
    parts = (("the table", coded(order[start : start + block])) for start in range(0, len(order), block))
    return write_cache(Path(path), header, Plan(len(table), tuple(subjects), tuple(videos), kinds), parts)


def _ranks(names: Sequence[str], ascending: Sequence[str]) -> NDArray[np.intp]:
    """Return each name's place among the ascending ones; -1 for a name without a row."""
    places = {name: place for place, name in enumerate(ascending)}
    return np.array([places.get(name, -1) for name in names], dtype=np.intp)


def _spelled(table: FeatureTable) -> Rows:
    names: list[str | None] = [*table.classes, None]
    return Rows(
        embeddings=table.embeddings,
        labels=[names[code] for code in table.label],
        subjects=[table.subjects[code] for code in table.subject],
        videos=[table.videos[code] for code in table.video],
        frames=table.frame,
        landmarks=table.landmarks,
        paths=table.paths,
        faces=table.faces,
    )

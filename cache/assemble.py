"""Parts of rows, in order, into one cache file: bounded memory, one pass, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import featlab.cache.schema as schema
from featlab.cache.encode import (
    CodedRows,
    Header,
    create_dataset,
    encode_names,
    encode_table,
    new_file,
    write_array,
    write_text_attr,
)
from featlab.cache.hdf5 import Structure
from featlab.cache.schema import ContentDigest, ExtractorInfo, Kinds, first_disorder
from featlab.cache.table import FeatureTable, row_text
from featlab.errors import CacheError

# Little enough that memory which one block leaves serves the next.
_TABLE_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class Plan:
    """What must be known before the first row is written: how many there are, all names, ascending, and the kinds."""

    rows: int
    subjects: tuple[str, ...]
    videos: tuple[str, ...]
    kinds: Kinds

    @classmethod
    def joined(cls, where: str, parts: Mapping[str, Plan]) -> Plan:
        """Return the plan of all parts together, each under its name; `where` begins the messages.

        Raises:
            CacheError: Two parts with different datasets, or with rows of different lengths.
        """
        first_name, first = next(iter(parts.items()))
        kinds = dict(first.kinds)
        for name, part in parts.items():
            if odd := set(part.kinds) ^ set(kinds):
                raise CacheError(f"{where}: only one of {first_name} and {name} has {min(odd)}; write both alike")
            for column, (dtype, shape) in part.kinds.items():
                if column == schema.PATHS:
                    kinds[column] = max(kinds[column], (dtype, shape), key=lambda kind: kind[0].itemsize)
                elif shape != kinds[column][1]:
                    was, now = ("x".join(map(str, each)) for each in (kinds[column][1], shape))
                    raise CacheError(
                        f"{where}: {name} holds {column} of dim {now}, {first_name} of dim {was}; all need the same "
                        "extractor and options"
                    )
        return cls(
            rows=sum(part.rows for part in parts.values()),
            subjects=tuple(sorted({name for part in parts.values() for name in part.subjects})),
            videos=tuple(sorted({name for part in parts.values() for name in part.videos})),
            kinds=kinds,
        )

    @classmethod
    def of(cls, cache: Structure, without: Collection[str] = ()) -> Plan:
        """Return what is known of an open cache, ``without`` some of its datasets."""
        large = {name: dataset for name, dataset in cache.large.items() if name not in without}
        kinds = {name: (dataset.dtype, dataset.shape[1:]) for name, dataset in large.items()}
        return cls(cache.rows, cache.subjects, cache.videos, kinds)


def write_cache(out: Path, header: Header, plan: Plan, parts: Iterable[tuple[str, CodedRows]]) -> Path:
    """Write a cache, whole or not at all, from (name for messages, rows) in ascending order.

    One part is in memory, and the codes of all rows.
    """
    digest = ContentDigest(header.extractor, header.classes, header.neutral, plan.subjects, plan.videos)
    places = _places(plan.subjects), _places(plan.videos)
    codes = {name: np.empty(plan.rows, dtype=dtype) for name, dtype in schema.CODE_DTYPES.items()}
    keys = [codes[name] for name in (schema.SUBJECT, schema.VIDEO, schema.FRAME)]
    # What is written is hashed beside it.
    with new_file(out) as file, ThreadPoolExecutor(1) as pool:
        large = {
            name: create_dataset(file, name, (plan.rows, *row_shape), dtype)
            for name, (dtype, row_shape) in plan.kinds.items()
            if name not in codes
        }
        start = 0
        for part_name, part in parts:
            stop = start + len(part)
            columns = dict(part.columns)
            if part.subjects != plan.subjects or part.videos != plan.videos:
                columns[schema.SUBJECT] = _codes(part.subjects, places[0])[columns[schema.SUBJECT]]
                columns[schema.VIDEO] = _codes(part.videos, places[1])[columns[schema.VIDEO]]
            for name, column in codes.items():
                column[start:stop] = columns[name]
            _check_order(f"{out}: {part_name}", plan, [key[max(start - 1, 0) : stop] for key in keys])
            hashed = pool.submit(_learn, digest, {name: columns[name] for name in large})
            for name, data in large.items():
                # A copy of text takes on the type's note that it is UTF-8.
                data[start:stop] = columns[name].astype(data.dtype, copy=data.dtype.kind == "S")
            hashed.result()
            start = stop
        if start != plan.rows:
            raise CacheError(f"{out}: expected {plan.rows} rows, got {start}: a shard changed meanwhile; run again")
        if header.prompts is not None:
            codes[schema.PROMPTS] = header.prompts
        _learn(digest, codes)
        for name, names in ((schema.SUBJECTS, plan.subjects), (schema.VIDEOS, plan.videos)):
            codes[name] = encode_names(names, str(out), "name")
        codes[schema.SUBJECT_OFFSETS] = np.searchsorted(keys[0], np.arange(len(plan.subjects) + 1)).astype(
            schema.OFFSETS_DTYPE
        )
        for name, column in codes.items():
            write_array(file, name, column)
        write_text_attr(file, schema.FORMAT_ATTR, schema.FORMAT)
        file.attrs[schema.VERSION_ATTR] = schema.FORMAT_VERSION
        write_text_attr(file, "extractor", json.dumps(header.extractor.to_dict(), sort_keys=True))
        write_text_attr(file, "classes", json.dumps(list(header.classes)))
        write_text_attr(file, "neutral", header.neutral)
        file.attrs["rows"] = plan.rows
        file.attrs["dim"] = plan.kinds[schema.EMBEDDINGS][1][0]
        write_text_attr(file, "digest", digest.hexdigest())
    return out


def _learn(digest: ContentDigest, columns: Mapping[str, NDArray[Any]]) -> None:
    for name, block in columns.items():
        digest.update(name, block)


def _check_order(part: str, plan: Plan, keys: Sequence[NDArray[Any]]) -> None:
    """Raise a CacheError for a row twice, or before its time; keys are subject, video and frame."""
    row = first_disorder(*keys)
    if row is None:
        return
    before, here = (
        row_text(plan.subjects[keys[0][at]], plan.videos[keys[1][at]], keys[2][at]) for at in (row - 1, row)
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
    """Write a table in memory as a cache, which replaces one that is there; return its path.

    Rows may be in any order. Names of subjects and videos without a row are left out. Embeddings are stored as
    "float32" or "float16".

    Raises:
        CacheError: No rows, a row twice, a value that is not finite or that float16 can't hold.
        FeatlabError: The file can't be written.
    """
    header = Header(extractor, table.classes, table.neutral, dtype, table.prompts)
    if not len(table):
        raise CacheError(f"{path}: the table has no row, and a cache needs one")
    subjects, videos = tuple(sorted(table.subject_names_present())), tuple(sorted(table.video_names_present()))
    for names, what in ((subjects, "subject name"), (videos, "video name")):
        encode_names(names, str(path), what)
    subject = _codes(table.subjects, _places(subjects))[table.subject]
    video = _codes(table.videos, _places(videos))[table.video]
    table = replace(table, subject=subject, video=video, subjects=subjects, videos=videos)
    keys = (table.subject, table.video, table.frame)
    # Rows that are in order are taken as views, others a block at a time.
    order = None if first_disorder(*keys) is None else np.lexsort(keys[::-1])
    block = max(1, _TABLE_BLOCK_BYTES // (4 * table.dim))

    def coded(start: int, stop: int) -> CodedRows:
        rows = table.take(slice(start, stop) if order is None else order[start:stop])
        return encode_table(rows, header, str(path))

    kinds = {name: (column.dtype, column.shape[1:]) for name, column in coded(0, 1).columns.items()}
    if table.paths is not None:
        kinds[schema.PATHS] = (encode_names(table.paths, str(path), "path", may_be_empty=True).dtype, ())
    parts = (("the table", coded(start, start + block)) for start in range(0, len(table), block))
    return write_cache(Path(path), header, Plan(len(table), table.subjects, table.videos, kinds), parts)


def _places(names: Sequence[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _codes(names: Sequence[str], places: Mapping[str, int]) -> NDArray[np.int32]:
    """Return the place of each name; -1 for a name without one, which no row has."""
    return np.array([places.get(name, -1) for name in names], dtype=schema.CODE_DTYPES[schema.SUBJECT])

"""One shard: the rows of a part of the extraction, in a file of its own, so that a killed run loses only the last part.

A shard carries its key and the fingerprint of the run's settings. One that is damaged, of another key or of other
settings counts as absent: it is made again, never mixed in.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featlab.cache.assemble import writing
from featlab.cache.atomic import atomic_path
from featlab.cache.encode import CodedRows, Columns, Settings
from featlab.cache.errors import CacheError
from featlab.cache.hdf5 import (
    NewFile,
    create_dataset,
    decode_names,
    encode_names,
    get_dataset,
    guarded,
    open_file,
    read_attr,
    write_text_attr,
)
from featlab.cache.schema import (
    CODE_DTYPES,
    EMBEDDINGS,
    FORMAT_ATTR,
    FORMAT_VERSION,
    LANDMARKS,
    PATHS,
    SHARD_FORMAT,
    SUBJECTS,
    VERSION_ATTR,
    VIDEOS,
)

Failure = Mapping[str, str]

SUFFIX = ".h5"
_FAILURES = "failures"


@dataclass(frozen=True)
class ShardHead:
    """What is known of a shard without reading its rows.

    Attributes:
        rows: n; with 0 there are no names and no kinds.
        subjects: its subject names, ascending.
        videos: its video names, ascending.
        kinds: dtype and shape of one row, by dataset.
        failures: the items that gave no row, as the extraction described them.
    """

    rows: int
    subjects: tuple[str, ...]
    videos: tuple[str, ...]
    kinds: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    failures: tuple[dict[str, str], ...]


def shard_path(folder: Path, key: str) -> Path:
    """Where the shard of `key` lies: a readable start and a hash, safe on every file system."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", key)[:40]
    return folder / f"{readable}-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}{SUFFIX}"


def write_shard_file(
    path: Path, key: str, settings: Settings, rows: CodedRows | None, failures: Sequence[Failure]
) -> None:
    """Writes one shard, whole or not at all. `rows` is None when every item failed.

    Raises:
        CacheError, FeatlabError: it can't be written.
    """
    blob = np.frombuffer(json.dumps([dict(failure) for failure in failures]).encode(), dtype=np.uint8)
    with atomic_path(path) as partial, writing(path), NewFile(partial) as new:
        file = new.file
        arrays: Columns = {_FAILURES: blob}
        if rows is not None:
            arrays |= rows.columns
            arrays[SUBJECTS] = encode_names(rows.subjects, key, "subject name")
            arrays[VIDEOS] = encode_names(rows.videos, key, "video name")
        for name, array in arrays.items():
            dataset = create_dataset(file, name, array.shape, array.dtype)
            dataset[:] = array.astype(dataset.dtype)
        file.attrs["rows"] = 0 if rows is None else len(rows)
        write_text_attr(file, "key", json.dumps(key))
        write_text_attr(file, "run", settings.run)
        file.attrs[VERSION_ATTR] = FORMAT_VERSION
        write_text_attr(file, FORMAT_ATTR, SHARD_FORMAT)


def read_head(path: Path, key: str, settings: Settings) -> ShardHead | None:
    """The head of the shard of `key`, or None when there is none that this run can use."""
    if not path.is_file():
        return None
    try:
        with open_file(path) as file, guarded(path):
            return _read_head(file, path, key, settings)
    except CacheError:
        return None


def read_shard(path: Path, head: ShardHead) -> CodedRows:
    """All rows of a shard; checksums are checked by reading.

    Raises:
        CacheError: it is damaged.
    """
    with open_file(path) as file, guarded(path):
        columns = {name: get_dataset(file, path, name)[:] for name in head.kinds}
        return CodedRows(columns, head.subjects, head.videos)


def _read_head(file: h5py.File, path: Path, key: str, settings: Settings) -> ShardHead | None:
    expected = {FORMAT_ATTR: SHARD_FORMAT, VERSION_ATTR: FORMAT_VERSION, "run": settings.run, "key": json.dumps(key)}
    if any(read_attr(file, name) != value for name, value in expected.items()):
        return None
    failures = tuple(json.loads(get_dataset(file, path, _FAILURES)[:].tobytes()))
    rows = read_attr(file, "rows")
    if rows == 0:
        return ShardHead(0, (), (), {}, failures)
    names = [EMBEDDINGS, *CODE_DTYPES]
    if settings.has_landmarks:
        names.append(LANDMARKS)
    if PATHS in file:
        names.append(PATHS)
    kinds = {}
    for name in names:
        dataset = get_dataset(file, path, name)
        if dataset.shape[0] != rows:
            return None
        kinds[name] = (np.dtype(dataset.dtype), dataset.shape[1:])
    subjects, videos = (decode_names(get_dataset(file, path, name)[:]) for name in (SUBJECTS, VIDEOS))
    return ShardHead(int(rows), subjects, videos, kinds, failures)

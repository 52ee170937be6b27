"""Writing a cache: shards that survive a kill, then one assembled file.

A shard holds the rows of a part of the extraction in a file of its own, with its key and the fingerprint of the run's
header. One that is damaged, of another key or of another header counts as absent: it is made again, never mixed in.
One that the system can't read stops the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from numpy.typing import NDArray

import featlab.cache.schema as schema
from featlab.cache.assemble import Plan, write_cache
from featlab.cache.atomic import make_folder
from featlab.cache.encode import (
    CodedRows,
    Columns,
    Header,
    encode_names,
    encode_table,
    new_file,
    write_array,
    write_text_attr,
)
from featlab.cache.hdf5 import decode_names, get_dataset, guarded, open_file, read_attr
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.errors import CacheError, one_line

Failure = Mapping[str, str]

_SUFFIX = ".h5"
_FAILURES = "failures"
_LOCK = "lock"


@dataclass(frozen=True)
class _Shard:
    """What is known of a shard without reading its rows; without rows it has no names and no kinds."""

    plan: Plan
    failures: tuple[dict[str, str], ...]


class CacheBuilder:
    """Writes a cache shard by shard; a run that is killed goes on where it stopped.

    Shards lie in `<out>.shards/` until `assemble` has renamed the finished cache onto `out`. The folder is locked for
    as long as the builder is open, so a second run on the same `out` is refused. Use it in a `with` block, or close it.

    Raises:
        CacheError: Arguments that make no sense, another run on the same `out`, a folder that can't be made.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],  # The cache to make; an existing one is replaced at the very end.
        *,
        extractor: ExtractorInfo,  # Who makes the embeddings.
        classes: Sequence[str],  # Names of the labels, in code order.
        neutral: str = "neutral",  # One of them.
        dtype: str = "float32",  # Or "float16": how embeddings are stored.
        prompts: NDArray[np.float32] | None = None,  # As in `FeatureTable`.
    ) -> None:
        self._out = Path(out)
        self.header = Header(extractor, tuple(classes), neutral, dtype, prompts)
        self._folder = self._out.with_name(self._out.name + ".shards")
        try:
            if self._out.is_dir():
                raise CacheError(f"{out}: can't be written, a folder of that name is in the way; choose another name")
            self._lock = _lock(self._folder)
        except OSError as error:
            raise CacheError(f"{self._folder}: can't be made ({one_line(error)}); choose another folder") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; finished shards stay for the next run. A second call does nothing."""
        self._lock.release()

    def has_shard(self, key: str) -> bool:
        """Tell whether the shard of `key` is there, whole and of the same header (every checksum is read)."""
        head = self._read_head(key)
        if head is None:
            return False
        try:
            self._read_rows(key, head.plan)
        except CacheError:
            return False
        return True

    def write_shard(self, key: str, rows: FeatureTable, failures: Sequence[Failure] = ()) -> None:
        """Write the shard of `key`, rows in order, whole or not at all; an earlier one is replaced."""
        where = f"{self._out}, shard {key!r}"
        arrays: Columns = {
            _FAILURES: np.frombuffer(json.dumps([dict(failure) for failure in failures]).encode(), np.uint8)
        }
        if len(rows):
            arrays |= encode_table(rows, self.header, where).columns
            arrays[schema.SUBJECTS] = encode_names(rows.subjects, where, "subject name")
            arrays[schema.VIDEOS] = encode_names(rows.videos, where, "video name")
        with new_file(self._path(key)) as file:
            for name, array in arrays.items():
                write_array(file, name, array)
            file.attrs["rows"] = len(rows)
            write_text_attr(file, "key", json.dumps(key))
            write_text_attr(file, "run", self.header.run)
            file.attrs[schema.VERSION_ATTR] = schema.FORMAT_VERSION
            write_text_attr(file, schema.FORMAT_ATTR, schema.SHARD_FORMAT)

    def failures(self, keys: Sequence[str]) -> list[dict[str, str]]:
        """Return the failures that came with the shards of `keys`, in key order."""
        return [failure for key in keys for failure in self._head(key).failures]

    def assemble(self, keys: Sequence[str]) -> Path:
        """Join the shards into the cache, rename it onto `out`, remove the shards and close the builder."""
        filled = {key: plan for key in keys if (plan := self._head(key).plan).rows}
        if not filled:
            raise CacheError(f"{self._out}: no shard holds a row, every item failed; see the failures for the reasons")
        plan = Plan.joined(str(self._out), {f"shard {key!r}": part for key, part in filled.items()})
        parts = ((f"shard {key!r}", self._read_rows(key, part)) for key, part in filled.items())
        write_cache(self._out, self.header, plan, parts)
        for pattern in (f"*{_SUFFIX}", f"*{_SUFFIX}.*.partial"):
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)
        # While it is still held: nobody else can have taken it.
        with suppress(OSError):
            (self._folder / _LOCK).unlink(missing_ok=True)
        self.close()
        # What is left in the folder is not ours to remove.
        with suppress(OSError):
            self._folder.rmdir()
        return self._out

    def _path(self, key: str) -> Path:
        """Return where the shard of `key` lies: a readable start and a hash, safe on every file system."""
        readable = re.sub(r"[^A-Za-z0-9_-]+", "_", key)[:40]
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / f"{readable}-{digest[:16]}{_SUFFIX}"

    def _head(self, key: str) -> _Shard:
        head = self._read_head(key)
        if head is None:
            raise CacheError(
                f"{self._out}: shard {key!r} is missing, damaged or of other settings; write it before assembling"
            )
        return head

    def _read_head(self, key: str) -> _Shard | None:
        """Return the head of the shard of `key`, or None when there is none that this run can use."""
        path = self._path(key)
        if not path.is_file():
            return None
        wanted = {
            schema.FORMAT_ATTR: schema.SHARD_FORMAT,
            schema.VERSION_ATTR: schema.FORMAT_VERSION,
            "run": self.header.run,
            "key": json.dumps(key),
        }
        optional = (schema.LANDMARKS, schema.PATHS, schema.FACES)
        try:
            with open_file(path) as file, guarded(path):
                if any(read_attr(file, name) != value for name, value in wanted.items()):
                    return None
                failures = tuple(json.loads(get_dataset(file, path, _FAILURES)[:].tobytes()))
                rows = int(read_attr(file, "rows"))
                if rows == 0:
                    return _Shard(Plan(0, (), (), {}), failures)
                names = (schema.EMBEDDINGS, *schema.CODE_DTYPES, *(name for name in optional if name in file))
                stored = {name: get_dataset(file, path, name) for name in names}
                if any(len(dataset) != rows for dataset in stored.values()):
                    return None
                kinds = {name: (np.dtype(dataset.dtype), dataset.shape[1:]) for name, dataset in stored.items()}
                subjects, videos = (
                    decode_names(get_dataset(file, path, name)[:]) for name in (schema.SUBJECTS, schema.VIDEOS)
                )
                return _Shard(Plan(rows, subjects, videos, kinds), failures)
        except CacheError:
            return None

    def _read_rows(self, key: str, plan: Plan) -> CodedRows:
        """Return all rows of a shard; checksums are checked by reading."""
        path = self._path(key)
        with open_file(path) as file, guarded(path):
            columns = {name: get_dataset(file, path, name)[:] for name in plan.kinds}
            return CodedRows(columns, plan.subjects, plan.videos)


def _lock(folder: Path) -> BaseFileLock:
    """Make the folder and take the lock in it, which the system gives back when its holder dies."""
    make_folder(folder)
    try:
        with warnings.catch_warnings():
            # Of filelock's, that it takes a file by itself where the system has no locks at all.
            warnings.simplefilter("ignore")
            return _taken(FileLock(folder / _LOCK, thread_local=False))
    except (OSError, NotImplementedError):
        # A drive without such locks: a file stands for it, which a killed run may leave behind.
        return _taken(SoftFileLock(folder / "lock.held", thread_local=False))


def _taken(lock: BaseFileLock) -> BaseFileLock:
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        path = Path(lock.lock_file)
        soft = isinstance(lock, SoftFileLock)
        remedy = f"if none is (it was killed), delete {path}" if soft else "wait for it, or choose another name"
        raise CacheError(f"{path.parent}: another run is writing this cache; {remedy}") from error
    return lock

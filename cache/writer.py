"""Writing a cache: shards that survive a kill, then one assembled file."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from featlab.cache.assemble import Plan, write_cache
from featlab.cache.encode import CodedRows, Settings, encode_rows
from featlab.cache.errors import CacheError
from featlab.cache.hdf5 import encode_names, one_line
from featlab.cache.lock import FolderLock
from featlab.cache.schema import PATHS, ExtractorInfo
from featlab.cache.shards import SUFFIX, Failure, ShardHead, read_head, read_shard, shard_path, write_shard_file
from featlab.cache.table import FeatureTable, Rows

_TABLE_BLOCK_BYTES = 64 << 20


class CacheBuilder:
    """Writes a cache shard by shard; a run that is killed goes on where it stopped.

    Shards lie in `<out>.shards/` until `assemble` has renamed the finished cache onto `out`. The folder is locked for
    as long as the builder is open, so a second run on the same `out` is refused. Use it in a `with` block, or close it.

    Args:
        out: the cache file to make; an existing one is replaced at the very end.
        extractor: who makes the embeddings.
        classes: names of the labels, in code order.
        neutral: the neutral class, one of `classes`.
        dtype: "float32" or "float16", how embeddings are stored.
        has_landmarks: whether rows come with landmarks.

    Raises:
        CacheError: settings that make no sense, another run on the same `out`, a folder that can't be made.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        extractor: ExtractorInfo,
        classes: Sequence[str],
        neutral: str = "neutral",
        dtype: str = "float32",
        has_landmarks: bool = True,
    ) -> None:
        self._out = Path(out)
        self._settings = Settings(extractor, tuple(classes), neutral, dtype, has_landmarks)
        self._folder = self._out.with_name(self._out.name + ".shards")
        self._heads: dict[str, ShardHead] = {}
        try:
            in_the_way = self._out.is_dir()
            self._lock = FolderLock(self._folder)
        except OSError as error:
            raise CacheError(f"{self._folder}: can't be made ({one_line(error)}); choose another folder") from error
        if in_the_way:
            self._lock.release()
            raise CacheError(f"{out}: can't be written, a folder of that name is in the way; choose another name")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the lock; finished shards stay for the next run. A second call does nothing."""
        self._lock.release()

    def has_shard(self, key: str) -> bool:
        """True when the shard of `key` is there, whole and of the same settings (every checksum is read)."""
        path = shard_path(self._folder, key)
        head = read_head(path, key, self._settings)
        if head is None:
            return False
        try:
            read_shard(path, head)
        except CacheError:
            return False
        return True

    def write_shard(self, key: str, rows: Rows, failures: Sequence[Failure] = ()) -> None:
        """Writes the shard of `key`, whole or not at all; an earlier one is replaced.

        Args:
            key: any text, one a shard; what the shard was made from should be part of it.
            rows: its rows, ascending by (subject, video, frame). None at all when every item failed.
            failures: the items that gave no row, one dict of text each; they travel with the shard.

        Raises:
            CacheError: rows that don't fit the settings or each other (names the row), or the disk is full.
            FeatlabError: the file can't be written.
        """
        self._heads.pop(key, None)
        coded = encode_rows(rows, self._settings, f"{self._out}, shard {key!r}") if len(rows) else None
        write_shard_file(shard_path(self._folder, key), key, self._settings, coded, failures)

    def failures(self, keys: Sequence[str]) -> list[dict[str, str]]:
        """The failures that came with the shards of `keys`, in key order; also after `assemble`.

        Raises:
            CacheError: a shard is missing.
        """
        return [failure for key in keys for failure in self._head(key).failures]

    def assemble(self, keys: Sequence[str]) -> Path:
        """Joins the shards into the cache, renames it onto `out`, removes the shards and closes the builder.

        Memory holds one shard at a time.

        Args:
            keys: the shards in row order: rows ascend by subject, video and frame from each shard to the next.

        Returns:
            The path of the cache.

        Raises:
            CacheError: a shard is missing, no shard has a row, shards of different shapes, a row twice or out of order.
            FeatlabError: `out` can't be written.
        """
        heads = {key: self._head(key) for key in keys}
        plan = self._plan({key: head for key, head in heads.items() if head.rows})
        write_cache(self._out, self._settings, plan, self._parts(keys, heads))
        self._heads = heads
        for pattern in (f"*{SUFFIX}", f"*{SUFFIX}.*.partial"):
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)
        for path in self._out.parent.glob(f"{_escaped(self._out.name)}.*.partial"):
            path.unlink(missing_ok=True)
        self._lock.remove()
        self.close()
        # What is left in the folder is not ours to remove.
        with suppress(OSError):
            self._folder.rmdir()
        return self._out

    def _head(self, key: str) -> ShardHead:
        head = self._heads.get(key) or read_head(shard_path(self._folder, key), key, self._settings)
        if head is None:
            raise CacheError(f"{self._out}: shard {key!r} is missing or of other settings; write it before assembling")
        return head

    def _plan(self, heads: dict[str, ShardHead]) -> Plan:
        if not heads:
            raise CacheError(f"{self._out}: no shard holds a row, every item failed; see the failures for the reasons")
        first_key, first = next(iter(heads.items()))
        kinds = dict(first.kinds)
        for key, head in heads.items():
            if set(head.kinds) != set(kinds):
                odd = min(set(head.kinds) ^ set(kinds))
                raise CacheError(
                    f"{self._out}: only one of the shards {first_key!r} and {key!r} has {odd}; write both alike"
                )
            for name, (dtype, shape) in head.kinds.items():
                if name == PATHS:
                    kinds[name] = max(kinds[name], (dtype, shape), key=lambda kind: kind[0].itemsize)
                elif shape != kinds[name][1]:
                    was, now = ("x".join(map(str, each)) for each in (kinds[name][1], shape))
                    raise CacheError(
                        f"{self._out}: shard {key!r} holds {name} of dim {now}, shard {first_key!r} of dim {was}; "
                        "all shards need the same extractor"
                    )
        return Plan(
            rows=sum(head.rows for head in heads.values()),
            subjects=tuple(sorted({name for head in heads.values() for name in head.subjects})),
            videos=tuple(sorted({name for head in heads.values() for name in head.videos})),
            kinds=kinds,
        )

    def _parts(self, keys: Sequence[str], heads: dict[str, ShardHead]) -> Iterator[tuple[str, CodedRows]]:
        for key in keys:
            if heads[key].rows:
                yield f"shard {key!r}", read_shard(shard_path(self._folder, key), heads[key])


def write_table(
    path: str | os.PathLike[str], table: FeatureTable, extractor: ExtractorInfo, *, dtype: str = "float32"
) -> Path:
    """Writes a table in RAM as a cache; its rows may be in any order.

    Args:
        path: the cache file; replaced when it exists.
        table: at least one row. Names of subjects and videos without a row are left out.
        extractor: who made the embeddings.
        dtype: "float32" or "float16", how embeddings are stored.

    Returns:
        `path` as a Path.

    Raises:
        CacheError: no rows, a row twice, a value that is not finite or that float16 can't hold.
        FeatlabError: the file can't be written.
    """
    settings = Settings(extractor, table.classes, table.neutral, dtype, table.landmarks is not None)
    if not len(table):
        raise CacheError(f"{path}: the table has no row, and a cache needs one")
    subjects = tuple(sorted(table.subject_names_present()))
    videos = tuple(sorted(table.video_names_present()))
    rank = {name: code for code, name in enumerate(subjects)}
    video_rank = {name: code for code, name in enumerate(videos)}
    order = np.lexsort(
        (
            table.frame,
            np.array([video_rank.get(name, -1) for name in table.videos])[table.video],
            np.array([rank.get(name, -1) for name in table.subjects])[table.subject],
        )
    )
    block = max(1, _TABLE_BLOCK_BYTES * len(table) // table.nbytes)

    def coded(index: Any) -> CodedRows:
        return encode_rows(_spelled(table.take(index)), settings, str(path))

    kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        name: (column.dtype, column.shape[1:]) for name, column in coded(order[:1]).columns.items()
    }
    if table.paths is not None:
        kinds[PATHS] = (encode_names(table.paths, str(path), "path", may_be_empty=True).dtype, ())
    parts = (("the table", coded(order[start : start + block])) for start in range(0, len(order), block))
    return write_cache(path, settings, Plan(len(table), subjects, videos, kinds), parts)


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
    )


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)

"""How the work is cut into shards, and the key that says what went into one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.cache import ExtractorInfo
from featlab.extraction.items import Item


@dataclass(frozen=True)
class Shard:
    """A run of items that is embedded and written as one; ``key`` changes with anything that could change its rows."""

    key: str
    items: tuple[Item, ...]


def plan_shards(
    items: Sequence[Item],
    landmarks: NDArray[np.float32] | None,
    extractor: ExtractorInfo,
    *,
    dtype: str,
    shard_rows: int,
    with_files: bool,
) -> list[Shard]:
    """Cut the items into shards of ``shard_rows``.

    Args:
        items: In the cache's order.
        landmarks: float32 (rows of the source, P, 2), or None.
        extractor: Who embeds. Its library versions count too: rows of two versions don't mix in a resumed run.
        dtype: Of the stored embeddings.
        shard_rows: Items in a shard; the last may have fewer.
        with_files: Whether the image files count (size and time of the last change), as they don't for landmarks alone.
    """
    shards = []
    for start in range(0, len(items), shard_rows):
        part = tuple(items[start : start + shard_rows])
        rows = landmarks_of(part, landmarks)
        shards.append(Shard(_key(part, rows, extractor, dtype, with_files), part))
    return shards


def landmarks_of(items: Sequence[Item], landmarks: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Landmarks of the items, in their order."""
    return None if landmarks is None else landmarks[[item.row for item in items]]


def _key(
    items: Sequence[Item], landmarks: NDArray[np.float32] | None, extractor: ExtractorInfo, dtype: str, with_files: bool
) -> str:
    content = {
        "extractor": extractor.fingerprint,
        "versions": dict(extractor.versions),
        "dtype": dtype,
        "landmarks": None if landmarks is None else list(landmarks.shape),
        "items": [
            [
                item.name,
                item.subject,
                item.label,
                item.video,
                item.frame,
                item.at,
                item.box,
                *(_stamp(item) if with_files else ()),
            ]
            for item in items
        ],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    if landmarks is not None:
        digest.update(np.ascontiguousarray(landmarks, dtype="<f4").tobytes())
    return digest.hexdigest()


def _stamp(item: Item) -> tuple[int, int]:
    try:
        stat = item.path.stat()
    except (OSError, ValueError):
        return -1, -1
    return stat.st_size, stat.st_mtime_ns

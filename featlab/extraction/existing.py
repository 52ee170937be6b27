"""Whether a cache that is already there is what this extraction would make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.cache import CacheError, ExtractorInfo, FeatureTable, inspect_cache, open_cache
from featlab.extraction.failures import Failure
from featlab.extraction.items import Item
from featlab.extraction.pose import has_pose
from featlab.extraction.shards import landmarks_of


def difference(
    out: Path,
    items: Sequence[Item],
    landmarks: NDArray[np.float32] | None,
    failures: Sequence[Failure],
    extractor: ExtractorInfo,
    classes: tuple[str, ...],
    *,
    failed_before: Sequence[Failure],
    dtype: str,
    with_files: bool,
) -> str | None:
    """Say in what a finished cache differs from what these inputs would give, or None when in nothing.

    The embeddings are not computed again: extractor, names, labels, landmarks and the files' times are compared, and
    what the cache lacks must be listed among its failures.

    Args:
        out: The cache.
        items: In the cache's order.
        landmarks: float32 (rows of the source, P, 2), or None.
        failures: Of the run that made the cache.
        extractor: Who would embed.
        classes: Class names, neutral first.
        failed_before: What failed before there were items of it, now; the list beside the cache must have it.
        dtype: Of the embeddings that would be stored.
        with_files: Whether the image files count.
    """
    try:
        with open_cache(out) as cache:
            if cache.extractor.fingerprint != extractor.fingerprint:
                return f"its extractor is {cache.extractor.id!r} ({cache.extractor.preprocessing})"
            if (stored := inspect_cache(out).dtype) != dtype:
                return f"its embeddings are {stored}"
            if (cache.neutral, cache.classes) != (classes[0], classes):
                return "its classes differ"
            if cache.has_landmarks != (landmarks is not None):
                return "it has " + ("landmarks" if cache.has_landmarks else "no landmarks")
            if not cache.has_pose and landmarks is not None and has_pose(landmarks.shape[1]):
                return "it has no head pose"
            failed = {failure.path for failure in failures}
            for failure in failed_before:
                if failure.path not in failed:
                    return f"{failure.path} is new, and fails ({failure.reason})"
            position = 0
            for block in cache.iter_rows():
                for row in range(len(block)):
                    while position < len(items) and not _same(block, row, items[position], landmarks):
                        if items[position].name not in failed:
                            return f"{items[position].name} differs or is new"
                        position += 1
                    if position == len(items):
                        return f"it has {block.describe_row(row)}, which the source hasn't"
                    position += 1
            for item in items[position:]:
                if item.name not in failed:
                    return f"{item.name} is new"
    except CacheError as error:
        return str(error)
    if with_files and (changed := _changed_since(out, items, failed)):
        return f"{changed} has changed since"
    return None


def _same(block: FeatureTable, row: int, item: Item, landmarks: NDArray[np.float32] | None) -> bool:
    label = None if block.label[row] < 0 else block.classes[block.label[row]]
    cached = (block.subjects[block.subject[row]], label, block.videos[block.video[row]], int(block.frame[row]))
    if cached != (item.subject, item.label, item.video, item.frame):
        return False
    if block.paths is None or block.paths[row] != item.name:
        return False
    points = landmarks_of([item], landmarks)
    return points is None or (
        block.landmarks is not None and np.array_equal(block.landmarks[row], points[0], equal_nan=True)
    )


def _changed_since(out: Path, items: Sequence[Item], failed: set[str]) -> str | None:
    """Name an image that was written after the cache; a failed one also when it was moved into its place after it."""
    made = out.stat().st_mtime_ns
    for item in items:
        try:
            stat = item.path.stat()
        except (OSError, ValueError):
            continue
        latest = max(stat.st_mtime_ns, stat.st_ctime_ns) if item.name in failed else stat.st_mtime_ns
        if latest > made:
            return item.name
    return None

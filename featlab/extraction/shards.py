"""What is embedded and written at once, what could not be embedded, and whether a finished cache still fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featlab.cache.atomic import atomic_write_text
from featlab.cache.reader import inspect_cache, open_cache
from featlab.cache.schema import ExtractorInfo, parse_json
from featlab.cache.table import FeatureTable, same_prompts
from featlab.errors import CacheError, InputError, one_line
from featlab.extraction.items import Failure, Item

_T = TypeVar("_T", bound=np.generic)


FAILURES, NO_FACE, DOUBT = "failures", "no_face", "doubt"
"""Lists beside a cache: of images without a row, of those without a face, of those whose face may be another's."""


def list_path(out: Path, what: str = FAILURES) -> Path:
    """Where images are listed: ``cache.h5`` -> ``cache.failures.jsonl``."""
    return out.with_name(f"{out.stem}.{what}.jsonl")


def write_list(out: Path, failures: Sequence[Failure], what: str = FAILURES) -> None:
    """Write failures beside a cache, one JSON object a line; without any, remove an earlier list."""
    path = list_path(out, what)
    if not failures:
        path.unlink(missing_ok=True)
        return
    lines = [json.dumps(failure._asdict(), ensure_ascii=False) for failure in failures]
    atomic_write_text(path, "\n".join(lines) + "\n")


def read_failures(out: Path) -> tuple[Failure, ...]:
    """Read the list beside a cache; empty when there is none."""
    path = list_path(out)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        entries = [parse_json(line) for line in lines]
        return tuple(Failure(str(entry["path"]), str(entry["reason"])) for entry in entries)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({one_line(error)})") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} isn't a list of failures; remove it") from None


def difference(
    out: Path,
    items: Sequence[Item],
    landmarks: NDArray[np.float32] | None,
    failures: Sequence[Failure],
    extractor: ExtractorInfo,
    classes: tuple[str, ...],
    prompts: NDArray[np.float32] | None,
    *,
    failed_before: Sequence[Failure],
    dtype: str,
    with_files: bool,
) -> str | None:
    """Say in what a finished cache differs from what these inputs would give, or None when in nothing."""
    try:
        with open_cache(out) as cache:
            if cache.extractor.fingerprint != extractor.fingerprint:
                return f"its extractor is {cache.extractor.id!r} ({cache.extractor.preprocessing})"
            if (stored := inspect_cache(out).dtype) != dtype:
                return f"its embeddings are {stored}"
            if (cache.neutral, cache.classes) != (classes[0], classes):
                return "its classes differ"
            if not same_prompts(cache.prompts, prompts):
                return "its texts of the classes differ"
            if cache.has_landmarks != (landmarks is not None):
                return "it has " + ("landmarks" if cache.has_landmarks else "no landmarks")
            failed = {failure.path for failure in failures}
            for failure in failed_before:
                if failure.path not in failed:
                    return f"{failure.path} is new, and fails ({failure.reason})"
            wanted = [item for item in items if item.name not in failed]
            there = ((block, row) for block in cache.iter_rows() for row in range(len(block)))
            for item, found in zip_longest(wanted, there):
                if found is None:
                    return f"{item.name} is new"
                block, row = found
                if item is None:
                    return f"it has {block.describe_row(row)}, which the source hasn't"
                if not _same(block, row, item, landmarks):
                    return f"{item.name} differs or is new"
    except CacheError as error:
        return str(error)
    made = out.stat().st_mtime_ns
    for item in items if with_files else ():
        if max(file_stamp(item.path)[1:]) > made:
            return f"{item.name} has changed, or was put there, since"
    return None


def _same(block: FeatureTable, row: int, item: Item, landmarks: NDArray[np.float32] | None) -> bool:
    label = None if block.label[row] < 0 else block.classes[block.label[row]]
    path = None if block.paths is None else block.paths[row]
    who, clip = block.subjects[block.subject[row]], block.videos[block.video[row]]
    if (who, label, clip, block.frame[row], path) != (item.subject, item.label, item.video, item.frame, item.name):
        return False
    points = of_items([item], landmarks)
    return points is None or (
        block.landmarks is not None and np.array_equal(block.landmarks[row], points[0], equal_nan=True)
    )


@dataclass(frozen=True, eq=False)
class Shard:
    """A run of items that is embedded and written as one; ``key`` changes with anything that could change its rows."""

    key: str
    items: tuple[Item, ...]
    landmarks: NDArray[np.float32] | None = None  # float32 (n, P, 2)
    faces: NDArray[np.uint8] | None = None  # uint8 (n,): how many are in the picture


def plan_shards(
    items: Sequence[Item],
    landmarks: NDArray[np.float32] | None,
    faces: NDArray[np.uint8] | None,
    extractor: ExtractorInfo,
    *,
    dtype: str,
    shard_rows: int,
    with_files: bool,
) -> list[Shard]:
    """Cut the items into shards of ``shard_rows``."""
    shards = []
    for start in range(0, len(items), shard_rows):
        part = tuple(items[start : start + shard_rows])
        points, counts = of_items(part, landmarks), of_items(part, faces)
        content = {
            "extractor": extractor.fingerprint,
            "versions": dict(extractor.versions),
            "dtype": dtype,
            "landmarks": None if points is None else list(points.shape),
            "items": [
                [
                    *(item.name, item.subject, item.label, item.video, item.frame, item.at, item.box),
                    *(file_stamp(item.path) if with_files else ()),
                ]
                for item in part
            ],
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        if points is not None:
            digest.update(np.ascontiguousarray(points, dtype="<f4").tobytes())
        if counts is not None:
            digest.update(counts.tobytes())
        shards.append(Shard(digest.hexdigest(), part, points, counts))
    return shards


def of_items(items: Sequence[Item], values: NDArray[_T] | None) -> NDArray[_T] | None:
    """Values of the source's rows, of the items in their order."""
    return None if values is None else values[[item.row for item in items]]


def file_stamp(path: Path) -> tuple[int, int, int]:
    """Size of a file, times of writing and of change (a copy may keep only the former); -1 when it isn't there."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return -1, -1, -1
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def float16_error(embeddings: NDArray[np.float32]) -> float:
    """Return the largest ‖stored − row‖ / ‖row‖ of the rows as float16; 0 without any."""
    rows = embeddings.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        lost = np.linalg.norm(embeddings.astype(np.float16).astype(np.float64) - rows, axis=1)
    length = np.linalg.norm(rows, axis=1)
    return float(np.divide(lost, length, out=np.zeros_like(lost), where=length > 0).max(initial=0.0))

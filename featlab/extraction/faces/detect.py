"""Landmarks of a whole source: detected in worker processes, shard by shard, kept for the next run."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.cache import atomic_write_bytes
from featlab.config.options import check_at_least
from featlab.errors import InputError
from featlab.extraction.decode import read_pixels
from featlab.extraction.faces.detectors import Detector
from featlab.extraction.items import Item, item_order
from featlab.extraction.shards import Failure, file_stamp, write_list
from featlab.extraction.worker import run_in_order, worker_count

OnDetected = Callable[[int, int], None]

NO_FACE = "no face was found"
# Items that are detected and written at once; a killed run loses at most those that were under way.
_SHARD = 64


@dataclass(frozen=True, eq=False)
class Detected:
    """The landmarks of a source."""

    landmarks: NDArray[np.float32]
    missing: tuple[Failure, ...]
    path: Path


def no_face_path(out: Path) -> Path:
    """Where the images without a face are listed: ``cache.h5`` -> ``cache.no_face.jsonl``."""
    return out.with_name(f"{out.stem}.no_face.jsonl")


def write_no_face(out: Path, missing: Sequence[Failure]) -> None:
    """List the images without a face beside the cache; see `write_list`."""
    write_list(no_face_path(out), missing)


def without_face(items: Sequence[Item], landmarks: NDArray[np.float32]) -> tuple[Failure, ...]:
    """Name the items whose landmarks are NaN, in the cache's order."""
    ordered = sorted(items, key=item_order)
    return tuple(Failure(item.name, NO_FACE) for item in ordered if np.isnan(landmarks[item.row]).any())


def detect_landmarks(
    items: Sequence[Item], detector: Detector, out: Path, *, jobs: int = 0, on_progress: OnDetected | None = None
) -> Detected:
    """Find the landmarks of every item."""
    check_at_least("jobs", jobs, 0)
    if not items:
        raise InputError("there is nothing to look for faces in: the source has no items")
    ordered = sorted(items, key=item_order)
    stamps = {path: file_stamp(path) for path in {item.path for item in ordered}}
    parts = [ordered[start : start + _SHARD] for start in range(0, len(ordered), _SHARD)]
    keys = [_key(part, detector, stamps) for part in parts]
    rows = [[item.row for item in part] for part in parts]
    whole = hashlib.sha256(json.dumps([keys, rows]).encode()).hexdigest()
    folder = out.with_name(out.name + ".landmarks")
    final = folder / "landmarks.npz"
    tell = on_progress or (lambda done, total: None)
    kept = _load(final, whole)
    if kept is None:
        kept = _detect_parts(parts, keys, detector, folder, worker_count(jobs, len(parts)), tell)
        faces = np.full((max(item.row for item in ordered) + 1, detector.points, 2), np.nan, dtype=np.float32)
        faces[[item.row for item in ordered]] = kept.landmarks
        # One file, so that the landmarks and the key that they are of can't come apart.
        _save(final, _Part(faces, kept.unreadable), whole)
        shutil.rmtree(folder / "shards", ignore_errors=True)
        kept = _Part(faces, kept.unreadable)
    tell(len(ordered), len(ordered))
    readable = [item for item, bad in zip(ordered, kept.unreadable.tolist(), strict=True) if not bad]
    missing = without_face(readable, kept.landmarks)
    if len(missing) == len(readable):
        why = f"no face was found in {len(readable)} images" if readable else "no image can be read"
        raise InputError(f"{why} (first: {ordered[0].name}); look at one, or bring landmarks with --landmarks FILE")
    write_no_face(out, missing)
    return Detected(kept.landmarks, missing, final)


@dataclass(frozen=True, eq=False)
class _Part:
    """Landmarks float32 (n, P, 2), and which of the items couldn't be read, bool (items,)."""

    landmarks: NDArray[np.float32]
    unreadable: NDArray[np.bool_]


def _detect_parts(
    parts: Sequence[Sequence[Item]], keys: Sequence[str], detector: Detector, folder: Path, jobs: int, tell: OnDetected
) -> _Part:
    """Detect what no earlier run has, in order; return all."""
    files = [folder / "shards" / f"{key[:32]}.npz" for key in keys]
    found = [_load(file, key) for file, key in zip(files, keys, strict=True)]
    total = sum(map(len, parts))
    done = sum(len(part) for part, earlier in zip(parts, found, strict=True) if earlier is not None)
    todo = [place for place, earlier in enumerate(found) if earlier is None]
    tell(done, total)
    wanted = [parts[place] for place in todo]
    with closing(run_in_order(partial(_detect, detector), wanted, jobs=jobs, died=_worker_died)) as results:
        for place, (_, result) in zip(todo, results, strict=True):
            _save(files[place], result, keys[place])
            found[place] = result
            done += len(parts[place])
            tell(done, total)
    whole = [part for part in found if part is not None]
    return _Part(
        np.concatenate([part.landmarks for part in whole]), np.concatenate([part.unreadable for part in whole])
    )


def _detect(detector: Detector, items: Sequence[Item]) -> _Part:
    landmarks = np.full((len(items), detector.points, 2), np.nan, dtype=np.float32)
    unreadable = np.zeros(len(items), dtype=np.bool_)
    for place, pixels in enumerate(read_pixels(items)):
        if isinstance(pixels, InputError):
            unreadable[place] = True
        else:
            landmarks[place] = detector.detect(pixels)
    return _Part(landmarks, unreadable)


def _worker_died(part: Sequence[Item]) -> str:
    return (
        f"a worker process died while looking for faces near {part[0].name} (out of memory?); what is finished is "
        "kept: run the same command again, with fewer jobs if memory is short"
    )


def _key(items: Sequence[Item], detector: Detector, stamps: dict[Path, tuple[int, int]]) -> str:
    content = [[item.name, item.at, item.box, *stamps[item.path]] for item in items]
    return hashlib.sha256(json.dumps([detector.info, detector.points, content]).encode()).hexdigest()


def _save(path: Path, part: _Part, key: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, landmarks=part.landmarks, unreadable=part.unreadable, key=np.array(key))
    atomic_write_bytes(path, buffer.getvalue())


def _load(path: Path, key: str) -> _Part | None:
    """Read what `_save` wrote under this key; None if it isn't there, damaged or of another key."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return _Part(stored["landmarks"], stored["unreadable"])
    except Exception:
        # NumPy lets through what zip and its header parser raise on a broken file (BadZipFile, SyntaxError, ...).
        return None

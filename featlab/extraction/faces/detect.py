"""What a detector is, how one is found by its name, and the faces that it finds in every item of a source."""

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.atomic import atomic_write_bytes
from featlab.config.options import Registry
from featlab.engine import OnProgress, run_in_order, worker_count
from featlab.errors import ConfigError, InputError, closest
from featlab.extraction.decode import read_pixels
from featlab.extraction.faces.landmark_files import ARRAY, COUNTS, FACES
from featlab.extraction.faces.track import Faces, Found
from featlab.extraction.items import Item, item_order
from featlab.extraction.shards import Shard, file_stamp

_NAMES = ("dlib:FILE.dat", "mediapipe", "mediapipe:FILE.task", "uniface")


@dataclass(frozen=True)
class Detector:
    """Finds the landmarks of faces. Picklable: the model is loaded in the process that first detects."""

    points: int
    info: str  # Library, version and model
    find: Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]]  # Each face of a picture, (points, 2), pixels

    def detect(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find all faces in a picture, uint8 (H, W, 3): float32 (F, points, 2), pixels, in any order; F may be 0."""
        found = self.find(image)
        return np.stack(found) if found else np.empty((0, self.points, 2), dtype=np.float32)


_MADE_IN = "featlab.extraction.faces.detectors"
DETECTORS: Registry[Callable[[Path | None], Detector]] = Registry(
    "detector",
    {
        "mediapipe": f"{_MADE_IN}:make_mesh_detector",
        "dlib": f"{_MADE_IN}:make_dlib_detector",
        "uniface": f"{_MADE_IN}:make_uniface_detector",
    },
)
"""Each makes a detector of the file that follows the colon in its name."""


def is_detector(spec: str) -> bool:
    """Tell whether ``spec`` names a detector rather than a file of landmarks."""
    return spec.partition(":")[0] in DETECTORS.names()


def make_detector(spec: str) -> Detector:
    """Build a detector by its name; its library is looked for, but the model isn't loaded yet."""
    kind, colon, argument = spec.partition(":")
    if not is_detector(spec):
        raise ConfigError(f"no detector is called {spec!r} (known: {', '.join(_NAMES)}){closest(spec, _NAMES)}")
    if colon and not argument:
        raise ConfigError(f"{spec!r}: a file must follow the colon, as in {_NAMES[0] if kind == 'dlib' else _NAMES[2]}")
    return DETECTORS.get(kind)(Path(argument) if argument else None)


# Items that are detected and written at once; a killed run loses at most those that were under way.
_SHARD = 64


def detect_landmarks(
    items: Sequence[Item], detector: Detector, out: Path, *, jobs: int = 0, on_progress: OnProgress | None = None
) -> Found:
    """Find the faces of every item; they are kept in ``<out>.landmarks``."""
    ordered = sorted(items, key=item_order)
    stamps = {path: file_stamp(path) for path in {item.path for item in ordered}}
    parts = (tuple(ordered[start : start + _SHARD]) for start in range(0, len(ordered), _SHARD))
    shards = [Shard(_key(part, detector, stamps), part) for part in parts]
    rows = [[item.row for item in shard.items] for shard in shards]
    whole = hashlib.sha256(json.dumps([[shard.key for shard in shards], rows]).encode()).hexdigest()
    folder = out.with_name(out.name + ".landmarks")
    final, files = folder / "landmarks.npz", {each.key: folder / "shards" / f"{each.key[:32]}.npz" for each in shards}
    tell = on_progress or (lambda done, total: None)
    work, name = partial(_detect, detector), (lambda shard: shard.items[0].name)
    if (kept := _load(final, whole)) is None:
        found = {key: part for key, file in files.items() if (part := _load(file, key)) is not None}
        todo = [shard for shard in shards if shard.key not in found]
        done = len(ordered) - sum(len(shard.items) for shard in todo)
        tell(done, len(ordered))
        with closing(run_in_order(work, todo, jobs=worker_count(jobs, len(shards)), name=name)) as results:
            for shard, part in results:
                _save(files[shard.key], part, shard.key)
                found[shard.key] = part
                done += len(shard.items)
                tell(done, len(ordered))
        # By row from here on, as landmarks that are given: the file may be named for another backbone.
        each = [face for shard in shards for face in found[shard.key].faces.rows()]
        faces = dict(zip((item.row for item in ordered), each, strict=True))
        unreadable = {shard.items[place].row for shard in shards for place in found[shard.key].unreadable}
        kept = Found(Faces.by_row(faces, max(faces) + 1), frozenset(unreadable))
        # One file, so that the landmarks and the key that they are of can't come apart.
        _save(final, kept, whole)
        shutil.rmtree(folder / "shards", ignore_errors=True)
    tell(len(ordered), len(ordered))
    readable = len(ordered) - len(kept.unreadable)
    if not kept.faces.counts.any():
        why = f"no face was found in {readable} images" if readable else "no image can be read"
        raise InputError(f"{why} (first: {ordered[0].name}); look at one, or bring landmarks with --landmarks FILE")
    return kept


def _detect(detector: Detector, shard: Shard) -> Found:
    nobody = np.empty((0, detector.points, 2), dtype=np.float32)
    found = []
    unreadable: set[int] = set()
    for place, pixels in enumerate(read_pixels(shard.items)):
        if isinstance(pixels, InputError):
            unreadable.add(place)
            found.append(nobody)
        else:
            found.append(detector.detect(pixels))
    return Found(Faces.of(found), frozenset(unreadable))


def _key(items: Sequence[Item], detector: Detector, stamps: dict[Path, tuple[int, int, int]]) -> str:
    content = [[item.name, item.at, item.box, *stamps[item.path]] for item in items]
    return hashlib.sha256(json.dumps([detector.info, detector.points, content]).encode()).hexdigest()


def _save(path: Path, part: Found, key: str) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {ARRAY: part.faces.largest(), FACES: part.faces.points, COUNTS: part.faces.counts}
    unreadable = np.isin(np.arange(len(part.faces.counts)), list(part.unreadable))
    np.savez(buffer, unreadable=unreadable, key=np.array(key), **arrays)
    atomic_write_bytes(path, buffer.getvalue())


def _load(path: Path, key: str) -> Found | None:
    """Read what `_save` wrote under this key; None if it isn't there, damaged or of another key."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            unreadable = np.flatnonzero(stored["unreadable"]).tolist()
            return Found(Faces(stored[FACES], stored[COUNTS]), frozenset(unreadable))
    except Exception:
        # NumPy lets through what zip and its header parser raise on a broken file (BadZipFile, SyntaxError, ...).
        return None

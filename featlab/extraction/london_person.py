"""One person of the London clips: two photographs in, 48 frames out, and a part file that says that they are done."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featlab.cache.atomic import atomic_path
from featlab.errors import ConfigError, InputError
from featlab.extraction.decode import decode_image
from featlab.extraction.london_clips import CLIPS, FRAMES, SIDE, draw_clip, draw_look, film
from featlab.extraction.london_photos import Person
from featlab.extraction.london_warp import MESH_POINTS, FloatArray, make_morph
from featlab.seeding import generator, stable_hash

Mesh = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
"""From an RGB image, uint8 (H, W, 3), to a face mesh (478, 2) in its pixels, all NaN when there is no face."""

CROP = 160
"""Side of the morphed picture, pixels, for a frame of 96."""
_RECIPE = 1
"""Counts changes that make other frames of the same photographs."""
_QUALITY = 88


@dataclass(frozen=True)
class Part:
    """What the manifest and the landmarks say of one person.

    Attributes:
        intensity: (4, 12) float64, by clip (`CLIPS`) and frame.
        landmarks: (4, 12, 68, 2) float32, pixels.
    """

    intensity: FloatArray
    landmarks: NDArray[np.float32]


@dataclass(frozen=True)
class PersonTask:
    """One person to draw into a folder.

    Attributes:
        person: Whose photographs.
        folder: Where ``frames/`` and ``parts/`` are.
        seed: Root of the person's random numbers.
        size: Side of a frame, pixels.
        mesh_info: Who finds the mesh; another one makes other clips.
    """

    person: Person
    folder: Path
    seed: int
    size: int
    mesh_info: str

    @property
    def part(self) -> Path:
        """The part file."""
        return self.folder / "parts" / f"{self.person.subject}.npz"


def video_name(subject: str, label: str, letter: str) -> str:
    """Return a clip's name."""
    return f"{subject}-{label}-{letter}"


def frame_path(video: str, frame: int) -> str:
    """Return a frame's path, relative to the manifest."""
    return f"frames/{video}-{frame:02d}.jpg"


def make_person(task: PersonTask, mesh: Mesh) -> bool:
    """Draw a person's clips, unless an earlier run has drawn the same ones.

    Args:
        task: Whom, and where to.
        mesh: Finds the face's mesh.

    Returns:
        Whether they were there already.

    Raises:
        InputError: A photograph is missing, can't be read or shows no face; the message is the reason.
        ConfigError: The mesh hasn't 478 points.
        FeatlabError: A file can't be written.
    """
    person = task.person
    if person.neutral is None or person.smiling is None:
        raise InputError(f"{person.missing}")
    fingerprint = stable_hash(
        _RECIPE, task.seed, task.size, task.mesh_info, _digest(person.neutral), _digest(person.smiling)
    )
    if _is_done(task, fingerprint):
        return True
    neutral, neutral_mesh = _photograph(person.neutral, mesh)
    smiling, smiling_mesh = _photograph(person.smiling, mesh)
    crop = round(task.size * CROP / SIDE)
    morph = make_morph(neutral, smiling, neutral_mesh, smiling_mesh, crop)
    look = draw_look(task.seed, person.subject)
    intensity = np.empty((len(CLIPS), FRAMES))
    landmarks = np.empty((len(CLIPS), FRAMES, 68, 2), dtype=np.float32)
    for place, (label, letter) in enumerate(CLIPS):
        rng = generator(task.seed, "london", person.subject, label, letter)
        clip = draw_clip(look, label, rng, task.size, crop)
        frames, landmarks[place] = film(clip, morph, rng, task.size)
        intensity[place] = clip.intensity
        for number, frame in enumerate(frames):
            path = task.folder / frame_path(video_name(person.subject, label, letter), number)
            with atomic_path(path) as partial:
                Image.fromarray(frame).save(partial, format="JPEG", quality=_QUALITY)
    with atomic_path(task.part) as partial, partial.open("wb") as file:
        np.savez(file, fingerprint=np.array(fingerprint), intensity=intensity, landmarks=landmarks)
    return False


def read_part(path: Path) -> tuple[str, Part]:
    """Read a part file: its fingerprint and what it holds.

    Raises:
        InputError: It isn't there or isn't one.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            part = Part(arrays["intensity"], arrays["landmarks"])
            return str(arrays["fingerprint"]), part
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path}: isn't a part of this set; remove it and build again") from None


def _is_done(task: PersonTask, fingerprint: str) -> bool:
    try:
        found, _ = read_part(task.part)
    except InputError:
        return False
    if found != fingerprint:
        return False
    paths = (frame_path(video_name(task.person.subject, *clip), frame) for clip in CLIPS for frame in range(FRAMES))
    return all((task.folder / path).is_file() for path in paths)


def _photograph(path: Path, mesh: Mesh) -> tuple[NDArray[np.uint8], FloatArray]:
    try:
        image = decode_image(path)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    points = np.asarray(mesh(image), dtype=np.float64)
    if points.shape != (MESH_POINTS, 2):
        raise ConfigError(f"the mesh has shape {points.shape}; a mesh of ({MESH_POINTS}, 2) is needed")
    if not np.isfinite(points).all():
        raise InputError(f"{path.name}: no face was found")
    return image, points


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path.name}: can't be read ({error.strerror})") from None

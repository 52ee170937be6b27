"""Drawn faces: people who differ, one's rest like another's smile, in clips that differ; with their true landmarks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featlab.cache.atomic import atomic_path, atomic_write_text
from featlab.config.options import Options, option
from featlab.engine import run_in_order, worker_count
from featlab.errors import InputError
from featlab.extraction.drawn_people import EXPRESSIONS, RECIPES, UNITS, FloatArray, Person, sketch_face


@dataclass(frozen=True)
class FacesConfig(Options):
    """How many faces."""

    people: int = option(48, "Number of subjects, s001 onwards.", minimum=1, maximum=100_000)
    expressions: int = option(2, "Number of classes, the first of `EXPRESSIONS`.", minimum=2, maximum=len(EXPRESSIONS))
    clips: int = option(2, "Clips per person and expression, a to z.", minimum=1, maximum=26)
    frames: int = option(10, "Frames per clip.", minimum=1, maximum=10_000)
    size: int = option(96, "Side of a picture, pixels.", minimum=32, maximum=1024)
    # A person depends on the seed and the person's number only, a clip on the expression and its letter too.
    seed: int = option(0, "Of everything that is drawn.", minimum=0)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, neutral first."""
        return EXPRESSIONS[: self.expressions]


def write_faces(
    folder: Path, config: FacesConfig, *, jobs: int = 1, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Draw everybody, and write pictures, landmarks and, last, the manifest, whose path is returned.

    The same config gives the same bytes, for any number of processes.
    """
    manifest, landmarks = folder / "manifest.csv", []
    clips = list(itertools.product(range(config.people), config.classes, range(config.clips)))
    lines = ["path,subject,label,video,frame,intensity\n"]
    try:
        (folder / "frames").mkdir(parents=True, exist_ok=True)
        manifest.unlink(missing_ok=True)
        write = partial(_write_clip, folder, config)
        with closing(run_in_order(write, clips, jobs=worker_count(jobs, len(clips)), name=lambda _: folder)) as drawn:
            for done, (clip, (points, intensity)) in enumerate(drawn, start=1):
                landmarks.append(points)
                video = _video(*clip)
                for frame, value in enumerate(intensity):
                    path = f"frames/{video}-{frame:02d}.jpg"
                    lines.append(f"{path},{video[:4]},{clip[1]},{video},{frame},{value:.3f}\n")
                if on_progress is not None:
                    on_progress(done, len(clips))
        with atomic_path(folder / "landmarks.npy") as partial_file, partial_file.open("wb") as file:
            np.save(file, np.concatenate(landmarks))
        atomic_write_text(manifest, "".join(lines))
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{folder}: can't write faces there ({why}); choose another folder") from error
    return manifest


def _video(person: int, label: str, clip: int) -> str:
    return f"s{person + 1:03d}-{label}-{chr(ord('a') + clip)}"


def _write_clip(
    folder: Path, config: FacesConfig, clip: tuple[int, str, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    frames, landmarks, intensity = render_person(config, *clip)
    for frame, picture in enumerate(frames):
        path = folder / "frames" / f"{_video(*clip)}-{frame:02d}.jpg"
        Image.fromarray(picture).save(path, quality=92, subsampling=0)
    return landmarks, intensity


def render_person(
    config: FacesConfig, person: int, expression: str, clip: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Draw one clip of one person; no other clip is needed for it."""
    who, size = Person(_stream(config, 0, person)), config.size
    rng = _stream(config, 1, person, EXPRESSIONS.index(expression), clip)
    wander = partial(_wander, rng, config.frames)
    neutral = expression == EXPRESSIONS[0]
    recipe = RECIPES[expression if not neutral else EXPRESSIONS[rng.integers(1, len(EXPRESSIONS))]]
    intensity = np.abs(wander(1, 0.06)[:, 0])
    if not neutral:
        time = ((np.arange(config.frames) + 0.5) / config.frames) ** rng.uniform(0.75, 1.35)
        peak = rng.uniform(0.5, 0.95)
        intensity = np.clip(peak * (0.25 + 0.75 * np.sin(np.pi * time)) + 0.5 * intensity, 0, 1)
    levels = intensity[:, None] * [recipe.get(unit, 0.0) for unit in UNITS] + wander(len(UNITS), 0.06)
    levels = who.rest * (1 - 0.6 * intensity[:, None]) + who.gain * levels
    levels[:, -1] = np.where(rng.random(config.frames) < 0.05, 0.9, levels[:, -1])  # a blink
    twitch, gaze = wander(68 * 2, 0.006).reshape(-1, 68, 2), wander(2, 0.02)
    head = wander(6, 1.0).clip(-2.2, 2.2) * (0.004, 0.004, 0.003, 0.014, 0.06, 0.045)
    tint = np.exp(rng.normal(-0.03, 0.08) + rng.normal(0, 0.025, 3))
    bias, noise = np.float32(rng.normal(0, 5)), np.float32(rng.uniform(0.5, 3))
    ramp, angle = np.linspace(-0.5, 0.5, size), rng.uniform(0, 2 * np.pi)
    light = rng.uniform(0, 0.25) * (np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None])
    exposure = ((1 + light[:, :, None]) * tint).astype(np.float32)
    frames = np.empty((config.frames, size, size, 3), dtype=np.uint8)
    landmarks = np.empty((config.frames, 68, 2), dtype=np.float32)
    for frame, pose in enumerate(head):
        place, points = partial(_place, pose, size), who.landmarks(levels[frame]) + twitch[frame]
        landmarks[frame] = place(points)
        picture = sketch_face(who, points, levels[frame], gaze[frame]).paint(place, size, who.backdrop) * exposure
        grain = noise * rng.standard_normal(picture.shape, dtype=np.float32)
        frames[frame] = np.clip(np.round(picture + bias + grain), 0, 255)
    return frames, landmarks, intensity.astype(np.float32)


def _stream(config: FacesConfig, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(int(config.seed), spawn_key=key))


def _wander(rng: np.random.Generator, frames: int, channels: int, spread: float) -> FloatArray:
    """A stationary first-order random walk, (F, channels): slow within a clip, elsewhere in the next."""
    walk = rng.normal(0, spread, (frames, channels))
    for frame in range(1, frames):
        walk[frame] = 0.9 * walk[frame - 1] + np.sqrt(1 - 0.9**2) * walk[frame]
    return walk


def _place(pose: FloatArray, size: int, points: FloatArray) -> FloatArray:
    """Face units to pixels, (N, 2), by a pose: shift right and down, zoom, and roll, yaw and pitch in radians."""
    right, down, zoom, roll, yaw, pitch = pose
    x, y = points.T
    depth = np.sqrt(np.maximum(1 - (x / 1.2) ** 2 - ((y - 0.3) / 1.45) ** 2, 0)) - 0.85
    depth += 0.35 * np.exp(-((x / 0.16) ** 2) - ((y - 0.5) / 0.22) ** 2)  # the nose
    turned = ((x + yaw * depth) + 1j * (y + pitch * depth)) * (0.355 + zoom) * np.exp(1j * roll)
    return np.stack((turned.real + 0.5 + right, turned.imag + 0.41 + down), axis=1) * size - 0.5

"""Synthetic faces: people who differ, expressions that overlap, pictures that look filmed.

Identity changes the face and its features, the resting expression and the expressiveness; capture changes light, pose,
noise and what hides a part of the face. One person's resting face looks like another's mild expression, which is the
problem that personalisation solves. The pictures are written as files with a manifest and their true landmarks, so that
extraction from them is real.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featlab.cache.atomic import atomic_path, atomic_write_text
from featlab.errors import ConfigError, FeatlabError, InputError, closest
from featlab.extraction.synthetic_capture import draw_capture, wander
from featlab.extraction.synthetic_people import ACTION_UNITS, EXPRESSIONS, FloatArray, deform, draw_person, recipe
from featlab.extraction.synthetic_render import paint
from featlab.extraction.worker import settle_worker

__all__ = ["EXPRESSIONS", "SyntheticConfig", "render_person", "write_faces"]

_COLUMNS = ("path", "subject", "label", "video", "frame", "intensity")
_PERSON, _CLIP = 0, 1  # first spawn key of a random stream: what it is about
_LIMITS = {
    "people": (1, 100_000),
    "expressions": (2, len(EXPRESSIONS)),
    "clips": (1, 26),
    "frames": (1, 10_000),
    "size": (32, 1024),
    "seed": (0, 2**63 - 1),
    "identity_strength": (0.0, 2.0),
    "resting_strength": (0.0, 2.0),
    "capture_strength": (0.0, 2.0),
    "peak_low": (0.0, 1.0),
    "peak_high": (0.0, 1.0),
    "occlusion_probability": (0.0, 1.0),
}


@dataclass(frozen=True)
class SyntheticConfig:
    """How many faces, and how hard they are to tell apart.

    Attributes:
        people: Number of subjects, s001 onwards.
        expressions: Number of classes, the first so many of `EXPRESSIONS`; 2 is neutral and happiness.
        clips: Clips per person and expression, a to z.
        frames: Frames per clip.
        size: Side of a picture, pixels.
        seed: A person depends on the seed and the person's number only, a clip on the expression and its letter too.
        identity_strength: Spread of face and feature shapes; 0 makes them all the same.
        resting_strength: Spread of the resting expressions; 0 makes every resting face blank.
        capture_strength: Spread of light, tint, noise and pose; 0 is a studio and a still head.
        peak_low: The weakest peak intensity of an expressive clip, 0..1.
        peak_high: The strongest.
        occlusion_probability: How often a hand, a lock of hair or a bar hides a part of the face, per clip.

    Raises:
        ConfigError: A value is out of its range; names the field.
    """

    people: int = 48
    expressions: int = 2
    clips: int = 2
    frames: int = 10
    size: int = 96
    seed: int = 0
    identity_strength: float = 1.0
    resting_strength: float = 1.0
    capture_strength: float = 1.0
    peak_low: float = 0.4
    peak_high: float = 0.85
    occlusion_probability: float = 0.08

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), _LIMITS[field.name]
            kind = Integral if isinstance(low, int) else Real
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ConfigError(f"{field.name} = {value!r}: expected a {'whole ' if kind is Integral else ''}number")
            if not low <= float(value) <= high:
                raise ConfigError(f"{field.name} = {value}: must lie between {low} and {high}")
        if self.peak_low > self.peak_high:
            raise ConfigError(f"peak_low = {self.peak_low} is above peak_high = {self.peak_high}; swap them")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, neutral first."""
        return EXPRESSIONS[: self.expressions]


@dataclass(frozen=True)
class _Clip:
    """One clip of one person; `name` is its video."""

    config: SyntheticConfig
    person: int
    expression: str
    clip: int

    @property
    def subject(self) -> str:
        return f"s{self.person + 1:03d}"

    @property
    def name(self) -> str:
        return f"{self.subject}-{self.expression}-{chr(ord('a') + self.clip)}"

    @property
    def paths(self) -> list[str]:
        return [f"frames/{self.name}-{frame:02d}.jpg" for frame in range(self.config.frames)]


def write_faces(
    folder: Path,
    config: SyntheticConfig,
    *,
    jobs: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw everybody and write the pictures, the landmarks and, last, the manifest.

    Writes ``frames/*.jpg``, ``landmarks.npy`` (float32 (N, 68, 2), pixels, rows as in the manifest, points in iBUG
    order) and ``manifest.csv`` (path, subject, label, video, frame, intensity). A run that was killed leaves no
    manifest: an old one is removed first, the new one is written last. The same config gives the same bytes with the
    same versions of NumPy and Pillow.

    Args:
        folder: Where to; made if missing.
        config: What to draw.
        jobs: Number of processes; the files are the same for any number. Above 1 the processes are spawned, so a
            script that calls this needs the usual ``if __name__ == "__main__":``.
        on_progress: Called with (clips done, clips in all) after every clip, in the caller's process.

    Returns:
        The manifest's path.

    Raises:
        ConfigError: `jobs` is below 1.
        InputError: The folder can't be written.
        FeatlabError: A worker process died.
    """
    if jobs < 1:
        raise ConfigError(f"jobs = {jobs}: at least one process is needed")
    manifest = folder / "manifest.csv"
    try:
        (folder / "frames").mkdir(parents=True, exist_ok=True)
        manifest.unlink(missing_ok=True)
        clips = [
            _Clip(config, person, expression, clip)
            for person in range(config.people)
            for expression in config.classes
            for clip in range(config.clips)
        ]
        landmarks = np.empty((len(clips), config.frames, 68, 2), dtype=np.float32)
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for done, (clip, (points, intensity)) in enumerate(zip(clips, _draw(folder, clips, jobs), strict=True)):
            landmarks[done] = points
            for frame, (path, value) in enumerate(zip(clip.paths, intensity, strict=True)):
                rows.writerow((path, clip.subject, clip.expression, clip.name, frame, f"{value:.3f}"))
            if on_progress is not None:
                on_progress(done + 1, len(clips))
        with atomic_path(folder / "landmarks.npy") as partial, partial.open("wb") as file:
            np.save(file, landmarks.reshape(-1, 68, 2))
        atomic_write_text(manifest, text.getvalue())
    except BrokenProcessPool:
        raise FeatlabError(f"{folder}: a worker process died (out of memory?); draw again with fewer jobs") from None
    except OSError as error:
        raise InputError(
            f"{folder}: can't write faces there ({error.strerror or error}); choose another folder"
        ) from error
    return manifest


def _draw(folder: Path, clips: list[_Clip], jobs: int) -> Iterator[tuple[FloatArray, FloatArray]]:
    if jobs == 1:
        for clip in clips:
            yield _write_clip(folder, clip)
        return
    # Spawned, not forked: the caller may hold threads (torch, HDF5) that a fork would freeze.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(clips)), mp_context=context, initializer=settle_worker)
    try:
        yield from pool.map(_write_clip, [folder] * len(clips), clips, chunksize=4)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_clip(folder: Path, clip: _Clip) -> tuple[FloatArray, FloatArray]:
    frames, landmarks, intensity = render_person(clip.config, clip.person, clip.expression, clip.clip)
    for path, frame in zip(clip.paths, frames, strict=True):
        Image.fromarray(frame).save(folder / path, quality=92, subsampling=0)
    return landmarks, intensity


def render_person(
    config: SyntheticConfig, person: int, expression: str, clip: int
) -> tuple[NDArray[np.uint8], FloatArray, FloatArray]:
    """Draw one clip of one person; no other clip is needed for it.

    Args:
        config: What to draw.
        person: The person's number, 0 up to `config.people`.
        expression: One of `config.classes`.
        clip: The clip's number, 0 up to `config.clips`.

    Returns:
        Frames (F, H, W, 3) uint8 RGB; true landmarks (F, 68, 2) float32, pixels, after expression and pose;
        intensity (F,) float32, of the expression or, when neutral, of the drift that no resting face is without.

    Raises:
        ConfigError: There is no such person, expression or clip.
    """
    if expression not in config.classes:
        raise ConfigError(
            f"no expression {expression!r} among {', '.join(config.classes)}{closest(expression, EXPRESSIONS)}"
        )
    if not 0 <= person < config.people or not 0 <= clip < config.clips:
        raise ConfigError(
            f"person {person}, clip {clip}: there are {config.people} people and {config.clips} clips, from 0"
        )
    who = draw_person(_stream(config, _PERSON, person), config.identity_strength, config.resting_strength)
    rng = _stream(config, _CLIP, person, EXPRESSIONS.index(expression), clip)
    shown = expression if expression != EXPRESSIONS[0] else EXPRESSIONS[rng.integers(1, len(EXPRESSIONS))]
    intensity = _course(rng, config, expression)
    levels = intensity[:, None] * recipe(shown) + wander(rng, config.frames, len(ACTION_UNITS), 0.06)
    twitch = wander(rng, config.frames, 68 * 2, 0.010).reshape(-1, 68, 2)
    blink = rng.random(config.frames) < 0.05
    levels[:, ACTION_UNITS.index(43)] = np.maximum(levels[:, ACTION_UNITS.index(43)], 0.9 * blink)
    gaze = wander(rng, config.frames, 2, 0.02)
    capture = draw_capture(
        rng, who.look, config.frames, config.size, config.capture_strength, config.occlusion_probability
    )
    frames = np.empty((config.frames, config.size, config.size, 3), dtype=np.uint8)
    landmarks = np.empty((config.frames, 68, 2), dtype=np.float32)
    for frame, pose in enumerate(capture.poses):
        face = deform(who, levels[frame], twitch[frame])
        landmarks[frame] = pose.place(face, config.size)
        felt = who.rest + who.gain.mean(axis=1) * levels[frame]
        picture = paint(who.look, face, felt, gaze[frame], pose, config.size, capture.hide)
        frames[frame] = capture.expose(picture, rng)
    return frames, landmarks, intensity


def _stream(config: SyntheticConfig, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(int(config.seed), spawn_key=key))


def _course(rng: np.random.Generator, config: SyntheticConfig, expression: str) -> FloatArray:
    """Intensity over time, (F,): from rest to a peak and back, or near 0 when neutral."""
    drift = np.abs(wander(rng, config.frames, 1, 0.06)[:, 0])
    if expression == EXPRESSIONS[0]:
        return drift
    peak, skew = rng.uniform(config.peak_low, config.peak_high), rng.uniform(0.75, 1.35)
    time = ((np.arange(config.frames) + 0.5) / config.frames) ** skew
    return np.clip(peak * (0.25 + 0.75 * np.sin(np.pi * time)) + 0.5 * drift, 0.0, 1.0).astype(np.float32)

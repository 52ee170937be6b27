"""What one clip of a person shows and how it is filmed: intensity over time, head, light, sensor.

The recipe is the one of `london-morph`; its random numbers are not known, so these clips are others of the same
distribution. Where the recipe names no number, the one here was measured on `london-morph` itself: the phase and the
two periods of the neutral sine, the span of the smile, the whole crop as the frame, and the walk of the light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from london_warp import FloatArray, Morph, Similarity, resample
from numpy.typing import NDArray

from featlab.compute import generator
from featlab.extraction.faces import to_68

FRAMES = 12
CLIPS = (("neutral", "a"), ("neutral", "b"), ("smile", "a"), ("smile", "b"))
"""Label and letter of a person's clips."""
SIDE = 96
"""Side of a frame, pixels, that the shifts of the head are given for."""

_SMILE_START, _SMILE_STEP, _SMILE_POWER = 0.12, 0.10, 0.7
_SHIFT, _TURN, _GROW, _LIGHT, _LIGHT_STEP = 0.25, np.deg2rad(0.25), 0.003, 0.10, 0.012


@dataclass(frozen=True)
class Look:
    """What a person's clips share: intensity at rest, 0 to 0.1; the camera's gain (3,) and bias in grey levels."""

    rest: float
    gain: FloatArray
    bias: float


@dataclass(frozen=True)
class Clip:
    """One clip, before it is drawn.

    Attributes:
        intensity: (12,), the weight of the smiling photograph.
        places: From the crop to the frame, for each frame.
        light: (12,), by which fraction the right edge of the frame is brighter than its middle, and the left darker.
        gain: (3,), by channel.
        bias: Grey levels.
        noise: Standard deviation of the sensor noise, grey levels.
    """

    intensity: FloatArray
    places: tuple[Similarity, ...]
    light: FloatArray
    gain: FloatArray
    bias: float
    noise: float


def draw_look(seed: int, subject: str) -> Look:
    """Draw what is a person's own; it depends on the seed and the subject's name alone."""
    rng = generator(seed, "london", subject)
    rest = rng.uniform(0, 0.1)
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.92, 1.08, 3)
    return Look(float(rest), gain, float(rng.uniform(-20, 20)))


def draw_clip(look: Look, label: str, rng: np.random.Generator, side: int, crop: int) -> Clip:
    """Draw one clip, ``neutral`` or ``smile``, for frames and a morphed picture of these sides."""
    intensity = neutral_course(look.rest, rng) if label == "neutral" else smile_course(look.rest, rng)
    gain = look.gain * rng.uniform(0.9, 1.1) * rng.uniform(0.97, 1.03, 3)
    bias = look.bias + rng.uniform(-10, 10)
    noise = rng.uniform(1, 6)
    light = rng.normal(0, _LIGHT) + _walk(rng, _LIGHT_STEP)
    shift = (_walk(rng, _SHIFT) + 1j * _walk(rng, _SHIFT)) * side / SIDE
    turn, grow = _walk(rng, _TURN), 1 + _walk(rng, _GROW)
    zoom = grow * np.exp(1j * turn) * side / crop
    # Turned and scaled about the middle of the frame.
    places = tuple(
        Similarity(complex(a), complex(move + side * (0.5 + 0.5j) - a * crop * (0.5 + 0.5j)))
        for a, move in zip(zoom, shift, strict=True)
    )
    return Clip(intensity, places, light, gain, float(bias), float(noise))


def neutral_course(rest: float, rng: np.random.Generator) -> FloatArray:
    """Return the intensity of a neutral clip, (12,): the person's rest, off by a little, swaying; 0 to 0.15."""
    off, phase = rng.normal(0, 0.03), rng.uniform(0, 2 * np.pi)
    sway = 0.03 * np.sin(np.linspace(0, 4 * np.pi, FRAMES) + phase)
    return np.clip(rest + off + sway, 0, 0.15)


def smile_course(rest: float, rng: np.random.Generator) -> FloatArray:
    """Return the intensity of a smiling clip, (12,): up to a peak of 0.25 to 0.75 and back; at least 0.12.

    The clip starts when the smile has begun and ends after it.
    """
    peak = rng.uniform(0.25, 0.75)
    time = _SMILE_START + _SMILE_STEP * np.arange(FRAMES)
    smile = np.maximum(np.sin(np.pi * time), 0) ** _SMILE_POWER
    course: FloatArray = np.maximum(rest + (peak - rest) * smile, 0.12)
    return course


def film(
    clip: Clip, morph: Morph, rng: np.random.Generator, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a clip's frames, (12, side, side, 3) uint8 RGB, and the 68 iBUG points in them, (12, 68, 2) float32."""
    frames = np.empty((FRAMES, side, side, 3), dtype=np.uint8)
    landmarks = np.empty((FRAMES, 68, 2), dtype=np.float32)
    across = np.linspace(-1, 1, side)[:, None]
    for frame, (intensity, place) in enumerate(zip(clip.intensity, clip.places, strict=True)):
        picture, mesh = morph.at(float(intensity))
        # Not averaged: these clips are as sharp as bilinear sampling leaves them.
        lit = resample(picture, place, side, shrink=False) * clip.gain * (1 + clip.light[frame] * across)
        exposed = lit + clip.bias + rng.normal(0, clip.noise, lit.shape)
        frames[frame] = np.clip(np.round(exposed), 0, 255).astype(np.uint8)
        landmarks[frame] = to_68(place(mesh).astype(np.float32))
    return frames, landmarks


def _walk(rng: np.random.Generator, step: float) -> FloatArray:
    """A random walk, (12,), that has made one step by the first frame."""
    return np.cumsum(rng.normal(0, step, FRAMES))

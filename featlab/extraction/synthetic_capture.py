"""How a synthetic clip is filmed: head pose over time, light, sensor, and what gets in front of the face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from featlab.extraction.synthetic_canvas import Canvas, Colour, Layer, Pose, deeper, ellipse, mix, moved, smooth
from featlab.extraction.synthetic_people import FloatArray, Look

_STAY = 0.9  # autocorrelation from frame to frame
_SHORT = ("crop", "receding", "shaved")  # no lock of hair to fall into the face
_SIZE = 96  # the picture size that blur is given for


@dataclass(frozen=True)
class _Occluder:
    """A ``hand``, a ``bar`` or a lock of ``hair``: from which side (-1 or 1), how far out, how high; face units."""

    kind: str
    side: float
    out: float
    height: float
    colour: Colour


@dataclass(frozen=True)
class Capture:
    """How one clip of F frames of side S is filmed.

    Attributes:
        poses: Where the face lies in each frame.
        gain: Light gradient, exposure and tint, (S, S, 3) float32.
        bias: Added to every pixel, grey levels.
        noise: Standard deviation of the sensor noise, grey levels.
        blur: Standard deviation of the lens blur, pixels.
        occluder: What hides a part of the face, if anything.
    """

    poses: tuple[Pose, ...]
    gain: FloatArray
    bias: float
    noise: float
    blur: float
    occluder: _Occluder | None

    def hide(self, canvas: Canvas) -> None:
        """Paint what is in front of the face, soft-edged; it moves with the head."""
        if self.occluder is not None:
            _PAINTERS[self.occluder.kind](canvas, self.occluder)

    def expose(self, picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Take a painted picture, (S, S, 3) uint8, through lens, light and sensor; the noise comes from `rng`."""
        soft = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(self.blur))
        grain = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(self.noise)
        exposed = np.asarray(soft, dtype=np.float32) * self.gain + np.float32(self.bias) + grain
        return np.clip(np.round(exposed), 0, 255).astype(np.uint8)


def draw_capture(
    rng: np.random.Generator, look: Look, frames: int, size: int, strength: float, occlusion_probability: float
) -> Capture:
    """Draw how one clip is filmed.

    Args:
        rng: The clip's own generator.
        look: Whose hand and hair get in the way.
        frames: Number of frames.
        size: Side of the picture, pixels.
        strength: Scale of every deviation from a still head in even light; 0 has none.
        occlusion_probability: Chance that something hides a part of the face.
    """
    spread = strength * np.array((0.004, 0.004, 0.003, 0.014, 0.06, 0.045))
    walk = wander(rng, frames, 6, 1.0).clip(-2.2, 2.2) * spread + (0.5, 0.41, 0.355, 0.0, 0.0, 0.0)
    hidden = rng.random() < occlusion_probability
    kind = ("hand", "bar", "hair")[rng.integers(2 if look.style in _SHORT else 3)]
    colour = {"hand": look.skin, "hair": look.hair, "bar": look.clothes}[kind]
    side, out, height = (-1.0, 1.0)[rng.integers(2)], rng.uniform(0.35, 0.7), rng.uniform(0.55, 1.0)
    tint = np.exp(strength * (rng.normal(-0.03, 0.08) + rng.normal(0, 0.03, 3)))
    angle, slope = rng.uniform(0, 2 * np.pi), strength * rng.uniform(0.0, 0.25)
    ramp = np.linspace(-0.5, 0.5, size)
    light = 1 + slope * (np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None])
    return Capture(
        poses=tuple(Pose(*(float(value) for value in row)) for row in walk),
        gain=(light[:, :, None] * tint).astype(np.float32),
        bias=float(strength * rng.normal(0, 5)),
        noise=float(strength * rng.uniform(0.5, 3.0)),
        blur=float(strength * rng.uniform(0, 0.4) * size / _SIZE),
        occluder=_Occluder(kind, side, out, height, colour) if hidden else None,
    )


def wander(rng: np.random.Generator, frames: int, channels: int, spread: float) -> FloatArray:
    """A stationary first-order random walk, (F, channels) float32: slow within a clip, elsewhere in the next."""
    walk = np.empty((frames, channels), dtype=np.float32)
    walk[0] = rng.normal(0.0, spread, channels)
    for frame in range(1, frames):
        walk[frame] = _STAY * walk[frame - 1] + np.sqrt(1 - _STAY**2) * rng.normal(0.0, spread, channels)
    return walk


def _paint_hand(canvas: Canvas, hand: _Occluder) -> None:
    fingers = []
    for finger, length in enumerate((0.28, 0.36, 0.34, 0.26)):
        x, y = hand.side * (hand.out + 0.08 + 0.16 * finger), hand.height + 0.36 - length + 0.05 * finger
        fingers += [(ellipse(x, y, 0.085, length), 1.0)]
    palm = ellipse(hand.side * (hand.out + 0.34), hand.height + 0.72, 0.38, 0.5)
    contour = [(moved(shape, -0.02 * hand.side, -0.025), 1.0) for shape, _ in fingers]
    canvas.glaze(Layer(contour, deeper(hand.colour, 0.6), 0.015))
    canvas.glaze(Layer([(palm, 1.0)], deeper(hand.colour, 0.12), 0.015))
    for shape in fingers:
        canvas.glaze(Layer([shape], deeper(hand.colour, 0.45), 0.03))
    slimmer = [(0.82 * shape + 0.18 * shape.mean(axis=0), 1.0) for shape, _ in fingers]
    canvas.glaze(Layer(slimmer, mix(hand.colour, (255, 240, 225), 0.10), 0.012))


def _paint_lock(canvas: Canvas, lock: _Occluder) -> None:
    tip = (lock.out + 0.12, lock.height + 0.2)
    inner = smooth([(0.1, -1.0), (lock.out - 0.12, -0.55), (lock.out, 0.2), tip])
    outer = smooth([(0.75, -0.8), (lock.out + 0.35, -0.5), (lock.out + 0.3, 0.2), tip])
    across = np.array((lock.side, 1.0))
    canvas.glaze(Layer([(np.concatenate((inner, outer[::-1])) * across, 1.0)], lock.colour, 0.015))
    gloss = mix(lock.colour, (255, 236, 214), 0.3)
    canvas.strokes([((share * inner + (1 - share) * outer) * across, 0.5) for share in (0.3, 0.7)], gloss, 0.03)


def _paint_bar(canvas: Canvas, bar: _Occluder) -> None:
    corners = ((-0.05, 2.0), (-0.2, bar.height), (0.3, bar.height - 0.15), (0.5, 2.0))
    shape = [(bar.side * (bar.out + x), y) for x, y in corners]
    canvas.glaze(Layer([(shape, 1.0)], bar.colour, 0.015))
    canvas.strokes([(shape[:3], 0.8)], deeper(bar.colour, 0.5), 0.03)


_PAINTERS = {"hand": _paint_hand, "hair": _paint_lock, "bar": _paint_bar}

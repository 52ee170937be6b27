"""Smooth curves and soft shading on a small picture, drawn in face units and placed by a pose.

Sharp shapes are painted at three times the size and reduced at the end, since Pillow's polygons are not antialiased;
soft ones go through a blurred mask. Face units are those of `synthetic_people`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Shape = tuple[ArrayLike, float]  # points (N, 2) in face units, strength 0..1

_OVER = 3
_EYE_DEPTH = 0.85


@dataclass(frozen=True)
class Pose:
    """Where a face lies in its crop.

    Attributes:
        x: Centre between the eyes, fraction of the image width.
        y: The same, fraction of the height.
        scale: Length of one face unit, fraction of the image width.
        roll: In-plane rotation, radians.
        yaw: Horizontal shear by depth; about the sine of the angle.
        pitch: Vertical shear by depth.
    """

    x: float
    y: float
    scale: float
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0

    def place(self, points: ArrayLike, size: int) -> NDArray[np.float64]:
        """Place points given in face units, (N, 2), in a square image; returns (N, 2) pixels, pixel centres whole."""
        x, y = np.asarray(points, dtype=np.float64).T
        bowl = 1.0 - (x / 1.2) ** 2 - ((y - 0.3) / 1.45) ** 2
        nose = 0.35 * np.exp(-((x / 0.16) ** 2) - ((y - 0.5) / 0.22) ** 2)
        depth = np.sqrt(np.maximum(bowl, 0.0)) + nose - _EYE_DEPTH
        x, y = x + self.yaw * depth, y + self.pitch * depth
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        placed = np.empty((len(x), 2))
        placed[:, 0] = self.x + self.scale * (cos * x - sin * y)
        placed[:, 1] = self.y + self.scale * (sin * x + cos * y)
        return placed * size - 0.5


def smooth(points: ArrayLike, *, closed: bool = False, steps: int = 6) -> NDArray[np.float64]:
    """Run a Catmull-Rom spline through points, (N, 2) -> (M, 2); the ends are sharp unless it is closed."""
    knots = np.asarray(points, dtype=np.float64)
    if closed:
        knots = np.concatenate((knots[-1:], knots, knots[:2]))
    else:
        knots = np.concatenate((2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]))
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (knots[start : len(knots) - 3 + start, None, :] for start in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat: NDArray[np.float64] = curve.reshape(-1, 2)
    return flat if closed else np.concatenate((flat, knots[-2:-1]))


_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack((np.cos(_TURN), np.sin(_TURN)), axis=1)


def ellipse(x: float, y: float, rx: float, ry: float) -> NDArray[np.float64]:
    """Return an ellipse as a polygon, (24, 2)."""
    return _CIRCLE * (rx, ry) + (x, y)


def moved(points: ArrayLike, x: float, y: float) -> NDArray[np.float64]:
    """Shift one point (2,) or many (N, 2)."""
    shifted: NDArray[np.float64] = np.asarray(points, dtype=np.float64) + np.array((x, y))
    return shifted


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Blend two colours; `share` is how much of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def deeper(colour: Colour, share: float) -> Colour:
    """Darken a colour as skin and hair do in shade: the red stays longest."""
    red, green, blue = colour
    return mix(colour, (round(red * 0.55), round(green * 0.40), round(blue * 0.38)), share)


@dataclass(frozen=True)
class Layer:
    """Soft paint: polygons that tend to a colour.

    Attributes:
        shapes: Polygons and their strength; where two meet, the later one counts.
        colour: What they tend to.
        blur: Standard deviation of the softening, face units.
        outside: Keeps the paint out of this polygon, twice as softly.
    """

    shapes: Sequence[Shape]
    colour: Colour
    blur: float
    outside: ArrayLike | None = None


class Canvas:
    """A square picture in the making."""

    def __init__(self, size: int, pose: Pose, backdrop: Colour) -> None:
        self._size, self._pose = size, pose
        self._image = Image.new("RGB", (size * _OVER, size * _OVER), backdrop)
        self._draw = ImageDraw.Draw(self._image)

    def fill(self, points: ArrayLike, colour: Colour) -> None:
        """Paint a sharp polygon."""
        self._draw.polygon(self._at(points, _OVER), fill=colour)

    def line(self, points: ArrayLike, colour: Colour, width: float) -> None:
        """Paint a sharp line; its width is in face units."""
        self._draw.line(self._at(points, _OVER), fill=colour, width=self._width(width), joint="curve")

    def relief(self, region: ArrayLike, base: Colour, layers: Sequence[Layer]) -> None:
        """Paint a sharp polygon whose surface is softly shaded, one layer over the other."""
        # Soft layers have no detail to lose: they meet at the picture's own size and are enlarged once.
        surface = Image.new("RGB", (self._size, self._size), base)
        for layer in layers:
            surface.paste(layer.colour, (0, 0), self._mask(layer))
        large = surface.resize(self._image.size, Image.Resampling.BILINEAR)
        self._image.paste(large, (0, 0), self._stencil(region))

    def glaze(self, layer: Layer, region: ArrayLike | None = None) -> None:
        """Paint one soft layer over what is there; within a region only, if one is given."""
        large = self._mask(layer).resize(self._image.size, Image.Resampling.BILINEAR)
        if region is not None:
            large = ImageChops.multiply(large, self._stencil(region))
        self._image.paste(layer.colour, (0, 0), large)

    def strokes(self, lines: Sequence[Shape], colour: Colour, width: float) -> None:
        """Paint soft lines; the width is in face units."""
        mask = Image.new("L", self._image.size)
        draw = ImageDraw.Draw(mask)
        for points, strength in lines:
            draw.line(
                self._at(points, _OVER), fill=round(255 * min(strength, 1.0)), width=self._width(width), joint="curve"
            )
        self._image.paste(colour, (0, 0), mask.filter(ImageFilter.BoxBlur(0.9 * width * self._pixels_per_unit(_OVER))))

    def fill_inside(self, opening: ArrayLike, shapes: Sequence[tuple[ArrayLike, Colour]]) -> None:
        """Paint sharp polygons, one over the other, seen only through an opening."""
        behind = self._image.copy()
        draw = ImageDraw.Draw(behind)
        for points, colour in shapes:
            draw.polygon(self._at(points, _OVER), fill=colour)
        self._image.paste(behind, (0, 0), self._stencil(opening))

    def pixels(self) -> NDArray[np.uint8]:
        """Return the finished picture, (size, size, 3) uint8 RGB."""
        return np.asarray(self._image.reduce(_OVER))

    def _pixels_per_unit(self, over: int) -> float:
        return self._pose.scale * self._size * over

    def _width(self, units: float) -> int:
        return max(1, round(units * self._pixels_per_unit(_OVER)))

    def _at(self, points: ArrayLike, over: int) -> list[float]:
        placed: list[float] = (self._pose.place(points, self._size) * over + (over - 1) / 2).ravel().tolist()
        return placed

    def _stencil(self, region: ArrayLike) -> Image.Image:
        stencil = Image.new("L", self._image.size)
        ImageDraw.Draw(stencil).polygon(self._at(region, _OVER), fill=255)
        return stencil

    def _mask(self, layer: Layer) -> Image.Image:
        mask = self._blurred(layer.shapes, layer.blur)
        if layer.outside is None:
            return mask
        return ImageChops.multiply(mask, ImageChops.invert(self._blurred([(layer.outside, 1.0)], 2 * layer.blur)))

    def _blurred(self, shapes: Sequence[Shape], blur: float) -> Image.Image:
        mask = Image.new("L", (self._size, self._size))
        draw = ImageDraw.Draw(mask)
        for points, strength in shapes:
            draw.polygon(self._at(points, 1), fill=round(255 * min(strength, 1.0)))
        return mask.filter(ImageFilter.GaussianBlur(blur * self._pixels_per_unit(1)))

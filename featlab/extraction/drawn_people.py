"""Who a drawn person is, and how the face is painted through its 68 landmarks, which action units move.

Coordinates are face units: 1 is the usual distance between the eyes, (0, 0) is midway.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

from featlab.extraction.backbones.builtin import mirror_order

FloatArray = NDArray[np.float64]
Colour = tuple[float, float, float]

_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
RECIPES = {name: {int(unit): level for unit, level in levels.items()} for name, levels in _DATA["expressions"].items()}
EXPRESSIONS = tuple(RECIPES)
"""The classes, neutral first."""
UNITS = tuple(map(int, _DATA["landmarks"]["moved"]))
_COLOURS: dict[str, list[Colour]] = _DATA["colours"]
# For each landmark the one on the other side.
_MIRROR = np.array(mirror_order(), dtype=np.intp)
# Each column of lids or lips from top to bottom: they may close and never cross.
_COLUMNS = ([37, 41], [38, 40], [43, 47], [44, 46], [50, 61, 67, 58], [51, 62, 66, 57], [52, 63, 65, 56])

_TURN, _STEPS = np.linspace(0, 2 * np.pi, 20, endpoint=False)[:, None], np.arange(6)[:, None] / 6
_CIRCLE = np.concatenate((np.cos(_TURN), np.sin(_TURN)), axis=1)
# Catmull-Rom: six points from each knot to the next, as weights of four knots.
_SPLINE = _STEPS ** (0, 1, 2, 3) @ (np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2)
_DARK, _FRAME, _OVERSAMPLED = (40, 14, 10), (50, 44, 46), 3


def _both_halves(half: str) -> FloatArray:
    points = np.zeros((68, 2))
    for index, x, y in np.array(half.split(), dtype=int).reshape(-1, 3):
        points[index], points[_MIRROR[index]] = (x, y), (-x, y)
    return points / 100


_AVERAGE = _both_halves(_DATA["landmarks"]["at_rest"])
_MOVES = np.stack([_both_halves(action) for action in _DATA["landmarks"]["moved"].values()])


class Person:
    """A face at rest, the person's resting levels and gains of the action units, colours, hair and glasses."""

    def __init__(self, rng: np.random.Generator) -> None:
        def pick(name: str, most: int | None = None) -> Colour:
            colours = _COLOURS[name][:most]
            return colours[int(rng.integers(len(colours)))]

        self.shape = _draw_shape(rng)
        spread = np.array([0.08 if unit in (25, 26, 43) else 0.20 for unit in UNITS])
        self.rest = spread * np.clip(rng.standard_normal(len(UNITS)), -1.8, 1.8)
        self.gain = rng.uniform(0.85, 1.2) * rng.uniform(0.8, 1.25, len(UNITS))
        skin, styles = _COLOURS["skin"], _DATA["hair_styles"]
        tone = rng.uniform(0, len(skin) - 1)
        self.skin = _mix(skin[int(tone)], skin[int(tone) + 1], tone % 1)
        # Dark skin goes with dark hair and eyes.
        dark = tone >= 2.5
        self.hair, self.iris = pick("hair", 2 if dark else None), pick("iris", 1 if dark else None)
        self.clothes, self.backdrop = pick("clothes"), pick("backdrops")
        style = styles[rng.integers(len(styles))]
        self.fall, self.hairline = style["fall"], np.array(style["hairline"])
        self.brow, self.age = rng.uniform(0.045, 0.09), rng.beta(1.2, 2.2)
        self.beard, self.glasses = self.fall == 0 and rng.random() < 0.4, rng.random() < 0.2

    def landmarks(self, levels: FloatArray) -> FloatArray:
        """The points (68, 2) with the action units at levels (A,)."""
        points = self.shape + np.tensordot(levels, _MOVES, 1)
        for column in _COLUMNS:
            points[column, 1] = np.maximum.accumulate(points[column, 1])
        return points


def _draw_shape(rng: np.random.Generator) -> FloatArray:
    def draw(spread: float) -> float:
        return spread * float(np.clip(rng.standard_normal(), -2, 2))

    shape = _AVERAGE.copy()
    jaw, brows, nose, eyes, mouth = np.split(shape, [17, 27, 36, 48])
    jaw *= (1 + draw(0.05), 1 + draw(0.05))
    jaw[:, 0] *= 1 + draw(0.08) * np.clip(jaw[:, 1], 0, 1)
    brows[:, 1] += draw(0.05) + draw(0.12) * (np.abs(brows[:, 0]) - 0.5)
    nose *= (1 + draw(0.14), 1 + draw(0.07))
    eyes[:, 1] = eyes[:, 1] * (1 + draw(0.14)) + draw(0.09) * (np.abs(eyes[:, 0]) - 0.5)
    height = mouth[:, 1] - 0.95
    mouth[:, 1] += height * np.where(height < 0, draw(0.22), draw(0.22)) + draw(0.035)
    mouth[:, 0] *= 1 + draw(0.10)
    bumps = rng.standard_normal((68, 2)) * 0.012
    return shape + (bumps + bumps[_MIRROR] * (-1, 1)) / 2


class Sketch:
    """Shapes in face units that are painted at once: sharp ones in their order, soft light and shade over them."""

    def __init__(self) -> None:
        self._sharp: list[tuple[FloatArray, Colour, float]] = []
        self._soft: list[tuple[FloatArray, Colour]] = []

    def add(self, points: ArrayLike, colour: Colour, width: float = 0.0) -> None:
        """Add a polygon, or a line of some width."""
        self._sharp.append((np.asarray(points, dtype=np.float64), colour, width))

    def shade(self, points: ArrayLike, *factor: float) -> None:
        """Multiply red, green and blue below a polygon."""
        self._soft.append((np.asarray(points, dtype=np.float64), (factor[0], factor[-1], factor[-1])))

    def paint(self, place: Callable[[FloatArray], FloatArray], size: int, backdrop: Colour) -> FloatArray:
        """Return the picture, (size, size, 3); `place` maps face units to pixels."""
        large = Image.new("RGB", (size * _OVERSAMPLED,) * 2, _rgb(backdrop))
        light = Image.new("RGB", (size, size), (128, 128, 128))
        on_large, on_light, unit = ImageDraw.Draw(large), ImageDraw.Draw(light), 0.355 * size * _OVERSAMPLED
        shapes = [*(points for points, *_ in self._sharp), *(points for points, _ in self._soft)]
        placed = iter(np.split(place(np.concatenate(shapes)), np.cumsum([len(points) for points in shapes])[:-1]))
        for _, colour, width in self._sharp:
            at = (next(placed) * _OVERSAMPLED + (_OVERSAMPLED - 1) / 2).ravel().tolist()
            if width:
                on_large.line(at, fill=_rgb(colour), width=max(1, round(width * unit)), joint="curve")
            else:
                on_large.polygon(at, fill=_rgb(colour))
        for _, factor in self._soft:
            on_light.polygon(next(placed).ravel().tolist(), fill=_rgb(_mix((0, 0, 0), factor, 128)))
        light = light.filter(ImageFilter.GaussianBlur(0.02 * size))
        return np.asarray(large.reduce(_OVERSAMPLED)) * (np.asarray(light) / np.float32(128))


def sketch_face(who: Person, points: FloatArray, levels: FloatArray, gaze: FloatArray) -> Sketch:
    """Sketch a face with its landmarks (68, 2), action-unit levels (A,) and shift of the irises (2,)."""
    sketch, half, skin = Sketch(), (points[16, 0] - points[0, 0]) / 2, partial(_mix, who.skin, _DARK)
    shown = dict(zip(UNITS, np.clip(levels, 0, 1.2).tolist(), strict=True))
    turn = np.linspace(np.pi, 0, 12)
    crown = np.stack((np.cos(turn) * half, -0.97 * np.sin(turn) ** 0.85), axis=1)
    outline = _smooth(np.concatenate((points[:17], crown[-2:0:-1])), closed=True)
    hairline = who.hairline * (half * 1.02, 1)
    if who.fall:
        back = np.array([(1.24, who.fall / 2), (1.18, who.fall)]) * (half, 1)
        sketch.add(_smooth([*crown * 1.14, *back, *back[::-1] * (-1, 1)], closed=True), _mix(who.hair, _DARK, 0.4))
    sketch.add([(-0.62 * half, 0.9), (0.62 * half, 0.9), (0.62 * half, 2.6), (-0.62 * half, 2.6)], skin(0.22))
    sketch.add(
        _smooth([(-2, 2.6), (-1.7, 1.75), (-0.7, 1.55), (0, 1.8), (0.7, 1.55), (1.7, 1.75), (2, 2.6)]), who.clothes
    )
    for ear in points[[1, 15]]:
        sketch.add(_ellipse(ear * 1.03 - (0, 0.08), 0.15, 0.26), skin(0.08))
    sketch.add(_smooth(crown * 1.05), who.hair)
    sketch.add(outline, who.skin)
    sketch.shade(outline, 0.82, 0.75)
    sketch.shade(outline * (0.86, 0.9) + (0, 0.03), 1.0)
    if who.beard:
        moustache = points[[54, 52, 51, 50, 48]] * (1.15, 1) - (0, 0.09)
        edge = _smooth([points[14], *moustache, points[2]])
        sketch.add([*_smooth(points[2:15]), *edge], _mix(who.skin, who.hair, 0.75))
    sketch.shade(_ellipse((0, -0.6), 0.4, 0.14), 1.08)
    sketch.shade(_ellipse(points[30], 0.08, 0.08), 1.14)
    for below in (points[57] + (0, 0.08), points[33] + (0, 0.07)):
        sketch.shade(_ellipse(below, 0.2, 0.05), 0.86, 0.8)
    for sign, wing, corner, brow, lids in ((-1, 31, 48, 21, points[36:42]), (1, 35, 54, 22, points[42:48])):
        x, y = lids.mean(axis=0)
        cheeks = max(shown[6], shown[12])
        sketch.shade(_ellipse((x, y - 0.13), 0.26, 0.14), 0.88, 0.84)
        sketch.shade(_ellipse((1.15 * x, 0.48 - 0.06 * cheeks), 0.24, 0.15), 1.06, 0.98 - 0.05 * cheeks)
        fold = (points[wing] + points[corner]) / 2 + (0.14 * sign, -0.05)
        fold = _smooth([points[wing] + (0.05 * sign, -0.05), fold, points[corner] + (0.11 * sign, -0.02)])
        sketch.add(fold, skin(0.1 * who.age + 0.25 * max(shown[12], shown[9])), 0.022)
        sketch.add(
            points[brow] - ((0.12 * sign, 0.08), (0.11 * sign, -0.1)), skin(0.05 * who.age + 0.3 * shown[4]), 0.02
        )
        sketch.add(_smooth(lids[[0, 5, 4, 3]] + (0, 0.07)), skin(0.15 * who.age + 0.2 * shown[6]), 0.02)
        sketch.add(_ellipse(points[wing] * 0.6 + points[33] * 0.4 + (0, 0.015), 0.05, 0.026), skin(0.65))
        sketch.add(_smooth(points[wing] + ((0, -0.11), (0.035 * sign, -0.04), (0.01 * sign, 0.02))), skin(0.45), 0.022)
        _add_eye(sketch, who, lids, gaze)
    _add_mouth(sketch, who, points)
    edge = _smooth([*hairline, *hairline[-2::-1] * (-1, 1)])
    sketch.add([*_smooth(crown * (1.03, 1.10)), *edge], who.hair)
    for curve in (_smooth(points[17:22]), _smooth(points[26:21:-1])):
        thick = who.brow * np.linspace(0.15, 0.55, len(curve))[:, None] * (0, 1)
        sketch.add([*curve - thick, *(curve + thick)[::-1]], _mix(who.hair, (46, 34, 30), 0.45))
    if who.glasses:
        for lids, temple in ((points[36:42], points[0]), (points[42:48], points[16])):
            x, y = lids.mean(axis=0)
            sketch.add(_smooth(_ellipse((x, y + 0.05), 0.36, 0.27), closed=True), _FRAME, 0.03)
            sketch.add([(x + 0.36 * np.sign(x), y), temple - (0, 0.06)], _FRAME, 0.03)
        sketch.add([(-0.14, 0.02), (0, -0.03), (0.14, 0.02)], _FRAME, 0.03)
    return sketch


def _add_eye(sketch: Sketch, who: Person, lids: FloatArray, gaze: FloatArray) -> None:
    upper, lower = _smooth(lids[:4]), _smooth(lids[[0, 5, 4, 3]])
    sketch.add([*upper, *lower[::-1]], (246, 244, 240))
    x, y = lids[[0, 3]].mean(axis=0) + gaze - (0, 0.015)
    for radius, colour in ((0.125, _mix(who.iris, _DARK, 0.5)), (0.1, who.iris), (0.055, (18, 14, 14))):
        disc = _ellipse((x, y), radius, radius)
        low, high = (np.interp(disc[:, 0], curve[:, 0], curve[:, 1]) for curve in (upper, lower))
        disc[:, 1] = np.clip(disc[:, 1], low, high)
        sketch.add(disc, colour)
    if lids[4, 1] - lids[2, 1] > 0.12:
        sketch.add(_ellipse((x - 0.04, y - 0.045), 0.028, 0.028), (255, 255, 255))
    for line in (lower, upper - (0, 0.075)):
        sketch.add(line, _mix(who.skin, _DARK, 0.45), 0.014)
    sketch.add(upper, _mix(who.hair, _DARK, 0.75), 0.036)


def _add_mouth(sketch: Sketch, who: Person, points: FloatArray) -> None:
    lips = _mix(who.skin, (170, 40, 50), 0.45)
    upper, lower = _smooth(points[60:65]), _smooth(points[[60, 67, 66, 65, 64]])
    sketch.add([*_smooth(points[48:55]), *upper[::-1]], _mix(lips, _DARK, 0.18))
    sketch.add([*_smooth(points[[48, 59, 58, 57, 56, 55, 54]]), *lower[::-1]], lips)
    sketch.add([*upper, *lower[::-1]], (84, 28, 34))
    if points[66, 1] - points[62, 1] > 0.02:
        teeth = np.clip(upper[:, 1] + 0.1, upper[:, 1], np.maximum(0.2 * upper[:, 1] + 0.8 * lower[:, 1], upper[:, 1]))
        sketch.add([*upper, *np.stack((upper[:, 0], teeth), axis=1)[::-1]], (248, 244, 236))
    sketch.add(upper, _mix(lips, _DARK, 0.7), 0.02)


def _smooth(points: ArrayLike, *, closed: bool = False) -> FloatArray:
    """A Catmull-Rom spline through points, (N, 2) to (M, 2); the ends are sharp unless it is closed."""
    knots = np.asarray(points, dtype=np.float64)
    first, last = (knots[-1:], knots[:2]) if closed else (2 * knots[:1] - knots[1:2], 2 * knots[-1:] - knots[-2:-1])
    knots = np.concatenate((first, knots, last))
    windows = np.stack([knots[start : len(knots) - 3 + start] for start in range(4)], axis=1)
    flat = (_SPLINE @ windows).reshape(-1, 2)
    return flat if closed else np.concatenate((flat, knots[-2:-1]))


def _ellipse(centre: ArrayLike, across: float, down: float) -> FloatArray:
    return _CIRCLE * (across, down) + np.asarray(centre, dtype=np.float64)


def _mix(one: Colour, other: Colour, fraction: float) -> Colour:
    red, green, blue = (a + (b - a) * fraction for a, b in zip(one, other, strict=True))
    return red, green, blue


def _rgb(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (min(max(round(part), 0), 255) for part in colour)
    return red, green, blue

"""How a synthetic face becomes pixels: from the ears to the glasses, through the landmarks.

Every feature is painted from the 68 points and placed by the same `Pose` as they are, so the landmarks that the caller
keeps are true to the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featlab.extraction.synthetic_canvas import Canvas, Colour, Layer, Pose, Shape, deeper, ellipse, mix, moved, smooth
from featlab.extraction.synthetic_people import ACTION_UNITS, FloatArray, Look

# Half a hairline: from the temple inwards, in half face widths and face units. A second half where hair is parted.
_SIDES: dict[str, tuple[tuple[float, float], ...]] = {
    "crop": ((1.0, -0.10), (0.94, -0.36), (0.80, -0.58), (0.45, -0.70), (0.12, -0.69)),
    "parting": ((1.0, 0.02), (0.95, -0.38), (0.78, -0.60), (0.50, -0.78), (0.34, -0.82)),
    "swept": ((1.0, 0.02), (0.95, -0.30), (0.80, -0.42), (0.45, -0.54), (0.12, -0.66)),
    "fringe": ((1.0, 0.30), (0.96, -0.26), (0.82, -0.50), (0.45, -0.54), (0.12, -0.55)),
    "centre": ((1.0, 0.40), (0.97, -0.18), (0.82, -0.46), (0.42, -0.70), (0.05, -0.84)),
    "receding": ((1.0, -0.12), (0.96, -0.44), (0.88, -0.66), (0.70, -0.86), (0.25, -0.86)),
    "curls": ((1.0, 0.00), (0.94, -0.30), (0.80, -0.50), (0.45, -0.62), (0.12, -0.64)),
    "shaved": ((1.0, -0.12), (0.95, -0.40), (0.82, -0.60), (0.45, -0.74), (0.12, -0.75)),
}
_HAIRLINES = {
    **{style: (style, style) for style in ("crop", "fringe", "centre", "receding", "curls", "shaved")},
    "parting": ("parting", "swept"),
    "bob": ("parting", "swept"),
}
_FALL = {"fringe": 1.9, "centre": 1.9, "bob": 1.0, "curls": 0.5}  # how far down the back hair falls
_LIFT = {"crop": 0.09, "curls": 0.15, "shaved": 0.015, "receding": 0.04}  # how high the hair stands


def paint(
    look: Look,
    points: FloatArray,
    levels: FloatArray,
    gaze: FloatArray,
    pose: Pose,
    size: int,
    in_front: Callable[[Canvas], None] | None = None,
) -> NDArray[np.uint8]:
    """Paint one face.

    Args:
        look: Colours, hair, lines, glasses.
        points: The 68 landmarks after the expression, (68, 2), face units.
        levels: Action-unit levels, resting ones included, (A,); they deepen the lines that landmarks don't carry.
        gaze: Shift of the irises, (2,), face units.
        pose: Where the face lies.
        size: Side of the picture in pixels.
        in_front: Paints what hides a part of the face, last.

    Returns:
        The picture, (size, size, 3) uint8 RGB.
    """
    canvas = Canvas(size, pose, look.backdrop)
    strength = {unit: float(np.clip(level, 0.0, 1.3)) for unit, level in zip(ACTION_UNITS, levels, strict=True)}
    outline = smooth(np.concatenate((points[:17], _crown(points, 0.0)[-2:0:-1])), closed=True)
    hairline = _hairline(look, points)
    _paint_behind(canvas, look, points, outline)
    canvas.relief(outline, look.skin, _skin_layers(look, points, outline, hairline, max(strength[6], strength[12])))
    _paint_lines(canvas, look, points, strength)
    _paint_nose(canvas, look, points)
    _paint_mouth(canvas, look, points)
    for corners in (range(36, 42), range(42, 48)):
        _paint_eye(canvas, look, points[list(corners)], gaze)
    if look.style != "shaved":
        _paint_hair(canvas, look, points, hairline)
    for brow in (points[17:22], points[26:21:-1]):
        _paint_brow(canvas, look, brow)
    if look.glasses is not None:
        _paint_glasses(canvas, look.glasses, points)
    if in_front is not None:
        in_front(canvas)
    return canvas.pixels()


def _half_width(points: FloatArray) -> float:
    return 0.5 * float(points[16, 0] - points[0, 0])


def _crown(points: FloatArray, lift: float, knots: int = 10) -> NDArray[np.float64]:
    """The top of the head from the image-left temple to the right, `lift` above the skull."""
    turn = np.linspace(np.pi, 0, knots)
    wide = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.85 * (_half_width(points) + 0.6 * lift)
    return np.stack((wide, -(np.abs(np.sin(turn)) ** 0.9) * (0.97 + lift)), axis=1)


def _paint_behind(canvas: Canvas, look: Look, points: FloatArray, outline: NDArray[np.float64]) -> None:
    half = _half_width(points)
    if look.style != "shaved":  # where a hairline lies outside the skull, hair shows and not the backdrop
        canvas.fill(smooth(_crown(points, 0.8 * _LIFT.get(look.style, 0.1))), deeper(look.hair, 0.22))
    fall = _FALL.get(look.style)
    if fall is not None:
        wide = half + 0.19
        sides = [(wide, 0.5 * fall), (wide - 0.05, fall), (0.0, fall), (0.05 - wide, fall), (-wide, 0.5 * fall)]
        top = _crown(points, _LIFT.get(look.style, 0.1) + 0.03)
        canvas.fill(smooth(np.concatenate((top, sides)), closed=True), deeper(look.hair, 0.35))
    neck = half * 0.62
    throat = [(-neck, 0.9), (neck, 0.9), (neck + 0.06, 2.6), (-neck - 0.06, 2.6)]
    shadow = Layer([(moved(outline * (0.95, 1.0), 0.0, 0.1), 0.8)], deeper(look.skin, 0.6), 0.05)
    canvas.relief(throat, deeper(look.skin, 0.12), [shadow])
    collar = [(-2.0, 2.6), (-1.7, 1.75), (-neck - 0.12, 1.5), (0.0, 1.82), (neck + 0.12, 1.5), (1.7, 1.75), (2.0, 2.6)]
    canvas.fill(smooth(collar), look.clothes)
    for side, temple in ((-1.0, points[1]), (1.0, points[15])):
        x, y = float(temple[0]) + 0.04 * side, float(temple[1]) - 0.08
        canvas.fill(ellipse(x, y, 0.15, 0.26), deeper(look.skin, 0.06))
        canvas.fill(ellipse(x + 0.03 * side, y - 0.01, 0.075, 0.16), deeper(look.skin, 0.3))


def _skin_layers(
    look: Look, points: FloatArray, outline: NDArray[np.float64], hairline: NDArray[np.float64], cheek: float
) -> list[Layer]:
    """Light and shade of the skin, stubble included; `cheek` (0..1) is how far the cheeks are raised."""
    left, right = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    tip, wing, chin, lip = points[30], points[35], points[8], points[57]
    side_of_nose = [
        moved(points[27], 0.1, 0.02),
        moved(points[29], 0.08, 0.0),
        moved(wing, 0.05, 0.0),
        moved(points[29], 0.17, 0.0),
    ]
    dark: list[Shape] = [
        *((ellipse(x, y - 0.12, 0.26, 0.15), 0.42) for x, y in (left, right)),
        (side_of_nose, 0.5),
        (ellipse(tip[0], points[33, 1] + 0.06, 0.2, 0.05), 0.6),
        (ellipse(lip[0], lip[1] + 0.07, 0.18, 0.045), 0.6),
    ]
    cheek = 0.5 + 0.5 * min(cheek, 1.0)
    ridge = [moved(points[27], -0.06, 0.0), moved(points[27], 0.04, 0.0), moved(tip, 0.05, 0.0), moved(tip, -0.06, 0.0)]
    bright: list[Shape] = [
        (ellipse(0.0, -0.6, 0.4, 0.12), 0.3),
        *((ellipse(x, 0.38 - 0.06 * cheek, 0.2, 0.11), 0.45 * cheek) for x in (left[0] - 0.07, right[0] + 0.07)),
        (ellipse(chin[0], chin[1] - 0.17, 0.14, 0.08), 0.35),
        (ridge, 0.6),
        (ellipse(tip[0] - 0.02, tip[1] + 0.03, 0.09, 0.07), 0.75),
    ]
    cheeks = ((left[0] - 0.1, 0.52 - 0.08 * cheek), (right[0] + 0.1, 0.52 - 0.08 * cheek))
    blush: list[Shape] = [(ellipse(x, y, 0.25, 0.18), 0.2 + 0.3 * cheek) for x, y in cheeks]
    above = smooth(_crown(points, 0.3))
    layers = [
        Layer([(outline, 0.55)], deeper(look.skin, 0.55), 0.06, outside=moved(outline * (0.86, 0.9), 0.0, 0.04)),
        Layer(dark, deeper(look.skin, 0.55), 0.05),
        Layer(bright, mix(look.skin, (255, 246, 232), 0.55), 0.055),
        Layer(blush, mix(look.skin, look.lips, 0.55), 0.09),
    ]
    if look.beard:
        layers.append(Layer([(_beard(points), look.beard)], mix(look.hair, look.skin, 0.1), 0.03))
    if look.style == "shaved":
        return [*layers, Layer([(np.concatenate((above, hairline[::-1])), 0.65)], look.hair, 0.02)]
    return [
        *layers,
        Layer([(np.concatenate((above, moved(hairline[::-1], 0.0, 0.07))), 0.5)], deeper(look.skin, 0.6), 0.035),
    ]


def _paint_lines(canvas: Canvas, look: Look, points: FloatArray, strength: dict[int, float]) -> None:
    """Folds and wrinkles: faint with age, deep with the action unit that makes them."""
    lines: list[Shape] = []
    for side, wing, corner, inner, outer, lid in (
        (-1, 31, 48, 21, 36, [36, 41, 40, 39]),
        (1, 35, 54, 22, 45, [42, 47, 46, 45]),
    ):
        fold = 0.2 * look.age + 0.5 * strength[12] + 0.5 * max(strength[9], strength[10])
        middle = moved(0.5 * (points[wing] + points[corner]), 0.13 * side, -0.05)
        cheek_fold = [moved(points[wing], 0.05 * side, -0.05), middle, moved(points[corner], 0.1 * side, -0.02)]
        lines.append((smooth(cheek_fold), fold))
        brow = points[inner]
        furrow = [moved(brow, -0.12 * side, -0.08), moved(brow, -0.11 * side, 0.10)]
        lines.append((furrow, 0.1 * look.age + 0.8 * strength[4]))
        lines.append(([moved(brow, -0.13 * side, 0.2), moved(brow, -0.2 * side, 0.28)], strength[9]))
        for turn in (-0.05, 0.02, 0.09):
            feet = [moved(points[outer], 0.09 * side, 0.6 * turn), moved(points[outer], 0.2 * side, 1.6 * turn)]
            lines.append((feet, 0.25 * look.age + 0.4 * strength[6]))
        bag = 0.25 * look.age + 0.5 * strength[6] + 0.3 * strength[7]
        lines.append((smooth(moved(points[lid], 0.0, 0.07)), bag))
    raised = 0.3 * look.age + 0.7 * max(strength[1], strength[2])
    for height in (-0.56, -0.65):
        forehead = [(-0.45, height + 0.03), (-0.2, height), (0.2, height), (0.45, height + 0.03)]
        lines.append((smooth(forehead), raised))
    canvas.strokes([line for line in lines if line[1] > 0.05], deeper(look.skin, 0.7), 0.022)
    for x, y in look.freckles:
        canvas.fill(ellipse(x, y, 0.012, 0.012), deeper(look.skin, 0.3))


def _paint_nose(canvas: Canvas, look: Look, points: FloatArray) -> None:
    for side, wing, nostril in ((-1, 31, 32), (1, 35, 34)):
        x, y = points[nostril]
        canvas.fill(ellipse(float(x) + 0.01 * side, float(y), 0.052, 0.028), deeper(look.skin, 0.95))
        curve = [moved(points[wing], *step) for step in ((0.0, -0.11), (0.035 * side, -0.04), (0.01 * side, 0.02))]
        canvas.line(smooth(curve), deeper(look.skin, 0.55), 0.024)


def _paint_mouth(canvas: Canvas, look: Look, points: FloatArray) -> None:
    upper_out, lower_out = smooth(points[48:55]), smooth(points[[54, 55, 56, 57, 58, 59, 48]])
    upper_in, lower_in = smooth(points[60:65]), smooth(points[[64, 65, 66, 67, 60]])
    gap = max(float(points[66, 1] - points[62, 1]), 0.0)
    opening = np.concatenate((upper_in, lower_in))
    inside: list[tuple[ArrayLike, Colour]] = [(opening, (78, 28, 32))]
    if gap > 0.03:
        teeth = np.concatenate((moved(upper_in, 0.0, -0.05), moved(upper_in[::-1], 0.0, min(0.10, 0.75 * gap))))
        inside.append((ellipse(0.0, float(points[66, 1]) + 0.02, 0.2, 0.5 * gap), (178, 86, 88)))
        inside.append((teeth, (246, 242, 234)))
    canvas.fill_inside(opening, inside)
    canvas.fill(np.concatenate((upper_out, upper_in[::-1])), deeper(look.lips, 0.15))
    canvas.fill(np.concatenate((lower_out, lower_in[::-1])), look.lips)
    x, y = points[57] * 0.6 + points[66] * 0.4
    canvas.fill(ellipse(float(x), float(y), 0.09, 0.014), mix(look.lips, (255, 236, 230), 0.35))
    canvas.line(upper_in, deeper(look.lips, 0.75), 0.024)
    for corner in points[[48, 54]]:
        canvas.fill(ellipse(float(corner[0]), float(corner[1]), 0.02, 0.018), deeper(look.lips, 0.75))


def _paint_eye(canvas: Canvas, look: Look, eye: FloatArray, gaze: FloatArray) -> None:
    """Paint one eye; `eye` runs around it from the image-left corner, over the upper lid."""
    upper, lower = smooth(eye[:4]), smooth(eye[[3, 4, 5, 0]])
    opening = np.concatenate((upper, lower))
    x, y = float(eye[[0, 3], 0].mean()) + float(gaze[0]), float(eye[[0, 3], 1].mean()) - 0.015 + float(gaze[1])
    ball: list[tuple[ArrayLike, Colour]] = [
        (opening, (246, 244, 240)),
        (ellipse(x, y, 0.128, 0.128), mix(look.iris, (0, 0, 0), 0.5)),
        (ellipse(x, y + 0.01, 0.102, 0.102), look.iris),
        (ellipse(x, y, 0.056, 0.056), (18, 14, 14)),
        (np.concatenate((upper, moved(upper[::-1], 0.0, 0.03))), mix(look.iris, (90, 80, 80), 0.6)),
        (ellipse(x - 0.04, y - 0.045, 0.03, 0.03), (255, 255, 255)),
    ]
    canvas.fill_inside(opening, ball)
    canvas.line(lower, deeper(look.skin, 0.5), 0.014)
    canvas.line(smooth(moved(eye[:4], 0.0, -0.075)), deeper(look.skin, 0.5), 0.016)
    outer = eye[0] if eye[0, 0] < 0 else eye[3]
    flick = moved(outer, 0.035 * float(np.sign(outer[0])), -0.03)
    lid = np.concatenate(([flick], upper)) if eye[0, 0] < 0 else np.concatenate((upper, [flick]))
    canvas.line(lid, mix(look.hair, (20, 14, 14), 0.75), look.lashes)


def _paint_brow(canvas: Canvas, look: Look, brow: FloatArray) -> None:
    """Paint one brow; `brow` runs from its outer end inwards."""
    curve = smooth(brow)
    along = np.linspace(0, 1, len(curve))[:, None]
    half = look.brow * (0.12 + 0.42 * along**0.7) * (0.0, 1.0)
    shape = np.concatenate((curve - half, curve[::-1] + half[::-1]))
    canvas.fill(shape, mix(mix(look.hair, (46, 34, 30), 0.45), look.skin, 0.12))


def _hairline(look: Look, points: FloatArray) -> NDArray[np.float64]:
    left, right = (np.array(_SIDES[side]) for side in _HAIRLINES[look.style])
    line = np.concatenate((left * (-1.0, 1.0), right[::-1])) * (1.02 * _half_width(points), 1.0)
    return smooth(line if look.parting_left else line[::-1] * (-1.0, 1.0))


def _paint_hair(canvas: Canvas, look: Look, points: FloatArray, inner: NDArray[np.float64]) -> None:
    outer = smooth(_crown(points, _LIFT.get(look.style, 0.1)))
    cap = np.concatenate((outer, inner[::-1]))
    canvas.fill(cap, look.hair)
    gloss = mix(look.hair, (255, 236, 214), 0.22)
    if look.style == "curls":
        centres = np.concatenate((outer[1:-1:3], 0.5 * (outer + inner)[1:-1:4], inner[2:-2:3]))
        for step, (x, y) in enumerate(centres):
            shade = mix(look.hair, gloss, 0.4) if step % 2 else deeper(look.hair, 0.22)
            canvas.fill(ellipse(float(x), float(y), 0.12, 0.11), shade)
        return
    tints = (mix(look.hair, gloss, 0.4), look.hair, deeper(look.hair, 0.22))
    for step, (top, root) in enumerate(zip(outer[2:-2:2], inner[2:-2:2], strict=True)):
        canvas.line([0.93 * top + 0.07 * root, 0.08 * top + 0.92 * root], tints[step % 3], 0.02)
    band = np.concatenate(
        (outer[12:-12] * 0.72 + inner[12:-12] * 0.28, outer[-13:11:-1] * 0.45 + inner[-13:11:-1] * 0.55)
    )
    canvas.glaze(Layer([(band, 0.7)], gloss, 0.05), cap)


def _beard(points: FloatArray) -> NDArray[np.float64]:
    above = moved(points[[54, 52, 51, 50, 48]], 0.0, -0.09)
    above[[0, -1]] += ((0.12, -0.04), (-0.12, -0.04))
    edge = np.concatenate((points[14:15] * (0.93, 1.0), above, points[2:3] * (0.93, 1.0)))
    return np.concatenate((smooth(points[2:15]), smooth(edge)))


def _paint_glasses(canvas: Canvas, frame: Colour, points: FloatArray) -> None:
    turn = np.linspace(0, 2 * np.pi, 28)
    ring = np.stack([np.sign(wave) * np.abs(wave) ** 0.7 for wave in (np.cos(turn), np.sin(turn))], axis=1) * (
        0.37,
        0.27,
    )
    left, right = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    for centre, temple in ((left, points[0]), (right, points[16])):
        canvas.line(moved(ring, float(centre[0]), 0.05), frame, 0.036)
        canvas.line([(centre[0] + 0.37 * np.sign(centre[0]), -0.02), (temple[0], -0.06)], frame, 0.036)
    canvas.line(smooth([(left[0] + 0.36, 0.0), (0.0, -0.05), (right[0] - 0.36, 0.0)]), frame, 0.036)

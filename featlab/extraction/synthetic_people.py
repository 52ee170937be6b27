"""Who a synthetic person is and how the face moves: 68 landmarks, action units, identity.

Everything here is geometry in *face units*: one unit is the nominal distance between the eye centres, the origin lies
midway between the eyes, x points to the right of the image and y down. Pixels are the business of `synthetic_render`.

An expression is a set of action units (Ekman & Friesen, Facial Action Coding System, 1978; the sets follow the
EMFACS prototypes). An action unit moves landmarks along fixed vectors; a person adds a gain per unit and side
(expressiveness) and a resting level per unit, so that one person's resting face looks like another's mild expression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.extraction.synthetic_canvas import Colour

FloatArray = NDArray[np.float32]

EXPRESSIONS = ("neutral", "happiness", "sadness", "anger", "fear", "disgust", "surprise")

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 23, 25, 26, 43)

# Action-unit levels at intensity 1.
RECIPES: dict[str, dict[int, float]] = {
    "neutral": {},
    "happiness": {6: 0.9, 12: 1.0, 25: 0.9, 26: 0.1},
    "sadness": {1: 1.0, 4: 0.5, 7: 0.3, 15: 1.0, 17: 0.6, 43: 0.15},
    "anger": {4: 1.0, 5: 0.4, 7: 0.6, 17: 0.4, 23: 1.0},
    "fear": {1: 1.0, 2: 0.6, 4: 0.4, 5: 1.0, 20: 1.0, 25: 0.8, 26: 0.3},
    "disgust": {4: 0.4, 7: 0.5, 9: 1.0, 10: 1.0, 15: 0.3, 17: 0.3},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.9, 25: 0.6, 26: 1.0},
}

# The image-left half of the average face; the other half is its mirror image.
_HALF_FACE: dict[int, tuple[float, float]] = {
    **{0: (-1.0, 0.0), 1: (-1.0, 0.26), 2: (-0.97, 0.52), 3: (-0.89, 0.77), 4: (-0.76, 1.0)},
    **{5: (-0.59, 1.20), 6: (-0.40, 1.35), 7: (-0.21, 1.43), 8: (0.0, 1.455)},
    **{17: (-0.83, -0.29), 18: (-0.69, -0.39), 19: (-0.53, -0.42), 20: (-0.36, -0.40), 21: (-0.20, -0.35)},
    **{27: (0.0, -0.03), 28: (0.0, 0.14), 29: (0.0, 0.31), 30: (0.0, 0.47)},
    **{31: (-0.20, 0.60), 32: (-0.10, 0.63), 33: (0.0, 0.65)},
    **{36: (-0.74, 0.0), 37: (-0.61, -0.125), 38: (-0.42, -0.13), 39: (-0.27, 0.02)},
    **{40: (-0.40, 0.10), 41: (-0.60, 0.10)},
    **{48: (-0.37, 0.945), 49: (-0.23, 0.895), 50: (-0.08, 0.87), 51: (0.0, 0.88)},
    **{57: (0.0, 1.07), 58: (-0.10, 1.062), 59: (-0.24, 1.02)},
    **{60: (-0.33, 0.947), 61: (-0.10, 0.945), 62: (0.0, 0.95), 66: (0.0, 0.955), 67: (-0.10, 0.95)},
}

# Displacement at level 1, image-left half and midline.
_HALF_ACTIONS: dict[int, dict[int, tuple[float, float]]] = {
    1: {21: (0.01, -0.15), 20: (0.0, -0.12), 19: (0.0, -0.06), 18: (0.0, -0.02)},
    2: {17: (0.0, -0.10), 18: (0.0, -0.14), 19: (0.0, -0.11), 20: (0.0, -0.04), 37: (0.0, -0.01)},
    4: {21: (0.07, 0.12), 20: (0.06, 0.11), 19: (0.04, 0.08), 18: (0.02, 0.04), 17: (0.01, 0.01), 38: (0.0, 0.02)},
    5: {37: (0.0, -0.065), 38: (0.0, -0.07)},
    6: {40: (0.0, -0.05), 41: (0.0, -0.055), 36: (0.01, 0.01), 17: (0.0, 0.02), 18: (0.0, 0.01), 2: (-0.02, 0.0)},
    7: {37: (0.0, 0.035), 38: (0.0, 0.04), 40: (0.0, -0.035), 41: (0.0, -0.03)},
    9: {
        **{30: (0.0, -0.05), 31: (-0.03, -0.07), 32: (-0.01, -0.06), 33: (0.0, -0.05), 40: (0.0, -0.02)},
        **{20: (0.02, 0.05), 21: (0.03, 0.07), 49: (0.0, -0.03), 50: (0.0, -0.04), 51: (0.0, -0.04)},
    },
    10: {
        **{31: (-0.02, -0.02), 48: (-0.02, 0.0), 49: (-0.01, -0.07), 50: (0.0, -0.10), 51: (0.0, -0.09)},
        **{60: (-0.01, 0.0), 61: (0.0, -0.07), 62: (0.0, -0.07)},
    },
    12: {
        **{48: (-0.14, -0.13), 49: (-0.09, -0.06), 50: (-0.03, 0.01), 51: (0.0, 0.015)},
        **{57: (0.0, 0.03), 58: (-0.04, 0.02), 59: (-0.10, -0.04), 31: (-0.03, -0.01)},
        **{60: (-0.13, -0.12), 61: (-0.05, 0.005), 62: (0.0, 0.015), 66: (0.0, 0.02), 67: (-0.05, 0.01)},
        **{2: (-0.02, -0.01), 3: (-0.03, -0.02), 4: (-0.02, -0.02)},
    },
    15: {48: (-0.01, 0.13), 49: (0.0, 0.04), 59: (-0.01, 0.07), 60: (-0.01, 0.12), 58: (0.0, 0.01)},
    17: {
        **{7: (0.0, -0.03), 8: (0.0, -0.035), 50: (0.0, -0.03), 51: (0.0, -0.035), 57: (0.0, -0.06)},
        **{58: (0.0, -0.05), 61: (0.0, -0.03), 62: (0.0, -0.035), 66: (0.0, -0.035), 67: (0.0, -0.03)},
    },
    20: {48: (-0.12, 0.05), 49: (-0.06, 0.01), 59: (-0.07, 0.03), 60: (-0.11, 0.05), 67: (-0.03, 0.0)},
    23: {
        **{48: (0.06, 0.0), 49: (0.03, 0.03), 50: (0.0, 0.045), 51: (0.0, 0.04), 57: (0.0, -0.05)},
        **{58: (0.01, -0.045), 59: (0.03, -0.03), 60: (0.05, 0.0)},
    },
    25: {
        **{50: (0.0, -0.015), 51: (0.0, -0.015), 61: (0.0, -0.03), 62: (0.0, -0.03)},
        **{57: (0.0, 0.06), 58: (0.0, 0.06), 59: (0.0, 0.03), 66: (0.0, 0.07), 67: (0.0, 0.065)},
    },
    26: {
        **{4: (0.01, 0.04), 5: (0.02, 0.09), 6: (0.01, 0.12), 7: (0.0, 0.13), 8: (0.0, 0.13)},
        **{48: (0.05, 0.06), 49: (0.03, -0.01), 57: (0.0, 0.21), 58: (0.0, 0.205), 59: (0.03, 0.15)},
        **{60: (0.05, 0.06), 61: (0.0, -0.01), 62: (0.0, -0.01), 66: (0.0, 0.22), 67: (0.01, 0.21)},
    },
    43: {},  # closing the eyes is relative to how far they are open: see `deform`
}

# For each landmark, the one on the other side of the face.
MIRROR = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1)),  # jaw, brows
        *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),  # mouth
    ]
)
_LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
_LIPS = ((50, 61, 67, 58), (51, 62, 66, 57), (52, 63, 65, 56))  # from the upper edge to the lower


def _both_halves(half: dict[int, tuple[float, float]]) -> FloatArray:
    points = np.zeros((68, 2), dtype=np.float32)
    for index, (x, y) in half.items():
        points[index] = (x, y)
        points[MIRROR[index]] = (-x, y)
    return points


AVERAGE_FACE = _both_halves(_HALF_FACE)
_MOVES = np.stack([_both_halves(_HALF_ACTIONS[unit]) for unit in ACTION_UNITS])
# 1 for points of the image-right half, 0 for the left, 1/2 on the midline: blends the two sides' gains.
_SIDE = (0.5 + 0.5 * np.sign(np.round(AVERAGE_FACE[:, :1], 6))).astype(np.float32)

_SKIN: tuple[Colour, ...] = (
    *((250, 221, 200), (243, 205, 178), (233, 190, 158), (217, 168, 130), (193, 141, 103), (160, 110, 78)),
    *((126, 84, 60), (94, 62, 46)),
)
# From dark to light: skin deeper than the third tone takes one of the first three.
_HAIR: tuple[Colour, ...] = (
    *((38, 30, 28), (62, 44, 36), (96, 64, 44), (136, 92, 56), (186, 140, 84), (222, 188, 128)),
    *((150, 72, 40), (72, 56, 50)),
)
_GREY = ((122, 118, 116), (168, 164, 162), (206, 204, 202))
_IRIS = ((74, 48, 32), (104, 70, 40), (92, 108, 60), (72, 112, 128), (82, 128, 168), (112, 120, 126))
_CLOTHES = ((60, 88, 122), (150, 72, 66), (86, 120, 92), (226, 190, 104), (96, 82, 122), (70, 74, 82), (214, 214, 208))
_BACKDROP: tuple[Colour, ...] = (
    *((214, 224, 228), (230, 222, 208), (206, 214, 198), (226, 208, 204), (198, 206, 222), (220, 220, 220)),
    *((182, 196, 196), (238, 230, 214)),
)
_HAIR_STYLES = ("crop", "parting", "fringe", "centre", "receding", "curls", "bob", "shaved")


@dataclass(frozen=True)
class Look:
    """What is seen of a person beside the 68 points: colours (RGB, 0-255), hair, marks of age, glasses."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    clothes: Colour
    backdrop: Colour
    style: str
    parting_left: bool
    brow: float  # thickness, face units
    lashes: float  # thickness, face units
    age: float  # 0..1: how deep the resting lines are
    freckles: FloatArray  # (n, 2) face units; n may be 0
    beard: float  # 0 none, 0.35 stubble, 0.85 full
    glasses: Colour | None


@dataclass(frozen=True)
class Person:
    """One synthetic person.

    Attributes:
        shape: The face with every action unit at zero, (68, 2) float32, face units.
        rest: Resting level of each of `ACTION_UNITS`, (A,) float32; negative means pulled the other way.
        gain: Expressiveness of each action unit on the image-left and image-right side, (A, 2) float32.
        look: Colours, hair and the rest.
    """

    shape: FloatArray
    rest: FloatArray
    gain: FloatArray
    look: Look


def recipe(expression: str) -> FloatArray:
    """Return the action-unit levels of an expression at intensity 1, (A,) float32."""
    levels = RECIPES[expression]
    return np.array([levels.get(unit, 0.0) for unit in ACTION_UNITS], dtype=np.float32)


def deform(person: Person, levels: FloatArray, twitch: FloatArray) -> FloatArray:
    """Move a person's landmarks by action units.

    Args:
        person: Whose face.
        levels: Level of each action unit on top of the resting face, (A,) float32.
        twitch: Movement that no action unit covers, (68, 2) float32, face units.

    Returns:
        The landmarks, (68, 2) float32, face units. Lids and lips never cross.
    """
    left, right = (person.rest + person.gain[:, side] * levels for side in (0, 1))
    moves = np.tensordot(left, _MOVES, 1) * (1 - _SIDE) + np.tensordot(right, _MOVES, 1) * _SIDE
    points = person.shape + moves + twitch
    closed = np.clip(0.5 * (left + right)[ACTION_UNITS.index(43)], 0.0, 1.0)
    for upper, lower in _LIDS:
        gap = max(float(points[lower, 1] - points[upper, 1]), 0.03)
        points[upper, 1] = points[lower, 1] - gap * (1.0 - closed)
    for top, upper, lower, bottom in _LIPS:
        if points[upper, 1] > points[lower, 1]:
            points[[upper, lower], 1] = points[[upper, lower], 1].mean()
        points[top, 1] = min(points[top, 1], points[upper, 1] - 0.02)
        points[bottom, 1] = max(points[bottom, 1], points[lower, 1] + 0.02)
    return points.astype(np.float32)


def draw_person(rng: np.random.Generator, identity_strength: float, resting_strength: float) -> Person:
    """Draw one person.

    Args:
        rng: The person's own generator; nobody else's draws come from it.
        identity_strength: Scale of the differences in face and feature shape; 0 gives everybody the same bones.
        resting_strength: Scale of the resting action-unit levels; 0 gives everybody a blank resting face.
    """
    shape = _draw_shape(rng, identity_strength)
    spread = np.array([0.22 if unit not in (25, 26, 43) else 0.08 for unit in ACTION_UNITS])
    rest = resting_strength * spread * np.clip(rng.standard_normal(len(ACTION_UNITS)), -2.2, 2.2)
    overall = rng.uniform(0.75, 1.25)
    gain = np.clip(overall * rng.uniform(0.6, 1.4, (len(ACTION_UNITS), 1)), 0.5, 1.5)
    gain = gain * rng.uniform(0.88, 1.12, (len(ACTION_UNITS), 2))
    return Person(shape, rest.astype(np.float32), gain.astype(np.float32), _draw_look(rng))


def _draw_shape(rng: np.random.Generator, strength: float) -> FloatArray:
    def draw(spread: float) -> float:
        return strength * spread * float(np.clip(rng.standard_normal(), -2.0, 2.0))

    points = AVERAGE_FACE.astype(np.float64)
    jaw, brows, nose, eyes, mouth = (
        points[part] for part in (slice(17), slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68))
    )
    down = np.clip(jaw[:, 1] / 1.43, 0.0, 1.0)
    jaw[:, 0] *= (1 + draw(0.04)) * (1 + draw(0.08) * down) * (1 + draw(0.06) * np.sin(np.pi * down))
    jaw[:, 1] *= 1 + draw(0.045)
    away = np.abs(brows[:, 0]) - 0.5
    brows[:, 1] += draw(0.045) + draw(0.11) * away - draw(0.03) * (1 - (away / 0.33) ** 2)
    side = np.sign(eyes[:, 0])
    away = np.abs(eyes[:, 0]) - 0.5
    eyes[:, 1] = eyes[:, 1] * (1 + draw(0.14)) + draw(0.09) * away
    eyes[:, 0] = side * (0.5 + draw(0.02) + away * (1 + draw(0.07)))
    nose[:, 1] = (nose[:, 1] + 0.03) * (1 + draw(0.08)) - 0.03
    nose[:, 0] *= 1 + draw(0.14)
    line = 0.95
    upper = mouth[:, 1] < line
    mouth[:, 1] = line + (mouth[:, 1] - line) * np.where(upper, 1 + draw(0.22), 1 + draw(0.22))
    mouth[:, 1] += draw(0.035) + draw(0.03) * (mouth[:, 0] / 0.37) ** 2
    mouth[:, 0] *= 1 + draw(0.09)
    return (points + _own_shape(rng, strength)).astype(np.float32)


def _own_shape(rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """What no named parameter covers: smooth bumps of the features, mostly the same on both sides."""
    bumps = rng.standard_normal((2, 68, 2)) * np.array((0.013, 0.006))[:, None, None] * strength
    even = (bumps[0] + bumps[0][MIRROR] * (-1.0, 1.0)) / np.sqrt(2) + bumps[1]
    smooth: NDArray[np.float64] = even.copy()
    for first, last in ((1, 16), (18, 21), (23, 26), (49, 54), (55, 60)):
        smooth[first:last] = (even[first - 1 : last - 1] + even[first:last] + even[first + 1 : last + 1]) / 3
    return smooth


def _draw_look(rng: np.random.Generator) -> Look:
    tone = rng.uniform(0, len(_SKIN) - 1)
    low = int(tone)
    blend = np.array(_SKIN[low]) * (low + 1 - tone) + np.array(_SKIN[min(low + 1, len(_SKIN) - 1)]) * (tone - low)
    skin = _colour(blend + rng.normal(0, 3, 3))
    age = float(rng.beta(1.2, 2.2))
    hair = _GREY[rng.integers(len(_GREY))] if age > 0.62 else _HAIR[rng.integers(len(_HAIR) if tone < 3 else 3)]
    iris = _IRIS[rng.integers(len(_IRIS)) if tone < 3 else rng.integers(2)]
    lips = _colour(np.array(skin) * (0.86, 0.60, 0.60) + np.array((18, 4, 8)) + rng.normal(0, 7, 3))
    style = _HAIR_STYLES[rng.integers(len(_HAIR_STYLES))]
    marks = rng.uniform((-0.75, 0.2), (0.75, 0.62), (60, 2)).astype(np.float32)
    freckles = marks[: rng.integers(25, 60)] if rng.random() < 0.18 and tone < 3.5 else marks[:0]
    chance = rng.random()
    beard = 0.0 if style in ("fringe", "bob", "centre") or chance < 0.55 else 0.35 if chance < 0.8 else 0.85
    frames: tuple[Colour, ...] = ((40, 36, 38), (120, 66, 40), (150, 150, 156), (110, 40, 52))
    frame = frames[rng.integers(len(frames))]
    return Look(
        skin=skin,
        hair=_colour(np.array(hair) + rng.normal(0, 6, 3)),
        iris=iris,
        lips=lips,
        clothes=_CLOTHES[rng.integers(len(_CLOTHES))],
        backdrop=_BACKDROP[rng.integers(len(_BACKDROP))],
        style=style,
        parting_left=bool(rng.random() < 0.5),
        brow=float(rng.uniform(0.05, 0.10)),
        lashes=float(rng.uniform(0.028, 0.05)),
        age=age,
        freckles=freckles,
        beard=beard,
        glasses=frame if rng.random() < 0.18 else None,
    )


def _colour(values: NDArray[np.float64]) -> Colour:
    red, green, blue = (int(value) for value in np.clip(np.round(values), 0, 255))
    return red, green, blue

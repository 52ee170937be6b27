"""Faces levelled by their eyes, at a set distance from each other, and cropped to a square."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image as PilImage

from featlab.cache.schema import ExtractorInfo
from featlab.config.options import check_choice
from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import Backbone, Image, InputSpec, Preparation
from featlab.extraction.faces import check_eyes, eye_centres

NoFace = Literal["keep", "drop"]

# A crop at the photograph's own scale is no larger than this: backbones take a few hundred pixels.
_LARGEST = 1024
_SMALLEST = 8


@dataclass(frozen=True)
class AlignConfig:
    """Where the eyes go. The crop is a square; fractions are of its side."""

    size: int | None = None
    eye_distance: float = 0.36
    eye_height: float = 0.40
    no_face: NoFace = "keep"

    def __post_init__(self) -> None:
        if self.size is not None and not _SMALLEST <= self.size <= 4096:
            raise ConfigError(f"align: size must be from {_SMALLEST} to 4096 pixels, got {self.size}")
        for name in ("eye_distance", "eye_height"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"align: {name} must be above 0 and below 1, got {getattr(self, name)}")
        check_choice("align: no_face", self.no_face, ("keep", "drop"))


def align_face(image: Image, eyes: NDArray[np.floating], config: AlignConfig) -> Image:
    """Turn, scale and crop one picture by its eyes."""
    height, width = image.shape[:2]
    left, right = (complex(float(x), float(y)) for x, y in eyes)
    native = abs(right - left) / config.eye_distance
    side = config.size if config.size is not None else min(max(round(native), 1), _LARGEST)
    # With points as complex numbers x + iy, w in the crop comes from middle + step (w - anchor) in the picture.
    step = (right - left) / (config.eye_distance * side)
    middle, anchor = (left + right) / 2, complex(side / 2, config.eye_height * side)
    shrink = max(abs(step), 1.0)
    corners = [middle + step * (complex(x, y) - anchor) for x in (0, side) for y in (0, side)]
    # Room for the interpolation's neighbours.
    room = 3 * shrink
    x0, x1 = (math.floor(min(z.real for z in corners) - room), math.ceil(max(z.real for z in corners) + room))
    y0, y1 = (math.floor(min(z.imag for z in corners) - room), math.ceil(max(z.imag for z in corners) + room))
    left_edge, right_edge, top, bottom = max(x0, 0), min(x1, width), max(y0, 0), min(y1, height)
    if left_edge >= right_edge or top >= bottom:
        raise InputError("the landmarks lie outside of the picture")
    part = PilImage.fromarray(np.ascontiguousarray(image[top:bottom, left_edge:right_edge]))
    small = (max(round(part.width / shrink), 1), max(round(part.height / shrink), 1))
    x_scale, y_scale = small[0] / part.width, small[1] / part.height
    if small != part.size:
        part = part.resize(small, PilImage.Resampling.BICUBIC)
    before = (math.ceil((left_edge - x0) * x_scale), math.ceil((top - y0) * y_scale))
    after = (math.ceil((x1 - right_edge) * x_scale), math.ceil((y1 - bottom) * y_scale))
    padded = np.pad(np.asarray(part), ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    start = middle - step * anchor
    rows = (
        (step.real * x_scale, -step.imag * x_scale, (start.real - left_edge) * x_scale + before[0]),
        (step.imag * y_scale, step.real * y_scale, (start.imag - top) * y_scale + before[1]),
    )
    turned = PilImage.fromarray(padded).transform(
        (side, side), PilImage.Transform.AFFINE, (*rows[0], *rows[1]), PilImage.Resampling.BICUBIC
    )
    return np.asarray(turned)


@dataclass(frozen=True)
class AlignThenPrepare:
    """The `Preparation` of an aligned backbone: align, then what the backbone itself does to an image."""

    config: AlignConfig
    inner: Preparation | None

    def __call__(self, image: Image, landmarks: NDArray[np.float32] | None) -> Image:
        """Align one image; the inner preparation gets no landmarks, for they are of the whole picture."""
        if landmarks is None:
            raise InputError("alignment needs landmarks, and none were given")
        eyes = eye_centres(landmarks)
        apart = np.linalg.norm(eyes[1] - eyes[0])
        # Also false for NaN.
        if apart > 0:
            face = align_face(image, eyes, self.config)
        elif self.config.no_face == "drop":
            raise InputError("no landmarks")
        else:
            size = self.config.size or min(*image.shape[:2], _LARGEST)
            face = InputSpec(size, interpolation="bicubic")(image)
        return face if self.inner is None else self.inner(face, None)


@dataclass(frozen=True)
class AlignedBackbone:
    """A backbone that sees aligned faces. Landmarks reach it as they are, in pixels of the whole picture."""

    inner: Backbone
    config: AlignConfig
    name: str
    needs_landmarks: bool  # when pictures without a face are dropped, or when the inner backbone needs them
    in_worker: bool
    prepare: Preparation
    needs_images: bool = True

    def info(self) -> ExtractorInfo:
        """Identity of the embeddings: the alignment is a part of the preprocessing."""
        inner, config = self.inner.info(), self.config
        size = "own scale" if config.size is None else f"{config.size}x{config.size}"
        otherwise = "central square" if config.no_face == "keep" else "left out"
        alignment = (
            f"aligned by the eyes ({size}, distance {config.eye_distance:g}, height {config.eye_height:g}; no face: "
            f"{otherwise})"
        )
        return replace(
            inner,
            preprocessing=f"{alignment}, {inner.preprocessing}",
            versions={**inner.versions, "pillow": PIL.__version__},
        )

    def embed(self, images: Sequence[Image], landmarks: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Embed n prepared images; see `Backbone.embed`."""
        return self.inner.embed(images, landmarks)


def with_alignment(backbone: Backbone, config: AlignConfig, *, points: int | None = None) -> Backbone:
    """Put an alignment in front of a backbone that embeds images."""
    if not backbone.needs_images:
        raise ConfigError(f"the backbone {backbone.name!r} embeds landmarks and no image: there is nothing to align")
    if points is not None:
        check_eyes(points)
    if config.size is None:
        config = replace(config, size=_wanted_size(backbone))
    needs_landmarks = backbone.needs_landmarks or config.no_face == "drop"
    prepare = AlignThenPrepare(config, backbone.prepare)
    return AlignedBackbone(backbone, config, backbone.name, needs_landmarks, backbone.in_worker, prepare)


def _wanted_size(backbone: Backbone) -> int | None:
    """Side of the square that the backbone resizes to: its preparation's, or its config's; None if it doesn't say."""
    for place in (backbone.prepare, getattr(backbone, "config", None)):
        size = getattr(place, "size", None)
        if isinstance(size, int) and size >= _SMALLEST and getattr(place, "crop", 1.0) == 1.0:
            return size
    return None

"""Faces levelled by their eyes, at a set distance from each other, and cropped to a square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image as PilImage

from featlab.cache.schema import ExtractorInfo
from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import Backbone, Image, InputSpec, Preparation
from featlab.extraction.faces import eye_centres

# A crop at the photograph's own scale is no larger than this: backbones take a few hundred pixels.
_LARGEST = 1024
_SMALLEST = 8
# From the crop's upper edge to the eyes, as a fraction of its side; their middle is in the middle of the width.
_EYE_HEIGHT = 0.40


@dataclass(frozen=True)
class AlignConfig(Options):
    """Where the eyes go. The crop is a square."""

    eye_distance: float = option(0.36, "From eye to eye, as a fraction of the crop's side.", minimum=0.01, maximum=0.99)
    no_face: str = option("keep", "What happens to a picture without a face.", choices=("keep", "drop"))


def align_face(image: Image, eyes: NDArray[np.floating], size: int | None, eye_distance: float) -> Image:
    """Turn, scale and crop one picture by its eyes; without a size at its own scale."""
    left, right = (complex(float(x), float(y)) for x, y in eyes)
    native = abs(right - left) / eye_distance
    side = size if size is not None else min(max(round(native), 1), _LARGEST)
    # With points as complex numbers x + iy, w in the crop comes from middle + step (w - anchor) in the picture.
    step = (right - left) / (eye_distance * side)
    middle, anchor = (left + right) / 2, complex(side / 2, _EYE_HEIGHT * side)
    corners = [middle + step * (complex(x, y) - anchor) for x in (0, side) for y in (0, side)]
    places = np.array([(z.real, z.imag) for z in corners])
    shrink = max(abs(step), 1.0)
    # Room for the interpolation's neighbours.
    low, high = np.floor(places.min(axis=0) - 3 * shrink), np.ceil(places.max(axis=0) + 3 * shrink)
    first, end = np.maximum(low, 0), np.minimum(high, image.shape[1::-1])
    if (first >= end).any():
        raise InputError("the landmarks lie outside of the picture")
    (x0, y0), (x1, y1) = first.astype(int), end.astype(int)
    part = PilImage.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    small = np.maximum(np.rint((end - first) / shrink), 1)
    scale = small / (end - first)
    if (small != end - first).any():
        part = part.resize((int(small[0]), int(small[1])), PilImage.Resampling.BICUBIC)
    before, after = np.ceil((first - low) * scale).astype(int), np.ceil((high - end) * scale).astype(int)
    padded = np.pad(np.asarray(part), ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    start = middle - step * anchor
    x, y = (np.array((start.real, start.imag)) - first) * scale + before
    rows = (step.real * scale[0], -step.imag * scale[0], x, step.imag * scale[1], step.real * scale[1], y)
    turned = PilImage.fromarray(padded).transform(
        (side, side), PilImage.Transform.AFFINE, rows, PilImage.Resampling.BICUBIC
    )
    return np.asarray(turned)


@dataclass(frozen=True)
class AlignThenPrepare:
    """The `Preparation` of an aligned backbone: align, then what the backbone itself does to an image."""

    config: AlignConfig
    size: int | None
    inner: Preparation | None

    def __call__(self, image: Image, landmarks: NDArray[np.float32] | None) -> Image:
        """Align one image; the inner preparation gets no landmarks, for they are of the whole picture."""
        if landmarks is None:
            raise InputError("alignment needs landmarks, and none were given")
        eyes = eye_centres(landmarks)
        apart = np.linalg.norm(eyes[1] - eyes[0])
        # Also false for NaN.
        if apart > 0:
            face = align_face(image, eyes, self.size, self.config.eye_distance)
        elif self.config.no_face == "drop":
            raise InputError("no landmarks")
        else:
            face = InputSpec(self.size or min(*image.shape[:2], _LARGEST), interpolation="bicubic")(image)
        return face if self.inner is None else self.inner(face, None)


@dataclass(frozen=True)
class AlignedBackbone:
    """A backbone that sees aligned faces. Landmarks reach it as they are, in pixels of the whole picture."""

    inner: Backbone
    name: str
    needs_landmarks: bool  # when pictures without a face are dropped, or when the inner backbone needs them
    in_worker: bool
    prepare: AlignThenPrepare
    needs_images: bool = True

    def info(self) -> ExtractorInfo:
        """Identity of the embeddings: the alignment is a part of the preprocessing."""
        inner, config, size = self.inner.info(), self.prepare.config, self.prepare.size
        scale = "own scale" if size is None else f"{size}x{size}"
        otherwise = "central square" if config.no_face == "keep" else "left out"
        alignment = (
            f"aligned by the eyes ({scale}, distance {config.eye_distance:g}, height {_EYE_HEIGHT:g}; no face: "
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


def with_alignment(backbone: Backbone, config: AlignConfig) -> Backbone:
    """Put an alignment in front of a backbone that embeds images; the crop has the size that the backbone wants."""
    if not backbone.needs_images:
        raise ConfigError(f"the backbone {backbone.name!r} embeds landmarks and no image: there is nothing to align")
    needs_landmarks = backbone.needs_landmarks or config.no_face == "drop"
    prepare = AlignThenPrepare(config, _wanted_size(backbone), backbone.prepare)
    return AlignedBackbone(backbone, backbone.name, needs_landmarks, backbone.in_worker, prepare)


def _wanted_size(backbone: Backbone) -> int | None:
    """Side of the square that the backbone resizes to: its preparation's, or its config's; None if it doesn't say."""
    for place in (backbone.prepare, getattr(backbone, "config", None)):
        size = getattr(place, "size", None)
        if isinstance(size, int) and size >= _SMALLEST and getattr(place, "crop", 1.0) == 1.0:
            return size
    return None

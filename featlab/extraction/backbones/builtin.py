"""Backbones without weights: HOG (Dalal & Triggs, CVPR 2005), landmarks; and any backbone with its mirror image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image as PilImage
from skimage.feature import hog

from featlab.cache.schema import ExtractorInfo
from featlab.config.options import Options, option, with_options
from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import Backbone, Image, Preparation


@dataclass(frozen=True)
class HogConfig(Options):
    """Sizes of the descriptor, in pixels unless said otherwise."""

    size: int = option(96, "Side of the grey square that is described.", minimum=1)
    cell: int = option(8, "Side of a cell.", minimum=1)
    block: int = option(2, "Side of a block that is normalised, in cells.", minimum=1)
    orientations: int = option(9, "Bins of unsigned gradient directions.", minimum=1)

    def check_together(self) -> None:
        """Refuse a block larger than the image."""
        if self.size < self.cell * self.block:
            raise ConfigError(
                f"hog: a block of {self.block}x{self.block} cells of {self.cell} pixels doesn't fit in "
                f"{self.size}x{self.size}; raise size or lower cell or block"
            )


@dataclass(frozen=True)
class HogBackbone:
    """Embeds a face as its HOG descriptor, L2-Hys blocks as in the paper."""

    config: HogConfig = field(default_factory=HogConfig)
    name: str = "hog"
    needs_images: bool = True
    needs_landmarks: bool = False
    in_worker: bool = True
    prepare: Preparation | None = None

    def info(self) -> ExtractorInfo:
        """Identity of the embeddings: every size is part of it."""
        config = self.config
        return ExtractorInfo(
            id="hog",
            weights="none",
            preprocessing=(
                f"grey {config.size}x{config.size}, {config.cell}x{config.cell} cells, "
                f"{config.block}x{config.block} blocks, {config.orientations} orientations"
            ),
            versions={"pillow": PIL.__version__, "scikit-image": version("scikit-image"), "numpy": np.__version__},
        )

    def embed(self, images: Sequence[Image], landmarks: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Describe n images; see `Backbone.embed`. Landmarks are not used."""
        config = self.config
        described = []
        for image in images:
            # ITU-R 601 luma; Pillow's bilinear filter widens when it shrinks, so a large photograph doesn't alias.
            grey = PilImage.fromarray(image).convert("L")
            if grey.size != (config.size, config.size):
                grey = grey.resize((config.size, config.size), PilImage.Resampling.BILINEAR)
            described.append(
                hog(
                    np.asarray(grey, dtype=np.float32) / np.float32(255),
                    orientations=config.orientations,
                    pixels_per_cell=(config.cell, config.cell),
                    cells_per_block=(config.block, config.block),
                    block_norm="L2-Hys",
                )
            )
        return np.stack(described)


def build_hog(argument: str | None, options: Mapping[str, Any]) -> HogBackbone:
    """Build the backbone called ``hog``; the options are the fields of `HogConfig`."""
    if argument is not None:
        raise ConfigError(f"the backbone 'hog' takes nothing after a colon, got {argument!r}")
    return HogBackbone(with_options(HogConfig(), options, "hog"))


# A schematic upright face in the 68-point iBUG order, x to the right and y down, mirror-symmetric about x = 0. It only
# says which way is up, so round numbers do.
_FACE_68: tuple[tuple[int, int], ...] = (
    # jaw, 0-16
    *((-80, -30), (-79, -12), (-76, 6), (-71, 24), (-63, 41), (-51, 56), (-36, 69), (-18, 79), (0, 82)),
    *((18, 79), (36, 69), (51, 56), (63, 41), (71, 24), (76, 6), (79, -12), (80, -30)),
    # brows, 17-26
    *((-65, -56), (-56, -64), (-44, -67), (-31, -65), (-18, -60)),
    *((18, -60), (31, -65), (44, -67), (56, -64), (65, -56)),
    # nose, 27-35
    *((0, -42), (0, -29), (0, -16), (0, -3), (-14, 6), (-7, 9), (0, 11), (7, 9), (14, 6)),
    # eyes, 36-47
    *((-52, -40), (-43, -46), (-31, -46), (-22, -39), (-31, -35), (-43, -35)),
    *((22, -39), (31, -46), (43, -46), (52, -40), (43, -35), (31, -35)),
    # mouth, 48-67
    *((-28, 34), (-17, 28), (-7, 25), (0, 27), (7, 25), (17, 28), (28, 34)),
    *((17, 43), (8, 47), (0, 48), (-8, 47), (-17, 43)),
    *((-24, 34), (-8, 32), (0, 33), (8, 32), (24, 34), (8, 37), (0, 38), (-8, 37)),
)
_WITHOUT_JAW = tuple(range(17, 68))
# The two reduced sets in use are cut from the 68: 51 leaves out the jaw, 49 the inner mouth corners as well.
_SUBSETS: dict[int, tuple[int, ...]] = {
    68: tuple(range(68)),
    51: _WITHOUT_JAW,
    49: tuple(point for point in _WITHOUT_JAW if point not in (60, 64)),
}


def template(points: int = 68) -> NDArray[np.float64]:
    """Return the fixed upright face, centred, with Frobenius norm 1: float64 (P, 2)."""
    if points not in _SUBSETS:
        raise ConfigError(f"geometry: {points} landmarks have no template; supported are 68, 51 (no jaw) and 49")
    face = np.array(_FACE_68, dtype=np.float64)[list(_SUBSETS[points])]
    face -= face.mean(axis=0)
    return np.asarray(face / np.linalg.norm(face))


def mirror_order(points: int = 68) -> list[int]:
    """Return for each landmark of 68, 51 or 49 the one that has its place in a mirror image."""
    template(points)
    face = [_FACE_68[place] for place in _SUBSETS[points]]
    return [face.index((-x, y)) for x, y in face]


def align(landmarks: NDArray[np.floating[Any]], onto: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre, scale to Frobenius norm 1 and rotate each shape onto ``onto``, the least squares way, never mirrored."""
    points = np.asarray(landmarks, dtype=np.float64)
    z = points[..., 0] + 1j * points[..., 1]
    t = onto[:, 0] + 1j * onto[:, 1]
    extent = np.abs(z).max(axis=1)
    z = z - z.mean(axis=1, keepdims=True)
    size = np.sqrt((np.abs(z) ** 2).sum(axis=1))
    # Coinciding points leave only rounding noise, whose direction means nothing.
    shapeless = ~(size > 1e-6 * extent)
    z = z / np.where(shapeless, 1.0, size)[:, None]
    # A sum and not a matrix product: BLAS rounds a row differently in batches of different sizes.
    s = (z * t.conj()).sum(axis=1)
    length = np.abs(s)
    rotation = np.where(length > 0, s.conj() / np.where(length > 0, length, 1.0), 1.0)
    z = z * rotation[:, None]
    aligned = np.stack([z.real, z.imag], axis=-1)
    aligned[shapeless] = np.nan
    return aligned


@dataclass(frozen=True)
class GeometryBackbone:
    """Embeds a face as its aligned landmarks x_0, y_0, x_1, y_1, ...; D = 2P. No image is read."""

    points: int = 68  # P, one of 68, 51 and 49
    name: str = "geometry"
    needs_images: bool = False
    needs_landmarks: bool = True
    in_worker: bool = True
    prepare: Preparation | None = None

    def info(self) -> ExtractorInfo:
        """Identity of the embeddings: the number of landmarks is part of it."""
        return ExtractorInfo(
            id="geometry",
            weights="none",
            preprocessing=f"{self.points} landmarks, centred, unit norm, rotated onto built-in face 1, not mirrored",
            versions={"numpy": np.__version__},
        )

    def embed(self, images: Sequence[Image], landmarks: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Align n faces; see `Backbone.embed`. Images are not used."""
        if landmarks is None:
            raise InputError("the geometry backbone embeds landmarks, and none were given")
        if landmarks.shape[1] != self.points:
            found = landmarks.shape[1]
            hint = f"use geometry:{found}" if found in _SUBSETS else "supported are 68, 51 and 49"
            raise InputError(f"geometry: the backbone is for {self.points} landmarks, the file has {found}; {hint}")
        shapes = align(landmarks, template(self.points))
        return shapes.reshape(len(shapes), -1).astype(np.float32)


def build_geometry(argument: str | None, options: Mapping[str, Any]) -> GeometryBackbone:
    """Build the backbone called ``geometry`` (68 points), ``geometry:51`` or ``geometry:49``."""
    if options:
        raise ConfigError(f"the backbone 'geometry' has no option {next(iter(options))!r}")
    if argument is None:
        return GeometryBackbone()
    if argument not in map(str, _SUBSETS):
        raise ConfigError(f"geometry:{argument}: what follows the colon is the number of landmarks (68, 51 or 49)")
    return GeometryBackbone(points=int(argument), name=f"geometry:{argument}")


def mirrored(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the landmarks of mirror images, (n, P, 2): about x = 0, each point in the place of its opposite."""
    return landmarks[:, mirror_order(landmarks.shape[1])] * np.array([-1, 1], dtype=np.float32)


@dataclass(frozen=True)
class MirroredBackbone:
    """A backbone that embeds each picture (or its landmarks) twice, the second time mirrored, in one batch."""

    inner: Backbone
    name: str
    needs_images: bool
    needs_landmarks: bool
    in_worker: bool
    prepare: Preparation | None

    @property
    def config(self) -> Any:
        """The inner backbone's own settings, where it has any: the size of its input is one."""
        return getattr(self.inner, "config", None)

    def info(self) -> ExtractorInfo:
        """Identity of the embeddings: the mirror image is a part of the preprocessing."""
        inner = self.inner.info()
        return replace(inner, preprocessing=f"{inner.preprocessing}, averaged with its mirror image")

    def embed(self, images: Sequence[Image], landmarks: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Embed n prepared images, or n faces by their landmarks; see `Backbone.embed`."""
        if self.needs_images:
            turned = [np.ascontiguousarray(image[:, ::-1]) for image in images]
            both = self.inner.embed([*images, *turned], None)
        else:
            assert landmarks is not None
            both = self.inner.embed([], np.concatenate([landmarks, mirrored(landmarks)]))
        first, second = np.split(both, 2)
        return (first + second) / np.float32(2)


def with_mirror(backbone: Backbone) -> Backbone:
    """Average what a backbone makes of a picture with what it makes of its mirror image."""
    images, landmarks = backbone.needs_images, backbone.needs_landmarks
    if images and landmarks:
        raise ConfigError(
            f"the backbone {backbone.name!r} takes a picture with its landmarks, which --mirror can't turn together"
        )
    return MirroredBackbone(backbone, backbone.name, images, landmarks, backbone.in_worker, backbone.prepare)

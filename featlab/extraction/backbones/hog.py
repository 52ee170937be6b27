"""Histograms of oriented gradients of the grey face (Dalal & Triggs, CVPR 2005)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image as PilImage
from skimage.feature import hog

from featlab.cache.schema import ExtractorInfo
from featlab.config.options import Options, option, with_options
from featlab.errors import ConfigError
from featlab.extraction.backbones.base import Image, Preparation


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

    @property
    def dim(self) -> int:
        """Length of the descriptor: blocks x cells in a block x orientations."""
        blocks = self.size // self.cell - self.block + 1
        return blocks**2 * self.block**2 * self.orientations


@dataclass(frozen=True)
class HogBackbone:
    """Embeds a face as its HOG descriptor, L2-Hys blocks as in the paper; D = ``config.dim``."""

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
        rows = np.empty((len(images), self.config.dim), dtype=np.float32)
        for row, image in enumerate(images):
            rows[row] = self._describe(image)
        return rows

    def _describe(self, image: Image) -> NDArray[np.float32]:
        config = self.config
        # ITU-R 601 luma; Pillow's bilinear filter widens when it shrinks, so that a large photograph doesn't alias.
        grey = PilImage.fromarray(image).convert("L")
        if grey.size != (config.size, config.size):
            grey = grey.resize((config.size, config.size), PilImage.Resampling.BILINEAR)
        descriptor: NDArray[np.float32] = hog(
            np.asarray(grey, dtype=np.float32) / np.float32(255),
            orientations=config.orientations,
            pixels_per_cell=(config.cell, config.cell),
            cells_per_block=(config.block, config.block),
            block_norm="L2-Hys",
        )
        return descriptor


def build(argument: str | None, options: Mapping[str, Any]) -> HogBackbone:
    """Build the backbone called ``hog``; the options are the fields of `HogConfig`."""
    if argument is not None:
        raise ConfigError(f"the backbone 'hog' takes nothing after a colon, got {argument!r}")
    return HogBackbone(with_options(HogConfig(), options, "hog"))

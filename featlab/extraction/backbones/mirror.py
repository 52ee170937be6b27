"""The embedding of a picture and of its mirror image, averaged: what a face is, whichever way it is turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.schema import ExtractorInfo
from featlab.errors import ConfigError
from featlab.extraction.backbones import Backbone, Image, Preparation
from featlab.extraction.backbones.builtin import mirror_order


def mirrored(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the landmarks of mirror images, about x = 0: each point has the place of the one on the other side.

    Args:
        landmarks: float32 (n, P, 2) of 68, 51 or 49 points.

    Raises:
        ConfigError: Another number of points.
    """
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

"""The backbone that every network is used through: batches in the main process, while the workers decode and crop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.cache import ExtractorInfo
from featlab.errors import ConfigError, FeatlabError, one_line
from featlab.extraction.backbones.base import APPENDED, Image
from featlab.extraction.backbones.options import InputSpec, ResizeCrop


class Network(Protocol):
    """Something that embeds normalised images."""

    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def layers(self) -> tuple[str, ...]: ...  # noqa: D102

    def __call__(self, images: Tensor) -> Tensor:
        """Embed float32 (n, 3, S, S), which may be in channels-last memory, as (n, D)."""
        ...


@dataclass(frozen=True)
class NetworkBackbone:
    """A network as a backbone; made by `network_backbone`."""

    name: str  # What the user wrote
    network: Network  # Embeds
    spec: InputSpec  # The network's input
    extractor: ExtractorInfo  # Identity of the embeddings
    dim: int  # D
    prepare: ResizeCrop  # Cuts an image to the input, in the workers
    needs_images: bool = True
    needs_landmarks: bool = False
    in_worker: bool = False

    def info(self) -> ExtractorInfo:
        """Identity of the embeddings: weights, input, layers and precision are part of it; the device isn't."""
        return self.extractor

    def embed(self, images: Sequence[Image], landmarks: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Embed n images in one batch; see `Backbone.embed`. Landmarks are not used."""
        if not images:
            return np.empty((0, self.dim), dtype=np.float32)
        vectors = _run(self.name, self.network, self.spec, [self._fitted(image) for image in images])
        if vectors.shape[1] != self.dim:
            raise ConfigError(f"{self.name} gave {vectors.shape[1]} features after {self.dim} before")
        return vectors.float().cpu().numpy()

    def _fitted(self, image: Image) -> Image:
        size = self.spec.size
        return image if image.shape[:2] == (size, size) else self.prepare(image)


def network_backbone(
    name: str,
    network: Network,
    spec: InputSpec,
    *,
    id: str,
    weights: str,
    notes: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    trained_on: Sequence[str] = (),
) -> NetworkBackbone:
    """Make a backbone of a network, after a trial on two images."""
    size = spec.size
    grey = np.linspace(0, 255, 2 * size * size * 3).astype(np.uint8).reshape(2, size, size, 3)
    vectors = _run(name, network, spec, list(grey))
    if network.layers:
        notes = (*notes, APPENDED)
    extractor = ExtractorInfo(
        id=id,
        weights=weights,
        preprocessing=", ".join((spec.describe(), *notes)),
        layers=network.layers,
        versions={"torch": torch.__version__, "pillow": PIL.__version__, "numpy": np.__version__, **(versions or {})},
        trained_on=tuple(trained_on),
    )
    return NetworkBackbone(name, network, spec, extractor, vectors.shape[1], spec.prepare())


def as_embedding(name: str, output: Any, rows: int) -> Tensor:
    """Return a network's output as (n, D); a map of one position, (n, D, 1, 1), counts as one."""
    if isinstance(output, tuple | list) and len(output) == 1:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ConfigError(f"{name} returned a {type(output).__name__}; it must return one tensor (n, D)")
    shape = tuple(output.shape)
    if len(shape) == 4 and shape[2:] == (1, 1):
        output = output.flatten(1)
    if output.ndim != 2 or output.shape[0] != rows or output.shape[1] == 0 or not output.is_floating_point():
        raise ConfigError(
            f"{name} returned {str(output.dtype).removeprefix('torch.')} {shape} for {rows} images; it must return "
            "floats (n, D), one vector an image (pool the map or the tokens in the network)"
        )
    vectors: Tensor = output
    return vectors


def in_fixed_batches(run: Callable[[Tensor], Tensor], images: Tensor, batch: int | None) -> Tensor:
    """Run a network that takes only ``batch`` images at once; the last images are repeated to fill it up."""
    if batch is None or batch == len(images):
        return run(images)
    parts = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        kept = len(part)
        filled = part if kept == batch else torch.cat([part, part[-1:].expand(batch - kept, -1, -1, -1)])
        parts.append(run(filled)[:kept])
    return torch.cat(parts)


def _run(name: str, network: Network, spec: InputSpec, images: Sequence[Image]) -> Tensor:
    pixels = torch.from_numpy(np.stack(images)).to(network.device)
    try:
        return network(_normalised(pixels, spec))
    except FeatlabError:
        raise
    except torch.cuda.OutOfMemoryError:
        raise FeatlabError(f"{name}: {len(images)} images are too many for the GPU's memory; lower --batch") from None
    except Exception as error:
        # Whatever a network of somebody else's lets through: a size that doesn't fit is a RuntimeError in one and an
        # AssertionError in another.
        raise ConfigError(
            f"{name} can't embed images of {spec.size}x{spec.size} ({type(error).__name__}: {one_line(error)}); "
            "if it was made for another size, say so with the option size"
        ) from error


def _normalised(pixels: Tensor, spec: InputSpec) -> Tensor:
    """Return uint8 (n, S, S, 3) as float32 (n, 3, S, S); the memory stays in the order of the pixels."""
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=pixels.device)
    std = torch.tensor(spec.std, dtype=torch.float32, device=pixels.device)
    return pixels.float().div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2)

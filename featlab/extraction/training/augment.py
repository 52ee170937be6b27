"""Random changes of a batch of images, with torch alone: geometry in one resampling, then light, noise, erasing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.extraction.training.config import AugmentConfig

_ERASED = (0.2, 0.5)
"""Least and largest side of an erased rectangle, as a share of the image's."""


def augment(images: Tensor, config: AugmentConfig, random: torch.Generator) -> Tensor:
    """Change each image in its own way."""
    count = len(images)
    draws = torch.rand(count, 20, generator=random)
    noise = torch.randn(images.shape, generator=random) if config.noise else None
    draws = draws.to(images.device)
    # In [-1, 1], for what goes both ways.
    both = 2 * draws - 1
    images = _move(images, config, draws, both)
    images = _light(images, config, draws, both)
    if noise is not None:
        images = images + noise.to(images.device) * (config.noise * draws[:, 13])[:, None, None, None]
    images = images.clamp(0, 1)
    return _erase(images, config, draws) if config.erase else images


def _move(images: Tensor, config: AugmentConfig, draws: Tensor, both: Tensor) -> Tensor:
    """Mirror some images; shift, scale and rotate some, with the border mirrored outwards."""
    mirrored = (draws[:, 2] < config.flip)[:, None, None, None]
    images = torch.where(mirrored, images.flip(3), images)
    moved = torch.nonzero(draws[:, 19] < config.move).flatten()
    if not len(moved) or not (config.shift or config.scale or config.rotation):
        return images
    both = both[moved]
    angle = both[:, 0] * config.rotation * torch.pi / 180
    size = torch.exp(both[:, 1] * config.scale)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    # affine_grid measures in half sides.
    right, down = 2 * config.shift * both[:, 3], 2 * config.shift * both[:, 4]
    matrix = torch.stack([cos, -sin, right, sin, cos, down], dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(matrix, [len(moved), *images.shape[1:]], align_corners=False)
    resampled = F.grid_sample(images[moved], grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return images.index_copy(0, moved, resampled.clamp(0, 1))


def _light(images: Tensor, config: AugmentConfig, draws: Tensor, both: Tensor) -> Tensor:
    """Change gamma, gains, the direction of light, contrast and brightness."""

    def each(values: Tensor) -> Tensor:
        return values.reshape(len(images), -1, 1, 1)

    if config.gamma:
        # A power has no finite slope at 0, and nothing learns from it: images are no parameters.
        images = images.clamp(0, 1) ** each(torch.exp(config.gamma * both[:, 5]))
    if config.channel:
        images = images * each(torch.exp(config.channel * both[:, 6:9]))
    if config.light:
        side = torch.linspace(-1, 1, images.shape[-1], device=images.device)
        direction = 2 * torch.pi * draws[:, 9]
        slope = each(torch.cos(direction)) * side + each(torch.sin(direction)) * side[:, None]
        images = images * (1 + config.light * each(draws[:, 10]) * slope)
    if config.contrast:
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - mean) * each(torch.exp(config.contrast * both[:, 11])) + mean
    return images + config.brightness * each(both[:, 12])


def _erase(images: Tensor, config: AugmentConfig, draws: Tensor) -> Tensor:
    """Fill a rectangle of some images with their mean colour."""
    least, most = _ERASED
    place = (torch.arange(images.shape[-1], device=images.device) + 0.5) / images.shape[-1]

    def within(size: Tensor, start: Tensor) -> Tensor:
        length = least + (most - least) * size
        low = start * (1 - length)
        return (place >= low[:, None]) & (place < (low + length)[:, None])

    wide, high = within(draws[:, 14], draws[:, 15]), within(draws[:, 16], draws[:, 17])
    hole = high[:, :, None] & wide[:, None, :] & (draws[:, 18] < config.erase)[:, None, None]
    return torch.where(hole[:, None], images.mean(dim=(2, 3), keepdim=True), images)

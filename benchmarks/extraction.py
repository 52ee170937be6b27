"""How much of a network's own speed `extract` keeps: against the bare forward pass on the same batches.

The bare pass gets pixels that were decoded and cropped beforehand; `extract` starts its worker processes, decodes,
writes and assembles the cache as well. The images are drawn from a seed.

    python benchmarks/claims.py extraction
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from claims import Claim
from PIL import Image

from featlab.extraction.backbones import make_backbone
from featlab.extraction.decode import decode_image
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.items import Item

IMAGES, SIDE, BATCH = 512, 320, 64


def claims(folder: Path) -> Iterator[Claim]:
    backbone = make_backbone("resnet18", weights="random")
    items = draw(folder, IMAGES, SIDE)
    assert backbone.prepare is not None
    pixels = [backbone.prepare(decode_image(item.path), None) for item in items]
    out = folder / "cache.h5"

    def bare() -> None:
        for first in range(0, IMAGES, BATCH):
            backbone.embed(pixels[first : first + BATCH], None)

    yield Claim(
        f"extraction, ResNet-18, {IMAGES} pictures of {SIDE} × {SIDE}, all cores",
        "its bare forward pass",
        1 / 0.9,
        lambda: extract(items, backbone, out, neutral="neutral", config=ExtractConfig(batch=BATCH)),
        bare,
        before=lambda: out.unlink(missing_ok=True),
    )


def draw(folder: Path, count: int, side: int) -> list[Item]:
    """Write smooth colour fields as JPEG, which take about as long to decode as photographs do."""
    rng = np.random.default_rng(0)
    items = []
    for row in range(count):
        coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        path = folder / f"{row:06d}.jpg"
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=92)
        items.append(Item(path, path.name, f"s{row % 8}", "neutral", "v", row, row))
    return items

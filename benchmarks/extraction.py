"""How much of a network's own speed `extract` keeps: its throughput over that of the bare forward pass, in one run.

    python benchmarks/extraction.py                      # ResNet-18, random weights, 512 photographs of 320 x 320
    python benchmarks/extraction.py --images 2048 --side 640 --jobs 8

The images are drawn from a seed into a temporary folder. A bare pass runs the same network on the same batches of the
same images, decoded and cropped beforehand: what is left is turning pixels into embeddings. Both are timed from the call
to the end of it, so that starting the worker processes, decoding, writing and assembling the cache all count against
`extract`. They take turns, because other programs on the machine slow whichever runs beside them; the ratio of each pair
of turns is printed, and its median. The last line leaves out what one start costs, as a run of hours does: it is the
rate between the first batch and the last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from featlab.extraction.backbones import Backbone, make_backbone
from featlab.extraction.decode import decode_image
from featlab.extraction.items import Item
from featlab.extraction.pipeline import ExtractConfig, extract
from featlab.extraction.progress import Progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--side", type=int, default=320, help="of an image, in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=0, help="worker processes; 0 takes all cores")
    parser.add_argument("--layers", default="none", help="layers to tap, in both")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    backbone = make_backbone("resnet18", weights="random", layers=options.layers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = draw(folder, options.images, options.side)
        assert backbone.prepare is not None
        pixels = [backbone.prepare(decode_image(item.path), None) for item in items]
        print(
            f"{len(items)} images of {options.side} x {options.side}, batches of {options.batch}, "
            f"{torch.get_num_threads()} threads, jobs {options.jobs or 'all cores'}"
        )
        bare(backbone, pixels[: options.batch], options.batch)
        ratios, steady = [], []
        config = ExtractConfig(jobs=options.jobs, batch=options.batch)
        for turn in range(options.repeat):
            alone = bare(backbone, pixels, options.batch)
            whole, running = extraction(backbone, items, folder / f"{turn}.h5", config)
            ratios.append(whole / alone)
            steady.append(running / alone)
            print(
                f"  bare pass {alone:6.1f} images/s   extract {whole:6.1f} images/s   ratio {ratios[-1]:.2f}   "
                f"between the first batch and the last {running:6.1f} images/s   ratio {steady[-1]:.2f}"
            )
    print(f"extract / bare pass, median: {statistics.median(ratios):.2f}")
    print(f"the same without the start:  {statistics.median(steady):.2f}")


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


def bare(backbone: Backbone, pixels: Sequence[NDArray[np.uint8]], batch: int) -> float:
    """Return images a second of the network alone."""
    start = time.perf_counter()
    for first in range(0, len(pixels), batch):
        backbone.embed(pixels[first : first + batch], None)
    return len(pixels) / (time.perf_counter() - start)


def extraction(backbone: Backbone, items: Sequence[Item], out: Path, config: ExtractConfig) -> tuple[float, float]:
    """Return images a second of the whole call, and between its first batch and its last."""
    moments: list[tuple[float, int]] = []

    def note(now: Progress) -> None:
        moments.append((time.perf_counter(), now.done))

    start = time.perf_counter()
    extract(items, backbone, out, neutral="neutral", config=config, on_progress=note)
    whole = len(items) / (time.perf_counter() - start)
    (first, before), (last, after) = moments[0], moments[-1]
    return whole, (after - before) / (last - first)


if __name__ == "__main__":
    main()

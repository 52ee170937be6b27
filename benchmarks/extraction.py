"""How much of a network's own speed `extract` keeps: its throughput over that of the bare forward pass, in one run.

    python benchmarks/extraction.py                      # ResNet-18, random weights, 512 photographs of 320 x 320
    python benchmarks/extraction.py --images 2048 --side 640 --jobs 8

The images are drawn from a seed into a temporary folder. A bare pass runs the same network on the same batches of the
same images, decoded and cropped beforehand: what is left is turning pixels into embeddings. Both are timed from the
call to the end of it, so that starting the worker processes, decoding, writing and assembling the cache all count
against `extract`. They take turns, because other programs on the machine slow whichever runs beside them. Three ratios
are printed, each the median over turns: of the whole calls; of the rate between the first batch and the last, which
leaves out what one start costs, as a run of hours does; and of the CPU seconds that all processes used together, which
is what counts where every core is busy, and which other programs disturb least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featlab.extraction.backbones import Backbone, make_backbone
from featlab.extraction.decode import decode_image
from featlab.extraction.embed import Progress
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.items import Item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--side", type=int, default=320, help="of an image, in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=0, help="worker processes; 0 takes all cores")
    parser.add_argument("--layers", default="none", help="layers to tap, in both")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    # Here and not above: a worker process imports this file again, as it does the main module of any program.
    import torch

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
        turns = []
        config = ExtractConfig(jobs=options.jobs, batch=options.batch)
        for turn in range(options.repeat):
            alone = bare(backbone, pixels, options.batch)
            whole, running = extraction(backbone, items, folder / f"{turn}.h5", config)
            turns.append((whole.rate / alone.rate, running / alone.rate, alone.cpu / whole.cpu))
            print(
                f"  bare pass {alone.rate:6.1f} images/s, {1000 * alone.cpu:5.1f} CPU ms an image   "
                f"extract {whole.rate:6.1f} images/s ({running:.1f} once started), {1000 * whole.cpu:5.1f} CPU ms"
            )
    names = ("whole calls", "between the first batch and the last", "CPU time")
    for name, ratios in zip(names, zip(*turns, strict=True), strict=True):
        print(f"extract / bare pass, {name}: {statistics.median(ratios):.2f}")


@dataclass(frozen=True)
class Speed:
    """Images a second, and CPU seconds an image of this process and its children."""

    rate: float
    cpu: float


class Clock:
    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()

    def speed(self, images: int) -> Speed:
        return Speed(images / (time.perf_counter() - self._wall), (cpu_seconds() - self._cpu) / images)


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


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


def bare(backbone: Backbone, pixels: Sequence[NDArray[np.uint8]], batch: int) -> Speed:
    """Time the network alone."""
    clock = Clock()
    for first in range(0, len(pixels), batch):
        backbone.embed(pixels[first : first + batch], None)
    return clock.speed(len(pixels))


def extraction(backbone: Backbone, items: Sequence[Item], out: Path, config: ExtractConfig) -> tuple[Speed, float]:
    """Time the whole call; also return its images a second between the first batch and the last."""
    moments: list[tuple[float, int]] = []

    def note(now: Progress) -> None:
        moments.append((time.perf_counter(), now.done))

    clock = Clock()
    extract(items, backbone, out, neutral="neutral", config=config, on_progress=note)
    speed = clock.speed(len(items))
    (first, before), (last, after) = moments[0], moments[-1]
    return speed, (after - before) / (last - first)


if __name__ == "__main__":
    main()

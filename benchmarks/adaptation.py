"""Seconds to adapt to one person from 12 frames of 512 values on one core, against gradient descent on the same loss.

Features are kept as they are (512 of 512), so that nothing is made smaller than it could be. Numbers are random; what
takes time does not depend on them, but for the iterations of what stops when it has converged.

    python benchmarks/adaptation.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from featlab.cache import ExtractorInfo, FeatureTable
from featlab.config.load import Config
from featlab.methods import make_method
from featlab.protocol.splits import Target
from featlab.workspace.build import build_bundle

PEOPLE, FRAMES, WIDTH = 40, 12, 512
METHODS = {
    "pft, Adam on the offset (50 steps)": ("pft", {"optimiser": "adam"}),
    "pft, L-BFGS on the offset": ("pft", {"optimiser": "lbfgs"}),
    "pft, closed form (the default)": ("pft", {}),
    "pft-poster": ("pft-poster", {}),
    "referenced": ("referenced", {}),
    "shot": ("shot", {}),
}


def random_people(seed: int = 0) -> FeatureTable:
    """Return two neutral and two other clips of every person: identity + expression + noise."""
    random = np.random.default_rng(seed)
    person = np.repeat(random.normal(size=(PEOPLE, WIDTH)), 4 * FRAMES, axis=0)
    label = np.tile(np.repeat([0, 0, 1, 1], FRAMES), PEOPLE).astype(np.int16)
    embeddings = person + 0.5 * label[:, None] * random.normal(size=WIDTH) + 0.5 * random.normal(size=person.shape)
    return FeatureTable(
        embeddings=embeddings.astype(np.float32),
        label=label,
        subject=np.repeat(np.arange(PEOPLE), 4 * FRAMES).astype(np.int32),
        video=np.tile(np.repeat(np.arange(4), FRAMES), PEOPLE).astype(np.int32),
        frame=np.tile(np.arange(FRAMES), 4 * PEOPLE).astype(np.int32),
        subjects=tuple(f"p{number:02}" for number in range(PEOPLE)),
        videos=("neutral-a", "neutral-b", "smile-a", "smile-b"),
        classes=("neutral", "smile"),
        neutral="neutral",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = random_people()
    config = Config().with_values({"features.reduce": "none", "head.epochs": 5}, "benchmark")
    names = sorted({method for method, _ in METHODS.values()})
    bundle = build_bundle(
        table.without("p00"), config, seed=0, extractor=ExtractorInfo("random", "none", "none"), methods=names
    )
    clip = table.embeddings[:FRAMES]
    target = Target(clip, np.zeros(FRAMES, dtype=np.int32), np.arange(FRAMES, dtype=np.int32))
    first = 0.0
    print("| method | iterations | seconds | ratio |\n|---|---|---|---|")
    for words, (name, settings) in METHODS.items():
        method = make_method(name, {name: settings})
        seconds = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            model = method.adapt(bundle, target)
            seconds.append(time.perf_counter() - start)
        middle = statistics.median(seconds)
        first = first or middle
        print(f"| {words} | {model.iterations} | {middle:.4f} | {middle / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()

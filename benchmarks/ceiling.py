"""The score that london-morph allows: its labels by its own morph intensities, without a feature and without noise.

Every frame has a true intensity in [0, 1]. A resting face is not at 0 (up to 0.15), and a smiling clip starts and ends
at 0.12, so neutral and smile overlap. Printed is the macro F1 of one threshold on the intensity, the best one for the
people that it is tried on (more than any method could know):

- *relative*: the intensity minus the mean over the clip that is adapted on: all that a neutral clip can tell;
- *absolute*: the intensity itself, which would need a face whose zero is known.

    python benchmarks/ceiling.py MANIFEST geometry.h5
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from people import development_people, read_table

from featlab import FeatureTable
from featlab.evaluation.metrics import smooth_probabilities
from featlab.protocol.splits import macro_f1, split_target

WINDOWS = (1, 3, 5, 7, 9, 11)
THRESHOLDS = np.linspace(0.0, 0.3, 61)


def best_macro_f1(
    table: FeatureTable, intensity: NDArray[np.float64], people: Sequence[str], window: int
) -> list[float]:
    """Return the mean macro F1 over people at the best threshold: relative, absolute."""
    found = np.zeros((2, len(THRESHOLDS), len(people)))
    neutral = table.neutral_code
    for place, name in enumerate(people):
        rows = np.flatnonzero(table.subject == table.subjects.index(name))
        split = split_target(table.take(rows))
        test = rows[split.test]
        smoothed = smooth_probabilities(intensity[test][:, None], table.video[test], table.frame[test], window)[:, 0]
        for kind, zero in enumerate((intensity[rows[split.adapt]].mean(), 0.0)):
            for number, threshold in enumerate(THRESHOLDS):
                predicted = np.where(smoothed - zero > threshold, 1 - neutral, neutral)
                found[kind, number, place] = macro_f1(table.label[test], predicted, len(table.classes))
    return [float(scores.max()) for scores in found.mean(axis=2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="london-morph's, with the column intensity")
    parser.add_argument("cache", type=Path, help="any cache of it")
    options = parser.parse_args()
    table, _ = read_table(options.cache)
    with options.manifest.open(encoding="utf-8", newline="") as file:
        known = {(row["video"], int(row["frame"])): float(row["intensity"]) for row in csv.DictReader(file)}
    keys = zip(table.video.tolist(), table.frame.tolist(), strict=True)
    intensity = np.array([known[table.videos[video], frame] for video, frame in keys])
    development = development_people(table.subjects)
    groups = {
        "development": development,
        "reported": [name for name in table.subjects if name not in set(development)],
        "all": list(table.subjects),
    }
    print("| people | window | relative | absolute |\n|---|---|---|---|")
    for group, people in groups.items():
        for window in WINDOWS:
            relative, absolute = best_macro_f1(table, intensity, people, window)
            print(f"| {len(people)} {group} | {window} | {100 * relative:.1f} | {100 * absolute:.1f} |", flush=True)


if __name__ == "__main__":
    main()

"""Which settings became defaults, and the table that chose them.

Only people who are a target in none of the reported draws (seed 0, draws 0 to 4, 10 targets each) are played as
targets, in folds; everyone else is source in these runs. No reported target is ever scored here.

    python benchmarks/choose_defaults.py geometry.h5 hog.h5 --jobs 2
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed

from featlab.cache import FeatureTable, open_cache
from featlab.cache.schema import ExtractorInfo
from featlab.config import load_config, parse_settings
from featlab.evaluation import RunNumbers, evaluate_subject
from featlab.methods import make_method
from featlab.protocol import choose_targets
from featlab.seeding import generator
from featlab.source import build_bundle
from featlab.summary import summarise

FOLDS = 4
METHODS = ("source-only", "neutral-shift", "referenced", "pft", "oracle")
CANDIDATES = (
    (),
    ("pretrain.style=0",),
    ("pretrain.style=1",),
    ("pretrain.expression=0",),
    ("pretrain.expression=0.3",),
    ("pretrain.noise=0.1",),
    ("pretrain.noise=0.6",),
    ("pretrain.dropout=0.2",),
    ("pretrain.dropout=0.8",),
    ("pretrain.hidden=64",),
    ("pretrain.epochs=5",),
    ("pretrain.epochs=30",),
    ("pretrain.lr=0.0003",),
    ("features.dim=32",),
    ("features.dim=128",),
    ("features.reduce=pca",),
    ("pair.label_rule=same",),
    ("pair.strategy=random",),
    ("adapt.pft.layers=embedding",),
    ("adapt.pft.layers=features,bottleneck",),
    ("adapt.pft.consistency=0.1",),
    ("adapt.pft.anchor=0.1",),
    ("adapt.oracle.lr=0.001",),
    ("adapt.oracle.iterations=30",),
)


def validation_people(subjects: tuple[str, ...]) -> list[str]:
    """Return everyone who is a target in no reported draw."""
    reported = {name for draw in range(5) for name in choose_targets(subjects, "10", seed=0, draw=draw)}
    return [name for name in subjects if name not in reported]


def score(table: FeatureTable, extractor: ExtractorInfo, settings: tuple[str, ...], seeds: int) -> dict[str, float]:
    """Return each method's mean macro F1 over the validation people."""
    torch.set_num_threads(1)
    config = load_config(None, parse_settings(settings))
    people = validation_people(table.subjects)
    shuffled = [people[place] for place in generator("folds").permutation(len(people))]
    rows = []
    for fold, seed in itertools.product(range(FOLDS), range(seeds)):
        targets = shuffled[fold::FOLDS]
        bundle = build_bundle(table.without(*targets), config, seed=seed, extractor=extractor, methods=METHODS)
        methods = [make_method(name, config.adapt.options) for name in METHODS]
        for name in targets:
            rows += evaluate_subject(bundle, table.rows_of(name), methods, numbers=RunNumbers(draw=fold, seed=seed))
    return {item.method: item.macro_f1 for item in summarise(rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None, help="settings to try instead, one candidate each")
    options = parser.parse_args()
    candidates = CANDIDATES if options.only is None else [tuple(item.split()) for item in options.only]
    tables = []
    for path in options.caches:
        with open_cache(path) as cache:
            tables.append((cache.read(), cache.extractor))
    calls = [
        delayed(score)(table, extractor, settings, options.seeds)
        for settings in candidates
        for table, extractor in tables
    ]
    print("| settings | " + " | ".join(f"{path.stem}: pft" for path in options.caches) + " | mean | others |")
    print("|---|" + "---|" * (len(tables) + 2))
    results = iter(Parallel(n_jobs=options.jobs, return_as="generator", inner_max_num_threads=1)(calls))
    for settings in candidates:
        scores = [next(results) for _ in tables]
        own = [item["pft"] for item in scores]
        others = "; ".join(
            " ".join(f"{name} {value:.3f}" for name, value in item.items() if name != "pft") for item in scores
        )
        label = ", ".join(settings) or "the defaults"
        cells = " | ".join(f"{value:.3f}" for value in own)
        print(f"| {label} | {cells} | {np.mean(own):.3f} | {others} |", flush=True)


if __name__ == "__main__":
    main()

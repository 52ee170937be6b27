"""What `pft` and each part of it is worth beside the light methods, on everyone of several sets. The protocol:

Each cache is cut into five folds of people, at random by a fixed seed. The people of one fold are the targets, everyone
else is the source; what a source model chooses (the carried share, the temperature, whether adapting helps) it chooses
on its own source people. Each target is adapted from their neutral clip and scored by macro F1 on their other rows, as
`featlab evaluate` does. All settings are the package's defaults.

A person who is in several caches (one face, other features) counts once: their scores are averaged over the caches.
Differences from `pft` are over people, with a bootstrap interval; p is Wilcoxon's, corrected by Holm over the methods.
*Worse* is the fraction of people who lose more than two points against the source model.

A backbone that is trained on labels must not see the targets: `network-{fold}.h5` names a cache for each fold, whose
network was trained on the people of the other four (`--folds` writes who is in each).

*Changed* caches show the same people, in the order of the plain ones, made in another way; what that is worth is
printed.

*Parts* and *terms* change one thing of `pft` each, at the source and at the target, with every frame of a clip counted
alike and without its guard, so that they differ in that alone.

    python benchmarks/study.py geometry.h5 --folds
    python benchmarks/study.py geometry.h5 hog.h5 units.h5 network-{fold}.h5 --jobs 2 --out study.md
    python benchmarks/study.py hog.h5 --changed hog-mirror.h5 --methods source-only,pft --out mirror.md

What is done is kept beside the output, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from people import read_table

from featlab import FeatureTable
from featlab.analysis.page import json_lines
from featlab.cache.atomic import atomic_write_text
from featlab.compute import generator
from featlab.config.load import Config, load_config, parse_settings
from featlab.evaluation.metrics import calibration_error
from featlab.evaluation.results import EvaluationRow, pooled_reliability, read_results
from featlab.evaluation.run import RunNumbers, evaluate_subject
from featlab.evaluation.statistics import bootstrap_interval, holm, wilcoxon
from featlab.methods import make_method
from featlab.model.style_bank import CarriedShare
from featlab.pairing.pairs import make_pairs
from featlab.workspace.stages import pretrain_bundle, train_source_head

FOLDS = 5
METHODS = (
    "source-only",
    "neutral-shift",
    "coral",
    "adabn",
    "referenced",
    "referenced-mlp",
    "pft-linear",
    "pft-mlp",
    "pft",
    "pft-poster",
    "oracle",
)
ALIKE = "pretrain.validation=false adapt.pft.guard=false"
_MEAN = "adapt.pft.weighting=mean"
PARTS = {
    "all of it": _MEAN,
    "all of the offset (share 1)": f"{_MEAN} pretrain.learn_share=false",
    "linear part, share 1 (the default before)": f"{_MEAN} pretrain.learn_share=false pretrain.form=linear",
    "linear part": f"{_MEAN} pretrain.form=linear",
    "MLP part": f"{_MEAN} pretrain.form=mlp",
    "random pairs": f"{_MEAN} pair.strategy=random",
    "without style": f"{_MEAN} pretrain.style=0",
    "without KL": f"{_MEAN} pretrain.expression=0",
    "without cross-entropy in the MLP part": f"{_MEAN} pretrain.classification=0",
    "60 epochs": f"{_MEAN} pretrain.epochs=60",
}
_GRADIENT = "adapt.pft.optimiser=lbfgs"
_DEEP = f"{_GRADIENT} adapt.pft.layers=features,embedding,bottleneck"
TERMS = {
    "means of the features (the default)": _MEAN,
    "and means at embedding and bottleneck": _DEEP,
    "and means and deviations there": f"{_DEEP} adapt.pft.std=1",
    "the same, the last layer moves": f"{_DEEP} adapt.pft.std=1 adapt.pft.update=last",
    "the same, all of T moves": f"{_DEEP} adapt.pft.std=1 adapt.pft.update=all",
    "consistency of two frames": f"{_GRADIENT} adapt.pft.consistency=1",
    "the same, all of T moves, no style": f"{_GRADIENT} adapt.pft.style=0 adapt.pft.consistency=1 adapt.pft.update=all",
    "all terms, all of T moves": f"{_DEEP} adapt.pft.std=1 adapt.pft.consistency=1 adapt.pft.update=all",
}
Scores = Mapping[str, Mapping[str, float]]
"""Macro F1 by what was run and by person."""


def people_of_fold(table: FeatureTable, fold: int) -> list[str]:
    """Return who are targets in a fold."""
    people = table.subject_names_present()
    return [people[place] for place in generator("folds").permutation(len(people))[fold::FOLDS]]


def name_of(cache: Path) -> str:
    """Return what a cache is called in the tables."""
    return cache.stem.replace("-{fold}", "")


def run_fold(cache: Path, fold: int, seed: int, methods: Sequence[str], changes: Mapping[str, str], out: Path) -> None:
    """Train the source model of a fold, adapt to its targets and keep the rows, unless they are kept already."""
    if out.exists():
        return
    torch.set_num_threads(1)
    table, extractor = read_table(Path(str(cache).format(fold=fold)))
    targets = people_of_fold(table, fold)
    source = table.without(*targets)
    trained = train_source_head(source, Config(), seed=seed)
    rows: list[EvaluationRow] = []
    made_for, bundle = None, None
    for name, settings in changes.items() or [("", "")]:
        config = load_config(None, parse_settings(f"{ALIKE} {settings}".split() if changes else []))
        how = config.pretrain
        if bundle is None or made_for != (how, config.pair):
            head = trained if how.learn_share else replace(trained, share=CarriedShare(how.share))
            pairs = make_pairs(source, config.pair, seed=seed)
            bundle = pretrain_bundle(source, head, pairs, config, seed=seed, extractor=extractor, methods=methods)
            made_for = (how, config.pair)
        made = [make_method(method, config.adapt.options) for method in methods]
        for target in targets:
            found = evaluate_subject(bundle, table.rows_of(target), made, numbers=RunNumbers(draw=fold, seed=seed))
            rows += [replace(row, method=name) for row in found] if changes else found
    atomic_write_text(out, json_lines(row.to_dict() for row in rows))


def scores_of(rows: Sequence[EvaluationRow]) -> Scores:
    """Return each person's macro F1 in percent, the mean over seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if not row.error:
            found.setdefault(row.method, {}).setdefault(row.subject, []).append(100 * row.macro_f1)
    return {name: {who: float(np.mean(each)) for who, each in people.items()} for name, people in found.items()}


def over_sets(sets: Mapping[str, Scores], name: str, group: Mapping[str, str]) -> dict[tuple[str, str], float]:
    """Return one score a person: the mean over the caches that show them."""
    found: dict[tuple[str, str], list[float]] = {}
    for cache, scores in sets.items():
        for who, score in scores[name].items():
            found.setdefault((group[cache], who), []).append(score)
    return {who: float(np.mean(each)) for who, each in found.items()}


def by_set(rows: Mapping[str, Sequence[EvaluationRow]]) -> str:
    """Return each set's calibration error and share of people who are worse, in Markdown."""
    sets = {cache: scores_of(each) for cache, each in rows.items()}
    names = list(next(iter(sets.values())))
    lines = ["| ECE · worse | " + " | ".join(sets) + " |", "|" + "---|" * (len(sets) + 1)]
    for name in names:
        cells = []
        for cache, scores in sets.items():
            worse = np.mean([scores[name][who] < score - 2 for who, score in scores[names[0]].items()])
            cells.append(f"{_error(rows[cache], name):.1f} · {100 * worse:.0f} %")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def change(rows: Mapping[str, Sequence[EvaluationRow]], pairs: Mapping[str, str]) -> str:
    """Return what changed caches are worth beside the plain ones, in Markdown."""
    sets = {cache: scores_of(each) for cache, each in rows.items()}
    lines = ["| | " + " | ".join(pairs) + " | over people |", "|" + "---|" * (len(pairs) + 2)]
    for name in next(iter(sets.values())):
        cells, all_differences = [], []
        for plain, changed in pairs.items():
            before, after = sets[plain][name], sets[changed][name]
            all_differences.append([after[who] - before[who] for who in before])
            means = [np.mean(list(each.values())) for each in (before, after)]
            cells.append(f"{means[0]:.1f} → {means[1]:.1f}: {_interval(all_differences[-1])}")
        lines.append(f"| {name} | {' | '.join(cells)} | {_interval(np.mean(all_differences, axis=0))} |")
    return "\n".join(lines) + "\n"


def _error(rows: Sequence[EvaluationRow], name: str) -> float:
    """Return a method's calibration error over all rows of a set, in percent."""
    counts = pooled_reliability([row for row in rows if row.method == name])
    return 0.0 if counts is None else 100 * calibration_error(counts)


def tables(rows: Mapping[str, Sequence[EvaluationRow]], group: Mapping[str, str], reference: str) -> str:
    """Return the scores and the differences in Markdown."""
    sets = {cache: scores_of(each) for cache, each in rows.items()}
    names = list(next(iter(sets.values())))
    lines = ["| | " + " | ".join(sets) + " | mean over sets | worse | ECE |", "|" + "---|" * (len(sets) + 4)]
    base = over_sets(sets, names[0], group)
    for name in names:
        means = [float(np.mean(list(scores[name].values()))) for scores in sets.values()]
        pooled = over_sets(sets, name, group)
        worse = np.mean([pooled[who] < base[who] - 2 for who in base])
        error = np.mean([_error(each, name) for each in rows.values()])
        cells = [f"{value:.1f}" for value in (*means, np.mean(means))]
        lines.append(f"| {name} | {' | '.join(cells)} | {100 * worse:.0f} % | {error:.1f} |")
    others = [name for name in names if name != reference]
    lines += ["", f"| {reference} minus | " + " | ".join(sets) + " | over people | p |", "|" + "---|" * (len(sets) + 3)]
    ours = over_sets(sets, reference, group)
    raw = []
    for name in others:
        theirs = over_sets(sets, name, group)
        raw.append(wilcoxon([ours[who] - theirs[who] for who in ours]))
    for name, p in zip(others, holm(raw), strict=True):
        cells = []
        for scores in sets.values():
            both = [scores[reference][who] - scores[name][who] for who in scores[name]]
            cells.append(_interval(both))
        theirs = over_sets(sets, name, group)
        cells.append(_interval([ours[who] - theirs[who] for who in ours]))
        lines.append(f"| {name} | {' | '.join(cells)} | {'<0.001' if p < 0.001 else f'{p:.3f}'} |")
    return "\n".join(lines) + "\n"


def _interval(differences: Sequence[float]) -> str:
    low, high = bootstrap_interval(differences)
    return f"{np.mean(differences):+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", type=Path, nargs="+")
    parser.add_argument("--changed", type=Path, nargs="+", default=[], help="one for each cache, in their order")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=METHODS, help="names with commas")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--parts", action="store_true", help="what each part of pft is worth, in place of the methods")
    parser.add_argument("--terms", action="store_true", help="what each loss term at the target is worth, likewise")
    parser.add_argument("--folds", action="store_true", help="write fold0.txt … with the targets of each, and stop")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("study.md"))
    options = parser.parse_args()
    if options.folds:
        table = read_table(options.caches[0])[0]
        for fold in range(FOLDS):
            atomic_write_text(Path(f"fold{fold}.txt"), "".join(f"{who}\n" for who in people_of_fold(table, fold)))
        return
    changes = PARTS if options.parts else TERMS if options.terms else {}
    kept = options.out.with_suffix(".parts" if options.parts else ".terms" if options.terms else ".rows")
    kept.mkdir(parents=True, exist_ok=True)
    caches = [*options.caches, *options.changed]
    methods = ("pft",) if changes else options.methods
    work = [
        (cache, fold, seed, methods, changes, kept / f"{name_of(cache)}-{fold}-{seed}.jsonl")
        for seed in range(options.seeds)
        for fold in range(FOLDS)
        for cache in caches
    ]
    Parallel(options.jobs)(delayed(run_fold)(*item) for item in work)
    rows: dict[str, list[EvaluationRow]] = {}
    for cache, *_, path in work:
        found = [row for row in read_results(path) if changes or row.method in methods]
        rows.setdefault(name_of(cache), []).extend(found)
    if options.changed:
        pairs = {name_of(one): name_of(other) for one, other in zip(options.caches, options.changed, strict=True)}
        text = change(rows, pairs)
    else:
        # Caches of the same people are of one group.
        people = {name: frozenset(row.subject for row in each) for name, each in rows.items()}
        group = {name: min(other for other in people if people[other] == people[name]) for name in people}
        text = tables(rows, group, next(iter(changes), "pft")) + "\n" + by_set(rows)
    atomic_write_text(options.out, text)
    print(text)


if __name__ == "__main__":
    main()

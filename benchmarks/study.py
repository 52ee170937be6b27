"""Which `pft` is the default, and the table that chose it: one setting changed at a time.

The development people (see `people.py`) play targets, in folds; everyone else is source in these runs. No reported
person is ever scored here. Bundles are made without what `pft` carries, which takes longer than all else, so that every
clip is weighted (as with ``adapt.pft.weighting=neutral``). Writes a Markdown table and a csv beside it.

    python benchmarks/study.py geometry.h5 hog.h5 --jobs 2 --out study.md
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from people import development_people, read_table
from scipy.stats import wilcoxon

from featlab.cache import ExtractorInfo, FeatureTable, atomic_write_text
from featlab.config.load import Config, load_config, parse_settings
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.run import RunNumbers, evaluate_subject
from featlab.evaluation.scores import subject_means
from featlab.methods import make_method
from featlab.pairing.pairs import make_pairs
from featlab.seeding import generator
from featlab.workspace.build import TrainedHead, pretrain_bundle, train_source_head

FOLDS = 4
BASELINES = ("source-only", "neutral-shift", "adabn", "coral", "referenced", "oracle")
LBFGS = "adapt.pft.optimiser=lbfgs"
POSTER = "pretrain.objective=poster pretrain.style=1 pretrain.expression=1"
EVERY_STATISTIC = f"{LBFGS} adapt.pft.layers=features,embedding adapt.pft.std=0.1 adapt.pft.update=all"
MLP = "pretrain.form=mlp pretrain.style=0.1 pretrain.expression=0.03"


def _adam(update: str, lr: float, steps: int) -> str:
    options = f"update={update} lr={lr} iterations={steps} optimiser=adam layers=embedding"
    return " ".join(f"adapt.pft.{option}" for option in options.split())


VARIANTS: tuple[tuple[str, str, str], ...] = (
    ("", "the default", ""),
    ("T", "identity: the offset alone, C never saw translated features", "pretrain.epochs=0"),
    ("T", "MLP, trained on pairs (the default before)", MLP),
    ("T", "MLP, 30 epochs, noise 0.1", f"{MLP} pretrain.epochs=30 pretrain.noise=0.1"),
    ("T", "MLP, not residual (the seeds' literal form)", f"{MLP} pretrain.residual=false"),
    ("T", "penalty 1.2 (the default is 4)", "pretrain.penalty=1.2"),
    ("T", "penalty 12", "pretrain.penalty=12"),
    ("T", "each row in one episode", "pretrain.episodes=1"),
    ("T", "each row in 16 episodes", "pretrain.episodes=16"),
    (
        "losses at the source",
        "KL alone, no cross-entropy on translated rows",
        "pretrain.classification=0 pretrain.expression=1",
    ),
    ("losses at the source", "cross-entropy + 0.1 KL", "pretrain.expression=0.1"),
    ("losses at the source", "cross-entropy + 1 KL", "pretrain.expression=1"),
    ("losses at the source", "the poster's: style + KL, no episodes", POSTER),
    ("losses at the source", "MLP, no style", f"{MLP} pretrain.style=0"),
    ("losses at the source", "MLP, style 1", f"{MLP} pretrain.style=1"),
    ("losses at the source", "MLP, style over the feature vector of a frame", f"{MLP} pretrain.axis=vector"),
    ("losses at the source", "MLP, style at the embedding only", f"{MLP} pretrain.layers=embedding"),
    ("losses at the source", "MLP, style at the bottleneck only", f"{MLP} pretrain.layers=bottleneck"),
    ("pairs", "MLP, cosine", f"{MLP} pair.strategy=cosine"),
    ("pairs", "MLP, random", f"{MLP} pair.strategy=random"),
    ("pairs", "MLP, references of the same label", f"{MLP} pair.label_rule=same"),
    ("pairs", "MLP, references of another label", f"{MLP} pair.label_rule=different"),
    ("clip", "every frame alike (mean)", "adapt.pft.weighting=mean"),
    ("clip", "median of each feature", "adapt.pft.weighting=median"),
    ("clip", "shrunk by 4 %", "adapt.pft.shrinkage=0.04"),
    ("clip", "shrunk by 15 %", "adapt.pft.shrinkage=0.15"),
    ("bank", "centre of the 5 nearest source people", "adapt.pft.bank=nearest"),
    ("bank", "centre weighted by nearness", "adapt.pft.bank=weighted"),
    ("style at the target", "means at the embedding", f"{LBFGS} adapt.pft.layers=embedding"),
    ("style at the target", "means at features and bottleneck", f"{LBFGS} adapt.pft.layers=features,bottleneck"),
    ("style at the target", "means and 0.1 standard deviations", EVERY_STATISTIC),
    ("other losses at the target", "+ 0.1 frame consistency", f"{LBFGS} adapt.pft.consistency=0.1"),
    ("other losses at the target", "+ 0.1 KL anchor", f"{LBFGS} adapt.pft.anchor=0.1"),
    ("other losses at the target", "+ 1 KL anchor", f"{LBFGS} adapt.pft.anchor=1"),
    ("layers that move", "last layer of T, Adam 1e-3, 100 steps", _adam("last", 0.001, 100)),
    ("layers that move", "all of T, Adam 1e-3, 100 steps", _adam("all", 0.001, 100)),
    ("layers that move", "all of T, Adam 1e-2, 25 steps", _adam("all", 0.01, 25)),
    ("layers that move", "all of T, Adam 1e-2, 100 steps", _adam("all", 0.01, 100)),
    ("features", "32 dimensions", "features.dim=32"),
    ("features", "128 dimensions", "features.dim=128"),
    ("features", "principal directions of all variation", "features.reduce=pca"),
)


@dataclass(frozen=True, eq=False)
class Fold:
    """A source model's first half, shared by all settings that leave it alone."""

    targets: tuple[str, ...]
    trained: TrainedHead


def evaluate_settings(
    table: FeatureTable, extractor: ExtractorInfo, group: Sequence[str], methods: Sequence[str], seeds: int
) -> dict[str, list[EvaluationRow]]:
    """Return rows by setting; all of ``group`` have the same features and head, which are trained once a fold."""
    torch.set_num_threads(1)
    people = development_people(table.subjects)
    shuffled = [people[place] for place in generator("folds").permutation(len(people))]
    rows: dict[str, list[EvaluationRow]] = {settings: [] for settings in group}
    for fold in range(FOLDS):
        targets = shuffled[fold::FOLDS]
        source = table.without(*targets)
        for seed in range(seeds):
            trained = train_source_head(source, parsed(group[0]), seed=seed)
            for settings in group:
                config = parsed(settings)
                bundle = pretrain_bundle(
                    source,
                    trained,
                    make_pairs(source, config.pair, seed=seed),
                    config,
                    seed=seed,
                    extractor=extractor,
                    cache_digest="",
                    methods=[name for name in methods if name != "pft"],
                )
                made = [make_method(name, config.adapt.options) for name in methods]
                for name in targets:
                    rows[settings] += evaluate_subject(
                        bundle, table.rows_of(name), made, numbers=RunNumbers(draw=fold, seed=seed)
                    )
    return rows


def parsed(settings: str) -> Config:
    """Return the configuration that a line of settings means."""
    return load_config(None, parse_settings(settings.split()))


def groups_of(settings: Sequence[str]) -> list[list[str]]:
    """Return the settings in groups that share features and head."""
    groups: dict[tuple[object, object], list[str]] = {}
    for line in settings:
        config = parsed(line)
        groups.setdefault((config.features, config.head), []).append(line)
    return list(groups.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("study.md"))
    parser.add_argument("--only", nargs="*", default=None, help="settings to try instead, one candidate each")
    options = parser.parse_args()
    variants = VARIANTS if options.only is None else [VARIANTS[0], *(("", line, line) for line in options.only)]
    tables = {path.stem: read_table(path) for path in options.caches}
    lines = [settings for _, _, settings in variants]
    # Settings are dealt out in small parts, so that the cores end together.
    parts = [group[start : start + 6] for group in groups_of(lines) for start in range(0, len(group), 6)]
    work = [(stem, part, ("pft",)) for part in parts for stem in tables]
    work += [(stem, [""], BASELINES) for stem in tables]
    runs = Parallel(n_jobs=options.jobs, inner_max_num_threads=1)(
        delayed(evaluate_settings)(*tables[stem], part, methods, options.seeds) for stem, part, methods in work
    )
    means: dict[tuple[str, str], dict[str, float]] = {}
    baselines: dict[tuple[str, str], dict[str, float]] = {}
    for (stem, _, methods), found in zip(work, runs, strict=True):
        for settings, rows in found.items():
            if methods == BASELINES:
                for name in BASELINES:
                    baselines[stem, name] = subject_means([row for row in rows if row.method == name])
            else:
                means[stem, settings] = subject_means(rows)
    text = report(variants, list(tables), means, baselines)
    atomic_write_text(options.out, text)
    atomic_write_text(options.out.with_suffix(".csv"), as_csv(means))
    print(text)


def report(
    variants: Sequence[tuple[str, str, str]],
    stems: Sequence[str],
    means: dict[tuple[str, str], dict[str, float]],
    baselines: dict[tuple[str, str], dict[str, float]],
) -> str:
    """Return the Markdown table: mean macro F1, and in brackets the paired difference to the default."""
    head = " | ".join(stems)
    text = [f"| changed | to | {head} | mean | p |", "|---|---|" + "---|" * (len(stems) + 2)]
    for group, label, settings in variants:
        scores = [np.mean(list(means[stem, settings].values())) for stem in stems]
        # A person's difference is averaged over the caches, so that the person stays the unit of the test.
        differences = np.mean([paired(means[stem, settings], means[stem, ""]) for stem in stems], axis=0)
        p = wilcoxon(differences).pvalue if np.any(differences) else float("nan")
        cells = " | ".join(f"{100 * score:.1f}" for score in scores)
        change = "" if settings == "" else f" ({100 * differences.mean():+.1f})"
        shown = "–" if np.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
        text.append(f"| {group} | {label} | {cells} | {100 * np.mean(scores):.1f}{change} | {shown} |")
    for name in BASELINES:
        scores = [np.mean(list(baselines[stem, name].values())) for stem in stems]
        cells = " | ".join(f"{100 * score:.1f}" for score in scores)
        text.append(f"| *another method* | `{name}` | {cells} | {100 * np.mean(scores):.1f} | |")
    return "\n".join(text) + "\n"


def paired(ours: dict[str, float], theirs: dict[str, float]) -> list[float]:
    """Return the differences person by person."""
    return [ours[name] - theirs[name] for name in sorted(theirs)]


def as_csv(means: dict[tuple[str, str], dict[str, float]]) -> str:
    """Return one line a cache, setting and person."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["cache", "settings", "subject", "macro_f1"])
    for (stem, settings), scores in means.items():
        writer.writerows([stem, settings, name, f"{score:.6f}"] for name, score in scores.items())
    return text.getvalue()


if __name__ == "__main__":
    main()

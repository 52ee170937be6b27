"""Short clips, clips that are not neutral, and whether `pft` knows: its warnings, its refusals, its probabilities.

People play targets in folds (`--people development`, the default, or `reported`), everyone else is source. Nothing is
chosen here: limits and temperature come with each bundle, from its own source subjects.

    python benchmarks/clips.py geometry.h5 --out clips-geometry.md
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from people import development_people, read_table
from scipy.stats import spearmanr

from featlab import ExtractorInfo, FeatureTable
from featlab.bundle.bundle import Bundle
from featlab.cache.atomic import atomic_write_text
from featlab.compute import generator
from featlab.config.load import Config
from featlab.evaluation.metrics import calibration_error, reliability_counts, subject_metrics
from featlab.methods import AdaptedModel, Method, make_method
from featlab.model.networks import GainEstimate
from featlab.protocol.splits import Split, reduced_split, split_target, target_of
from featlab.workspace.stages import build_bundle

FOLDS = 4
SEEDS = 3
FRAMES = (1, 2, 4, 8, 12, 16, 32, 64)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
METHODS = {
    "source-only": ("source-only", {}),
    "referenced": ("referenced", {}),
    "pft, mean": ("pft", {"weighting": "mean"}),
    "pft, median": ("pft", {"weighting": "median"}),
    "pft, neutral": ("pft", {"weighting": "neutral"}),
    "pft": ("pft", {}),
}


@dataclass(frozen=True, eq=False)
class Trial:
    """One person adapted to under one condition by one method.

    Attributes:
        condition: Words for it.
        method: Key of `METHODS`.
        macro_f1: On the person's test rows.
        adapted: The model, with its report.
        probabilities: (m, K) on the test rows.
        labels: (m,) their codes.
    """

    condition: str
    method: str
    macro_f1: float
    warned: bool
    refused: bool
    gain: GainEstimate | None
    probabilities: NDArray[np.float32]
    plain: NDArray[np.float32]
    labels: NDArray[np.int16]
    subject: str


def conditions(split: Split, table: FeatureTable, seed: int) -> Iterator[tuple[str, Split]]:
    """Yield each condition's words and split."""
    for frames in FRAMES:
        if frames < len(split.adapt) and seed == 0:
            yield f"first {frames}", reduced_split(table, split, seed, frames=frames)
    for share in SHARES:
        if share or seed == 0:
            yield f"{share:.0%} not neutral", reduced_split(table, split, seed, contamination=share)
    others = split.test[table.label[split.test] != table.neutral_code]
    taken = generator("all", seed, table.subject_names_present()[0]).permutation(others)[: len(split.adapt)]
    if len(taken) < len(others):
        yield "100% not neutral", Split(np.sort(taken), np.setdiff1d(split.test, taken))


def trials(bundle: Bundle, table: FeatureTable) -> list[Trial]:
    """Return every condition and method on one person."""
    made = {name: make_method(method, {method: options}) for name, (method, options) in METHODS.items()}
    whole, found = split_target(table), []
    for seed in range(SEEDS):
        for words, split in conditions(whole, table, seed):
            for name, method in made.items():
                adapted = method.adapt(bundle, target_of(table, split.adapt))
                found.append(trial(words, name, method, bundle, adapted, table, split.test))
    return found


def trial(
    words: str,
    name: str,
    method: Method,
    bundle: Bundle,
    adapted: AdaptedModel,
    table: FeatureTable,
    test: NDArray[np.intp],
) -> Trial:
    """Score an adapted model."""
    probabilities = adapted.predict_proba(table.embeddings[test])
    model = adapted.model
    plain = replace(adapted, model=type(model)(model.projection, model.translator, model.head))
    report = adapted.report
    return Trial(
        condition=words,
        method=name,
        macro_f1=subject_metrics(table.label[test], probabilities, table.neutral_code).macro_f1,
        warned=bool(report and (report.remarks or report.refusal)),
        refused=bool(report and report.refusal),
        gain=method.expected_gain(bundle, model, table.embeddings[test]) if report else None,
        probabilities=probabilities,
        plain=plain.predict_proba(table.embeddings[test]),
        labels=table.label[test],
        subject=table.subject_names_present()[0],
    )


def run_fold(table: FeatureTable, extractor: ExtractorInfo, targets: Sequence[str]) -> list[Trial]:
    """Train without the targets, then try everything on each of them."""
    torch.set_num_threads(1)
    names = sorted({method for method, _ in METHODS.values()})
    bundle = build_bundle(table.without(*targets), Config(), seed=0, extractor=extractor, methods=names)
    return [item for name in targets for item in trials(bundle, table.rows_of(name))]


def error_of(items: Sequence[tuple[NDArray[np.float32], NDArray[np.int16]]]) -> float:
    """Return the expected calibration error over all frames."""
    return calibration_error(np.sum([reliability_counts(*item) for item in items], axis=0))


def report(found: Sequence[Trial]) -> str:
    """Return the tables."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in found:
        scores[item.condition, item.method][item.subject].append(item.macro_f1)

    def mean(condition: str, method: str) -> float:
        return float(np.mean([np.mean(values) for values in scores[condition, method].values()]))

    clean = f"{0:.0%} not neutral"
    text = [
        f"| clip | {' | '.join(METHODS)} | gain kept by pft | warned | refused |",
        "|---" * (len(METHODS) + 4) + "|",
    ]
    for condition in dict.fromkeys(item.condition for item in found):
        mine = [item for item in found if (item.condition, item.method) == (condition, "pft")]
        gain = mean(condition, "pft") - mean(condition, "source-only")
        kept = gain / (mean(clean, "pft") - mean(clean, "source-only"))
        cells = " | ".join(f"{100 * mean(condition, method):.1f}" for method in METHODS)
        warned, refused = (np.mean([getattr(item, name) for item in mine]) for name in ("warned", "refused"))
        text.append(f"| {condition} | {cells} | {kept:.0%} | {warned:.0%} | {refused:.0%} |")
    plain = {name: [item for item in found if (item.condition, item.method) == (clean, name)] for name in METHODS}
    text += ["", "| calibration error, clean clips | |", "|---|---|"]
    for name in ("source-only", "referenced"):
        value = error_of([(item.probabilities, item.labels) for item in plain[name]])
        text.append(f"| {name} | {value:.3f} |")
    for name, field in (("pft, temperature 1", "plain"), ("pft", "probabilities")):
        value = error_of([(getattr(item, field), item.labels) for item in plain["pft"]])
        text.append(f"| {name} | {value:.3f} |")
    before = {item.subject: item.macro_f1 for item in plain["source-only"]}
    known = [item for item in plain["pft"] if item.gain]
    if known:
        gain = np.array([item.macro_f1 - before[item.subject] for item in known])
        expected, low, high, chance = (
            np.array([getattr(item.gain, name) for item in known]) for name in ("expected", "low", "high", "chance")
        )
        text += ["", "| did it help? (no label used) | |", "|---|---|"]
        text += [
            f"| people whom it helped or left as they were | {np.mean(gain >= 0):.0%} |",
            f"| mean chance that was given | {chance.mean():.0%} |",
            f"| expected gain, mean | {100 * expected.mean():+.1f} |",
            f"| real gain, mean | {100 * gain.mean():+.1f} |",
            f"| real gain inside the interval for four in five | {np.mean((gain >= low) & (gain <= high)):.0%} |",
            f"| rank correlation of expected and real gain | {spearmanr(expected, gain).statistic:.2f} |",
            f"| mean error of the expected gain | {100 * np.abs(gain - expected).mean():.1f} |",
            f"| the same of the mean expected gain for everyone | {100 * np.abs(gain - expected.mean()).mean():.1f} |",
        ]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--people", choices=("development", "reported", "all"), default="development")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("clips.md"))
    options = parser.parse_args()
    table, extractor = read_table(options.cache)
    development = development_people(table.subjects)
    people = {
        "development": development,
        "reported": [name for name in table.subjects if name not in set(development)],
        "all": list(table.subjects),
    }[options.people]
    shuffled = [people[place] for place in generator("folds").permutation(len(people))]
    runs = Parallel(n_jobs=options.jobs, inner_max_num_threads=1)(
        delayed(run_fold)(table, extractor, shuffled[fold::FOLDS]) for fold in range(FOLDS)
    )
    text = report([item for fold in runs for item in fold])
    atomic_write_text(options.out, text)
    print(text)


if __name__ == "__main__":
    main()

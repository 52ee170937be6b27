"""What BatchNorm's mode does to the SHOT family: adapted on rows of every class, and on neutral rows only.

Drawn people in feature space (class mean + subject offset + noise, four classes): 12 source subjects and 3 targets, 6
seeds. Each target has clips of every class to adapt on and others to test on. Macro F1 on the test clips, mean over 18
targets, and the share of neutral test rows that is still called neutral; for two sizes of an expression beside a
subject's offset of 1.5: people whom the source model knows well, and people whom it does not.

    python benchmarks/batch_norm.py
"""

from __future__ import annotations

import numpy as np
import torch

from featlab import ExtractorInfo, FeatureTable
from featlab.config.load import Config
from featlab.evaluation.metrics import subject_metrics
from featlab.methods import make_method
from featlab.protocol.splits import target_of
from featlab.workspace.stages import build_bundle

SEEDS, SOURCES, TARGETS, CLIPS, FRAMES, DIM = 6, 12, 3, 2, 20, 64
EXPRESSIONS = (1.0, 0.45)
"""Standard deviation of a class mean, per value."""
ADAPTED_ON = ("every class", "neutral only")
CLASSES = ("neutral", "anger", "joy", "surprise")
METHODS = ("source-only", "adabn", "shot-im", "shot", "nrc", "tpds")
CONFIG = {"features.reduce": "none", "features.dim": 0, "pretrain.epochs": 0}


def people(seed: int, expression: float) -> FeatureTable:
    """Return rows of all people, two clips a class."""
    rng = np.random.default_rng(seed)
    mean = expression * rng.normal(size=(len(CLASSES), DIM))
    rows, label, subject, video, frame = [], [], [], [], []
    names = sorted(f"{name}-{clip}" for name in CLASSES for clip in range(CLIPS))
    for person in range(SOURCES + TARGETS):
        offset = 1.5 * rng.normal(size=DIM)
        for code, name in enumerate(names):
            kind = CLASSES.index(name.rpartition("-")[0])
            rows.append(mean[kind] + offset + rng.normal(size=(FRAMES, DIM)))
            label += [kind] * FRAMES
            subject += [person] * FRAMES
            video += [code] * FRAMES
            frame += range(FRAMES)
    return FeatureTable(
        embeddings=np.concatenate(rows).astype(np.float32),
        label=np.array(label, dtype=np.int16),
        subject=np.array(subject, dtype=np.int32),
        video=np.array(video, dtype=np.int32),
        frame=np.array(frame, dtype=np.int32),
        subjects=tuple(f"s{person:02d}" for person in range(SOURCES + TARGETS)),
        videos=tuple(names),
        classes=CLASSES,
        neutral="neutral",
    )


def scores(seed: int, expression: float) -> dict[tuple[str, str, str], list[tuple[float, float]]]:
    """Return (adapted on, method, BatchNorm mode) to (macro F1, neutral recall) of each target."""
    table = people(seed, expression)
    targets = table.subjects[SOURCES:]
    config = Config().with_values(CONFIG, "benchmark")
    extractor = ExtractorInfo("drawn", "none", f"{DIM} values")
    bundle = build_bundle(table.without(*targets), config, seed=seed, extractor=extractor, methods=())
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for name in targets:
        mine = table.rows_of(name)
        first = np.array([mine.videos[code].endswith("-0") for code in mine.video])
        test = mine.take(~first)
        for adapted_on in ADAPTED_ON:
            keep = first & ((mine.label == mine.neutral_code) | (adapted_on == "every class"))
            target = target_of(mine, np.flatnonzero(keep))
            for method in METHODS:
                modes = ("train", "eval") if method not in ("source-only", "adabn") else ("–",)
                for mode in modes:
                    options = {} if mode == "–" else {"bn_mode": mode}
                    model = make_method(method, {method: options}).adapt(bundle, target, seed=seed)
                    score = subject_metrics(test.label, model.predict_proba(test.embeddings), neutral_code=0)
                    found.setdefault((adapted_on, method, mode), []).append((score.macro_f1, score.neutral_recall))
    return found


def main() -> None:
    """Print the table in Markdown."""
    torch.set_num_threads(1)
    columns: dict[tuple[str, str], list[str]] = {}
    for expression in EXPRESSIONS:
        everything: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
        for seed in range(SEEDS):
            for key, values in scores(seed, expression).items():
                everything.setdefault(key, []).extend(values)
        base = np.array([score for score, _ in everything["every class", "source-only", "–"]])
        for (_, method, mode), values in sorted(everything.items(), key=lambda item: item[0][0]):
            score, kept = np.mean(values, axis=0)
            worse = int((np.array([value for value, _ in values]) < base - 1e-9).sum())
            columns.setdefault((method, mode), []).append(f"{100 * score:.1f} · {kept:.0%} · {worse}")
    print("| method, BatchNorm | " + " | ".join(f"{e}, {on}" for e in EXPRESSIONS for on in ADAPTED_ON) + " |")
    print("|---|---|---|---|---|")
    for (method, mode), cells in columns.items():
        print(f"| {method}, {mode} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

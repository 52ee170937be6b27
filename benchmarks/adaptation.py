"""Adapting: one step against the same arithmetic in bare PyTorch, one command, and a thousand people in one command.

Features are kept as they are (512 of 512), so that nothing is made smaller than it could be. Numbers are random; what
takes time does not depend on them, but for the iterations of what stops when it has converged.

    python benchmarks/claims.py adaptation
    python benchmarks/adaptation.py             # seconds of some methods
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from claims import Claim, command, seconds
from torch import Tensor
from torch.nn import functional as F

from featlab import ExtractorInfo, FeatureTable, write_table
from featlab.bundle.bundle import Bundle, save_bundle
from featlab.config.load import Config
from featlab.methods import make_method
from featlab.methods.pft.adapt import TOLERANCE
from featlab.protocol.splits import Target
from featlab.workspace.stages import build_bundle

PEOPLE, FRAMES, WIDTH, MANY = 40, 12, 512, 1000
EXTRACTOR = ExtractorInfo("random", "none", "none")
METHODS = {
    "pft, Adam on the offset (50 steps)": ("pft", {"optimiser": "adam"}),
    "pft, L-BFGS on the offset": ("pft", {"optimiser": "lbfgs"}),
    "pft, closed form (the default)": ("pft", {}),
    "pft-poster": ("pft-poster", {}),
    "referenced": ("referenced", {}),
    "shot": ("shot", {}),
}


def random_people(people: int = PEOPLE, clips: int = 4, first: int = 0) -> FeatureTable:
    """Return clips of 12 frames of every person, neutral ones first: identity + expression + noise."""
    random = np.random.default_rng(first)
    person = np.repeat(random.normal(size=(people, WIDTH)), clips * FRAMES, axis=0)
    label = np.tile(np.repeat(np.arange(clips) * 2 >= max(clips, 2), FRAMES), people).astype(np.int16)
    embeddings = person + 0.06 * label[:, None] * random.normal(size=WIDTH) + 0.5 * random.normal(size=person.shape)
    return FeatureTable(
        embeddings=embeddings.astype(np.float32),
        label=label if clips > 1 else np.full_like(label, -1),
        subject=np.repeat(np.arange(people), clips * FRAMES).astype(np.int32),
        video=np.tile(np.repeat(np.arange(clips), FRAMES), people).astype(np.int32),
        frame=np.tile(np.arange(FRAMES), clips * people).astype(np.int32),
        subjects=tuple(f"p{first + number:05}" for number in range(people)),
        videos=tuple(f"clip-{number}" for number in range(clips)),
        classes=("neutral", "smile"),
        neutral="neutral",
    )


def random_bundle(methods: list[str]) -> Bundle:
    """Return a bundle of forty people."""
    config = Config().with_values({"features.reduce": "none", "head.epochs": 5}, "benchmark")
    return build_bundle(random_people(), config, seed=0, extractor=EXTRACTOR, methods=methods)


def bare_step(bundle: Bundle, clip: np.ndarray) -> Callable[[], Tensor]:
    """Return what pft does to a clip, on tensors: the alignment, what is told of the clip, and its predictions."""
    mean, components, share = bundle.projection.mean, bundle.projection.components, bundle.share.value
    first, last, norm = bundle.translator.first, bundle.translator.last, bundle.head.norm
    centre, linear, classifier = bundle.bank.layers["features"][0], bundle.head.linear, bundle.head.classifier
    weight = classifier.weight.detach()

    def logits(features: Tensor) -> Tensor:
        moved = features + F.linear(F.relu(F.linear(features, first.weight, first.bias)), last.weight, last.bias)
        z = F.linear(moved, linear.weight, linear.bias)
        z = F.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return F.linear(z, weight, classifier.bias)

    @torch.no_grad()
    def step() -> Tensor:
        features = (torch.from_numpy(clip) - mean) @ components
        place = torch.quantile(features, 0.5, dim=0)
        for _ in range(50):
            neutral = torch.softmax(logits(features + share * (centre - place)), dim=1)[:, 0].clamp_min(1e-6)
            moved = (neutral[:, None] * features).sum(dim=0) / neutral.sum()
            change, place = float((moved - place).abs().max()), moved
            if change <= TOLERANCE:
                break
        offset = share * (centre - place)
        odds = [F.log_softmax(logits(rows), dim=1) for rows in (features, features + offset)]
        _ = [float((values[:, 0] - values[:, 1]).std(correction=0)) for values in odds]
        return torch.softmax(logits(features + share * (centre - features.mean(dim=0))), dim=1)

    return step


def claims(folder: Path) -> Iterator[Claim]:
    """Yield the claims about adapting."""
    bundle, method = random_bundle(["pft"]), make_method("pft")
    for frames in (FRAMES, 300):
        clip = np.tile(random_people(1, 1, 77).embeddings, (frames // FRAMES, 1))
        target = Target(clip, np.zeros(frames, dtype=np.int32), np.arange(frames, dtype=np.int32))

        def ours(target: Target = target) -> None:
            for _ in range(50):
                method.adapt(bundle, target)

        step = bare_step(bundle, clip)

        def theirs(step: Callable[[], Tensor] = step) -> None:
            for _ in range(50):
                step()

        against = "the same arithmetic in bare PyTorch"
        yield Claim(f"50 adaptation steps, d = {WIDTH}, {frames} frames", against, 1.3, ours, theirs)
    save_bundle(folder / "bundle", bundle)
    for people, cache in ((1, "one.h5"), (MANY, "many.h5")):
        write_table(folder / cache, random_people(people, 1, 100), EXTRACTOR)
    words = ("adapt", "-C", str(folder), "--bundle", str(folder / "bundle"), "--quiet")

    def adapt(who: str, cache: str) -> None:
        for stored in (folder / "bundle" / "subjects").glob("*/adaptation.safetensors"):
            stored.unlink()
        # Of a thousand random clips a few look as if they were not neutral.
        command("featlab", *words, "--force", "--subject", who, "--cache", str(folder / cache))

    yield Claim(
        "whole `featlab adapt --subject X` with a ready bundle",
        '`python -c "import torch"`',
        1.6,
        lambda: adapt("p00100", "one.h5"),
        lambda: command("python", "-c", "import torch"),
    )
    # Of the same people: how often a clip is looked at depends on the clip.
    steps = [bare_step(bundle, clip) for clip in np.split(random_people(MANY, 1, 100).embeddings, MANY)]
    yield Claim(
        f"{MANY:,} people adapted in one command, {FRAMES} frames of {WIDTH} values each",
        "the bare step of each",
        3,
        lambda: adapt("all", "many.h5"),
        lambda: [step() for step in steps],
    )


def main() -> None:
    torch.set_num_threads(1)
    bundle = random_bundle(sorted({name for name, _ in METHODS.values()}))
    clip = random_people(1, 1, 77).embeddings
    target = Target(clip, np.zeros(FRAMES, dtype=np.int32), np.arange(FRAMES, dtype=np.int32))
    first = 0.0
    print("| method | iterations | seconds | ratio |\n|---|---|---|---|")
    for words, (name, settings) in METHODS.items():
        method = make_method(name, {name: settings})
        adapt = partial(method.adapt, bundle, target)
        middle = statistics.median(seconds(adapt) for _ in range(20))
        first = first or middle
        print(f"| {words} | {adapt().iterations} | {middle:.4f} | {middle / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()

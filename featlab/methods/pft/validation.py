"""Play source subjects as targets, in folds, to learn what a personal model can be trusted with.

For each fold B, C, T and the style bank are made again without the fold's subjects; each of them is then adapted as the
protocol adapts, to one half of their neutral clips and then to the other, and scored on their other rows. What comes
out are a few numbers for the bundle: no row of anyone, and nothing of a target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.methods.pft.adapt import (
    SHARE_KEPT,
    WARN,
    ClipStatistics,
    Reliability,
    align_style,
    clip_statistics,
    confidence_gap,
    source_odds,
)
from featlab.model.head import train_heads
from featlab.model.linear import LEAST_SUBJECTS, fit_temperature, person_folds
from featlab.model.pretrain import make_style_bank, part_of, pretrain_translators, weighed
from featlab.model.style_bank import SourceRows
from featlab.protocol.splits import macro_f1

BALANCES = (0.5, 0.1, 0.25, 0.75, 0.9)
"""Weights of the MLP part that are tried."""
LENGTHS = (1, 2, 4, 8, 16)
"""Frames of a clip with which the gain is measured again, to learn how few will do."""
UNKNOWN = 1e6
"""A log-spread that no clip reaches."""


def validate_on_source(source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
    """Adapt to held-out source subjects and return what that tells of T and of each of its parts, for the bundle.

    The projection and the carried share are the bundle's own, of all source rows. By ``joint``, ``linear`` and ``mlp``,
    those that T has, the tensors of a `Reliability`; and ``balance``, the weight of the MLP part with which source
    people scored best. Empty where there are too few source subjects.
    """
    people = len(source.subjects)
    if people < LEAST_SUBJECTS:
        return {}
    dealt = ((held_out, source.without(held_out)) for held_out in person_folds(people, bundle.seed))
    folds = [
        (held_out, rest)
        for held_out, rest in dealt
        if len(torch.unique(rest.labels[rest.labels >= 0])) > 1 and rest.subjects
    ]
    if not folds:
        return {}
    models = _fold_models([rest for _, rest in folds], bundle)
    # The linear and the MLP part of T, or T as it is.
    ends = (0.0, 1.0) if _has_parts(bundle) else (1.0,)
    parts = [[_weighed(model, weight) for weight in ends] for model in models]
    played = [
        _play(source, subject, adapt, test, fold, parts[fold])
        for fold, (held_out, _) in enumerate(folds)
        for subject in held_out.tolist()
        for adapt, test in _splits(source, subject)
    ]
    if len({item.subject for item in played}) < LEAST_SUBJECTS:
        return {}
    config, forms = bundle.config.pretrain, {bundle.config.pretrain.form: bundle.config.pretrain.balance}
    if _has_parts(bundle):
        weights = BALANCES if config.learn_balance else (config.balance,)
        # Of equal ones the first: no weight is chosen for nothing.
        best = max(weights, key=lambda weight: np.mean([item.score(item.logits(weight)[-1]) for item in played]))
        forms = {"joint": best, "linear": 0.0, "mlp": 1.0}
    tensors = {"balance": torch.tensor(forms.get("joint", 0.0), dtype=torch.float64)}
    means = [rows.neutral_means() for rows in (*(rest for _, rest in folds), source)]
    for form, weight in forms.items():
        made = [_weighed(model, weight) for model in (*models, bundle)]
        odds = [*map(source_odds, means, made)]
        episodes = [item.episode(weight, made[item.fold], odds[item.fold]) for item in played]
        found = fit_reliability(episodes, odds[-1])
        tensors |= {f"{form}.{key}": tensor for key, tensor in vars(found).items()}
    return tensors


def _has_parts(bundle: Bundle) -> bool:
    """Whether T is the mean of a linear and an MLP part."""
    config = bundle.config.pretrain
    return config.form == "joint" and config.epochs > 0 and 0 < config.balance < 1


def _weighed(bundle: Bundle, weight: float) -> Bundle:
    """Return the bundle with another weight of the MLP part of its T: 0 is the linear part alone."""
    if not _has_parts(bundle):
        return bundle
    translator, config, classes = bundle.translator, bundle.config.pretrain, len(bundle.classes)
    if weight in (0, 1):
        return replace(bundle, translator=part_of(translator, "mlp" if weight else "linear", config, classes))
    return replace(bundle, translator=weighed(translator, weight, config, classes))


def _fold_models(folds: Sequence[SourceRows], bundle: Bundle) -> list[Bundle]:
    """Make B, C, T and the bank again of the rows that are left in each fold."""
    config, share, seed = bundle.config, bundle.share.value, bundle.seed
    labels = [rest.labels.numpy().astype(np.int16) for rest in folds]
    heads = [bundle.head for _ in folds]
    if config.head.classifier == "trained":
        heads = train_heads(folds[0].features, labels, len(bundle.classes), config.head, seed=seed)
    translators, _ = pretrain_translators(folds, heads, config.pretrain, share=share, seed=seed)
    return [
        replace(bundle, head=head, translator=translator, bank=make_style_bank(rest, translator, head, share))
        for rest, head, translator in zip(folds, heads, translators, strict=True)
    ]


def _splits(source: SourceRows, subject: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows that a subject is adapted on and those that are tested, for each half of their neutral clips."""
    mine = torch.nonzero((source.row_subject == subject) & (source.labels >= 0)).squeeze(1)
    count = int(source.count[subject])
    half = max(1, count // 2)
    for places in ({*range(half)}, {*range(count - half, count)}) if count > 1 else ({0},):
        adapt = mine[torch.isin(source.row_clip[mine], source.clips[subject, sorted(places)])]
        if count == 1:
            # As the protocol does: half of the only clip is adapted on.
            adapt = adapt[: (len(adapt) + 1) // 2]
        test = mine[~torch.isin(mine, adapt)]
        if len(test):
            yield adapt, test


@dataclass(frozen=True, eq=False)
class _Played:
    """A held-out subject, adapted to one clip."""

    subject: int
    fold: int
    clip: Tensor  # (n, D) frames that were adapted on.
    labels: Tensor  # (m,) of the other rows.
    source_logits: Tensor  # (m, K)
    lengths: tuple[int, ...]  # Frames of the clip, the whole of it last.
    # (lengths, m, K) by the linear part of T, and by the MLP part; by T as it is where it has no parts.
    parts: Sequence[Tensor]

    def logits(self, weight: float) -> Tensor:
        """Return (lengths, m, K) with a weight of the MLP part: behind T's hidden layer all is affine."""
        first, last = self.parts[0], self.parts[-1]
        return first + weight * (last - first)

    def score(self, logits: Tensor) -> float:
        """Return the macro F1, as an evaluation scores a subject."""
        return macro_f1(self.labels.numpy(), logits.argmax(dim=1).numpy(), logits.shape[1])

    def episode(self, weight: float, own: Bundle, odds: Tensor) -> Episode:
        """Return what is to be learnt with that weight; ``own`` is the model that has it, with its `source_odds`."""
        logits = self.logits(weight)
        *short, after = map(self.score, logits)
        return Episode(
            subject=self.subject,
            logits=logits[-1],
            source_logits=self.source_logits,
            labels=self.labels,
            before=self.score(self.source_logits),
            after=after,
            after_short=dict(zip(self.lengths, short, strict=False)),
            clip=clip_statistics(self.clip, align_style(self.clip, own).offset, own, odds),
        )


def _play(source: SourceRows, subject: int, adapt: Tensor, test: Tensor, fold: int, parts: Sequence[Bundle]) -> _Played:
    """Adapt each part of T on some rows of a held-out subject and look at the others."""
    model = parts[0]
    assert model.bank is not None  # made for the fold
    clip, rows = source.features[adapt], source.features[test]
    lengths = (*(length for length in LENGTHS if length < len(adapt)), len(adapt))
    # A source subject's clip is what it says, so that all its frames count: the offset is the same for every T.
    means = torch.stack([clip[:length].mean(dim=0) for length in lengths])
    offsets = model.share.value * (model.bank.layers["features"][0] - means)
    moved = (rows + offsets[:, None]).flatten(0, 1)
    with torch.no_grad():
        source_logits = model.head(rows)
    return _Played(
        subject=subject,
        fold=fold,
        clip=clip,
        labels=source.labels[test],
        source_logits=source_logits,
        lengths=lengths,
        parts=[own.logits(moved).view(len(lengths), len(rows), -1) for own in parts],
    )


@dataclass(frozen=True, eq=False)
class Episode:
    """A held-out source subject, adapted to one neutral clip."""

    subject: int  # Who.
    logits: Tensor  # (m, K) of the adapted model on the subject's other rows.
    source_logits: Tensor  # (m, K) of the source model.
    labels: Tensor  # (m,) their codes.
    before: float  # Macro F1 of the source model on them.
    after: float  # That of the adapted model.
    after_short: Mapping[int, float]  # The same with fewer frames of the clip, by number of frames.
    clip: ClipStatistics  # What could be seen of the clip.


def fit_reliability(episodes: Sequence[Episode], odds: Tensor) -> Reliability:
    """Summarise episodes; each subject's episodes weigh alike, whatever the clips' lengths.

    ``odds`` are those of all source subjects, `source_odds`.
    """
    # One frame has no spread; where no source clip has two, nothing is known of it, and every clip passes.
    spread = np.array([item.clip.log_spread() for item in episodes if item.clip.frames > 1] or [UNKNOWN])
    position = np.array([episode.clip.position for episode in episodes])
    gains = np.array([episode.after - episode.before for episode in episodes])
    temperature = fit_temperature([(item.logits, item.labels) for item in episodes])
    gap = np.array([confidence_gap(item.logits / temperature, item.source_logits) for item in episodes])
    # Where no personal model differs from its source model, the slope is 0.
    slope = float(((gap - gap.mean()) * gains).sum() / max(((gap - gap.mean()) ** 2).sum(), 1e-12))
    intercept = float(gains.mean() - slope * gap.mean())
    return Reliability(
        temperature=_tensor(temperature),
        spread_mean=_tensor(spread.mean()),
        spread_std=_tensor(max(spread.std(), 1e-3)),
        spread_limit=_tensor(np.quantile(spread, WARN)),
        position_limit=_tensor(np.quantile(position, 1 - WARN)),
        gains=_tensor(np.sort(gains)),
        gain=_tensor([intercept, slope]),
        residuals=_tensor(np.sort(gains - intercept - slope * gap)),
        before=_tensor(np.mean([episode.before for episode in episodes])),
        after=_tensor(np.mean([episode.after for episode in episodes])),
        odds=odds,
        frames_needed=torch.tensor(_frames_needed(episodes)),
        people=torch.tensor(len({episode.subject for episode in episodes})),
        mean_gain=_tensor(_mean_gain(episodes)),
    )


def _mean_gain(episodes: Sequence[Episode]) -> tuple[float, float, float]:
    """Return the mean gain over people and its 80 % interval (Student's t)."""
    gains: dict[int, list[float]] = {}
    for episode in episodes:
        gains.setdefault(episode.subject, []).append(episode.after - episode.before)
    means = np.array([np.mean(values) for values in gains.values()])
    mean, around = float(means.mean()), 0.0
    if len(means) > 1:
        # Abramowitz and Stegun 26.7.5, right to five digits from eight people on: SciPy takes longer to import.
        z, degrees = NormalDist().inv_cdf(0.9), len(means) - 1
        terms = (
            z,
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        )
        quantile = sum(term / degrees**power for power, term in enumerate(terms))
        around = quantile * float(means.std(ddof=1)) / math.sqrt(len(means))
    return mean, mean - around, mean + around


def _frames_needed(episodes: Sequence[Episode]) -> int:
    """Return the fewest frames that keep enough of the mean gain, among the lengths that were tried."""
    lengths = sorted({length for episode in episodes for length in episode.after_short})
    for length in lengths:
        tried = [episode for episode in episodes if length in episode.after_short]
        whole = np.mean([episode.after - episode.before for episode in tried])
        short = np.mean([episode.after_short[length] - episode.before for episode in tried])
        if short >= SHARE_KEPT * whole:
            return length
    # Nothing shorter than the clips that there were: one frame where none was tried.
    return min((episode.clip.frames for episode in episodes), default=1) if lengths else 1


def _tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)

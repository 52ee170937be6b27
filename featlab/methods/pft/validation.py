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
from numpy.typing import NDArray
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.methods.pft.adapt import (
    SHARE_KEPT,
    WARN,
    ClipStatistics,
    Reliability,
    align_style,
    bank_centre,
    clip_statistics,
    confidence_gap,
    source_odds,
)
from featlab.model.head import train_heads
from featlab.model.linear import LEAST_SUBJECTS, fit_temperature, person_folds
from featlab.model.networks import Translator
from featlab.model.pretrain import make_style_bank, part_of, pretrain_translators, weighed
from featlab.model.style_bank import SourceRows

BALANCES = (0.5, 0.25, 0.75)
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
    folds = [(held_out, source.without(held_out)) for held_out in person_folds(people, bundle.seed)]
    folds = [
        (held_out, rest)
        for held_out, rest in folds
        if len(torch.unique(rest.labels[rest.labels >= 0])) > 1 and rest.subjects
    ]
    if not folds:
        return {}
    played: list[_Played] = []
    for (held_out, rest), model in zip(folds, _fold_models([rest for _, rest in folds], bundle), strict=True):
        models = {form: replace(model, translator=each) for form, each in forms_of(model).items()}
        means = rest.neutral_means()
        odds = {form: source_odds(means, own) for form, own in models.items()}
        for subject in held_out.tolist():
            for adapt, test in _splits(source, subject):
                played.append(_play(source, subject, adapt, test, models, odds))
    if len({item.subject for item in played}) < LEAST_SUBJECTS:
        return {}
    forms = forms_of(bundle)
    # Of equal ones the first: no weight is chosen for nothing.
    balances = [form for form in forms if isinstance(form, float)]
    balance = max(balances, key=lambda form: np.mean([item.after[form][-1] for item in played]), default=0.0)
    tensors = {"balance": torch.tensor(balance)}
    for form, translator in forms.items():
        if isinstance(form, str) or form == balance:
            odds_of_all = source_odds(source.neutral_means(), replace(bundle, translator=translator))
            found = fit_reliability([item.episode(form) for item in played], odds_of_all)
            name = form if isinstance(form, str) else "joint"
            tensors |= {f"{name}.{key}": tensor for key, tensor in vars(found).items()}
    return tensors


def forms_of(bundle: Bundle) -> Mapping[str | float, Translator]:
    """Return the bundle's T or, where it is joint, its two parts and their means by the weight of the MLP part."""
    config = bundle.config.pretrain
    if config.form != "joint":
        return {config.form: bundle.translator}
    if not config.epochs or config.balance in (0, 1):
        return {config.balance: bundle.translator}
    whole, classes = bundle.translator, len(bundle.classes)
    found: dict[str | float, Translator] = {}
    for weight in BALANCES if config.learn_balance else (config.balance,):
        found[weight] = weighed(whole, weight, config, classes)
    for part in ("linear", "mlp"):
        found[part] = part_of(whole, part, config, classes)
    return found


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
    """A held-out subject, adapted to one clip by every form of T."""

    subject: int
    clip: Tensor  # (n, D) frames that were adapted on.
    labels: Tensor  # (m,) of the other rows.
    models: Mapping[str | float, Bundle]  # Made without them, with each form of T.
    odds: Mapping[str | float, Tensor]  # `source_odds` of those whom they were made of.
    source_logits: Tensor  # (m, K)
    logits: Mapping[str | float, Tensor]  # (m, K) with the whole clip.
    before: float  # Macro F1 of the source model.
    lengths: tuple[int, ...]  # Frames of the clip, the whole of it last.
    after: Mapping[str | float, tuple[float, ...]]  # Macro F1 with so many.

    def episode(self, form: str | float) -> Episode:
        """Return what is to be learnt of one form."""
        own, scores = self.models[form], self.after[form]
        return Episode(
            subject=self.subject,
            logits=self.logits[form],
            source_logits=self.source_logits,
            labels=self.labels,
            before=self.before,
            after=scores[-1],
            after_short=dict(zip(self.lengths[:-1], scores, strict=False)),
            clip=clip_statistics(self.clip, align_style(self.clip, own).offset, own, self.odds[form]),
        )


def _play(
    source: SourceRows,
    subject: int,
    adapt: Tensor,
    test: Tensor,
    models: Mapping[str | float, Bundle],
    odds: Mapping[str | float, Tensor],
) -> _Played:
    """Adapt each T on some rows of a held-out subject and look at the others."""
    model = next(iter(models.values()))
    assert model.bank is not None  # made for the fold
    clip, rows, labels = source.features[adapt], source.features[test], source.labels[test].numpy()
    lengths = (*(length for length in LENGTHS if length < len(adapt)), len(adapt))
    # A source subject's clip is what it says, so that all its frames count: the offset is the same for every T.
    means = torch.stack([clip[:length].mean(dim=0) for length in lengths])
    offsets = model.share.value * (bank_centre(model.bank) - means)
    moved = (rows + offsets[:, None]).flatten(0, 1)
    with torch.no_grad():
        source_logits = model.head(rows)
    logits = {form: own.logits(moved).view(len(lengths), len(rows), -1) for form, own in models.items()}
    return _Played(
        subject=subject,
        clip=clip,
        labels=source.labels[test],
        models=models,
        odds=odds,
        source_logits=source_logits,
        logits={form: values[-1] for form, values in logits.items()},
        before=float(_macro_f1(labels, source_logits)),
        lengths=lengths,
        after={form: tuple(_macro_f1(labels, values).tolist()) for form, values in logits.items()},
    )


def _macro_f1(labels: NDArray[np.int64], logits: Tensor) -> NDArray[np.float64]:
    """Return (…) the mean F1 over the classes that are shown, as an evaluation scores a person, of (…, m, K) logits."""
    codes = np.arange(logits.shape[-1])
    truth, chosen = labels[:, None] == codes, logits.argmax(dim=-1).numpy()[..., None] == codes
    shown = truth.sum(axis=0)
    f1 = 2.0 * (truth & chosen).sum(axis=-2) / np.maximum(shown + chosen.sum(axis=-2), 1)
    mean: NDArray[np.float64] = f1[..., shown > 0].mean(axis=-1)
    return mean


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

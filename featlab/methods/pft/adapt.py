"""Adapt a translator to one person in closed form; and what the bundle says of the clip.

The offset that moves the mean of a clip onto the bank's centre is their difference, of which the carried share is
taken. A "neutral" clip that holds other expressions has its mean in the wrong place, so frames are weighted by how
neutral C calls them once they are aligned, and the two steps alternate, from the median frame on:

    offset = share · (centre − Σ pᵢ fᵢ / Σ pᵢ)        pᵢ = softmax(C(B(T(fᵢ + offset))))[neutral]

On a clip whose frames are all alike this is the mean (SFDA-PFT's L_style over means, at its minimum).

What a bundle knows of its own reliability was learnt on source subjects only (`featlab.methods.pft.validation`):

- **Temperature**: the one number that logits are divided by so that a probability is a frequency (Guo et al., 2017).
- **Limits** of what a neutral clip looks like: how much the log-odds of neutral vary within it once it is aligned
  (*spread*), and where they lie before, among the source subjects (*position*).
- **Gain** in macro F1. From the clip alone nobody can tell whom adapting will help (measured: docs/why.md); from
  unlabelled frames of the person something can be told: the more of them the personal model decides otherwise, and the
  surer it is of that, the more it gained on source subjects.
- **Frames needed**: the fewest frames that keep nine tenths of the gain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.methods.base import base_model, ordered_features
from featlab.model.networks import AdaptedModel, ClipReport, GainEstimate, PersonalModel, SourceGain
from featlab.protocol.splits import Target

if TYPE_CHECKING:
    from featlab.methods.pft.method import TranslatorAdaptation

TOLERANCE = 1e-4
"""Largest change of the clip's centre, in features of unit variance, at which the alternation has ended."""
WARN, REFUSE = 0.95, 3.0
"""A clip is remarked on above this share of source clips, and refused this many standard deviations away from them."""
UNEVEN, FEW = 0.84, 8
"""A clip's frames are weighted this many standard deviations above the usual spread (one source clip in five is); of
fewer frames the spread tells less, and they are weighted where it is remarked on."""
SHARE_KEPT = 0.9
"""Of the gain of a whole clip, what the fewest frames must keep."""
INTERVAL = (0.1, 0.9)
"""Between these shares of the source clips lies what is given as a range."""


def adapt_in_closed_form(
    bundle: Bundle, target: Target, config: TranslatorAdaptation, reliability: Reliability | None
) -> AdaptedModel:
    """Set the offset in closed form, and the temperature, and say what the bundle knows of such a clip."""
    features = ordered_features(bundle, target)
    # Whatever the weighting is, a clip is judged by how it looks with its neutral frames in place.
    weighted = align_style(features, bundle, iterations=config.iterations)
    report = None
    if reliability is not None:
        report = reliability.report(clip_statistics(features, weighted.offset, bundle, reliability.odds))
    gain = reliability.source_gain if reliability else None
    if config.guard and gain and not gain.helps:
        line = f"{gain.sentence()}: the source model is used as it is (--force adapts)"
        return AdaptedModel(base_model(bundle), warnings=(line,), report=report)
    weighting = config.weighting
    if weighting == "auto":
        # A clip as uniform as most source clips is all neutral for what can be seen: every frame tells of the person.
        weighting = "mean" if report is not None and report.uniform else "neutral"
    aligned = weighted
    if weighting != "neutral":
        aligned = align_style(features, bundle, weighting=weighting, iterations=config.iterations)
    temperature = float(reliability.temperature) if reliability else 1.0
    model = PersonalModel(bundle.projection, bundle.translator.moved(aligned.offset), bundle.head, temperature)
    warnings = (*neutral_warnings(bundle, bundle.logits(features + aligned.offset)), *_doubts(reliability))
    return AdaptedModel(
        model,
        iterations=len(aligned.history),
        trainable=len(aligned.offset) if aligned.history else 0,
        history=aligned.history,
        warnings=(*warnings, *(report.warnings if report else ())),
        report=report,
    )


def _doubts(reliability: Reliability | None) -> tuple[str, ...]:
    """Say so when source subjects don't tell that adapting helps."""
    if reliability is None:
        return ("nobody was held out at the source, or too few: whether adapting helps is not known",)
    gain = reliability.source_gain
    return (f"adapting may not help: {gain.sentence()}",) if gain.low <= 0 else ()


def neutral_warnings(bundle: Bundle, logits: Tensor) -> tuple[str, ...]:
    """Say so when the adapted model does not recognise the neutral clip itself."""
    share = float((logits.argmax(dim=1) == bundle.neutral_code).float().mean())
    if share >= 0.5:
        return ()
    return (f"the adapted model calls only {share:.0%} of the neutral clip {bundle.neutral!r}: is the clip neutral?",)


@dataclass(frozen=True, eq=False)
class Alignment:
    """What aligning a clip gave."""

    offset: Tensor  # (D,) to add to the person's features.
    weight: Tensor  # (n,) how neutral each frame is taken to be, in [0, 1].
    # An entry an iteration: ``style`` (L_style before it), ``neutral`` (mean weight), ``loss``.
    history: tuple[Mapping[str, float], ...]


def align_style(features: Tensor, bundle: Bundle, *, weighting: str = "neutral", iterations: int = 20) -> Alignment:
    """Return the offset that moves a clip's neutral frames towards the centre of the bundle's style bank."""
    assert bundle.bank is not None  # what needs a bank has checked that there is one
    share = bundle.share.value
    centre, _ = bundle.bank.layers["features"]
    even = torch.ones(len(features), device=features.device)
    if not iterations:
        return Alignment(torch.zeros_like(centre), even, ())
    # The quantile is the middle of the two middle ones, as numpy's median; torch's is the lower.
    place = features.mean(dim=0) if weighting == "mean" else torch.quantile(features, 0.5, dim=0)
    if weighting != "neutral":
        return Alignment(share * (centre - place), even, _history([(features.mean(dim=0) - place, even)]))
    weight, steps = even, []
    for _ in range(iterations):
        logits = bundle.logits(features + share * (centre - place))
        # No frame is left out for good: the first place may be far from all that are neutral.
        weight = torch.softmax(logits, dim=1)[:, bundle.neutral_code].clamp_min(1e-6)
        moved = (weight @ features) / weight.sum()
        steps.append((moved - place, weight))
        place = moved
        if float(steps[-1][0].abs().max()) <= TOLERANCE:
            break
    return Alignment(share * (centre - place), weight, _history(steps))


def _history(steps: Sequence[tuple[Tensor, Tensor]]) -> tuple[Mapping[str, float], ...]:
    """Return the terms of each iteration, of how far the clip's weighted mean was from its place, and the weights."""
    styles = torch.stack([left for left, _ in steps]).square().mean(dim=1).tolist()
    means = torch.stack([weight for _, weight in steps]).mean(dim=1).tolist()
    return tuple({"style": style, "neutral": mean, "loss": style} for style, mean in zip(styles, means, strict=True))


@dataclass(frozen=True)
class ClipStatistics:
    """What can be seen of a clip without labels."""

    frames: int  # How many there are.
    spread: float  # Standard deviation, over the aligned frames, of the log-odds of neutral; 0 for one frame.
    # Mean log-odds of neutral of the frames before they are aligned, in standard deviations from the source subjects'
    # neutral means.
    position: float

    def log_spread(self) -> float:
        """Return the logarithm of the spread, in which it is nearly normal over people."""
        return math.log(self.spread + 1e-3)


@dataclass(frozen=True, eq=False)
class Reliability:
    """What held-out source subjects told of a bundle."""

    temperature: Tensor  # Divides the logits.
    spread_mean: Tensor  # Mean log-spread of the source clips.
    spread_std: Tensor  # Its standard deviation.
    spread_limit: Tensor  # The log-spread that `WARN` of the source clips stay below.
    position_limit: Tensor  # The position that `WARN` of them stay above.
    gains: Tensor  # (E,) gain of each source clip, ascending.
    gain: Tensor  # (2,) intercept and slope of the gain on `confidence_gap`.
    residuals: Tensor  # (E,) what that leaves of each gain, ascending.
    before: Tensor  # Mean macro F1 of the source model.
    after: Tensor  # Mean macro F1 of the adapted models.
    # (2,) mean and standard deviation over source subjects of the log-odds of neutral of their neutral means.
    odds: Tensor
    frames_needed: Tensor  # Fewest frames that keep `SHARE_KEPT` of the gain.
    people: Tensor  # Source subjects that were held out.
    mean_gain: Tensor  # (3,) mean gain over people, and the interval that holds it four times in five.

    @property
    def source_gain(self) -> SourceGain:
        """What adapting gained on them."""
        mean, low, high = self.mean_gain.tolist()
        return SourceGain(mean, low, high, int(self.people))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Reliability | None:
        """Return what a bundle carries; ``None`` where it had too few source subjects to learn it from."""
        return cls(**{name: tensors[name].cpu() for name in cls.__dataclass_fields__}) if tensors else None

    def report(self, clip: ClipStatistics) -> ClipReport:
        """Return what is to be said of a clip."""
        usual = float(self.spread_mean)
        unusual = (clip.log_spread() - usual) / float(self.spread_std)
        needed = int(self.frames_needed)
        remarked = clip.frames > 1 and clip.log_spread() > float(self.spread_limit)
        uniform = not remarked and (clip.frames < FEW or unusual <= UNEVEN)
        remarks, refusal = [], ""
        if clip.frames < needed:
            refusal = (
                f"{clip.frames} neutral {'frame is' if clip.frames == 1 else 'frames are'} too few: source subjects "
                f"needed {needed} to keep {SHARE_KEPT:.0%} of the gain"
            )
        if clip.frames > 1 and unusual > REFUSE:
            refusal = (
                f"the clip does not look neutral: the log-odds of neutral vary by {clip.spread:.2f} within it, and by "
                f"{math.exp(usual):.2f} in a source subject's neutral clip"
            )
        elif remarked:
            remarks.append(
                f"the clip is less uniform than {WARN:.0%} of the source subjects' neutral clips: other expressions "
                "may be in it (such frames count less)"
            )
        if clip.position < float(self.position_limit):
            remarks.append(
                f"before adaptation this face looks less neutral than those of {WARN:.0%} of the source subjects: "
                "a resting face of its own, or a clip that is not neutral as a whole"
            )
        return ClipReport(clip=asdict(clip), uniform=uniform, remarks=tuple(remarks), refusal=refusal)

    def estimate(self, gap: float | None, frames: int = 0) -> GainEstimate:
        """Return the gain that is expected."""
        if gap is None:
            expected, around = float(self.gains.mean()), self.gains.numpy() - float(self.gains.mean())
        else:
            # A line knows no end: nobody is expected to gain more, or lose more, than any source person did.
            most, least = float(self.gains.max()), float(self.gains.min())
            expected, around = min(max(float(self.gain[0] + self.gain[1] * gap), least), most), self.residuals.numpy()
        low, high = (expected + np.quantile(around, INTERVAL)).tolist()
        return GainEstimate(expected, low, high, float(np.mean(around + expected >= 0)), frames)


def confidence_gap(logits: Tensor, source_logits: Tensor) -> float:
    """Return by how much the personal model believes itself to be more accurate than the source model, in [0, 1].

    The mean over frames of its probability of its own choice minus its probability of the source model's.
    """
    probability = torch.softmax(logits, dim=1)
    other = probability.gather(1, source_logits.argmax(dim=1, keepdim=True)).squeeze(1)
    return float((probability.max(dim=1).values - other).mean())


def clip_statistics(features: Tensor, offset: Tensor, bundle: Bundle, source: Tensor) -> ClipStatistics:
    """Return what can be seen of a clip that an offset aligns; ``source`` is the `source_odds` of the bundle's T."""
    # At once: of few rows, what takes time is to read the weights.
    own, moved = _log_odds(torch.cat([features, features + offset]), bundle).chunk(2)
    return ClipStatistics(
        frames=len(features),
        spread=float(moved.std(correction=0)),
        position=float((own.mean() - source[0]) / source[1]),
    )


def source_odds(means: Tensor, bundle: Bundle) -> Tensor:
    """Return (2,): mean and standard deviation of the log-odds of neutral of source subjects' neutral means (S, D)."""
    odds = _log_odds(means, bundle)
    return torch.stack([odds.mean(), odds.std(correction=0).clamp_min(1e-6)])


def _log_odds(features: Tensor, bundle: Bundle) -> Tensor:
    """Return (n,) log p(neutral) / (1 − p(neutral)) of features (n, D) through T, B and C."""
    logits, neutral = bundle.logits(features), bundle.neutral_code
    others = torch.cat([logits[:, :neutral], logits[:, neutral + 1 :]], dim=1)
    odds: Tensor = logits[:, neutral] - torch.logsumexp(others, dim=1)
    return odds

"""What a bundle knows of its own reliability, and what it says of a new person's clip. Learnt on source subjects only.

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
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.model.networks import ClipReport, GainEstimate, SourceGain

WARN, REFUSE = 0.95, 3.0
"""A clip is remarked on above this share of source clips, and refused this many standard deviations away from them."""
SHARE_KEPT = 0.9
"""Of the gain of a whole clip, what the fewest frames must keep."""
UNKNOWN = 1e6
"""A log-spread that no clip reaches."""
COLDEST, HOTTEST = 0.05, 20.0
"""Of temperatures."""
INTERVAL = (0.1, 0.9)
"""Between these shares of the source clips lies what is given as a range."""


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
    people: Tensor  # Source subjects that were held out; 0 in a bundle of an older featlab, which doesn't say.
    mean_gain: Tensor  # (3,) mean gain over people, and the interval that holds it four times in five.

    @property
    def source_gain(self) -> SourceGain | None:
        """What adapting gained on them; ``None`` in a bundle of an older featlab, which doesn't say."""
        mean, low, high = self.mean_gain.tolist()
        return SourceGain(mean, low, high, int(self.people)) if int(self.people) else None

    def tensors(self) -> dict[str, Tensor]:
        """Return what the bundle carries."""
        return dict(vars(self))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Reliability | None:
        """Return what a bundle carries; ``None`` where it had too few source subjects to learn it from."""
        return cls(**{name: tensors[name].cpu() for name in cls.__dataclass_fields__}) if tensors else None

    def report(self, clip: ClipStatistics) -> ClipReport:
        """Return what is to be said of a clip."""
        usual = float(self.spread_mean)
        unusual = (clip.log_spread() - usual) / float(self.spread_std)
        needed = int(self.frames_needed)
        uniform = clip.frames == 1 or clip.log_spread() <= float(self.spread_limit)
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
        elif not uniform:
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


def fit_temperature(sets: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the temperature with the least mean cross-entropy, each set weighing alike (Guo et al., 2017)."""
    from featlab.model.linear import minimise_convex

    logits, labels = (torch.cat(parts) for parts in zip(*sets, strict=True))
    logits = logits.double() - logits.gather(1, labels[:, None])
    share = torch.cat([torch.full((len(labels),), 1 / len(labels) / len(sets)) for _, labels in sets]).to(logits)

    def loss(sharpness: Tensor) -> tuple[float, Tensor]:
        """Return the loss, which is convex in 1 / temperature, and its gradient."""
        chances = torch.softmax(sharpness * logits, dim=1)
        slope = share @ (chances * logits).sum(dim=1)
        return float(share @ torch.logsumexp(sharpness * logits, dim=1)), slope[None]

    sharpness = minimise_convex(loss, torch.ones(1, dtype=torch.float64), iterations=100)
    return 1 / float(sharpness.clamp(1 / HOTTEST, 1 / COLDEST))


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


def _log_odds(features: Tensor, bundle: Bundle) -> Tensor:
    """Return (n,) log p(neutral) / (1 − p(neutral)) of features (n, D) through T, B and C."""
    logits, neutral = bundle.logits(features), bundle.neutral_code
    others = torch.cat([logits[:, :neutral], logits[:, neutral + 1 :]], dim=1)
    odds: Tensor = logits[:, neutral] - torch.logsumexp(others, dim=1)
    return odds


def _tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)

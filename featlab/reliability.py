"""What a bundle knows of its own reliability, and what it says of a new person's clip. Learnt on source subjects only.

- **Temperature**: the one number that logits are divided by so that a probability is a frequency (Guo et al., 2017).
- **Limits** of what a neutral clip looks like: how much the log-odds of neutral vary within it once it is aligned
  (*spread*), and where they lie before, among the source subjects (*position*).
- **Expected gain** in macro F1: a ridge regression on those two and on how sure the source model is of the clip.
- **Frames needed**: the fewest frames that keep nine tenths of the gain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.bundle import Bundle
from featlab.style_alignment import Alignment

__all__ = [
    "ClipReport",
    "ClipStatistics",
    "Episode",
    "Reliability",
    "clip_statistics",
    "fit_reliability",
    "fit_temperature",
]

WARN, REFUSE = 0.95, 3.0
"""A clip is remarked on above this share of source clips, and refused this many standard deviations away from them."""
SHARE_KEPT = 0.9
"""Of the gain of a whole clip, what the fewest frames must keep."""
RIDGE = 1.0
"""Penalty of the regression of the gain, on standardised statistics."""
INTERVAL = (0.1, 0.9)


@dataclass(frozen=True)
class ClipStatistics:
    """What can be seen of a clip without labels.

    Attributes:
        frames: n.
        spread: Standard deviation, over the aligned frames, of the log-odds of neutral; 0 for one frame.
        position: Mean log-odds of neutral of the frames before they are aligned, in standard deviations from the
            source subjects' neutral means.
        sureness: Mean probability of neutral by the source model.
    """

    frames: int
    spread: float
    position: float
    sureness: float

    def log_spread(self) -> float:
        """Return the logarithm of the spread, in which it is nearly normal over people."""
        return math.log(self.spread + 1e-3)

    def vector(self) -> tuple[float, float, float]:
        """Return what the gain is regressed on."""
        return self.log_spread(), self.position, self.sureness


@dataclass(frozen=True, eq=False)
class Episode:
    """A held-out source subject, adapted to one neutral clip.

    Attributes:
        subject: Who.
        logits: (m, K) of the adapted model on the subject's other rows.
        labels: (m,) their codes.
        before: Macro F1 of the source model on them.
        after: That of the adapted model.
        after_short: The same with fewer frames of the clip, by number of frames.
        clip: What could be seen of the clip.
    """

    subject: int
    logits: Tensor
    labels: Tensor
    before: float
    after: float
    after_short: Mapping[int, float]
    clip: ClipStatistics


@dataclass(frozen=True)
class ClipReport:
    """What a bundle says of one person's clip, without labels.

    Attributes:
        clip: What was seen.
        expected_before: Mean macro F1 of the source model on held-out source subjects.
        expected_gain: What adapting is expected to add to it for a clip like this.
        gain_low: Below it lies the gain of a tenth of the source subjects with such a clip.
        gain_high: Above it, of another tenth.
        chance: Share of source subjects with a clip like this whom adapting helped or left as they were.
        remarks: What looks unusual, one line each.
        refusal: Why this clip should not be adapted to; empty when it may.
    """

    clip: ClipStatistics
    expected_before: float
    expected_gain: float
    gain_low: float
    gain_high: float
    chance: float
    remarks: tuple[str, ...]
    refusal: str


@dataclass(frozen=True, eq=False)
class Reliability:
    """What held-out source subjects told of a bundle.

    Attributes:
        temperature: Divides the logits.
        clip_mean: (3,) mean of `ClipStatistics.vector` over source clips.
        clip_std: (3,) their standard deviation.
        spread_limit: The log-spread that `WARN` of the source clips stay below.
        position_limit: The position that `WARN` of them stay above.
        gain: (4,) intercept and weights of the expected gain on standardised statistics.
        residuals: (E,) what was left of the gain of each source clip, ascending.
        before: Mean macro F1 of the source model.
        after: Mean macro F1 of the adapted models.
        frames_needed: Fewest frames that keep `SHARE_KEPT` of the gain.
    """

    temperature: Tensor
    clip_mean: Tensor
    clip_std: Tensor
    spread_limit: Tensor
    position_limit: Tensor
    gain: Tensor
    residuals: Tensor
    before: Tensor
    after: Tensor
    frames_needed: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return what the bundle carries."""
        return dict(vars(self))

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> Reliability:
        """Read what `tensors` gave."""
        return cls(**{name: tensors[name] for name in cls.__dataclass_fields__})

    def report(self, clip: ClipStatistics) -> ClipReport:
        """Return what is to be said of a clip."""
        seen = np.array(clip.vector())
        standard = (seen - self.clip_mean.numpy()) / self.clip_std.numpy()
        # A clip unlike any other must not be promised more than those at the edge.
        gain = float(self.gain[0] + self.gain[1:].numpy() @ np.clip(standard, -2, 2))
        residuals = self.residuals.numpy()
        low, high = (gain + float(np.quantile(residuals, share)) for share in INTERVAL)
        remarks, refusal = [], ""
        needed = int(self.frames_needed)
        if clip.frames < needed:
            refusal = (
                f"{clip.frames} neutral {'frame is' if clip.frames == 1 else 'frames are'} too few: source subjects "
                f"needed {needed} to keep {SHARE_KEPT:.0%} of the gain"
            )
        if clip.frames > 1 and standard[0] > REFUSE:
            refusal = (
                f"the clip does not look neutral: the log-odds of neutral vary by {clip.spread:.2f} within it, and by "
                f"{math.exp(float(self.clip_mean[0])):.2f} in a source subject's neutral clip"
            )
        elif clip.frames > 1 and clip.log_spread() > float(self.spread_limit):
            remarks.append(
                f"the clip is less uniform than {WARN:.0%} of the source subjects' neutral clips: other expressions "
                "may be in it (such frames count less)"
            )
        if clip.position < float(self.position_limit):
            remarks.append(
                f"before adaptation this face looks less neutral than those of {WARN:.0%} of the source subjects: "
                "a resting face of its own, or a clip that is not neutral as a whole"
            )
        return ClipReport(
            clip=clip,
            expected_before=float(self.before),
            expected_gain=gain,
            gain_low=low,
            gain_high=high,
            chance=float((residuals + gain >= 0).mean()),
            remarks=tuple(remarks),
            refusal=refusal,
        )


def clip_statistics(features: Tensor, aligned: Alignment, bundle: Bundle) -> ClipStatistics:
    """Return what can be seen of a clip.

    Args:
        features: (n, D) features of the clip.
        aligned: Its alignment.
        bundle: B, C, T and the style bank, which must be there.
    """
    assert bundle.bank is not None  # the alignment needed it too
    neutral, head, translator = bundle.neutral_code, bundle.head, bundle.translator
    with torch.no_grad():
        own = _log_odds(head(translator(features)), neutral)
        source = _log_odds(head(translator(bundle.bank.layers["features"][0])), neutral)
        moved = _log_odds(head(translator(features + aligned.offset)), neutral)
        sureness = torch.softmax(head(features), dim=1)[:, neutral].mean()
    scale = source.std(correction=0).clamp_min(1e-6)
    return ClipStatistics(
        frames=len(features),
        spread=float(moved.std(correction=0)),
        position=float((own.mean() - source.mean()) / scale),
        sureness=float(sureness),
    )


def fit_reliability(episodes: Sequence[Episode]) -> Reliability:
    """Summarise episodes; each subject's episodes weigh alike, whatever the clips' lengths.

    Args:
        episodes: Two or more.
    """
    seen = np.array([episode.clip.vector() for episode in episodes])
    mean, std = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-6)
    gains = np.array([episode.after - episode.before for episode in episodes])
    standard = np.clip((seen - mean) / std, -2, 2)
    weights = np.linalg.solve(
        standard.T @ standard + RIDGE * np.eye(seen.shape[1]), standard.T @ (gains - gains.mean())
    )
    intercept = gains.mean() - standard.mean(axis=0) @ weights
    residuals = np.sort(gains - intercept - standard @ weights)
    return Reliability(
        temperature=torch.tensor(fit_temperature([(item.logits, item.labels) for item in episodes])),
        clip_mean=_tensor(mean),
        clip_std=_tensor(std),
        spread_limit=_tensor(np.quantile(seen[:, 0], WARN)),
        position_limit=_tensor(np.quantile(seen[:, 1], 1 - WARN)),
        gain=_tensor(np.concatenate([[intercept], weights])),
        residuals=_tensor(residuals),
        before=_tensor(np.mean([episode.before for episode in episodes])),
        after=_tensor(np.mean([episode.after for episode in episodes])),
        frames_needed=torch.tensor(_frames_needed(episodes)),
    )


def fit_temperature(sets: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the temperature with the least mean cross-entropy, each set weighing alike (Guo et al., 2017, section 4).

    Args:
        sets: (logits (m, K), labels (m,)) of one subject each.

    Returns:
        A number in [0.05, 20].
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scale = math.exp(log_temperature)
        return float(torch.stack([F.cross_entropy(logits / scale, labels) for logits, labels in sets]).mean())

    # Convex in 1 / temperature, so there is one minimum.
    found = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20.0)), method="bounded")
    return math.exp(float(found.x))


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


def _log_odds(logits: Tensor, neutral: int) -> Tensor:
    """Return (n,) log p(neutral) / (1 − p(neutral))."""
    others = torch.cat([logits[:, :neutral], logits[:, neutral + 1 :]], dim=1)
    return logits[:, neutral] - torch.logsumexp(others, dim=1)


def _tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)

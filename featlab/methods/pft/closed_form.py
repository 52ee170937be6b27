"""Align one person's style with the style bank in closed form, whatever else than neutral is in the clip.

The offset that moves the mean of a clip onto the bank's centre is their difference, of which the carried share is
taken. A "neutral" clip that holds other expressions has its mean in the wrong place, so frames are weighted by how
neutral C calls them once they are aligned, and the two steps alternate, from the median frame on:

    offset = share · (centre − Σ pᵢ fᵢ / Σ pᵢ)        pᵢ = softmax(C(B(T(fᵢ + offset))))[neutral]

On a clip whose frames are all alike this is the mean (SFDA-PFT's L_style over means, at its minimum).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.model.style_bank import StyleBank

WEIGHTINGS = ("neutral", "mean", "median")
BANKS = ("all", "nearest", "weighted")
NEAREST = 5
"""Source subjects that ``nearest`` takes."""
TOLERANCE = 1e-4
"""Largest change of the clip's centre, in features of unit variance, at which the alternation has ended."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """What aligning a clip gave.

    Attributes:
        offset: (D,) to add to the person's features.
        weight: (n,) how neutral each frame is taken to be, in [0, 1].
        history: An entry an iteration: ``style`` (what is left of L_style), ``neutral`` (mean weight), ``loss``.
    """

    offset: Tensor
    weight: Tensor
    history: tuple[Mapping[str, float], ...]


def align_style(
    features: Tensor, bundle: Bundle, *, weighting: str = "neutral", bank: str = "all", iterations: int = 20
) -> Alignment:
    """Return the offset that moves a clip's neutral frames towards the centre of the bundle's style bank."""
    assert bundle.bank is not None  # what needs a bank has checked that there is one
    share = bundle.share.value
    centre = bank_centre(bundle.bank, features, bank)
    even = torch.ones(len(features), device=features.device)
    if not iterations:
        return Alignment(torch.zeros_like(centre), even, ())
    # The quantile is the middle of the two middle ones, as numpy's median; torch's is the lower.
    place = features.mean(dim=0) if weighting == "mean" else torch.quantile(features, 0.5, dim=0)
    if weighting != "neutral":
        return Alignment(share * (centre - place), even, (_entry(features, centre - place, even, centre),))
    history = []
    weight = even
    with torch.no_grad():
        for _ in range(iterations):
            logits = bundle.head(bundle.translator(features + share * (centre - place)))
            # No frame is left out for good: the first place may be far from all that are neutral.
            weight = torch.softmax(logits, dim=1)[:, bundle.neutral_code].clamp_min(1e-6)
            moved = (weight[:, None] * features).sum(dim=0) / weight.sum()
            change = float((moved - place).abs().max())
            place = moved
            history.append(_entry(features, centre - place, weight, centre))
            if change <= TOLERANCE:
                break
    return Alignment(share * (centre - place), weight, tuple(history))


def bank_centre(bank: StyleBank, features: Tensor | None = None, which: str = "all") -> Tensor:
    """Return (D,), the place that a clip is moved to."""
    means, _ = bank.layers["features"]
    if which == "all" or features is None:
        return means.mean(dim=0)
    distance = ((means - features.mean(dim=0)) ** 2).sum(dim=1)
    if which == "nearest":
        return means[distance.argsort()[:NEAREST]].mean(dim=0)
    # A bank of one subject at the clip's own mean has no distance at all.
    weight = torch.softmax(-distance / distance.median().clamp_min(1e-12), dim=0)
    return (weight[:, None] * means).sum(dim=0)


def _entry(features: Tensor, offset: Tensor, weight: Tensor, centre: Tensor) -> dict[str, float]:
    mean = (weight[:, None] * (features + offset)).sum(dim=0) / weight.sum()
    style = float(((mean - centre) ** 2).mean())
    return {"style": style, "neutral": float(weight.mean()), "loss": style}

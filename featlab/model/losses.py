"""The losses of personalised feature translation, as pure functions of tensors.

Sources: the SFDA-PFT poster (L_style, L_expr, L_CE). Departures are said where they are made.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.errors import InputError
from featlab.model.networks import SourceHead

EPSILON = 1e-6
"""Added to the variance inside the root: the gradient of sqrt is infinite at 0, and one frame has variance 0."""
_ROWS = 65536  # whose deviations are held at once


def style_statistics(values: Tensor, axis: str = "subject") -> tuple[Tensor, Tensor]:
    """Return the style of (n, D) rows of one subject: their mean and standard deviation.

    σ = sqrt(variance + 1e-6), with the biased variance (divided by n), so that one row has a finite gradient. Axis
    ``subject`` is over the rows, (D,) each; ``vector`` is over the features of each row, (n,) each, as the statistic of
    an image's feature map. No rows, not two dimensions or another axis are an InputError.

    Example:
        >>> mean, std = style_statistics(torch.tensor([[0.0, 2.0], [2.0, 2.0]]))
        >>> mean.tolist(), [round(value, 3) for value in std.tolist()]
        ([1.0, 2.0], [1.0, 0.001])
    """
    if values.ndim != 2 or not len(values):
        raise InputError(f"style needs rows of features (n, D) with n ≥ 1, got shape {tuple(values.shape)}")
    if axis not in ("subject", "vector"):
        raise InputError(f"style axis {axis!r} is not one of subject, vector")
    return statistics_along(values, 0 if axis == "subject" else 1)


def statistics_along(values: Tensor, dim: int, *, some: bool = False) -> tuple[Tensor, Tensor]:
    """Return the style over one dimension of any values; with ``some`` of those that are no NaN."""
    average = torch.nanmean if some else torch.mean
    mean = average(values, dim, keepdim=True)
    # torch's own variance takes ten times as long over rows.
    return mean.squeeze(dim), torch.sqrt(average((values - mean).square(), dim) + EPSILON)


def group_statistics(values: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return mean and std, both (S, D), of (n, D) rows: `style_statistics` of each of S subjects at once.

    ``group`` is (n,) int64, each row's subject in [0, S). A subject without a row, or another code, is an InputError.
    """
    if values.ndim != 2 or group.shape != values.shape[:1]:
        raise InputError(
            f"group style needs rows (n, D) and a subject each, got {tuple(values.shape)} and {tuple(group.shape)}"
        )
    if len(group) and not 0 <= int(group.min()) <= int(group.max()) < groups:
        raise InputError(f"group style: subject codes must be in [0, {groups})")
    count = torch.bincount(group, minlength=groups).to(values.dtype)
    if bool((count == 0).any()):
        raise InputError("style of a subject without rows; give every subject at least one")
    zeros = values.new_zeros(groups, values.shape[1])
    mean, spread = zeros.index_add(0, group, values) / count[:, None], zeros
    for rows, of in zip(torch.split(values, _ROWS), torch.split(group, _ROWS), strict=True):
        spread = spread.index_add(0, of, (rows - mean[of]) ** 2)
    return mean, torch.sqrt(spread / count[:, None] + EPSILON)


def style_loss(mean: Tensor, std: Tensor, reference_mean: Tensor, reference_std: Tensor) -> Tensor:
    """Return the identity alignment loss, ‖μ − μ_ref‖² + ‖σ − σ_ref‖² (SFDA-PFT poster, L_style of one layer).

    The squared norms are divided by the number of statistics, so that a weight means the same at every width. All four
    have one shape, else it is an InputError; no gradient is taken through the reference's.
    """
    for name, ours, theirs in (("mean", mean, reference_mean), ("std", std, reference_std)):
        if ours.shape != theirs.shape:
            raise InputError(f"style {name}s differ in shape: {tuple(ours.shape)} against {tuple(theirs.shape)}")
    return F.mse_loss(mean, reference_mean.detach()) + F.mse_loss(std, reference_std.detach())


def expression_loss(reference_logits: Tensor, translated_logits: Tensor) -> Tensor:
    """Return the expression preservation loss KL(softmax C(f) ‖ softmax C(f̂)) in nats, mean over rows.

    Both logits are (n, K), n ≥ 1, else it is an InputError; no gradient is taken through those of the untranslated
    rows, the reference.
    """
    shape = reference_logits.shape
    if shape != translated_logits.shape or len(shape) != 2 or not shape[0]:
        raise InputError(
            f"expression loss needs equal logits (n, K) with n ≥ 1, got {tuple(reference_logits.shape)} "
            f"and {tuple(translated_logits.shape)}"
        )
    reference = F.log_softmax(reference_logits.detach(), dim=1)
    translated = F.log_softmax(translated_logits, dim=1)
    return F.kl_div(translated, reference, reduction="batchmean", log_target=True)


def classification_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the cross-entropy of (…, n, K) logits with (…, n) labels, the mean over rows by their (…, n) weights."""
    entropy = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view_as(weight)
    return (weight * entropy).sum(dim=-1) / weight.sum(dim=-1)


def layer_values(layer: str, translated: Tensor, head: SourceHead) -> Tensor:
    """Return where style is compared of (n, D) translated rows: themselves (``embedding``), or B's output (n, H)."""
    return head.bottleneck(translated) if layer == "bottleneck" else translated

"""How a student's features relate to each other, against how a teacher's do: the relation losses of SFIT.

Source: Hou & Zheng, Visualizing Adapted Knowledge in Domain Adaptation, CVPR 2021, equation 5, and the two variants in
the authors' code. There a channel relation is taken over the positions of an image's feature map. A feature vector has
no positions: `channel_relation_loss` takes it over the rows of a batch in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from featlab.errors import InputError


def channel_relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖N(Zₛᵀ Zₛ) − N(Zₜᵀ Zₜ)‖²_F / H, where N scales every row of a Gram matrix to length 1."""
    _check(student, teacher)
    return _gram_difference(student.T, teacher.detach().T)


def batch_relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖N(Zₛ Zₛᵀ) − N(Zₜ Zₜᵀ)‖²_F / n: which rows of the batch resemble each other (n × n).

    Blind to the scale and to a rotation of either side. Arguments and errors as `channel_relation_loss`.
    """
    _check(student, teacher)
    return _gram_difference(student, teacher.detach())


def vector_relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of ‖N(s sᵀ) − N(t tᵀ)‖²_F / H, for the features s and t of one row.

    The i-th row of N(s sᵀ) is sign(sᵢ) s / ‖s‖, so that the value is 2 − 2 cos(s, t) · mean_i sign(sᵢ tᵢ) when no
    feature is 0, and no H × H matrix is needed. Blind to the scale and to the sign of either side. Arguments and errors
    as `channel_relation_loss`.
    """
    _check(student, teacher)
    ours, theirs = student.sign(), teacher.detach().sign()
    cosine = F.cosine_similarity(student, teacher.detach(), dim=1)
    # A feature of 0 is a row of zeros in the outer product: it has no length to add.
    lengths = (ours.abs() + theirs.abs()).mean(dim=1)
    return (lengths - 2 * cosine * (ours * theirs).mean(dim=1)).mean()


RELATION_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gram": channel_relation_loss,
    "batch": batch_relation_loss,
    "1d": vector_relation_loss,
}
"""By the name of the option."""


def _gram_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of the squared distance between the scaled rows of two Gram matrices."""
    ours, theirs = (F.normalize(values @ values.T, dim=1) for values in (student, teacher))
    return (ours - theirs).square().sum(dim=1).mean()


def _check(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 2 or student.shape != teacher.shape or not student.numel():
        raise InputError(
            "a relation loss needs equal features (n, H) with n ≥ 1, got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )

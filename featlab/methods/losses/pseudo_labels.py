"""How alike rows of one expression or of one person are: mean cosines between cells, without a matrix of all pairs.

A cell is all rows of one subject and one class. The mean cosine between two cells is the dot product of the means of
their unit vectors, so nothing larger than one vector a cell is needed. Cells weigh the same, however long clips are;
no cell is compared with itself, so no row meets itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from featlab.errors import InputError

__all__ = [
    "CentreLabels",
    "Similarities",
    "centre_labels",
    "class_centres",
    "mean_cosines",
    "unit_codes",
]


@dataclass(frozen=True, eq=False)
class Similarities:
    """Mean cosines, one number a subject; NaN where there is no pair.

    Attributes:
        subject: (S,) codes of the subjects, ascending.
        fixed_expression: (S,) between a subject's cells and other subjects' cells of the same class.
        fixed_subject: (S,) between a subject's cells of different classes.
        neither: (S,) between a subject's cells and other subjects' cells of other classes.
    """

    subject: NDArray[np.int64]
    fixed_expression: NDArray[np.float64]
    fixed_subject: NDArray[np.float64]
    neither: NDArray[np.float64]


def mean_cosines(
    rows: NDArray[np.floating[Any]], subject: NDArray[np.integer[Any]], label: NDArray[np.integer[Any]]
) -> Similarities:
    """Compare every subject's cells with their own of other classes, and with those of others.

    Args:
        rows: (N, D), centred by the caller: a mean that all rows share would lift every cosine. A row of zeros has no
            direction and a cosine of 0 with everything.
        subject: (N,) codes.
        label: (N,) classes ≥ 0; rows of unknown label are the caller's to leave out.

    Raises:
        InputError: No row, arrays of different lengths, or a value that is not finite.
    """
    if not len(rows) or not len(rows) == len(subject) == len(label):
        raise InputError(f"similarities need rows, subjects and labels, got {len(rows)}, {len(subject)}, {len(label)}")
    values = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("similarities need finite rows; these hold NaN or infinity")
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    subjects, person = np.unique(subject, return_inverse=True)
    classes, kind = np.unique(label, return_inverse=True)
    count = np.zeros((len(subjects), len(classes)))
    np.add.at(count, (person, kind), 1.0)
    cells = np.zeros((*count.shape, values.shape[1]))
    np.add.at(cells, (person, kind), unit)
    there = count > 0
    cells[there] /= count[there][:, None]

    # Sums over pairs of cells of dot products are dot products of sums of cells.
    of_subject, of_class = cells.sum(axis=1), cells.sum(axis=0)
    own = np.einsum("scd,scd->s", cells, cells)
    within = np.einsum("sd,sd->s", of_subject, of_subject) - own
    alike = np.einsum("scd,cd->s", cells, of_class) - own
    everything = of_subject @ of_class.sum(axis=0)
    cells_of, subjects_of = there.sum(axis=1), there.sum(axis=0)
    pairs_within = cells_of * (cells_of - 1)
    pairs_alike = there @ subjects_of - cells_of
    pairs_all = cells_of * there.sum()
    return Similarities(
        subjects.astype(np.int64),
        _ratio(alike, pairs_alike),
        _ratio(within, pairs_within),
        _ratio(everything - within - alike - own, pairs_all - pairs_within - pairs_alike - cells_of),
    )


def _ratio(total: NDArray[np.float64], pairs: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    ratio = np.full(len(total), np.nan)
    np.divide(total, pairs, out=ratio, where=pairs > 0)
    return ratio


@dataclass(frozen=True, eq=False)
class CentreLabels:
    """Rows assigned to class centres.

    Attributes:
        labels: (n,) int64, the class of the nearest centre.
        distance: (n,), the cosine distance 1 − cos to it.
        centres: (K, H + 1), what the rows were compared with; a class that no row was predicted as has one too, but no
            row is assigned to it.
    """

    labels: Tensor
    distance: Tensor
    centres: Tensor


def unit_codes(z: Tensor) -> Tensor:
    """Return (n, H + 1): a one is appended to each row of (n, H) bottleneck outputs, then its length is made 1."""
    return F.normalize(torch.cat([z, torch.ones_like(z[:, :1])], dim=1), dim=1)


def class_centres(codes: Tensor, weight: Tensor) -> Tensor:
    """Return the (K, C) weighted means c_k = Σ_i w_ik x_i / (10⁻⁸ + Σ_i w_ik) of (n, C) codes x with (n, K) weights."""
    return (weight.T @ codes) / (1e-8 + weight.sum(dim=0))[:, None]


def centre_labels(z: Tensor, p: Tensor, *, threshold: int = 0, rounds: int = 2) -> CentreLabels:
    """Assign each row to the class whose centre is nearest in angle.

    Centres are weighted by the predictions in the first round, by the assignments in every further one. A class counts
    when more than ``threshold`` rows are predicted as it (in further rounds: assigned to it); where none has so many,
    every class with a row counts.

    Args:
        z: (n, H) bottleneck outputs, in evaluation mode.
        p: (n, K) predictions for them.
        threshold: 0 as published; 10 for a target that lacks classes (partial-set adaptation).
        rounds: 2 in SHOT, 1 in TPDS.
    """
    codes = unit_codes(z)
    labels, weight = p.argmax(dim=1), p
    for _ in range(rounds):
        centres = class_centres(codes, weight)
        count = F.one_hot(labels, p.shape[1]).sum(dim=0)
        kept = count > (threshold if bool((count > threshold).any()) else 0)
        similarity = (codes @ F.normalize(centres, dim=1).T).masked_fill(~kept, -torch.inf)
        nearest, labels = similarity.max(dim=1)
        weight = F.one_hot(labels, p.shape[1]).to(codes.dtype)
    return CentreLabels(labels, 1 - nearest, centres)

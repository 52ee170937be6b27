"""How alike rows of one expression or of one person are: mean cosines between cells, without a matrix of all pairs.

A cell is all rows of one subject and one class. The mean cosine between two cells is the dot product of the means of
their unit vectors, so nothing larger than one vector a cell is needed. Cells weigh the same, however long clips are;
no cell is compared with itself, so no row meets itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError


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
    """Compare every subject's cells with their own of other classes, and with those of others."""
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

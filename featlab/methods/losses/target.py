"""What methods make of unlabelled target rows: losses on predictions, and pseudo-labels.

Probabilities p and q are (n, K), rows sum to one. Every loss is finite, with finite gradients, at exact zeros and ones.
Pseudo-labels come from class centres (SHOT, TPDS), or from the majority of a cluster (CluP).
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from featlab.errors import ConfigError

EPSILON = 1e-5
"""Inside the logarithm of an entropy, as in the code of SHOT: at exact zeros it keeps value and gradient finite."""

_SMALLEST = 2.0**-52
"""Least joint or marginal probability in `information_loss`, as in the code of IIC."""


def entropies(p: Tensor) -> Tensor:
    """Return −Σ_c p log(p + ε) of each row, (n,)."""
    return -(p * torch.log(p + EPSILON)).sum(dim=1)


def mean_entropy(p: Tensor) -> Tensor:
    """Return the mean entropy of a row; small when each prediction is sure (SHOT, Liang et al. 2020, equation 3)."""
    return entropies(p).mean()


def marginal_entropy(p: Tensor) -> Tensor:
    """Return the entropy of the mean row; large when predictions are varied (SHOT, Liang et al. 2020, equation 4)."""
    return entropies(p.mean(dim=0, keepdim=True)).squeeze(0)


def information_terms(logits: Tensor, diversity: float = 1.0) -> dict[str, Tensor]:
    """Return the two terms of information maximisation of (b, K) logits (Liang et al. 2020, equations 3 and 4).

    Only predictions that are sure and balanced over the classes reach the minimum, −log K. Where all are sure of one
    class, they score 0, like predictions that know nothing.
    """
    p = torch.softmax(logits, dim=1)
    return {"entropy": mean_entropy(p), "diversity": -diversity * marginal_entropy(p)}


def information_loss(p: Tensor, q: Tensor) -> Tensor:
    """Return minus the mutual information between the classes of paired rows (IIC, Ji et al. 2019, equation 3).

    The joint distribution is P = Σ_i p_i q_iᵀ, made symmetric and of sum one; the loss is −Σ P log(P / (P_r P_c)), from
    −log K (sure, paired, balanced) to 0 (unrelated, or all of one class). Marginals are clamped like the joint: with
    one class alone and exact zeros the logarithm of a marginal would be infinite.
    """
    joint = p.T @ q
    joint = (joint + joint.T) / 2
    joint = joint / joint.sum()
    marginal = joint.sum(dim=0).clamp(min=_SMALLEST).log()
    joint = joint.clamp(min=_SMALLEST)
    return -(joint * (joint.log() - marginal[:, None] - marginal[None, :])).sum()


def neighbour_agreement(p: Tensor, scores: Tensor, weight: Tensor | float) -> Tensor:
    """Return −(1/n) Σ_i Σ_k w_ik p_i · s_ik: small when rows predict what their neighbours do (NRC)."""
    agreement = torch.einsum("nc,nmc->nm", p, scores.detach())
    return -(weight * agreement).sum(dim=1).mean()


def unit_codes(z: Tensor) -> Tensor:
    """Return (n, H + 1): a one is appended to each row of (n, H) bottleneck outputs, then its length is made 1."""
    return F.normalize(torch.cat([z, torch.ones_like(z[:, :1])], dim=1), dim=1)


def class_centres(codes: Tensor, weight: Tensor) -> Tensor:
    """Return the (K, C) weighted means c_k = Σ_i w_ik x_i / (10⁻⁸ + Σ_i w_ik) of (n, C) codes x with (n, K) weights."""
    return (weight.T @ codes) / (1e-8 + weight.sum(dim=0))[:, None]


def centre_labels(z: Tensor, p: Tensor, *, threshold: int = 0, rounds: int = 2) -> tuple[Tensor, Tensor]:
    """Return the (n,) class whose centre is nearest to each row in angle, and the (n,) cosine distance 1 − cos to it.

    Centres are weighted by the predictions in the first round, by the assignments in every further one. A class counts
    when more than ``threshold`` rows are predicted as it (in further rounds: assigned to it); where none has so many,
    every class with a row counts.
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
    return labels, 1 - nearest


def cluster_rows(codes: NDArray[np.float32], clusters: int, *, seed: int) -> NDArray[np.int64]:
    """Group rows by k-means on their directions: a one is appended, then each row is made of length 1."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    values = np.concatenate([codes.astype(np.float64), np.ones((len(codes), 1))], axis=1)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    # More threads add up the centres in an order that differs from run to run.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(clusters, n_init=1, random_state=seed).fit(values)
    return np.asarray(fitted.labels_, dtype=np.int64)


def label_clusters(
    cluster: NDArray[np.int64], predicted: NDArray[np.int64], *, clusters: int, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what P clusters are called, and the share of their rows that speaks for it, in [1/K, 1].

    A cluster is called after the class that most of its rows are predicted as; of equals, the first. One without rows
    is -1, its share NaN.
    """
    if clusters <= classes:
        raise ConfigError(
            f"{clusters} clusters for {classes} classes are too few; give the method more prototypes than classes"
        )
    count = np.bincount(cluster * classes + predicted, minlength=clusters * classes).reshape(clusters, classes)
    rows = count.sum(axis=1)
    label = np.where(rows > 0, count.argmax(axis=1), -1)
    purity = np.where(rows > 0, count.max(axis=1) / np.maximum(rows, 1), np.nan)
    return label.astype(np.int64), purity


def purest_rows(label: NDArray[np.int64], confidence: NDArray[np.float64], share: float) -> NDArray[np.intp]:
    """Return the rows that are kept: of every class the int(share · n_c) of the highest confidence.

    The number is rounded down, so that a class of few rows can vanish: nothing is kept of 9 rows at a share of 0.1.
    Of equally confident rows, the first ones are kept.
    """
    order = np.lexsort((np.arange(len(label)), -confidence, label))
    _, first, count = np.unique(label[order], return_index=True, return_counts=True)
    rank = np.arange(len(label)) - np.repeat(first, count)
    kept = rank < np.repeat((share * count).astype(np.int64), count)
    return np.sort(order[kept])

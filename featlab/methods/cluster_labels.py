"""Labels of clusters: what most rows of a cluster are predicted as, and how many of them (CluP, Conti et al. 2022).

The labels that the later stages learn from are the purest rows of each class; the rest of the rows is not used.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError

__all__ = ["ClusterLabels", "cluster_rows", "label_clusters", "purest_rows"]


@dataclass(frozen=True, eq=False)
class ClusterLabels:
    """What P clusters are called.

    Attributes:
        label: (P,) int64, the class that most rows of the cluster are predicted as (of equals, the first); -1 for a
            cluster without rows.
        purity: (P,) float64, the share of those rows, in [1/K, 1]; NaN for a cluster without rows.
    """

    label: NDArray[np.int64]
    purity: NDArray[np.float64]


def cluster_rows(codes: NDArray[np.float32], clusters: int, *, seed: int) -> NDArray[np.int64]:
    """Group rows by k-means on their directions: a one is appended, then each row is made of length 1.

    Args:
        codes: (n, H) outputs of the bottleneck, finite.
        clusters: P, at most n. Where fewer rows differ, clusters without rows are left.
        seed: Of the first centres.

    Returns:
        (n,) cluster numbers in [0, P).
    """
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
) -> ClusterLabels:
    """Name each cluster after the majority of its rows.

    Args:
        cluster: (n,) cluster numbers in [0, P).
        predicted: (n,) classes in [0, K) that the source model predicts.
        clusters: P.
        classes: K.

    Raises:
        ConfigError: No more clusters than classes: then a cluster can't be of one class each.
    """
    if clusters <= classes:
        raise ConfigError(
            f"{clusters} clusters for {classes} classes are too few; give the method more prototypes than classes"
        )
    count = np.bincount(cluster * classes + predicted, minlength=clusters * classes).reshape(clusters, classes)
    rows = count.sum(axis=1)
    label = np.where(rows > 0, count.argmax(axis=1), -1)
    purity = np.where(rows > 0, count.max(axis=1) / np.maximum(rows, 1), np.nan)
    return ClusterLabels(label.astype(np.int64), purity)


def purest_rows(label: NDArray[np.int64], confidence: NDArray[np.float64], share: float) -> NDArray[np.intp]:
    """Return the rows that are kept: of every class the int(share · n_c) of the highest confidence.

    The number is rounded down, so that a class of few rows can vanish: nothing is kept of 9 rows at a share of 0.1.
    Of equally confident rows, the first ones are kept.

    Args:
        label: (n,) class codes ≥ 0.
        confidence: (n,) finite, such as the purity of each row's cluster.
        share: In [0, 1].

    Returns:
        Row numbers, ascending.
    """
    order = np.lexsort((np.arange(len(label)), -confidence, label))
    _, first, count = np.unique(label[order], return_index=True, return_counts=True)
    rank = np.arange(len(label)) - np.repeat(first, count)
    kept = rank < np.repeat((share * count).astype(np.int64), count)
    return np.sort(order[kept])

"""One target among the source people in the plane: all rows are placed at once, so that panels can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.analysis.inside import EXTRACTED, UNADAPTED, AdaptedPeople, AdaptedPerson, View, person_views, pick_rows
from featlab.analysis.table import columns_of
from featlab.compute import run_seed
from featlab.config.options import check_choice
from featlab.errors import ConfigError, InputError

EMBEDDINGS = ("tsne", "pca", "umap")
GROUPS = ("source", "extracted", "translated")
NEAREST = 10  # Source rows that a target row is compared with.

_PERPLEXITY = 30.0  # scikit-learn's.
_SOURCE_ROWS, _TARGET_ROWS = 700, 200  # About so many, evenly over classes, and those of the source over subjects.
_UMAP_NEIGHBOURS = 15

Codes = NDArray[np.integer[Any]]


def check_plane(by: str) -> None:
    """Refuse what makes no plane, or isn't installed."""
    check_choice("--by", by, EMBEDDINGS)
    if by == "umap" and find_spec("umap") is None:
        raise ConfigError("--by umap needs umap-learn: pip install 'featlab[umap]'")


@dataclass(frozen=True)
class ViewScore:
    """How a target's test rows of known label lie among the source rows in one view; not in the plane."""

    view: str  # A method's registry name, or EXTRACTED or UNADAPTED.
    reference: str  # What was done to the source rows.
    rows: int
    own_class: float  # Mean fraction of the nearest source rows (Euclidean) that show a row's class; NaN without any.
    by_chance: float  # The same, were source rows drawn at random.


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """The map of one target."""

    subject: str
    classes: tuple[str, ...]
    by: str  # One of EMBEDDINGS.
    perplexity: float  # That of t-SNE.
    variances: tuple[float, float]  # Fractions of the source's variance on the two axes (pca only, else NaN).
    columns: dict[str, list[Any]]  # A line a point: panel (a method), group, subject, label (-1 unknown), x, y.
    scores: tuple[ViewScore, ...]


def feature_map(people: AdaptedPeople, person: AdaptedPerson, by: str) -> FeatureMap:
    """Return the map of one target's test rows, which no method has adapted on, among the source rows."""
    views = person_views(people, person)
    source, table, test = people.source, person.table, person.split.test
    shown = pick_rows([source.label, source.subject], _SOURCE_ROWS)
    rows = test[pick_rows([table.label[test]], _TARGET_ROWS)]
    extracted = views[0]
    panels = [view for view in views if view.name not in (EXTRACTED, UNADAPTED)]
    clouds: dict[tuple[str, ...], NDArray[np.float32]] = {("extracted",): extracted.target[rows]}
    for view in panels:
        clouds.setdefault(("source", view.reference), view.source[shown])
        clouds["translated", view.name] = view.target[rows]
    # A small map takes a third of its rows.
    perplexity = min(_PERPLEXITY, (sum(map(len, clouds.values())) - 1) / 3)
    variances = math.nan, math.nan
    if by == "pca":
        places, variances = _on_source_axes(list(clouds.values()), extracted.source)
    else:
        seed = run_seed(people.bundle.seed, "feature map", person.subject)
        whole = plane(np.concatenate(list(clouds.values())), by, perplexity=perplexity, seed=seed)
        places = np.split(whole, np.cumsum([len(cloud) for cloud in clouds.values()])[:-1])
    at = dict(zip(clouds, places, strict=True))
    lines: list[tuple[Any, ...]] = []
    source_names = [source.subjects[code] for code in source.subject[shown]]
    target_names = [person.subject] * len(rows)
    for view in panels:
        for group, key, names, labels in (
            ("source", ("source", view.reference), source_names, source.label[shown]),
            ("extracted", ("extracted",), target_names, table.label[rows]),
            ("translated", ("translated", view.name), target_names, table.label[rows]),
        ):
            points = zip(names, labels.tolist(), at[key].tolist(), strict=True)
            lines += [(view.name, group, name, label, x, y) for name, label, (x, y) in points]
    columns = columns_of(("panel", "group", "subject", "label", "x", "y"), lines)
    scores = score_views(views, source.label, table.label, test)
    return FeatureMap(person.subject, table.classes, by, perplexity, variances, columns, scores)


def plane(rows: NDArray[np.floating[Any]], by: str, *, perplexity: float, seed: int) -> NDArray[np.float64]:
    """Return (n, 2) places of (n, d) rows by t-SNE or UMAP, from the principal axes; deterministic in rows and seed."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    count, width = rows.shape
    if count < 4 or width < 2:
        raise InputError(f"a map needs four rows of two dimensions or more, not {count} of {width}; add rows")
    if not (np.ptp(rows, axis=0) > 0).any():
        raise InputError("every row of the map has the same features; there is nothing to show")
    # One thread: the order of a sum, and with it the last digits, would depend on the machine.
    with threadpool_limits(limits=1):
        if by == "tsne":
            from sklearn.manifold import TSNE

            model = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1)
        else:
            from umap import UMAP

            model = UMAP(n_neighbors=min(_UMAP_NEIGHBOURS, count - 1), init="pca", random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(np.asarray(rows, dtype=np.float32)), dtype=np.float64)


def score_views(
    views: Sequence[View], source_label: Codes, target_label: Codes, test: NDArray[np.intp]
) -> tuple[ViewScore, ...]:
    """Score each view on the target's rows ``test``; labels are class codes, -1 unknown."""
    from sklearn.neighbors import NearestNeighbors

    known = np.flatnonzero(source_label >= 0)
    rows = test[target_label[test] >= 0]
    labels = target_label[rows]
    scores = []
    for view in views:
        own, chance = math.nan, math.nan
        if len(known) and len(rows):
            among = NearestNeighbors(n_neighbors=min(NEAREST, len(known))).fit(view.source[known])
            index = among.kneighbors(view.target[rows], return_distance=False)
            own = float((source_label[known][index] == labels[:, None]).mean())
            frequency = np.bincount(source_label[known], minlength=int(labels.max()) + 1) / len(known)
            chance = float(frequency[labels].mean())
        scores.append(ViewScore(view.name, view.reference, len(rows), own, chance))
    return tuple(scores)


def _on_source_axes(
    clouds: Sequence[NDArray[np.float32]], source: NDArray[np.float32]
) -> tuple[list[NDArray[np.float64]], tuple[float, float]]:
    """Return each cloud on the two principal axes of the source rows as extracted, and the variance on them."""
    from sklearn.decomposition import PCA

    if min(source.shape) < 2:
        raise InputError("principal axes are of two source rows or more, and of two dimensions or more; add some")
    # With "full" an axis has the same sign every time.
    axes = PCA(2, svd_solver="full").fit(source.astype(np.float64))
    first, second = axes.explained_variance_ratio_.tolist()
    return [axes.transform(cloud.astype(np.float64)) for cloud in clouds], (first, second)

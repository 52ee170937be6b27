"""One target among the source people in the plane: t-SNE, UMAP or principal axes of all rows at once, a panel a method.

The source rows, the target's rows as extracted and those that each method makes of them are embedded together, so that
a place means the same in every panel. Labels give the markers; they place nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.analysis.evaluation.plot_projection import principal_axes
from featlab.analysis.inside.views import EXTRACTED, LAYERS, UNADAPTED, View, person_views, pick_rows
from featlab.analysis.people import AdaptedPeople, AdaptedPerson
from featlab.analysis.table import Table, number_text, share_text
from featlab.config.options import check_at_least, check_choice
from featlab.errors import ConfigError, InputError
from featlab.pairing.search import search
from featlab.seeding import run_seed

__all__ = [
    "EMBEDDINGS",
    "GROUPS",
    "NEAREST",
    "FeatureMap",
    "MapSettings",
    "ViewScore",
    "feature_map",
    "plane",
    "score_views",
    "scores_table",
    "scores_words",
]

EMBEDDINGS = ("tsne", "pca", "umap")
GROUPS = ("source", "extracted", "translated")
PERPLEXITY = 30.0
"""scikit-learn's; a smaller map takes a third of its rows."""
_UMAP_NEIGHBOURS = 15


@dataclass(frozen=True)
class MapSettings:
    """How a map is made.

    Attributes:
        by: One of `EMBEDDINGS`.
        perplexity: Of t-SNE; 0 takes 30, or a third of the rows where those are few.
        source_rows: Source rows in the map, about, evenly over classes and subjects; 0 takes all.
        target_rows: The same of the target's test rows, evenly over classes.
        layer: ``features`` (what B is given) or ``bottleneck`` (what C is given).
    """

    by: str = "tsne"
    perplexity: float = 0.0
    source_rows: int = 700
    target_rows: int = 200
    layer: str = "features"

    def __post_init__(self) -> None:
        check_choice("--by", self.by, EMBEDDINGS)
        check_choice("--layer", self.layer, LAYERS)
        for name in ("perplexity", "source_rows", "target_rows"):
            check_at_least(f"--{name.replace('_', '-')}", getattr(self, name), 0)
        if self.perplexity and self.by != "tsne":
            raise ConfigError(f"--perplexity is of t-SNE; leave it out with --by {self.by}")
        if self.by == "umap" and find_spec("umap") is None:
            raise ConfigError("--by umap needs umap-learn: pip install 'featlab[umap]'")


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """The map of one target.

    Attributes:
        subject: The target.
        classes: Class names, by code.
        settings: How it was made.
        perplexity: That of t-SNE, 0 for others.
        shares: Of the source's variance on the two axes (``pca`` only, else NaN).
        columns: A point a row: ``panel`` (a method), ``group`` (one of `GROUPS`), ``subject``, ``label`` (class code,
            -1 unknown), ``x``, ``y``.
        scores: How near the target is to the source rows of its own class, a view each.
    """

    subject: str
    classes: tuple[str, ...]
    settings: MapSettings
    perplexity: float
    shares: tuple[float, float]
    columns: dict[str, list[Any]]
    scores: tuple[ViewScore, ...]


def feature_map(people: AdaptedPeople, person: AdaptedPerson, settings: MapSettings) -> FeatureMap:
    """Return the map of one target's test rows, which no method has adapted on, among the source rows.

    Args:
        people: The source model and the source rows.
        person: The target, adapted by each method that is to have a panel.
        settings: How.

    Raises:
        InputError: Rows that can't be mapped.
    """
    views = person_views(people, person, settings.layer)
    source, table, test = people.source, person.table, person.split.test
    shown = pick_rows([source.label, source.subject], settings.source_rows)
    rows = test[pick_rows([table.label[test]], settings.target_rows)]
    extracted = views[0]
    panels = [view for view in views if view.name not in (EXTRACTED, UNADAPTED)]
    clouds: dict[tuple[str, ...], NDArray[np.float32]] = {("extracted",): extracted.target[rows]}
    for view in panels:
        clouds.setdefault(("source", view.reference), view.source[shown])
        clouds["translated", view.name] = view.target[rows]
    seed = run_seed(people.bundle.seed, "feature map", person.subject)
    if settings.by == "pca":
        places, shares = _on_source_axes(list(clouds.values()), extracted.source)
        perplexity = 0.0
    else:
        every = np.concatenate(list(clouds.values()))
        perplexity = _perplexity(settings, len(every)) if settings.by == "tsne" else 0.0
        whole = plane(every, settings.by, perplexity=perplexity, seed=seed)
        places = np.split(whole, np.cumsum([len(cloud) for cloud in clouds.values()])[:-1])
        shares = (np.nan, np.nan)
    at = dict(zip(clouds, places, strict=True))
    columns: dict[str, list[Any]] = {name: [] for name in ("panel", "group", "subject", "label", "x", "y")}
    source_names = [source.subjects[code] for code in source.subject[shown]]
    for view in panels:
        for group, key, names, labels in (
            ("source", ("source", view.reference), source_names, source.label[shown]),
            ("extracted", ("extracted",), [person.subject] * len(rows), table.label[rows]),
            ("translated", ("translated", view.name), [person.subject] * len(rows), table.label[rows]),
        ):
            columns["panel"] += [view.name] * len(names)
            columns["group"] += [group] * len(names)
            columns["subject"] += names
            columns["label"] += labels.tolist()
            columns["x"] += at[key][:, 0].tolist()
            columns["y"] += at[key][:, 1].tolist()
    scores = score_views(views, source.label, table.label, test)
    return FeatureMap(person.subject, table.classes, settings, perplexity, shares, columns, scores)


def plane(rows: NDArray[np.floating[Any]], by: str, *, perplexity: float, seed: int) -> NDArray[np.float64]:
    """Return (n, 2) places of (n, d) rows by t-SNE or UMAP; the same rows and seed give the same places.

    t-SNE (van der Maaten & Hinton, 2008) as scikit-learn computes it, UMAP (McInnes, Healy & Melville, 2018) as
    umap-learn does; both start from the principal axes.

    Args:
        rows: n >= 4, d >= 2.
        by: ``tsne`` or ``umap``.
        perplexity: Of t-SNE, below n.
        seed: Of whatever is random.

    Raises:
        InputError: Too few rows or dimensions, or rows that are all the same.
    """
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
            neighbours = min(_UMAP_NEIGHBOURS, count - 1)
            from umap import UMAP

            model = UMAP(n_neighbors=neighbours, init="pca", random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(np.asarray(rows, dtype=np.float32)), dtype=np.float64)


def _perplexity(settings: MapSettings, rows: int) -> float:
    """Return the perplexity; one that was asked for has to fit."""
    if settings.perplexity >= rows:
        raise InputError(f"--perplexity {settings.perplexity:g} must be below the {rows} rows of the map; lower it")
    return settings.perplexity or min(PERPLEXITY, (rows - 1) / 3)


def _on_source_axes(
    clouds: Sequence[NDArray[np.float32]], source: NDArray[np.float32]
) -> tuple[list[NDArray[np.float64]], tuple[float, float]]:
    """Return each cloud on the two principal axes of the source rows as extracted, and their shares of the variance."""
    if len(source) < 2 or source.shape[1] < 2:
        raise InputError("principal axes are of two source rows or more, and of two dimensions or more; add some")
    centre, axes, shares = principal_axes(source)
    return [(cloud - centre) @ axes.T for cloud in clouds], shares


NEAREST = 10
"""Source rows that a target row is compared with."""


@dataclass(frozen=True)
class ViewScore:
    """How a target's test rows lie among the source rows in one view.

    Attributes:
        view: A method's registry name, or that of the features as extracted or by T before it is adapted.
        reference: What was done to the source rows.
        rows: Test rows with a known label.
        own_class: Mean share of a test row's nearest source rows that show its class; by Euclidean distance at the
            view's layer, among all source rows of known label, not in the plane. NaN without either.
        by_chance: The same share, were source rows drawn at random.
        silhouette: Mean silhouette of the classes among the test rows, in [-1, 1]; NaN with fewer than two classes.
    """

    view: str
    reference: str
    rows: int
    own_class: float
    by_chance: float
    silhouette: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def score_views(
    views: Sequence[View],
    source_label: NDArray[np.integer[Any]],
    target_label: NDArray[np.integer[Any]],
    test: NDArray[np.intp],
    *,
    nearest: int = NEAREST,
) -> tuple[ViewScore, ...]:
    """Score each view.

    Args:
        views: From `featlab.analysis.inside.views.person_views`.
        source_label: (N,) class codes of the source rows, -1 unknown.
        target_label: (n,) those of the target's rows.
        test: Which of the target's rows are scored.
        nearest: Source rows a test row is compared with, at most all.
    """
    known = np.flatnonzero(source_label >= 0)
    rows = test[target_label[test] >= 0]
    labels = target_label[rows]
    scores = []
    for view in views:
        own, chance = math.nan, math.nan
        if len(known) and len(rows):
            index = search(view.target[rows], view.source[known], min(nearest, len(known)), metric="l2").rows
            own = float((source_label[known][index] == labels[:, None]).mean())
            share = np.bincount(source_label[known], minlength=int(labels.max()) + 1) / len(known)
            chance = float(share[labels].mean())
        silhouette = _silhouette(view.target[rows], labels)
        scores.append(ViewScore(view.name, view.reference, len(rows), own, chance, silhouette))
    return tuple(scores)


def scores_table(scores: Sequence[tuple[str, Sequence[ViewScore]]], names: Mapping[str, str]) -> Table:
    """Return one line a subject and view: share of near source rows of the own class, and the silhouette.

    Args:
        scores: (subject, its scores).
        names: Method to display name.
    """
    columns = ("Target", "Features", "Source rows", "Own class (%)", "Silhouette")
    rows = tuple(
        (
            subject,
            names.get(score.view, score.view),
            score.reference,
            number_text(100 * score.own_class, 1),
            number_text(score.silhouette, 3),
        )
        for subject, views in scores
        for score in views
    )
    notes = (
        f"Own class: of the {NEAREST} source rows nearest to a test row of the target, by Euclidean distance between "
        "features, how many show its class; mean over test rows.",
        "Silhouette: of the classes among the target's test rows; 1 is far apart, 0 is mixed.",
    )
    return Table(
        title="How near the target is to the source rows of its own class",
        columns=columns,
        rows=rows,
        bold=tuple((False,) * len(row) for row in rows),
        notes=notes,
        text_columns=3,
        grouped=True,
    )


def scores_words(subject: str, scores: Sequence[ViewScore], names: Mapping[str, str]) -> list[str]:
    """Return what the scores of one target say, a sentence each."""
    by_view = {score.view: score for score in scores}
    before = by_view[EXTRACTED]
    if math.isnan(before.own_class):
        return [f"{subject}: no test row with a known label, so that nothing is scored."]
    words = [
        f"{subject}, as extracted: of the {NEAREST} source rows nearest to a test row {share_text(before.own_class)} "
        f"show its class (mean over {before.rows} test rows; by chance {share_text(before.by_chance)})."
    ]
    for score in scores:
        if score.view == EXTRACTED:
            continue
        name = names.get(score.view, score.view)
        if score.view == UNADAPTED:
            words.append(
                f"T as pretrained, not adapted to {subject}, gives {share_text(score.own_class)} (source rows "
                f"{score.reference}): the rest is the adaptation's."
            )
            continue
        change = 100 * (score.own_class - before.own_class)
        verdict = "no nearer to its own class" if abs(change) < 0.05 else "nearer" if change > 0 else "farther away"
        verdict = verdict if verdict.startswith("no") else f"{verdict} by {abs(change):.1f} points"
        words.append(
            f"{name} brings {subject} {verdict}: {share_text(score.own_class)}"
            + (f" (source rows {score.reference})" if score.reference != EXTRACTED else "")
            + f"; the silhouette of its classes goes from {before.silhouette:.2f} to {score.silhouette:.2f}."
        )
    return words


def _silhouette(rows: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> float:
    classes = len(np.unique(labels))
    if not 2 <= classes < len(rows):
        return math.nan
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(rows, labels))

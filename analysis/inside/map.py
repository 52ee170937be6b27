"""One target among the source people in the plane: a panel a method, before and after; how near its own class is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.evaluation import figure_name, method_name, note_access
from featlab.analysis.inside import EXTRACTED, AdaptedPeople, AdaptedPerson, View, person_views
from featlab.analysis.page import DrawnFigure, Result, safe_name
from featlab.analysis.style import folded, folded_name
from featlab.analysis.table import Column, columns_of, make_table, number_text, share_text
from featlab.compute import run_seed
from featlab.config.options import check_choice
from featlab.errors import ConfigError, InputError
from featlab.methods.registry import get_method, make_method

EMBEDDINGS = {"tsne": "t-SNE", "pca": "Principal axes", "umap": "UMAP"}
GROUPS = {"source": "source rows", "extracted": "{} as extracted", "translated": "{} translated"}
NEAREST = 10  # Source rows that a target row is compared with.

_PERPLEXITY = 30.0  # scikit-learn's.
_SOURCE_ROWS, _TARGET_ROWS = 700, 200  # Evenly over classes, then over source subjects or the target's videos.
_UMAP_NEIGHBOURS = 15
_ACROSS = 3  # Panels on a line.
_LETTER = 0.066  # Width of a letter of a panel's title, inches.
_WHAT = {
    "pft": "feature-based: the person's neutral style is moved onto the source's",
    "sfda-it": "by image statistics, here of features: the source network's batch statistics are matched",
}
"""What a method does, beneath its panel; of others, the setting."""

Codes = NDArray[np.integer[Any]]


def check_plane(by: str) -> None:
    """Refuse what makes no plane, or isn't installed."""
    check_choice("--by", by, tuple(EMBEDDINGS))
    if by == "umap" and find_spec("umap") is None:
        raise ConfigError("--by umap needs umap-learn: pip install 'featlab[umap]'")


@dataclass(frozen=True)
class ViewScore:
    """How near a target's test rows are to the source rows of their class in one view; not in the plane."""

    subject: str
    view: str  # A method's registry name, or EXTRACTED.
    reference: str  # What was done to the source rows.
    own_class: float  # Mean fraction of the nearest source rows (Euclidean) that show a row's class; NaN without any.


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """The map of one target."""

    subject: str
    classes: tuple[str, ...]
    by: str  # One of EMBEDDINGS.
    axes: tuple[str, str]  # Their names.
    columns: dict[str, list[Any]]  # A line a point: panel (a method), group, subject, label (-1 unknown), x, y.
    scores: tuple[ViewScore, ...]


def feature_map(people: AdaptedPeople, person: AdaptedPerson, by: str) -> FeatureMap:
    """Return the map of one target's test rows, which no method has adapted on, among the source rows.

    All rows are placed at once, so that panels can be compared.
    """
    views = person_views(people, person)
    source, table, test = people.source, person.table, person.split.test
    shown = pick_rows(source.label, source.subject, _SOURCE_ROWS)
    rows = test[pick_rows(table.label[test], table.video[test], _TARGET_ROWS)]
    # Methods that move the source rows alike share a cloud.
    sources = {name: views[name].source[shown] for name in person.models}
    clouds: dict[Any, NDArray[np.float32]] = {EXTRACTED: views[EXTRACTED].target[rows]}
    for name, cloud in sources.items():
        clouds |= {cloud.tobytes(): cloud, name: views[name].target[rows]}
    axes = (f"{EMBEDDINGS[by]} 1", f"{EMBEDDINGS[by]} 2")
    every = np.concatenate(list(clouds.values()))
    if by == "pca":
        places, axes = _on_source_axes(every, views[EXTRACTED].source)
    else:
        places = plane(every, by, seed=run_seed(people.bundle.seed, "feature map", person.subject))
    at = dict(zip(clouds, np.split(places, np.cumsum([len(cloud) for cloud in clouds.values()])[:-1]), strict=True))
    source_names = [source.subjects[code] for code in source.subject[shown]]
    target_names = [person.subject] * len(rows)
    lines = [
        (panel, group, name, label, x, y)
        for panel in person.models
        for group, key, names, labels in (
            ("source", sources[panel].tobytes(), source_names, source.label[shown]),
            ("extracted", EXTRACTED, target_names, table.label[rows]),
            ("translated", panel, target_names, table.label[rows]),
        )
        for name, label, (x, y) in zip(names, labels.tolist(), at[key].tolist(), strict=True)
    ]
    columns = columns_of(("panel", "group", "subject", "label", "x", "y"), lines)
    scores = tuple(
        ViewScore(person.subject, name, view.reference, own_class(view, source.label, table.label, test))
        for name, view in views.items()
    )
    return FeatureMap(person.subject, table.classes, by, axes, columns, scores)


def plane(rows: NDArray[np.floating[Any]], by: str, *, seed: int) -> NDArray[np.float64]:
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

            # A small map takes a third of its rows.
            perplexity = min(_PERPLEXITY, (count - 1) / 3)
            model = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1)
        else:
            from umap import UMAP

            model = UMAP(n_neighbors=min(_UMAP_NEIGHBOURS, count - 1), init="pca", random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(np.asarray(rows, dtype=np.float32)), dtype=np.float64)


def pick_rows(first: Codes, then: Codes, wanted: int) -> NDArray[np.intp]:
    """Return at most ``wanted`` rows, evenly spaced in the order of their codes."""
    order = np.lexsort((then, first))
    places = np.linspace(0, len(order) - 1, min(wanted, len(order))).round().astype(int)
    return np.sort(order[places])


def own_class(view: View, source_label: Codes, target_label: Codes, test: NDArray[np.intp]) -> float:
    """Return the score of a view on the target's rows ``test``; labels are class codes, -1 unknown."""
    from sklearn.neighbors import NearestNeighbors

    known = np.flatnonzero(source_label >= 0)
    rows = test[target_label[test] >= 0]
    if not len(known) or not len(rows):
        return float("nan")
    fitted = NearestNeighbors(n_neighbors=min(NEAREST, len(known))).fit(view.source[known])
    nearest = fitted.kneighbors(view.target[rows], return_distance=False)
    return float((source_label[known][nearest] == target_label[rows][:, None]).mean())


def _on_source_axes(
    rows: NDArray[np.float32], source: NDArray[np.float32]
) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Return rows on the two principal axes of the source rows as extracted, and the axes' names."""
    from sklearn.decomposition import PCA

    if min(source.shape) < 2:
        raise InputError("principal axes are of two source rows or more, and of two dimensions or more; add some")
    # With "full" an axis has the same sign every time.
    fitted = PCA(2, svd_solver="full").fit(source.astype(np.float64))
    first, second = (100 * part for part in fitted.explained_variance_ratio_)
    return fitted.transform(rows.astype(np.float64)), (f"source PC 1 ({first:.0f} %)", f"source PC 2 ({second:.0f} %)")


def map_result(maps: Sequence[FeatureMap]) -> Result:
    """Return the maps of several targets, all with the same methods and settings, drawn and scored."""
    selections = {name: make_method(name).selection for name in dict.fromkeys(maps[0].columns["panel"])}
    names = {name: method_name(name, selection) for name, selection in selections.items()}
    scores = [score for item in maps for score in item.scores]
    table = make_table(
        "How near the target is to the source rows of its own class",
        [
            Column[ViewScore]("Target", lambda score: score.subject, text=True),
            Column("Features", lambda score: names.get(score.view, score.view), text=True),
            Column("Source rows", lambda score: score.reference, text=True),
            Column("Own class (%)", lambda score: number_text(100 * score.own_class, 1)),
        ],
        scores,
        notes=(
            f"Own class: of the {NEAREST} source rows nearest to a test row of the target, by Euclidean distance "
            "between features, how many show its class; mean over test rows.",
        ),
        grouped=True,
    )
    return Result(
        kind="plot",
        title=f"Source and translated features: {', '.join(item.subject for item in maps)}",
        summary=[_sentence(item, names) for item in maps],
        tables={"scores": table},
        figures=[
            DrawnFigure(
                name=f"{item.by}-{safe_name(item.subject)}",
                title=f"{EMBEDDINGS[item.by]} of {item.subject} among the source rows",
                caption=_caption(item),
                drawn=plot_map(item, selections),
                data=item.columns,
            )
            for item in maps
        ],
        data={"subjects": [item.subject for item in maps], "scores": [asdict(score) for score in scores]},
    )


def _sentence(item: FeatureMap, names: Mapping[str, str]) -> str:
    before, *after = item.scores
    if np.isnan(before.own_class):
        return f"{item.subject}: no test row with a known label, so that nothing is scored."
    shares = ", ".join(f"{share_text(score.own_class)} after {names[score.view]}" for score in after)
    return (
        f"{item.subject}: of the {NEAREST} source rows nearest to a test row {share_text(before.own_class)} show its "
        f"class as extracted, {shares}."
    )


def _caption(item: FeatureMap) -> str:
    drawn = list(zip(item.columns["panel"], item.columns["group"], strict=True))
    targets, sources = (drawn.count((item.columns["panel"][0], group)) for group in ("translated", "source"))
    how = f"one {EMBEDDINGS[item.by]} of all of them; only who is near whom means something"
    if item.by == "pca":
        how = "on the two principal axes of the source rows as extracted"
    panels = "; ".join(f"{score.view}: {score.reference}" for score in item.scores[1:])
    return (
        f"{targets} test rows of {item.subject}, which no method has adapted on, before (as extracted) and after each "
        f"method, with {sources} source rows: features (what B is given), {how}. Source rows in the panels: {panels}. "
        "Labels colour, and place nothing."
    )


def plot_map(item: FeatureMap, selections: Mapping[str, str]) -> Figure:
    """Draw one panel a method: pale source rows, the target as extracted (hollow) and translated (filled)."""
    data = {name: np.asarray(values) for name, values in item.columns.items()}
    across = min(len(selections), _ACROSS)
    down = -(-len(selections) // across)
    letters = int((style.FULL / across - 0.35) / _LETTER)
    codes = np.unique(data["label"]).tolist()
    with style.house_style():
        drawn = style.figure(style.FULL, 0.7 + down * (0.85 * style.FULL / across + 0.5))
        grid = style.panels(drawn, len(selections), across)
        for panel, (name, selection) in zip(grid, selections.items(), strict=True):
            for group in GROUPS:
                for code in codes:
                    mask = (data["panel"] == name) & (data["group"] == group) & (data["label"] == code)
                    panel.plot(data["x"][mask], data["y"][mask], label=f"_{group} {code}", **_look(code, group))
            panel.update_datalim(np.column_stack([data["x"], data["y"]]))
            panel.set_aspect("equal", adjustable="datalim")
            panel.set_title(folded(figure_name(name, selection), letters), fontweight="bold")
            what = folded(_WHAT.get(name, get_method(name).setting), letters)
            panel.set(xticks=[], yticks=[], xlabel=f"{item.axes[0]}\n{what}")
        for panel in grid[::across]:
            panel.set_ylabel(item.axes[1])
        note_access(drawn, selections.values())
        names = {code: item.classes[code] if code >= 0 else "unknown" for code in codes}
        classes = [Line2D([], [], **_look(code, "translated"), label=names[code]) for code in codes]
        subject = folded_name(item.subject, 24)
        groups = [
            Line2D([], [], **{**_look(-1, group), "marker": "o"}, label=said.format(subject))
            for group, said in GROUPS.items()
        ]
        drawn.legend(handles=classes, loc="outside upper center", ncols=4, handletextpad=0.2)
        drawn.legend(handles=groups, loc="outside lower center", ncols=3, handletextpad=0.2)
    return drawn


def _look(code: int, group: str) -> dict[str, Any]:
    colour = style.COLOURS[code % len(style.COLOURS)] if code >= 0 else style.MUTED
    marker = style.MARKERS[code % len(style.MARKERS)] if code >= 0 else "."
    look: dict[str, Any] = {"linestyle": "none", "marker": marker, "color": colour}
    if group == "source":
        return look | {"markersize": 2.6, "alpha": 0.25, "markeredgewidth": 0, "zorder": 2}
    if group == "extracted":
        face = {"markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 0.8}
        return look | face | {"markersize": 4.2, "alpha": 0.9, "zorder": 3}
    return look | {"markersize": 4.8, "markeredgecolor": "black", "markeredgewidth": 0.4, "zorder": 4}

"""The results folder of `featlab plot tsne`: a figure a target, the scores as a table and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.evaluation.methods import method_name
from featlab.analysis.evaluation.plot_names import ACCESS_NOTE, figure_name, folded
from featlab.analysis.inside.map import GROUPS, FeatureMap, scores_table, scores_words
from featlab.analysis.page import DrawnFigure, Result, safe_name, write_result
from featlab.methods import get_method, make_method

if TYPE_CHECKING:
    from featlab.analysis.table import Table

__all__ = [
    "MapPage",
    "map_page",
    "plot_map",
]

_SUBTITLES = {
    "pft": "feature-based: the person's neutral style is moved onto the source's",
    "sfda-it": "by image statistics, here of features: the source network's batch statistics are matched",
}
"""What a method does, beneath its name; of others, the setting."""
_NAMES = {"tsne": "t-SNE", "pca": "Principal axes", "umap": "UMAP"}


@dataclass(frozen=True, eq=False)
class MapPage:
    """What is written and shown.

    Attributes:
        title: One line.
        words: What the scores say, a sentence each.
        table: The scores.
        figures: A figure a target.
    """

    title: str
    words: tuple[str, ...]
    table: Table
    figures: tuple[DrawnFigure, ...]

    def write(self, folder: Path, command: str, facts: Mapping[str, Any]) -> list[Path]:
        """Write everything into a folder and return the files."""
        return write_result(
            folder,
            Result(
                kind="plot",
                title=self.title,
                summary=self.words,
                tables={"scores": self.table},
                figures=self.figures,
                metadata=facts,
            ),
            command,
        )


def map_page(maps: Sequence[FeatureMap]) -> MapPage:
    """Draw the maps and say what they show.

    Args:
        maps: One a target, all with the same methods and settings.
    """
    from featlab.analysis.inside.map_page import plot_map

    methods = [get_method(name) for name in dict.fromkeys(name for item in maps for name in item.columns["panel"])]
    titles = {method.name: method.title for method in methods}
    selections = {method.name: make_method(method.name).selection for method in methods}
    shown = {name: figure_name(name, selections[name]) for name in titles}
    subtitles = {method.name: _SUBTITLES.get(method.name, method.setting) for method in methods}
    figures = []
    for item in maps:
        title = f"{_NAMES[item.settings.by]} of {item.subject} among the source rows"
        figures.append(
            DrawnFigure(
                f"{item.settings.by}-{safe_name(item.subject)}",
                title,
                _caption(item, shown),
                plot_map(item, names=shown, subtitles=subtitles),
                item.columns,
            )
        )
    scores = [(item.subject, item.scores) for item in maps]
    labels = {name: method_name(name, selections[name]) for name in titles}
    words = [word for subject, found in scores for word in scores_words(subject, found, labels)]
    title = f"Source and translated features: {', '.join(item.subject for item in maps)}"
    return MapPage(title, tuple(words), scores_table(scores, labels), tuple(figures))


def _caption(item: FeatureMap, names: Mapping[str, str]) -> str:
    drawn = list(zip(item.columns["panel"], item.columns["group"], strict=True))
    first = item.columns["panel"][0]
    targets, sources = (drawn.count((first, group)) for group in ("translated", "source"))
    layer = (
        "features (what B is given)" if item.settings.layer == "features" else "bottleneck outputs (what C is given)"
    )
    how = {
        "tsne": f"one t-SNE (perplexity {item.perplexity:g}) of all of them; only who is near whom means something",
        "umap": "one UMAP of all of them; only who is near whom means something",
        "pca": "on the two principal axes of the source rows as extracted",
    }[item.settings.by]
    references = {score.view: score.reference for score in item.scores}
    panels = "; ".join(f"{name}: {references[method]}" for method, name in names.items())
    marks = f" {ACCESS_NOTE}." if any(ACCESS_NOTE[0] in name for name in names.values()) else ""
    return (
        f"{targets} test rows of {item.subject}, which no method has adapted on, before (as extracted) and after each "
        f"method, with {sources} source rows: {layer}, {how}. Source rows in the panels: {panels}. Labels colour, and "
        f"place nothing.{marks}"
    )


_ACROSS = {style.COLUMN: 1, style.FULL: 3}
"""Panels on a line."""
_KEYS = {style.COLUMN: 2, style.FULL: 5}
"""Entries of the legend on a line."""
_LETTER = 0.066
"""Width of a letter of a panel's title, inches."""
_LOWEST, _TALLEST = 0.6, 1.0
"""Height of a panel against its width."""
_WORDS = {"source": "source rows", "extracted": "target as extracted", "translated": "target translated"}
_AXES = {"tsne": "t-SNE", "pca": "source PC", "umap": "UMAP"}


def plot_map(
    drawn_map: FeatureMap,
    *,
    names: Mapping[str, str] | None = None,
    subtitles: Mapping[str, str] | None = None,
    width: float = style.FULL,
) -> Figure:
    """Draw one panel a method: pale source rows, the target as extracted (hollow) and translated (filled).

    Colour and marker are the class; unknown labels are grey dots. All panels have the same limits.

    Args:
        drawn_map: From `featlab.analysis.inside.map.feature_map`.
        names: Method to display name.
        subtitles: Method to a line beneath its name.
        width: Inches.
    """
    data = {name: np.asarray(values) for name, values in drawn_map.columns.items()}
    panels = list(dict.fromkeys(drawn_map.columns["panel"]))
    most = _ACROSS.get(width, 2)
    down = math.ceil(len(panels) / most)
    across = math.ceil(len(panels) / down)
    letters = int((width / across - 0.35) / _LETTER)
    codes = np.unique(data["label"]).tolist()
    titles = [_title(name, names, subtitles, letters) for name in panels]
    lines = max(title.count("\n") + 1 for title in titles)
    # As tall as the cloud of points is, within reason: places keep their distances, and a page its space.
    shape = np.ptp(data["y"]) / max(float(np.ptp(data["x"])), 1e-12)
    height = width / across * float(np.clip(shape, _LOWEST, _TALLEST)) + 0.13 * lines
    with style.house_style():
        drawn = style.figure(width, down * height + 0.4 + 0.16 * math.ceil(len(codes) / 4))
        grid = drawn.subplots(down, across, squeeze=False)
        for place, (name, title) in enumerate(zip(panels, titles, strict=True)):
            panel = grid.flat[place]
            for group in GROUPS:
                for code in codes:
                    mask = (data["panel"] == name) & (data["group"] == group) & (data["label"] == code)
                    panel.plot(data["x"][mask], data["y"][mask], label=f"_{group} {code}", **_look(code, group))
            head, _, rest = title.partition("\n\n")
            panel.set_title(head, fontweight="bold", pad=4 + 9 * (rest.count("\n") + 1 if rest else 0))
            if rest:
                panel.text(0.5, 1.01, rest, transform=panel.transAxes, ha="center", va="bottom", fontsize=7)
            _format_axes(panel, drawn_map, data, name, int(1.15 * letters), first=place % across == 0)
        for panel in grid.flat[len(panels) :]:
            panel.set_axis_off()
        _legend(drawn, drawn_map.classes, codes, _KEYS.get(width, 3))
    return drawn


def _title(name: str, names: Mapping[str, str] | None, subtitles: Mapping[str, str] | None, letters: int) -> str:
    """Return the name and, after an empty line, what is beneath it; both folded."""
    head, beneath = folded((names or {}).get(name, name), letters), (subtitles or {}).get(name, "")
    return f"{head}\n\n{folded(beneath, letters)}" if beneath else head


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


def _format_axes(
    panel: Axes, drawn_map: FeatureMap, data: Mapping[str, NDArray[Any]], name: str, letters: int, *, first: bool
) -> None:
    panel.update_datalim(np.column_stack([data["x"], data["y"]]))
    panel.set_aspect("equal", adjustable="datalim")
    by = drawn_map.settings.by
    labels = [f"{_AXES[by]} {axis}" for axis in (1, 2)]
    if by == "pca":
        labels = [f"{label} ({100 * share:.0f} %)" for label, share in zip(labels, drawn_map.shares, strict=True)]
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(5, prune="both"))
        panel.tick_params(labelleft=first)
    else:
        # Only who is near whom means something: distances and directions have no unit.
        panel.set(xticks=[], yticks=[])
    reference = next(score.reference for score in drawn_map.scores if score.view == name)
    panel.set_xlabel(f"{labels[0]}\n{folded(f'source rows {reference}', letters)}")
    if first:
        panel.set_ylabel(labels[1])


def _legend(drawn: Figure, classes: tuple[str, ...], codes: list[int], across: int) -> None:
    """Explain the groups, then the classes; on one line where they fit, else the groups have a line of their own."""
    groups = [Line2D([], [], **_look(0, group) | {"label": text}) for group, text in _WORDS.items()]
    for handle in groups:
        # Whatever the class: a dark dot.
        handle.set(marker="o", color="#444444", markeredgecolor="#444444")
    named = [(code, classes[code] if code >= 0 else "unknown") for code in codes]
    markers = [Line2D([], [], **_look(code, "translated"), label=name) for code, name in named]
    if len(groups) + len(markers) <= across:
        drawn.legend(handles=groups + markers, loc="outside lower center", ncols=across, handletextpad=0.2)
        return
    cells = [part + [_nothing()] * (-len(part) % across) for part in (groups, markers)]
    grid = np.array(cells[0] + cells[1], dtype=object).reshape(-1, across)
    # matplotlib fills a legend column by column.
    drawn.legend(handles=grid.T.ravel().tolist(), loc="outside lower center", ncols=across, handletextpad=0.2)


def _nothing() -> Line2D:
    return Line2D([], [], linestyle="none", label=" ")

"""The result of a feature map: a panel a method, the target before and after among the source rows, and the scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.evaluation import ACCESS_NOTE, figure_name, method_name
from featlab.analysis.inside import EXTRACTED, UNADAPTED
from featlab.analysis.inside.map import GROUPS, NEAREST, FeatureMap, ViewScore
from featlab.analysis.page import DrawnFigure, Result, safe_name
from featlab.analysis.style import folded, folded_name
from featlab.analysis.table import Column, Table, make_table, number_text, share_text
from featlab.methods.registry import get_method, make_method

_SUBTITLES = {
    "pft": "feature-based: the person's neutral style is moved onto the source's",
    "sfda-it": "by image statistics, here of features: the source network's batch statistics are matched",
}
"""What a method does, beneath its name; of others, the setting."""
_TITLES = {"tsne": "t-SNE", "pca": "Principal axes", "umap": "UMAP"}
_AXES = {"tsne": "t-SNE", "pca": "source PC", "umap": "UMAP"}
_WORDS = {"source": "source rows", "extracted": "{} as extracted", "translated": "{} translated"}
_ACROSS, _KEYS = 3, 5  # Panels, and entries of the legend, on a line.
_LETTER = 0.066  # Width of a letter of a panel's title, inches.
_LOWEST, _TALLEST = 0.6, 1.0  # Height of a panel against its width.


def map_result(maps: Sequence[FeatureMap]) -> Result:
    """Return the maps of several targets, all with the same methods and settings, drawn and scored."""
    methods = dict.fromkeys(name for item in maps for name in item.columns["panel"])
    selections = {name: make_method(name).selection for name in methods}
    shown = {name: figure_name(name, selection) for name, selection in selections.items()}
    names = {name: method_name(name, selection) for name, selection in selections.items()}
    subtitles = {name: _SUBTITLES.get(name, get_method(name).setting) for name in methods}
    subjects = [item.subject for item in maps]
    return Result(
        kind="plot",
        title=f"Source and translated features: {', '.join(subjects)}",
        summary=[scores_sentence(item.subject, item.scores, names) for item in maps],
        tables={"scores": scores_table(maps, names)},
        figures=[
            DrawnFigure(
                name=f"{item.by}-{safe_name(item.subject)}",
                title=f"{_TITLES[item.by]} of {item.subject} among the source rows",
                caption=_caption(item, shown),
                drawn=plot_map(item, names=shown, subtitles=subtitles),
                data=item.columns,
            )
            for item in maps
        ],
        data={
            "subjects": subjects,
            "scores": [{"subject": item.subject, **vars(score)} for item in maps for score in item.scores],
        },
    )


def scores_sentence(subject: str, scores: Sequence[ViewScore], names: Mapping[str, str]) -> str:
    """Return how near one target is to its own class, as extracted and after each method."""
    before = scores[0]
    if math.isnan(before.own_class):
        return f"{subject}: no test row with a known label, so that nothing is scored."
    after = [
        f"{share_text(score.own_class)} after {names.get(score.view, score.view)}"
        for score in scores
        if score.view not in (EXTRACTED, UNADAPTED)
    ]
    return (
        f"{subject}: of the {NEAREST} source rows nearest to a test row {share_text(before.own_class)} show its class "
        f"as extracted (by chance {share_text(before.by_chance)}), {', '.join(after)}."
    )


def scores_table(maps: Sequence[FeatureMap], names: Mapping[str, str]) -> Table:
    """Return one line a target and view."""
    columns: list[Column[tuple[str, ViewScore]]] = [
        Column("Target", lambda item: item[0], text=True),
        Column("Features", lambda item: names.get(item[1].view, item[1].view), text=True),
        Column("Source rows", lambda item: item[1].reference, text=True),
        Column("Own class (%)", lambda item: number_text(100 * item[1].own_class, 1)),
    ]
    return make_table(
        "How near the target is to the source rows of its own class",
        columns,
        [(item.subject, score) for item in maps for score in item.scores],
        notes=(
            f"Own class: of the {NEAREST} source rows nearest to a test row of the target, by Euclidean distance "
            "between features, how many show its class; mean over test rows.",
        ),
        grouped=True,
    )


def plot_map(item: FeatureMap, *, names: Mapping[str, str], subtitles: Mapping[str, str]) -> Figure:
    """Draw one panel a method: pale source rows, the target as extracted (hollow) and translated (filled)."""
    data = {name: np.asarray(values) for name, values in item.columns.items()}
    panels = list(dict.fromkeys(item.columns["panel"]))
    down = math.ceil(len(panels) / _ACROSS)
    across = math.ceil(len(panels) / down)
    letters = int((style.FULL / across - 0.35) / _LETTER)
    codes = np.unique(data["label"]).tolist()
    heads = [folded(names.get(name, name), letters) for name in panels]
    beneath = [folded(subtitles.get(name, ""), letters) for name in panels]
    lines = max((f"{head}\n\n{rest}" if rest else head).count("\n") for head, rest in zip(heads, beneath, strict=True))
    # As tall as the cloud of points is, within reason: places keep their distances, and a page its space.
    shape = np.ptp(data["y"]) / max(float(np.ptp(data["x"])), 1e-12)
    height = style.FULL / across * float(np.clip(shape, _LOWEST, _TALLEST)) + 0.13 * (lines + 1)
    with style.house_style():
        drawn = style.figure(style.FULL, down * height + 0.4 + 0.16 * math.ceil(len(codes) / 4))
        grid = style.panels(drawn, len(panels), across)
        for place, (panel, name, head, rest) in enumerate(zip(grid, panels, heads, beneath, strict=True)):
            for group in GROUPS:
                for code in codes:
                    mask = (data["panel"] == name) & (data["group"] == group) & (data["label"] == code)
                    panel.plot(data["x"][mask], data["y"][mask], label=f"_{group} {code}", **_look(code, group))
            panel.update_datalim(np.column_stack([data["x"], data["y"]]))
            panel.set_title(head, fontweight="bold", pad=4 + 9 * (rest.count("\n") + 1 if rest else 0))
            panel.text(0.5, 1.01, rest, transform=panel.transAxes, ha="center", va="bottom", fontsize=7)
            _format_axes(panel, item, name, int(1.15 * letters), first=place % across == 0)
        _legend(drawn, item.classes, codes, folded_name(item.subject, 24))
    return drawn


def _caption(item: FeatureMap, names: Mapping[str, str]) -> str:
    drawn = list(zip(item.columns["panel"], item.columns["group"], strict=True))
    first = item.columns["panel"][0]
    targets, sources = (drawn.count((first, group)) for group in ("translated", "source"))
    how = {
        "tsne": f"one t-SNE (perplexity {item.perplexity:g}) of all of them; only who is near whom means something",
        "umap": "one UMAP of all of them; only who is near whom means something",
        "pca": "on the two principal axes of the source rows as extracted",
    }[item.by]
    references = {score.view: score.reference for score in item.scores}
    panels = "; ".join(f"{name}: {references[method]}" for method, name in names.items())
    marks = f" {ACCESS_NOTE}." if any(ACCESS_NOTE[0] in name for name in names.values()) else ""
    return (
        f"{targets} test rows of {item.subject}, which no method has adapted on, before (as extracted) and after each "
        f"method, with {sources} source rows: features (what B is given), {how}. Source rows in the panels: {panels}. "
        f"Labels colour, and place nothing.{marks}"
    )


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


def _format_axes(panel: Axes, item: FeatureMap, name: str, letters: int, *, first: bool) -> None:
    panel.set_aspect("equal", adjustable="datalim")
    labels = [f"{_AXES[item.by]} {axis}" for axis in (1, 2)]
    if item.by == "pca":
        labels = [f"{label} ({100 * part:.0f} %)" for label, part in zip(labels, item.variances, strict=True)]
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(5, prune="both"))
        panel.tick_params(labelleft=first)
    else:
        # Only who is near whom means something: distances and directions have no unit.
        panel.set(xticks=[], yticks=[])
    reference = next(score.reference for score in item.scores if score.view == name)
    panel.set_xlabel(f"{labels[0]}\n{folded(f'source rows {reference}', letters)}")
    if first:
        panel.set_ylabel(labels[1])


def _legend(drawn: Figure, classes: Sequence[str], codes: Sequence[int], subject: str) -> None:
    """Explain the groups, then the classes; on one line where they fit, else the groups have a line of their own."""
    groups = [Line2D([], [], **_look(0, group) | {"label": text.format(subject)}) for group, text in _WORDS.items()]
    for handle in groups:
        # Whatever the class: a dark dot.
        handle.set(marker="o", color="#444444", markeredgecolor="#444444")
    markers = [
        Line2D([], [], **_look(code, "translated"), label=classes[code] if code >= 0 else "unknown") for code in codes
    ]
    handles = groups + markers
    if len(handles) > _KEYS:
        empty = Line2D([], [], linestyle="none", label=" ")
        lines = [part + [empty] * (-len(part) % _KEYS) for part in (groups, markers)]
        # matplotlib fills a legend column by column.
        handles = np.array(lines[0] + lines[1], dtype=object).reshape(-1, _KEYS).T.ravel().tolist()
    drawn.legend(handles=handles, loc="outside lower center", ncols=_KEYS, handletextpad=0.2)

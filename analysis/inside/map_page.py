"""The results folder of `featlab plot tsne`: a figure a target, the scores as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.analysis.evaluation.methods import method_name
from featlab.analysis.evaluation.plot_names import ACCESS_NOTE, figure_name
from featlab.analysis.inside.feature_map import FeatureMap
from featlab.analysis.inside.map_scores import scores_table, scores_words
from featlab.analysis.page import DrawnFigure, Result, safe_name, write_result
from featlab.methods import get_method, make_method

if TYPE_CHECKING:
    from featlab.analysis.table import Table

__all__ = ["MapPage", "map_page"]

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
    from featlab.analysis.inside.plot_map import plot_map

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

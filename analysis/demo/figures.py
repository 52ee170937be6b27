"""The demo's pictures: who there is, what adapting did to everyone, and what happens inside for one person."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from featlab.analysis import style
from featlab.analysis.demo.plot_people import plot_people
from featlab.analysis.evaluation.plot_projection import plot_projection, projection_data
from featlab.analysis.evaluation.plots import plot_subjects, plot_summary, subjects_data, summary_data
from featlab.analysis.inside.clip import class_probability, is_shown, video_rows
from featlab.analysis.inside.pairs import example_rows, first_references, rows_among
from featlab.analysis.inside.strips import plot_clip, plot_pairs
from featlab.analysis.inside.views import features_of, moved_source
from featlab.bundle.bundle import Bundle
from featlab.cache import FeatureTable
from featlab.config.sections import STRATEGIES, PairConfig
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import common_subject_means
from featlab.evaluation.summary import MethodSummary
from featlab.methods import AdaptedModel, base_model
from featlab.pairing.pairs import make_pairs
from featlab.protocol.splits import split_target

__all__ = ["FIGURES", "DemoFigure", "Scene", "draw_figures"]

_PEOPLE, _PAIRS = 20, 8
_DOTS = 700
"""Source rows in the projection, about: more of them hide the target."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What the pictures are drawn from.

    Attributes:
        faces: Folder of the manifest; picture names are relative to it.
        table: Every row of the cache.
        bundle: The source model.
        models: Target subject to the model that `method` adapted.
        method: Registry name of the method that is shown from inside.
        rows: Results of every method on the targets.
        summaries: Their summary.
        names: Method to display name.
        gap: See `featlab.protocol.splits.split_target`.
        seed: Of the random pairs.
    """

    faces: Path
    table: FeatureTable
    bundle: Bundle
    models: Mapping[str, AdaptedModel]
    method: str
    rows: Sequence[EvaluationRow]
    summaries: Sequence[MethodSummary]
    names: Mapping[str, str]
    gap: int
    seed: int

    def image(self, row: int) -> NDArray[np.uint8]:
        """Return the picture of one row of the table, (H, W, 3) uint8."""
        paths = self.table.paths or ()
        with Image.open(self.faces / paths[row]) as picture:
            return np.asarray(picture.convert("RGB"))

    def shown_subject(self) -> str:
        """Return the target whose gain is the median one: neither the best case nor the worst."""
        of = {name: [row for row in self.rows if row.method == name] for name in ("source-only", self.method)}
        means = common_subject_means(*of.values())
        ranked = sorted(means, key=lambda name: (means[name][1] - means[name][0], name))
        return ranked[len(ranked) // 2] if ranked else sorted(self.models)[0]


@dataclass(frozen=True)
class DemoFigure:
    """One picture.

    Attributes:
        name: File name without ending.
        title: A few words.
        caption: One sentence.
    """

    name: str
    title: str
    caption: str


Drawn = tuple[Figure, str, Mapping[str, Sequence[Any]] | None]
"""The figure, its caption, and the numbers behind it."""


def draw_figures(
    scene: Scene, folder: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[DemoFigure, ...]:
    """Draw every picture and write it as .png and .svg, with the numbers behind it as .csv.

    Args:
        scene: What to draw.
        folder: Where to; made if missing.
        on_progress: Called with pictures done and pictures in all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for done, (name, (title, draw)) in enumerate(FIGURES.items()):
        drawn, caption, numbers = draw(scene)
        style.save_figure(drawn, folder / f"{name}.png")
        style.save_figure(drawn, folder / f"{name}.svg")
        if numbers is not None:
            style.save_data(folder / f"{name}.svg", numbers)
        made.append(DemoFigure(name, title, caption))
        on_progress(done + 1, len(FIGURES))
    return tuple(made)


def _people(scene: Scene) -> Drawn:
    table = scene.table
    with (scene.faces / "manifest.csv").open(encoding="utf-8", newline="") as file:
        intensity = {line["path"]: float(line["intensity"]) for line in csv.DictReader(file)}
    strength = np.array([intensity[path] for path in table.paths or ()])
    classes = (table.neutral, *(name for name in table.classes if name != table.neutral))
    names = table.subjects[: _PEOPLE if len(classes) <= 3 else _PEOPLE // 2]
    strips = []
    for label in classes:
        # The stillest moment of a neutral clip, the strongest one of any other.
        rank = -strength if label == table.neutral else strength
        mine = table.label == table.classes.index(label)
        rows = [np.flatnonzero(mine & (table.subject == table.subjects.index(name))) for name in names]
        strips.append([scene.image(int(found[rank[found].argmax()])) for found in rows])
    caption = (
        f"The first {len(names)} of {len(table.subjects)} drawn people, at rest and in their strongest frame of each "
        f"expression: as resting faces smile or frown a little, no one border between {' and '.join(classes[:2])} fits "
        "everybody."
    )
    return plot_people(strips, classes, names), caption, None


def _subjects(scene: Scene) -> Drawn:
    caption = (
        "Macro F1 of each target subject before (source-only) and after each method: blue lines gained, vermilion "
        "lines lost; the black dots are the means with their 95 % intervals."
    )
    return plot_subjects(scene.rows), caption, subjects_data(scene.rows)


def _summary(scene: Scene) -> Drawn:
    caption = (
        "Mean macro F1 over the target subjects with its bootstrap interval; the dashed lines are source-only and the "
        "oracle, which was fine-tuned with the person's own labels."
    )
    drawn = plot_summary(scene.summaries, width=style.FULL)
    return drawn, caption, summary_data(scene.summaries)


def _pairs(scene: Scene) -> Drawn:
    source = scene.table.rows_of(*scene.bundle.source_subjects)
    rows = example_rows(source, _PAIRS)
    at = rows_among(scene.table, source)
    strategies = [name for name in reversed(STRATEGIES) if name != "landmark" or source.landmarks is not None]
    strips, captions = [], []
    for strategy in strategies:
        pairs = make_pairs(source, PairConfig(strategy=strategy), seed=scene.seed)
        chosen = first_references(pairs, rows).tolist()
        strips.append([None if place < 0 else scene.image(int(at[place])) for place in chosen])
        captions.append(["" if place < 0 else source.subjects[source.subject[place]] for place in chosen])
    top = [scene.image(int(at[row])) for row in rows]
    drawn = plot_pairs([top, *strips], ["row", *strategies], [[""] * len(rows), *captions])
    caption = (
        "Source rows and the reference that each strategy pairs them with, always another subject: any row, the "
        "nearest embedding, or the nearest face shape."
    )
    return drawn, caption, None


def _projection(scene: Scene) -> Drawn:
    subject = scene.shown_subject()
    source, target = scene.table.rows_of(*scene.bundle.source_subjects), scene.table.rows_of(subject)
    shown = slice(None, None, max(1, len(source) // _DOTS))
    base, model = base_model(scene.bundle), scene.models[subject].model
    before = np.concatenate([features_of(base, source.embeddings)[shown], features_of(base, target.embeddings)])
    after = np.concatenate([_translated_source(scene.bundle, source)[shown], features_of(model, target.embeddings)])
    labels = np.concatenate([source.label[shown], target.label])
    is_target = np.arange(len(labels)) >= len(source.label[shown])
    drawn = plot_projection(before, after, labels, is_target, classes=scene.table.classes)
    caption = (
        f"Features of {subject}, the target with the median gain, among the source subjects, on the two principal axes "
        f"of the source: as extracted, and translated (everybody with their own neutral offset)."
    )
    numbers = projection_data(before, after, labels, is_target)
    return drawn, caption, {name: values.tolist() for name, values in numbers.items()}


def _clip(scene: Scene) -> Drawn:
    subject = scene.shown_subject()
    table = scene.table.rows_of(subject)
    rows = video_rows(table, split_target(table, scene.gap))
    at = np.flatnonzero(scene.table.subject == scene.table.subjects.index(subject))
    before, after = (
        class_probability(model.predict_proba(table.embeddings[rows]), table.classes, table.neutral)
        for model in (AdaptedModel(base_model(scene.bundle)), scene.models[subject])
    )
    labels = is_shown(table.label[rows], table.classes, table.neutral)
    columns: dict[str, NDArray[Any]] = {
        "frame": table.frame[rows],
        "label": labels,
        "before": before,
        "after": after,
    }
    others = [name for name in table.classes if name != table.neutral]
    drawn = plot_clip(
        [scene.image(int(at[row])) for row in rows],
        before,
        after,
        labels,
        table.videos[table.video[rows[0]]],
        positive=others[0] if len(others) == 1 else f"non-{table.neutral}",
        frame_numbers=table.frame[rows],
    )
    caption = (
        f"One expressive test clip of {subject}: the probability that the face is not neutral, before and after "
        "adapting to this person's neutral clips."
    )
    return drawn, caption, {name: values.tolist() for name, values in columns.items()}


FIGURES: Mapping[str, tuple[str, Callable[[Scene], Drawn]]] = {
    "people": ("The people", _people),
    "subjects": ("What each method did to each person", _subjects),
    "summary": ("The methods compared", _summary),
    "pairs": ("Who is paired with whom", _pairs),
    "projection": ("One person among the others", _projection),
    "clip": ("One clip over time", _clip),
}
"""File name to (title, what draws it), in the order of the page."""


def _translated_source(bundle: Bundle, source: FeatureTable) -> NDArray[np.float32]:
    """Translate each source subject as T met them: moved by their own offset."""
    moved, _ = moved_source(bundle, source)
    with torch.no_grad():
        translated: NDArray[np.float32] = bundle.translator(moved).numpy()
    return translated

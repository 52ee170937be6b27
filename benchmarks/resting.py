"""Draw what a network says of faces at rest and smiling, of people it was not taught with, before and after adapting.

The 36 reported people of london-morph play targets in four folds, everyone else is source. A point is the mean of a
person's own test frames, which are in no video that was adapted on. The numbers are written beside the picture.

    python benchmarks/resting.py face-api.h5 --out resting.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from people import development_people, read_table

from featlab.analysis.style import FULL, GAIN, LOSS, MUTED, figure, house_style, in_percent, save_data, save_figure
from featlab.compute import generator
from featlab.config.load import Config
from featlab.methods import make_method
from featlab.protocol.splits import split_target, target_of
from featlab.workspace.stages import build_bundle

FOLDS = 4
SIDES = {"before": "source-only", "after": "pft"}
TITLES = {
    "before": "Before: taught with other people",
    "after": "After: adapted to each, with 12 frames at rest",
}
Numbers = dict[str, list[float]]
"""A value a person, by side and by what the face shows."""


def measured(cache: Path) -> tuple[Numbers, str]:
    """Return each person's mean probability of a smile, and the name of that class."""
    table, extractor = read_table(cache)
    development = set(development_people(table.subjects))
    people = [name for name in table.subjects if name not in development]
    shuffled = [people[place] for place in generator("folds").permutation(len(people))]
    smile = 1 - table.neutral_code
    found: Numbers = {f"{side} {state}": [] for side in SIDES for state in ("at rest", "smiling")}
    for fold in range(FOLDS):
        targets = shuffled[fold::FOLDS]
        bundle = build_bundle(table.without(*targets), Config(), seed=0, extractor=extractor, methods=["pft"])
        for name in targets:
            person = table.rows_of(name)
            split = split_target(person)
            labels = person.label[split.test]
            for side, method in SIDES.items():
                adapted = make_method(method).adapt(bundle, target_of(person, split.adapt))
                smiling = adapted.predict_proba(person.embeddings[split.test])[:, smile]
                found[f"{side} at rest"].append(float(smiling[labels != smile].mean()))
                found[f"{side} smiling"].append(float(smiling[labels == smile].mean()))
    return found, table.classes[smile]


def draw(found: Numbers) -> Figure:
    """Return the picture: a line a person, in the same order on both sides."""
    order = np.argsort(np.array(found["before at rest"]))
    drawn = figure(FULL, 3.6)
    for axes, side in zip(drawn.subplots(1, 2, sharey=True), SIDES, strict=True):
        rest, smiling = (np.array(found[f"{side} {state}"])[order] for state in ("at rest", "smiling"))
        rows = np.arange(len(order))
        axes.hlines(rows, rest, smiling, color=MUTED, linewidth=0.8, alpha=0.6)
        axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=":")
        axes.plot(rest, rows, "o", color=GAIN, label="face at rest", markerfacecolor="white")
        axes.plot(smiling, rows, "o", color=LOSS, label="the same face, smiling")
        axes.set(title=TITLES[side], xlim=(0, 1), yticks=[], xlabel="how sure the model is of a smile, in %")
        axes.spines["left"].set_visible(False)
        in_percent(axes.xaxis)
    drawn.axes[0].set_ylabel(f"{len(order)} people, a line each")
    handles, labels = drawn.axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=2)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--out", type=Path, default=Path("resting.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, name = measured(options.cache)
    with house_style():
        save_figure(draw(found), options.out)
    save_data(options.out, found)
    for side in SIDES:
        rest, smiling = (np.array(found[f"{side} {state}"]) for state in ("at rest", "smiling"))
        print(
            f"{side}: {name!r} is what the model says in the mean of {np.sum(rest > 0.5)} of {len(rest)} faces at rest "
            f"and of {np.sum(smiling > 0.5)} smiling ones; the resting faces lie between {100 * rest.min():.0f} and "
            f"{100 * rest.max():.0f} % (standard deviation {100 * rest.std():.0f}); the smile is "
            f"{100 * np.mean(smiling - rest):.0f} % above rest"
        )


if __name__ == "__main__":
    main()

"""Ablations change one setting and see what it does to the score: which settings each of the ten runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from featlab.config.analysis import LOSS_TERMS
from featlab.config.load import flat_values
from featlab.config.options import options_of
from featlab.errors import ConfigError
from featlab.methods.registry import get_method
from featlab.workspace.workspace import Workspace

Values = Mapping[str, Any]  # ``{"section.key": value}``.


@dataclass(frozen=True)
class Setting:
    """One setting of an ablation: what it sets, under a label that no other of its group (a panel each) has."""

    label: str
    values: Values
    group: str = ""
    at: tuple[Any, ...] = ()  # Where it stands: the weights in a surface, the terms that are on, the mode.


@dataclass(frozen=True)
class Grid:
    """The settings to run on one data set, in the order of the figure."""

    title: str
    axis: str
    settings: Sequence[Setting]
    reference: str  # Label of the setting that the others are compared with.
    caption: str
    figure: str = "lines"  # Or bars, surface.
    notes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("source-only", "neutral-shift", "referenced", "pft")
    base: Values = field(default_factory=dict)  # What every setting sets that does not set it itself.
    retrains: bool = False  # Every setting has a bundle of its own: validated only on demand.
    name: str = ""


_WEIGHTS = {
    "classification": ("pretrain.classification", 1.0),
    "style": ("pretrain.style", 1.0),
    "expression": ("pretrain.expression", 0.1),
    "alignment": ("adapt.pft.style", 1.0),
    "consistency": ("adapt.pft.consistency", 0.1),
    "anchor": ("adapt.pft.anchor", 0.1),
}
"""Where the weight of each loss term is set, and its weight where the workspace gives none."""
_STAGE = {name: stage for stage in (LOSS_TERMS[:3], LOSS_TERMS[3:]) for name in stage}
_LBFGS = {"adapt.pft.optimiser": "lbfgs"}
# Without any loss there is nothing to minimise, and pft refuses that: no step leaves T as it was pretrained.
_NO_STEP = {"adapt.pft.style": 1.0, "adapt.pft.iterations": 0}


def _dims(workspace: Workspace) -> Grid:
    config, embedding = workspace.config, workspace.table.dim
    reductions = config.ablate.reductions or (config.features.reduce,)
    wanted = dict.fromkeys(config.ablate.dims)
    kept = [dim for dim in wanted if dim < embedding or (dim == embedding and 0 not in wanted)]
    if not kept:
        raise ConfigError(
            f"no dimension of {', '.join(map(str, wanted))} is there: the embedding has {embedding:,} values; "
            "0 stands for the full size"
        )
    if "none" in reductions and any(kept):
        raise ConfigError('features.reduce = "none" keeps every value; choose another to reduce them, e.g. pca')
    settings = []
    for how in reductions:
        for dim in kept:
            values = {"features.reduce": how if dim else "none", "features.dim": dim}
            label = f"{dim}" if dim else f"full ({embedding:,})"
            settings.append(Setting(label, values, how if len(reductions) > 1 else "", (dim or embedding,)))
    labels, usual = [item.label for item in settings], str(config.features.dim)
    return Grid(
        title=f"Dimension of the features ({' and '.join(reductions)})",
        axis="Dimension of the features",
        settings=settings,
        reference=usual if usual in labels else labels[0],
        caption="Macro F1 against the dimension of the features, reduced on source rows only.",
        notes=_left_out((dim for dim in wanted if dim > embedding), f"the embedding has {embedding:,} values"),
        retrains=True,
    )


def _pairing(workspace: Workspace) -> Grid:
    config = workspace.config
    wanted = dict.fromkeys(config.ablate.strategies)
    kept = [name for name in wanted if name != "landmark" or workspace.table.landmarks is not None]
    if not kept:
        raise ConfigError("ablate.strategies is landmark alone, and the cache has no landmarks; add cosine or random")
    chosen = config.pair.resolved(workspace.table.landmarks is not None)
    return Grid(
        title="How source rows are paired",
        axis="Pairs",
        settings=[Setting(name, {"pair.strategy": name}) for name in kept],
        reference=chosen if chosen in kept else kept[0],
        caption="Macro F1 by how the rows of different source subjects are paired while T is pretrained.",
        figure="bars",
        notes=(
            *_left_out((name for name in wanted if name not in kept), "the cache has no landmarks"),
            f"The MLP part of T is trained on pairs. Label rule: {config.pair.label_rule}.",
        ),
        methods=("pft-poster", "pft-mlp", "pft"),
        retrains=True,
    )


def _losses(workspace: Workspace) -> Grid:
    config = workspace.config
    terms = tuple(dict.fromkeys(config.ablate.terms))
    flat = flat_values(config.to_dict())
    weights = {name: float(flat.get(_WEIGHTS[name][0], 0.0)) or _WEIGHTS[name][1] for name in LOSS_TERMS}

    def setting(label: str, off: Sequence[str]) -> Setting:
        on = tuple(name for name in LOSS_TERMS if name not in off)
        # Those that are on first: a stage whose terms are all off is refused, if only for a moment.
        values = {_WEIGHTS[name][0]: weights[name] for name in on} | {_WEIGHTS[name][0]: 0.0 for name in off}
        return Setting(label, values if set(on) & set(LOSS_TERMS[3:]) else values | _NO_STEP, at=on)

    said = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    return Grid(
        title="Loss terms on and off",
        axis="Losses",
        settings=[
            setting("all", ()),
            *(setting(f"without {name}", (name,)) for name in terms),
            *(setting(f"{name} alone", [other for other in _STAGE[name] if other != name]) for name in terms),
        ],
        reference="all",
        caption="Macro F1 with loss terms on and off: the first three train T, the others adapt it.",
        figure="bars",
        notes=(
            f"Alone: the other terms of its stage are off. Weights: {said}.",
            "The first three are losses of the MLP part; the linear part learns by cross-entropy alone. The offset is "
            "adapted by L-BFGS.",
        ),
        methods=("source-only", "pft"),
        base=_LBFGS,
        retrains=True,
    )


def _lambda(workspace: Workspace) -> Grid:
    ablate = workspace.config.ablate
    settings = []
    for style, expression in product(dict.fromkeys(ablate.style), dict.fromkeys(ablate.expression)):
        values: dict[str, Any] = {"pretrain.style": style, "pretrain.expression": expression}
        settings.append(Setting(f"style {style:g}, KL {expression:g}", values, "source", (style, expression)))
    for alignment, anchor in product(dict.fromkeys(ablate.alignment), dict.fromkeys(ablate.anchor)):
        some = {"adapt.pft.style": alignment, "adapt.pft.anchor": anchor}
        values = {**_LBFGS, **(some if alignment or anchor else _NO_STEP)}
        settings.append(Setting(f"alignment {alignment:g}, KL {anchor:g}", values, "target", (alignment, anchor)))
    return Grid(
        title="Sensitivity to the loss weights",
        axis="Weights",
        settings=settings,
        reference="",
        caption="Macro F1 over the weights of two losses, at the source and at the target.",
        figure="surface",
        notes=(
            "Source: losses of T's MLP part, beside cross-entropy. Target: losses while T's offset is adapted by "
            "L-BFGS; with 0 and 0 nothing is adapted.",
        ),
        methods=("pft",),
        retrains=True,
    )


def _layers(workspace: Workspace) -> Grid:
    labels = {"offset": "offset", "last": "last layer", "all": "all layers"}
    objective = {**_LBFGS, "adapt.pft.layers": ("embedding", "bottleneck")}
    settings = [
        Setting("nothing", {"adapt.pft.iterations": 0}),
        *(
            Setting(labels[update], {**objective, "adapt.pft.update": update}, at=(update,))
            for update in dict.fromkeys(workspace.config.ablate.updates)
        ),
    ]
    return Grid(
        title="Which of T's layers adapt",
        axis="What adapts",
        settings=settings,
        reference="offset",
        caption="Macro F1 by which of T's layers adapt.",
        figure="bars",
        notes=("All minimise, by L-BFGS, how far means are from the style bank's at embedding and bottleneck.",),
        methods=("pft",),
        retrains=True,
    )


def _share(workspace: Workspace) -> Grid:
    given = dict.fromkeys(workspace.config.ablate.carried)
    return Grid(
        title="How much of the offset at rest is taken",
        axis="Carried share",
        settings=[
            Setting("learned", {"pretrain.learn_share": True}),
            *(Setting(f"{100 * s:g} %", {"pretrain.learn_share": False, "pretrain.share": s}) for s in given),
        ],
        reference="learned",
        caption="Macro F1 by the share of a person's offset at rest that is taken to be there in their expressions.",
        figure="bars",
        notes=("learned: chosen on held-out source people, separately for each source model.",),
        methods=("pft-linear", "pft-mlp", "pft"),
        retrains=True,
    )


def _neutral(workspace: Workspace) -> Grid:
    frames = tuple(dict.fromkeys(workspace.config.ablate.frames))
    settings = [Setting(f"{count}" if count else "all", {"protocol.frames": count}, at=(count,)) for count in frames]
    return Grid(
        title="Frames of the neutral clip",
        axis="Neutral frames",
        settings=settings,
        reference="all" if 0 in frames else settings[-1].label,
        caption="Macro F1 against the number of neutral frames that each person was adapted on.",
    )


def _sources(workspace: Workspace) -> Grid:
    people = len(workspace.source(workspace.targets()).subjects)
    counts = dict.fromkeys(workspace.config.ablate.counts)
    settings = [
        Setting(f"{count}" if count else f"all ({people})", {"protocol.source_limit": count}, at=(count or people,))
        for count in counts
        if count < people or (count == people and 0 not in counts)
    ]
    if not settings:
        raise ConfigError(
            f"ablate.counts: there are {people} source subjects; give numbers from 2 to that, or 0 for all"
        )
    if workspace.config.protocol.source_limit:
        raise ConfigError("protocol.source_limit is what this ablation changes; leave it at 0")
    return Grid(
        title="Source subjects",
        axis="Source subjects",
        settings=settings,
        reference=settings[-1].label,
        caption="Macro F1 against the number of source subjects.",
        notes=_left_out((count for count in counts if count > people), f"there are {people} source subjects"),
    )


def _contamination(workspace: Workspace) -> Grid:
    settings = [
        Setting(f"{100 * fraction:g} %", {"protocol.contamination": fraction}, at=(fraction,))
        for fraction in dict.fromkeys(workspace.config.ablate.shares)
    ]
    return Grid(
        title="A neutral clip that shows other classes",
        axis="Fraction of the clip",
        settings=settings,
        reference=settings[0].label,
        caption="Macro F1 against the fraction of the neutral clip that shows other classes.",
    )


def _bn(workspace: Workspace) -> Grid:
    methods = workspace.config.ablate.methods or ("shot-im", "shot", "nrc", "tpds", "sfda-de")
    without = [name for name in methods if "bn_mode" not in options_of(get_method(name).config_type)]
    if without:
        raise ConfigError(
            f"{', '.join(without)} has no option bn_mode; choose methods that adapt B, for example shot, nrc, tpds"
        )
    settings = [
        Setting(mode, {f"adapt.{name}.bn_mode": mode for name in methods}, at=(mode,))
        for mode in dict.fromkeys(workspace.config.ablate.modes)
    ]
    return Grid(
        title="BatchNorm's mode while a method adapts",
        axis="Mode",
        settings=settings,
        reference=settings[0].label,
        caption="What BatchNorm's mode while adapting does to macro F1, and to the recall of neutral.",
        figure="bars",
        notes=("train: batch statistics of the target while adapting, as published; eval: those of the source.",),
        methods=methods,
    )


_GRIDS = (_dims, _pairing, _losses, _lambda, _layers, _share, _neutral, _sources, _contamination, _bn)
ABLATIONS: Mapping[str, Callable[[Workspace], Grid]] = {grid.__name__.lstrip("_"): grid for grid in _GRIDS}


def _left_out(values: Iterable[Any], why: str) -> tuple[str, ...]:
    names = ", ".join(map(str, values))
    return (f"left out: {names}; {why}",) if names else ()

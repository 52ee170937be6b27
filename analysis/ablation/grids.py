"""What an ablation is: settings to run on one data set, beside everything else that the workspace says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from featlab.config.analysis import LOSS_TERMS
from featlab.config.load import Config
from featlab.errors import ConfigError, closest
from featlab.methods import get_method
from featlab.pairing.pairs import resolve_strategy
from featlab.workspace.workspace import Workspace

__all__ = [
    "ABLATIONS",
    "MAIN",
    "Grid",
    "Setting",
    "based",
    "make_grid",
    "new_grid",
    "unvalidated",
    "with_values",
]

MAIN = ("source-only", "neutral-shift", "referenced", "pft")
"""Methods of an ablation that is about none in particular."""


@dataclass(frozen=True)
class Setting:
    """One setting of an ablation.

    Attributes:
        label: How it is shown, unlike any other of its group.
        values: What it sets, ``{"section.key": value}``.
        group: What belongs together: one panel a group. Empty where there is one.
        at: Where it stands: weights in a surface, the terms that are on, the mode of BatchNorm.
    """

    label: str
    values: Mapping[str, Any]
    group: str = ""
    at: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Settings to be run on one data set.

    Attributes:
        name: One of `featlab.analysis.ablation.grids.ABLATIONS`.
        title: One line.
        axis: What the settings are.
        methods: Registry names.
        settings: In the order of the figure.
        reference: Label of the setting that the others are compared with.
        notes: What was left out, and what else differs from the workspace's settings.
    """

    name: str
    title: str
    axis: str
    methods: tuple[str, ...]
    settings: tuple[Setting, ...]
    reference: str
    notes: tuple[str, ...] = ()


def new_grid(
    workspace: Workspace,
    name: str,
    title: str,
    axis: str,
    settings: Sequence[Setting],
    reference: str,
    notes: Sequence[str] = (),
    *,
    methods: tuple[str, ...] = MAIN,
) -> Grid:
    """Return a grid, with the methods that ``ablate.methods`` names, or else ``methods``; see `Grid` for the others."""
    chosen = workspace.config.ablate.methods or methods
    return based(
        Grid(name, title, axis, chosen, tuple(settings), reference, tuple(notes)), {"protocol.methods": chosen}
    )


def unvalidated(grid: Grid, workspace: Workspace, *, weighs: bool = True) -> Grid:
    """Return a grid of which every setting makes a bundle of its own: these are not validated unless asked for.

    Args:
        grid: Of the workspace.
        workspace: Says whether they are.
        weighs: Whether `pft` aligns in closed form, and so weighs the frames of a clip.
    """
    validation = workspace.config.ablate.validation
    if weighs and not validation and "pft" in grid.methods:
        note = (
            "Bundles are not validated on source people here, so that pft weighs the frames of every clip by how "
            "neutral C calls them (ablate.validation = true: as featlab evaluate does, in about five times the time)."
        )
        grid = replace(grid, notes=(*grid.notes, note))
    return based(grid, {"pretrain.validation": validation and workspace.config.pretrain.validation})


def based(grid: Grid, base: Mapping[str, Any]) -> Grid:
    """Return the grid with something set in every setting that doesn't set it itself."""
    return replace(grid, settings=tuple(replace(item, values={**base, **item.values}) for item in grid.settings))


def with_values(workspace: Workspace, values: Mapping[str, Any]) -> Workspace:
    """Return the workspace with other settings."""
    return replace(workspace, config=workspace.config.with_values(values, "ablation"))


_ON = {
    "classification": ("pretrain.classification", 1.0),
    "style": ("pretrain.style", 0.1),
    "expression": ("pretrain.expression", 0.03),
    "alignment": ("adapt.pft.style", 1.0),
    "consistency": ("adapt.pft.consistency", 0.1),
    "anchor": ("adapt.pft.anchor", 0.1),
}
"""Where the weight of each loss term is set, and the weight with which it is on where the workspace says none."""
_LBFGS = {"adapt.pft.optimiser": "lbfgs"}


def _dims(workspace: Workspace) -> Grid:
    config, embedding = workspace.config, workspace.table.dim
    reductions = config.ablate.reductions or (config.features.reduce,)
    wanted = dict.fromkeys(config.ablate.dims)
    kept = [dim for dim in wanted if dim < embedding or (dim == embedding and 0 not in wanted)]
    above = [dim for dim in wanted if dim > embedding]
    if not kept:
        raise ConfigError(
            f"no dimension of {', '.join(map(str, wanted))} is there: the embedding has {embedding:,} values; "
            "0 stands for the full size"
        )
    if "none" in reductions and any(kept):
        raise ConfigError(
            'features.reduce = "none" keeps every value, whatever the dimension; choose another, e.g. pca'
        )
    settings = []
    for how in reductions:
        for dim in kept:
            full = {"features.reduce": "none", "features.dim": 0}
            values = {"features.reduce": how, "features.dim": dim} if dim else full
            label = f"{dim}" if dim else f"full ({embedding:,})"
            settings.append(Setting(label, values, how if len(reductions) > 1 else "", (dim or embedding,)))
    labels = [item.label for item in settings]
    reference = str(config.features.dim) if str(config.features.dim) in labels else labels[0]
    notes = [f"left out: {', '.join(map(str, above))}; the embedding has {embedding:,} values"] if above else []
    how = " and ".join(reductions)
    return unvalidated(
        new_grid(
            workspace,
            "dims",
            f"Dimension of the features ({how})",
            "Dimension of the features",
            settings,
            reference,
            notes,
        ),
        workspace,
    )


def _pairing(workspace: Workspace) -> Grid:
    config = workspace.config
    wanted = dict.fromkeys(config.ablate.strategies)
    kept = [name for name in wanted if name != "landmark" or workspace.table.landmarks is not None]
    notes = ["left out: landmark; the cache has no landmarks"] if len(kept) < len(wanted) else []
    if not kept:
        raise ConfigError("ablate.strategies is landmark alone, and the cache has no landmarks; add cosine or random")
    settings = [Setting(name, {"pair.strategy": name}) for name in kept]
    chosen = resolve_strategy(config.pair, workspace.table)
    notes.append(f"Only an MLP is trained on pairs: pretrain.form = mlp here. Label rule: {config.pair.label_rule}.")
    grid = unvalidated(
        new_grid(
            workspace,
            "pairing",
            "How source rows are paired",
            "Pairs",
            settings,
            chosen if chosen in kept else kept[0],
            notes,
            methods=("pft-poster", "pft"),
        ),
        workspace,
    )
    return based(grid, _mlp(config))


def _losses(workspace: Workspace) -> Grid:
    config = workspace.config
    terms = tuple(dict.fromkeys(config.ablate.terms))
    on = {name: _weight(config, name) for name in LOSS_TERMS}

    def setting(label: str, off: Sequence[str]) -> Setting:
        shown = tuple(name for name in LOSS_TERMS if name not in off)
        # Those that are on first: a stage whose terms are all off is refused, if only for a moment.
        values = {_ON[name][0]: on[name] for name in shown} | {_ON[name][0]: 0.0 for name in off}
        if not set(shown) & {"alignment", "consistency", "anchor"}:
            values |= {"adapt.pft.style": 1.0, "adapt.pft.iterations": 0}
        return Setting(label, values, at=shown)

    def only(name: str) -> list[str]:
        stage = LOSS_TERMS[:3] if name in LOSS_TERMS[:3] else LOSS_TERMS[3:]
        return [other for other in stage if other != name]

    settings = [setting("all", ())]
    settings += [setting(f"without {name}", (name,)) for name in terms]
    settings += [setting(f"{name} alone", only(name)) for name in terms]
    weights = ", ".join(f"{name} {weight:g}" for name, weight in on.items())
    notes = [
        "classification, style and expression train T at the source; alignment, consistency and anchor adapt it. "
        f"Alone: the other terms of its stage are off. Weights: {weights}.",
        "T is an MLP here (a linear T has no style loss), adapted by L-BFGS over its offset.",
    ]
    grid = unvalidated(
        new_grid(
            workspace,
            "losses",
            "Loss terms on and off",
            "Losses",
            settings,
            "all",
            notes,
            methods=("source-only", "pft"),
        ),
        workspace,
        weighs=False,
    )
    return based(grid, {"pretrain.form": "mlp", "pretrain.objective": "anchored", **_LBFGS})


def _lambda(workspace: Workspace) -> Grid:
    config = workspace.config
    ablate = config.ablate
    settings = []
    for style in dict.fromkeys(ablate.style):
        for expression in dict.fromkeys(ablate.expression):
            values = {**_mlp(config), "pretrain.style": style, "pretrain.expression": expression}
            label = f"style {style:g}, KL {expression:g}"
            settings.append(Setting(label, values, "source", (style, expression)))
    for alignment in dict.fromkeys(ablate.alignment):
        for anchor in dict.fromkeys(ablate.anchor):
            weights = {"adapt.pft.style": alignment, "adapt.pft.anchor": anchor}
            # Without any loss there is nothing to minimise: T stays as it was pretrained.
            idle = {"adapt.pft.style": 1.0, "adapt.pft.iterations": 0}
            values = {**_LBFGS, **(weights if alignment or anchor else idle)}
            label = f"alignment {alignment:g}, KL {anchor:g}"
            settings.append(Setting(label, values, "target", (alignment, anchor)))
    notes = [
        "Source: weights of the style and the KL expression loss while an MLP is pretrained, beside cross-entropy on "
        "translated rows. Target: weights of the style alignment and of KL to the source model while T's offset is "
        "adapted by L-BFGS; with 0 and 0 nothing is adapted.",
    ]
    return unvalidated(
        new_grid(
            workspace, "lambda", "Sensitivity to the loss weights", "Weights", settings, "", notes, methods=("pft",)
        ),
        workspace,
    )


def _layers(workspace: Workspace) -> Grid:
    labels = {"offset": "offset", "last": "last layer", "all": "all layers"}
    objective = {**_LBFGS, "adapt.pft.layers": ("embedding", "bottleneck")}
    settings = []
    for form, base in (("linear", {"pretrain.form": "linear"}), ("MLP", _mlp(workspace.config))):
        idle = {**base, "adapt.pft.iterations": 0}
        settings.append(Setting("nothing", idle, f"{form} T"))
        settings += [
            Setting(labels[update], {**base, **objective, "adapt.pft.update": update}, f"{form} T", (update,))
            for update in dict.fromkeys(workspace.config.ablate.updates)
        ]
    notes = [
        "All minimise the same: the distance of the means from the style bank's, at the embedding and the bottleneck "
        "(features alone would not see the later layers), by L-BFGS."
    ]
    return unvalidated(
        new_grid(
            workspace, "layers", "Which of T's layers adapt", "What adapts", settings, "offset", notes, methods=("pft",)
        ),
        workspace,
        weighs=False,
    )


def _neutral(workspace: Workspace) -> Grid:
    settings = [
        Setting(f"{frames}" if frames else "all", {"protocol.frames": frames}, at=(frames,))
        for frames in dict.fromkeys(workspace.config.ablate.frames)
    ]
    reference = "all" if 0 in workspace.config.ablate.frames else settings[-1].label
    return new_grid(workspace, "neutral", "Frames of the neutral clip", "Neutral frames", settings, reference)


def _sources(workspace: Workspace) -> Grid:
    protocol = workspace.config.protocol
    people = len(workspace.source(workspace.targets()).subjects)
    counts = dict.fromkeys(workspace.config.ablate.counts)
    above = [count for count in counts if count > people]
    settings = [
        Setting(f"{count}" if count else f"all ({people})", {"protocol.source_limit": count}, at=(count or people,))
        for count in counts
        if count not in above and (count < people or 0 not in counts)
    ]
    if not settings:
        raise ConfigError(
            f"ablate.counts: there are {people} source subjects; give numbers from 2 to that, or 0 for all"
        )
    notes = [f"left out: {', '.join(map(str, above))}; there are {people} source subjects"] if above else []
    if protocol.source_limit:
        raise ConfigError("protocol.source_limit is what this ablation changes; leave it at 0")
    return new_grid(workspace, "sources", "Source subjects", "Source subjects", settings, settings[-1].label, notes)


def _contamination(workspace: Workspace) -> Grid:
    settings = [
        Setting(f"{100 * share:g} %", {"protocol.contamination": share}, at=(share,))
        for share in dict.fromkeys(workspace.config.ablate.shares)
    ]
    title = "A neutral clip that shows other classes"
    return new_grid(workspace, "contamination", title, "Share of the clip", settings, settings[0].label)


def _bn(workspace: Workspace) -> Grid:
    methods = workspace.config.ablate.methods or ("shot-im", "shot", "nrc", "tpds", "sfda-de")
    without = [name for name in methods if "bn_mode" not in _options(name)]
    if without:
        raise ConfigError(
            f"{', '.join(without)} has no option bn_mode; choose methods that adapt B, for example shot, nrc, tpds"
        )
    settings = [
        Setting(mode, {f"adapt.{name}.bn_mode": mode for name in methods}, at=(mode,))
        for mode in dict.fromkeys(workspace.config.ablate.modes)
    ]
    notes = ["train: batch statistics of the target while adapting, as published; eval: those of the source."]
    title = "BatchNorm's mode while a method adapts"
    return new_grid(workspace, "bn", title, "Mode", settings, settings[0].label, notes, methods=methods)


ABLATIONS: Mapping[str, Callable[[Workspace], Grid]] = {
    "dims": _dims,
    "pairing": _pairing,
    "losses": _losses,
    "lambda": _lambda,
    "layers": _layers,
    "neutral": _neutral,
    "sources": _sources,
    "contamination": _contamination,
    "bn": _bn,
}
"""Name to what makes its grid."""


def make_grid(name: str, workspace: Workspace) -> Grid:
    """Return the settings of an ablation on a workspace's data, as ``[ablate]`` states them.

    Raises:
        ConfigError: An unknown ablation, or a grid of which nothing can be had.
    """
    if name not in ABLATIONS:
        raise ConfigError(f"unknown ablation {name!r}{closest(name, ABLATIONS)}; there are {', '.join(ABLATIONS)}")
    return ABLATIONS[name](workspace)


def _mlp(config: Config) -> dict[str, Any]:
    """Return what makes T an MLP with both losses; weights that the workspace gives are kept."""
    weights = {_ON[name][0]: _weight(config, name) for name in ("style", "expression")}
    return {"pretrain.form": "mlp", **weights}


def _weight(config: Config, term: str) -> float:
    key, usual = _ON[term]
    section, _, name = key.rpartition(".")
    if section == "pretrain":
        given = float(getattr(config.pretrain, name))
    else:
        given = float(config.adapt.options.get("pft", {}).get(name, 0.0))
    return given or usual


def _options(method: str) -> list[str]:
    return [item.name for item in fields(get_method(method).config_type)]

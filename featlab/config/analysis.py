"""Sections of `featlab.toml` that change no result: the grids of ablations, what pictures show, where work runs."""

from __future__ import annotations

from dataclasses import dataclass

from featlab.config.options import Options, option
from featlab.config.sections import REDUCTIONS, STRATEGIES, UPDATES

FACES = ("photographs", "landmarks", "none")
LOSS_TERMS = ("classification", "style", "expression", "alignment", "consistency", "anchor")
"""The first three when T is pretrained, the others when it is adapted."""
FIGURE_FORMATS = ("svg", "pdf", "png")
LARGEST_DRAWING = 450_000
"""Bytes of an SVG up to which a report shows it as it is; a larger one holds a cloud of dots, or photographs."""
BN_MODES = ("train", "eval")
ENGINES = ("local", "dask", "submitit")
GRIDS = {
    "dims": ("dims",),
    "pairing": ("strategies",),
    "losses": ("terms",),
    "lambda": ("style", "expression", "alignment", "anchor"),
    "layers": ("updates",),
    "share": ("carried",),
    "neutral": ("frames",),
    "sources": ("counts",),
    "contamination": ("shares",),
    "bn": ("modes",),
}
"""Every ablation, and the keys of ``[ablate]`` that hold its grid."""

_WEIGHTS = (0.0, 0.01, 0.1, 1.0, 10.0)


@dataclass(frozen=True)
class PlotConfig(Options):
    """Figures, and pictures that show faces."""

    formats: tuple[str, ...] = option(
        (), "Formats of figures beside .svg, which is always there: `pdf`, `png`.", choices=("pdf", "png")
    )
    images: str = option(
        "", "Folder that the cache's image names are relative to, that of the manifest; empty looks beside the cache."
    )
    faces: str = option(
        "photographs",
        "What stands for a face: its `photographs`, its `landmarks` as dots, in which nobody is recognised, or `none`. "
        "Without the image, dots; without landmarks, nothing.",
        choices=FACES,
    )


@dataclass(frozen=True)
class AblateConfig(Options):
    """What `featlab ablate` runs: a grid for each ablation, beside everything else that this file says."""

    caches: tuple[str, ...] = option((), "Caches to run it on, a panel for each; empty takes the workspace's own.")
    methods: tuple[str, ...] = option((), "Registry names; empty takes those that the ablation is about.")
    validation: bool = option(False, "Whether each bundle is validated on source people, see `pretrain.validation`.")
    dims: tuple[int, ...] = option(
        (64, 128, 256, 512, 0), "`dims`: dimensions of the features; 0 is the embedding as it is.", minimum=0
    )
    reductions: tuple[str, ...] = option(
        (), "`dims`: how they are reduced, a panel for each; empty takes `features.reduce`.", choices=REDUCTIONS
    )
    strategies: tuple[str, ...] = option(
        ("random", "cosine", "landmark"), "`pairing`: how rows find their references.", choices=STRATEGIES
    )
    terms: tuple[str, ...] = option(LOSS_TERMS, "`losses`: which are switched off, and on alone.", choices=LOSS_TERMS)
    style: tuple[float, ...] = option(_WEIGHTS, "`lambda`: weights of the style loss, at the source.", minimum=0)
    expression: tuple[float, ...] = option(
        _WEIGHTS, "`lambda`: weights of the KL expression loss, at the source.", minimum=0
    )
    alignment: tuple[float, ...] = option(
        _WEIGHTS, "`lambda`: weights of the style alignment, at the target.", minimum=0
    )
    anchor: tuple[float, ...] = option(
        _WEIGHTS, "`lambda`: weights of KL to the source model's prediction, at the target.", minimum=0
    )
    updates: tuple[str, ...] = option(UPDATES, "`layers`: which of T's layers adapt.", choices=UPDATES)
    carried: tuple[float, ...] = option(
        (0.0, 0.25, 0.5, 0.7, 0.9, 0.95, 1.0),
        "`share`: fractions of a person's offset at rest that are taken, beside the learned one.",
        minimum=0,
        maximum=1,
    )
    frames: tuple[int, ...] = option(
        (1, 2, 4, 8, 0), "`neutral`: frames of the neutral clip; 0 is all of it.", minimum=0
    )
    counts: tuple[int, ...] = option((5, 10, 20, 40, 0), "`sources`: source subjects; 0 is all of them.", minimum=0)
    shares: tuple[float, ...] = option(
        (0.0, 0.1, 0.2, 0.3, 0.5), "`contamination`: fractions of the clip that show other classes.", minimum=0
    )
    modes: tuple[str, ...] = option(BN_MODES, "`bn`: BatchNorm's mode while a method adapts.", choices=BN_MODES)


@dataclass(frozen=True)
class EngineConfig(Options):
    """Where the work of evaluate, benchmark, tune, ablate and of adapting to many people runs.

    Every machine must see the workspace under the same path.
    """

    name: str = option(
        "local",
        "`local` (processes of this machine), `dask` (a cluster of dask.distributed; extra `dask`) or `submitit` "
        "(SLURM's job arrays; processes of this machine where there is no SLURM; extra `slurm`).",
        choices=ENGINES,
    )
    address: str = option(
        "", "`dask`: the scheduler, such as tcp://node1:8786; empty starts a cluster on this machine for the command."
    )
    partition: str = option("", "`submitit`: SLURM's partition; empty takes the cluster's own.")
    minutes: int = option(60, "`submitit`: time that a job of the array may take.", minimum=1)
    memory: int = option(8, "`submitit`: GB of memory of a job.", minimum=1)
    array: int = option(32, "`submitit`: jobs of an array; the work is dealt among them.", minimum=1)

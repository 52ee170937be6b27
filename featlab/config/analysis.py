"""Sections of the configuration that change no result: the grids of ablations, and what pictures show."""

from __future__ import annotations

from dataclasses import dataclass, fields

from featlab.config.options import check_at_least, check_choice
from featlab.config.sections import REDUCTIONS, STRATEGIES, UPDATES
from featlab.errors import ConfigError

__all__ = ["BN_MODES", "FACES", "LOSS_TERMS", "AblateConfig", "PlotConfig"]

FACES = ("photographs", "landmarks", "none")
LOSS_TERMS = ("classification", "style", "expression", "alignment", "consistency", "anchor")
"""The first three when T is pretrained, the others when it is adapted."""
BN_MODES = ("train", "eval")


@dataclass(frozen=True)
class PlotConfig:
    """Pictures that show faces.

    Attributes:
        images: Folder that the cache's image names are relative to, that of the manifest; empty looks beside the cache.
        faces: What stands for a face: its ``photographs``, its ``landmarks`` as dots, in which nobody is recognised, or
            ``none``. Without the image, dots; without landmarks, nothing.
    """

    images: str = ""
    faces: str = "photographs"

    def __post_init__(self) -> None:
        check_choice("plot.faces", self.faces, FACES)


@dataclass(frozen=True)
class AblateConfig:
    """What `featlab ablate` runs: one grid an ablation, each beside everything else that this file says.

    Attributes:
        caches: Caches to run it on, a panel each; empty takes the workspace's own.
        methods: Registry names; empty takes those that the ablation is about.
        validation: Whether each bundle is validated on source people, see ``pretrain.validation``.
        dims: ``dims``: dimensions of the features; 0 is the embedding as it is.
        reductions: ``dims``: how they are reduced, a panel each; empty takes ``features.reduce``.
        strategies: ``pairing``: how rows find their references.
        terms: ``losses``: which are switched off, and on alone.
        style: ``lambda``: weights of the style loss, at the source.
        expression: ``lambda``: weights of the KL expression loss, at the source.
        alignment: ``lambda``: weights of the style alignment, at the target.
        anchor: ``lambda``: weights of KL to the source model's prediction, at the target.
        updates: ``layers``: which of T's layers adapt.
        frames: ``neutral``: frames of the neutral clip; 0 is all of it.
        counts: ``sources``: source subjects; 0 is all of them.
        shares: ``contamination``: of the clip that shows other classes.
        modes: ``bn``: BatchNorm's mode while a method adapts.
    """

    caches: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    validation: bool = False
    dims: tuple[int, ...] = (64, 128, 256, 512, 0)
    reductions: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ("random", "cosine", "landmark")
    terms: tuple[str, ...] = LOSS_TERMS
    style: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0, 10.0)
    expression: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0, 10.0)
    alignment: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0, 10.0)
    anchor: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0, 10.0)
    updates: tuple[str, ...] = UPDATES
    frames: tuple[int, ...] = (1, 2, 4, 8, 0)
    counts: tuple[int, ...] = (5, 10, 20, 40, 0)
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.5)
    modes: tuple[str, ...] = BN_MODES

    def __post_init__(self) -> None:
        known = {"reductions": REDUCTIONS, "strategies": STRATEGIES, "terms": LOSS_TERMS, "updates": UPDATES}
        for name, choices in {**known, "modes": BN_MODES}.items():
            for value in getattr(self, name):
                check_choice(f"ablate.{name}", value, choices)
        for name in ("dims", "style", "expression", "alignment", "anchor", "frames", "counts", "shares"):
            for value in getattr(self, name):
                check_at_least(f"ablate.{name}", value, 0)
        for name in (item.name for item in fields(self)):
            if name not in ("caches", "methods", "reductions", "validation") and not getattr(self, name):
                raise ConfigError(f"ablate.{name} is empty; give it at least one value")

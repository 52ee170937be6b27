"""Sections of the configuration: one frozen dataclass each, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from featlab.config.options import check_at_least, check_choice, check_share
from featlab.errors import ConfigError

__all__ = [
    "AXES",
    "FORMS",
    "LABEL_RULES",
    "LAYERS",
    "OBJECTIVES",
    "REDUCTIONS",
    "SCOPES",
    "STRATEGIES",
    "UPDATES",
    "AdaptConfig",
    "FeatureConfig",
    "HeadConfig",
    "PairConfig",
    "PretrainConfig",
    "ProtocolConfig",
    "check_window",
]

REDUCTIONS = ("within", "pca", "truncate", "random", "none")
STRATEGIES = ("landmark", "cosine", "random")
LABEL_RULES = ("any", "same", "different")
OBJECTIVES = ("anchored", "poster")
FORMS = ("linear", "mlp")
LAYERS = ("embedding", "bottleneck")
AXES = ("subject", "vector")
UPDATES = ("offset", "last", "all")
SCOPES = ("person", "dataset")
"""What is adapted to: one person's neutral clip, or all target subjects together, every class among their rows."""


def check_window(name: str, frames: int) -> None:
    """Raise a ConfigError when a smoothing window is neither odd nor 0, which switches it off."""
    if frames < 0 or (frames > 0 and frames % 2 == 0):
        raise ConfigError(f"{name} = {frames} must be odd, so that a frame stands in its middle, or 0 for none")


@dataclass(frozen=True)
class FeatureConfig:
    """What happens to an embedding before the head sees it; fitted on source rows only.

    Attributes:
        dim: Features kept; 0 keeps as many as there are.
        reduce: ``within`` (principal directions of the variation *within* source subjects, where expression lives),
            ``pca`` (of all variation, identity included), ``truncate`` (the first values of the embedding), ``random``
            (a Gaussian random projection) or ``none`` (all of them, whatever ``dim`` says). All are centred and scaled.
    """

    dim: int = 64
    reduce: str = "within"

    def __post_init__(self) -> None:
        check_at_least("features.dim", self.dim, 0)
        check_choice("features.reduce", self.reduce, REDUCTIONS)


@dataclass(frozen=True)
class HeadConfig:
    """The source head: bottleneck B = Linear + BatchNorm, classifier C = weight-normalised Linear, and its training.

    Attributes:
        bottleneck: Width of B's output.
        epochs: Passes over the source rows.
        batch: Rows in a step.
        lr: Peak learning rate (AdamW, one cycle).
        weight_decay: Decoupled weight decay.
        label_smoothing: Of the cross-entropy.
        noise: Standard deviation of Gaussian noise added to the features in training, in units of their own scale.
    """

    bottleneck: int = 128
    epochs: int = 30
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("bottleneck", "epochs"):
            check_at_least(f"head.{name}", getattr(self, name), 1)
        check_at_least("head.batch", self.batch, 2)
        for name in ("lr", "weight_decay", "noise"):
            check_at_least(f"head.{name}", getattr(self, name), 0)
        check_share("head.label_smoothing", self.label_smoothing)


@dataclass(frozen=True)
class PairConfig:
    """How a source row finds its reference: another subject's row.

    Attributes:
        strategy: ``landmark`` (least Procrustes disparity), ``cosine`` (nearest embedding), ``random``, or ``auto``:
            landmark where the cache has landmarks, else cosine.
        label_rule: Which labels a reference may have: ``any`` (labels are not looked at), the ``same`` as its row or a
            ``different`` one. Under the last two, rows of unknown label have no reference and are nobody's reference.
        neighbours: References a row; rows that have fewer admissible ones get those.

    Raises:
        ConfigError: An unknown strategy or label rule, or fewer than one neighbour.
    """

    strategy: str = "auto"
    label_rule: str = "any"
    neighbours: int = 1

    def __post_init__(self) -> None:
        check_choice("pair.strategy", self.strategy, ("auto", *STRATEGIES))
        check_choice("pair.label_rule", self.label_rule, LABEL_RULES)
        check_at_least("pair.neighbours", self.neighbours, 1)


@dataclass(frozen=True)
class PretrainConfig:
    """Pretraining of the translator on source subjects.

    Attributes:
        objective: ``anchored`` (episodes: each source subject plays a target, seen through other neutral clips
            than the row's own) or ``poster`` (the seeds' losses as written).
        form: ``linear`` (T moves features along the K directions that C tells apart; one convex problem over the
            episodes, solved to its end) or ``mlp`` (trained on pairs, step by step). ``poster`` takes an MLP always.
        penalty: ``linear`` only. Weight of the squared classifier weights, for one source video: more videos allow
            larger ones.
        episodes: ``linear`` only. How often each row is seen, through other neutral clips each time.
        hidden: ``mlp`` only, as all that follows but the weights. Width of T's hidden layer; 0 takes that of the
            features.
        residual: T(f) = f + MLP(f) with a zero start, or the seeds' literal MLP.
        epochs: Passes over the pairs; 0 leaves T the identity, in either form.
        batch: Pairs in a step.
        lr: Peak learning rate (AdamW, one cycle).
        weight_decay: Decoupled weight decay.
        style: Weight of the style loss; ``mlp`` only.
        expression: Weight of the KL expression loss, in either form.
        classification: Weight of the cross-entropy on translated rows, in either form.
        axis: Style statistics over a ``subject``'s rows, or over the feature ``vector`` of one row.
        layers: Where style is compared: the translated ``embedding``, the ``bottleneck``, or both.
        noise: Standard deviation of Gaussian noise added to the features in training.
        dropout: Of T's hidden layer in training.
        label_smoothing: Of the cross-entropy.
        style_bank: Keep the style bank in the bundle; without it `pft`, `neutral-shift` and `coral` can't be run.
        validation: Hold source people out in folds, so that `pft` carries a temperature, limits of a neutral clip and
            the expected gain; it takes about five times as long as all else of the stage. Without it, `pft` weighs the
            frames of every clip by how neutral C calls them.
    """

    objective: str = "anchored"
    form: str = "linear"
    penalty: float = 4.0
    episodes: int = 4
    hidden: int = 256
    residual: bool = True
    epochs: int = 10
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2
    style: float = 0.1
    expression: float = 0.0
    classification: float = 1.0
    axis: str = "subject"
    layers: tuple[str, ...] = ("embedding", "bottleneck")
    noise: float = 0.3
    dropout: float = 0.5
    label_smoothing: float = 0.1
    style_bank: bool = True
    validation: bool = True

    @property
    def linear(self) -> bool:
        """Whether T is fitted as one linear map; `poster` takes an MLP always."""
        return self.objective == "anchored" and self.form == "linear"

    def __post_init__(self) -> None:
        check_at_least("pretrain.hidden", self.hidden, 0)
        check_choice("pretrain.objective", self.objective, OBJECTIVES)
        check_choice("pretrain.form", self.form, FORMS)
        check_at_least("pretrain.episodes", self.episodes, 1)
        check_choice("pretrain.axis", self.axis, AXES)
        if not self.layers:
            raise ConfigError(f"pretrain.layers is empty; choose from {', '.join(LAYERS)}, or set pretrain.style = 0")
        for layer in self.layers:
            check_choice("pretrain.layers", layer, LAYERS)
        if not (self.style or self.expression or self.classification):
            raise ConfigError("pretrain: style, expression and classification are all 0; give one of them a weight")
        for name in ("penalty", "epochs", "lr", "weight_decay", "style", "expression", "classification", "noise"):
            check_at_least(f"pretrain.{name}", getattr(self, name), 0)
        for name in ("dropout", "label_smoothing"):
            check_share(f"pretrain.{name}", getattr(self, name))
        check_at_least("pretrain.batch", self.batch, 2)


@dataclass(frozen=True)
class AdaptConfig:
    """What `featlab adapt` runs.

    Attributes:
        method: Registry name of the method.
        options: Settings of methods, as a table a method: ``[adapt.pft]`` in the file, ``adapt.pft.lr=…`` with --set.
    """

    method: str = "pft"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ProtocolConfig:
    """Who is a target, what is run on them, and how often.

    Attributes:
        targets: A number (that many at random), ids with commas, or a file with one id a line.
        sources: Source subjects; empty takes everyone who is no target.
        source_limit: At most that many of them, drawn at random (for one draw of targets, fewer are part of more); 0
            takes all.
        draws: Random draws of targets.
        seeds: Runs with other seeds within a draw.
        seed: The root of every seed.
        methods: Registry names, in the order of the table.
        scope: What is adapted to: ``person`` (each target from a neutral clip) or ``dataset`` (all targets together,
            unlabelled rows of every class).
        gap: Frames left out between the adapt and the test block when a subject has a single neutral video.
        smoothing: Frames of a centred moving average over the predicted probabilities of a video, for the second number
            of the tables (the main one is frame by frame); odd, 1 or 0 switches it off.
        frames: Scope ``person`` only. Adapt on at most that many frames of the neutral clip, the first in time; 0 takes
            all. The others are not tested either.
        contamination: Scope ``person`` only. Share of the adapted frames in [0, 1) that is replaced by random test
            frames of the subject's other classes: what happens when a neutral clip isn't one.
        pool: Whom random targets are drawn from: ids with commas, or a file with one id a line; empty takes everyone.
            Who is outside the pool is never a target.
    """

    targets: str = "10"
    sources: tuple[str, ...] = ()
    source_limit: int = 0
    draws: int = 1
    seeds: int = 1
    seed: int = 0
    methods: tuple[str, ...] = (
        "source-only",
        "neutral-shift",
        "adabn",
        "coral",
        "referenced",
        "pft-poster",
        "pft",
        "oracle",
    )
    scope: str = "person"
    gap: int = 5
    smoothing: int = 9
    frames: int = 0
    contamination: float = 0.0
    pool: str = ""

    def __post_init__(self) -> None:
        check_choice("protocol.scope", self.scope, SCOPES)
        for name in ("draws", "seeds"):
            check_at_least(f"protocol.{name}", getattr(self, name), 1)
        for name in ("gap", "frames", "source_limit"):
            check_at_least(f"protocol.{name}", getattr(self, name), 0)
        if self.source_limit == 1:
            raise ConfigError("protocol.source_limit = 1: training needs at least 2 source subjects, or 0 for all")
        check_window("protocol.smoothing", self.smoothing)
        check_share("protocol.contamination", self.contamination)
        if self.contamination == 1:
            raise ConfigError(
                f"protocol.contamination = {self.contamination} must be below 1: some has to stay neutral"
            )

"""Sections of `featlab.toml` that decide results: from the features to the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError

REDUCTIONS = ("within", "pca", "truncate", "random", "none")
STRATEGIES = ("landmark", "cosine", "random")
LABEL_RULES = ("any", "same", "different")
FORMS = ("joint", "linear", "mlp")
LAYERS = ("embedding", "bottleneck")
AXES = ("subject", "vector")
STYLE_BANKS = ("centre", "none")
UPDATES = ("offset", "last", "all")
SCOPES = ("person", "dataset")
"""What is adapted to: one person's neutral clip, or all target subjects together, every class among their rows."""

ON_PAIRS = "form = joint or form = mlp"
"""The options of `PretrainConfig` with which T is trained on pairs."""
_LINEAR, _TRAINED = "form = joint or form = linear", "classifier = trained"


def check_window(name: str, frames: int) -> None:
    """Raise a ConfigError when a smoothing window is neither odd nor 0, which switches it off."""
    if frames < 0 or (frames > 0 and frames % 2 == 0):
        raise ConfigError(f"{name} = {frames} must be odd, so that a frame stands in its middle, or 0 for none")


_REDUCED = "dim = 0 or reduce = within or reduce = pca or reduce = truncate or reduce = random"


@dataclass(frozen=True)
class FeatureConfig(Options):
    """What happens to an embedding before the head sees it; fitted on source rows only."""

    dim: int = option(64, "Features kept; 0 keeps as many as there are.", minimum=0, only=_REDUCED)
    reduce: str = option(
        "within",
        "`within` (principal directions of the variation within source subjects, where expression lives), `pca` (of "
        "all variation, identity included), `truncate` (the first values of the embedding), `random` (a Gaussian "
        "random projection) or `none` (all of them, whatever `dim` says). All are centred and scaled.",
        choices=REDUCTIONS,
    )


@dataclass(frozen=True)
class HeadConfig(Options):
    """The source head: bottleneck B = Linear + BatchNorm, classifier C = weight-normalised Linear, and its training."""

    classifier: str = option("trained", "`trained`, or the cache's texts: `prompts`.", choices=("trained", "prompts"))
    bottleneck: int = option(128, "Width of B's output.", minimum=1, only=_TRAINED)
    epochs: int = option(30, "Passes over the source rows.", minimum=1, only=_TRAINED)
    # BatchNorm has no variance of one row.
    batch: int = option(64, "Rows in a step.", minimum=2, only=_TRAINED)
    lr: float = option(1e-3, "Peak learning rate (AdamW, one cycle).", minimum=0, only=_TRAINED)
    weight_decay: float = option(1e-2, "Decoupled weight decay.", minimum=0, only=_TRAINED)
    label_smoothing: float = option(0.1, "Of the cross-entropy.", minimum=0, maximum=1, only=_TRAINED)
    noise: float = option(0.0, "Deviation of Gaussian noise on features, in their scale.", minimum=0, only=_TRAINED)


@dataclass(frozen=True)
class PairConfig(Options):
    """How a source row finds its reference, another subject's row.

    Not with pretrain.form = linear, unless for the method pft-poster: a linear T is trained without pairs.
    """

    strategy: str = option(
        "auto",
        "`landmark` (smallest Procrustes disparity), `cosine` (nearest embedding), `random`, or `auto`: landmark where "
        "the cache has landmarks, else cosine.",
        choices=("auto", *STRATEGIES),
    )
    label_rule: str = option(
        "any",
        "Which labels a reference may have: `any` (labels are not looked at), the `same` as its row or a `different` "
        "one. Under the last two, rows of unknown label have no reference and are nobody's reference.",
        choices=LABEL_RULES,
    )
    neighbours: int = option(1, "References for each row; rows that have fewer admissible ones get those.", minimum=1)
    index: str = option(
        "",
        "A faiss factory string for more than about 200,000 rows: `PCA64,IVF4096,SQfp16`, `HNSW32`, "
        "`OPQ16_64,IVF4096,PQ16`. The index proposes references and exact scores choose among them; how many of the "
        "true ones it finds is measured on 1,000 rows. Empty: an exact search.",
        only="strategy = auto or strategy = landmark or strategy = cosine",
    )

    def resolved(self, landmarks: bool) -> str:
        """Return the strategy that is meant for rows with or without landmarks, one of `STRATEGIES`."""
        if self.strategy == "auto":
            return "landmark" if landmarks else "cosine"
        if self.strategy == "landmark" and not landmarks:
            raise InputError(
                "strategy landmark needs landmarks and the cache holds none; "
                "extract again with --landmarks FILE, or use --strategy cosine"
            )
        return self.strategy


@dataclass(frozen=True)
class PretrainConfig(Options):
    """Pretraining of the translator T on source subjects.

    The method pft-poster trains a T of its own by the poster's losses, and reads none of this but the width.
    """

    removed = {  # noqa: RUF012
        "objective": "the poster's losses are the method pft-poster",
        "residual": "T starts at the identity always",
        "weight_decay": "dropout and averaged weights do its work",
        "noise": "it made every set worse",
        "label_smoothing": "the temperature calibrates",
        "bank_rows": "the style bank holds no single people",
    }
    form: str = option(
        "joint",
        "What T's hidden layer holds: a `linear` part (one convex problem over the episodes, solved to its end), an "
        "`mlp` part (trained on pairs, step by step, from the identity), or both (`joint`).",
        choices=FORMS,
    )
    learn_balance: bool = option(
        True,
        "Choose the weight of the MLP part on held-out source subjects, among 0.1, 0.25, 0.5, 0.75 and 0.9; 0.5 where "
        "nobody is held out. Otherwise `balance` is taken.",
        only="form = joint",
    )
    balance: float = option(
        0.5,
        "Weight of the MLP part; the linear part has the rest.",
        minimum=0,
        maximum=1,
        only="form = joint and learn_balance = false",
    )
    learn_share: bool = option(
        True,
        "Choose on held-out source subjects how much of a person's offset at rest is still there in their "
        "expressions (the carried share). Otherwise `share` is taken.",
    )
    share: float = option(
        1.0,
        "The carried share: 0 leaves a person's rows where they are, 1 takes all of their offset at rest away.",
        minimum=0,
        maximum=1,
        only="learn_share = false",
    )
    style_bank: str = option(
        "centre",
        "What the bundle keeps of how source people look at rest: the `centre` of them all, or `none`, with which "
        "`pft`, `neutral-shift` and `coral` can't be run.",
        choices=STYLE_BANKS,
    )
    validation: bool = option(
        True,
        "Hold source people out in folds, so that `pft` carries a temperature, limits of a neutral clip and the "
        "expected gain; it takes two to three times as long as all else of the stage. Without it, `pft` weighs the "
        "frames of every clip by how neutral C calls them, and can't tell whether it helps.",
    )
    penalty: float = option(
        4.0,
        "Weight of the squared weights of the linear part, for one source video: more videos allow larger ones.",
        minimum=0,
        only=_LINEAR,
    )
    episodes: int = option(
        4, "How often the linear part sees each row, through other neutral clips each time.", minimum=1, only=_LINEAR
    )
    classification: float = option(1.0, "Weight of the cross-entropy on translated rows.", minimum=0, only=ON_PAIRS)
    style: float = option(1.0, "Weight of the style loss.", minimum=0, search=(0.0, 0.3, 1.0, 3.0), only=ON_PAIRS)
    expression: float = option(
        0.1, "Weight of the KL expression loss.", minimum=0, search=(0.0, 0.1, 0.3), only=ON_PAIRS
    )
    layers: tuple[str, ...] = option(
        LAYERS,
        "Where style is compared: the translated `embedding`, the `bottleneck`, or both.",
        choices=LAYERS,
        only=ON_PAIRS,
    )
    axis: str = option(
        "subject",
        "Style statistics over the rows of a batch (`subject`), or over the feature `vector` of one row.",
        choices=AXES,
        only=ON_PAIRS,
    )
    epochs: int = option(
        20,
        "Passes over the pairs; 0 leaves T the identity, in every form.",
        minimum=0,
        search=(10, 20, 60),
        only=f"{ON_PAIRS} or epochs = 0",
    )
    hidden: int = option(512, "Units of the MLP part; 0 takes the width of the features.", minimum=0, only=ON_PAIRS)
    batch: int = option(128, "Pairs in a step.", minimum=2, only=ON_PAIRS)
    lr: float = option(1e-3, "Peak learning rate (Adam, one cycle).", minimum=0, only=ON_PAIRS)
    dropout: float = option(0.5, "Of the hidden layer in training.", minimum=0, maximum=1, only=ON_PAIRS)

    @property
    def paired(self) -> bool:
        """Whether T is trained on pairs."""
        return self.form != "linear"

    def check_together(self) -> None:
        """Refuse an MLP part without any loss."""
        if self.paired and not (self.style or self.expression or self.classification):
            raise ConfigError("pretrain: style, expression and classification are all 0; give one of them a weight")


@dataclass(frozen=True)
class AdaptConfig(Options):
    """What `featlab adapt` runs."""

    method: str = option("pft", "Registry name of the method.")
    options: Mapping[str, Mapping[str, Any]] = option(
        dict, "Options of methods, as a table for each method: `[adapt.pft]` in the file, `adapt.pft.lr=…` with --set."
    )


@dataclass(frozen=True)
class ProtocolConfig(Options):
    """Who is a target, what is run on them, and how often."""

    targets: str = option(
        "10", "A number (that many at random), ids or patterns (`s0*`) with commas, or a file of them."
    )
    sources: tuple[str, ...] = option((), "Source subjects; empty takes everyone who is no target.")
    source_limit: int = option(
        0,
        "At most that many of them, drawn at random (for one draw of targets, fewer are part of more); 0 takes all.",
        minimum=0,
    )
    draws: int = option(1, "Random draws of targets.", minimum=1)
    seeds: int = option(1, "Runs with other seeds within a draw.", minimum=1)
    seed: int = option(0, "The root of every seed.")
    methods: tuple[str, ...] = option(
        ("source-only", "neutral-shift", "adabn", "coral", "referenced", "pft-poster", "pft", "oracle"),
        "Registry names, in the order of the table.",
    )
    scope: str = option(
        "person",
        "What is adapted to: `person` (each target from a neutral clip) or `dataset` (all targets together, unlabelled "
        "rows of every class).",
        choices=SCOPES,
    )
    gap: int = option(
        5, "Frames left out between the adapt and the test block when a subject has a single neutral video.", minimum=0
    )
    smoothing: int = option(
        9,
        "Frames of a centred moving average over the predicted probabilities of a video, for the second number of the "
        "tables (the main one is frame by frame); odd, 1 or 0 switches it off.",
    )
    frames: int = option(
        0,
        "Adapt on at most that many frames of the neutral clip, the first in time; 0 takes all. The others are not "
        "tested either.",
        minimum=0,
        only="scope = person",
    )
    contamination: float = option(
        0.0,
        "Fraction of the adapted frames, in [0, 1), that is replaced by random test frames of the subject's other "
        "classes: what happens when a neutral clip isn't one.",
        minimum=0,
        maximum=1,
        only="scope = person",
    )
    pool: str = option(
        "",
        "Whom targets are drawn from: ids or patterns (`s0*`) with commas, or a file of them; empty takes everyone. "
        "Who is outside the pool is never a target.",
    )

    def check_together(self) -> None:
        """Refuse numbers between the bounds that make no sense."""
        if self.source_limit == 1:
            raise ConfigError("protocol.source_limit = 1: training needs at least 2 source subjects, or 0 for all")
        check_window("protocol.smoothing", self.smoothing)
        if self.contamination == 1:
            raise ConfigError(
                f"protocol.contamination = {self.contamination} must be below 1: some has to stay neutral"
            )

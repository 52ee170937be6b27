"""Oracle: supervised fine-tuning of B and C on the target's own labelled rows. The top of the gap, never a method."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from featlab.bundle.bundle import Bundle
from featlab.compute import one_cycle
from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.methods.base import Method, target_features
from featlab.model.networks import PersonalModel
from featlab.model.personal import AdaptedModel, Affine
from featlab.model.training import Phase, train
from featlab.protocol.splits import Target


@dataclass(frozen=True)
class OracleConfig(Options):
    """Fine-tuning."""

    folds: str = option(
        "blocks",
        "What is left out of the tuning: `blocks` in time of each test video, or whole `videos`.",
        choices=("blocks", "videos"),
    )
    iterations: int = option(100, "AdamW steps on all rows.", minimum=0)
    lr: float = option(1e-2, "Peak learning rate.", minimum=0)
    weight_decay: float = option(1e-2, "Decoupled weight decay.", minimum=0)


class Oracle(Method):
    """B and C fine-tuned with the person's labels; tested on frames that it was not tuned on."""

    name = "oracle"
    title = "Supervised fine-tuning"
    setting = "Oracle"
    published = (
        "The poster's oracle, whose details are not published: cross-entropy on B and C from the source weights, "
        "BatchNorm statistics frozen, on features shifted by the neutral mean as in neutral-shift. The evaluation "
        "leaves out the block of frames that is predicted, and tunes on the rest of the same videos: a ceiling."
    )
    config_type = OracleConfig
    needs_labels = True
    updates = ("translator", "bottleneck", "classifier")

    def adapt(
        self, bundle: Bundle, target: Target, *, seed: int = 0, labels: NDArray[np.int16] | None = None
    ) -> AdaptedModel:
        """Fine-tune on labelled rows of one person."""
        if labels is None:
            raise InputError(
                "the oracle needs the target's labels; it runs in featlab evaluate, never in featlab adapt"
            )
        self.check(bundle, target)
        known = labels >= 0
        if not known.any():
            raise InputError("the oracle needs at least one labelled row of the target")
        shift = _shift(bundle, target, labels)
        with torch.no_grad():
            features = shift(target_features(bundle, target)[torch.from_numpy(known)])
        wanted = torch.from_numpy(labels[known].astype(np.int64)).to(features.device)
        head, config = copy.deepcopy(bundle.head).eval(), self.config
        optimiser = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        fit = train(
            [Phase(optimiser, lambda step: {"classification": F.cross_entropy(head(features), wanted)})],
            range(config.iterations),
            advice=f"lower adapt.oracle.lr ({config.lr})",
            rate=lambda step: one_cycle(step, config.iterations),
        )
        return AdaptedModel(PersonalModel(bundle.projection, shift, head), **fit.summary())


def _shift(bundle: Bundle, target: Target, labels: NDArray[np.int16]) -> Affine:
    """Return the neutral-mean shift from the labelled neutral rows; none without a style bank or neutral rows."""
    neutral = torch.from_numpy(labels == bundle.neutral_code)
    dim = bundle.head.linear.in_features
    if bundle.bank is None or not bool(neutral.any()):
        return Affine.shift(torch.zeros(dim))
    centre, _ = bundle.bank.centre("features")
    return Affine.shift(centre - target_features(bundle, target)[neutral].mean(dim=0))

"""What every table has: no adaptation, light baselines, and the oracle that has seen labels of the person."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import blank, one_cycle, seeded, torch_generator
from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.methods.base import Method, base_model, target_features
from featlab.model.linear import fit_classifier
from featlab.model.losses import classification_loss
from featlab.model.networks import AdaptedModel, Affine, PersonalModel, Translator, linear_head
from featlab.model.style_bank import SourceRows
from featlab.model.training import Adam, Phase, endless_batches, train
from featlab.protocol.splits import Target


class SourceOnly(Method):
    """No adaptation."""

    name = "source-only"
    published = "As published everywhere: the source model in evaluation mode, without T."

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return the source model."""
        self.check(bundle, target)
        return AdaptedModel(base_model(bundle))


class NeutralShift(Method):
    """One vector: the centre of the source subjects' neutral means minus the target's neutral mean."""

    name = "neutral-shift"
    published = "A light baseline of this package: mean alignment of the neutral class, in closed form."

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B(f + shift))."""
        self.check(bundle, target)
        assert bundle.bank is not None  # `check` refuses a bundle without a bank
        centre, _ = bundle.bank.layers["features"]
        shift = centre - target_features(bundle, target).mean(dim=0)
        return AdaptedModel(PersonalModel(bundle.projection, Affine.shift(shift), bundle.head), trainable=len(shift))


class AdaBN(Method):
    """Batch-norm statistics of the target's neutral rows in place of the source's (Li et al., 2016)."""

    name = "adabn"
    published = (
        "As published (statistics of all target rows, no training), on the one BatchNorm of B. With neutral rows only, "
        "the class mean goes with the person's mean, so it is expected to hurt."
    )

    @classmethod
    def minimum_rows(cls, classes: int) -> int:
        """Return 2: one row has no variance, and what is divided by it comes out certain."""
        return 2

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B'(f)), B' with the target's statistics."""
        self.check(bundle, target)
        head = copy.deepcopy(bundle.head)
        with torch.no_grad():
            values = head.linear(target_features(bundle, target))
        own = {"running_mean": values.mean(dim=0), "running_var": values.var(dim=0, correction=0)}
        head.norm.load_state_dict(head.norm.state_dict() | own)
        return AdaptedModel(PersonalModel(bundle.projection, None, head), trainable=2 * values.shape[1])


class Coral(Method):
    """Whiten by the target's neutral covariance, colour by the source's (Sun, Feng & Saenko, 2016)."""

    name = "coral"
    published = (
        "The published map, with the published +I on both covariances, between neutral rows. It moves the target to "
        "the source, because the classifier stays, where the paper moves the source."
    )
    carries = "covariance (D × D) of neutral rows within source subjects"

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return the covariance of the source's neutral rows around their own subject's mean, (D, D)."""
        rows = torch.nonzero(source.row_clip >= 0).squeeze(1)
        if not len(rows):
            raise InputError("coral needs neutral rows of source subjects, and none is labelled; label them")
        deviations = source.features[rows] - source.subject_mean()[source.row_subject[rows]]
        return {"covariance": deviations.T @ deviations / len(rows)}

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B((f − μ_t) A + μ_s)), A = (Σ_t + I)^−½ (Σ_s + I)^½."""
        self.check(bundle, target)
        assert bundle.bank is not None  # `check` refuses a bundle without a bank
        features = target_features(bundle, target)
        mean = features.mean(dim=0)
        centre, _ = bundle.bank.layers["features"]
        covariance = (features - mean).T @ (features - mean) / len(features)
        weight = _power(covariance, -0.5) @ _power(bundle.extras[self.name]["covariance"], 0.5)
        affine = Affine(weight, centre - mean @ weight)
        trainable = weight.numel() + len(mean)
        return AdaptedModel(PersonalModel(bundle.projection, affine, bundle.head), trainable=trainable)


def _power(covariance: Tensor, exponent: float) -> Tensor:
    """Return (Σ + I)^exponent of a symmetric (D, D) matrix."""
    values, vectors = torch.linalg.eigh(covariance + torch.eye(len(covariance), device=covariance.device))
    power: Tensor = (vectors * values.clamp_min(1e-6) ** exponent) @ vectors.T
    return power


INVERSE_PENALTY = 0.03
"""C as of scikit-learn's LogisticRegression, in units of features with unit variance within subjects."""
HIDDEN, EPOCHS, BATCH, RATE, DROPOUT = 512, 20, 128, 1e-3, 0.5
"""Of the MLP: those of the MLP part of `pft`."""


class Referenced(Method):
    """Logistic regression on differences from the neutral mean: the strongest light baseline."""

    name = "referenced"
    published = (
        "A light baseline of this package: logistic regression as scikit-learn's (C = 0.03) on source rows minus the "
        "mean of the subject's other neutral clips, in the same episodes as `pft`; it takes the place of B and C."
    )
    carries = "weight (K × D) and bias (K) of a logistic regression"

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return the classifier: weight (K, D) and bias (K,); a class without rows gets a bias that never wins."""
        rows = _rows(source, cls.name)
        random = torch_generator(bundle.seed, "referenced")
        referenced = source.features[rows] - source.episode_mean(rows, random)
        present, codes = torch.unique(source.labels[rows], return_inverse=True)
        counts = source.tested_share(rows)
        fitted = [torch.zeros(referenced.shape[1], len(present)).double(), torch.zeros(len(present)).double()]
        # Of two classes scikit-learn has one row of weights, their difference: twice as large as each, and opposite.
        penalty = (2 if len(present) == 2 else 1) / (INVERSE_PENALTY * float(counts.sum()))
        fit_classifier(fitted, referenced, codes, counts, penalty)
        weight = torch.zeros(len(bundle.classes), referenced.shape[1])
        bias = torch.full((len(bundle.classes),), -1e4)
        weight[present], bias[present] = fitted[0].T.float(), fitted[1].float()
        return {"weight": weight, "bias": bias}

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C'(f − μ_t)."""
        self.check(bundle, target)
        tensors = bundle.extras[self.name]
        head = linear_head(tensors["weight"], tensors["bias"])
        shift = Affine.shift(-target_features(bundle, target).mean(dim=0))
        return AdaptedModel(PersonalModel(bundle.projection, shift, head), trainable=len(shift.bias))


class ReferencedMLP(Method):
    """An MLP of its own on differences from the neutral mean: what `pft` would be without C, pairs, style and KL."""

    name = "referenced-mlp"
    published = (
        "A control of this package: one hidden layer of 512 units with dropout, trained by cross-entropy on source "
        "rows minus the mean of the subject's other neutral clips, in the same episodes, steps and learning rates as "
        "the MLP part of `pft`; it takes the place of B and C."
    )
    carries = "weights of an MLP"

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return the MLP: a hidden layer, and a linear layer from its D outputs to the K classes."""
        rows = _rows(source, cls.name)
        dim, classes = source.features.shape[1], len(bundle.classes)
        random = torch_generator(bundle.seed, cls.name)
        with seeded(bundle.seed, cls.name):
            hidden = Translator(dim, HIDDEN, residual=False, dropout=DROPOUT)
            last = torch.nn.Linear(dim, classes)
        trained = [*(tensor for name, tensor in hidden.named_parameters() if name != "offset"), *last.parameters()]
        batch = min(BATCH, len(rows))
        total = EPOCHS * (len(rows) // batch)

        batches = islice(endless_batches(len(rows), batch, batch, random), total)

        def losses(picked: Tensor) -> dict[str, Tensor]:
            referenced = source.features[picked] - source.episode_mean(picked, random)
            logits = last(hidden(referenced))
            return {"classification": classification_loss(logits, source.labels[picked], source.tested_share(picked))}

        with seeded(bundle.seed, cls.name, "dropout"):
            train(
                [Phase(Adam(trained, lr=RATE), losses)],
                (rows[picked] for picked in batches),
                name=cls.name,
                advice="check the embeddings for outliers",
                rate=lambda step: one_cycle(step, total),
            )
        state = {f"hidden.{name}": tensor.detach() for name, tensor in hidden.state_dict().items()}
        return state | {"weight": last.weight.detach(), "bias": last.bias.detach()}

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return the MLP of f − μ_t."""
        self.check(bundle, target)
        tensors = bundle.extras[self.name]
        hidden = blank(lambda: Translator(len(bundle.translator.offset), HIDDEN, residual=False))
        state = {name.removeprefix("hidden."): tensor for name, tensor in tensors.items() if "." in name}
        hidden.load_state_dict(state | {"offset": -target_features(bundle, target).mean(dim=0)})
        head = linear_head(tensors["weight"], tensors["bias"])
        model = PersonalModel(bundle.projection, hidden.requires_grad_(False), head)
        return AdaptedModel(model, trainable=len(hidden.offset))


def _rows(source: SourceRows, name: str) -> Tensor:
    rows = source.seen_rows()
    if len(torch.unique(source.labels[rows])) < 2:
        raise InputError(f"{name} needs source subjects with neutral rows and with others; label the source rows")
    return rows


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
    bn_mode: str = option(
        "eval",
        "BatchNorm in the steps: `eval` (the source's statistics stay) or `train` (those of the rows).",
        choices=("train", "eval"),
    )


class Oracle(Method):
    """B and C fine-tuned with the person's labels; tested on frames that it was not tuned on."""

    name = "oracle"
    published = (
        "The poster's oracle, whose details are not published: cross-entropy on B and C from the source weights, "
        "BatchNorm's statistics the source's, on features shifted by the neutral mean as in neutral-shift. The "
        "evaluation leaves out the block of frames that is predicted, and tunes on the rest of the same videos: a "
        "ceiling."
    )
    config_type = OracleConfig

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
        head, config = copy.deepcopy(bundle.head), self.config
        # One row has no variance.
        head.norm.train(config.bn_mode == "train" and len(features) > 1)
        optimiser = Adam(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        fit = train(
            [Phase(optimiser, lambda step: {"classification": F.cross_entropy(head(features), wanted)})],
            range(config.iterations),
            advice=f"lower adapt.oracle.lr ({config.lr})",
            rate=lambda step: one_cycle(step, config.iterations),
        )
        return AdaptedModel(PersonalModel(bundle.projection, shift, head.eval()), **fit.summary())


def _shift(bundle: Bundle, target: Target, labels: NDArray[np.int16]) -> Affine:
    """Return the neutral-mean shift from the labelled neutral rows; none without a style bank or neutral rows."""
    neutral = torch.from_numpy(labels == bundle.neutral_code)
    dim = bundle.head.linear.in_features
    if bundle.bank is None or not bool(neutral.any()):
        return Affine.shift(torch.zeros(dim))
    centre, _ = bundle.bank.layers["features"]
    return Affine.shift(centre - target_features(bundle, target)[neutral].mean(dim=0))

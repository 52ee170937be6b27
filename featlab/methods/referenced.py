"""Classifiers on differences from a person's neutral mean: a logistic regression, and an MLP as a control for `pft`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import one_cycle
from featlab.errors import InputError
from featlab.methods.base import Method, target_features
from featlab.model.linear import fit_classifier
from featlab.model.losses import classification_loss
from featlab.model.networks import AdaptedModel, Affine, PersonalModel, Translator, linear_head
from featlab.model.style_bank import SourceRows
from featlab.model.training import Adam, Phase, shuffled_batches, train
from featlab.protocol.splits import Target
from featlab.seeding import blank, seeded, torch_generator

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
        referenced = source.features[rows] - source.clips.episode_mean(rows, random)
        present, codes = torch.unique(source.labels[rows], return_inverse=True)
        counts = source.clips.tested_share(rows)
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
        rows, clips = _rows(source, cls.name), source.clips
        dim, classes = source.features.shape[1], len(bundle.classes)
        random = torch_generator(bundle.seed, cls.name)
        with seeded(bundle.seed, cls.name):
            hidden = Translator(dim, HIDDEN, residual=False, dropout=DROPOUT)
            last = torch.nn.Linear(dim, classes)
        trained = [*(tensor for name, tensor in hidden.named_parameters() if name != "offset"), *last.parameters()]
        batch = min(BATCH, len(rows))
        total = EPOCHS * (len(rows) // batch)

        def batches() -> Iterator[Tensor]:
            for _ in range(EPOCHS):
                for picked in shuffled_batches(len(rows), batch, batch, random):
                    yield rows[picked]

        def losses(picked: Tensor) -> dict[str, Tensor]:
            referenced = source.features[picked] - clips.episode_mean(picked, random)
            logits = last(hidden(referenced))
            return {"classification": classification_loss(logits, source.labels[picked], clips.tested_share(picked))}

        with seeded(bundle.seed, cls.name, "dropout"):
            train(
                [Phase(Adam(trained, lr=RATE), losses)],
                batches(),
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

"""The copy of a source model that a method trains, and its training as published: trunk adapter, B and C, BatchNorm.

In the published methods a backbone is fine-tuned together with B and C. Here embeddings are cached and pixels are gone,
so what stands in its place is nothing (``trunk = "none"``: only B, and C where the method trains it) or a residual MLP
on features with a zero start (``trunk = "adapter"``), trained at the backbone's rate.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from featlab.bundle.bundle import Bundle
from featlab.compute import seeded, torch_generator
from featlab.config.options import Options, option
from featlab.methods.base import Method, ordered_features
from featlab.model.networks import AdaptedModel, PersonalModel, SourceHead, Translator
from featlab.model.training import Fit, Phase, Terms, shuffled_batches, train
from featlab.protocol.splits import Target

BN_MODES = ("train", "eval")
"""``train``: statistics of the batch, running statistics follow the target; ``eval``: those of the source stay."""


def bn_option(where: str, train: str = "as published") -> Any:
    """Declare the option ``bn_mode``: the mode of one BatchNorm, and what its batch statistics are."""
    text = f"BatchNorm {where}: `train` ({train}) or `eval` (the source's statistics stay)."
    return option("train", text, choices=BN_MODES, search=BN_MODES)


@dataclass(frozen=True, eq=False)
class Student:
    """A trainable copy of the source model on features."""

    trunk: Translator | None  # A residual MLP on features, (n, D) → (n, D); ``None`` without one.
    head: SourceHead  # B and C, copies.

    @property
    def classes(self) -> int:
        """K."""
        return len(self.head.classifier.bias)

    def features(self, features: Tensor) -> Tensor:
        """Return what the trunk makes of (n, D) features."""
        return features if self.trunk is None else self.trunk(features)

    def bottleneck(self, features: Tensor) -> Tensor:
        """Return z = B(A(f)), (n, H)."""
        return self.head.bottleneck(self.features(features))

    def logits(self, features: Tensor) -> Tensor:
        """Return C(B(A(f))), (n, K)."""
        return self.head.classify(self.bottleneck(features))

    def set_mode(self, bn_mode: str) -> None:
        """Put BatchNorm into one of `BN_MODES`; nothing else here behaves differently in training."""
        self.head.norm.train(bn_mode == "train")

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within the block there are no gradients; the student is left in evaluation mode."""
        self.head.norm.eval()
        with torch.no_grad():
            yield

    def parameters_of(self, part: str) -> list[nn.Parameter]:
        """Return the parameters of ``trunk``, ``bottleneck`` or ``classifier``."""
        if part == "trunk":
            return [] if self.trunk is None else [*self.trunk.first.parameters(), *self.trunk.last.parameters()]
        if part == "bottleneck":
            return [*self.head.linear.parameters(), *self.head.norm.parameters()]
        return list(self.head.classifier.parameters())

    def model(self, bundle: Bundle) -> PersonalModel:
        """Return the frozen model of a person, in evaluation mode."""
        trunk = None if self.trunk is None else self.trunk.requires_grad_(False)
        return PersonalModel(bundle.projection, trunk, self.head.requires_grad_(False))


def make_student(bundle: Bundle, trunk: str, seed: int) -> Student:
    """Return a copy of the bundle's source model with everything frozen; `fit_sgd` frees what it trains.

    ``trunk`` is ``none`` or ``adapter``; the seed is that of an adapter's initial weights.
    """
    head = copy.deepcopy(bundle.head).eval().requires_grad_(False)
    adapter = new_adapter(bundle, seed) if trunk == "adapter" else None
    return Student(adapter, head)


def new_adapter(bundle: Bundle, seed: int) -> Translator:
    """Return a residual MLP on the bundle's features, as wide as they are, that is the identity, bitwise. Frozen."""
    dim = bundle.head.linear.in_features
    with seeded(seed, "adapter"):
        adapter = Translator(dim, dim)
    return adapter.to(bundle.projection.mean.device).eval().requires_grad_(False)


@dataclass(frozen=True)
class SGDConfig(Options):
    """Optimisation of one adaptation: SGD with Nesterov momentum, a fixed number of epochs, the last iterate."""

    momentum = 0.9
    weight_decay = 1e-3
    decay = True  # Whether the rate falls as (1 + 10 t/T)^−¾; else it is constant.

    epochs: int = option(
        15, "Passes over the target rows; 0 leaves the source model as it is.", minimum=0, search=(5, 15)
    )
    batch: int = option(
        64, "Rows in a step; a last batch of one row is skipped, because BatchNorm needs two.", minimum=2
    )
    lr: float = option(1e-2, "Learning rate of B at the start.", minimum=0, search=(1e-3, 3e-3, 1e-2))
    bn_mode: str = bn_option("in adaptation")
    trunk: str = option(
        "none",
        "What stands in the backbone's place: `none`, or an `adapter` trained at a tenth of the rate.",
        choices=("none", "adapter"),
    )


RATES = {"trunk": 0.1, "bottleneck": 1.0}
"""Learning rates of a student's parts as multiples of `SGDConfig.lr`; a part without one stays frozen."""


def fit_sgd(
    student: Student,
    rows: int,
    config: SGDConfig,
    losses: Callable[[Tensor], Terms],
    *,
    seed: int,
    rates: Mapping[str, float] = RATES,
    on_epoch: Callable[[int], None] | None = None,
    rate_option: str = "lr",
) -> Fit:
    """Minimise a loss over batches of ``rows`` target rows, given by their numbers; the seed is that of their order.

    ``on_epoch`` is called with the epoch's number before its first step: there pseudo-labels are renewed (within
    ``student.evaluating()``). ``rate_option`` is what the user calls the learning rate. BatchNorm is left in evaluation
    mode, all is frozen.
    """
    groups = [
        {"params": parameters, "lr": rate * config.lr}
        for part, rate in rates.items()
        if (parameters := student.parameters_of(part))
    ]
    optimiser = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True)
    random = torch_generator(seed, "batches")
    minimum = 2 if config.bn_mode == "train" else 1
    batch = min(config.batch, rows)
    total = config.epochs * sum(1 for start in range(0, rows, batch) if min(batch, rows - start) >= minimum)

    def batches() -> Iterator[Tensor]:
        for epoch in range(config.epochs if total else 0):
            if on_epoch is not None:
                on_epoch(epoch)
            student.set_mode(config.bn_mode)
            yield from shuffled_batches(rows, batch, minimum, random)

    # As SHOT. The official code counts the step before it sets the rate: t goes from 1 to T.
    decay = (lambda step: float((1 + 10 * (step + 1) / total) ** -0.75)) if config.decay else None
    advice = f"lower {config.key(rate_option)} ({config.lr})"
    fit = train([Phase(optimiser, losses)], batches(), advice=advice, rate=decay)
    student.set_mode("eval")
    if config.epochs and not total:
        return replace(fit, warnings=("one row is no batch for BatchNorm in training: nothing was learnt",))
    return fit


TargetObjective = tuple[Callable[[Tensor], Terms], Callable[[int], None] | None]
"""The losses, and what is renewed before an epoch, as `fit_sgd` takes them."""


class SGDMethod(Method):
    """Base of the methods that train B, and what else has a rate, by SGD on target rows: they implement `objective`."""

    setting = "SFDA (model-based)"
    supports_single_class = False
    rates: ClassVar[Mapping[str, float]] = RATES
    neighbours_teach: ClassVar[bool] = False
    """Whether a row learns from other rows: from a single one nothing is learnt then."""

    @abstractmethod
    def objective(self, student: Student, features: Tensor) -> TargetObjective:
        """Return what is learnt by, of a copy of the source model and (n, D) target rows."""

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C'(B'(f)); C as it was where it has no rate."""
        self.check(bundle, target)
        features = ordered_features(bundle, target)
        student = make_student(bundle, self.config.trunk, seed)
        if self.neighbours_teach and len(features) == 1:
            return AdaptedModel(student.model(bundle), warnings=("one row has no neighbour: nothing was learnt",))
        losses, renew = self.objective(student, features)
        fit = fit_sgd(student, len(features), self.config, losses, seed=seed, rates=self.rates, on_epoch=renew)
        return AdaptedModel(student.model(bundle), **fit.summary())

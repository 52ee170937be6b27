"""The copy of a source model that a method trains: trunk adapter, B and C, with BatchNorm in a mode that is chosen.

In the published methods a backbone is fine-tuned together with B and C. Here embeddings are cached and pixels are gone,
so what stands in its place is nothing (``trunk = "none"``: only B, and C where the method trains it) or a residual MLP
on features with a zero start (``trunk = "adapter"``), trained at the backbone's rate.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from featlab.bundle.bundle import Bundle
from featlab.model.networks import PersonalModel, SourceHead, Translator
from featlab.seeding import seeded

BN_MODES = ("train", "eval")
"""``train``: statistics of the batch, running statistics follow the target; ``eval``: those of the source stay."""
TRUNKS = ("none", "adapter")


@dataclass(frozen=True, eq=False)
class Student:
    """A trainable copy of the source model on features.

    Attributes:
        trunk: A residual MLP on features, (n, D) → (n, D); ``None`` without one.
        head: B and C, copies.
    """

    trunk: Translator | None
    head: SourceHead

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
        """Within the block: evaluation mode, no gradients; afterwards as before."""
        mode = self.head.norm.training
        self.head.norm.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.head.norm.train(mode)

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

    Args:
        bundle: Left unchanged.
        trunk: One of `TRUNKS`.
        seed: Of the adapter's initial weights; the global random state is left alone.
    """
    head = copy.deepcopy(bundle.head).eval().requires_grad_(False)
    adapter = new_adapter(bundle, seed) if trunk == "adapter" else None
    return Student(adapter, head)


def new_adapter(bundle: Bundle, seed: int, hidden: int = 0) -> Translator:
    """Return a residual MLP on the bundle's features with a zero start: the identity, bitwise. Frozen.

    Args:
        bundle: Gives the width D and the device.
        seed: Of the hidden layer's initial weights.
        hidden: Width of the hidden layer; 0 takes D.
    """
    dim = bundle.head.linear.in_features
    with seeded(seed, "adapter"):
        adapter = Translator(dim, hidden or dim)
    return adapter.to(bundle.projection.mean.device).eval().requires_grad_(False)

"""A model for one person, and what is known of it: what every method gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featlab.errors import InputError
from featlab.model.networks import PersonalModel, as_tensor
from featlab.seeding import blank


class Affine(nn.Module):
    """A fixed affine map of features, f ↦ f A + b; what the light baselines put in the translator's place."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    weight: Tensor
    bias: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, D) mapped features."""
        return features @ self.weight + self.bias

    @classmethod
    def shift(cls, bias: Tensor) -> Affine:
        """Return f ↦ f + bias."""
        return cls(torch.eye(len(bias), device=bias.device), bias)


@dataclass(frozen=True)
class ClipReport:
    """What a method can say of a person's clip, without labels.

    Attributes:
        clip: Numbers that describe it, by name.
        uniform: Whether it varies no more than the source subjects' clips usually do.
        remarks: What looks unusual, one line each.
        refusal: Why this clip should not be adapted to; empty when it may.
    """

    clip: Mapping[str, float]
    uniform: bool
    remarks: tuple[str, ...]
    refusal: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return all that a user should read: the refusal first, if there is one."""
        return (self.refusal, *self.remarks) if self.refusal else self.remarks


@dataclass(frozen=True)
class GainEstimate:
    """What adapting is expected to have added to a person's macro F1, without labels.

    Attributes:
        expected: On average, over source subjects like this one.
        low: A tenth of them gained less.
        high: A tenth of them gained more.
        chance: Fraction of them whom it helped, or left as they were.
        frames: Unlabelled frames of the person that were looked at; 0: these are the numbers of all source subjects.
    """

    expected: float
    low: float
    high: float
    chance: float
    frames: int


@dataclass(frozen=True)
class SourceGain:
    """What adapting gained, in macro F1, on source people who were held out.

    Attributes:
        mean: Over people.
        low: Lower end of the interval that holds the mean four times in five.
        high: Its upper end.
        people: How many there were.
    """

    mean: float
    low: float
    high: float
    people: int

    @property
    def helps(self) -> bool:
        """Whether adapting made them better on average."""
        return self.mean > 0

    def sentence(self) -> str:
        """Return it for people."""
        mean, low, high = (100 * value for value in (self.mean, self.low, self.high))
        return (
            f"adapting gained {mean:+.1f} points of macro F1 on average ({low:+.1f} to {high:+.1f}, 80 % interval) on "
            f"{self.people} source people who were held out"
        )


@dataclass(frozen=True, eq=False)
class AdaptedModel:
    """A model for one person.

    Attributes:
        model: Predicts logits from embeddings.
        iterations: Optimiser steps (0 for a closed form).
        trainable: Parameters that were fitted to this person.
        history: Loss terms, an entry a step that was logged.
        warnings: What the user should know, one line each.
        report: What the method says of this clip, where it can tell.
    """

    model: PersonalModel
    iterations: int = 0
    trainable: int = 0
    history: tuple[Mapping[str, float], ...] = ()
    warnings: tuple[str, ...] = ()
    report: ClipReport | None = None

    def predict_proba(self, embeddings: NDArray[np.float32], *, block: int = 65536) -> NDArray[np.float32]:
        """Return (n, K) float32 class probabilities of (n, D0) embeddings, computed block by block.

        Raises:
            InputError: A wrong width.
        """
        width = len(self.model.projection.mean)
        if embeddings.ndim != 2 or embeddings.shape[1] != width:
            raise InputError(f"embeddings have shape {embeddings.shape}, expected (n, {width})")
        device = self.model.projection.mean.device
        with torch.no_grad():
            parts = [
                torch.softmax(self.model(as_tensor(embeddings[start : start + block], device)), dim=1).cpu().numpy()
                for start in range(0, max(1, len(embeddings)), block)
            ]
        return np.concatenate(parts)


def linear_head(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the frozen linear map of (K, D) weights and (K,) biases, to stand in place of B and C."""
    classes, width = weight.shape
    head = blank(lambda: nn.Linear(width, classes)).to(weight.device)
    head.load_state_dict({"weight": weight, "bias": bias})
    return head.requires_grad_(False)

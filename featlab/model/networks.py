"""The networks: projection, bottleneck B, classifier C (together the source head), translator T, a person's model.

Shapes: an embedding f is (n, D0) float32; the projection gives features (n, D); B gives (n, H); C gives logits (n, K).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from featlab.cache.table import LARGEST, usable
from featlab.compute import blank
from featlab.errors import InputError

_ROWS = 65536  # of a table that are computed at once


class Projection(nn.Module):
    """A fixed affine map from embeddings to features, (f − mean) · components, fitted on source rows only."""

    mean: Tensor  # (D0,) subtracted from every embedding.
    components: Tensor  # (D0, D) directions, scaled so that a feature has unit variance on average.

    def __init__(self, mean: Tensor, components: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return (n, D) features of (n, D0) embeddings."""
        return (embeddings - self.mean) @ self.components

    def of_rows(self, embeddings: NDArray[np.float32]) -> Tensor:
        """Return (N, D) features of a whole table, without gradients and without another copy of it."""
        made = torch.empty(len(embeddings), self.components.shape[1], device=self.mean.device)
        with torch.no_grad():
            for start in range(0, len(embeddings), _ROWS):
                made[start : start + _ROWS] = self(as_tensor(embeddings[start : start + _ROWS], self.mean.device))
        return made


class SourceHead(nn.Module):
    """Bottleneck B = Linear + BatchNorm1d, and classifier C = weight-normalised Linear (the layout of SHOT)."""

    def __init__(self, dim: int, bottleneck: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, bottleneck)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.norm = nn.BatchNorm1d(bottleneck)
        self.classifier = weight_norm(nn.Linear(bottleneck, classes))
        nn.init.zeros_(self.classifier.bias)

    def bottleneck(self, features: Tensor) -> Tensor:
        """Return B(f), (n, H)."""
        return self.norm(self.linear(features))  # type: ignore[no-any-return]

    def classify(self, bottleneck: Tensor) -> Tensor:
        """Return C(z), (n, K) logits of bottleneck outputs z."""
        return self.classifier(bottleneck)  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        """Return C(B(f)), (n, K) logits."""
        return self.classify(self.bottleneck(features))


def head_from_state(state: Mapping[str, Tensor]) -> SourceHead:
    """Build B and C from their state dict: frozen, in evaluation mode; the caller's random state stays as it is."""
    width, dim = state["linear.weight"].shape
    classes = len(state["classifier.parametrizations.weight.original1"])
    head = blank(lambda: SourceHead(dim, width, classes))
    head.load_state_dict(dict(state))
    return head.eval().requires_grad_(False)


@torch.no_grad()
def head_map(head: SourceHead) -> tuple[Tensor, Tensor]:
    """Return B and C in evaluation mode as one affine map: (D, K) and (K,), float64 on the CPU (GPUs may have none)."""
    state = {name: tensor.cpu().double() for name, tensor in head.state_dict().items()}
    last = head.classifier.weight.cpu().double().T
    scale = state["norm.weight"] / torch.sqrt(state["norm.running_var"] + head.norm.eps)
    bias = (state["linear.bias"] - state["norm.running_mean"]) * scale + state["norm.bias"]
    return (state["linear.weight"].T * scale) @ last, bias @ last + state["classifier.bias"]


class Translator(nn.Module):
    """T: one light MLP on features, not conditioned on the other subject.

    Residual form: T(f) = g + W₂ relu(W₁ g + b₁) + b₂ with g = f + offset and W₂ = b₂ = offset = 0 at the start, so that
    before any step T is the identity, bitwise. The offset is the one tensor that `pft` adapts for a new person. It
    adds no layer: T(f) with an offset a is the same MLP with b₁ + W₁a and b₂ + a in place of its biases.

    A hidden layer holds a linear map too, since relu(x) − relu(−x) = x: see `featlab.model.linear`.

    Literal form (``residual=False``), as in the seeds: T(f) = W₂ relu(W₁ g + b₁) + b₂. Dropout is that of the hidden
    layer, in training.
    """

    def __init__(self, dim: int, hidden: int, *, residual: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.residual = residual
        self.offset = nn.Parameter(torch.zeros(dim))
        self.first = nn.Linear(dim, hidden)
        self.last = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        if residual:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return translated features, (n, D)."""
        shifted = features + self.offset
        change: Tensor = self.last(self.dropout(torch.relu(self.first(shifted))))
        return shifted + change if self.residual else change

    def moved(self, offset: Tensor) -> Translator:
        """Return T with another offset; its other tensors are the same objects, not copies."""
        other = copy.copy(self)
        other._parameters = self._parameters | {"offset": nn.Parameter(offset, requires_grad=False)}
        return other


def translator_from_state(state: Mapping[str, Tensor], *, residual: bool = True) -> Translator:
    """Build T from its state dict, likewise."""
    hidden, dim = state["first.weight"].shape
    translator = blank(lambda: Translator(dim, hidden, residual=residual))
    translator.load_state_dict(dict(state))
    return translator.eval().requires_grad_(False)


class PersonalModel(nn.Module):
    """What predicts for one person: C(B(T(P(f)))), in evaluation mode.

    Without a translator T is left out. The head is B and C, or another map from features to logits. The temperature
    divides the logits, so that probabilities are calibrated; it changes no prediction.
    """

    temperature: Tensor

    def __init__(
        self, projection: Projection, translator: nn.Module | None, head: nn.Module, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.tensor(temperature, device=projection.mean.device))
        self.projection = projection
        self.translator = translator if translator is not None else nn.Identity()
        self.head = head
        self.eval()

    def features(self, embeddings: Tensor) -> Tensor:
        """Return translated features T(P(f)), (n, D)."""
        translated: Tensor = self.translator(self.projection(embeddings))
        return translated

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return (n, K) logits of (n, D0) embeddings."""
        logits: Tensor = self.head(self.features(embeddings)) / self.temperature
        return logits


def as_tensor(values: NDArray[np.float32], device: str | torch.device = "cpu") -> Tensor:
    """Return an array as a tensor on a device, without a copy where there needs to be none."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)


class Affine(nn.Module):
    """A fixed affine map of features, f ↦ f A + b; what the light baselines put in the translator's place."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, D) mapped features."""
        return features @ self.weight + self.bias

    @classmethod
    def shift(cls, bias: Tensor) -> Affine:
        """Return f ↦ f + bias."""
        return cls(torch.eye(len(bias), device=bias.device), bias)


@dataclass(frozen=True)
class ClipReport:
    """What a method can say of a person's clip, without labels."""

    clip: Mapping[str, float]  # Numbers that describe it, by name.
    uniform: bool  # Whether it varies no more than the source subjects' clips usually do.
    remarks: tuple[str, ...]  # What looks unusual, one line each.
    refusal: str  # Why this clip should not be adapted to; empty when it may.

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return all that a user should read: the refusal first, if there is one."""
        return (self.refusal, *self.remarks) if self.refusal else self.remarks


@dataclass(frozen=True)
class GainEstimate:
    """What adapting is expected to have added to a person's macro F1, without labels."""

    expected: float  # On average, over source subjects like this one.
    low: float  # A tenth of them gained less.
    high: float  # A tenth of them gained more.
    chance: float  # Fraction of them whom it helped, or left as they were.
    frames: int  # Unlabelled frames of the person that were looked at; 0: the numbers are those of all source subjects.

    def sentence(self) -> str:
        """Return it for people."""
        seen = f"{self.frames} other frames" if self.frames else "source people alone"
        gained = [f"{100 * value:+.0f}" for value in (self.expected, self.low, self.high)]
        return (
            f"{gained[0]} points of macro F1, four in five times {gained[1]} to {gained[2]}; no loss in "
            f"{self.chance:.0%} of cases (from {seen}, no label used)"
        )


@dataclass(frozen=True)
class SourceGain:
    """What adapting gained, in macro F1, on source people who were held out."""

    mean: float  # Over people.
    low: float  # Lower end of the interval that holds the mean four times in five.
    high: float  # Its upper end.
    people: int  # How many there were.
    chose: str = ""  # What else they decided, for people.

    @property
    def helps(self) -> bool:
        """Whether adapting made them better on average."""
        return self.mean > 0

    def sentence(self) -> str:
        """Return it for people."""
        points = "{:+.1f} points of macro F1 on average ({:+.1f} to {:+.1f}, 80 % interval)"
        gained = points.format(*(100 * value for value in (self.mean, self.low, self.high)))
        return f"adapting gained {gained} on {self.people} source people who were held out{self.chose}"


@dataclass(frozen=True, eq=False)
class AdaptedModel:
    """A model for one person: what every method gives back."""

    model: PersonalModel  # Predicts logits from embeddings.
    iterations: int = 0  # Optimiser steps (0 for a closed form).
    trainable: int = 0  # Parameters that were fitted to this person.
    history: tuple[Mapping[str, float], ...] = ()  # Loss terms, an entry a step that was logged.
    warnings: tuple[str, ...] = ()  # What the user should know, one line each.
    report: ClipReport | None = None  # What the method says of this clip, where it can tell.

    def predict_proba(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, K) float32 class probabilities of (n, D0) embeddings, computed block by block.

        A wrong width, and values that are not finite or above 1e15, are an InputError.
        """
        width = len(self.model.projection.mean)
        if embeddings.ndim != 2 or embeddings.shape[1] != width:
            raise InputError(f"embeddings have shape {embeddings.shape}, expected (n, {width})")
        if not usable(embeddings).all():
            raise InputError(f"embeddings hold NaN, infinity or values above {LARGEST:g}; leave such rows out")
        device = self.model.projection.mean.device
        with torch.no_grad():
            parts = [
                torch.softmax(self.model(as_tensor(embeddings[start : start + _ROWS], device)), dim=1).cpu().numpy()
                for start in range(0, max(1, len(embeddings)), _ROWS)
            ]
        return np.concatenate(parts)


def linear_head(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the frozen linear map of (K, D) weights and (K,) biases, to stand in place of B and C."""
    classes, width = weight.shape
    head = blank(lambda: nn.Linear(width, classes)).to(weight.device)
    head.load_state_dict({"weight": weight, "bias": bias})
    return head.requires_grad_(False)

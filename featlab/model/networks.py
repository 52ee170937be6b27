"""The networks: projection, bottleneck B, classifier C (together the source head) and translator T.

Shapes: an embedding f is (n, D0) float32; the projection gives features (n, D); B gives (n, H); C gives logits (n, K).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from featlab.seeding import blank


class Projection(nn.Module):
    """A fixed affine map from embeddings to features, (f − mean) · components, fitted on source rows only.

    Args:
        mean: (D0,) subtracted from every embedding.
        components: (D0, D) directions, scaled so that a feature has unit variance on average.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, mean: Tensor, components: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return (n, D) features of (n, D0) embeddings."""
        return (embeddings - self.mean) @ self.components


class SourceHead(nn.Module):
    """Bottleneck B = Linear + BatchNorm1d, and classifier C = weight-normalised Linear (the layout of SHOT).

    Args:
        dim: D, features in.
        bottleneck: H, width of B's output.
        classes: K.
    """

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
        z: Tensor = self.norm(self.linear(features))
        return z

    def classify(self, bottleneck: Tensor) -> Tensor:
        """Return C(z), (n, K) logits of bottleneck outputs z."""
        logits: Tensor = self.classifier(bottleneck)
        return logits

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


class Translator(nn.Module):
    """T: one light MLP on features, not conditioned on the other subject.

    Residual form: T(f) = g + W₂ relu(W₁ g + b₁) + b₂ with g = f + offset and W₂ = b₂ = offset = 0 at the start, so that
    before any step T is the identity, bitwise. The offset is the one tensor that `pft` adapts for a new person. It
    adds no layer: T(f) with an offset a is the same MLP with b₁ + W₁a and b₂ + a in place of its biases.

    A hidden layer holds a linear map too, since relu(x) − relu(−x) = x: see `featlab.model.linear`.

    Literal form (``residual=False``), as in the seeds: T(f) = W₂ relu(W₁ g + b₁) + b₂.

    Args:
        dim: D, features in and out.
        hidden: Width of the hidden layer.
        residual: Which form.
        dropout: Of the hidden layer, in training.
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

    @classmethod
    def mean(cls, parts: Sequence[tuple[Translator, float]]) -> Translator:
        """Return the weighted mean of residual translators as one: its hidden layer holds theirs, in their order.

        Args:
            parts: Translators of zero offset, each with its weight.
        """
        dim = len(parts[0][0].offset)
        joined = blank(lambda: cls(dim, sum(part.first.out_features for part, _ in parts)))
        state = {
            "offset": torch.zeros(dim),
            "first.weight": torch.cat([part.first.weight for part, _ in parts]),
            "first.bias": torch.cat([part.first.bias for part, _ in parts]),
            "last.weight": torch.cat([weight * part.last.weight for part, weight in parts], dim=1),
            "last.bias": torch.stack([weight * part.last.bias for part, weight in parts]).sum(dim=0),
        }
        joined.load_state_dict(state)
        return joined.eval().requires_grad_(False)

    def part(self, units: slice, weight: float, *, bias: bool) -> Translator:
        """Return the translator of some hidden units, which `mean` has given a weight; ``bias`` goes along if asked."""
        width = len(range(*units.indices(self.first.out_features)))
        part = blank(lambda: Translator(len(self.offset), width))
        state = {
            "offset": self.offset,
            "first.weight": self.first.weight[units],
            "first.bias": self.first.bias[units],
            "last.weight": self.last.weight[:, units] / weight,
            "last.bias": self.last.bias / weight if bias else torch.zeros_like(self.last.bias),
        }
        part.load_state_dict(state)
        return part.eval().requires_grad_(False)


class PersonalModel(nn.Module):
    """What predicts for one person: C(B(T(P(f)))), in evaluation mode.

    Args:
        projection: P.
        translator: T, adapted; ``None`` leaves it out.
        head: B and C, or another map from features to logits.
        temperature: Divides the logits, so that probabilities are calibrated; it changes no prediction.
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


def layer_values(layer: str, translated: Tensor, head: SourceHead) -> Tensor:
    """Return the values at one layer where style is compared, of (n, D) translated rows.

    Args:
        layer: ``embedding``: the rows themselves; ``bottleneck``: B's output, (n, H).
        translated: (n, D).
        head: B and C.
    """
    return head.bottleneck(translated) if layer == "bottleneck" else translated


def head_map(head: SourceHead) -> tuple[Tensor, Tensor]:
    """Return B and C in evaluation mode as one affine map of features: weight (D, K) and bias (K,), in float64."""
    mean, variance = head.norm.running_mean, head.norm.running_var
    assert mean is not None  # BatchNorm1d tracks statistics unless told not to
    assert variance is not None
    scale = _double(head.norm.weight) / torch.sqrt(_double(variance) + head.norm.eps)
    classifier = _double(head.classifier.weight).T
    bias = (_double(head.linear.bias) - _double(mean)) * scale + _double(head.norm.bias)
    return (_double(head.linear.weight).T * scale) @ classifier, bias @ classifier + _double(head.classifier.bias)


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64)


def as_tensor(values: NDArray[np.float32], device: str | torch.device = "cpu") -> Tensor:
    """Return an array as a tensor on a device, without a copy where there needs to be none."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

"""Several models of one form, trained in one loop: a step of small ones takes little longer for five than for one.

Each has rows and an order of its own, and takes the steps that it would take alone; as many as the one with the most
rows, and those with fewer begin again. A tensor (F, …) has a place for each of F models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featlab.model.training import endless_batches


class Stack:
    """The tensors of F modules of one form, (F, …) each, by their names."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        states = [module.state_dict() for module in modules]
        self.tensors = {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def write(self, modules: Sequence[nn.Module]) -> None:
        """Give the modules these tensors, and freeze them."""
        for place, module in enumerate(modules):
            module.load_state_dict({name: tensor[place] for name, tensor in self.tensors.items()})
            module.eval().requires_grad_(False)

    def linear(self, name: str, inputs: Tensor) -> Tensor:
        """Return (F, n, ·), a linear layer of its own for each (n, ·) inputs."""
        weight, bias = (self.tensors[f"{name}.{kind}"] for kind in ("weight", "bias"))
        return torch.baddbmm(bias[:, None], inputs, weight.mT)


class Heads(Stack):
    """Source heads."""

    def bottleneck(self, features: Tensor, *, training: bool = False) -> Tensor:
        """Return B of (F, n, D) rows, (F, n, H)."""
        values = self.linear("linear", features)
        # A channel for each unit of each model.
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (self.tensors[f"norm.{name}"].view(-1) for name in names)
        rows = values.transpose(0, 1).flatten(1)
        normed = F.batch_norm(rows, mean, variance, scale, shift, training=training)
        return normed.view(values.shape[1], len(values), -1).transpose(0, 1)

    def classify(self, bottleneck: Tensor) -> Tensor:
        """Return C of (F, n, H) rows, (F, n, K)."""
        length, direction = (self.tensors[f"classifier.parametrizations.weight.original{part}"] for part in (0, 1))
        weight = torch._weight_norm(direction.flatten(0, 1), length.flatten(0, 1)).view_as(direction)
        return torch.baddbmm(self.tensors["classifier.bias"][:, None], bottleneck, weight.mT)


class Translators(Stack):
    """Residual translators without an offset."""

    def translate(self, features: Tensor, dropout: float) -> Tensor:
        """Return T of (F, n, D) rows in training, with one draw of dropout for all models."""
        hidden = torch.relu(self.linear("first", features))
        return features + self.linear("last", hidden * F.dropout(torch.ones_like(hidden[0]), dropout))


def batches_of_each(
    rows: Sequence[int], batch: int, epochs: int, randoms: Sequence[torch.Generator]
) -> Iterator[Tensor]:
    """Yield (F, batch) places among each model's rows, a step at a time."""
    passes = [endless_batches(count, batch, batch, random) for count, random in zip(rows, randoms, strict=True)]
    for _ in range(epochs * (max(rows) // batch)):
        yield torch.stack([next(own) for own in passes])


def limit_gradients(parameters: Sequence[Tensor], largest: float) -> None:
    """Scale the gradients of (F, …) parameters so that no model's has a larger norm."""
    slopes = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([slope.flatten(1).norm(dim=1) for slope in slopes]).norm(dim=0)
    scale = (largest / (norms + 1e-6)).clamp_max(1)
    for slope in slopes:
        slope.mul_(scale.view(-1, *[1] * (slope.ndim - 1)))

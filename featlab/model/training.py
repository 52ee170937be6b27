"""The one training loop, the one minimiser over all rows at once, and several models of one form trained side by side.

A step of small models takes little longer for five than for one. Each has rows and an order of its own, and takes as
many steps as the one with the most rows; those with fewer begin again. A tensor (F, …) has a place for each model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from featlab.errors import InputError

Terms = Mapping[str, Tensor]
"""Loss terms of one step, weights included: their sum is minimised."""
History = list[Mapping[str, float]]
"""Loss terms and their sum (``loss``), an entry a step."""
OnEpoch = Callable[[int, int, float], None]
"""Called after each epoch with its number, the number of epochs, and the mean loss."""


class Adam:
    """Adam, with weight decay AdamW: the steps of torch's own, whose base class imports torch's compiler, a second."""

    def __init__(self, parameters: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        """Take tensors, or groups of them: mappings of ``params``, and of options of its own."""
        given = list(parameters)
        groups = given if given and isinstance(given[0], Mapping) else [{"params": given}]
        rest = {"lr": lr, "weight_decay": weight_decay}
        self.param_groups = [{**rest, **group, "params": list(group["params"])} for group in groups]
        self.state: dict[Tensor, dict[str, Any]] = {}

    def zero_grad(self) -> None:
        """Forget every gradient."""
        for group in self.param_groups:
            for tensor in group["params"]:
                tensor.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            moved = [tensor for tensor in group["params"] if tensor.grad is not None]
            for tensor in moved:
                if tensor not in self.state:
                    self.state[tensor] = {name: torch.zeros_like(tensor) for name in ("mean", "square")} | {"steps": 0}
            if not moved:
                continue
            states = [self.state[tensor] for tensor in moved]
            slopes, means, squares = (
                [tensor.grad for tensor in moved],
                *([state[name] for state in states] for name in ("mean", "square")),
            )
            if group["weight_decay"]:
                torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_lerp_(means, slopes, 1 - 0.9)
            torch._foreach_mul_(squares, 0.999)
            torch._foreach_addcmul_(squares, slopes, slopes, 1 - 0.999)
            scales = torch._foreach_sqrt(squares)
            for state in states:
                state["steps"] += 1
            torch._foreach_div_(scales, [(1 - 0.999 ** state["steps"]) ** 0.5 for state in states])
            torch._foreach_add_(scales, 1e-8)
            torch._foreach_addcdiv_(
                moved, means, scales, [-group["lr"] / (1 - 0.9 ** state["steps"]) for state in states]
            )


@dataclass(frozen=True, eq=False)
class Phase:
    """One update within a step."""

    optimiser: Optimizer | Adam  # What makes the update, at the rates that it was made with.
    losses: Callable[[Any], Terms]  # Called with the step's batch; returns the loss terms.
    # The parameters that this update changes; ``None``: all of the optimiser's.
    trained: Sequence[nn.Parameter] | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """What a training did."""

    iterations: int  # Steps taken.
    trainable: int  # Parameters that were trained.
    history: tuple[Mapping[str, float], ...]  # Loss terms and their sum, an entry a step.
    warnings: tuple[str, ...] = ()  # One line each.

    def summary(self) -> dict[str, Any]:
        """Return the keywords that `featlab.methods.AdaptedModel` takes beside the model."""
        return dict(vars(self))


@torch.enable_grad()  # Also where the caller has switched gradients off.
def train(
    phases: Sequence[Phase],  # The updates of a step, in order; names of loss terms have to differ between them.
    batches: Iterable[Any],  # What the losses are called with.
    *,
    advice: str,  # What to do when a loss is not finite, for the message.
    name: str = "adaptation",  # Of what is trained, for the message.
    rate: Callable[[int], float] | None = None,  # Factor of the learning rates at a step, counted from 0.
    limit: Callable[[], object] = lambda: None,  # Called before each update; it may change the gradients.
    history: History | None = None,  # Gets an entry a step, while the training runs.
) -> Fit:
    """Take a step on every batch; what is to happen between steps happens where ``batches`` are made.

    All parameters of the optimisers are left frozen. A loss, or a parameter at the end, that is not finite is an
    InputError.
    """
    optimisers = list(dict.fromkeys(phase.optimiser for phase in phases))
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.requires_grad_(True)
    first_rates = [(group, group["lr"]) for group in groups]
    for group in groups:
        group["foreach"] = True  # One call for all small tensors: the same weights, sooner.
    history = [] if history is None else history
    for batch in batches:
        if rate is not None:
            factor = rate(len(history))
            for group, first in first_rates:
                group["lr"] = first * factor
        entry: dict[str, float] = {}
        total = 0.0
        for phase in phases:
            terms = phase.losses(batch)
            loss = loss_sum(terms, f"{name} diverged at step {len(history) + 1}; {advice}")
            phase.optimiser.zero_grad()
            # What an update does not train gets no gradient, and the optimiser passes it over.
            loss.backward(inputs=phase.trained)  # type: ignore[no-untyped-call]
            limit()
            phase.optimiser.step()
            entry |= {term: value.item() for term, value in terms.items()}
            total += loss.item()
        history.append(entry | {"loss": total})
    # The loss after the last step is never computed.
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise InputError(f"{name} diverged in its last step; {advice}")
    for parameter in parameters:
        parameter.requires_grad_(False)
    return Fit(len(history), sum(parameter.numel() for parameter in parameters), tuple(history))


@torch.enable_grad()
def minimise(
    parameters: Sequence[Tensor], losses: Callable[[], Terms], *, message: str, iterations: int, **options: float
) -> tuple[int, History]:
    """Minimise a loss over everything at once, by L-BFGS with a line search; ``options`` are tolerances of torch's.

    The parameters are changed in place. Returns the iterations taken, and the loss terms of every evaluation: the line
    search makes several in an iteration. A loss that is not finite is an InputError with the ``message``.
    """
    optimiser = LBFGS(parameters, max_iter=iterations, line_search_fn="strong_wolfe", **options)  # type: ignore[arg-type]
    history: History = []

    def closure() -> Tensor:
        optimiser.zero_grad()
        terms = losses()
        loss = loss_sum(terms, message)
        history.append({term: value.item() for term, value in terms.items()} | {"loss": loss.item()})
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return int(optimiser.state[parameters[0]]["n_iter"]), history


def loss_sum(terms: Terms, message: str) -> Tensor:
    """Return the sum of loss terms; an InputError with a message when it is not finite."""
    loss = torch.stack(list(terms.values())).sum()
    if not torch.isfinite(loss):
        raise InputError(message)
    return loss


def shuffled_batches(rows: int, batch: int, minimum: int, random: torch.Generator) -> Iterator[Tensor]:
    """Yield index batches of one epoch in random order; a last batch of fewer than ``minimum`` rows is left out."""
    parts = torch.split(torch.randperm(rows, generator=random), batch)
    return (picked for picked in parts if len(picked) >= minimum)


def endless_batches(rows: int, batch: int, minimum: int, random: torch.Generator) -> Iterator[Tensor]:
    """Yield the batches of `shuffled_batches`, epoch after epoch."""
    while True:
        yield from shuffled_batches(rows, batch, minimum, random)


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

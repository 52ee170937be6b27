"""The one training loop, and the one minimiser over all rows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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


def train(
    phases: Sequence[Phase],
    batches: Iterable[Any],
    *,
    advice: str,
    name: str = "adaptation",
    rate: Callable[[int], float] | None = None,
    limit: Callable[[], object] = lambda: None,
    history: History | None = None,
) -> Fit:
    """Take a step on every batch; what is to happen between steps happens where ``batches`` are made.

    Args:
        phases: The updates of a step, in order; names of loss terms have to differ between them.
        batches: What the losses are called with.
        advice: What to do when a loss is not finite, for the message.
        name: Of what is trained, for the message.
        rate: Factor of the learning rates at a step, counted from 0.
        limit: Called before each update; it may change the gradients.
        history: Gets an entry a step, while the training runs.

    Returns:
        The fit; all parameters of the optimisers are left frozen.

    Raises:
        InputError: A loss, or a parameter at the end, that is not finite.
    """
    optimisers = list(dict.fromkeys(phase.optimiser for phase in phases))
    parameters = [tensor for optimiser in optimisers for tensor in _parameters(optimiser)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
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


def _parameters(optimiser: Optimizer | Adam) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


PARTS, MINIMUM = 10, 5
"""The running median takes a tenth of the losses, 5 at least: batches of other rows make a loss jump about."""
TOLERANCE = 0.05
"""Share of the whole fall within which a loss counts as settled."""

CONVERGENCE_RULE = (
    f"the first iteration from which on the loss, smoothed by a centred median over 1/{PARTS} of the iterations "
    f"({MINIMUM} at least), stays within {100 * TOLERANCE:g} % of its whole fall around its last level"
)
"""The rule, for tables."""


def converged_at(losses: Sequence[float], *, window: int | None = None, tolerance: float = TOLERANCE) -> int | None:
    """Return the number of the iteration from which on a loss stays where it ends.

    The loss is smoothed by a centred running median, narrower at the beginning, so that a loss that falls steadily is
    left as it is. Its last level is the last full median; its fall is that of the highest of the first smoothed values
    down to there. A loss that still falls at the end counts as converged in its last iterations only. There is one loss
    an iteration, computed before its step; ``window`` is the odd number of them in a median.

    Returns:
        A number from 1 to ``len(losses)``; 0 without any loss (a closed form). ``None`` for a loss that ends higher
        than it began, or that is not finite: it has not converged.
    """
    values = np.asarray(losses, dtype=np.float64)
    if not len(values):
        return 0
    if not np.isfinite(values).all():
        return None
    if window is None:
        window = max(MINIMUM, len(values) // PARTS)
    half = min(window // 2, (len(values) - 1) // 2)
    smooth = _running_median(values, half)
    if smooth[-1] > smooth[0]:
        return None
    fall = smooth[: 2 * half + 1].max() - smooth[-1]
    away = np.flatnonzero(np.abs(smooth - smooth[-1]) > tolerance * fall)
    return int(away[-1]) + 2 if len(away) else 1


def iterations_to_converge(history: Sequence[Mapping[str, float]], iterations: int) -> int | None:
    """Return how many of its iterations an adaptation needed until its loss had settled, by `converged_at`.

    A method of several stages has a loss a stage, told apart by the names of its terms; their iterations are added up.
    0 for a closed form; ``None`` when a stage has not converged, or when losses were not logged once an iteration (a
    line search computes several).
    """
    if len(history) != iterations or any("loss" not in entry for entry in history):
        return None
    counts = [converged_at([entry["loss"] for entry in stage]) for _, stage in groupby(history, key=frozenset)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _running_median(values: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """Return the median of 2 ``half`` + 1 values around each but the last ``half``, narrower around the first ones."""
    inner = np.median(np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1), axis=1)
    first = [np.median(values[: 2 * place + 1]) for place in range(half)]
    return np.concatenate([first, inner])

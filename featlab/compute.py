"""Where a network runs, with what precision, and at what learning rate."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from featlab.errors import ConfigError


def choose_device(name: str, *, amp: bool = False) -> torch.device:
    """Return the device for auto, cpu, cuda (NVIDIA) or mps (Apple); auto takes a GPU where torch finds one.

    Raises:
        ConfigError: Another name, a GPU that isn't there, or mixed precision elsewhere than on cuda.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name not in ("auto", *there):
        raise ConfigError(f"device must be auto, cpu, cuda or mps, got {name!r}")
    if not there.get(name, True):
        raise ConfigError(f"device {name}: torch finds no GPU here; use cpu")
    chosen = next(device for device, found in there.items() if found) if name == "auto" else name
    if amp and chosen != "cuda":
        raise ConfigError(f"mixed precision (amp) needs a GPU of NVIDIA, and this runs on {chosen}; leave it out")
    return torch.device(chosen)


@contextmanager
def computing(device: torch.device, *, amp: bool) -> Iterator[None]:
    """No gradients, and on a GPU either float16 autocast or true float32.

    cuDNN's default for float32 is TF32, which keeps 10 bits: without it, CPU and GPU give the same embeddings up to
    rounding, so the device needn't be part of a cache's fingerprint.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if device.type == "cuda":
            if amp:
                stack.enter_context(torch.autocast("cuda", dtype=torch.float16))
            else:
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        yield


def count_flops(run: Callable[[], object]) -> float:
    """Run something once and return its floating-point operations, as torch counts them.

    torch counts matrix products and convolutions, forward and backward; what is done by elements, by decompositions or
    in other libraries (k-means, logistic regression) is not in it. Counting slows a run down, so it is not timed.
    """
    with _Counter() as counter:  # type: ignore[no-untyped-call]
        run()
    return float(counter.flops)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up torch's own formulas: `FlopCounterMode` also follows modules, and imports torch's compiler for it."""

    flops = 0


def _count(self: _Counter, operator: Any, types: Any, given: Any = (), options: Any = None) -> Any:
    from torch.utils.flop_counter import flop_registry

    options = options or {}
    formula = flop_registry.get(operator.overloadpacket)
    if formula is None:
        with self:
            parts = operator.decompose(*given, **options)
        if parts is not NotImplemented:
            return parts
    result = operator(*given, **options)
    if formula is not None:
        self.flops += formula(*given, **options, out_val=result)
    return result


# Not in the class's body: there torch would import its compiler, for a second, to exempt it.
_Counter.__torch_dispatch__ = _count  # type: ignore[assignment, method-assign]


@contextmanager
def quiet_export() -> Iterator[None]:
    """Keep torch's exporter from telling of its own insides, of libraries that aren't there and of deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and the libraries beneath NumPy use one thread; as before after it."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def one_cycle(step: int, total: int, warmup: float = 0.1) -> float:
    """Return the factor of the peak learning rate at ``step``: a linear rise, then half a cosine down to zero."""
    rise = max(1, int(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return half_cosine(step - rise, total - rise)


def half_cosine(step: int, total: int) -> float:
    """Return the factor of the first learning rate at ``step``: half a cosine from 1 down to 0 at ``total``."""
    return 0.5 * (1.0 + math.cos(math.pi * step / max(1, total)))


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = value

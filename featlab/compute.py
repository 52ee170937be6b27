"""What a run depends on beside its data: seeds, from its identity, and where and how a network is computed.

Seeds are hashes of names and numbers: adding a subject, a method or a draw changes no other run's numbers. torch is
imported where it is used.
"""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from featlab.errors import ConfigError

if TYPE_CHECKING:
    import torch

M = TypeVar("M")


def stable_hash(*parts: Any) -> str:
    """Return the sha256 hex digest of the parts' text; the same on every machine, version and process."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def run_seed(*parts: Any) -> int:
    """Return a seed in [0, 2³²) that depends on the parts alone, e.g. ``run_seed(seed, "adapt", method, subject)``."""
    return int(stable_hash("seed", *parts)[:8], 16)


def generator(*parts: Any) -> np.random.Generator:
    """Return a NumPy generator seeded by `run_seed` of the parts."""
    return np.random.default_rng(run_seed(*parts))


def torch_generator(*parts: Any) -> torch.Generator:
    """Return a CPU generator of torch seeded by `run_seed` of the parts."""
    import torch

    return torch.Generator().manual_seed(run_seed(*parts))


@contextmanager
def from_seed(seed: int, device: str = "cpu") -> Iterator[None]:
    """Within the block torch's generators, of CPU and device, start at a seed; afterwards they are as before."""
    import torch

    cuda = device == "cuda"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
        # torch.manual_seed would seed every accelerator's generator too, which the fork doesn't put back.
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield


def seeded(*parts: Any, device: str = "cpu") -> AbstractContextManager[None]:
    """Return `from_seed` of the parts' seed."""
    return from_seed(run_seed(*parts), device)


def blank(build: Callable[[], M]) -> M:
    """Build a module whose initial weights will be overwritten; drawing them leaves the global generator alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return build()


def choose_device(name: str, *, amp: bool = False) -> torch.device:
    """Return the device for auto, cpu, cuda (NVIDIA) or mps (Apple); auto takes a GPU where torch finds one.

    Raises:
        ConfigError: Another name, a GPU that isn't there, or mixed precision elsewhere than on cuda.
    """
    import torch

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
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if device.type == "cuda":
            if amp:
                stack.enter_context(torch.autocast("cuda", dtype=torch.float16))
            else:
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        yield


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
    import torch
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

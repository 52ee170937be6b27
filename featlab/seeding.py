"""Seeds from the identity of a run: adding a subject, a method or a draw changes no other run's numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

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

"""Where a network runs, and with what precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from featlab.errors import ConfigError

__all__ = ["choose_device", "computing"]


def choose_device(name: str, *, amp: bool) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda".

    Raises:
        ConfigError: Another name, a GPU that isn't there, or mixed precision without one.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda, got {name!r}")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError("device cuda: torch finds no GPU here; use cpu")
    chosen = "cuda" if name != "cpu" and has_gpu else "cpu"
    if amp and chosen != "cuda":
        raise ConfigError("mixed precision (amp) needs a GPU, and this runs on the CPU; leave it out")
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

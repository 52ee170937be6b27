"""Seeds from the identity of a run: adding a subject, a method or a draw changes no other run's numbers."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

__all__ = ["generator", "run_seed", "stable_hash"]


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

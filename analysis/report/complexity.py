"""What `featlab.analysis.cost` measured: the costs of each method, and on what."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ComplexityReport", "MethodCost"]


@dataclass(frozen=True)
class MethodCost:
    """What one method costs.

    Attributes:
        method: Registry name.
        selection: What it may see, one of `featlab.evaluation.results.SELECTIONS`.
        setting: Its group in tables.
        trainable: Parameters that are updated for one person.
        parameters: Numbers in the model that predicts.
        carried: Numbers that the bundle holds for this method alone, or that it reads beside the model.
        adapt_flops: Floating-point operations of one adaptation, as `featlab.compute` counts them.
        predict_flops: Those of predicting one frame.
        iterations: Optimiser steps; the median over subjects, as the next. 0 for a closed form.
        converged: Iterations until the loss had settled, see `featlab.evaluation.convergence`; NaN where it did not.
        batch_seconds: Wall time of one step on a batch, or of all of a closed form.
        seconds: Median wall time of one adaptation.
        fastest: Of the timed adaptations.
        slowest: Likewise.
        subjects: Subjects that were adapted to.
        failures: What could not be run, and why.
    """

    method: str
    selection: str
    setting: str
    trainable: int = 0
    parameters: int = 0
    carried: int = 0
    adapt_flops: float = math.nan
    predict_flops: float = math.nan
    iterations: float = math.nan
    converged: float = math.nan
    batch_seconds: float = math.nan
    seconds: float = math.nan
    fastest: float = math.nan
    slowest: float = math.nan
    subjects: int = 0
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ComplexityReport:
    """The costs of several methods, and what they were measured on.

    Attributes:
        costs: A method each.
        subjects: Whose neutral clips were adapted to.
        frames: Frames of the shortest and of the longest of them; (0, 0) where no subject could be split.
        source_rows: Rows and features that methods with source access are given besides.
        repeat: Timed adaptations a subject.
        batch: Rows of a batch.
        device: ``cpu`` or ``cuda``.
    """

    costs: tuple[MethodCost, ...]
    subjects: tuple[str, ...]
    frames: tuple[int, int]
    source_rows: tuple[int, int]
    repeat: int
    batch: int
    device: str

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return asdict(self)

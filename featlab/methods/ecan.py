"""ECAN: the reweighted discrepancy of DETN, and a discrepancy class by class."""

from __future__ import annotations

from dataclasses import dataclass

from featlab.config.options import option
from featlab.methods.detn import DETN, DETNConfig


@dataclass(frozen=True)
class ECANConfig(DETNConfig):
    """Alignment by reweighted and conditional discrepancy; see `DETNConfig`."""

    conditional: float = option(1.0, search=(0.1, 1.0))


class ECAN(DETN):
    """Cross-entropy, and reweighted and conditional maximum mean discrepancies (Li & Deng, 2020)."""

    name = "ecan"
    title = "ECAN (Li & Deng, 2020)"
    published = (
        "DETN and, as published, the discrepancy of each class's source rows and pseudo-labelled target rows, Λ = 1, "
        "averaged over classes; a class that a batch lacks in either domain adds nothing. "
        "Kernel, pseudo-labels and steps as in DETN here."
    )
    config_type = ECANConfig

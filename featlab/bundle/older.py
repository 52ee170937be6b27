"""Bundles of an older format, as the newest says it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from featlab.model.style_bank import CarriedShare

Stored = tuple[dict[str, Any], dict[str, Tensor]]
"""What ``bundle.json`` and ``model.safetensors`` hold."""
_RETIRED = ("objective", "residual", "weight_decay", "noise", "label_smoothing")
"""Options of ``pretrain`` in format 1 that are no more."""


def upgraded(version: int, meta: dict[str, Any], tensors: dict[str, Tensor]) -> Stored:
    """Return what a bundle of format 1 or 2 holds in the newest one."""
    return _from_2(*(_from_1(meta, tensors) if version == 1 else (meta, tensors)))


def _from_1(meta: dict[str, Any], tensors: dict[str, Tensor]) -> Stored:
    """There were no carried share, one T, no people counted."""
    pretrain = {name: value for name, value in meta["config"]["pretrain"].items() if name not in _RETIRED}
    pretrain["learn_share"] = False
    config = meta["config"] | {"pretrain": pretrain}
    own = f"extras.pft.{pretrain['form']}."
    renamed = {name.replace("extras.pft.", own): tensor for name, tensor in tensors.items()}
    if "pft" in meta["extras"]:
        renamed |= {f"{own}people": torch.tensor(0), f"{own}mean_gain": torch.zeros(3)}
    return meta | {"config": config, "carried_share": asdict(CarriedShare())}, renamed


def _from_2(meta: dict[str, Any], tensors: dict[str, Tensor]) -> Stored:
    """Source people are named; the bank held each of them at every layer, and the whole configuration was there."""
    bank, config = meta["bank_subjects"], meta["config"]
    pretrain = config["pretrain"] | {"style_bank": "none" if bank is None else "people"}
    now = {
        "config": {name: config[name] for name in ("features", "head", "pair")} | {"pretrain": pretrain},
        "declared": meta.get("declared", {}),
        "bank": None if bank is None else {"people": len(bank)},
        "membership": {},
    }
    single = {"bank.people": tensors["bank.features.mean"]} if bank is not None else {}
    centres = {name: tensor.mean(dim=0) if name.startswith("bank.") else tensor for name, tensor in tensors.items()}
    return meta | now, centres | single

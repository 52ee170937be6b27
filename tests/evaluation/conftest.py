"""Two methods whose best options are known, for tuning; a spy on what is evaluated."""

from dataclasses import dataclass

import pytest
import torch

from featlab.errors import ConfigError, InputError
from featlab.evaluation import runner
from featlab.methods import AdaptedModel, Method
from featlab.methods.base import SourceAccess
from featlab.methods.registry import METHODS
from featlab.model.networks import Affine, PersonalModel


@dataclass(frozen=True)
class PlantedConfig:
    """An option of each type: only ``spoil`` matters, and ``least`` where a clip is short."""

    spoil: float = 1.0
    idle: int = 0
    least: int = 1
    words: tuple[str, ...] = ("a",)
    top: int | None = None

    def __post_init__(self) -> None:
        if self.spoil < 0:
            raise ConfigError("adapt.planted.spoil must not be negative")
        if self.idle == 2 and self.least == 2:
            raise ConfigError("adapt.planted: idle = 2 and least = 2 don't go together")


class Planted(Method):
    """Features scaled by 1 - spoil: at 1 everybody looks alike, at 0 it is the source model."""

    name = "planted"
    title = "Planted"
    setting = "Baselines"
    published = "Nowhere."
    config_type = PlantedConfig
    space = (("spoil", (0.0, 1.0)), ("idle", (0, 1, 2)))

    def adapt(self, bundle, target, *, seed=0):
        if len(target) < self.config.least:
            raise InputError(f"planted needs {self.config.least} rows, got {len(target)}")
        width = bundle.projection.components.shape[1]
        shrink = Affine((1 - self.config.spoil) * torch.eye(width), torch.zeros(width))
        return AdaptedModel(PersonalModel(bundle.projection, shrink, bundle.head))


class PlantedSource(SourceAccess):
    """The same, given source rows."""

    name = "planted-source"
    title = "Planted"
    published = "Nowhere."
    config_type = PlantedConfig
    space = Planted.space

    def fit(self, bundle, source, target, *, seed=0):
        return Planted.adapt(self, bundle, target)


@pytest.fixture
def planted(monkeypatch):
    """`Planted`; it and `PlantedSource` are registered."""
    for method in (Planted, PlantedSource):
        monkeypatch.setitem(METHODS.found, method.name, method)
    return Planted


@pytest.fixture
def ran(monkeypatch):
    """(subjects, source subjects, methods) of every evaluation from here on."""
    seen, real = [], runner.evaluate_subject

    def spy(bundle, table, methods, **options):
        sources = {name for name in table.subjects if name in bundle.source_subjects}
        seen.append((table.subject_names_present(), sources, methods))
        return real(bundle, table, methods, **options)

    monkeypatch.setattr(runner, "evaluate_subject", spy)
    return seen

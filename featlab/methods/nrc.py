"""NRC: rows predict what their neighbours in the bottleneck space do, mutual neighbours above all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.config.options import option
from featlab.methods.base import AdaptedModel, Method
from featlab.methods.fit import Rates, SGDConfig, fit_sgd
from featlab.methods.losses.neighbours import WEAK_AFFINITY, NeighbourBank
from featlab.methods.losses.target import marginal_entropy, neighbour_agreement
from featlab.methods.student import make_student, ordered_features
from featlab.model.training import Terms
from featlab.protocol.splits import Target


@dataclass(frozen=True)
class NRCConfig(SGDConfig):
    """Neighbourhood reciprocity clustering. No row has more neighbours than there are others."""

    epochs: int = option(40, search=(15, 40))
    lr: float = option(1e-3, search=(3e-4, 1e-3, 3e-3))
    weight_decay: float = 5e-4
    decay: bool = False
    neighbours: int = option(3, "K, neighbours of a row, in the first half of the epochs.", minimum=1, search=(2, 3))
    expanded: int = option(2, "M, neighbours of a neighbour, in the first half.", minimum=1)
    late_neighbours: int = option(5, "K in the second half.", minimum=1)
    late_expanded: int = option(4, "M in the second half.", minimum=1)

    def sizes(self, epoch: int) -> tuple[int, int]:
        """Return K and M in an epoch, counted from 0."""
        late = 2 * epoch >= self.epochs
        return (self.late_neighbours, self.late_expanded) if late else (self.neighbours, self.expanded)


class NRC(Method):
    """Neighbourhood reciprocity clustering (Yang, van de Weijer, Herranz & Jui, NeurIPS 2021)."""

    name = "nrc"
    title = "NRC (Yang et al., 2021)"
    setting = "SFDA (model-based)"
    published = (
        "Objective, neighbourhoods, optimiser, constant rate and epochs of the Office-Home experiments, BatchNorm in "
        "training mode; B and C at the full rate. The affinity is the paper's, 1 for mutual neighbours and 0.1 for "
        "others. A row is left out of its own neighbours by its number, not by its rank, which counts when frames are "
        "equal; the last iterate is taken. Analogue: B and C are trained on cached features, the backbone is not "
        "(trunk = adapter puts a residual MLP on features in its place), without image augmentation."
    )
    config_type = NRCConfig
    supports_single_class = False
    updates = ("translator", "bottleneck", "classifier")

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C'(B'(f))."""
        self.check(bundle, target)
        features = ordered_features(bundle, target)
        student = make_student(bundle, self.config.trunk, seed)
        if len(features) < 2:
            return AdaptedModel(student.model(bundle), warnings=("one row has no neighbour: nothing was learnt",))
        with student.evaluating():
            z = student.bottleneck(features)
            bank = NeighbourBank.of(z, torch.softmax(student.head.classify(z), dim=1))
        sizes = self.config.sizes(0)

        def grow(epoch: int) -> None:
            nonlocal sizes
            sizes = self.config.sizes(epoch)

        def losses(rows: Tensor) -> Terms:
            z = student.bottleneck(features[rows])
            p = torch.softmax(student.head.classify(z), dim=1)
            bank.renew(rows, z, p)
            around = bank.neighbourhood(rows, *sizes)
            near, beyond = bank.scores[around.near], bank.scores[around.expanded.flatten(1)]
            return {
                "neighbours": neighbour_agreement(p, near, around.affinity),
                "expanded neighbours": neighbour_agreement(p, beyond, WEAK_AFFINITY),
                "diversity": -marginal_entropy(p),
            }

        rates = Rates(classifier=1.0)
        fit = fit_sgd(student, len(features), self.config, losses, seed=seed, rates=rates, on_epoch=grow)
        return AdaptedModel(student.model(bundle), **fit.summary())

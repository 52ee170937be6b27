"""SFDA-IT: a translator that gives the target's rows the source's batch statistics; B and C are not touched.

Its loop over batches is the one that SFIT, of the same authors, trains its generator with too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import half_cosine, torch_generator
from featlab.config.options import Options, option
from featlab.methods.base import Method, ordered_features
from featlab.methods.fit import new_adapter
from featlab.model.networks import AdaptedModel, PersonalModel, Translator
from featlab.model.style_bank import SourceRows
from featlab.model.training import Adam, Fit, Phase, Terms, endless_batches, train
from featlab.protocol.splits import Target

LAYERS = ("features", "bottleneck")
"""Where statistics are matched: the translated features, and the input of B's BatchNorm."""
LEAST_VARIANCE = 1e-12
"""Inside the root of a standard deviation, whose gradient is infinite at 0."""


@dataclass(frozen=True)
class GeneratorConfig(Options):
    """Training of a generator G on a target's rows: Adam, a cosine down to zero, the last iterate.

    Steps are counted, not epochs: a person's rows make a few batches, where the published data sets make thousands.
    """

    iterations: int = option(500, "Steps; 0 leaves the source model as it is.", minimum=0, search=(200, 500, 1000))
    batch: int = option(64, "Rows in a step.", minimum=2)
    lr: float = option(3e-4, "Learning rate at the start.", minimum=0, search=(3e-4, 1e-3, 3e-3))
    hidden: int = option(0, "Width of G's hidden layer; 0 takes the width of the features.", minimum=0)


def fit_generator(
    generator: Translator,
    rows: int,
    config: GeneratorConfig,
    losses: Callable[[Tensor], Terms],
    *,
    seed: int,
    minimum: int = 1,
) -> Fit:
    """Minimise a loss over batches of target rows, in G alone."""
    trained = [*generator.first.parameters(), *generator.last.parameters()]
    total = config.iterations if rows >= minimum else 0
    random = torch_generator(seed, "generator batches")
    fit = train(
        [Phase(Adam(trained, lr=config.lr), losses)],
        islice(endless_batches(rows, min(config.batch, rows), minimum, random), total),
        advice=f"lower {config.key('lr')} ({config.lr})",
        rate=lambda step: half_cosine(step, total),
    )
    generator.requires_grad_(False)
    return fit


def batch_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of (n, D) rows, n ≥ 2, both (D,); unbiased, as BatchNorm tracks it."""
    return values.mean(dim=0), values.var(dim=0).clamp_min(LEAST_VARIANCE).sqrt()


def statistics_loss(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return MSE(μ, mean) + MSE(σ, std) between a batch's statistics and the source's at one layer."""
    ours, spread = batch_statistics(values)
    return F.mse_loss(ours, mean) + F.mse_loss(spread, std)


@dataclass(frozen=True)
class SFDAITConfig(GeneratorConfig):
    """Statistics of the source, content of the target; see `GeneratorConfig`."""

    layers: tuple[str, ...] = option(
        LAYERS,
        "Where statistics are matched: the `features` that G gives, the `bottleneck` before B's BatchNorm.",
        choices=LAYERS,
    )
    style: float = option(1.0, "Weight of the statistics, averaged over layers.", minimum=0)
    content: float = option(
        1.0, "Weight of the L1 distance between B's outputs with and without G.", minimum=0, search=(0.1, 1.0, 10.0)
    )


class SFDAIT(Method):
    """Source-free image translation to the statistics that BatchNorm stored (Hou & Zheng, 2021a, arXiv 2008.07514)."""

    name = "sfda-it"
    published = (
        "As published: batch means and standard deviations at the input of BatchNorm layers are drawn to the stored "
        "ones by a mean squared error, the content term is an L1 distance of features, both weigh 1 (the code's "
        "ratios; the paper's weights and epochs could not be checked), and the translated rows meet the unchanged "
        "source model. Analogue: G is a residual MLP on cached features that starts at the identity, where an image "
        "network was; B has one BatchNorm, so statistics of the features themselves, prepared at the source, stand in "
        "for the early layers. Rate and batch are those of SFIT on digits, for 500 steps. On a neutral clip it moves "
        "neutral rows to the mean of all classes."
    )
    config_type = SFDAITConfig
    carries = "mean (D) and standard deviation (D) of all source rows' features"

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return the mean and the standard deviation of the source rows' features, both (D,)."""
        mean, std = batch_statistics(source.features)
        return {"mean": mean, "std": std}

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B(G(f)))."""
        self.check(bundle, target)
        config, head = self.config, bundle.head
        features = ordered_features(bundle, target)
        generator = new_adapter(bundle, seed, config.hidden)
        stored = {layer: self._stored(bundle, layer) for layer in config.layers}
        with torch.no_grad():
            content = head.bottleneck(features)

        def losses(rows: Tensor) -> Terms:
            translated = generator(features[rows])
            before = head.linear(translated)
            values = {"features": translated, "bottleneck": before}
            style = torch.stack([statistics_loss(values[layer], *stored[layer]) for layer in config.layers]).mean()
            return {
                "style": config.style * style,
                "content": config.content * F.l1_loss(head.norm(before), content[rows]),
            }

        fit = fit_generator(generator, len(features), config, losses, seed=seed, minimum=2)
        alone = config.iterations > 0 and len(features) == 1
        warnings = ("one row has no standard deviation: nothing was learnt",) if alone else ()
        model = PersonalModel(bundle.projection, generator, head)
        return AdaptedModel(model, fit.iterations, fit.trainable, fit.history, warnings)

    def _stored(self, bundle: Bundle, layer: str) -> tuple[Tensor, Tensor]:
        """Return the source's mean and standard deviation at a layer."""
        norm = bundle.head.norm
        if layer == "features":
            extras = bundle.extras[self.name]
            return extras["mean"].to(norm.weight.device), extras["std"].to(norm.weight.device)
        assert norm.running_mean is not None  # BatchNorm1d tracks statistics unless told not to
        assert norm.running_var is not None
        return norm.running_mean, norm.running_var.sqrt()

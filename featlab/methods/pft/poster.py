"""The losses of the SFDA-PFT poster as written, at the source and at the target, on cached features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import seeded, torch_generator
from featlab.config.options import option
from featlab.errors import InputError
from featlab.methods.base import Method
from featlab.methods.pft.method import TranslatorAdaptation, adapt_translator
from featlab.model.losses import expression_loss, layer_values, style_statistics
from featlab.model.networks import AdaptedModel, SourceHead, Translator, translator_from_state
from featlab.model.style_bank import SourceRows
from featlab.model.training import Adam, History, Phase, shuffled_batches, train
from featlab.protocol.splits import Target

EPOCHS, BATCH, RATE = 100, 64, 1e-4
PATIENCE, STOP = 3, 10
"""Epochs without a lower loss after which the learning rate is halved, and after which training ends."""


@dataclass(frozen=True)
class PosterConfig(TranslatorAdaptation):
    """The poster's target stage: frame consistency and KL to the source prediction, no style term."""

    iterations: int = option(25, search=(25, 100))
    weighting: str = "mean"
    optimiser: str = "adam"
    lr: float = option(1e-4, search=(1e-4, 1e-3, 1e-2))
    batch: int = 32
    update: str = option("last", search=("last", "all"))
    style: float = 0.0
    consistency: float = 1.0
    anchor: float = 1.0


class PosterPFT(Method):
    """The seeds' objective as written, at the source and at the target."""

    name = "pft-poster"
    published = (
        "T = Linear, ReLU, Linear, as wide as the features. At the source L_style (squared norms of the differences of "
        "μ and σ, at T's output and the bottleneck) + L_expr on pairs: Adam, learning rate 1e-4, 100 epochs of "
        "batches of 64, halved after 3 epochs without progress, ended after 10. At the target prediction consistency "
        "between two frames + L_expr, 25 steps, C fixed, the last layer. Departures: features are cached, so that L_CE "
        "trains B and C alone and T is one layer after the backbone; T's output is added to its input and is 0 at the "
        "start, since on a few thousand rows a T from random weights does not get back to the source model; μ and σ "
        "are those of a batch; progress is that of the training loss. The poster gives no loss weights: all are 1."
    )
    config_type = PosterConfig
    carries = "weights of a T pretrained by the poster's losses"

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return a T pretrained by the poster's losses."""
        return dict(_pretrained(source, bundle.head, bundle.seed).state_dict())

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B(T'(f))), T' adapted from the poster's T."""
        self.check(bundle, target)
        translator = translator_from_state(bundle.extras[self.name])
        return adapt_translator(bundle, translator, target, self.config, seed=seed)


def _pretrained(source: SourceRows, head: SourceHead, seed: int) -> Translator:
    assert source.pairs is not None  # made where `reads_pairs` says so
    rows, references = torch.from_numpy(source.pairs.row), torch.from_numpy(source.pairs.reference)
    if len(rows) < 2:
        raise InputError(f"pft-poster needs 2 pairs or more, got {len(rows)}; use more source subjects")
    dim = source.features.shape[1]
    with seeded(seed, "poster"):
        translator = Translator(dim, dim)
    random = torch_generator(seed, "poster")
    trained = [parameter for name, parameter in translator.named_parameters() if name != "offset"]
    batch = min(BATCH, len(rows))
    history: History = []
    rate = 1.0

    def batches() -> Iterator[Tensor]:
        nonlocal rate
        best, worse, still = float("inf"), 0, 0
        for _ in range(EPOCHS):
            start = len(history)
            yield from shuffled_batches(len(rows), batch, batch, random)
            loss = sum(entry["loss"] for entry in history[start:]) / (len(history) - start)
            worse, still = (0, 0) if loss < best else (worse + 1, still + 1)
            best = min(best, loss)
            if worse > PATIENCE:
                rate, worse = rate / 2, 0
            if still >= STOP:
                return

    def losses(picked: Tensor) -> dict[str, Tensor]:
        features = source.features[rows[picked]]
        translated = translator(features)
        style = poster_style(translated, source.features[references[picked]], head)
        return {"style": style, "expression": expression_loss(head(features), head(translated))}

    train(
        [Phase(Adam(trained, lr=RATE), losses)],
        batches(),
        name="pretraining by the poster's losses",
        advice="check the embeddings for outliers",
        rate=lambda step: rate,
        history=history,
    )
    return translator.eval().requires_grad_(False)


def poster_style(translated: Tensor, references: Tensor, head: SourceHead) -> Tensor:
    """Return Σ_l ‖μ − μ_ref‖² + ‖σ − σ_ref‖² over T's output and the bottleneck, of two batches of rows."""
    total = translated.new_zeros(())
    for layer in ("embedding", "bottleneck"):
        ours, theirs = (style_statistics(layer_values(layer, rows, head)) for rows in (translated, references))
        total = total + sum(((a - b) ** 2).sum() for a, b in zip(ours, theirs, strict=True))
    return total

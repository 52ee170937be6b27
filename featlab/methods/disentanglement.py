"""Networks that take a feature apart into identity and expression and put it together again, and their losses.

After DSFDA (Sharafi et al. 2025), whose networks are those of TDGAN (Xie et al. 2021): a row generated from one row's
identity and another's expression should be classified as both, and swapping back should give the rows again. The
discriminators and the generator (encoders and decoder) learn in turn. There images are generated; here features.

Shapes: features (n, D); expression codes (n, H), of B; identity codes (n, 128); noise (n, 256).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featlab.compute import seeded
from featlab.model.networks import SourceHead
from featlab.model.training import Adam, Fit, Phase, Terms, train

IDENTITY, NOISE, HIDDEN = 128, 256, 128
"""Widths: of an identity code, of the decoder's noise (as published), of every hidden layer."""
FRESH = 10.0
"""How many times faster networks learn that start from nothing."""


class Discriminator(nn.Module):
    """Classifies features: (n, D) → logits over some classes."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, HIDDEN)
        self.last = nn.Linear(HIDDEN, classes)

    def hidden(self, features: Tensor) -> Tensor:
        """Return the (n, 128) values of the hidden layer."""
        return F.leaky_relu(self.first(features), 0.2)

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, classes) logits."""
        logits: Tensor = self.last(self.hidden(features))
        return logits


@dataclass(frozen=True, eq=False)
class Swap:
    """Rows that were generated, from what, and what is read from them."""

    rows: Tensor  # (n, D), x_a: whose identity the generated rows have.
    own: Tensor  # (n, H), the expression codes of these rows.
    identity: Tensor  # (n,) int64, whose rows they are.
    code: Tensor  # (n, H), z_b: which expression the generated rows have.
    expression: Tensor  # (n,) int64, the class of that.
    reference: Tensor | None  # (n, D), x_b, the rows that ``code`` was read from; ``None`` for codes that were drawn.
    generated: Tensor  # (n, D), x_f.
    recovered: Tensor  # (n, H), the expression codes of the generated rows.


class Disentangler(nn.Module):
    """Identity encoder, decoder and the two discriminators; the expression encoder is B."""

    def __init__(self, dim: int, code: int, classes: int, identities: int) -> None:
        super().__init__()
        self.identity_encoder = _mlp(dim, IDENTITY)
        self.decoder = _mlp(code + IDENTITY + NOISE, dim)
        # The last identity is that of generated rows.
        self.identity_discriminator = Discriminator(dim, identities + 1)
        self.expression_discriminator = Discriminator(dim, classes)

    def generate(self, rows: Tensor, code: Tensor, random: torch.Generator) -> Tensor:
        """Return (n, D) rows with the identity of (n, D) ``rows`` and the expression of (n, H) ``code``."""
        noise = torch.randn(len(rows), NOISE, generator=random).to(rows.device)
        generated: Tensor = self.decoder(torch.cat([code, self.identity_encoder(rows), noise], dim=1))
        return generated


def _mlp(dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width))


def new_disentangler(head: SourceHead, identities: int, seed: int) -> Disentangler:
    """Return fresh networks for the features and classes of a source model; the global random state is left alone."""
    linear, classes = head.linear, len(head.classifier.bias)
    with seeded(seed, "disentangler"):
        return Disentangler(linear.in_features, linear.out_features, classes, identities)


def generator_losses(networks: Disentangler, swap: Swap, random: torch.Generator) -> dict[str, Tensor]:
    """Return what the encoders and the decoder minimise (TDGAN's losses with DSFDA's weights).

    Identity cycle: x_a from the identity of x_f and its own expression. Expression cycle: x_b from its own identity and
    the expression of x_f; a code that was drawn belongs to no row, so there the code itself must come back.
    """
    discriminator = networks.identity_discriminator
    back = networks.generate(swap.generated, swap.own, random)
    matching = F.mse_loss(discriminator.hidden(swap.generated), discriminator.hidden(swap.rows).detach())
    expression = F.cross_entropy(networks.expression_discriminator(swap.generated), swap.expression)
    if swap.reference is None:
        cycle = F.l1_loss(swap.recovered, swap.code)
    else:
        cycle = F.l1_loss(networks.generate(swap.reference, swap.recovered, random), swap.reference)
    return {
        "identity": 0.2 * F.cross_entropy(discriminator(swap.generated), swap.identity),
        "expression": 0.8 * expression,
        "feature matching": matching,
        "identity cycle": 5 * F.l1_loss(back, swap.rows),
        "expression cycle": 5 * cycle,
    }


def identity_discriminator_loss(discriminator: Discriminator, swap: Swap) -> Tensor:
    """Return the cross-entropy of real rows with their people plus that of generated rows with the last class."""
    fake = torch.full_like(swap.identity, discriminator.last.out_features - 1)
    return F.cross_entropy(discriminator(swap.rows), swap.identity) + F.cross_entropy(
        discriminator(swap.generated.detach()), fake
    )


def adam(lr: float, known: Sequence[nn.Module] = (), fresh: Sequence[nn.Module] = ()) -> Adam:
    """Return the optimiser of one side of the game; modules that start fresh learn ten times as fast."""
    return Adam(
        {"params": [value for module in modules for value in module.parameters()], "lr": rate}
        for modules, rate in ((known, lr), (fresh, FRESH * lr))
    )


def take_turns(
    networks: Disentangler,
    batches: Iterable[Tensor],
    features: Tensor,
    labels: Tensor,
    identity: Tensor,
    *,
    encode: Callable[[Tensor], Tensor],
    draw: Callable[[int], tuple[Tensor, Tensor]] | None = None,
    terms: Callable[[Tensor, Swap], Terms],
    discriminators: Adam,
    generator: Adam,
    random: torch.Generator,
    advice: str,
) -> Fit:
    """Let discriminators and generator take a step each on every batch of rows, given by their numbers.

    ``encode`` gives expression codes; ``draw`` as many codes and their classes, where those of another row of the batch
    are not taken; ``terms`` what discriminators minimise beside the loss of the identity.
    """

    def swapped(rows: Tensor) -> Swap:
        person, own = features[rows], encode(features[rows])
        if draw is None:
            other = torch.randperm(len(rows), generator=random)
            code, expression, reference = own[other], labels[rows][other], person[other]
        else:
            (code, expression), reference = draw(len(rows)), None
        generated = networks.generate(person, code, random)
        return Swap(person, own, identity[rows], code, expression, reference, generated, encode(generated))

    def discriminator_losses(made: tuple[Tensor, Swap]) -> Terms:
        judge = identity_discriminator_loss(networks.identity_discriminator, made[1])
        return {"identity discriminator": judge, **terms(*made)}

    # The generator's loss leaves gradients in the discriminators on its way: `train` drops them before their own.
    phases = [
        Phase(discriminators, discriminator_losses),
        Phase(generator, lambda made: generator_losses(networks, made[1], random)),
    ]
    return train(phases, ((rows, swapped(rows)) for rows in batches), name="the generator", advice=advice)

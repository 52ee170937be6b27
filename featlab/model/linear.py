"""The linear part of T: one convex problem over episodes, solved to its end.

C∘B is affine in evaluation mode: logits = V f + v. For a linear T the logits of translated features are W g + w with
g = f + offset, and any W, w can be had without touching B or C: T(g) = g + P ((W − V) g + w − v), where P undoes V up
to what softmax doesn't see (V P = I on logits whose mean is 0). So W, w are fitted as a logistic regression would be,
on rows that are seen through other neutral clips of their subject, and T carries the difference to the source head in
K directions of the features. That is a hidden layer of 2K units, since x = relu(x) − relu(−x).

So V cancels out of this part: alone, it classifies as a logistic regression on aligned features does, whatever B and C
are. The MLP part (`featlab.model.mlp`) starts at the identity and keeps C in charge.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.config.sections import PretrainConfig
from featlab.model.networks import SourceHead, Translator, head_map
from featlab.model.style_bank import SourceRows
from featlab.model.training import History, Terms, minimise
from featlab.seeding import blank, torch_generator

MAX_ITERATIONS = 500
RANK_TOLERANCE = 1e-6
"""Smallest singular value of V, relative to its largest, along which T moves features."""


def fit_linear_translator(
    source: SourceRows, head: SourceHead, config: PretrainConfig, *, share: float = 1.0, seed: int
) -> tuple[Translator, History]:
    """Fit a linear T.

    Minimises, over W (K, D) and w (K,), the weighted mean over episodes of CE(W g + w, y), plus penalty / 2M · ‖W‖²
    for M source videos: the frames of one video are one piece of evidence, not many. Rows count as often as the
    protocol would test them.

    Args:
        source: Source rows; unlabelled ones are left out.
        head: B and C, frozen.
        config: ``penalty`` and ``episodes`` are read.
        share: The carried share of a person's offset.
        seed: Of the episodes.

    Returns:
        T in evaluation mode, without gradients and with a zero offset, and the loss terms of every iteration.

    Raises:
        InputError: No labelled row of a subject with neutral rows, or features that are not finite.
    """
    rows, clips = source.episodic(), source.clips
    random = torch_generator(seed, "linear")
    seen = torch.cat([clips.seen(source.features, rows, share, random) for _ in range(config.episodes)])
    weight, bias = head_map(head)
    # From the source head on: along directions that no row decides, it stays.
    fitted = [weight.clone(), bias.clone()]
    history = fit_classifier(
        fitted,
        seen,
        source.labels[rows].repeat(config.episodes),
        clips.tested_share(rows).repeat(config.episodes),
        config.penalty / len(torch.unique(clips.row_video[rows])),
    )
    return linear_translator(head, *fitted), history


def fit_classifier(
    fitted: list[Tensor],
    features: Tensor,
    labels: Tensor,
    counts: Tensor,
    penalty: float,
    iterations: int = MAX_ITERATIONS,
) -> History:
    """Fit a logistic regression in place.

    Args:
        fitted: Weight (D, K) and bias (K,) to start from, float64.
        features: (n, D).
        labels: (n,) codes.
        counts: (n,) how much each row counts.
        penalty: Of half the squared weights.
        iterations: Most iterations.

    Returns:
        The loss terms of every evaluation.
    """
    features, counts = features.double(), counts.double() / counts.sum()
    for tensor in fitted:
        tensor.requires_grad_(True)

    def losses() -> Terms:
        entropy = F.cross_entropy(features @ fitted[0] + fitted[1], labels, reduction="none")
        return {"penalty": penalty / 2 * (fitted[0] ** 2).sum(), "classification": (counts * entropy).sum()}

    message = "pretraining diverged: the source features or the source head are not finite"
    _, history = minimise(
        fitted, losses, message=message, iterations=iterations, tolerance_grad=1e-6, tolerance_change=1e-10
    )
    for tensor in fitted:
        tensor.requires_grad_(False)
    return history


def linear_translator(head: SourceHead, weight: Tensor, bias: Tensor) -> Translator:
    """Return the T for which C(B(T(g))) has the class probabilities softmax(g · weight + bias)."""
    source_weight, source_bias = head_map(head)
    change, constant = weight - source_weight, bias - source_bias
    # What all logits have in common changes no probability.
    change, constant = change - change.mean(dim=1, keepdim=True), constant - constant.mean()
    told_apart = source_weight - source_weight.mean(dim=1, keepdim=True)
    undo = torch.linalg.pinv(told_apart, rtol=RANK_TOLERANCE)
    dim, classes = weight.shape
    translator = blank(lambda: Translator(dim, 2 * classes))
    state = {
        "first.weight": torch.cat([change.T, -change.T]),
        "first.bias": torch.cat([constant, -constant]),
        "last.weight": torch.cat([undo.T, -undo.T], dim=1),
    }
    for name, values in state.items():
        translator.get_parameter(name).data.copy_(values)
    return translator.eval().requires_grad_(False)

"""Pretrain T as a linear map: one convex problem over the episodes of `anchored`, solved to its end.

C∘B is affine in evaluation mode: logits = V f + v. For a linear T the logits of translated features are W g + w with
g = f + offset, and any W, w can be had without touching B or C: T(g) = g + P ((W − V) g + w − v), where P undoes V up
to what softmax doesn't see (V P = I on logits whose mean is 0). So W, w are fitted as a logistic regression would be,
on rows that are seen through other neutral clips of their subject, and T carries the difference to the source head in
K directions of the features. That is a hidden layer of 2K units in the seeds' MLP, since x = relu(x) − relu(−x).

Against the MLP it is deterministic, takes a fraction of a second and is at least as good on source people who were held
out (docs/why.md has the comparison). What it can't do is bend.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.config.sections import PretrainConfig
from featlab.errors import ConfigError, InputError
from featlab.model.networks import SourceHead, Translator, head_map
from featlab.model.style_bank import NeutralClips
from featlab.model.training import History, Terms, minimise
from featlab.seeding import blank, torch_generator

MAX_ITERATIONS = 500
RANK_TOLERANCE = 1e-6
"""Smallest singular value of V, relative to its largest, along which T moves features."""


def fit_linear_translator(
    features: Tensor,
    labels: Tensor,
    clips: NeutralClips,
    head: SourceHead,
    config: PretrainConfig,
    *,
    seed: int,
) -> tuple[Translator, History]:
    """Fit a linear T.

    Minimises, over W (K, D) and w (K,), the weighted mean over episodes of

        classification · CE(W g + w, y) + expression · KL(softmax(V f + v) ‖ softmax(W g + w)) + penalty / 2M · ‖W‖²

    for M source videos: the frames of one video are one piece of evidence, not many. Rows count as often as the
    protocol would test them.

    Args:
        features: (N, D) float32 source rows.
        labels: (N,) codes; rows of -1 are left out.
        clips: Neutral clips of the source subjects.
        head: B and C, frozen.
        config: ``penalty``, ``episodes``, ``classification`` and ``expression`` are read.
        seed: Of the episodes.

    Returns:
        T in evaluation mode, without gradients and with a zero offset, and the loss terms of every iteration.

    Raises:
        ConfigError: No weight on either loss.
        InputError: No labelled row of a subject with neutral rows, or features that are not finite.
    """
    if not (config.classification or config.expression):
        raise ConfigError(
            "a linear T learns from pretrain.classification or pretrain.expression; give one a weight, or set "
            "pretrain.form = mlp"
        )
    rows = torch.nonzero((clips.row_subject >= 0) & (labels >= 0)).squeeze(1)
    if len(rows) < 2:
        raise InputError("no source subject has neutral rows, and `anchored` pretraining needs them; label them")
    random = torch_generator(seed, "linear")
    centre = clips.subject_mean().mean(dim=0)
    seen = torch.cat([features[rows] + centre - clips.episode_mean(rows, random) for _ in range(config.episodes)])
    seen, wanted = seen.double(), labels[rows].repeat(config.episodes)
    share = clips.tested_share(rows).double().repeat(config.episodes)
    share = share / share.sum()
    weight, bias = head_map(head)
    with torch.no_grad():
        reference = torch.log_softmax(features[rows].double() @ weight + bias, dim=1).repeat(config.episodes, 1)
    videos = len(torch.unique(clips.row_video[rows]))
    # From the source head on: along directions that no row decides, it stays.
    fitted = [weight.clone().requires_grad_(True), bias.clone().requires_grad_(True)]

    def losses() -> Terms:
        logits = seen @ fitted[0] + fitted[1]
        terms = {"penalty": config.penalty / (2 * videos) * (fitted[0] ** 2).sum()}
        if config.classification:
            entropy = F.cross_entropy(logits, wanted, reduction="none")
            terms["classification"] = config.classification * (share * entropy).sum()
        if config.expression:
            each = F.kl_div(torch.log_softmax(logits, dim=1), reference, reduction="none", log_target=True).sum(dim=1)
            terms["expression"] = config.expression * (share * each).sum()
        return terms

    message = "pretraining diverged: the source features or the source head are not finite"
    _, history = minimise(
        fitted, losses, message=message, iterations=MAX_ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-10
    )
    return linear_translator(head, fitted[0].detach(), fitted[1].detach()), history


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

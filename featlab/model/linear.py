"""The carried share, and the linear part of T: one convex problem over episodes, solved to its end.

C∘B is affine in evaluation mode: logits = V f + v. For a linear T the logits of translated features are W g + w with
g = f + offset, and any W, w can be had without touching B or C: T(g) = g + P ((W − V) g + w − v), where P undoes V up
to what softmax doesn't see (V P = I on logits whose mean is 0). So W, w are fitted as a logistic regression would be,
on rows that are seen through other neutral clips of their subject, and T carries the difference to the source head in
K directions of the features. That is a hidden layer of 2K units, since x = relu(x) − relu(−x).

So V cancels out of this part: alone, it classifies as a logistic regression on aligned features does, whatever B and C
are. The MLP part (`featlab.model.pretrain`) starts at the identity and keeps C in charge.

The carried share is how much of a person's offset at rest is still there in their expressions: 1 where a face is at
every moment the common face plus what is its own; 0 where a resting face says nothing of the expressions. It is chosen
on held-out source people: for each candidate such a regression is fitted, and of the candidates whose cross-entropy on
people who had no part in the fit can't be told from the lowest, the largest is taken. (A regression of expression
offsets on neutral offsets would be pulled down by the noise of a short clip.)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.compute import torch_generator
from featlab.config.sections import PretrainConfig
from featlab.errors import InputError
from featlab.model.networks import SourceHead, Translator, head_map, translator_from_state
from featlab.model.style_bank import CarriedShare, SourceRows
from featlab.model.training import History

MAX_ITERATIONS = 500
MEMORY, LEAST_SLOPE, LEAST_FALL = 20, 1e-6, 1e-10
"""Steps that L-BFGS remembers, and when it ends."""
RANK_TOLERANCE = 1e-6
"""Smallest singular value of V, relative to its largest, along which T moves features."""
CANDIDATES = (1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5, 0.25, 0.0)
MOST_ROWS = 100_000
"""Of more rows an even selection tells as much of the carried share, and takes no more memory."""
FOLDS = 5
LEAST_SUBJECTS = 8
"""Fewer say nothing about the next person: all of the offset is then taken."""
_ITERATIONS = 60
COLDEST, HOTTEST = 0.05, 20.0
"""Of temperatures."""


def fit_linear_translator(
    source: SourceRows, head: SourceHead, config: PretrainConfig, *, share: float = 1.0, seed: int
) -> tuple[Translator, History]:
    """Fit a linear T.

    Minimises, over W (K, D) and w (K,), the weighted mean over episodes of CE(W g + w, y), plus penalty / 2M · ‖W‖²
    for M source videos: the frames of one video are one piece of evidence, not many. Rows count as often as the
    protocol would test them. ``penalty`` and ``episodes`` of the configuration are read; the seed is that of the
    episodes, the share the carried one of a person's offset.

    Returns:
        T in evaluation mode, without gradients and with a zero offset, and the loss terms of every iteration.

    Raises:
        InputError: No labelled row of a subject with neutral rows, or features that are not finite.
    """
    rows = source.episodic()
    random = torch_generator(seed, "linear")
    seen = torch.cat([source.seen(rows, share, random) for _ in range(config.episodes)])
    weight, bias = head_map(head)
    # From the source head on: along directions that no row decides, it stays.
    fitted = [weight.clone(), bias.clone()]
    history = fit_classifier(
        fitted,
        seen,
        source.labels[rows].repeat(config.episodes),
        source.tested_share(rows).repeat(config.episodes),
        config.penalty / len(torch.unique(source.row_video[rows])),
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
    """Fit a logistic regression in place, from a weight (D, K) and a bias (K,) on, float64.

    Rows are (n, D), their labels (n,) codes, ``counts`` (n,) how much each counts; the penalty is of half the squared
    weights. Returns the loss terms of every evaluation.
    """
    features, counts, right = features.double(), counts.double() / counts.sum(), labels[:, None]
    minus, (weight, bias) = torch.full_like(right, -1, dtype=torch.float64), fitted
    history: History = []

    def losses(values: Tensor) -> tuple[float, Tensor]:
        """Return the loss and its gradient, written out: it would take longer to find."""
        weight.copy_(values[: weight.numel()].view_as(weight))
        bias.copy_(values[weight.numel() :])
        chances = torch.log_softmax(torch.addmm(bias, features, weight), dim=1)
        decay, entropy = penalty / 2 * weight.square().sum().item(), -(counts @ chances.gather(1, right)).item()
        history.append({"penalty": decay, "classification": entropy, "loss": decay + entropy})
        if not math.isfinite(decay + entropy):
            raise InputError("pretraining diverged: the source features or the source head are not finite")
        slope = chances.exp_().scatter_add_(1, right, minus).mul_(counts[:, None])
        return decay + entropy, torch.cat(
            [torch.addmm(weight, features.T, slope, beta=penalty).flatten(), slope.sum(dim=0)]
        )

    losses(minimise_convex(losses, torch.cat([weight.flatten(), bias]), iterations=iterations))
    return history


def minimise_convex(losses: Callable[[Tensor], tuple[float, Tensor]], values: Tensor, *, iterations: int) -> Tensor:
    """Return where a smooth convex loss is least, by L-BFGS with steps that are halved until they help.

    ``losses`` takes (n,) values, at first those given, and returns the loss and its gradient.
    """
    loss, slope = losses(values)
    steps: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=MEMORY)
    for _ in range(iterations):
        if slope.abs().max().item() <= LEAST_SLOPE:
            break
        way, shares = -slope, []
        for step, change, scale in reversed(steps):
            shares.append(scale * torch.dot(step, way).item())
            way.sub_(change, alpha=shares[-1])
        way *= 1 / (steps[-1][2] * torch.dot(steps[-1][1], steps[-1][1]).item()) if steps else 1 / slope.norm()
        for (step, change, scale), share in zip(steps, reversed(shares), strict=True):
            way.add_(step, alpha=share - scale * torch.dot(change, way).item())
        length, fall = 1.0, torch.dot(slope, way).item()
        before, old = loss, slope
        loss, slope = losses(values + way)
        while loss > before + 1e-4 * length * fall and length > 1e-9:
            length /= 2
            loss, slope = losses(values + length * way)
        values = values + length * way
        step, change = length * way, slope - old
        curvature = torch.dot(step, change).item()
        if curvature > 0:
            steps.append((step, change, 1 / curvature))
        if before - loss <= LEAST_FALL:
            break
    return values


def fit_temperature(sets: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the temperature with the least mean cross-entropy, each set weighing alike (Guo et al., 2017)."""
    logits, labels = (torch.cat(parts) for parts in zip(*sets, strict=True))
    logits = logits.double() - logits.gather(1, labels[:, None])
    share = torch.cat([torch.full((len(labels),), 1 / len(labels) / len(sets)) for _, labels in sets]).to(logits)

    def loss(sharpness: Tensor) -> tuple[float, Tensor]:
        """Return the loss, which is convex in 1 / temperature, and its gradient."""
        chances = torch.softmax(sharpness * logits, dim=1)
        slope = share @ (chances * logits).sum(dim=1)
        return float(share @ torch.logsumexp(sharpness * logits, dim=1)), slope[None]

    sharpness = minimise_convex(loss, torch.ones(1, dtype=torch.float64), iterations=100)
    return 1 / float(sharpness.clamp(1 / HOTTEST, 1 / COLDEST))


def linear_translator(head: SourceHead, weight: Tensor, bias: Tensor) -> Translator:
    """Return the T for which C(B(T(g))) has the class probabilities softmax(g · weight + bias)."""
    source_weight, source_bias = head_map(head)
    change, constant = weight - source_weight, bias - source_bias
    # What all logits have in common changes no probability.
    change, constant = change - change.mean(dim=1, keepdim=True), constant - constant.mean()
    told_apart = source_weight - source_weight.mean(dim=1, keepdim=True)
    undo = torch.linalg.pinv(told_apart, rtol=RANK_TOLERANCE)
    zero = torch.zeros(len(weight))
    state = {
        "offset": zero,
        "first.weight": torch.cat([change.T, -change.T]),
        "first.bias": torch.cat([constant, -constant]),
        "last.weight": torch.cat([undo.T, -undo.T], dim=1),
        "last.bias": zero,
    }
    return translator_from_state(state)


def person_folds(people: int, seed: int) -> list[Tensor]:
    """Return the places of the subjects of each fold."""
    order = torch.randperm(people, generator=torch_generator(seed, "source validation"))
    return [order[fold::FOLDS] for fold in range(min(FOLDS, people))]


def learn_share(source: SourceRows, classes: int, penalty: float, *, seed: int) -> CarriedShare:
    """Choose the carried share on held-out source subjects; 1 where fewer than `LEAST_SUBJECTS` have neutral rows.

    The penalty is of the squared weights, for one source video; the seed is that of folds and episodes.
    """
    people = len(source.subjects)
    if people < LEAST_SUBJECTS:
        return CarriedShare()
    scored: list[Tensor] = []  # (people of a fold, candidates) cross-entropy of each held-out person.
    step = -(-len(source.labels) // MOST_ROWS)
    for held_out in person_folds(people, seed):
        rest = source.without(held_out)
        train = rest.seen_rows()[::step]
        test = torch.nonzero(torch.isin(source.row_subject, held_out) & (source.labels >= 0)).squeeze(1)[::step]
        if len(torch.unique(source.labels[train])) < 2:
            continue
        _, person = torch.unique(source.row_subject[test], return_inverse=True)
        count = source.tested_share(test).double()
        # Every person weighs alike, whatever the number of their rows.
        held = int(person.max()) + 1
        count = count / torch.zeros(held).double().index_add(0, person, count)[person]
        fitted = [torch.zeros(source.features.shape[1], classes).double(), torch.zeros(classes).double()]
        videos = len(torch.unique(source.row_video[train]))
        scored.append(torch.zeros(held, len(CANDIDATES), dtype=torch.float64))
        for place, share in enumerate(CANDIDATES):
            random = torch_generator(seed, "carried share")
            seen = rest.seen(train, share, random)
            counts = source.tested_share(train)
            fit_classifier(fitted, seen, source.labels[train], counts, penalty / videos, _ITERATIONS)
            # Seen from the others' centre, as a new person would be.
            shown = source.features[test] + share * (rest.centre - source.episode_mean(test, random))
            entropy = F.cross_entropy(shown.double() @ fitted[0] + fitted[1], source.labels[test], reduction="none")
            scored[-1][:, place].index_add_(0, person, count * entropy)
    if not scored:
        return CarriedShare()
    losses = torch.cat(scored)
    return CarriedShare(CANDIDATES[largest_alike(losses)], len(losses), tuple(losses.mean(dim=0).tolist()))


def largest_alike(losses: Tensor) -> int:
    """Return the first column of (people, candidates) losses that can't be told from the best one.

    It is at most one standard error of the paired differences worse (Breiman et al., 1984): less than all of an offset
    is taken for a reason only.
    """
    worse = losses - losses[:, losses.mean(dim=0).argmin()][:, None]
    alike = worse.mean(dim=0) <= worse.std(dim=0) / len(losses) ** 0.5
    return int(alike.int().argmax())

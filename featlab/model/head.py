"""The projection from embeddings to features, and B and C on them: made of source rows only."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from featlab.compute import blank, generator, one_cycle, seeded, torch_generator
from featlab.config.sections import FeatureConfig, HeadConfig
from featlab.errors import InputError
from featlab.model.networks import Projection, SourceHead
from featlab.model.training import Adam, Heads, History, OnEpoch, Phase, Terms, batches_of_each, train

_BLOCK = 16384  # rows in float64 at once


def fit_projection(
    embeddings: NDArray[np.float32], subject: NDArray[np.int32], config: FeatureConfig, *, seed: int = 0
) -> Projection:
    """Fit the map from embeddings to features.

    The largest principal directions of all variation tell people apart, not expressions; those of the variation
    *within* people keep the expression. Features are scaled by one number, so that within subjects they have unit
    variance on average: directions keep their relative size, and noise or a learning rate means the same for every
    backbone.

    Of (N, D0) rows and each one's subject, (N,), it makes min(dim, D0, rank) features (``none``: D0, ``truncate`` and
    ``random``: min(dim, D0)). The seed is that of a random projection.

    Raises:
        InputError: Fewer than two rows, or rows that are all alike.
    """
    if len(embeddings) < 2:
        raise InputError(f"a projection needs at least 2 source rows, got {len(embeddings)}")
    mean = embeddings.mean(axis=0, dtype=np.float64)
    within = SubjectDeviations(embeddings, subject)
    if not any(np.abs(block).max() > 0 for block in within):
        raise InputError("all rows of every source subject are the same; there is nothing to learn from")
    width = embeddings.shape[1]
    wanted = config.dim or width
    if config.reduce in ("none", "truncate"):
        components = np.eye(width)[:, : wanted if config.reduce == "truncate" else width]
    elif config.reduce == "random":
        # Drawn direction by direction, so that fewer of them are the first of more.
        rng = generator("random projection", seed)
        components = rng.standard_normal((min(wanted, width), width)).T
    else:
        everyone = within if config.reduce == "within" else SubjectDeviations(embeddings, np.zeros_like(subject))
        components = _principal_directions(everyone, embeddings.shape, wanted)
    squares = sum(float(np.square(block @ components).sum()) for block in within)
    scale = np.sqrt(squares / (len(embeddings) * components.shape[1]))
    if not scale > 0:
        raise InputError("the features kept by the projection do not vary within any subject; raise features.dim")
    return Projection(
        torch.tensor(mean, dtype=torch.float32),
        torch.tensor(components / scale, dtype=torch.float32),
    )


class SubjectDeviations:
    """(N, D) rows minus their own subject's mean: a float64 block of rows at a time, as often as they are needed."""

    def __init__(self, embeddings: NDArray[np.float32], subject: NDArray[np.int32]) -> None:
        names, self.code = np.unique(subject, return_inverse=True)
        self.embeddings = embeddings
        self.means = np.zeros((len(names), embeddings.shape[1]))
        for part in self._parts():
            order = np.argsort(self.code[part], kind="stable")
            present, first = np.unique(self.code[part][order], return_index=True)
            self.means[present] += np.add.reduceat(embeddings[part][order], first, axis=0, dtype=np.float64)
        self.means /= np.bincount(self.code)[:, None]

    def _parts(self) -> Iterator[slice]:
        return (slice(first, first + _BLOCK) for first in range(0, len(self.embeddings), _BLOCK))

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        return (self.embeddings[part] - self.means[self.code[part]] for part in self._parts())


def _principal_directions(
    centred: Iterable[NDArray[np.float64]], shape: tuple[int, ...], wanted: int
) -> NDArray[np.float64]:
    """Return (D0, D) orthonormal directions, largest variance first; the same rows give the same directions."""
    rows, width = shape
    wanted = min(wanted, rows, width)
    if rows >= 10 * width:
        # From the covariance, which is far smaller than the rows.
        variance, directions = np.linalg.eigh(sum(block.T @ block for block in centred))
        variance, directions = variance[::-1][:wanted], directions[:, ::-1][:, :wanted]
        directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(wanted)])
    else:
        from sklearn.decomposition import PCA

        fitted = PCA(n_components=wanted, svd_solver="auto", random_state=0).fit(np.concatenate(list(centred)))
        variance, directions = fitted.explained_variance_, fitted.components_.T
    kept: NDArray[np.float64] = directions[:, variance > 1e-9 * variance[0]]
    return kept


def train_heads(
    features: Tensor,  # (N, D) float32, projected source rows.
    labels: Sequence[NDArray[np.int16]],  # (N,) class codes for each head; rows with -1 (unknown) are left out.
    classes: int,  # K.
    config: HeadConfig,  # No batch is larger than the fewest rows of a head.
    *,
    seed: int,  # Of initialisation, order and noise, the same for every head.
    on_epoch: OnEpoch | None = None,  # Called after each epoch of the first.
) -> list[SourceHead]:
    """Train a B and C for each labelling: AdamW, one learning-rate cycle, label smoothing, the last iterate.

    They are in evaluation mode, without gradients. Only one class among the labelled rows, a code outside [0, K), or
    labels that don't fit the rows are an InputError.
    """
    rows = [_labelled_rows(codes, len(features), classes) for codes in labels]
    targets = torch.stack([torch.from_numpy(codes.astype(np.int64)) for codes in labels]).to(features.device)
    with seeded(seed, "head"):
        first = SourceHead(features.shape[1], config.bottleneck, classes).to(features.device)
    heads = [copy.deepcopy(first) for _ in labels]
    stack = Heads(heads)
    randoms = [torch_generator(seed, "head batches") for _ in heads]
    trained = [stack.tensors[name] for name, _ in first.named_parameters()]
    optimiser = Adam(trained, lr=config.lr, weight_decay=config.weight_decay)
    batch = min(config.batch, *map(len, rows))  # a last, smaller batch is left out: BatchNorm needs its size
    steps = max(map(len, rows)) // batch
    history: History = []

    def batches() -> Iterator[Tensor]:
        for step, picked in enumerate(batches_of_each([*map(len, rows)], batch, config.epochs, randoms), 1):
            yield torch.stack([own[places] for own, places in zip(rows, picked, strict=True)])
            if on_epoch is not None and step % steps == 0:
                on_epoch(step // steps, config.epochs, float(np.mean([entry["loss"] for entry in history[-steps:]])))

    def losses(picked: Tensor) -> Terms:
        inputs = features[picked]
        if config.noise:
            noise = torch.stack([torch.randn(inputs.shape[1:], generator=random) for random in randoms])
            inputs = inputs + config.noise * noise.to(inputs.device)
        logits = stack.classify(stack.bottleneck(inputs, training=True)).flatten(0, 1)
        target = targets.gather(1, picked.to(targets.device)).flatten()
        # The sum over heads of each one's mean.
        entropy = len(heads) * F.cross_entropy(logits, target, label_smoothing=config.label_smoothing)
        return {"classification": entropy}

    train(
        [Phase(optimiser, losses)],
        batches(),
        name="the source head",
        advice=f"lower head.lr ({config.lr}), or check the embeddings for outliers",
        rate=lambda step: one_cycle(step, config.epochs * steps),
        history=history,
    )
    stack.tensors["norm.num_batches_tracked"] += len(history)
    stack.write(heads)
    return heads


def prompt_head(projection: Projection, features: Tensor, prompts: NDArray[np.float32] | None) -> SourceHead:
    """Return B and C that compare a row with texts of the classes, in place of trained ones.

    The logits are the inner products of the embedding with the (K, D0) prompts, as far as the projection keeps it. B is
    the identity, with the BatchNorm statistics of the source's (N, D) features. Without prompts it is an InputError.
    """
    if prompts is None:
        raise InputError(
            "head.classifier = prompts needs a cache with texts of its classes: extract with --backbone clip:NAME "
            "--option pooling=joint"
        )
    inverse = torch.linalg.pinv(projection.components.double())
    texts = torch.from_numpy(prompts).to(inverse)
    head = blank(lambda: SourceHead(features.shape[1], features.shape[1], len(prompts))).to(features.device)
    variance, mean = torch.var_mean(features, dim=0)
    scale = (variance + head.norm.eps).sqrt()
    state = {"running_mean": mean, "running_var": variance, "weight": scale, "bias": mean}
    head.norm.load_state_dict(state | {"num_batches_tracked": head.norm.num_batches_tracked})
    with torch.no_grad():
        nn.init.eye_(head.linear.weight)
        head.classifier.weight = (texts @ inverse.T).float()
        head.classifier.bias.copy_(texts @ projection.mean.double())
    return head.eval().requires_grad_(False)


def _labelled_rows(labels: NDArray[np.int16], rows: int, classes: int) -> Tensor:
    """Return the places of the labelled rows, and check the labels."""
    if labels.shape != (rows,) or labels.max(initial=-1) >= classes:
        raise InputError(
            f"the source head needs a label in [-1, {classes}) for each of {rows} rows, got {labels.shape} "
            f"up to {labels.max(initial=-1)}"
        )
    known = np.flatnonzero(labels >= 0)
    present = np.unique(labels[known])
    if len(present) < 2:
        raise InputError(f"the source head needs rows of at least 2 classes, got {len(present)}; label the source rows")
    return torch.from_numpy(known)

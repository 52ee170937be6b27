"""SFIT: a generator whose output, seen by the source model, says what an adapted teacher says of the original."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import run_seed
from featlab.config.options import option
from featlab.errors import InputError
from featlab.methods.base import Method, base_model, ordered_features
from featlab.methods.fit import SGDConfig, Student, bn_option, fit_sgd, new_adapter
from featlab.methods.losses.target import marginal_entropy, mean_entropy
from featlab.methods.sfda_it import GeneratorConfig, fit_generator
from featlab.methods.shot import ShotIM, ShotIMConfig
from featlab.model.losses import expression_loss
from featlab.model.networks import AdaptedModel, PersonalModel, SourceHead, Translator
from featlab.model.training import Fit, Terms
from featlab.protocol.splits import Target


def channel_relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖N(Zₛᵀ Zₛ) − N(Zₜᵀ Zₜ)‖²_F / H, where N scales every row of a Gram matrix to length 1 (equation 5).

    There it is taken over the positions of an image's feature map. A feature vector has none: here, over the rows of a
    batch. The two other losses are variants in the authors' code.
    """
    return _gram_difference(student.T, teacher.detach().T)


def batch_relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖N(Zₛ Zₛᵀ) − N(Zₜ Zₜᵀ)‖²_F / n: which rows of the batch resemble each other (n × n).

    Blind to the scale and to a rotation of either side.
    """
    return _gram_difference(student, teacher.detach())


def vector_relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of ‖N(s sᵀ) − N(t tᵀ)‖²_F / H, for the features s and t of one row.

    The i-th row of N(s sᵀ) is sign(sᵢ) s / ‖s‖, so that the value is 2 − 2 cos(s, t) · mean_i sign(sᵢ tᵢ) when no
    feature is 0, and no H × H matrix is needed. Blind to the scale and to the sign of either side.
    """
    ours, theirs = student.sign(), teacher.detach().sign()
    cosine = F.cosine_similarity(student, teacher.detach(), dim=1)
    # A feature of 0 is a row of zeros in the outer product: it has no length to add.
    lengths = (ours.abs() + theirs.abs()).mean(dim=1)
    return (lengths - 2 * cosine * (ours * theirs).mean(dim=1)).mean()


RELATION_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gram": channel_relation_loss,
    "batch": batch_relation_loss,
    "1d": vector_relation_loss,
}
"""By the name of the option."""


def _gram_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of the squared distance between the scaled rows of two Gram matrices."""
    ours, theirs = (F.normalize(values @ values.T, dim=1) for values in (student, teacher))
    return (ours - theirs).square().sum(dim=1).mean()


@dataclass(frozen=True)
class SFITConfig(GeneratorConfig):
    """Knowledge of a teacher, made visible by a generator; see `GeneratorConfig`."""

    knowledge: float = option(
        1.0, "Weight of KL / K (as published) from the teacher to the source model on translated rows.", minimum=0
    )
    relation: str = option(
        "gram",
        "What is compared between the bottlenecks: `gram` (channels, over the batch), `batch` (rows) or "
        "`1d` (channels of every single row).",
        choices=tuple(RELATION_LOSSES),
    )
    relation_weight: float = option(1.0, "Weight of that comparison.", minimum=0)
    teacher_epochs: int = option(15, "Passes of SHOT-IM over the target rows, which makes the teacher.", minimum=0)
    teacher_lr: float = option(1e-2, "Learning rate of B in it.", minimum=0)
    bn_mode: str = bn_option("of the teacher in its training")


@dataclass(frozen=True, eq=False)
class _Translation:
    """The first two stages: the teacher's B and C, G, and what their fits did."""

    features: Tensor
    teacher: SourceHead
    generator: Translator
    fits: tuple[AdaptedModel | Fit, ...]


class SFIT(Method):
    """Source-free image translation (Hou & Zheng, CVPR 2021b): what adaptation learnt, as a translation of the rows.

    The teacher is the source model adapted by SHOT-IM; G is trained so that the frozen source model on G(f) agrees with
    the frozen teacher on f; prediction is by the source model on G(f).
    """

    name = "sfit"
    published = (
        "As published: a SHOT-IM teacher, KL with the factor 1/K of the code plus the channel relation, both weigh 1, "
        "Adam 3e-4 with a cosine, batches of 64 (its settings for digits). Analogue: 500 steps, not epochs, because a "
        "person's rows make few batches. G is a residual MLP on cached features; it starts at the identity, so the "
        "stage that trains an image network to copy its input has nothing to do and is left out. A feature vector has "
        "no positions: channels are related over the rows of a batch; the code's two other relations are options. On a "
        "neutral clip G can only copy what SHOT-IM does to the teacher there."
    )
    config_type = SFITConfig

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return what the stages after the translation make of it."""
        self.check(bundle, target)
        if not self.config.iterations:
            return AdaptedModel(base_model(bundle))
        return self.finish(bundle, _translate(bundle, target, self.config, seed), seed)

    def finish(self, bundle: Bundle, stages: _Translation, seed: int) -> AdaptedModel:
        """Return C(B(G(f)))."""
        return _adapted(PersonalModel(bundle.projection, stages.generator, bundle.head), stages.fits)


@dataclass(frozen=True)
class RetrainedSFITConfig(SFITConfig):
    """SFIT with a last stage that trains the teacher on; see `SFITConfig`."""

    iterations: int = option(500, search=())
    lr: float = option(3e-4, search=())
    retrain_epochs: int = option(
        30,
        "Passes of that stage over the target rows; 0 leaves the teacher as SHOT-IM made it.",
        minimum=0,
        search=(5, 15, 30),
    )
    retrain_batch: int = option(32, "Rows in a step.", minimum=2)
    retrain_lr: float = option(5e-3, "Learning rate of B.", minimum=0, search=(1e-3, 5e-3))


class RetrainedSFIT(SFIT):
    """SFIT whose teacher is trained on and predicts (Hou & Zheng, 2021b, their optional last stage).

    Information maximisation as before, but only rows where the teacher and the translation agree about the class are
    made more certain.
    """

    name = "sfit-T"
    published = (
        "As the code does when asked to retrain: SGD at half the teacher's rate, batches of 32, 30 epochs (digits), "
        "the entropy of rows where source model on G(f) and teacher on f predict the same class, the diversity of all "
        "rows. The earlier stages are those of `sfit`, with the same analogues. Here the teacher alone predicts."
    )
    config_type = RetrainedSFITConfig

    def finish(self, bundle: Bundle, stages: _Translation, seed: int) -> AdaptedModel:
        """Return C(B'(f)), B' of the teacher."""
        config, features = self.config, stages.features
        student = Student(None, copy.deepcopy(stages.teacher))
        with torch.no_grad():
            translated = bundle.head(stages.generator(features)).argmax(dim=1)

        def losses(rows: Tensor) -> Terms:
            p = torch.softmax(student.logits(features[rows]), dim=1)
            return {"entropy": agreeing_entropy(p, translated[rows]), "diversity": -marginal_entropy(p)}

        again = SGDConfig(
            epochs=config.retrain_epochs, batch=config.retrain_batch, lr=config.retrain_lr, bn_mode=config.bn_mode
        )
        with _diverging(config.key("retrain_lr"), config.retrain_lr):
            fit = fit_sgd(student, len(features), again, losses, seed=run_seed(seed, "retrain"))
        return _adapted(student.model(bundle), (*stages.fits, fit))


def agreeing_entropy(p: Tensor, classes: Tensor) -> Tensor:
    """Return the mean entropy of the rows whose most probable class is the given one; 0 when there is none."""
    agree = p.argmax(dim=1) == classes
    return mean_entropy(p[agree]) if bool(agree.any()) else p.new_zeros(())


def _translate(bundle: Bundle, target: Target, config: SFITConfig, seed: int) -> _Translation:
    """Make the teacher, then fit G to it; source model and teacher stay as they are."""
    shot_im = ShotIM(ShotIMConfig(epochs=config.teacher_epochs, lr=config.teacher_lr, bn_mode=config.bn_mode))
    with _diverging(config.key("teacher_lr"), config.teacher_lr):
        taught = shot_im.adapt(bundle, target, seed=seed)
    teacher = taught.model.head
    assert isinstance(teacher, SourceHead)  # SHOT-IM trains B of the bundle's own head
    head, relation = bundle.head, RELATION_LOSSES[config.relation]
    features = ordered_features(bundle, target)
    generator = new_adapter(bundle, seed, config.hidden)
    with torch.no_grad():
        taught_bottleneck = teacher.bottleneck(features)
        taught_logits = teacher.classify(taught_bottleneck)

    def losses(rows: Tensor) -> Terms:
        bottleneck = head.bottleneck(generator(features[rows]))
        logits = head.classify(bottleneck)
        # The published code averages KL over classes too: torch's 'mean', not its 'batchmean'.
        divergence = expression_loss(taught_logits[rows], logits) / logits.shape[1]
        return {
            "knowledge": config.knowledge * divergence,
            "relation": config.relation_weight * relation(bottleneck, taught_bottleneck[rows]),
        }

    fit = fit_generator(generator, len(features), config, losses, seed=seed)
    return _Translation(features, teacher, generator, (taught, fit))


@contextmanager
def _diverging(option: str, value: float) -> Iterator[None]:
    """Within the block, what diverges is blamed on this method's own option and not on that of the method it calls."""
    try:
        yield
    except InputError as error:
        raise InputError(f"adaptation of the teacher diverged; lower {option} ({value})") from error


def _adapted(model: PersonalModel, fits: tuple[AdaptedModel | Fit, ...]) -> AdaptedModel:
    """Return a model with the steps, parameters, loss terms and warnings of all stages, one after the other."""
    return AdaptedModel(
        model,
        iterations=sum(fit.iterations for fit in fits),
        trainable=sum(fit.trainable for fit in fits),
        history=tuple(entry for fit in fits for entry in fit.history),
        warnings=tuple(dict.fromkeys(warning for fit in fits for warning in fit.warnings)),
    )

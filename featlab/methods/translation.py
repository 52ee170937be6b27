"""SFDA-IT and SFIT, of the same authors: a generator G translates the target's rows for the unchanged source model.

SFDA-IT gives them the source's batch statistics. SFIT makes the source model on G(f) say what an adapted teacher says
of f.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import half_cosine, run_seed, torch_generator
from featlab.config.options import Options, option
from featlab.methods.base import Method, base_model, ordered_features
from featlab.methods.fit import SGDConfig, Student, bn_option, fit_sgd, make_student, new_adapter
from featlab.methods.losses.target import information_terms, marginal_entropy, mean_entropy
from featlab.model.losses import expression_loss
from featlab.model.networks import AdaptedModel, PersonalModel, Translator
from featlab.model.style_bank import SourceRows
from featlab.model.training import Adam, Fit, Phase, Terms, endless_batches, train
from featlab.protocol.splits import Target

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

    removed = {  # noqa: RUF012
        "layers": "statistics are matched at the features and before B's BatchNorm",
        "style": "set content, the weight of the other term",
        "hidden": "G is as wide as the features",
    }

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
        config, head, norm = self.config, bundle.head, bundle.head.norm
        features = ordered_features(bundle, target)
        generator = new_adapter(bundle, seed)
        early = [bundle.extras[self.name][name].to(features.device) for name in ("mean", "std")]
        assert norm.running_mean is not None  # BatchNorm1d tracks statistics unless told not to
        assert norm.running_var is not None
        late = norm.running_mean, norm.running_var.sqrt()
        with torch.no_grad():
            content = head.bottleneck(features)

        def losses(rows: Tensor) -> Terms:
            translated = generator(features[rows])
            before = head.linear(translated)
            style = torch.stack([statistics_loss(translated, *early), statistics_loss(before, *late)]).mean()
            return {"style": style, "content": config.content * F.l1_loss(norm(before), content[rows])}

        fit = fit_generator(generator, len(features), config, losses, seed=seed, minimum=2)
        alone = config.iterations > 0 and len(features) == 1
        warnings = ("one row has no standard deviation: nothing was learnt",) if alone else ()
        model = PersonalModel(bundle.projection, generator, head)
        return AdaptedModel(model, fit.iterations, fit.trainable, fit.history, warnings)


def channel_relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖N(Zₛᵀ Zₛ) − N(Zₜᵀ Zₜ)‖²_F / H, where N scales every row of a Gram matrix to length 1 (equation 5).

    There it is taken over the positions of an image's feature map. A feature vector has none: here, over the rows of a
    batch.
    """
    ours, theirs = (F.normalize(values.T @ values, dim=1) for values in (student, teacher.detach()))
    return (ours - theirs).square().sum(dim=1).mean()


def agreeing_entropy(p: Tensor, classes: Tensor) -> Tensor:
    """Return the mean entropy of the rows whose most probable class is the given one; 0 when there is none."""
    agree = p.argmax(dim=1) == classes
    return mean_entropy(p[agree]) if bool(agree.any()) else p.new_zeros(())


@dataclass(frozen=True)
class SFITConfig(GeneratorConfig):
    """Knowledge of a teacher, made visible by a generator; see `GeneratorConfig`."""

    removed = {  # noqa: RUF012
        "relation": "channels are compared, as published",
        "relation_weight": "both terms weigh 1, as published",
        "knowledge": "both terms weigh 1, as published",
        "hidden": "G is as wide as the features",
    }

    teacher_epochs: int = option(15, "Passes of SHOT-IM over the target rows, which makes the teacher.", minimum=0)
    teacher_lr: float = option(1e-2, "Learning rate of B in it.", minimum=0)
    bn_mode: str = bn_option("of the teacher in its training")


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
        "no positions: channels are related over the rows of a batch. On a "
        "neutral clip G can only copy what SHOT-IM does to the teacher there."
    )
    config_type = SFITConfig
    retrains = False
    """Whether the teacher is trained on, and predicts."""

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B(G(f))), or the teacher's C(B'(f)) where it was trained on."""
        self.check(bundle, target)
        config, head = self.config, bundle.head
        if not config.iterations:
            return AdaptedModel(base_model(bundle))
        features, teacher = ordered_features(bundle, target), make_student(bundle, "none", seed)
        generator = new_adapter(bundle, seed)

        def inform(rows: Tensor) -> Terms:
            return information_terms(teacher.logits(features[rows]))

        fits = [self._teach(teacher, len(features), inform, "teacher", 64, seed)]
        with torch.no_grad():
            taught = teacher.bottleneck(features)
            taught_logits = teacher.head.classify(taught)

        def imitate(rows: Tensor) -> Terms:
            bottleneck = head.bottleneck(generator(features[rows]))
            logits = head.classify(bottleneck)
            # The published code averages KL over classes too: torch's 'mean', not its 'batchmean'.
            divergence = expression_loss(taught_logits[rows], logits) / logits.shape[1]
            return {"knowledge": divergence, "relation": channel_relation_loss(bottleneck, taught[rows])}

        fits.append(fit_generator(generator, len(features), config, imitate, seed=seed))
        model = PersonalModel(bundle.projection, generator, head)
        if self.retrains:
            with torch.no_grad():
                translated = head(generator(features)).argmax(dim=1)

            def agree(rows: Tensor) -> Terms:
                p = torch.softmax(teacher.logits(features[rows]), dim=1)
                return {"entropy": agreeing_entropy(p, translated[rows]), "diversity": -marginal_entropy(p)}

            again = run_seed(seed, "retrain")
            fits.append(self._teach(teacher, len(features), agree, "retrain", config.retrain_batch, again))
            model = teacher.model(bundle)
        return AdaptedModel(
            model,
            iterations=sum(fit.iterations for fit in fits),
            trainable=sum(fit.trainable for fit in fits),
            history=tuple(entry for fit in fits for entry in fit.history),
            warnings=tuple(dict.fromkeys(warning for fit in fits for warning in fit.warnings)),
        )

    def _teach(
        self, teacher: Student, rows: int, losses: Callable[[Tensor], Terms], stage: str, batch: int, seed: int
    ) -> Fit:
        """Train the teacher's B in a stage, whose options are called after it."""
        config, rate = self.config, f"{stage}_lr"
        epochs, lr = getattr(config, f"{stage}_epochs"), getattr(config, rate)
        sgd = SGDConfig(epochs=epochs, batch=batch, lr=lr, bn_mode=config.bn_mode, where=config.section)
        return fit_sgd(teacher, rows, sgd, losses, seed=seed, rate_option=rate)


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
    retrains = True

"""DSFDA: a generator that knows identity from expression makes the expressions that a person's clip lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import torch_generator
from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.methods.base import Method, ordered_features
from featlab.methods.disentanglement import Disentangler, Swap, adam, new_disentangler, take_turns
from featlab.methods.fit import bn_option, make_student
from featlab.model.losses import group_statistics
from featlab.model.networks import AdaptedModel, SourceHead
from featlab.model.style_bank import SourceRows
from featlab.model.training import Terms, endless_batches
from featlab.protocol.splits import Target

CARRIED = ("decoder.", "expression_discriminator.")
"""What of the networks leaves the source site; identity encoder and identity discriminator start anew at the target."""
SOURCE_EPOCHS, SOURCE_BATCH, SOURCE_LR = 10, 64, 1e-3
LEAST_ROWS, LEAST_PEOPLE = 2, 3
"""Of a class, for its Gaussian: the mean of a single row would be the row, that of a single person's the person's."""


@dataclass(frozen=True)
class DSFDAConfig(Options):
    """Adaptation with generated expressions: Adam, a fixed number of steps, the last iterate."""

    removed = dict.fromkeys(("identity", "expression", "feature_matching", "cycle"), "weights are the published ones")

    iterations: int = option(500, "Steps; 0 leaves the source model as it is.", minimum=0, search=(200, 500))
    batch: int = option(20, "Rows in a step.", minimum=2)
    lr: float = option(
        1e-4,
        "Learning rate of what was learnt at the source; what starts anew learns ten times as fast.",
        minimum=0,
        search=(3e-5, 1e-4, 3e-4),
    )
    bn_mode: str = bn_option("of the expression encoder")
    gaussians: str = option(
        "class",
        "Where missing expressions come from: `class` Gaussians of the source's expression codes, or "
        "`none`: only the expressions in the clip.",
        choices=("class", "none"),
    )
    known_label: bool = option(False, "Take every row to be neutral; else the source model labels them.")


class DSFDA(Method):
    """Disentangled source-free adaptation to a neutral clip (Sharafi et al., 2025)."""

    name = "dsfda"
    published = (
        "An analogue on features: networks by role, losses, their weights, Adam, the rate 1e-4 and the batch of 20 are "
        "the published ones; what is encoded and generated is a feature, and the expression encoder and its classifier "
        "are B and C. Where the expressions that a clip lacks come from without source images is left open; here "
        "codes are drawn from a Gaussian per class that the source site leaves in the bundle, the cycle through such a "
        "code is closed on the code, C learns from the generated rows too, and the expression discriminator stays as "
        "the source left it, because a clip of one class would only make it forget the others. With gaussians = none "
        "there is the clip alone, and one class is all that can be learnt. Labels are the source "
        "model's predictions, or neutral with known_label. 500 steps stand for 25 epochs of 22 augmented copies of "
        "each frame, and the two networks that start anew learn ten times as fast. The last iterate is kept, "
        "because early stopping would need labels of the target. The source stage is short (10 epochs at 1e-3, not 100 "
        "at 1e-5), with B and C as they are and discriminators that learn at every step."
    )
    config_type = DSFDAConfig
    carries = (
        "weights of a decoder (expression code, identity code and noise → feature) and of an expression discriminator; "
        "mean and standard deviation (K × H) of the expression codes of each class that three people show, and which "
        "classes those are"
    )

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return the decoder, the expression discriminator and the class Gaussians of the expression codes."""
        rows = source.seen_rows()
        labels, subjects, classes = source.labels[rows], source.row_subject[rows], len(bundle.classes)
        shown = torch.bincount(torch.unique(subjects * classes + labels) % classes, minlength=classes)
        # What few people show would be theirs, and not a class's.
        enough_people = shown >= min(LEAST_PEOPLE, len(source.subjects))
        known = (torch.bincount(labels, minlength=classes) >= LEAST_ROWS) & enough_people
        if not known.any():
            raise InputError("dsfda needs labelled rows of source subjects with neutral ones; label the source rows")
        features = source.features[rows]
        networks = train_disentangler(features, labels, subjects, bundle.head, seed=bundle.seed)
        carried = {name: tensor for name, tensor in networks.state_dict().items() if name.startswith(CARRIED)}
        with torch.no_grad():
            codes = bundle.head.bottleneck(features)
        mean, std = codes.new_zeros(2, classes, codes.shape[1])
        place, enough = known.cumsum(dim=0) - 1, known[labels]
        mean[known], std[known] = group_statistics(codes[enough], place[labels[enough]], int(known.sum()))
        return carried | {"gaussians.mean": mean, "gaussians.std": std, "gaussians.known": known}

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C'(B'(f))."""
        self.check(bundle, target)
        config, extras = self.config, bundle.extras[self.name]
        features = ordered_features(bundle, target)
        student = make_student(bundle, "none", seed)
        if config.iterations and config.bn_mode == "train" and len(features) == 1:
            warning = "one row is no batch for BatchNorm in training: nothing was learnt"
            return AdaptedModel(student.model(bundle), warnings=(warning,))
        labels = torch.full((len(features),), bundle.neutral_code, device=features.device)
        if not config.known_label:
            labels = student.logits(features).argmax(dim=1)
        networks = new_disentangler(bundle.head, 1, seed).to(features.device).requires_grad_(False)
        carried = {name: tensor for name, tensor in extras.items() if name.startswith(CARRIED)}
        networks.load_state_dict(networks.state_dict() | carried)
        random = torch_generator(seed, "dsfda")
        drawing = config.gaussians == "class"

        def terms(rows: Tensor, swap: Swap) -> Terms:
            # As published, B learns from the generator's losses alone, and C from the labels.
            classify = student.head.classify
            if drawing:
                codes, known = torch.cat([swap.own, swap.recovered]), torch.cat([labels[rows], swap.expression])
                return {"classification": F.cross_entropy(classify(codes.detach()), known)}
            return {
                "expression discriminator": F.cross_entropy(networks.expression_discriminator(swap.rows), labels[rows]),
                "classification": F.cross_entropy(classify(swap.own.detach()), labels[rows]),
            }

        # As the source left it, or the clip's classes would be all that it knows.
        expressions = [] if drawing else [networks.expression_discriminator]
        least = 2 if config.bn_mode == "train" else 1
        batches = endless_batches(len(features), min(config.batch, len(features)), least, random)
        bottleneck = [student.head.linear, student.head.norm]
        student.set_mode(config.bn_mode)
        fit = take_turns(
            networks,
            islice(batches, config.iterations),
            features,
            labels,
            torch.zeros_like(labels),
            encode=student.bottleneck,
            draw=(lambda count: draw_codes(extras, count, random)) if drawing else None,
            terms=terms,
            discriminators=adam(config.lr, [student.head.classifier, *expressions], [networks.identity_discriminator]),
            generator=adam(config.lr, [*bottleneck, networks.decoder], [networks.identity_encoder]),
            random=random,
            advice=f"lower {config.key('lr')} ({config.lr})",
        )
        student.set_mode("eval")
        found = {bundle.classes[code] for code in labels.tolist()}
        if fit.iterations and not drawing and len(found) == 1:
            warning = (
                f"every row counts as {found.pop()!r} and gaussians = none shows no other class: the result drifts to "
                "that one answer"
            )
            fit = replace(fit, warnings=(warning,))
        return AdaptedModel(student.model(bundle), **fit.summary())


def train_disentangler(
    features: Tensor, labels: Tensor, identity: Tensor, head: SourceHead, *, seed: int
) -> Disentangler:
    """Train the networks on labelled source rows; B and C stay as they are."""
    networks = new_disentangler(head, int(identity.max()) + 1, seed)
    random = torch_generator(seed, "dsfda source")

    def terms(rows: Tensor, swap: Swap) -> Terms:
        return {"expression discriminator": F.cross_entropy(networks.expression_discriminator(swap.rows), labels[rows])}

    steps = SOURCE_EPOCHS * -(-len(features) // SOURCE_BATCH)
    take_turns(
        networks,
        islice(endless_batches(len(features), SOURCE_BATCH, 1, random), steps),
        features,
        labels,
        identity,
        encode=head.bottleneck,
        terms=terms,
        discriminators=adam(SOURCE_LR, [networks.identity_discriminator, networks.expression_discriminator]),
        generator=adam(SOURCE_LR, [networks.identity_encoder, networks.decoder]),
        random=random,
        advice="check the source's features for outliers",
    )
    return networks.requires_grad_(False)


def draw_codes(extras: Mapping[str, Tensor], count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (count, H) codes and their (count,) int64 classes; every class that has a Gaussian is as likely."""
    mean, std = extras["gaussians.mean"], extras["gaussians.std"]
    known = torch.nonzero(extras["gaussians.known"]).squeeze(1)
    expression = known[torch.randint(len(known), (count,), generator=random)]
    noise = torch.randn(count, mean.shape[1], generator=random).to(mean.device)
    return mean[expression] + std[expression] * noise, expression

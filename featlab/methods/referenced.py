"""Neutral-referenced head: every subject minus their own neutral mean, at the source and at the target."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from featlab.bundle import Bundle
from featlab.methods.base import AdaptedModel, Affine, Method, target_features
from featlab.methods.registry import register
from featlab.models import PersonalModel, SourceHead
from featlab.pretraining import SourceRows
from featlab.protocol import Target
from featlab.seeding import run_seed
from featlab.training import train_head


@register
class Referenced(Method):
    """A head of its own, trained on differences from the neutral mean: the strongest light baseline."""

    name = "referenced"
    title = "Neutral-referenced head"
    setting = "Baselines"
    published = (
        "A light baseline of this package. The head is trained like B and C, with the noise of the translator's "
        "pretraining, on source rows minus the mean of another neutral clip of the same subject."
    )
    needs_extras = True
    updates_classifier = True

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return the referenced head's tensors."""
        rows = torch.nonzero(source.clips.row_subject >= 0).squeeze(1)
        random = torch.Generator().manual_seed(run_seed(bundle.seed, "referenced"))
        referenced = source.features[rows] - source.clips.other_clip_mean(rows, random)
        config = replace(bundle.config.head, noise=bundle.config.pretrain.noise)
        labels = source.labels[rows].to(torch.int16).numpy()
        head = train_head(referenced, labels, len(bundle.classes), config, seed=bundle.seed)
        return dict(head.state_dict())

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C'(B'(f − μ_t))."""
        self.check(bundle, target)
        dim, width = bundle.head.linear.in_features, bundle.head.linear.out_features
        head = SourceHead(dim, width, len(bundle.classes)).to(bundle.projection.mean.device)
        head.load_state_dict(dict(bundle.extras[self.name]))
        head.eval().requires_grad_(False)
        shift = Affine.shift(-target_features(bundle, target).mean(dim=0))
        return AdaptedModel(PersonalModel(bundle.projection, shift, head), trainable=dim)

"""Alignment in closed form: where it lies, and what it makes of clips that are not neutral, short or degenerate."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from featlab import ExtractorInfo
from featlab.bundle.bundle import Bundle, KeyedNames
from featlab.compute import seeded
from featlab.config.load import Config
from featlab.methods.pft.adapt import align_style
from featlab.methods.pft.method import WEIGHTINGS
from featlab.model.networks import Projection, SourceHead, Translator
from featlab.model.style_bank import CarriedShare, StyleBank

DIM = 4
NEUTRAL = 1

with seeded(0), torch.no_grad():
    TRANSLATOR = Translator(DIM, 6).eval().requires_grad_(False)
    # Expression is the first feature: neutral at 0, the other class at 4, the same for everyone.
    HEAD = SourceHead(DIM, 2, 2).eval().requires_grad_(False)
    HEAD.linear.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]))
    HEAD.linear.bias.copy_(torch.tensor([-2.0, 2.0]))
    HEAD.classifier.weight = torch.eye(2)
BUNDLE = Bundle(
    projection=Projection(torch.zeros(DIM), torch.eye(DIM)),
    head=HEAD,
    translator=TRANSLATOR,
    classes=("smile", "neutral"),
    neutral="neutral",
    extractor=ExtractorInfo("hog", "none", "grey"),
    source_subjects=KeyedNames.of(("a",), ""),
    config=Config(),
    seed=0,
)


def clip(neutral, other, seed=0, identity=(1.0, -3.0, 2.0, 0.5)):
    random = torch.Generator().manual_seed(seed)
    frames = torch.tensor(identity) + 0.1 * torch.randn(neutral + other, DIM, generator=random)
    frames[neutral:, 0] += 4.0
    return frames[torch.randperm(len(frames), generator=random)]


def align(features, centre=(0.0, 0.0, 0.0, 0.0), share=1.0, **options):
    mean = torch.tensor(centre)
    bundle = replace(BUNDLE, share=CarriedShare(share), bank=StyleBank({"features": (mean, mean)}, 1))
    return align_style(features, bundle, **options)


@pytest.mark.parametrize("residual", [True, False])
def test_logits_are_those_of_t_b_and_c(residual):
    with seeded(0):
        translator, head = Translator(DIM, 6, residual=residual).eval(), SourceHead(DIM, 3, 2)
        head(torch.randn(20, DIM))
        for tensor in (*head.eval().parameters(), *translator.parameters()):
            tensor.data.normal_()
        features = torch.randn(7, DIM)
    found = replace(BUNDLE, translator=translator, head=head).logits(features)
    torch.testing.assert_close(found, head(translator(features)).detach())
    # A bundle that is gone keeps no model alive.
    left = weakref.ref(translator)
    del translator
    assert left() is None


def test_mean_and_median_move_themselves_onto_the_centre():
    features, centre = clip(7, 1), (1.0, 2.0, 3.0, 4.0)
    for weighting, middle in (("mean", np.mean), ("median", np.median)):
        found = align(features, centre, 0.7, weighting=weighting)
        expected = 0.7 * (np.array(centre) - middle(features.numpy(), axis=0))
        np.testing.assert_allclose(found.offset.numpy(), expected, atol=1e-5)
        assert len(found.history) == 1
        assert torch.equal(found.weight, torch.ones(8))
    none = align(features, iterations=0)
    assert (none.offset.abs().max(), none.history) == (0, ())


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_weights_and_offset_belong_together_at_the_end(share):
    """The fixed point of its two equations, in numpy."""
    features = clip(9, 3)
    found = align(features, share=share)
    moved = features.numpy() + found.offset.numpy()
    logits = HEAD(torch.from_numpy(moved)).numpy().astype(np.float64)
    probability = np.exp(logits[:, NEUTRAL]) / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(found.weight.numpy(), probability, atol=1e-3)
    mean = (probability[:, None] * features.numpy()).sum(axis=0) / probability.sum()
    np.testing.assert_allclose(found.offset.numpy(), -share * mean, atol=1e-3)
    assert 1 < len(found.history) < 20
    assert found.history[-1]["style"] < 1e-8


def test_frames_of_another_expression_do_not_move_the_person():
    place = torch.tensor([1.0, -3.0, 2.0, 0.5])
    for other in (0, 1, 3, 5):
        features = clip(12 - other, other)
        ours = align(features).offset + place
        assert float(ours.abs().max()) < 0.25
        if other >= 3:
            plain = align(features, weighting="mean").offset + place
            assert float(plain.abs().max()) > 0.8


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_degenerate_clips_stay_finite(weighting):
    for features in (clip(1, 0), torch.zeros(3, DIM), torch.ones(5, DIM) * 1e4, clip(2, 2) * 1e3, clip(0, 4)):
        found = align(features, weighting=weighting)
        assert torch.isfinite(found.offset).all()
        assert torch.isfinite(found.weight).all()
    one = clip(1, 0)
    torch.testing.assert_close(align(one, weighting=weighting).offset, -one[0])

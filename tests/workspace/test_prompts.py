"""The classifier of texts of the classes, in place of a trained one."""

from dataclasses import replace

import numpy as np
import torch

from featlab.bundle.bundle import load_bundle, save_bundle
from featlab.config.load import Config
from featlab.errors import InputError
from featlab.methods.base import base_model
from featlab.methods.registry import make_method
from featlab.protocol.splits import target_of
from featlab.workspace.stages import build_bundle

RNG = np.random.default_rng(3)


def logits(model, table):
    with torch.no_grad():
        return model(torch.from_numpy(table.embeddings)).numpy()


def test_a_head_of_texts_is_never_trained_and_goes_all_the_way(people, extractor, tmp_path, refused, monkeypatch):
    monkeypatch.delattr("featlab.methods.pft.validation.train_heads")
    table = replace(people(subjects=12, classes=3), prompts=RNG.normal(size=(3, 12)).astype(np.float32))
    config = Config().with_values(
        {"features.reduce": "pca", "features.dim": 12, "head.classifier": "prompts", "pretrain.epochs": 1}, "test"
    )
    bundle = build_bundle(table, config, seed=0, extractor=extractor)
    expected = table.embeddings @ table.prompts.T
    np.testing.assert_allclose(logits(base_model(bundle), table), expected, rtol=1e-3, atol=1e-3)
    # What source people tell of adapting is measured with this head; nobody trained it.
    assert make_method("pft").source_gain(bundle).people == 12
    assert set(bundle.membership) == {"people", "centre"}
    with refused(InputError, "extract with --backbone clip:NAME --option pooling=joint"):
        build_bundle(replace(table, prompts=None), config, seed=0, extractor=extractor)
    save_bundle(tmp_path / "bundle", bundle)
    loaded = load_bundle(tmp_path / "bundle")
    np.testing.assert_allclose(logits(base_model(loaded), table), expected, rtol=1e-3, atol=1e-3)
    clip = table.rows_of("s00")
    clip = target_of(clip.take(clip.label == clip.neutral_code))
    for method in ("pft", "adabn", "shot"):
        assert np.isfinite(logits(make_method(method).adapt(loaded, clip).model, table)).all()
    few = build_bundle(table, config.with_values({"features.dim": 4}, "test"), seed=0, extractor=extractor)
    mean, basis = (each.double().numpy() for each in (few.projection.mean, few.projection.components))
    kept = mean + (table.embeddings - mean) @ basis @ np.linalg.pinv(basis)
    np.testing.assert_allclose(logits(base_model(few), table), kept @ table.prompts.T, rtol=1e-3, atol=1e-3)

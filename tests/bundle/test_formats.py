"""What of a bundle is written: nobody's name, and older formats as they were."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file

from featlab.bundle.adaptation import load_adaptation
from featlab.bundle.bundle import KeyedNames, load_bundle, save_bundle
from featlab.cache import ExtractorInfo
from featlab.errors import InputError
from featlab.methods import make_method
from featlab.protocol.splits import Target, target_of
from featlab.workspace.predict_images import default_backbone


@pytest.mark.parametrize("version", [1, 2])
def test_a_bundle_of_an_older_format_opens_and_adapts_as_it_did(version, tmp_path):
    """1: its T is linear, all of the offset is taken. 2: it named its people and files, and held every one's mean."""
    folder = Path(__file__).parents[1] / "data" / f"bundle_format_{version}"
    bundle, clip = load_bundle(folder), dict(np.load(folder / "clip.npz"))
    again = load_bundle(save_bundle(tmp_path / "now", bundle))
    target = Target(*(clip[name][clip["neutral"]] for name in ("embeddings", "video", "frame")))
    for name in ("pft", "pft-linear", "pft-mlp")[: version + 1]:
        for read in (bundle, again):
            model = make_method(name, {name: {"guard": False}}).adapt(read, target)
            expected = clip[name] if version == 2 else clip["probabilities"]
            np.testing.assert_allclose(model.predict_proba(clip["embeddings"]), expected, atol=1e-5)
            if version == 2:
                assert model.report.clip["position"] == pytest.approx(float(clip[f"{name}.position"]), rel=1e-3)
    nearest = make_method("pft", {"pft": {"guard": False, "bank": "nearest"}}).adapt(again, target)
    if version == 1:
        assert (bundle.share.value, make_method("pft").source_gain(bundle)) == (1.0, None)
        # What is stored in format 1 is two files.
        stored, meta = load_adaptation(folder / "subjects" / "s9", bundle)
        now = make_method("neutral-shift").adapt(bundle, target)
        assert meta["subject"] == "s9"
        np.testing.assert_allclose(*(each.predict_proba(clip["embeddings"]) for each in (stored, now)), atol=1e-6)
    else:
        np.testing.assert_allclose(nearest.predict_proba(clip["embeddings"]), clip["nearest"], atol=1e-5)
    assert ("s00" in again.source_subjects, "s99" in again.source_subjects) == (True, False)


def test_what_is_written_names_no_person_no_target_and_no_file(tmp_path, people, small_bundle, refused):
    table = people(subjects=9)
    named = replace(table, subjects=tuple(f"patient {name}" for name in table.subjects))
    settings = {"cache": "/home/ward/cache.h5", "protocol.targets": "patient s08", "pretrain.bank_rows": 2}
    for bank in ("centre", "people"):
        bundle = small_bundle(named.without("patient s08"), settings | {"pretrain.style_bank": bank})
        bundle = replace(bundle, extractor=replace(bundle.extractor, trained_on=("patient s01",)))
        folder = save_bundle(tmp_path / bank, bundle)
        written = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
        assert not any(words in written for words in (b"patient", b"ward", b"s08"))
        again = load_bundle(folder)
        assert [name in again.source_subjects for name in named.subjects] == [True] * 8 + [False]
        assert ("bank.people" in load_file(folder / "model.safetensors")) == (bank == "people")
        clip = target_of(named.rows_of("patient s08"))
        with nullcontext() if bank == "people" else refused(InputError, "adapt.pft.bank", "style_bank = people"):
            make_method("pft", {"pft": {"bank": "nearest"}}).adapt(again, clip)
    # The same inputs give the same hashes; those of another cache can't be matched with them.
    assert KeyedNames.of(["a"], "1") == KeyedNames.of([" a"], "1")
    assert not set(KeyedNames.of(["a"], "1").hashes) & set(KeyedNames.of(["a"], "2").hashes)


def test_a_bundle_names_no_code_no_file_and_no_hub(refused):
    def named(name):
        return default_backbone(SimpleNamespace(extractor=ExtractorInfo(name, "none", "as it is")))

    for name in ("hog", "geometry", "resnet18", "timm:resnet18.a1_in1k", "torchvision:resnet50"):
        assert named(name) == name
    for name in ("python:os:abort", "pt2", "onnx", "hf:vit", "timm:hf-hub:a/b", "timm:local-dir:/x", "mine", "hog\n"):
        with refused(InputError, "--backbone", name.strip()):
            named(name)

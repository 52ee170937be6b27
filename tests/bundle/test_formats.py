"""What of a bundle is written: nobody's name; and older formats, which are refused."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file

from featlab.bundle.bundle import KeyedNames, load_bundle, save_bundle
from featlab.bundle.files import read_tensors
from featlab.cache import ExtractorInfo
from featlab.errors import BundleError, InputError
from featlab.methods import make_method
from featlab.protocol.splits import target_of
from featlab.workspace.predict_images import default_backbone


def test_a_bundle_or_a_file_of_an_older_format_is_refused_with_what_to_do(tmp_path, refused):
    for version in (1, 2):
        with refused(BundleError, "before 0.2.0", "featlab pretrain again"):
            load_bundle(Path(__file__).parents[1] / "data" / f"bundle_format_{version}")
    save_file({"codes": torch.tensor([1])}, tmp_path / "old.safetensors")
    with refused(BundleError, "old.safetensors", "not what was written"):
        read_tensors(tmp_path / "old.safetensors")


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

"""Files of a bundle: damage is found, nobody is named, older formats are refused, and all of it travels as one file."""

import shutil
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from featlab import ExtractorInfo
from featlab.bundle.bundle import KeyedNames, load_bundle, save_bundle
from featlab.bundle.files import (
    TENSORS_FORMAT,
    load_adaptation,
    read_json,
    read_tensors,
    save_adaptation,
    write_json,
    write_tensors,
)
from featlab.bundle.pack import pack_bundle, unpack_bundle
from featlab.errors import BundleError, InputError
from featlab.methods import make_method
from featlab.protocol.splits import target_of
from featlab.workspace.predict_images import default_backbone

TENSORS = {
    "matrix": torch.arange(12, dtype=torch.float32).reshape(3, 4).T,
    "double": torch.tensor(0.5, dtype=torch.float64),
    "codes": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "none": torch.zeros(0, 3),
}
CONTENT = {"text": "Zoë", "numbers": (1, 2.5, -0.0), "nested": {"empty": [], "flag": True, "nothing": None}}


@pytest.fixture(scope="module")
def table(people):
    return people(subjects=6)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s05"), methods=("coral",))


def flipped(path):
    """Turn a bit of one byte of the file after the other, and yield its place; the file is as it was afterwards."""
    whole = path.read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        yield place
    path.write_bytes(whole)


def test_tensors_come_back_and_those_of_another_run_are_refused(tmp_path):
    path = tmp_path / "some.safetensors"
    digest = write_tensors(path, TENSORS)

    _, found = read_tensors(path, digest=digest)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    write_tensors(path, TENSORS | {"codes": torch.tensor([1, 2, 4], dtype=torch.uint8)})
    with pytest.raises(BundleError, match="another run"):
        read_tensors(path, digest=digest)


def test_a_newer_file_of_tensors_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "some.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("featlab.bundle.files.TENSORS_FORMAT", TENSORS_FORMAT + 1)
        write_tensors(path, TENSORS)
    with pytest.raises(BundleError, match=r"format 2 is newer .* update featlab"):
        read_tensors(path)


def test_json_comes_back_and_no_turned_bit_gives_another(tmp_path):
    path = tmp_path / "some.json"
    write_json(path, CONTENT)
    read = CONTENT | {"numbers": [1, 2.5, -0.0]}
    assert read_json(path) == read
    for place in flipped(path):
        with suppress(ValueError):
            assert read_json(path) == read, place
    path.write_text('{"old": 1}')
    with pytest.raises(ValueError, match="no digest"):
        read_json(path)


def test_an_adaptation_is_one_file_and_no_turned_bit_of_it_gives_another(tmp_path, table, bundle):
    rows, model = table.rows_of("s05"), make_method("coral").adapt(bundle, target_of(table.rows_of("s05")))
    folder = save_adaptation(tmp_path / "s05", bundle, model, {"method": "coral"})
    (path,) = folder.iterdir()
    known, expected = load_adaptation(folder, bundle)[1], model.predict_proba(rows.embeddings)
    for place in flipped(path):
        with suppress(BundleError):
            again, meta = load_adaptation(folder, bundle)
            assert meta == known, place
            assert np.array_equal(again.predict_proba(rows.embeddings), expected), place


def test_a_bundle_or_a_file_of_an_older_format_is_refused_with_what_to_do(tmp_path, refused):
    for version in (1, 2):
        with refused(BundleError, "before 0.2.0", "featlab pretrain again"):
            load_bundle(Path(__file__).parents[1] / "data" / f"bundle_format_{version}")
    save_file({"codes": torch.tensor([1])}, tmp_path / "old.safetensors")
    with refused(BundleError, "old.safetensors", "not what was written"):
        read_tensors(tmp_path / "old.safetensors")


def test_what_is_written_names_no_person_no_target_and_no_file(tmp_path, people, small_bundle):
    table = people(subjects=9)
    named = replace(table, subjects=tuple(f"patient {name}" for name in table.subjects))
    settings = {"cache": "/home/ward/cache.h5", "protocol.targets": "patient s08"}
    bundle = small_bundle(named.without("patient s08"), settings)
    bundle = replace(bundle, extractor=replace(bundle.extractor, trained_on=("patient s01",)))
    folder = save_bundle(tmp_path / "bundle", bundle)
    written = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    assert not any(words in written for words in (b"patient", b"ward", b"s08"))
    again = load_bundle(folder)
    assert [name in again.source_subjects for name in named.subjects] == [True] * 8 + [False]
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


def test_a_bundle_travels_as_one_file(tmp_path, people, small_bundle):
    bundle, folder, packed = small_bundle(people()), tmp_path / "b", tmp_path / "b.zip"
    save_bundle(folder, bundle)
    (folder / "subjects").mkdir()
    digest = pack_bundle(folder, packed)
    assert digest == pack_bundle(folder, tmp_path / "again.zip")
    unpack_bundle(packed, tmp_path / "there")
    for name in ("model.safetensors", "bundle.json", "card.md"):
        assert (tmp_path / "there" / name).read_bytes() == (folder / name).read_bytes()
    assert not (tmp_path / "there/subjects").exists()
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.zip").write_bytes(content)
    (tmp_path / "cut.zip").write_bytes(content[:-100])
    for name, part in (("other.zip", "../x"), ("more.zip", "more.txt")):
        shutil.copy(packed, tmp_path / name)
        with zipfile.ZipFile(tmp_path / name, "a") as archive:
            archive.writestr(part, "x")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("model.safetensors", "bundle.json", "card.md"):
            archive.writestr(name, bytes(1 << 20))
    for name in ("flipped.zip", "cut.zip", "other.zip", "more.zip", "bomb.zip", "gone.zip"):
        with pytest.raises(BundleError, match=name):
            unpack_bundle(tmp_path / name, tmp_path / "no")
        assert not (tmp_path / "no").exists()
    with pytest.raises(BundleError, match="already"):
        unpack_bundle(packed, folder)
    assert not list(tmp_path.glob("*.partial"))

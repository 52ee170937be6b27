"""A bundle as one file."""

import shutil
import zipfile

import pytest

from featlab.bundle.bundle import save_bundle
from featlab.bundle.pack import pack_bundle, unpack_bundle
from featlab.errors import BundleError


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

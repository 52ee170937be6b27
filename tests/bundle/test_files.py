"""Files with digests: damage is found, and so are files that don't belong together."""

from contextlib import suppress

import numpy as np
import pytest
import torch

from featlab.bundle.files import (
    TENSORS_FORMAT,
    load_adaptation,
    read_json,
    read_tensors,
    save_adaptation,
    write_json,
    write_tensors,
)
from featlab.errors import BundleError
from featlab.methods import make_method
from featlab.protocol.splits import target_of

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


def flipped(path, places):
    """Turn one bit of the file after the other, and yield its place; the file is as it was afterwards."""
    whole = path.read_bytes()
    for place, bit in places:
        data = bytearray(whole)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        yield place
    path.write_bytes(whole)


def a_bit_of_every_byte(path):
    return [(place, place % 8) for place in range(path.stat().st_size)]


def test_tensors_come_back_and_those_of_another_run_are_refused(tmp_path):
    path = tmp_path / "some.safetensors"
    digest = write_tensors(path, TENSORS)

    found = read_tensors(path, digest=digest)
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
    with monkeypatch.context() as patch:
        patch.setattr("featlab.bundle.files.TENSORS_FORMAT", "two")
        write_tensors(path, TENSORS)
    with pytest.raises(BundleError, match="can't be read"):
        read_tensors(path)


def test_json_comes_back_and_no_turned_bit_gives_another(tmp_path):
    path = tmp_path / "some.json"
    write_json(path, CONTENT)
    read = CONTENT | {"numbers": [1, 2.5, -0.0]}
    assert read_json(path) == read
    for place in flipped(path, a_bit_of_every_byte(path)):
        with suppress(ValueError):
            assert read_json(path) == read, place
    path.write_text('{"old": 1}')
    with pytest.raises(ValueError, match="no digest"):
        read_json(path)


def test_an_adaptation_is_one_file_that_a_kill_leaves_old_or_new_and_no_turned_bit_changes(
    tmp_path, table, bundle, monkeypatch
):
    target, folder = target_of(table.rows_of("s05")), tmp_path / "s05"
    rows = table.rows_of("s05").embeddings
    models = {name: make_method(name).adapt(bundle, target) for name in ("coral", "neutral-shift")}

    def save(name):
        save_adaptation(folder, bundle, models[name], {"method": name})

    save("coral")
    # A kill before any of the calls that change what is on disk.
    for name in ("os.replace", "os.rename", "os.unlink", "pathlib.Path.write_bytes"):
        with monkeypatch.context() as patched:
            patched.setattr(name, lambda *_args, **_options: (_ for _ in ()).throw(KeyboardInterrupt))
            with suppress(KeyboardInterrupt):
                save("neutral-shift")
        model, meta = load_adaptation(folder, bundle)
        assert np.array_equal(model.predict_proba(rows), models[meta["method"]].predict_proba(rows)), name
    save("coral")
    path, known = folder / "adaptation.safetensors", load_adaptation(folder, bundle)[1]
    for place in flipped(path, a_bit_of_every_byte(path)):
        try:
            model, meta = load_adaptation(folder, bundle)
        except BundleError:
            continue
        assert meta == known, place
        assert np.array_equal(model.predict_proba(rows), models["coral"].predict_proba(rows)), place

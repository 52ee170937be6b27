"""`featlab verify` of everything: each file that was changed, lost or put in another's place is named."""

import sys

import numpy as np
import pytest

from featlab import write_table
from featlab.bundle.bundle import save_bundle
from featlab.bundle.files import save_adaptation, write_json
from featlab.cache.atomic import SIDECAR, SUMS
from featlab.exchange.export import export_model
from featlab.methods import make_method
from featlab.methods.base import base_model
from featlab.protocol.splits import target_of
from featlab.workspace.contents import check_files


@pytest.fixture
def folder(tmp_path, people, small_bundle, extractor):
    table = people(subjects=6)
    bundle = small_bundle(table.without("s05"), methods=("coral",))
    root = save_bundle(tmp_path / "bundles" / "0", bundle)
    model = make_method("coral").adapt(bundle, target_of(table.rows_of("s05")))
    save_adaptation(root / "subjects" / "s05", bundle, model, {"subject": "s05"})
    write_table(tmp_path / "cache.h5", table, extractor)
    write_json(tmp_path / "results" / "runs" / "coral" / "0.jsonl", {"macro_f1": 0.5}, indent=None)
    export_model(base_model(bundle), tmp_path / "model.safetensors", "safetensors", {"about": "it"})
    (tmp_path / "notes.txt").write_text("somebody's own")
    (tmp_path / "cache.h5.shards").mkdir()
    (tmp_path / "cache.h5.shards" / "one.h5").write_text("of a run that goes on")
    return tmp_path


def test_every_file_that_is_changed_lost_or_swapped_is_named(folder):
    whole = check_files(folder)
    assert whole == ([], [str(folder / "notes.txt")])
    files = {path for path in folder.rglob("*") if path.is_file() and ".shards" not in str(path)}
    files.remove(folder / "notes.txt")
    random = np.random.default_rng(0)
    for path in sorted(files):
        data = path.read_bytes()
        for _ in range(8):
            turned = bytearray(data)
            turned[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
            path.write_bytes(turned)
            # HDF5 leaves some bytes unused.
            assert check_files(folder) != whole or path.suffix == ".h5", path
            if path.suffix not in (".h5", SIDECAR) and path.name != SUMS:
                assert check_files(path) != ([], []), path
        for changed in (b"", data[: len(data) // 2]):
            path.write_bytes(changed)
            assert check_files(folder) != whole, path
        path.write_bytes(data)
    assert check_files(folder) == whole
    adapted = next(folder.rglob("adaptation.safetensors"))
    (folder / "model.safetensors").write_bytes(adapted.read_bytes())
    assert "model.safetensors: damaged" in "\n".join(check_files(folder / "model.safetensors")[0])
    (folder / "bundles" / "0" / "card.md").unlink()
    assert "card.md: is missing" in "\n".join(check_files(folder / "bundles")[0])


def test_what_is_called_like_a_draft_is_checked_when_it_is_named_and_so_is_what_links_lead_to(folder):
    draft = folder.rename(folder.with_name("old.partial"))
    assert check_files(draft) == ([], [str(draft / "notes.txt")])
    if sys.platform != "win32":  # Links need rights there.
        (draft / "bundles").rename(folder)
        (draft / "bundles").symlink_to(folder)
        (draft / "bundles" / "0" / "model.safetensors").write_bytes(b"")
        assert "model.safetensors: damaged" in check_files(draft)[0][0]
    shard = draft / "cache.h5.shards" / "one.h5"
    assert str(shard) in check_files(shard)[0][0]

"""A cache of format 1 stays readable for ever, with the digest it was born with.

Its files were made by commit 1bb209c, the last to write statistics of layers and head pose; no later code can do so.
"""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from featlab import open_cache, verify_cache
from featlab.cache.reader import inspect_cache
from featlab.errors import CacheError

DATA = Path(__file__).parent / "data"
FORMAT_1 = DATA / "format-1.h5"
WITH_POSE = DATA / "format-1-pose.h5"
DIGEST = "da3b739d2a925da86a5519ac1127fb5c6770525619cab64d589eff1a9c027b6a"
FINGERPRINT = "ff952bb47c2d94f3935e33ecdf5aea1bf29af17460722f898bc71cb88f6761ec"


def test_a_cache_of_format_1_is_read():
    assert verify_cache(FORMAT_1) == []
    with open_cache(FORMAT_1, verify=True) as cache:
        assert cache.digest == DIGEST
        assert cache.extractor.fingerprint == FINGERPRINT
        assert cache.subjects == ("p01", "p02", "é-3")
        table = cache.read()
    assert table.embeddings.shape == (12, 6)
    assert table.landmarks.shape == (12, 5, 2)
    assert np.isnan(table.landmarks).all(axis=(1, 2)).tolist() == [row == 4 for row in range(12)]
    assert table.label.tolist() == [0, 1, 2, -1] * 3
    assert table.frame.tolist() == [0, 10, 20] * 4
    assert table.paths[-1] == "é-3/talk/20.png"
    assert inspect_cache(FORMAT_1).videos == 4


def test_the_digest_is_the_documented_one():
    """Computed here from nothing but h5py and the words of the format's documentation."""
    with h5py.File(FORMAT_1) as file:
        datasets = {}
        floats = ["embeddings", "landmarks", "layers/stem/mean", "layers/stem/std"]
        for name in [*floats, "label", "subject", "video", "frame"]:
            data = file[name][:]
            datasets[name] = [data.dtype.str, list(data.shape[1:]), hashlib.sha256(data.tobytes()).hexdigest()]
        paths = b"".join(path + b"\0" for path in file["paths"][:].tolist())
        datasets["paths"] = ["utf-8", [], hashlib.sha256(paths).hexdigest()]
        header = {
            "format": "embedding-cache",
            "format_version": 1,
            "extractor": FINGERPRINT,
            "classes": ["neutral", "happy", "pain"],
            "neutral": "neutral",
            "subjects": [name.decode() for name in file["subjects"][:]],
            "videos": [name.decode() for name in file["videos"][:]],
        }
    content = {"header": header, "datasets": datasets}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == DIGEST


def test_statistics_of_layers_and_head_pose_of_older_files_are_ignored_but_covered_by_the_digest(tmp_path):
    with open_cache(FORMAT_1) as plain, open_cache(WITH_POSE, verify=True) as posed:
        assert plain.digest != posed.digest
        np.testing.assert_array_equal(plain.read().embeddings, posed.read().embeddings)
        np.testing.assert_array_equal(plain.read().landmarks, posed.read().landmarks)
        rows = len(posed.read().rows_of("p02"))
    assert verify_cache(WITH_POSE) == []
    for name, index in (("pose", (0, 1)), ("layers/stem/mean", (3, 1)), ("layers/stem/std", (11, 0))):
        changed = tmp_path / "changed.h5"
        changed.write_bytes(WITH_POSE.read_bytes())
        with h5py.File(changed, "r+") as file:
            file[name][index] += 1
        (problem,) = verify_cache(changed)
        assert "digest" in problem
        with pytest.raises(CacheError, match="digest"):
            open_cache(changed, verify=True)
        with open_cache(changed) as cache:
            assert len(cache.read(["p02"])) == rows
            with pytest.raises(CacheError, match="digest"):
                cache.read()
    with h5py.File(changed, "r+") as file:
        file.move("layers/stem/std", "layers/stem/other")
        file["layers/stem/std"] = h5py.SoftLink("/layers/stem/other")
    with pytest.raises(CacheError, match="is a link"):
        verify_cache(changed)

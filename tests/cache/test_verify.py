"""What can't be trusted is refused, in one line that names the file."""

import errno
import fcntl
import json
import os
import shutil
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from featlab import open_cache, verify_cache
from featlab.cache.hdf5 import guarded
from featlab.errors import CacheError, UnreadableError


@pytest.fixture
def damaged(cache_path, tmp_path):
    """A copy of the cache with a change: ``damaged(lambda file: ...)``."""

    def make(change):
        path = tmp_path / "damaged.h5"
        shutil.copy(cache_path, path)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


def attr(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def without(name):
    return lambda file: file.__delitem__(name)


def put(name, where, value):
    return lambda file: file[name].__setitem__(where, np.array(value).astype(file[name].dtype))


def replace(name, make, **options):
    """The dataset is what ``make`` gives for its values."""

    def change(file):
        data = make(file[name][:])
        del file[name]
        file.create_dataset(name, data=data, **options)

    return change


def link(name, to):
    def change(file):
        if name in file:
            file.move(name, "other")
        file[name] = to

    return change


def claim(name, rows):
    """The dataset claims that many rows, and holds none."""

    def change(file):
        shape, dtype = (rows, *file[name].shape[1:]), file[name].dtype
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=(1024, *shape[1:]))

    return change


def elsewhere(virtual):
    """The embeddings lie in another file."""

    def change(file):
        other = os.path.join(os.path.dirname(file.filename), "cache.h5")
        del file["embeddings"]
        if virtual:
            layout = h5py.VirtualLayout((19, 8), "<f4")
            layout[:] = h5py.VirtualSource(other, "embeddings", (19, 8))
            file.create_virtual_dataset("embeddings", layout)
        else:
            file.create_dataset("embeddings", (19, 8), "<f4", external=[(other, 0, 19 * 8 * 4)])

    return change


def as_group(file):
    del file["label"]
    file.create_group("label")


def as_objects(values):
    return np.array([str(value) for value in values], dtype=object)


CODES = ("label", "subject", "video", "frame")
ATTRIBUTES = ("featlab_format", "format_version", "extractor", "classes", "neutral", "rows", "dim", "digest")
REFUSED = [
    (attr("featlab_format", "something-else"), "'something-else'", "'embedding-cache'"),
    (attr("featlab_format", "embedding-shard"), "one shard", "again"),
    (attr("format_version", 2), "version 2", "up to 1", "update featlab"),
    *((attr("format_version", version), "") for version in ("one", 0, 1.5, np.zeros(3, int))),
    *((lambda file, name=name: file.attrs.__delitem__(name), name) for name in ATTRIBUTES),
    *(
        (attr(name, text), "")
        for name in ("extractor", "classes")
        for text in ("{", "[]", '{"id": 3}', "null", '["happy"]', '["neutral", "neutral"]')
    ),
    *((without(name), name) for name in ("embeddings", *CODES, "subjects", "videos", "subject_offsets")),
    *(
        (replace(name, lambda rows: rows[:-1]), name, "shape")
        for name in ("embeddings", *CODES, "landmarks", "paths", "faces")
    ),
    *(
        (replace(name, lambda values, dtype=dtype: values.astype(dtype)), name, "type")
        for name, dtype in (
            *(("embeddings", "f8"), ("embeddings", "i4"), ("label", "i8")),
            *(("frame", "f4"), ("frame", ">i4"), ("landmarks", "f8"), ("faces", "i2")),
        )
    ),
    *(
        (replace(name, as_objects, dtype=h5py.string_dtype()), name, "objects")
        for name in ("subjects", "paths", "label")
    ),
    *(
        (link(name, h5py.ExternalLink("cache.h5", "/embeddings")), name, "external link")
        for name in ("embeddings", "landmarks", "subjects", "unheard-of")
    ),
    (link("landmarks", h5py.SoftLink("/other")), "landmarks", "link"),
    *((elsewhere(virtual), "embeddings", "other files") for virtual in (False, True)),
    *((claim(name, 1 << 40), name, "expected (19") for name in ("embeddings", "label", "landmarks")),
    (claim("subjects", 1 << 40), "subjects", "promises"),
    (as_group, "label", "group"),
    *((put("label", 5, code), "label", "-1 to 2") for code in (3, -2)),
    (put("video", 5, 4), "video", "0 to 3"),
    (put("subject", 5, -1), "subject", "0 to 3"),
    (put("frame", 1, 0), "subject 'Zoë', video 'v1', frame 0 twice"),
    (put("frame", 1, 99), "frame 10 after", "frame 99"),
    *(
        (put("subject_offsets", slice(None), offsets), "subject_offsets")
        for offsets in ([0, 7, 12, 13, 18], [0, 12, 7, 13, 19], [0, 7, 7, 13, 19], [1, 7, 12, 13, 19])
    ),
    (replace("subjects", lambda _: np.array([b"Zo", b"s1", b"s1", b"s3"])), "subjects", "repeated"),
    (replace("subjects", lambda _: np.array([b"Zo", b"s1", b"s2", b"\xff\xfe"])), ""),
    *((put("embeddings", (8, 3), odd), "embeddings", "'s1', video 'v1', frame 5") for odd in (np.nan, np.inf, 1e30)),
]


def test_what_is_wrong_with_a_cache_is_one_line(damaged, refuses):
    for change, *words in REFUSED:
        refuses(damaged(change), *words)


def test_what_is_no_cache_at_all_is_one_line(tmp_path, refuses):
    (tmp_path / "notes.h5").write_text("subject,label\n")
    (tmp_path / "empty.h5").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.arange(3)
    for name, *words in (
        ("none.h5", "no such file", "featlab extract"),
        ("none.h5/deeper", "no such file"),
        ("", "is a folder"),
        ("notes.h5", "not an HDF5 file"),
        ("empty.h5", "not an HDF5 file"),
        ("pipe.h5", "no regular file"),
        ("other.h5", "no featlab cache"),
    ):
        refuses(tmp_path / name, *words)


def test_rows_beside_one_that_is_not_finite_are_read(damaged, refused):
    path = damaged(put("embeddings", (8, 3), np.nan))
    with open_cache(path) as cache:
        assert len(cache.read(["s3"])) == 6
        with refused(CacheError, "frame 5"):
            list(cache.iter_rows(100))
    assert any("1 of 19 rows" in problem for problem in verify_cache(path))


def test_what_only_the_digest_shows_is_found_by_verifying(damaged, refuses):
    refuses(damaged(put("landmarks", (7, 3, 1), np.nan)), "landmarks", "subject 's1'", verify=True)
    refuses(damaged(lambda file: file.__setitem__("extra", np.arange(3))), "'extra'", verify=True)
    for change in (
        *(put("embeddings", (3, 3), 0.5), put("label", 0, 1), put("frame", 18, 1000)),
        *(put("landmarks", (0, 0, 0), 0.5), put("paths", 7, b"elsewhere")),
        *(attr("neutral", "happy"), attr("classes", json.dumps(["neutral", "pain", "happy"]))),
        attr("digest", "0" * 64),
    ):
        path = damaged(change)
        refuses(path, "digest", verify=True)
        assert len(verify_cache(path)) == 1


def test_a_repacked_cache_is_the_same_cache(cache_path, tmp_path):
    """The digest is about the content: other chunks, compression and HDF5 version leave it as it is."""
    with h5py.File(cache_path) as old, h5py.File(tmp_path / "packed.h5", "w") as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for name, data in old.items():
            new.create_dataset(name, data=data[:], dtype=data.dtype, chunks=True, compression="gzip", shuffle=True)
    assert verify_cache(tmp_path / "packed.h5") == []


def flip(whole, offset):
    flipped = bytearray(whole)
    flipped[offset] ^= 1 << (offset % 8)
    return flipped


def test_a_flipped_bit_is_refused_or_harmless(cache_path, tmp_path, refuses):
    """Never wrong data: what opens and verifies after a flip reads exactly as before."""
    whole, flipped = cache_path.read_bytes(), tmp_path / "flipped.h5"
    with h5py.File(cache_path) as file:
        chunk = file["embeddings"].id.get_chunk_info(0)
    # Without the checksum behind the rows: where the digest fits, it is of no account.
    for offset in range(chunk.byte_offset, chunk.byte_offset + chunk.size - 4, 29):
        flipped.write_bytes(flip(whole, offset))
        refuses(flipped, "embeddings", "damaged")
    with open_cache(cache_path) as cache:
        digest, before = cache.digest, cache.read()
    for offset in range(0, len(whole), 41):
        flipped.write_bytes(flip(whole, offset))
        try:
            with open_cache(flipped, verify=True) as cache:
                after = cache.read()
                assert cache.digest == digest
        except CacheError:
            continue
        np.testing.assert_array_equal(after.embeddings, before.embeddings)
        np.testing.assert_array_equal(after.landmarks, before.landmarks)
        assert after.subjects == before.subjects


def test_only_what_is_damaged_is_called_damaged(cache_path, refused, monkeypatch):
    """A drive that refuses locks, files or bytes is none of the file's fault."""
    with cache_path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with open_cache(cache_path) as cache:
            assert len(cache.read()) == len(cache)
    hdf5 = "Can't read data (file read failed: file descriptor = 3, errno = {}, error message = 'x')"
    for number in (errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE):
        says = (str(cache_path), f"({os.strerror(number)})", "may be sound")
        for kind in (OSError, KeyError):
            with refused(UnreadableError, *says), guarded(cache_path):
                raise kind(hdf5.format(number))
        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", partial(fails, OSError(number, os.strerror(number))))
            with refused(UnreadableError, *says):
                open_cache(cache_path)


def fails(error, *args, **options):
    raise error

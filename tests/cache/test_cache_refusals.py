"""What can't be trusted is refused, in one line that names the file."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest

from featlab.cache import CacheError, inspect_cache, open_cache, verify_cache


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace(file, name, data, **options):
    del file[name]
    file.create_dataset(name, data=data, **options)


def test_a_missing_file_is_refused(tmp_path, refuses):
    refuses(tmp_path / "none.h5", "no such file", "featlab extract")
    refuses(tmp_path / "none.h5" / "deeper", "no such file")


def test_a_folder_is_refused(tmp_path, refuses):
    refuses(tmp_path, "is a folder")


def test_a_text_file_is_refused(tmp_path, refuses):
    (tmp_path / "notes.h5").write_text("subject,label\n")
    refuses(tmp_path / "notes.h5", "not an HDF5 file")
    (tmp_path / "empty.h5").write_bytes(b"")
    refuses(tmp_path / "empty.h5", "not an HDF5 file")


def test_a_pipe_is_refused_without_waiting(tmp_path, refuses):
    os.mkfifo(tmp_path / "pipe.h5")
    refuses(tmp_path / "pipe.h5", "no regular file")


def test_other_hdf5_files_are_refused(tmp_path, refuses):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.arange(3)
    refuses(tmp_path / "other.h5", "no featlab cache")


def test_a_wrong_format_name_is_refused(cache_path, refuses):
    edit(cache_path, lambda file: file.attrs.modify("featlab_format", "something-else"))
    refuses(cache_path, "'something-else'", "'embedding-cache'")


def test_a_shard_is_named_as_one(cache_path, refuses):
    edit(cache_path, lambda file: file.attrs.__setitem__("featlab_format", "embedding-shard"))
    refuses(cache_path, "one shard", "again")


def test_a_newer_version_asks_for_an_update(cache_path, refuses):
    edit(cache_path, lambda file: file.attrs.__setitem__("format_version", 2))
    refuses(cache_path, "version 2", "up to 1", "update featlab")


@pytest.mark.parametrize("version", ["one", 0, 1.5, np.zeros(3, int)])
def test_a_version_that_is_no_number_is_refused(cache_path, refuses, version):
    edit(cache_path, lambda file: file.attrs.__setitem__("format_version", version))
    refuses(cache_path)


@pytest.mark.parametrize(
    "name", ["format_version", "extractor", "classes", "neutral", "rows", "dim", "digest", "featlab_format"]
)
def test_a_missing_attribute_is_refused(cache_path, refuses, name):
    edit(cache_path, lambda file: file.attrs.__delitem__(name))
    refuses(cache_path, name)


@pytest.mark.parametrize("text", ["{", "[]", '{"id": 3}', "null", '["happy"]', '["neutral", "neutral"]'])
@pytest.mark.parametrize("name", ["extractor", "classes"])
def test_json_that_makes_no_sense_is_refused(cache_path, refuses, name, text):
    edit(cache_path, lambda file: file.attrs.__setitem__(name, text))
    refuses(cache_path)


@pytest.mark.parametrize(
    "name",
    ["embeddings", "label", "subject", "video", "frame", "subjects", "videos", "subject_offsets"],
)
def test_a_missing_dataset_is_refused(cache_path, refuses, name):
    edit(cache_path, lambda file: file.__delitem__(name))
    refuses(cache_path, name)


@pytest.mark.parametrize("name", ["embeddings", "label", "subject", "video", "frame", "landmarks", "paths"])
def test_lengths_that_differ_are_refused(cache_path, refuses, name):
    edit(cache_path, lambda file: replace(file, name, file[name][:-1]))
    refuses(cache_path, name, "shape")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("embeddings", "f8"),
        ("embeddings", "i4"),
        ("label", "i8"),
        ("frame", "f4"),
        ("landmarks", "f8"),
        ("frame", ">i4"),
    ],
)
def test_other_number_types_are_refused(cache_path, refuses, name, dtype):
    edit(cache_path, lambda file: replace(file, name, file[name][:].astype(dtype)))
    refuses(cache_path, name, "type")


@pytest.mark.parametrize("name", ["subjects", "paths", "label"])
def test_an_object_dtype_is_refused(cache_path, refuses, name):
    def change(file):
        texts = np.array([str(value) for value in file[name][:]], dtype=object)
        replace(file, name, texts, dtype=h5py.string_dtype())

    edit(cache_path, change)
    refuses(cache_path, name, "objects")


@pytest.mark.parametrize("name", ["embeddings", "landmarks", "subjects", "unheard-of"])
def test_an_external_link_is_refused_before_it_is_followed(cache_path, refuses, tmp_path, name):
    shutil.copy(cache_path, tmp_path / "other.h5")

    def change(file):
        if name in file:
            del file[name]
        file[name] = h5py.ExternalLink("other.h5", "/embeddings")

    edit(cache_path, change)
    refuses(cache_path, name, "external link")


def test_a_soft_link_is_refused(cache_path, refuses):
    def change(file):
        file.move("landmarks", "other")
        file["landmarks"] = h5py.SoftLink("/other")

    edit(cache_path, change)
    refuses(cache_path, "landmarks", "link")


def test_data_outside_the_file_is_refused(cache_path, refuses, tmp_path):
    (tmp_path / "raw.bin").write_bytes(bytes(19 * 8 * 4))

    def change(file):
        del file["embeddings"]
        file.create_dataset("embeddings", (19, 8), "<f4", external=[(str(tmp_path / "raw.bin"), 0, 19 * 8 * 4)])

    edit(cache_path, change)
    refuses(cache_path, "embeddings", "other files")


def test_a_virtual_dataset_is_refused(cache_path, refuses, tmp_path):
    shutil.copy(cache_path, tmp_path / "other.h5")

    def change(file):
        del file["embeddings"]
        layout = h5py.VirtualLayout((19, 8), "<f4")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "embeddings", (19, 8))
        file.create_virtual_dataset("embeddings", layout)

    edit(cache_path, change)
    refuses(cache_path, "embeddings", "other files")


def test_a_huge_claim_without_data_is_refused_before_memory_is_taken(cache_path, refuses):
    rows = 1 << 40

    def change(file):
        file.attrs["rows"] = rows
        del file["embeddings"]
        file.create_dataset("embeddings", (rows, 8), "<f4", chunks=(1024, 8))

    edit(cache_path, change)
    refuses(cache_path, f"expected ({rows}, ")


@pytest.mark.parametrize("name", ["label", "subjects", "landmarks"])
def test_a_small_dataset_with_a_huge_claim_is_refused(cache_path, refuses, name):
    def change(file):
        shape, dtype = (1 << 40, *file[name].shape[1:]), file[name].dtype
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=(1024, *shape[1:]), compression="gzip")

    edit(cache_path, change)
    refuses(cache_path, name, "for 19 rows" if name == "subjects" else "expected (19")


def test_a_group_in_the_place_of_a_dataset_is_refused(cache_path, refuses):
    def change(file):
        del file["label"]
        file.create_group("label")

    edit(cache_path, change)
    refuses(cache_path, "label", "group")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("label", 3, "-1 to 2"), ("label", -2, "-1 to 2"), ("video", 4, "0 to 3"), ("subject", -1, "0 to 3")],
)
def test_a_code_without_a_name_is_refused(cache_path, refuses, name, value, words):
    edit(cache_path, lambda file: file[name].__setitem__(5, value))
    refuses(cache_path, name, words)


def test_a_row_twice_is_refused_by_name(cache_path, refuses):
    edit(cache_path, lambda file: file["frame"].__setitem__(1, 0))
    refuses(cache_path, "subject 'Zoë', video 'v1', frame 0 twice")


def test_rows_out_of_order_are_refused(cache_path, refuses):
    edit(cache_path, lambda file: file["frame"].__setitem__(1, 99))
    refuses(cache_path, "frame 10 after", "frame 99")


@pytest.mark.parametrize("offsets", [[0, 7, 12, 13, 18], [0, 12, 7, 13, 19], [0, 7, 7, 13, 19], [1, 7, 12, 13, 19]])
def test_offsets_that_do_not_fit_the_rows_are_refused(cache_path, refuses, offsets):
    edit(cache_path, lambda file: file["subject_offsets"].__setitem__(slice(None), offsets))
    refuses(cache_path, "subject_offsets")


def test_repeated_subject_names_are_refused(cache_path, refuses):
    edit(cache_path, lambda file: replace(file, "subjects", np.array([b"Zo", b"s1", b"s1", b"s3"])))
    refuses(cache_path, "subjects", "repeated")


def test_names_that_are_no_utf8_are_refused(cache_path, refuses):
    edit(cache_path, lambda file: replace(file, "subjects", np.array([b"Zo", b"s1", b"s2", b"\xff\xfe"])))
    refuses(cache_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_refused_by_name(cache_path, refuses, value):
    edit(cache_path, lambda file: file["embeddings"].__setitem__((8, 3), value))
    refuses(cache_path, "embeddings", "subject 's1', video 'v1', frame 5")
    with open_cache(cache_path) as cache:
        assert len(cache.read(["s3"])) == 6
        with pytest.raises(CacheError, match="frame 5"):
            list(cache.iter_rows(100))
    assert any("1 of 19 rows" in problem for problem in verify_cache(cache_path))


def test_landmarks_missing_in_part_are_found(cache_path, refuses):
    edit(cache_path, lambda file: file["landmarks"].__setitem__((7, 3, 1), np.nan))
    refuses(cache_path, "landmarks", "subject 's1'", verify=True)


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        ("embeddings", (3, 3), 0.5),
        ("label", 0, 1),
        ("frame", 18, 1000),
        ("landmarks", (0, 0, 0), 0.5),
        ("paths", 7, b"elsewhere"),
    ],
)
def test_any_changed_value_breaks_the_digest(cache_path, refuses, name, where, value):
    edit(cache_path, lambda file: file[name].__setitem__(where, np.array(value).astype(file[name].dtype)))
    refuses(cache_path, "digest", verify=True)
    assert len(verify_cache(cache_path)) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("neutral", "happy"), ("classes", json.dumps(["neutral", "pain", "happy"])), ("digest", "0" * 64)],
)
def test_any_changed_setting_breaks_the_digest(cache_path, refuses, name, value):
    edit(cache_path, lambda file: file.attrs.__setitem__(name, value))
    refuses(cache_path, "digest", verify=True)


def test_a_foreign_dataset_is_found(cache_path, refuses):
    edit(cache_path, lambda file: file.__setitem__("extra", np.arange(3)))
    refuses(cache_path, "'extra'", verify=True)


def test_a_repacked_cache_is_the_same_cache(cache_path, tmp_path):
    """The digest is about the content: other chunks, compression and HDF5 version leave it as it is."""
    with h5py.File(cache_path) as old, h5py.File(tmp_path / "packed.h5", "w") as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for name, data in old.items():
            new.create_dataset(name, data=data[:], dtype=data.dtype, chunks=True, compression="gzip", shuffle=True)
    assert verify_cache(tmp_path / "packed.h5") == []


def test_a_cache_cut_short_anywhere_is_refused(cache_path, tmp_path, refuses):
    whole = cache_path.read_bytes()
    cut = tmp_path / "cut.h5"
    for size in [*range(0, len(whole), 397), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        refuses(cut)
        with pytest.raises(CacheError):
            verify_cache(cut)
        with pytest.raises(CacheError):
            inspect_cache(cut)


def test_a_bit_flipped_in_the_embeddings_is_refused_on_read(cache_path, tmp_path, refuses):
    whole = bytearray(cache_path.read_bytes())
    with h5py.File(cache_path) as file:
        chunk = file["embeddings"].id.get_chunk_info(0)
    for offset in range(chunk.byte_offset, chunk.byte_offset + chunk.size, 29):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << (offset % 8)
        (tmp_path / "flipped.h5").write_bytes(flipped)
        refuses(tmp_path / "flipped.h5", "embeddings", "damaged")


def test_a_bit_flipped_anywhere_is_refused_or_harmless(cache_path, tmp_path):
    """Never wrong data: what opens and verifies after a flip reads exactly as before."""
    whole = cache_path.read_bytes()
    with open_cache(cache_path) as cache:
        digest, before = cache.digest, cache.read()
    for offset in range(0, len(whole), 41):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << (offset % 8)
        (tmp_path / "flipped.h5").write_bytes(flipped)
        try:
            with open_cache(tmp_path / "flipped.h5", verify=True) as cache:
                after = cache.read()
                assert cache.digest == digest
        except CacheError:
            continue
        np.testing.assert_array_equal(after.embeddings, before.embeddings)
        np.testing.assert_array_equal(after.landmarks, before.landmarks)
        assert after.subjects == before.subjects

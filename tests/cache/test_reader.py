"""What was written is what is read, whole, by subject and in blocks; rows that are equal are told."""

import json
from contextlib import nullcontext
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featlab import ExtractorInfo, FeatureTable, open_cache, verify_cache, write_table
from featlab.cache.reader import inspect_cache
from featlab.cache.verify import check_cache
from featlab.cache.writer import CacheBuilder
from featlab.errors import CONTROL, CacheError


def same_rows(table, rows):
    np.testing.assert_array_equal(table.embeddings, rows.embeddings)
    np.testing.assert_array_equal(table.landmarks, rows.landmarks)
    np.testing.assert_array_equal(table.frame, rows.frame)
    for table_names, names, of in (
        (table.subjects, rows.subjects, "subject"),
        (table.videos, rows.videos, "video"),
        ((*table.classes, None), (*rows.classes, None), "label"),
    ):
        assert [table_names[code] for code in getattr(table, of)] == [names[code] for code in getattr(rows, of)]
    assert table.paths == rows.paths


def test_every_row_comes_back_as_it_was_written(cache_path, make_rows, extractor):
    with open_cache(cache_path, verify=True) as cache:
        assert (len(cache), cache.dim, cache.path, cache.has_landmarks) == (19, 8, cache_path, True)
        assert cache.subjects == ("Zoë", "s1", "s2", "s3")
        assert cache.videos == ("a b/c", "v1", "v2", "日本")
        assert (cache.classes, cache.neutral) == (("neutral", "happy", "pain"), "neutral")
        assert cache.extractor == extractor
        assert dict(cache.extractor.versions) == {"numpy": "2"}
        same_rows(cache.read(), make_rows())
    summary = inspect_cache(cache_path)
    assert summary.subjects == {"Zoë": 7, "s1": 5, "s2": 1, "s3": 6}
    assert summary.classes == {"neutral": 8, "happy": 6, "pain": 1}
    assert summary.unknown_labels == 4
    assert (summary.rows, summary.dim, summary.videos, summary.landmarks, summary.has_paths) == (19, 8, 5, 5, True)
    assert summary.to_dict()["extractor"]["id"] == "hog"


def test_a_subject_is_the_slice_of_its_source_rows(cache_path, make_rows):
    with open_cache(cache_path) as cache:
        same_rows(cache.read(["Zoë"]), make_rows(0, 1))
        same_rows(cache.read(["s2"]), make_rows(3))
        same_rows(cache.read(["s1", "s3"]), make_rows(2, 4))
        # In the file's order, each once, whatever the order they are named in.
        same_rows(cache.read(["s3", "Zoë", "s3"]), make_rows(0, 1, 4))
        assert len(cache.read([])) == 0
        with pytest.raises(CacheError, match=r"cache\.h5.*no subject 's11'.*'s1'"):
            cache.read(["s11"])
    with pytest.raises(CacheError, match=r"cache\.h5: was closed"):
        cache.read()


def test_what_is_not_there_is_none_and_float16_is_stored_as_such(build, make_rows, tmp_path):
    bare = {"landmarks": None, "paths": None, "faces": None, "label": np.full(5, -1, np.int16)}
    build(tmp_path / "c.h5", [(2,)], change=lambda rows: replace(rows, **bare))
    with open_cache(tmp_path / "c.h5", verify=True) as cache:
        table = cache.read()
        assert not cache.has_landmarks
    assert table.landmarks is table.paths is None
    assert table.label.tolist() == [-1] * 5
    path = build(tmp_path / "half.h5", dtype="float16")
    assert inspect_cache(path).dtype == "float16"
    with open_cache(path, verify=True) as cache:
        embeddings = cache.read().embeddings
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, make_rows().embeddings.astype(np.float16).astype(np.float32))


def test_blocks_add_up_to_the_whole_and_keep_to_the_budget(cache_path):
    with open_cache(cache_path) as cache:
        for subjects in (None, ["s3", "s1"]):
            whole = cache.read(subjects)
            for budget in (1, 500, 1000, 1 << 20):
                blocks = list(cache.iter_rows(byte_budget=budget, subjects=subjects))
                row = 4 * (8 + 10)
                assert all(len(block) * row <= budget or len(block) == 1 for block in blocks)
                for name in ("embeddings", "landmarks", "subject"):
                    joined = np.concatenate([getattr(block, name) for block in blocks])
                    np.testing.assert_array_equal(joined, getattr(whole, name))
                assert sum((block.paths for block in blocks), ()) == whole.paths


def test_a_table_is_written_sorted_and_without_unused_names(cache_path, make_rows, extractor, tmp_path, refused):
    with open_cache(cache_path) as cache:
        table, digest = cache.read(), cache.digest
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    with open_cache(write_table(tmp_path / "copy.h5", shuffled, extractor), verify=True) as copy:
        assert copy.digest == digest
        same_rows(copy.read(), make_rows())
    part = write_table(tmp_path / "part.h5", table.rows_of("s3", "s2"), extractor)
    with open_cache(part, verify=True) as cache:
        assert (cache.subjects, cache.videos) == (("s2", "s3"), ("a b/c", "日本"))
    for rows, words in (([], "has no row"), ([0, 1, 1], "second time")):
        with refused(CacheError, words):
            write_table(tmp_path / "none.h5", table.take(rows), extractor)
        assert not (tmp_path / "none.h5").exists()


def test_a_large_cache_of_many_chunks_comes_back_and_who_trained_the_backbone_is_kept(tmp_path, people):
    table, found = people(3, 1, 500, 300, landmarks=False), set()
    for people in (("c", "d"), ()):
        info = ExtractorInfo("pt2", "0" * 64, "96x96", trained_on=people)
        with open_cache(write_table(tmp_path / f"{len(people)}.h5", table, info), verify=True) as cache:
            np.testing.assert_array_equal(cache.read(["s01"]).embeddings, table.rows_of("s01").embeddings)
            np.testing.assert_array_equal(cache.read(["s01"]).frame, table.rows_of("s01").frame)
            assert cache.extractor.trained_on == people
            found.add(cache.extractor.fingerprint)
    assert len(found) == 1
    # The digest covers them, and one that an older featlab took did not.
    path = tmp_path / "2.h5"
    with h5py.File(path) as file, h5py.File(tmp_path / "0.h5") as nobody:
        info, now, old = json.loads(file.attrs["extractor"]), file.attrs["digest"], nobody.attrs["digest"]
    for digest, people, fits in (
        (now, ["c", "e"], False),
        (now, [], False),
        (now, ["c", "d"], True),
        (old, ["c"], True),
    ):
        with h5py.File(path, "r+") as file:
            file.attrs["digest"], file.attrs["extractor"] = digest, json.dumps({**info, "trained_on": people})
        with open_cache(path) as cache, nullcontext() if fits else pytest.raises(CacheError, match="not what was"):
            cache.read()
        assert (verify_cache(path) == []) == fits


names = st.text(min_size=1, max_size=8).filter(lambda name: not CONTROL.search(name))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(names, names, st.integers(-(2**31), 2**31 - 1)), min_size=1, max_size=20, unique_by=lambda row: row
    ),
    dim=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float16"]),
    seed=st.integers(0, 100),
)
def test_any_rows_written_are_read_and_sliced_back(tmp_path, rows, dim, dtype, seed):
    values = np.random.default_rng(seed).normal(size=(len(rows), dim)).astype(np.float32)
    ordered = sorted(range(len(rows)), key=lambda i: rows[i])
    path = tmp_path / "any.h5"
    named = {"classes": ("n",), "neutral": "n"}
    with CacheBuilder(path, extractor=ExtractorInfo("x", "none", "y"), dtype=dtype, **named) as builder:
        cut = seed % (len(rows) + 1)
        for key, part in (("one", ordered[:cut]), ("two", ordered[cut:])):
            subjects, videos, frames = ([rows[i][field] for i in part] for field in range(3))
            builder.write_shard(
                key, FeatureTable.named(values[part], ["n"] * len(part), subjects, videos, frames, **named)
            )
        builder.assemble(["one", "two"])
    assert verify_cache(path) == []
    with open_cache(path) as cache:
        for subject in cache.subjects:
            table = cache.read([subject])
            mine = [i for i in ordered if rows[i][0] == subject]
            np.testing.assert_array_equal(table.embeddings, values[mine].astype(dtype).astype(np.float32))
            found = [(table.videos[code], frame) for code, frame in zip(table.video, table.frame, strict=True)]
            assert found == [rows[i][1:] for i in mine]


PEOPLE, LABELS, TWICE, CHANCE = "of two people", "two labels", "there twice", "by chance"


@pytest.fixture
def found(people, tmp_path):
    """``found([(row, like), …], zeros=…)``: what is said of a cache in which some rows are as others are."""
    # s00 and s01, each with anger-0, anger-1, neutral-0 and neutral-1 of three frames.

    def make(*pairs, zeros=0, paths=False, known=True, landmarks=True, points=True):
        table = people(2, frames=3, dim=20, landmarks=landmarks)
        names = [f"{row}.png" for row in range(len(table))]
        if zeros:
            table.embeddings[:, zeros:] = 0
        if not known:
            table = replace(table, label=np.where(np.arange(len(table)) == pairs[0][0], -1, table.label).astype("i2"))
        for row, like in pairs:
            table.embeddings[row] = table.embeddings[like]
            names[row] = names[like]
            if landmarks and points:
                table.landmarks[row] = table.landmarks[like]
        table = replace(table, paths=tuple(names) if paths else None)
        told = check_cache(write_table(tmp_path / "c.h5", table, ExtractorInfo("a", "b", "c")))
        kinds = (CHANCE, PEOPLE, LABELS, TWICE)
        return [[next(kind for kind in kinds if kind in line) for line in lines] for lines in told]

    return make


def test_which_equal_rows_are_a_problem_a_warning_or_nothing(found):
    assert found() == [[], []]
    assert found((12, 0)) == [[PEOPLE], []]
    assert found((6, 0)) == [[LABELS], []]
    assert found((3, 0)) == [[], [TWICE]]
    assert found((12, 0), points=False) == [[], []], "the landmarks differ"
    assert found((6, 0), known=False) == [[], [TWICE]]
    assert found((12, 0), (13, 7), (6, 1), (3, 2), landmarks=False) == [[PEOPLE, LABELS], [TWICE]]
    assert found((1, 0), (2, 0)) == [[], []]
    assert found((1, 0), paths=True) == [[], [TWICE]]
    assert found((12, 0), zeros=3) == [[], [CHANCE]]
    assert found((12, 0), zeros=12) == [[PEOPLE], []]


def test_pictures_are_named_and_counted(people, extractor, tmp_path):
    table = people(2, frames=3, dim=20, landmarks=False)
    table.embeddings[12:15] = table.embeddings[:3]
    ((line,), _) = check_cache(write_table(tmp_path / "c.h5", table, extractor))
    first, second = (f"subject '{who}', video 'anger-0', frame 0, anger" for who in ("s00", "s01"))
    assert line.endswith(f"c.h5: the same picture is of two people: {first} and {second}, and 2 more like it")

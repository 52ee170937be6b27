"""A table of rows: what it refuses, how rows are taken out of it, and the one form of a name."""

import hashlib
import math
import unicodedata
from dataclasses import replace

import numpy as np
import pytest

from featlab import ExtractorInfo, FeatureTable
from featlab.cache.names import alike, spellings
from featlab.cache.schema import one_form
from featlab.cache.table import usable_rows
from featlab.errors import CacheError


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return FeatureTable(
        embeddings=rng.normal(size=(6, 3)).astype(np.float32),
        label=np.array([0, 1, -1, 0, 1, 1], np.int16),
        subject=np.array([0, 0, 1, 1, 3, 3], np.int32),
        video=np.array([0, 0, 1, 1, 0, 1], np.int32),
        frame=np.arange(6, dtype=np.int32),
        subjects=("anna", "ben", "nobody", "carl"),
        videos=("v0", "v1", "v2"),
        classes=("neutral", "pain"),
        neutral="neutral",
        landmarks=rng.normal(size=(6, 4, 2)).astype(np.float32),
        paths=tuple("abcdef"),
    )


def test_a_table_that_does_not_fit_together_is_refused(table, refused):
    for change, words in (
        ({"embeddings": np.zeros((6, 3))}, "embeddings of dtype float32, got float64"),
        ({"embeddings": np.zeros(6, np.float32)}, "embeddings of shape"),
        ({"label": np.zeros(6, np.int64)}, "label of dtype int16, got int64"),
        ({"label": np.zeros(5, np.int16)}, "label of shape (6), got (5,)"),
        ({"label": np.full(6, 2, np.int16)}, "label codes"),
        ({"label": np.full(6, -2, np.int16)}, "label codes"),
        ({"subject": np.full(6, 4, np.int32)}, "subject codes"),
        ({"video": np.full(6, -1, np.int32)}, "video codes"),
        ({"landmarks": np.zeros((6, 4, 3), np.float32)}, "landmarks of shape (6, any, 2)"),
        ({"paths": ("a",)}, "6 paths"),
        ({"prompts": np.zeros((3, 3), np.float32)}, "prompts of shape (2, 3)"),
        ({"neutral": "happy"}, "'happy'"),
    ):
        with refused(CacheError, words):
            replace(table, **change)


def test_every_column_takes_the_same_rows(table):
    mask = np.array([True, False, True, False, False, True])
    for index in (mask, np.array([0, 2, 5]), [0, 2, 5], np.array([0, 2, 5], np.uint8)):
        part = table.take(index)
        assert (part.paths, part.subjects) == (("a", "c", "f"), table.subjects)
        for name in ("embeddings", "label", "subject", "video", "frame", "landmarks"):
            np.testing.assert_array_equal(getattr(part, name), getattr(table, name)[[0, 2, 5]])
    assert table.take(slice(1, 3)).paths == ("b", "c")
    assert np.shares_memory(table.take(slice(1, 3)).embeddings, table.embeddings)
    assert table.take([5, 0, 0]).paths == ("f", "a", "a")
    assert (len(table.take([])), table.take([]).paths, table.take([]).dim) == (0, (), 3)


def test_rows_of_and_without_split_a_table_in_two_and_it_knows_what_it_holds(table, refused):
    assert (len(table), table.dim, table.neutral_code) == (6, 3, 0)
    assert (table.subject_names_present(), table.video_names_present()) == (("anna", "ben", "carl"), ("v0", "v1"))
    assert table.describe_row(4) == "subject 'carl', video 'v0', frame 4"
    assert table.rows_of("carl", "anna").paths == ("a", "b", "e", "f")
    assert table.without("carl", "anna").paths == ("c", "d")
    assert table.rows_of("ben").paths == ("c", "d")
    assert np.shares_memory(table.rows_of("ben").embeddings, table.embeddings), "rows side by side are not copied"
    assert (len(table.rows_of("nobody")), len(table.rows_of()), len(table.without())) == (0, 0, 6)
    for choose in (table.rows_of, table.without):
        for name, *words in (("ana", "no subject 'ana'", "did you mean 'anna'"), ("xyz", "there are 4: 'anna'")):
            with refused(CacheError, *words):
                choose(name)


def test_the_fingerprint_is_about_features_and_not_about_library_versions():
    info = ExtractorInfo("hog", "none", "grey 96x96")
    content = '{"id":"hog","layers":[],"preprocessing":"grey 96x96","weights":"none"}'
    assert info.fingerprint == hashlib.sha256(content.encode()).hexdigest()
    assert replace(info, versions={"numpy": "9"}).fingerprint == info.fingerprint


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_row_is_usable_when_each_of_its_values_is(dtype):
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype(dtype)
    with np.errstate(over="ignore"):
        odd = np.array([np.nan, np.inf, -np.inf, 1e15, -1e15, 1.1e15, -2e15, 1e30]).astype(dtype)
    for row, value in enumerate(odd):
        rows[row, row % 4] = value
    most = float(np.float32(1e15))
    expected = [all(math.isfinite(value) and abs(value) <= most for value in row) for row in rows.tolist()]
    assert usable_rows(rows).tolist() == expected
    assert usable_rows(rows[:0]).tolist() == []


APART = unicodedata.normalize("NFD", "Zoë")


def test_a_name_has_one_form_however_it_was_typed():
    for name in ("Zoë", APART, " Zoë", "Zoë\u00a0", "\ufeffZoë\u200b", f"\t{APART}\n"):
        assert one_form(name) == "Zoë"
    assert one_form("a  b") == "a  b"


def test_spellings_that_differ_in_case_zeros_blanks_or_width_alone_are_told():
    for group in ("Neutral neutral", "001 1", "a__b a_b", "a_b a\u00a0b", "s01 s1", "1 １"):
        group = [name.replace("_", " ") for name in group.split(" ")]
        assert spellings([*group, "other", *group]) == [sorted(group)]
    for names in (["10", "1", "100", "101"], ["1-1", "11"], ["ab", "a b"], ["s1", "s10"]):
        assert spellings(names) == []
    assert alike({"subject": ["1", "01"], "label": ["a", "A"]}) == "subject '01', '1'; label 'A', 'a'"
    many = [f"{number:0{digits}}" for number in range(20) for digits in (3, 4)]
    assert alike({"subject": many}).endswith("and 8 more")

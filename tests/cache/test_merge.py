"""Several caches of one extractor become one: the same rows, under one set of codes, or one clear line."""

import itertools
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest

import featlab.cache.merge
from featlab import ExtractorInfo, open_cache, verify_cache, write_table
from featlab.cache.forget import remove_subjects
from featlab.cache.merge import merge_caches
from featlab.cache.reader import inspect_cache
from featlab.errors import CacheError

CLASSES = ("neutral", "happy", "pain")
FIRST, SECOND = (0, 1), (2, 3, 4)
"""Videos of Zoë, and of s1, s2 and s3."""


@pytest.fixture
def make(tmp_path, build):
    """``make("a.h5", 0, 1)``: a cache of some of the videos, all without any."""

    def made(name, *videos, **options):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        return build(tmp_path / name, [videos], **options)

    return made


@pytest.fixture
def pair(make):
    return make("raf.h5", *FIRST), make("fer.h5", *SECOND)


def read(path):
    with open_cache(path) as cache:
        return cache.read()


def test_the_merged_cache_is_the_one_that_one_extraction_of_all_would_have_given(pair, tmp_path, make, digest):
    whole = make("whole.h5")
    for name, order in (("one.h5", pair), ("other.h5", pair[::-1])):
        merged = merge_caches(order, tmp_path / name).path
        assert verify_cache(merged) == []
        assert digest(merged) == digest(whole)
        assert np.array_equal(read(merged).embeddings, read(whole).embeddings)


def test_each_caches_subjects_are_listed_beside_it_and_rows_come_block_by_block(pair, tmp_path, monkeypatch):
    told, sizes, real = [], [], featlab.cache.merge.encode_table

    def spy(rows, *rest):
        sizes.append(len(rows))
        return real(rows, *rest)

    monkeypatch.setattr(featlab.cache.merge, "encode_table", spy)
    report = merge_caches(pair, tmp_path / "both.h5", on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (19, 19)
    assert told == sorted(told)
    assert sum(sizes) == 19
    assert len(sizes) >= 2
    assert (tmp_path / "both.raf.subjects.txt").read_text(encoding="utf-8") == "Zoë\n"
    assert (tmp_path / "both.fer.subjects.txt").read_text(encoding="utf-8").split() == ["s1", "s2", "s3"]
    assert [(item.rows, item.subjects) for item in report.inputs] == [(7, ("Zoë",)), (12, ("s1", "s2", "s3"))]


def test_a_prefix_keeps_people_of_one_name_apart(make, tmp_path, refused):
    one, same = make("a/raf.h5", *FIRST), make("fer.h5", *FIRST)
    shifted = make("other.h5", *FIRST, change=lambda rows: replace(rows, embeddings=rows.embeddings + 1))
    out = tmp_path / "both.h5"
    # The same rows twice are refused; other rows of people with the same names are not.
    for paths, prefix, words in (
        ((one, same), True, "holds the same rows"),
        ((one, shifted), False, "both have the subject 'Zoë'; --prefix"),
    ):
        with refused(CacheError, words):
            merge_caches(paths, out, prefix=prefix)
    merged = read(merge_caches((one, shifted), out, prefix=True).path)
    assert merged.subject_names_present() == ("other/Zoë", "raf/Zoë")


def test_classes_are_united_by_name_after_they_are_renamed(make, tmp_path, refused, digest):
    one, whole = make("one.h5", *FIRST), make("whole.h5")
    other = make("other.h5", *SECOND, classes=("neutral", "joy", "pain"))
    apart = merge_caches((one, other), tmp_path / "apart.h5")
    assert read(apart.path).classes == ("neutral", "happy", "pain", "joy")
    assert any("'joy'" in note and "none in" in note for note in apart.notes)
    together = merge_caches((one, other), tmp_path / "together.h5", rename={"joy": "happy"}).path
    assert read(together).classes == CLASSES
    assert digest(together) == digest(whole)
    calm = make("calm.h5", *SECOND, classes=("calm", "happy", "pain"), neutral="calm")
    for paths, rename, *words in (
        ((one, other), {"jox": "happy"}, "--rename jox=happy: no cache has that class"),
        ((one, calm), {}, "neutral class is 'calm'", "--rename calm=neutral"),
    ):
        with refused(CacheError, *words):
            merge_caches(paths, tmp_path / "both.h5", rename=rename)
    assert read(merge_caches((one, calm), tmp_path / "both.h5", rename={"calm": "neutral"}).path).neutral == "neutral"


def test_names_that_may_be_one_are_told_and_one_person_in_two_forms_is_refused(make, tmp_path, refused):
    def called(name):
        return lambda rows: replace(rows, subjects=(name,), embeddings=rows.embeddings + 1)

    one = make("one.h5", 0, 1)
    assert merge_caches((one, make("two.h5", 3)), tmp_path / "a.h5").warnings == ()
    loud = make("loud.h5", 3, change=called("ZOË"), classes=("neutral", "Happy", "pain"))
    (line,) = merge_caches((one, loud), tmp_path / "b.h5").warnings
    assert line.startswith("names that may be one: subject 'ZOË', 'Zoë'; class 'Happy', 'happy'; --rename OLD=NEW")
    with refused(CacheError, "both have the subject"):
        merge_caches((one, make("apart.h5", 3, change=called("Zoe\u0308"))), tmp_path / "d.h5")


def test_half_precision_stays_where_all_have_it_and_what_only_one_has_is_left_out(make, tmp_path, digest):
    half, other_half = make("half.h5", *FIRST, dtype="float16"), make("other.h5", *SECOND, dtype="float16")
    full = make("full.h5", *SECOND)
    both = merge_caches((half, other_half), tmp_path / "halves.h5").path
    mixed = merge_caches((half, full), tmp_path / "mixed.h5").path
    assert digest(both) == digest(make("whole.h5", dtype="float16"))
    np.testing.assert_array_equal(read(mixed).embeddings, [*read(half).embeddings, *read(full).embeddings])
    assert both.stat().st_size < mixed.stat().st_size
    no_more = {"landmarks": None, "faces": None}
    bare = make("bare.h5", *SECOND, change=lambda rows: replace(rows, **no_more))
    report = merge_caches((make("one.h5", *FIRST), bare), tmp_path / "both.h5")
    assert (read(report.path).landmarks, read(report.path).faces) == (None, None)
    for what in ("landmarks", "faces"):
        assert any(note.startswith(f"{what} are left out") for note in report.notes)


def test_texts_of_the_classes_travel_with_the_rows(make, extractor, tmp_path, refuses, digest):
    texts = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    whole, plain = make("whole.h5", prompts=texts), make("plain.h5")
    assert digest(whole) != digest(plain)
    assert read(plain).prompts is None
    table = read(whole)
    with open_cache(whole) as cache:
        np.testing.assert_array_equal(next(cache.iter_rows(1)).without("s1").prompts, texts)
        assert digest(write_table(tmp_path / "again.h5", table, cache.extractor)) == cache.digest
    told = replace(extractor, about={"prompts": "a {label}"})
    one = make("one.h5", *FIRST, prompts=texts, extractor=told)
    for name, others, kept in (("near", texts * (1 + 1e-6), True), ("far", texts + 1, False), ("none", None, False)):
        other = make(f"{name}.h5", *SECOND, prompts=others, extractor=told)
        report = merge_caches((one, other), tmp_path / f"{name}-both.h5")
        assert (read(report.path).prompts is not None) == kept
        assert any("texts of the classes are left out" in note for note in report.notes) != kept
        assert ("prompts" in inspect_cache(report.path).extractor.about) == kept
    remove_subjects(whole, ["s1"])
    np.testing.assert_array_equal(read(whole).prompts, texts)
    with h5py.File(whole, "r+") as file:
        file["prompts"][0] += 1
    refuses(whole, "not what was written", verify=True)


def test_features_of_two_extractors_never_meet_and_who_trained_the_backbone_is_kept(make, extractor, tmp_path):
    one = make("hog.h5", *FIRST)
    other = make("small.h5", *SECOND, extractor=ExtractorInfo("hog", "none", "grey 48x48", layers=("stem.0",)))
    with pytest.raises(CacheError, match=r"was made by hog \(\w{12}\), .* by hog \(\w{12}\)"):
        merge_caches((one, other), tmp_path / "both.h5")
    seen = replace(extractor, trained_on=("Zoë", "s3"))
    paths = make("one.h5", *FIRST, extractor=seen), make("other.h5", *SECOND, extractor=seen)
    with open_cache(merge_caches(paths, tmp_path / "both.h5").path) as cache:
        assert cache.extractor.trained_on == ("Zoë", "s3")
        assert cache.extractor.fingerprint == extractor.fingerprint


def test_what_is_no_merge_is_refused_and_a_merge_that_is_stopped_leaves_nothing(pair, tmp_path, refused, monkeypatch):
    out = tmp_path / "both.h5"
    out.write_bytes(b"mine")
    before = pair[0].read_bytes()
    for paths, to, force, words in (
        (pair[:1], out, True, "two caches or more"),
        ((pair[0], pair[0]), out, True, "would be called"),
        ((pair[0], tmp_path / "missing.h5"), out, True, "missing.h5"),
        (pair, pair[0], True, "one of the caches to merge"),
        (pair, out, False, "exists; --force"),
    ):
        with refused(CacheError, words):
            merge_caches(paths, to, force=force)
        assert (out.read_bytes(), pair[0].read_bytes()) == (b"mine", before)

    def stop():
        raise KeyboardInterrupt

    # Killed at any of its three renames, or stopped by an edited cache, it can be made again by the same words.
    real = os.replace
    for place in range(3):
        again, renames = tmp_path / f"again{place}.h5", itertools.count()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *names: real(*names) if next(renames) < place else stop())  # noqa: B023
            with pytest.raises(KeyboardInterrupt):
                merge_caches(pair, again)
        merge_caches(pair, again)
    with h5py.File(pair[1], "r+") as file:
        file["label"][0] ^= 1
    with refused(CacheError, str(pair[1]), "not what was written"):
        merge_caches(pair, tmp_path / "edited.h5")
    assert not (tmp_path / "edited.h5").exists()
    with h5py.File(pair[1], "r+") as file:
        file["label"][0] ^= 1
    merge_caches(pair, out, force=True)
    assert read(out).embeddings.tolist() == read(again).embeddings.tolist()
    assert len(read(out)) == 19

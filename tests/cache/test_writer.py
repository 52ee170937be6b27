"""Shards survive a kill, what does not fit is refused, and the target is whole or not there."""

import errno
from dataclasses import replace

import numpy as np
import pytest

from featlab import ExtractorInfo
from featlab.cache.writer import CacheBuilder
from featlab.errors import CacheError, UnreadableError


@pytest.fixture
def new_builder(tmp_path, extractor):
    opened = []

    def make(**changes):
        settings = {"extractor": extractor, "classes": ("neutral", "happy", "pain"), "neutral": "neutral", **changes}
        opened.append(CacheBuilder(tmp_path / "cache.h5", **settings))
        return opened[-1]

    yield make
    for builder in opened:
        builder.close()


@pytest.fixture
def refuses(tmp_path, refused):
    """``refuses("words", builder.assemble, keys)``: one line that names the cache and holds the words."""

    def check(words, call, *arguments, **options):
        with refused(CacheError, words, str(tmp_path / "cache.h5")):
            call(*arguments, **options)

    return check


def test_the_digest_does_not_depend_on_the_shards_and_the_same_rows_give_the_same_bytes(build, tmp_path, digest):
    one = build(tmp_path / "a.h5")
    assert build(tmp_path / "b.h5").read_bytes() == one.read_bytes()
    for layout in (((0,), (1,), (2,), (3,), (4,)), ((0, 1), (2, 3), (4,)), ((0,), (1, 2, 3, 4))):
        assert digest(build(tmp_path / "b.h5", layout)) == digest(one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_a_finished_shard_is_kept_for_the_next_run_of_the_same_settings(new_builder, make_rows, extractor):
    first = new_builder()
    first.write_shard("a", make_rows(0), [])
    first.close()
    for change, there in (
        ({"dtype": "float16"}, False),
        ({"classes": ("neutral", "pain", "happy")}, False),
        ({"extractor": ExtractorInfo("hog", "0" * 64, "grey 96x96", layers=("stem.0",))}, False),
        ({"neutral": "pain"}, False),
        ({"extractor": replace(extractor, versions={"numpy": "3"})}, True),
    ):
        other = new_builder(**change)
        assert other.has_shard("a") == there, change
        other.close()
    second = new_builder()
    assert second.has_shard("a")
    assert not second.has_shard("b")
    second.write_shard("b", make_rows(1), [])
    assert second.assemble(["a", "b"]).exists()


def test_a_damaged_shard_counts_as_absent(new_builder, make_rows, tmp_path):
    builder = new_builder()
    builder.write_shard("a", make_rows(), [])
    (shard,) = (tmp_path / "cache.h5.shards").glob("*.h5")
    whole = shard.read_bytes()
    middle = whole.index(make_rows().embeddings[3].tobytes())
    flipped = whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]
    for content in (whole[: len(whole) // 2], flipped, b"hello", b""):
        shard.write_bytes(content)
        assert not builder.has_shard("a")
        with pytest.raises(CacheError):
            builder.assemble(["a"])
    builder.write_shard("a", make_rows(), [])
    assert builder.has_shard("a")


def test_failures_travel_with_their_shard_and_any_nan_means_no_face(new_builder, make_rows, build, tmp_path, digest):
    expected = [{"path": "x.png", "error": "no image"}, {"path": "ü.png", "error": "empty"}]
    rows = make_rows()
    rows.landmarks[np.isnan(rows.landmarks)] = np.array([0xFFC00001], np.uint32).view(np.float32)[0]
    first = new_builder()
    first.write_shard("a", rows, expected[:1])
    first.write_shard("b", rows.take([]), expected[1:])
    first.close()
    second = new_builder()
    assert second.failures(["a", "b"]) == expected
    assert digest(second.assemble(["a", "b"])) == digest(build(tmp_path / "b.h5"))


def test_shards_that_make_no_cache_are_refused(new_builder, make_rows, cache_path, tmp_path, refuses):
    before = cache_path.read_bytes()
    builder = new_builder()
    for key, rows in {
        "none": make_rows(1).take([]),
        "wide": make_rows(1, dim=9),
        "pathless": replace(make_rows(1), paths=None),
        **{f"{number}": make_rows(number) for number in range(4)},
        "again": make_rows(3),
    }.items():
        builder.write_shard(key, rows, [])
    order = "must ascend by subject, video and frame"
    for keys, words in (
        (["none"], "every item failed"),
        (["0", "b"], "shard 'b' is missing"),
        (["0", "wide"], "shard 'wide' holds embeddings of dim 9, shard '0' of dim 8"),
        (["0", "pathless"], "only one of shard '0' and shard 'pathless' has paths"),
        (["1", "0"], order),
        (["0", "2", "1"], order),
        (["3", "again"], "shard 'again' holds subject 's2', video '日本', frame 0 a second time"),
    ):
        refuses(words, builder.assemble, keys)
    assert cache_path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.h5", "cache.h5.shards"]


def test_rows_that_do_not_fit_are_refused(new_builder, make_rows, refuses):
    builder, rows = new_builder(), make_rows(0)
    nan, partial = rows.embeddings.copy(), rows.landmarks.copy()
    nan[2, 1] = partial[0, 0, 0] = np.nan
    for change, words in (
        ({"embeddings": nan}, "subject 'Zoë', video 'v1', frame 10: its embedding is not finite"),
        ({"embeddings": np.full_like(nan, 1e30)}, "above 1e+15"),
        ({"subjects": ("",)}, "'' is no subject name"),
        ({"videos": ("a\0",)}, "is no video name"),
        ({"paths": ("\udcff", *rows.paths[1:])}, "UTF-8"),
        ({"landmarks": partial}, "frame 0: its landmarks"),
    ):
        refuses(words, builder.write_shard, "a", replace(rows, **change))
        assert not builder.has_shard("a")
    builder.close()
    rows.embeddings[3, 0] = 70000
    half = new_builder(dtype="float16")
    refuses("frame 15: its embedding is too large for float16", half.write_shard, "a", rows)


def test_settings_and_places_that_make_no_sense_are_refused(new_builder, tmp_path, extractor, refused):
    for change, words in (
        ({"classes": ()}, "classes"),
        ({"classes": ("neutral", "neutral")}, "twice"),
        ({"neutral": "neutrl"}, "did you mean 'neutral'"),
        ({"dtype": "float64"}, "float32, float16"),
    ):
        with refused(CacheError, words):
            new_builder(**change)
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "file").write_text("")
    for name, words in (("folder.h5", "folder of that name"), ("file/cache.h5", "can't be made")):
        with refused(CacheError, words):
            CacheBuilder(tmp_path / name, extractor=extractor, classes=["neutral"])


@pytest.mark.parametrize("supported", [True, False])
def test_a_second_writer_is_refused_until_the_first_is_done(new_builder, make_rows, refuses, monkeypatch, supported):
    def unsupported(lock, **options):
        raise OSError(errno.ENOLCK, "no locks available")

    if not supported:
        monkeypatch.setattr("featlab.cache.writer.FileLock.acquire", unsupported)
    first = new_builder()
    refuses("another run is writing this cache; wait" if supported else "lock.held", new_builder)
    first.close()
    second = new_builder()
    second.write_shard("a", make_rows(), [])
    refuses("another run", new_builder)
    assert not second.assemble(["a"]).with_name("cache.h5.shards").exists()
    assert not new_builder().has_shard("a")


def test_a_shard_that_the_system_cannot_read_stops_the_run(new_builder, make_rows, refused, monkeypatch):
    first = new_builder()
    first.write_shard("a", make_rows(), [])

    def fails(*args, **options):
        raise OSError("file read failed: errno = 5, error message = 'x'")

    first.close()
    builder = new_builder()
    monkeypatch.setattr("featlab.cache.hdf5.h5py.File", fails)
    for ask in (lambda: builder.has_shard("a"), lambda: builder.assemble(["a"])):
        with refused(UnreadableError, "can't be read (Input/output error)"):
            ask()

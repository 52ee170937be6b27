"""Features in NumPy's files, with a manifest or without."""

import numpy as np
import pytest

from featlab.cache import open_cache
from featlab.errors import FeatlabError
from featlab.extraction.tables.rows import Selection


@pytest.fixture
def manifest(tmp_path, people, tools):
    return tools.write_csv(tmp_path / "manifest.csv", people, features=False)


def save(path, people, /, **changes):
    arrays = {"embeddings": people.features}
    arrays |= {name: np.array(getattr(people, name)) for name in ("subject", "label", "video", "frame")}
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def test_an_array_and_its_manifest_come_back_as_they_were(tmp_path, people, tools, manifest, run):
    for dtype in ("<f4", ">f4", "<f8"):
        for order in "CF":
            np.save(tmp_path / "features.npy", people.features.astype(dtype, order=order))
            report = run(tmp_path / "features.npy", manifest=manifest, if_exists="overwrite")
            tools.check_cache(report.path, people)
            assert report.extractor.preprocessing == "3 imported values without names"
    np.savez(tmp_path / "x.npz", X=people.features)
    tools.check_cache(run(tmp_path / "x.npz", manifest=manifest, out=tmp_path / "npz.h5").path, people)
    np.save(tmp_path / "whole.npy", np.arange(32).reshape(16, 2))
    with open_cache(run(tmp_path / "whole.npy", manifest=manifest, out=tmp_path / "whole.h5").path) as cache:
        assert sorted(cache.read().embeddings[:, 0].tolist()) == list(range(0, 32, 2))


def test_an_npz_says_all_by_itself(tmp_path, people, tools, run):
    for features, plural in (("embeddings", ""), ("features", "s"), ("X", "s")):
        names = {name + plural: np.array(getattr(people, name)) for name in ("subject", "label", "video", "frame")}
        np.savez(tmp_path / "all.npz", **{features: people.features}, **names)
        tools.check_cache(run(tmp_path / "all.npz", if_exists="overwrite").path, people)
    np.savez(tmp_path / "x.npz", X=np.ones((2, 1)), subject=[7.0, 11.0], label=[b"rest", "Zoë".encode()])
    with open_cache(run(tmp_path / "x.npz", if_exists="overwrite").path) as cache:
        assert (cache.subjects, cache.classes) == (("11", "7"), ("rest", "Zoë"))


def test_landmarks_paths_and_column_names_go_with_their_rows(tmp_path, people, run):
    rng = np.random.default_rng(1)
    rows = len(people.subject)
    points = rng.normal(size=(rows, 5, 2)).astype(np.float32)
    points[3, 2, 1] = np.nan
    source = save(
        tmp_path / "x.npz",
        people,
        landmarks=points,
        path=np.array([f"img/{row}.png" for row in range(rows)]),
        columns=np.array(people.columns),
        speed=np.zeros(3),
    )
    report = run(source)
    assert report.notes == ("not read: speed",)
    with open_cache(report.path) as cache:
        table = cache.read()
    order = [int(path.removeprefix("img/").removesuffix(".png")) for path in table.paths]
    assert sorted(order) == list(range(rows))
    points[3] = np.nan
    np.testing.assert_array_equal(table.embeddings, people.features[order])
    np.testing.assert_array_equal(table.landmarks, points[order])


def test_the_same_rows_give_the_same_digest_whatever_file_they_come_in(tmp_path, people, tools, card, run):
    named = save(tmp_path / "x.npz", people, columns=np.array(people.columns))
    digests = {run(source, out=tmp_path / f"{n}.h5").digest for n, source in enumerate((card, named))}
    assert len(digests) == 1
    assert run(save(tmp_path / "y.npz", people), out=tmp_path / "y.h5").digest not in digests


def test_arrays_that_do_not_fit_are_one_line(tmp_path, people, run, refused):
    for changes, *words in (
        ({"embeddings": None}, "expected one array of features: embeddings, features, X", "subject"),
        ({"X": np.ones((16, 2))}, "expected one array of features"),
        ({"embeddings": np.ones(16)}, "embeddings has shape (16,)"),
        ({"embeddings": np.ones((16, 0))}, "shape (16, 0)"),
        ({"embeddings": np.ones((16, 2), dtype=complex)}, "complex128"),
        ({"embeddings": np.array([["1", "2"]] * 16)}, "embeddings", "expected numbers"),
        ({"subject": None}, "no column 'subject'", "--manifest"),
        ({"subject": np.array(["a"] * 15)}, "subject has 15 values", "16 rows"),
        ({"subject": np.array([["a"]] * 16)}, "subject has shape (16, 1)"),
        ({"subjects": np.array(["a"] * 16)}, "both 'subject' and 'subjects'"),
        ({"label": np.array(["a", None] * 8, dtype=object)}, "pickled objects", "dtype=str"),
        ({"label": np.array([b"\xff"] * 16)}, "label", "aren't UTF-8"),
        ({"columns": np.array(["a", "b"])}, "names 2 columns", "have 3"),
        ({"landmarks": np.ones((16, 5))}, "landmarks has shape (16, 5)", "(rows, P, 2)"),
        ({"landmarks": np.ones((15, 5, 2))}, "landmarks has 15 rows"),
        ({"X": np.full((16, 3), np.nan), "embeddings": None}, "row 0", "value 0 is missing or NaN", "15 more rows"),
    ):
        source = save(tmp_path / "x.npz", people, **changes)
        with refused(FeatlabError, "x.npz", *words):
            run(source)


def test_a_damaged_file_is_one_line(tmp_path, manifest, run, refused):
    for suffix in (".npy", ".npz"):
        path = tmp_path / f"x{suffix}"
        for content in (b"", b"no array", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00"):
            path.write_bytes(content)
            with refused(FeatlabError, path.name, "numpy.save"):
                run(path, manifest=manifest)
    np.save(tmp_path / "x.npy", np.array([[1, None]] * 16, dtype=object), allow_pickle=True)
    with refused(FeatlabError, "isn't a .npy array of numbers"):
        run(tmp_path / "x.npy", manifest=manifest)


def test_an_array_needs_a_manifest_of_its_length_and_has_no_columns(tmp_path, people, manifest, run, refused):
    np.save(tmp_path / "x.npy", people.features[:-1])
    with refused(FeatlabError, "features alone", "--manifest"):
        run(tmp_path / "x.npy")
    with refused(FeatlabError, "manifest.csv has 16 rows", "x.npy has 15"):
        run(tmp_path / "x.npy", manifest=manifest)
    with refused(FeatlabError, "no columns to choose from"):
        run(tmp_path / "x.npy", manifest=manifest, selection=Selection("f0"))


def test_a_manifest_in_another_order_is_noticed_where_both_name_the_rows(
    tmp_path, people, tools, manifest, run, refused
):
    people.subject.reverse()
    people.frame.reverse()
    with refused(FeatlabError, "manifest.csv, line ", "and in ", "same order"):
        run(save(tmp_path / "x.npz", people), manifest=manifest)


def test_a_malformed_manifest_is_one_line(tmp_path, people, run, refused):
    np.save(tmp_path / "x.npy", people.features)
    for text, *words in (
        ("path,label\na,b", "no column 'subject'", "found: path, label"),
        ("subject,label", "a header and no rows"),
        ("", "is empty"),
        ("subject;label\na;b", "separate the columns with commas"),
    ):
        (tmp_path / "m.csv").write_text(text)
        with refused(FeatlabError, "m.csv", *words):
            run(tmp_path / "x.npy", manifest=tmp_path / "m.csv")

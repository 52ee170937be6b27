import numpy as np
import pytest

from featlab.errors import FeatlabError
from featlab.extraction.tables.rows import Selection


@pytest.fixture
def manifest(people, write_csv):
    return write_csv("manifest.csv", people, features=False)


@pytest.fixture
def save(tmp_path, people):
    """``save(speed=…)``: all of the people in x.npz, changed; a None leaves an array out."""

    def write(**changes):
        arrays = {"embeddings": people.features} | {name: np.array(values) for name, values in people.names.items()}
        np.savez(tmp_path / "x.npz", **{name: x for name, x in (arrays | changes).items() if x is not None})
        return tmp_path / "x.npz"

    return write


def test_an_array_and_its_manifest_come_back_as_they_were(tmp_path, people, check_cache, manifest, run, read):
    for dtype in ("<f4", ">f4", "<f8"):
        for order in "CF":
            np.save(tmp_path / "features.npy", people.features.astype(dtype, order=order))
            report = run(tmp_path / "features.npy", manifest=manifest, if_exists="overwrite")
            check_cache(report, people)
            assert report.extractor.preprocessing == "3 imported values without names"
    np.savez(tmp_path / "x.npz", X=people.features)
    check_cache(run(tmp_path / "x.npz", manifest=manifest, out="npz.h5"), people)
    np.save(tmp_path / "whole.npy", np.arange(32).reshape(16, 2))
    table = read(run(tmp_path / "whole.npy", manifest=manifest, out="whole.h5"))
    assert sorted(table.embeddings[:, 0].tolist()) == list(range(0, 32, 2))


def test_an_npz_says_all_by_itself(tmp_path, people, check_cache, card, save, run, read):
    for features, plural in (("embeddings", ""), ("features", "s"), ("X", "s")):
        names = {name + plural: np.array(values) for name, values in people.names.items()}
        np.savez(tmp_path / "all.npz", **{features: people.features}, **names)
        check_cache(run(tmp_path / "all.npz", if_exists="overwrite"), people)
    np.savez(tmp_path / "x.npz", X=np.ones((2, 1)), subject=[7.0, 11.0], label=[b"rest", "Zoë".encode()])
    table = read(run(tmp_path / "x.npz", if_exists="overwrite"))
    assert (table.subjects, table.classes) == (("11", "7"), ("rest", "Zoë"))
    # The same rows give the same digest as from a csv, when the columns have the same names.
    digest = run(card, out="csv.h5").digest
    assert run(save(columns=np.array(people.columns)), out="named.h5").digest == digest
    assert run(save(), out="plain.h5").digest != digest


def test_landmarks_paths_and_column_names_go_with_their_rows(people, save, run, read):
    points = np.random.default_rng(1).normal(size=(16, 5, 2)).astype(np.float32)
    points[3, 2, 1] = np.nan
    paths = np.array([f"img/{row}.png" for row in range(16)])
    report = run(save(landmarks=points, path=paths, columns=np.array(people.columns), speed=np.zeros(3)))
    assert report.notes == ("not read: speed",)
    table = read(report)
    order = [int(path.removeprefix("img/").removesuffix(".png")) for path in table.paths]
    assert sorted(order) == list(range(16))
    points[3] = np.nan
    np.testing.assert_array_equal(table.embeddings, people.features[order])
    np.testing.assert_array_equal(table.landmarks, points[order])


def test_arrays_that_do_not_fit_are_one_line(save, run, refused):
    for changes, *words in (
        ({"embeddings": None}, "expected one array of features: embeddings, features, X", "subject"),
        ({"X": np.ones((16, 2))}, "expected one array of features"),
        ({"embeddings": np.ones(16)}, "embeddings has shape (16,)"),
        ({"embeddings": np.ones((16, 0))}, "shape (16, 0)"),
        ({"embeddings": np.ones((16, 2), dtype=complex)}, "complex128"),
        ({"embeddings": np.array([["1", "2"]] * 16)}, "embeddings", "expected numbers"),
        ({"subject": None}, "no column 'subject'", "--manifest"),
        ({"subject": np.array(["a"] * 15)}, "subject has 15 rows", "16 rows"),
        ({"subject": np.array([["a"]] * 16)}, "subject has shape (16, 1)"),
        ({"subjects": np.array(["a"] * 16)}, "both 'subject' and 'subjects'"),
        ({"label": np.array(["a", None] * 8, dtype=object)}, "pickled objects", "dtype=str"),
        ({"label": np.array([b"\xff"] * 16)}, "label", "aren't UTF-8"),
        ({"columns": np.array(["a", "b"])}, "names 2 columns", "have 3"),
        ({"landmarks": np.ones((16, 5))}, "landmarks has shape (16, 5)", "(rows, P, 2)"),
        ({"landmarks": np.ones((15, 5, 2))}, "landmarks has 15 rows"),
        ({"X": np.full((16, 3), np.nan), "embeddings": None}, "row 0", "value 0 is missing or NaN", "15 more rows"),
    ):
        with refused(FeatlabError, "x.npz", *words):
            run(save(**changes))


def test_a_damaged_file_is_one_line(tmp_path, manifest, run, refused):
    for path in (tmp_path / "x.npy", tmp_path / "x.npz"):
        for content in (b"", b"no array", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00"):
            path.write_bytes(content)
            with refused(FeatlabError, path.name, "numpy.save"):
                run(path, manifest=manifest)
    np.save(tmp_path / "x.npy", np.array([[1, None]] * 16, dtype=object), allow_pickle=True)
    with refused(FeatlabError, "isn't a .npy array of numbers"):
        run(tmp_path / "x.npy", manifest=manifest)


def test_an_array_needs_a_manifest_of_its_own_rows(tmp_path, people, manifest, save, put, run, refused):
    path = tmp_path / "x.npy"
    np.save(path, people.features[:-1])
    for options, *words in (
        ({}, "features alone", "--manifest"),
        ({"manifest": manifest}, "manifest.csv has 16 rows", "x.npy has 15"),
        ({"manifest": manifest, "selection": Selection("f0")}, "fits no column", "features"),
    ):
        with refused(FeatlabError, *words):
            run(path, **options)
    np.save(path, people.features)
    for text, *words in (
        ("path,label\na,b", "no column 'subject'", "found: path, label"),
        ("subject,label", "a header and no rows"),
    ):
        with refused(FeatlabError, "m.csv", *words):
            run(path, manifest=put("m.csv", text))
    # Where both name the rows, another order is noticed.
    people.names["subject"].reverse()
    people.names["frame"].reverse()
    with refused(FeatlabError, "manifest.csv, line ", "and in ", "same order"):
        run(save(), manifest=manifest)

"""Files whose values have types: .npy, .npz, .parquet."""

import numpy as np
import pyarrow as arrow
import pytest

from featlab.errors import FeatlabError
from featlab.extraction.tables.rows import Selection


@pytest.fixture
def manifest(people, save):
    return save("manifest.csv", people.names)


@pytest.fixture
def arrays(people):
    return {"embeddings": people.features, **people.names}


def test_an_array_and_its_manifest_come_back_as_they_were(tmp_path, people, check_cache, manifest, run, read):
    for dtype in ("<f4", ">f4", "<f8"):
        for order in "CF":
            np.save(tmp_path / "features.npy", people.features.astype(dtype, order=order))
            report = run(tmp_path / "features.npy", manifest=manifest)
            check_cache(report)
            assert report.extractor.preprocessing == "3 imported values without names"
    np.savez(tmp_path / "x.npz", X=people.features)
    check_cache(run(tmp_path / "x.npz", manifest=manifest))
    np.save(tmp_path / "whole.npy", np.arange(32).reshape(16, 2))
    assert sorted(read(run(tmp_path / "whole.npy", manifest=manifest)).embeddings[:, 0]) == list(range(0, 32, 2))


def test_an_npz_says_all_by_itself(tmp_path, people, arrays, check_cache, card, save, run, read):
    for features, plural in (("embeddings", ""), ("features", "s"), ("X", "s")):
        names = {name + plural: values for name, values in people.names.items()}
        check_cache(run(save("all.npz", names, **{features: people.features})))
    np.savez(tmp_path / "x.npz", X=np.ones((2, 1)), subject=[7.0, 11.0], label=[b"rest", "Zoë".encode()])
    table = read(run(tmp_path / "x.npz"))
    assert (table.subjects, table.classes) == (("11", "7"), ("rest", "Zoë"))
    # The same rows give the same digest as from a csv, when the columns have the same names.
    digest = run(card).digest
    assert run(save("named.npz", arrays, columns=["f0", "f1", "f2"])).digest == digest
    assert run(save("plain.npz", arrays)).digest != digest


def test_landmarks_paths_and_column_names_go_with_their_rows(people, arrays, save, run, read):
    points = np.random.default_rng(1).normal(size=(16, 5, 2)).astype(np.float32)
    points[3, 2, 1] = np.nan
    more = {"path": [f"img/{row}.png" for row in range(16)], "columns": ["a", "b", "c"], "speed": np.zeros(3)}
    report = run(save("x.npz", arrays | more, landmarks=points))
    assert (report.notes, report.columns) == (("not read: speed",), ("a", "b", "c"))
    table = read(report)
    order = [int(path.removeprefix("img/").removesuffix(".png")) for path in table.paths]
    assert sorted(order) == list(range(16))
    points[3] = np.nan
    np.testing.assert_array_equal(table.embeddings, people.features[order])
    np.testing.assert_array_equal(table.landmarks, points[order])


def test_a_column_a_feature_or_one_of_lists_comes_back_from_parquet(people, columns, card, check_cache, save, run):
    for kind in (arrow.float32(), arrow.float64()):
        typed = {name: arrow.array(columns[name], type=kind) for name in ("f0", "f1", "f2")}
        report = run(save("x.parquet", columns | typed))
        check_cache(report)
        assert (report.notes, report.digest) == ((), run(card, out="csv.h5").digest)
    for kind in (arrow.list_(arrow.float32()), arrow.large_list(arrow.float64()), arrow.list_(arrow.float32(), 3)):
        lists = arrow.array(people.features.tolist(), type=kind)
        report = run(save("x.parquet", people.names | {"age": [40] * 16, "embedding": lists}))
        check_cache(report)
        assert report.notes == ("not features: age",)
        assert "without names" in report.extractor.preprocessing


def test_categories_numbers_and_nulls_are_names_and_a_null_is_a_bad_row(save, run, read, refused):
    names = {
        "subject": [1, 2, 3],
        "label": arrow.array(["rest", None, "smile"]).dictionary_encode(),
        "frame": arrow.array([4.0, None, 6.0]),
    }
    features = {"half": arrow.array(np.array([1, 2, 3], dtype=np.float16)), "count": arrow.array([1, 2, 3])}
    table = read(run(save("x.parquet", names | features)))
    assert (table.subjects, table.frame.tolist(), table.label.tolist()) == (("1", "2", "3"), [4, 0, 6], [0, -1, 1])
    assert table.embeddings.tolist() == [[1, 1], [2, 2], [3, 3]]
    for column in ([1.0, None, 3.0], [1, None, 3], [[1.0, 2.0], None, [3.0, 4.0]]):
        source = save("x.parquet", names, x=column)
        with refused(FeatlabError, "x.parquet, row 1", "missing or NaN"):
            run(source)
        assert read(run(source, skip_bad=True)).embeddings[:, 0].tolist() == [1, 3]


def test_a_chosen_list_is_taken_among_several(people, save, run, refused):
    source = save("x.parquet", people.names, a=[[1.0, 2.0]] * 16, b=[[3.0]] * 16)
    with refused(FeatlabError, "'a' doesn't hold one number a row"):
        run(source, selection=Selection("a,b"))
    assert run(source, selection=Selection("b")).dim == 1


def test_what_does_not_fit_is_one_line(arrays, save, run, refused):
    for changes, *words in (
        ({"embeddings": None}, "expected one array of features: embeddings, features, X", "subject"),
        ({"X": np.ones((16, 2))}, "expected one array of features"),
        ({"embeddings": np.ones(16)}, "embeddings has shape (16,)"),
        ({"embeddings": np.ones((16, 0))}, "shape (16, 0)"),
        ({"embeddings": np.ones((16, 2), dtype=complex)}, "complex128"),
        ({"embeddings": [["1", "2"]] * 16}, "embeddings", "expected numbers"),
        ({"subject": None}, "no column 'subject'", "--manifest"),
        ({"subject": ["a"] * 15}, "subject has 15 rows", "16 rows"),
        ({"subject": [["a"]] * 16}, "subject has shape (16, 1)"),
        ({"subjects": ["a"] * 16}, "both 'subject' and 'subjects'"),
        ({"label": np.array(["a", None] * 8, dtype=object)}, "pickled objects", "dtype=str"),
        ({"label": [b"\xff"] * 16}, "label", "aren't UTF-8"),
        ({"columns": ["a", "b"]}, "names 2 columns", "have 3"),
        ({"landmarks": np.ones((16, 5))}, "landmarks has shape (16, 5)", "(rows, P, 2)"),
        ({"landmarks": np.ones((15, 5, 2))}, "landmarks has 15 rows"),
        ({"X": np.full((16, 3), np.nan), "embeddings": None}, "row 0", "value 0 is missing or NaN", "15 more rows"),
    ):
        with refused(FeatlabError, "x.npz", *words):
            run(save("x.npz", arrays, **changes))
    for columns, *words in (
        ({"subject": ["s", "t"], "x": [[1.0], [2.0, 3.0]]}, "row 1", "list of 2 values", "earlier ones have 1"),
        ({"subject": ["s"], "x": arrow.array([[]], type=arrow.list_(arrow.float32()))}, "row 0", "no values"),
        ({"subject": arrow.array([], arrow.string()), "x": arrow.array([], arrow.float32())}, "no rows"),
        ({"subject": [None], "x": [1.0]}, "row 0", "the subject is empty"),
        ({"subject": ["s"], "x": ["one"]}, "no column of numbers"),
    ):
        with refused(FeatlabError, "x.parquet", *words):
            run(save("x.parquet", columns))


def test_a_damaged_file_is_one_line(tmp_path, manifest, run, refused):
    contents = (b"", b"no array", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00", b"PAR1", b"PAR1 not really PAR1")
    for name, says in (("x.npy", "numpy.save"), ("x.npz", "numpy.save"), ("x.parquet", "can't be read as parquet")):
        for content in contents:
            (tmp_path / name).write_bytes(content)
            with refused(FeatlabError, name, says):
                run(tmp_path / name, manifest=manifest)
    np.save(tmp_path / "x.npy", np.array([[1, None]] * 16, dtype=object), allow_pickle=True)
    with refused(FeatlabError, "isn't a .npy array of numbers"):
        run(tmp_path / "x.npy", manifest=manifest)


def test_an_array_needs_a_manifest_of_its_own_rows(tmp_path, people, arrays, manifest, save, put, run, refused):
    path = tmp_path / "x.npy"
    np.save(path, people.features[:-1])
    for options, *words in (
        ({}, "features alone", "--manifest"),
        ({"manifest": manifest}, "manifest.csv has 16 rows", "x.npy has 15"),
        ({"manifest": manifest, "selection": Selection("f0")}, "fits no column", "features"),
        ({"manifest": put("m.csv", "path,label\na,b")}, "m.csv", "no column 'subject'", "found: path, label"),
        ({"manifest": put("n.csv", "subject,label")}, "n.csv", "a header and no rows"),
    ):
        with refused(FeatlabError, *words):
            run(path, **options)
    listed = put("o.csv", "Subject;LABEL", *["s;rest"] * 15)
    assert run(path, manifest=listed).rows == 15
    # Where both name the rows, another order is noticed.
    people.names["subject"].reverse()
    people.names["frame"].reverse()
    with refused(FeatlabError, "manifest.csv, line ", "and in ", "same order"):
        run(save("x.npz", arrays, **people.names), manifest=manifest)

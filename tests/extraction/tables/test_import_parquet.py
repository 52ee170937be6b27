"""Features in a parquet file."""

import sys

import numpy as np
import pytest

from featlab.cache import open_cache
from featlab.errors import FeatlabError
from featlab.extraction.tables.rows import Selection

arrow = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'", exc_type=ImportError)
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'", exc_type=ImportError)


def save(path, people, columns):
    names = {name: getattr(people, name) for name in ("subject", "label", "video", "frame")}
    parquet.write_table(arrow.table(names | columns), path)
    return path


def by_column(people):
    return {name: people.features[:, place] for place, name in enumerate(people.columns)}


def test_a_column_a_feature_or_one_of_lists_comes_back_as_it_was_written(tmp_path, people, tools, run):
    for kind in (arrow.float32(), arrow.float64()):
        columns = {name: arrow.array(values, type=kind) for name, values in by_column(people).items()}
        report = run(save(tmp_path / "x.parquet", people, columns), if_exists="overwrite")
        tools.check_cache(report.path, people)
        assert report.notes == ()
    for kind in (arrow.list_(arrow.float32()), arrow.large_list(arrow.float64()), arrow.list_(arrow.float32(), 3)):
        lists = arrow.array(people.features.tolist(), type=kind)
        source = save(tmp_path / "x.parquet", people, {"age": [40] * 16, "embedding": lists})
        report = run(source, if_exists="overwrite")
        tools.check_cache(report.path, people)
        assert report.notes == ("not features: age",)
        assert "without names" in report.extractor.preprocessing


def test_csv_and_parquet_give_the_same_digest_and_many_rows_come_back_in_batches(tmp_path, people, card, run):
    source = save(tmp_path / "x.parquet", people, by_column(people))
    assert run(card, out=tmp_path / "a.h5").digest == run(source, out=tmp_path / "b.h5").digest
    values = np.arange(18002.0).reshape(9001, 2)
    names = {"subject": ["s"] * 9001, "label": ["rest"] * 9001}
    parquet.write_table(arrow.table(names | {"x": arrow.array(values.tolist())}), source)
    with open_cache(run(source).path) as cache:
        assert np.array_equal(cache.read().embeddings, values)


def test_categories_numbers_and_nulls_are_names(tmp_path, run):
    columns = {
        "subject": [1, 2, 3],
        "label": arrow.array(["rest", None, "smile"]).dictionary_encode(),
        "frame": arrow.array([4.0, None, 6.0]),
        "half": arrow.array(np.array([1, 2, 3], dtype=np.float16)),
        "count": arrow.array([1, 2, 3]),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
    report = run(tmp_path / "x.parquet")
    with open_cache(report.path) as cache:
        table = cache.read()
    assert (table.subjects, table.frame.tolist()) == (("1", "2", "3"), [4, 0, 6])
    assert table.label.tolist() == [0, -1, 1]
    assert table.embeddings.tolist() == [[1, 1], [2, 2], [3, 3]]


def test_a_null_is_a_bad_row(tmp_path, run, refused):
    lists = [[1.0, 2.0], None, [3.0, 4.0]]
    for column in (arrow.array([1.0, None, 3.0]), arrow.array([1, None, 3]), arrow.array(lists)):
        parquet.write_table(
            arrow.table({"subject": ["s"] * 3, "label": ["rest"] * 3, "x": column}), tmp_path / "x.parquet"
        )
        with refused(FeatlabError, "x.parquet, row 1", "missing or NaN"):
            run(tmp_path / "x.parquet", if_exists="overwrite")
        report = run(tmp_path / "x.parquet", skip_bad=True, if_exists="overwrite")
        with open_cache(report.path) as cache:
            assert cache.read().embeddings[:, 0].tolist() == [1, 3]


def test_a_chosen_list_is_taken_among_several(tmp_path, people, run, refused):
    columns = {"a": arrow.array([[1.0, 2.0]] * 16), "b": arrow.array([[3.0]] * 16)}
    source = save(tmp_path / "x.parquet", people, columns)
    with refused(FeatlabError, "no column of numbers"):
        run(source)
    with refused(FeatlabError, "'a' doesn't hold one number a row"):
        run(source, selection=Selection("a,b"))
    assert run(source, selection=Selection("b")).dim == 1


def test_a_table_that_does_not_fit_is_one_line(tmp_path, run, refused, monkeypatch):
    path, empty = tmp_path / "x.parquet", arrow.array([[]], type=arrow.list_(arrow.float32()))
    for columns, *words in (
        ({"subject": ["s", "t"], "x": [[1.0], [2.0, 3.0]]}, "row 1", "list of 2 values", "earlier ones have 1"),
        ({"subject": ["s"], "x": empty}, "row 0", "no values"),
        ({"subject": arrow.array([], arrow.string()), "x": arrow.array([], arrow.float32())}, "no rows"),
        ({"name": ["s"], "x": [1.0]}, "no column 'subject'", "name"),
        ({"subject": [None], "x": [1.0]}, "row 0", "the subject is empty"),
        ({"subject": ["s"], "x": ["1.0"]}, "no column of numbers"),
    ):
        parquet.write_table(arrow.table(columns), path)
        with refused(FeatlabError, "x.parquet", *words):
            run(path)
    for content in (b"", b"PAR1", b"PAR1 not really PAR1", b"subject,label\n"):
        path.write_bytes(content)
        with refused(FeatlabError, "x.parquet can't be read as parquet"):
            run(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with refused(FeatlabError, "pip install 'featlab[parquet]'"):
        run(path)

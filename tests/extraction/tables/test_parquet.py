import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

from featlab.errors import FeatlabError
from featlab.extraction.tables.rows import Selection


@pytest.fixture
def save(tmp_path):
    def write(columns):
        parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
        return tmp_path / "x.parquet"

    return write


def test_a_column_a_feature_or_one_of_lists_comes_back_as_it_was_written(people, card, check_cache, save, run):
    by_column = dict(zip(people.columns, people.features.T, strict=True))
    for kind in (arrow.float32(), arrow.float64()):
        columns = {name: arrow.array(values, type=kind) for name, values in by_column.items()}
        report = run(save(people.names | columns), if_exists="overwrite")
        check_cache(report, people)
        assert (report.notes, report.digest) == ((), run(card, out="csv.h5").digest)
    for kind in (arrow.list_(arrow.float32()), arrow.large_list(arrow.float64()), arrow.list_(arrow.float32(), 3)):
        lists = arrow.array(people.features.tolist(), type=kind)
        report = run(save(people.names | {"age": [40] * 16, "embedding": lists}), if_exists="overwrite")
        check_cache(report, people)
        assert report.notes == ("not features: age",)
        assert "without names" in report.extractor.preprocessing


def test_categories_numbers_and_nulls_are_names(save, run, read):
    columns = {
        "subject": [1, 2, 3],
        "label": arrow.array(["rest", None, "smile"]).dictionary_encode(),
        "frame": arrow.array([4.0, None, 6.0]),
        "half": arrow.array(np.array([1, 2, 3], dtype=np.float16)),
        "count": arrow.array([1, 2, 3]),
    }
    table = read(run(save(columns)))
    assert (table.subjects, table.frame.tolist()) == (("1", "2", "3"), [4, 0, 6])
    assert table.label.tolist() == [0, -1, 1]
    assert table.embeddings.tolist() == [[1, 1], [2, 2], [3, 3]]


def test_a_null_is_a_bad_row(save, run, read, refused):
    lists = [[1.0, 2.0], None, [3.0, 4.0]]
    for column in (arrow.array([1.0, None, 3.0]), arrow.array([1, None, 3]), arrow.array(lists)):
        source = save({"subject": ["s"] * 3, "label": ["rest"] * 3, "x": column})
        with refused(FeatlabError, "x.parquet, row 1", "missing or NaN"):
            run(source, if_exists="overwrite")
        table = read(run(source, skip_bad=True, if_exists="overwrite"))
        assert table.embeddings[:, 0].tolist() == [1, 3]


def test_a_chosen_list_is_taken_among_several(people, save, run, refused):
    source = save(people.names | {"a": arrow.array([[1.0, 2.0]] * 16), "b": arrow.array([[3.0]] * 16)})
    with refused(FeatlabError, "lists (a, b) or 0 columns of numbers", "--columns"):
        run(source)
    with refused(FeatlabError, "'a' doesn't hold one number a row"):
        run(source, selection=Selection("a,b"))
    assert run(source, selection=Selection("b")).dim == 1


def test_a_table_that_does_not_fit_is_one_line(save, run, refused):
    empty = arrow.array([[]], type=arrow.list_(arrow.float32()))
    for columns, *words in (
        ({"subject": ["s", "t"], "x": [[1.0], [2.0, 3.0]]}, "row 1", "list of 2 values", "earlier ones have 1"),
        ({"subject": ["s"], "x": empty}, "row 0", "no values"),
        ({"subject": arrow.array([], arrow.string()), "x": arrow.array([], arrow.float32())}, "no rows"),
        ({"subject": [None], "x": [1.0]}, "row 0", "the subject is empty"),
        ({"subject": ["s"], "x": ["one"]}, "no column of numbers"),
    ):
        path = save(columns)
        with refused(FeatlabError, "x.parquet", *words):
            run(path)
    for content in (b"", b"PAR1", b"PAR1 not really PAR1", b"subject,label\n"):
        path.write_bytes(content)
        with refused(FeatlabError, "x.parquet can't be read as parquet"):
            run(path)

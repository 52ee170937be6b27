"""Pages of results: what is written is read back, what is damaged is named, and figure, numbers and page agree."""

import csv
import json

import pytest

from featlab.analysis.page import DrawnFigure, PageFigure, read_page, read_table, write_page
from featlab.analysis.style import figure
from featlab.analysis.table import Table
from featlab.errors import InputError

TABLE = Table(
    title="Scores & more",
    columns=("Setting", "Method", "F1"),
    rows=(("A", "one", "70.1"), ("A", "two", "–")),
    bold=((False, False, True), (False, False, False)),
    notes=("A note.",),
    text_columns=2,
    grouped=True,
)


@pytest.fixture
def written(tmp_path):
    drawn = figure()
    drawn.subplots().plot([1, 2], [0.25, 0.5])
    return write_page(
        tmp_path / "results" / "made",
        kind="ablate",
        title="A title",
        words=["It says <this>."],
        command="featlab ablate dims",
        tables={"scores": TABLE},
        figures=[DrawnFigure(PageFigure("lines", "Lines", "A caption."), drawn, {"x": [1, 2], "y": [0.25, 0.5]})],
        facts={"cache_digest": "abc"},
    )


def test_a_page_is_read_back(written):
    folder = written[-1].parent
    page = read_page(folder)
    assert (page.kind, page.title, page.words) == ("ablate", "A title", ("It says <this>.",))
    assert page.command == "featlab ablate dims"
    assert page.figures == (PageFigure("lines", "Lines", "A caption."),)
    assert page.facts == {"cache_digest": "abc"}
    assert read_table(folder, page.tables[0]) == TABLE


def test_every_file_is_there_and_the_page_comes_last(written):
    endings = {path.suffix for path in written if path.stem == "lines"}
    assert endings == {".svg", ".pdf", ".png", ".csv"}
    assert written[-1].name == "page.json"
    assert all(path.is_file() for path in written)
    with (written[-1].parent / "lines.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"x": "1", "y": "0.25"}, {"x": "2", "y": "0.5"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": 1}', "damaged"),
        ('{"format": 99}', "another version"),
        (None, "can't be read"),
    ],
)
def test_a_page_that_is_no_page_is_named(written, text, words):
    path = written[-1]
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words) as error:
        read_page(path.parent)
    assert "page.json" in str(error.value)
    assert "again" in str(error.value)


def test_a_table_that_is_damaged_is_named(written):
    folder = written[-1].parent
    data = json.loads((folder / "table_scores.json").read_text(encoding="utf-8"))
    del data["rows"]
    (folder / "table_scores.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=r"table_scores\.json: damaged"):
        read_table(folder, "scores")
    with pytest.raises(InputError, match="can't be read"):
        read_table(folder, "other")

"""featlab import."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from featlab.cache import open_cache
from featlab.cli.app import FeatlabGroup
from featlab.cli.importing import import_features


@pytest.fixture
def run():
    """Types `featlab import …`, without the other commands."""
    app = typer.Typer(cls=FeatlabGroup)
    app.command("import")(import_features)

    @app.callback()
    def featlab() -> None:
        """An app with one command, called by its name."""

    return lambda *words: CliRunner().invoke(app, ["import", *words])


@pytest.fixture
def card(tmp_path, monkeypatch):
    """8 rows of 2 people in features.csv."""
    lines = ["subject,label,video,frame,f0,f1"]
    for subject in ("anna", "bo"):
        for label in ("rest", "smile"):
            lines += [f"{subject},{label},{label},{frame},{frame / 8},{len(lines)}" for frame in range(2)]
    (tmp_path / "features.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "features.csv"


def test_the_users_card(card, run):
    result = run("features.csv", "--neutral", "rest", "--out", "cache.h5")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    for words in (
        "cache.h5",
        "rows       8",
        "subjects   2",
        "videos     4",
        "rest, smile",
        "imported: 2 imported columns",
    ):
        assert words in result.stdout
    with open_cache(card.parent / "cache.h5") as cache:
        assert (len(cache), cache.dim, cache.neutral) == (8, 2, "rest")


def test_json_is_one_object(card, run):
    result = run("features.csv", "--neutral", "rest", "--extractor", "mine", "--dtype", "float16", "--json")
    data = json.loads(result.stdout)
    assert (data["path"], data["rows"], data["dim"], data["extractor"]) == ("cache.h5", 8, 2, "mine")
    assert data["failures_file"] is None
    assert data["float16_error"] == 0
    again = json.loads(
        run("features.csv", "--neutral", "rest", "--extractor", "mine", "--dtype", "float16", "--json").stdout
    )
    assert (again["was_there"], again["digest"]) == (True, data["digest"])


def test_what_was_decided_is_said_and_quiet_is_quiet(card, run):
    card.write_text("subject,label,sex,f\nanna,rest,f,1\nanna,smile,f,2\n")
    result = run("features.csv", "--neutral", "rest")
    assert result.stderr.splitlines() == [
        "import: not features: sex",
        "import: no row names a video: all rows of a subject with one label are taken as one, in the rows' order",
    ]
    assert run("features.csv", "--neutral", "rest", "--if-exists", "overwrite", "--quiet").stderr == ""


def test_left_out_rows_are_listed_and_end_in_3(card, run):
    with card.open("a") as file:
        file.write("bo,smile,smile,7,nan,1\n")
    result = run("features.csv", "--neutral", "rest", "--skip-bad", "--json")
    assert result.exit_code == 3
    data = json.loads(result.stdout)
    assert (data["rows"], data["failures"]) == (8, 1)
    assert "features.csv#row=8: f0 is missing" in result.stderr
    assert "features.csv#row=8" in (card.parent / data["failures_file"]).read_text()


def test_a_manifest_and_landmarks_and_columns(card, run):
    np.save("x.npy", np.ones((8, 3)))
    np.save("points.npy", np.ones((8, 2, 2)))
    result = run("x.npy", "--manifest", "features.csv", "--neutral", "rest", "--landmarks", "points.npy", "--json")
    assert (json.loads(result.stdout)["dim"], json.loads(result.stdout)["landmarks"]) == (3, 2)
    result = run("features.csv", "--columns", "f1", "--neutral", "rest", "--out", "one.h5", "--json")
    assert json.loads(result.stdout)["dim"] == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nosuch.csv",), "nosuch.csv"),
        (("features.csv",), "--neutral NAME"),
        (("features.csv", "--neutral", "rest", "--columns", "g"), "fits no column"),
        (("features.csv", "--neutral", "rest", "--features", "lips"), "--columns"),
        (("features.csv", "--neutral", "rest", "--dtype", "int8"), "float16"),
        (("features.csv", "--neutral", "rest", "--if-exists", "no"), "overwrite"),
        (("features.csv", "--neutral", "rest", "--manifest", "no.csv"), "no.csv"),
        (("features.csv", "--neutral", "rest", "--landmarks", "no.npy"), "no.npy"),
    ],
)
def test_a_refusal_is_one_line_and_ends_in_2(card, run, words, expected):
    result = run(*words)
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout, len(lines)) == (2, "", 1), result.output
    assert lines[0].startswith("featlab: error: ")
    assert expected in lines[0]
    assert not (card.parent / "cache.h5").exists()

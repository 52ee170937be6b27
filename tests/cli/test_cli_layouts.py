from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner, Result

from featlab.cli.data import layouts
from featlab.errors import ConfigError


def run(*words: str) -> Result:
    app = typer.Typer()
    app.command()(layouts)
    return CliRunner().invoke(app, list(words))


def test_every_layout_has_a_line() -> None:
    from featlab.extraction.layouts import layout_names

    result = run()
    assert result.exit_code == 0
    for name in layout_names():
        assert f" {name} " in result.stdout


def test_one_layout_shows_its_tree_and_its_options() -> None:
    result = run("biovid")
    assert result.exit_code == 0
    assert "071309_w_21-BL1-081.mp4" in result.stdout
    assert "levels=BL1,PA4" in result.stdout
    assert "merge=true" in result.stdout
    assert "from 2 to 5 s" in result.stdout


def test_a_layout_without_options_shows_none() -> None:
    result = run("folders")
    assert result.exit_code == 0
    assert "Options" not in result.stdout
    assert "every frame" in result.stdout


def test_json_has_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.loads(run("--json").stdout)
    by_name = {entry["name"]: entry for entry in data["layouts"]}
    assert by_name["biovid"]["sampling"] == {"fps": None, "window": [2.0, 5.0], "stride": 1}
    assert by_name["biovid"]["options"]["levels"]["default"] == ["BL1", "PA4"]
    one = json.loads(run("stressid", "--json").stdout)
    assert one["neutral"] == "neutral"
    assert "labels.csv" in one["description"]


def test_an_unknown_layout_is_refused() -> None:
    result = run("biovit")
    assert isinstance(result.exception, ConfigError)
    assert "did you mean 'biovid'" in str(result.exception)

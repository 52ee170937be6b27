"""The tutorials run from nothing, print what is stored in them, and the text beside it says the same numbers."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra site")
NotebookClient = pytest.importorskip("nbclient", reason="needs the extra site").NotebookClient

TUTORIALS = sorted((Path(__file__).parents[2] / "docs/tutorials").glob("*.ipynb"))
NUMBER = r"-?\d+(?:\.\d+)?"


def printed(notebook: Any) -> list[str]:
    """What each cell prints."""
    cells = [cell.get("outputs", []) for cell in notebook["cells"]]
    return ["".join("".join(out.get("text", "")) for out in outputs) for outputs in cells]


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_prints_what_it_shows(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    stored = nbformat.read(path, as_version=4)
    again = nbformat.from_dict(json.loads(json.dumps(stored)))
    NotebookClient(again, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    for shown, seen in zip(printed(stored), printed(again), strict=True):
        numbers, fresh = (list(map(float, re.findall(NUMBER, text))) for text in (shown, seen))
        assert re.sub(NUMBER, "#", shown) == re.sub(NUMBER, "#", seen)
        # Another processor rounds otherwise: a frame or two may fall on the other side.
        assert fresh == pytest.approx(numbers, abs=6)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_the_text_of_a_tutorial_says_the_numbers_that_it_prints(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in stored["cells"] if cell["cell_type"] == "markdown")
    numbers = set(re.findall(NUMBER, "\n".join(printed(stored))))
    assert set(re.findall(rf"\*\*({NUMBER})\*\*", text)) <= numbers

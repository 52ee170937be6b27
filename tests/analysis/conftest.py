"""Workspaces of drawn people, pages read back, and a look at the text of a figure."""

import csv
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from featlab import ExtractorInfo, FeatureTable, write_table
from featlab.analysis.page import Page, Result, read_page, read_table, write_result
from featlab.workspace.workspace import Workspace

QUICK = {"head.epochs": 2, "head.bottleneck": 6, "pretrain.epochs": 1, "features.dim": 8, "pretrain.validation": False}
"""Training in a moment."""


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``opened(table, **{"section.key": value})``: a workspace with these rows in a folder of its own."""

    def make(table: FeatureTable, **values: Any) -> Workspace:
        root = tmp_path_factory.mktemp("workspace")
        write_table(root / "cache.h5", table, ExtractorInfo("toy", "none", "random numbers"))
        return Workspace.open(root, QUICK | values)

    return make


@pytest.fixture(scope="session")
def readable() -> Any:
    """``readable(figure)``: draws without a warning of a layout that does not fit; no text is cut, covered or tiny."""

    def check(figure: Figure) -> Figure:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure.canvas.draw()
        hidden: set[Any] = set()
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            ticks = [
                tick.label1
                for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
                if low <= tick.get_loc() <= high
            ]
            hidden |= set(axis.findobj(Text)).difference([axis.label, *ticks] if axis.axes.axison else [])
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
        boxes = [(text, text.get_window_extent()) for text in texts if text not in hidden]
        page = figure.bbox.padded(1.0)
        for text, box in boxes:
            assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
            assert page.y0 <= box.y0 <= box.y1 <= page.y1, text
            assert text.get_fontsize() >= 6.5, text
        straight = [(text, box.padded(-1.5)) for text, box in boxes if box.width and text.get_rotation() % 90 == 0]
        assert not [(a, b) for (a, one), (b, other) in combinations(straight, 2) if one.overlaps(other)]
        return figure

    return check


@pytest.fixture
def stored(tmp_path: Path) -> Any:
    """``stored(result)``: writes it, finds each figure's numbers in its csv and each table in its json; the page."""

    def check(result: Result, folder: Path = tmp_path) -> Page:
        write_result(folder, result, "featlab it")
        page = read_page(folder)
        assert (page.kind, page.title, page.command) == (result.kind, result.title, "featlab it")
        assert (page.summary, page.tables) == (tuple(result.summary), tuple(result.tables))
        assert [figure.name for figure in page.figures] == [figure.name for figure in result.figures]
        for figure in result.figures:
            assert all((folder / f"{figure.name}.{ending}").stat().st_size for ending in ("svg", "csv"))
            with (folder / f"{figure.name}.csv").open(encoding="utf-8", newline="") as file:
                head, *lines = csv.reader(file)
            assert head == list(figure.data)
            numbers = zip(*figure.data.values(), strict=True)
            assert lines == [["" if value is None else str(value) for value in line] for line in numbers]
        for name, table in result.tables.items():
            assert read_table(folder, name) == table
        return page

    return check

"""The report in a headless browser, where there is one: `benchmarks/report_in_browser.py` on a small report."""

import importlib.util
from pathlib import Path

import pytest

from featlab.analysis import style
from featlab.analysis.page import DrawnFigure, Result, write_result
from featlab.analysis.report.collect import read_report
from featlab.analysis.report.page import write_report
from featlab.analysis.table import Table

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "report_in_browser.py"
CELLS = ("–", "<0.001", "0.001", "failed", "78.3 [70, 81]", "-3.2", "\u221212", "1,234", "12/3/1", "61.2*", "+4 [1, 9]")


@pytest.fixture(scope="module")
def browser():
    if not SCRIPT.is_file():
        pytest.skip("the benchmarks are not here")
    spec = importlib.util.spec_from_file_location("report_in_browser", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if lacking := module.missing():
        pytest.skip(lacking)
    return module


def small_report(folder):
    names = [f"s{number}" for number in (10, 9, 1, 100)] + ["<b>&\"'", "é", "E", "z", "a_b/c.d", "f", "G"]
    columns = ("Setting", "Method", *(f"participant_{number:04}_session_2" for number in range(15)))
    rows = tuple(
        (f"Group {place // 3}", name, *(CELLS[(place * step + step) % len(CELLS)] for step in range(1, 16)))
        for place, name in enumerate(names)
    )
    with style.house_style():
        drawn = style.figure(style.FULL, 2.0)
        drawn.subplots().plot([1, 2], [3, 4])
    figure = DrawnFigure("curve", "A curve", "It goes up.", drawn, {"x": [1, 2]})
    table = Table("Odd cells", columns, rows, tuple((False,) * len(columns) for _ in rows), (), 2, True)
    for name in ("one", "two"):
        result = Result("plot", f"Page <{name}>", ["It is so."], {"t": table}, [figure])
        write_result(folder / name, result, "featlab x")
    path = folder / "report.html"
    write_report(path, read_report([folder / "one", folder / "two"], "Report"))
    return path


def test_a_report_loads_nothing_sorts_fits_and_saves(browser, tmp_path):
    assert browser.check_report(small_report(tmp_path)) == []


def test_the_check_finds_what_is_wrong(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><body><div style='width:3000px'>wide</div>"
        "<img src='missing.png'><a download='x.csv' href='data:text/csv,'>x</a><nav><details></details></nav>"
        "<table class=sorts><caption>T</caption><thead><tr><th><button>A</button></th></tr></thead>"
        "<tbody><tr><td>1</td></tr><tr><td>2</td></tr></tbody></table><script>console.error('oh')</script>",
        encoding="utf-8",
    )
    found = " ".join(browser.check_report(page))
    for problem in ("pixels wide", "missing.png", "x.csv: holds nothing", "column 1 is not in order", "oh"):
        assert problem in found

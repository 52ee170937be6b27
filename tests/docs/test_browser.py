"""The check of the site in a browser finds what it is there to find."""

import runpy
from pathlib import Path

import pytest


def test_a_page_that_is_too_wide_lacks_a_picture_or_asks_another_host_is_told(tmp_path):
    browser = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "report_in_browser.py"))
    if lacking := browser["missing"]():
        pytest.skip(lacking)
    head = '<!doctype html><link rel="icon" href="data:,"><meta name="viewport" content="width=device-width">'
    pages = {
        "good": ('<div style="overflow: auto"><p style="width: 900px">scrolls</p></div>', ()),
        "wide": ('<p style="width: 900px">wide</p>', ("wide: phone: the page is",)),
        "bare": ('<img src="gone.png">', ("bare: picture: http", "bare: console")),
        "leak": ('<script src="http://127.0.0.1:9/x.js"></script>', ("leak: request: http://127.0.0.1:9/x.js",)),
    }
    for name, (body, _) in pages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text(head + body, encoding="utf-8")
    problems = browser["check_site"](tmp_path)
    assert all(problem.startswith(("wide", "bare", "leak")) for problem in problems), problems
    for start in (start for _, starts in pages.values() for start in starts):
        assert any(problem.startswith(start) for problem in problems), (start, problems)

"""Pages put together, and the HTML file that shows them, read back by a parser."""

import base64
import hashlib
import json
import os
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from featlab.analysis import style
from featlab.analysis.evaluation.result import evaluation_result
from featlab.analysis.page import DrawnFigure, Page, Result, write_result
from featlab.analysis.render import to_csv, to_latex
from featlab.analysis.report import collect, render_report, write_report
from featlab.analysis.report.collect import find_pages, protocol_summary, read_report
from featlab.analysis.table import Table
from featlab.config.load import Config
from featlab.errors import InputError

NASTY = "<b>&\"'s</b>"
VOID = {"meta", "link", "img", "wbr"}
FACTS = {
    "config": Config()
    .with_values({"protocol.draws": 3, "adapt.pft.lr": 0.1, "plot.formats": ("pdf", "png")}, "test")
    .to_dict(),
    "cache_digest": "a" * 64,
    "extractor": {"id": "toy", "fingerprint": "f" * 64},
    "versions": {"python": "3.12", "featlab": "0.1.0"},
}


def table():
    rows = (("a", "x", "78.31", "–"), ("b", "y", "78.31", "–"), ("b", "z", "<0.001", "12/3/1"))
    bold = ((False, False, True, False), *((False,) * 4,) * 2)
    return Table("Scores", ("Setting", "Method", NASTY, "Average"), rows, bold, (f"note {NASTY}",), 2, True)


def draw(name="curve", cloud=0):
    with style.house_style():
        drawn = style.figure()
        drawn.subplots().scatter(*np.random.default_rng(0).normal(size=(2, 3 + cloud)))
    return DrawnFigure(name, f"Title {NASTY}", f"Caption {NASTY}", drawn, {"x": [1.5, 2], "y": ["a", "b"]})


def page(folder, kind="ablate", title="An ablation", **changes):
    values = {"summary": ("It is so.",), "tables": {"t": table()}, "figures": [draw()], "metadata": FACTS}
    command = changes.pop("command", f"featlab {kind}")
    write_result(folder, Result(kind, title, **{**values, **changes}), command)
    return folder


class Reader(HTMLParser):
    """Collects what a reader sees: elements with their attributes, text, tables; refuses tags that don't nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.tables, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "table" in self.open and ("td" in self.open or "th" in self.open):
            self.tables[-1][-1][-1] += data
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    def links(self):
        """Return what can be saved: name to address."""
        found = [attrs for tag, attrs in self.elements if tag == "a" and {"href", "download"} <= set(attrs)]
        return {attrs["download"]: attrs["href"] for attrs in found}

    def all(self, tag, name):
        return [attrs[name] for found, attrs in self.elements if found == tag and name in attrs]

    @property
    def text(self):
        return " ".join("".join(self.texts).replace("\u00a0", " ").split())


def data(uri):
    head, _, body = uri.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, result):
    root = tmp_path_factory.mktemp("results")
    scores = {"source-only": (0.5, 0.6, 0.4), "referenced": (0.6, 0.7, 0.3), "pft": (0.7, 0.5, 0.5)}
    rows = [result(name, f"s{n}{NASTY}", score) for name, of in scores.items() for n, score in enumerate(of)]
    folder = root / "evaluate-0123456789ab"
    found = evaluation_result(rows, metadata=FACTS, plots=False)
    write_result(folder, found, "featlab evaluate --cache <c>")
    return folder, page(root / "ablate-dims")


@pytest.fixture(scope="module")
def html(folders):
    return render_report(read_report(folders, f"Report {NASTY}"))


@pytest.fixture(scope="module")
def seen(html):
    return Reader(html)


def test_each_command_is_there_once_with_its_newest_run_evaluations_first(tmp_path):
    order = "plot-tsne evaluate-0123456789ab complexity ablate-dims evaluate-ffffffffffff mine benchmark-0123456789ab"
    for age, name in enumerate(order.split()):
        kind = "evaluate" if name == "mine" else name.partition("-")[0]
        folder = page(tmp_path / name, kind, figures=[], tables={})
        os.utime(folder / "page.json", (1000 - age, 1000 - age))
    (tmp_path / "cells").mkdir()
    found, older = find_pages(tmp_path)
    shown = "evaluate-0123456789ab mine benchmark-0123456789ab ablate-dims complexity plot-tsne"
    assert [folder.name for folder in found] == shown.split()
    assert [folder.name for folder in older] == ["evaluate-ffffffffffff"]
    assert find_pages(tmp_path / "nowhere") == ([], [])


# What else may be wrong with a page or a table is in test_result.py.
DAMAGES = {
    "page.json": (b"\xff\xfe{", {"title": 5}, {"facts": {"config": {"protocol": {"seeds": "many"}}}}),
    "table_t.json": (None, {"rows": 7}, {"text_columns": "2"}),
    "curve.svg": (None, b"no picture"),
    "curve.csv": (None,),
}


def test_a_damaged_page_is_skipped_and_said_to_be(tmp_path, folders):
    whole = page(tmp_path / "whole")
    (whole / "SHA256SUMS").unlink()
    for name, damage in ((name, damage) for name, damages in DAMAGES.items() for damage in damages):
        broken = tmp_path / "broken"
        shutil.copytree(whole, broken, dirs_exist_ok=True)
        if damage is None:
            (broken / name).unlink()
        elif isinstance(damage, bytes):
            (broken / name).write_bytes(damage)
        else:
            (broken / name).write_text(json.dumps({**json.loads((broken / name).read_text("utf-8")), **damage}))
        made = read_report([folders[1], broken], "")
        ((folder, reason),) = made.skipped
        assert ([item.folder for item in made.pages], folder) == ([folders[1]], broken)
        assert "run the command again" in reason.splitlines()[-1]
    assert "broken is left out" in Reader(render_report(made)).text
    made = read_report(folders[::-1], "")
    assert ([item.folder for item in made.pages], made.evaluation) == (list(folders[::-1]), 1)
    for given, said in (
        ([broken], "no page can be read"),
        ([], "run featlab evaluate"),
        ([tmp_path], r"no page\.json"),
    ):
        with pytest.raises(InputError, match=said):
            read_report(given, "")


def test_the_file_asks_for_nothing_and_runs_only_its_own(html, seen):
    assert all(uri.startswith(("data:", "#")) for uri in [*seen.all("a", "href"), *seen.all("link", "href")])
    assert all(uri.startswith("data:") for uri in seen.all("img", "src"))
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|https?://", re.sub(r'"data:[^"]*"', "", html))
    (policy,) = [attrs["content"] for tag, attrs in seen.elements if attrs.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        known = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{known}'" in policy
    # The policy would switch both of them off.
    assert not [attrs for _, attrs in seen.elements if "style" in attrs or any(key.startswith("on") for key in attrs)]


def test_whatever_is_in_a_name_is_shown_as_text_and_tables_hold_their_cells(html, folders, seen):
    pages = read_report(folders, "").pages
    tables = [shown for item in pages for shown in item.tables.values()]
    # Those of the bold cells, and none of the names.
    tags = [tag for tag, _ in seen.elements]
    assert tags.count("b") == sum(sum(map(sum, shown.bold)) for shown in tables)
    assert seen.all("img", "alt") == [f"Title {NASTY}"]
    assert f"s0{NASTY}" in seen.tables[0][0]
    for text in (f"Report {NASTY}", f"Caption {NASTY}", f"note {NASTY}", "featlab evaluate --cache <c>"):
        assert text in seen.text
    for shown, lines in zip(tables, seen.tables, strict=False):
        assert [tuple(line) for line in lines] == [shown.columns, *shown.rows]
    assert (len(seen.tables), tags.count("caption")) == (len(tables) + 1, len(tables))
    assert seen.all("th", "scope").count("row") == sum(len(lines) - 1 for lines in seen.tables)
    assert seen.all("th", "scope").count("col") == sum(len(lines[0]) for lines in seen.tables)
    # A group begins with its rule.
    part = html[html.index('id="page-2-table-1"') :]
    assert re.findall(r'<tr class="(\w+)">', part[: part.index("</table>")]) == ["group", "group", "again"]


def test_what_is_saved_is_what_is_shown_and_the_same_pages_give_the_same_bytes(folders, seen, html, tmp_path):
    report = read_report(folders, f"Report {NASTY}")
    written = tmp_path / "report.html"
    assert write_report(written, report) == written.stat().st_size
    assert written.read_bytes().decode() == html
    files = seen.links()
    for item in report.pages:
        for name, shown in item.tables.items():
            assert data(files.pop(f"{item.folder.name}_{name}.csv")).decode() == to_csv(shown)
            assert data(files.pop(f"{item.folder.name}_{name}.tex")).decode() == to_latex(shown)
    for ending in ("pdf", "csv"):
        assert data(files.pop(f"ablate-dims_curve.{ending}")) == (folders[1] / f"curve.{ending}").read_bytes()
    assert files == {}
    assert [*map(data, seen.all("img", "src"))] == [(folders[1] / "curve.svg").read_bytes()]
    ((link, _),) = [(attrs, tag) for tag, attrs in seen.elements if "data-drawing" in attrs]
    assert link["download"] == "ablate-dims_curve.svg"
    assert link["data-drawing"] in seen.all("img", "id")


def test_a_large_drawing_is_shown_as_a_picture(tmp_path, monkeypatch):
    folder = page(tmp_path / "plot-tsne", "plot", figures=[draw(cloud=900)])
    monkeypatch.setattr(collect, "LARGEST_FILE", 1_000)
    for largest, media in ((90_000, "image/png"), (4_000, "image/jpeg")):
        monkeypatch.setattr(collect, "LARGEST_DRAWING", largest)
        made = read_report([folder], "")
        (figure,) = made.pages[0].figures
        assert (figure.media, list(figure.files)) == (media, ["csv"])
        assert figure.size == pytest.approx((style.COLUMN, 2.4), abs=0.01)
        seen = Reader(render_report(made))
        assert seen.all("img", "src")[0].startswith(f"data:{media};base64,")
        assert seen.all("a", "data-drawing") == []


def test_other_caches_and_versions_are_warned_of_and_said_at_the_end(tmp_path, folders):
    changed = {**FACTS, "cache_digest": "b" * 64, "versions": {"featlab": "9"}}
    other = page(tmp_path / "plot-x", "plot", metadata=changed)
    made = read_report([*folders, other], "")
    (warning,) = made.warnings()
    assert "different caches" in warning
    text = Reader(render_report(made)).text
    for said in ("Of sections 1, 2:", "a" * 64, "Of sections 3:", "b" * 64, "toy " + "f" * 64):
        assert text.count(said) == 1 + said.startswith("toy")
    assert read_report(folders, "").warnings() == ()


def test_settings_that_differ_are_listed_with_their_default_and_the_others_are_folded(seen):
    assert seen.tables[-1] == [
        ["Setting", "Default", "Here", "Sections"],
        ["adapt.pft.lr", "", "0.1", "all"],
        ["protocol.draws", "1", "3", "all"],
        ["plot.formats", "[]", '["pdf", "png"]', "all"],
    ]
    assert "head.epochs = 30" in seen.text
    assert "details" in {tag for tag, _ in seen.elements}


def test_the_protocol_is_told_in_sentences():
    for values, said in (
        ({"pool": "p.txt", "draws": 2}, "Target subjects: 10 of a pool, 2 draws, 1 seed;"),
        ({"targets": "s1,s2", "seed": 7}, "s1,s2, 1 draw, 1 seed; the root of every seed is 7."),
        ({"scope": "dataset"}, "Adapted to all of them together"),
        (None, ""),
    ):
        config = {} if values is None else {"protocol": values}
        told = protocol_summary(Page("evaluate", "t", (), "featlab evaluate", (), (), {"config": config}))
        assert said in " ".join(told)
        assert bool(told) == bool(values)

"""Hostile names: which are refused at the door, and that the others are inert in the terminal and in every file."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from featlab import write_table
from featlab.analysis import render, style
from featlab.analysis.table import Table
from featlab.bundle.bundle import bundle_card
from featlab.cache.encode import write_array
from featlab.cache.schema import as_cell, from_cell
from featlab.cli.output import Output, inert
from featlab.extraction.tables import ImportConfig, import_features

TORN = ("a\nb", "a\tb", "a\x1b[31mb", "a\x00b", "a\x07b", "a\x9b2Jb", "a\u2028b", "a\u202eb", "a\u2066b")
ODD = (
    "=HYPERLINK(1)",
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd",
    "@SUM(1)",
    "'=1",
    "''+x",
    "<script>alert(1)</script>",
    "a|b*c`d`",
    "[x](javascript:alert)",
    "$\\frac{x}$ and $",
    "100% & #1_{x}^~",
    "\u200fשלום",
    "x" * 300,
)


@pytest.mark.parametrize("name", TORN)
def test_a_name_that_would_tear_a_table_is_refused_at_every_door(tmp_path, table, refused, name, extractor):
    rows = "".join(f'"{name}",{label},{label},{frame},{frame + 1}\n' for label in ("calm", "joy") for frame in range(2))
    Path(tmp_path / "t.csv").write_bytes(f"subject,label,video,frame,x\n{rows}".encode())
    with pytest.raises(ValueError, match=r"control character|NUL"):
        import_features(tmp_path / "t.csv", tmp_path / "c.h5", ImportConfig(neutral="calm"))
    subjects = (name, *table.subjects[1:])
    with pytest.raises(ValueError, match=r"control character|without NUL"):
        write_table(tmp_path / "cache.h5", replace(table, subjects=subjects), extractor)
    if "\0" in name:
        return
    # A file that somebody else wrote.
    write_table(tmp_path / "cache.h5", table, extractor)
    with h5py.File(tmp_path / "cache.h5", "r+") as file:
        names = np.array([name.encode(), *(each.encode() for each in table.subjects[1:])])
        del file["subjects"]
        write_array(file, "subjects", names)
    line = refused("inspect", str(tmp_path / "cache.h5"))
    assert inert(line) == line


@pytest.fixture
def table(people):
    return people(3, 1, 3, 12, 2)


@pytest.mark.parametrize("name", [*ODD, *TORN])
def test_a_name_is_inert_in_the_terminal_and_in_every_table_and_figure(tmp_path, name, capsys):
    rows = ((name, "-1.5"), ("other", "+2.0 [-1.0, 3.0]"))
    made = Table(f"of {name}", ("Subject", "Score"), rows, ((False, True),) * 2)
    output = Output()
    output.table(made)
    output.tell(name, {name: name})
    output.columns(("Who",), [(name,)])
    for say in (output.show, output.warn, output.note):
        say(f"of {name}")
    Output(json_mode=True).json({name: name})
    said = capsys.readouterr()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", said.out + said.err)
    cells = list(csv.reader(io.StringIO(render.to_csv(made), newline="")))
    assert not re.match(r"[=+\-@\t\r]", cells[1][0])
    assert (from_cell(cells[1][0]), cells[1][1], cells[2][1]) == (name, "-1.5", "+2.0 [-1.0, 3.0]")
    markdown = render.to_markdown(made)
    assert not re.search(r"<script|\]\(", markdown)
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) in (0, 3) for line in markdown.split("\n"))
    assert "<" not in render.to_latex(made).replace(r"\textless{}", "")
    if name in TORN:
        return
    with style.house_style():
        drawn = style.figure()
        axes = drawn.subplots()
        axes.set_title(name[:40])
        axes.plot([0, 1], [0, 1], label=name[:40])
        axes.legend()
        style.save_figure(drawn, tmp_path / "f.svg")
    assert ElementTree.parse(tmp_path / "f.svg").getroot().tag.endswith("svg")
    style.save_data(tmp_path / "f.svg", {"who": [name], "value": [-1.5]})
    assert [from_cell(cell) for cell in list(csv.reader((tmp_path / "f.csv").open(newline="")))[1]] == [name, "-1.5"]


def test_a_bundles_card_holds_no_html(table, small_bundle, extractor):
    bundle = small_bundle(replace(table, classes=("<b>|=1", "neutral")))
    card = bundle_card(replace(bundle, extractor=replace(extractor, preprocessing="<img src=x> |")))
    assert not re.search("<b>|<img", card)
    assert "&lt;b>" in card


def test_a_cell_comes_back_as_it_was():
    for text in (*ODD, "plain", "-", "-1.5", "'quoted'", "it's", ""):
        assert from_cell(str(as_cell(text))) == text
    assert as_cell(-1.5) == -1.5


def test_people_of_any_name_go_through_a_workspace(folder, run_well, lines_of, extractor, people):
    names = ODD[:8]
    everyone = people(8, 2, 6, 12, 2, seed=7)
    write_table("cache.h5", replace(everyone, subjects=names, classes=("<b>|=1", "neutral")), extractor)
    run_well("pair")
    (pairs,) = Path("stages").glob("pair-*/pairs.csv")
    assert {from_cell(line["row_subject"]) for line in lines_of(pairs)} == set(names)
    assert not re.search(r"(^|,)[=+@]", pairs.read_text(encoding="utf-8"), re.MULTILINE)
    run_well("evaluate --targets 3 --methods source-only,neutral-shift,pft --jobs 1")
    run_well("report")
    assert not re.search(r"<script>alert|<b>\|=1", Path("report.html").read_text(encoding="utf-8"))
    assert "<b>" not in next(Path("results").glob("evaluate-*/table_classes.md")).read_text()

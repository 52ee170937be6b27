"""The page of all methods is what the registry says."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

from featlab.config.options import options_of
from featlab.methods import get_method, method_names

DOCS = Path(__file__).parents[2] / "docs"
page_of = runpy.run_path(str(DOCS / "methods_page.py"))
methods_pages = page_of["methods_pages"]


def test_bars_are_escaped_in_a_cell():
    assert page_of["_cell"]("One | two") == "One \\| two"


def test_every_registered_method_is_on_the_page_with_every_option_described():
    pages = methods_pages()
    overview = pages.pop("methods.md")
    page = "\n".join(pages.values())
    assert sorted(re.findall(r"^## `([^`]+)`", page, flags=re.MULTILINE)) == sorted(method_names())
    assert sorted(re.findall(r"^\| `([^`]+)`", overview, flags=re.MULTILINE)) == sorted(method_names())
    for name in method_names():
        assert all(option.help for option in options_of(get_method(name).config_type).values()), name
    settings = re.findall(r"^# (.*)$", page, flags=re.MULTILINE)
    assert sorted(settings) == sorted({get_method(name).setting for name in method_names()})
    assert sorted(re.findall(r"\]\((.*)\)", overview)) == sorted(pages)


def test_the_pages_are_written_by_the_command_that_they_name_and_are_those_in_the_docs(tmp_path):
    subprocess.run([sys.executable, DOCS / "methods_page.py", tmp_path], check=True)
    assert {place: (tmp_path / place).read_text(encoding="utf-8") for place in methods_pages()} == methods_pages()
    names = [name for name in method_names() if get_method(name).__module__.startswith("featlab.methods.")]
    for place, page in methods_pages(names).items():
        assert (DOCS / place).read_text(encoding="utf-8") == page, "run python docs/methods_page.py docs"

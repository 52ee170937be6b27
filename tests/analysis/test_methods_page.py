"""The page of all methods is what the registry says."""

import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option, options_of
from featlab.methods import Method, get_method, method_names
from featlab.methods.registry import METHODS

DOCS = Path(__file__).parents[2] / "docs"
methods_page = runpy.run_path(str(DOCS / "methods_page.py"))["methods_page"]


@dataclass(frozen=True)
class Own(Options):
    """Own."""

    lr: float = option(1e-3, "Of the `head` | only.", search=(1e-3, 1e-2))
    undescribed: float | None = None


class Mine(Method):
    """One | method
    (Somebody, 2024).

    More that isn't shown.
    """

    name, title, setting, published = "mine", "Mine", "A setting", "As published."
    config_type = Own
    adapt = None


def test_bars_are_escaped_and_of_the_docstring_the_first_paragraph_is_shown(monkeypatch):
    monkeypatch.setattr(METHODS, "found", METHODS.found | {"mine": Mine})
    page = methods_page(["mine"])
    assert "## A setting\n\n### `mine`: Mine\n\nOne | method (Somebody, 2024).\n\nAs published.\n" in page
    assert "More that" not in page
    assert "| `lr` | `0.001` | `0.001`, `0.01` | Of the `head` \\| only. |" in page.splitlines()
    assert "| `undescribed` | `none` | – | – |" in page.splitlines()


def test_every_registered_method_is_on_the_page_with_every_option_described():
    page = methods_page()
    assert sorted(re.findall(r"^### `([^`]+)`", page, flags=re.MULTILINE)) == sorted(method_names())
    for name in method_names():
        assert all(option.help for option in options_of(get_method(name).config_type).values()), name
    settings = re.findall(r"^## (.*)$", page, flags=re.MULTILINE)
    assert sorted(settings) == sorted({get_method(name).setting for name in method_names()})


def test_the_page_is_written_by_the_command_that_it_names_and_is_the_one_in_the_docs(tmp_path):
    page, docs = tmp_path / "methods.md", DOCS / "methods.md"
    subprocess.run([sys.executable, DOCS / "methods_page.py", page], check=True)
    assert page.read_text(encoding="utf-8") == methods_page()
    names = [name for name in method_names() if get_method(name).__module__.startswith("featlab.methods.")]
    assert docs.read_text(encoding="utf-8") == methods_page(names), "run python docs/methods_page.py docs/methods.md"

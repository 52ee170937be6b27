"""The page of all methods is what the registry says."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from featlab.analysis.evaluation.methods import methods_page
from featlab.config.options import Options, option, options_of
from featlab.methods import Method, get_method, method_names, register
from featlab.methods.registry import METHODS


@dataclass(frozen=True)
class Own(Options):
    """Own."""

    epochs: int = option(15, "Passes over the rows; 0 does nothing.")
    lr: float = option(1e-3, "Of the `head` | only.", search=(1e-3, 1e-2), only="on = False or on = True")
    layers: tuple[str, ...] = option(("features", "bottleneck"), "Where.")
    on: bool = False
    undescribed: float | None = None


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.setattr(METHODS, "found", dict(METHODS.found))

    class Mine(Method):
        """One | method
        (Somebody, 2024).

        More that isn't shown.
        """

        name = "mine"
        title = "Mine"
        setting = "A setting"
        published = "As published."
        config_type = Own
        needs_style_bank = True
        needs_extras = True
        carries = "covariances"
        needs_neutral = True
        supports_single_class = False
        updates = ("bottleneck", "classifier")
        minimum_rows = staticmethod(lambda classes: classes + 1)
        adapt = None

    return register(Mine)


def test_a_method_is_shown_with_all_it_declares(mine):
    page = methods_page(["mine"])
    assert "## A setting\n\n### `mine`: Mine\n\nOne | method (Somebody, 2024).\n\nAs published.\n" in page
    assert "More that" not in page
    for line in (
        "- Needs: the style bank, tensors prepared at the source, one person's neutral clip",
        "- Leaves the source site: statistics of the source subjects (the style bank), covariances",
        "- Changes: bottleneck, classifier",
        "- Fewest target rows: 3 for 2 classes, 8 for 7",
        "- Target of one class: runs, but the objective expects all classes",
        "| `epochs` | `15` | – | Passes over the rows; 0 does nothing. |",
        "| `lr` | `0.001` | `0.001`, `0.01` | Of the `head` \\| only. Only with on = False or on = True. |",
        "| `layers` | `features,bottleneck` | – | Where. |",
        "| `on` | `false` | – | – |",
        "| `undescribed` | `none` | – | – |",
    ):
        assert line in page.splitlines()


def test_every_registered_method_is_on_the_page_with_every_option_described():
    page = methods_page()
    assert sorted(re.findall(r"^### `([^`]+)`", page, flags=re.MULTILINE)) == sorted(method_names())
    for name in method_names():
        assert all(option.help for option in options_of(get_method(name).config_type).values()), name
    settings = re.findall(r"^## (.*)$", page, flags=re.MULTILINE)
    assert sorted(settings) == sorted({get_method(name).setting for name in method_names()})


def test_the_page_is_written_by_the_command_that_it_names_and_is_the_one_in_the_docs(tmp_path):
    page, docs = tmp_path / "methods.md", Path(__file__).parents[2] / "docs" / "methods.md"
    subprocess.run([sys.executable, "-m", "featlab.analysis.evaluation.methods", page], check=True)
    assert page.read_text(encoding="utf-8") == methods_page()
    names = [name for name in method_names() if get_method(name).__module__.startswith("featlab.methods.")]
    assert docs.read_text(encoding="utf-8") == methods_page(names), "run python -m featlab.analysis.evaluation.methods"

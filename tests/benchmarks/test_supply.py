"""The pins, their hashes and their licences are about the same packages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from supply import HASHED, LICENCES, PINS, hashes, pins  # noqa: E402


def test_every_pin_has_hashes_and_a_licence() -> None:
    pinned = pins(PINS)
    assert len(pinned) > 50
    assert pins(HASHED) == pinned
    assert {name for name, found in hashes(HASHED).items() if found} == pinned.keys()
    listed = re.findall(r"^\| (\S+) \| (\S+) \| \S", LICENCES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert dict(listed[1:]) == pinned

"""A few of the faults and files of `benchmarks/trust.py`: one line, or what is right; the pins and their licences."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import trust_fuzz
from hostile import caches, checkpoints, pictures, tables, texts
from supply import HASHED, LICENCES, PINS, hashes, pins

from featlab.config.load import load_config
from featlab.errors import FeatlabError
from featlab.exchange.checkpoints import read_checkpoint, read_extractor
from featlab.extraction.decode import decode_image
from featlab.extraction.items import class_names
from featlab.extraction.layouts import read_layout
from featlab.extraction.tables import import_features

pytestmark = pytest.mark.filterwarnings("ignore")
HELD = ("detected", "harmless")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, trust_fuzz.Kind]]:
    folder = tmp_path_factory.mktemp("fuzz")
    made = trust_fuzz.kinds(folder)
    for name in made:
        (folder / name).mkdir()
    return {name: (folder / name, kind) for name, kind in made.items()}


def test_changed_files_are_refused_in_one_line_or_read_rightly(kinds: dict[str, Any]) -> None:
    @settings(max_examples=30, deadline=None, database=None)
    @given(numbers=st.tuples(*[st.integers(0, 2**32)] * len(kinds)))
    def check(numbers: tuple[int, ...]) -> None:
        for (folder, kind), number in zip(kinds.values(), numbers, strict=True):
            assert trust_fuzz.tried(folder, kind, 1, number) in HELD, (kind.name, number)

    check()


def test_what_was_found_by_earlier_versions_stays_mended(kinds: dict[str, Any]) -> None:
    tables = {"csv": (8033, 8416), "parquet": (300, 1235), "npz, bytes": (3, 8), "npz, arrays": (643,)}
    for name, number in ((name, number) for name, numbers in tables.items() for number in numbers):
        assert trust_fuzz.tried(*kinds[f"table {name}"], 0, number) in HELD, (name, number)


def listed(path: Path) -> None:
    class_names([item.label for item in read_layout("manifest", path)], "neutral")


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "tables": (
        lambda folder: tables.tables(folder / "canary", bomb=4_000_000),
        lambda path: import_features(path, path.with_suffix(".h5")),
    ),
    "checkpoints": (lambda folder: checkpoints.checkpoints(folder / "canary", bomb=4_000_000), read_checkpoint),
    "pictures": (partial(pictures.pictures, side=70_000, text=10**6), decode_image),
    "settings": (lambda folder: texts.settings(), load_config),
    "descriptions": (lambda folder: texts.descriptions(folder / "canary"), read_extractor),
    "manifests": (lambda folder: texts.manifests(folder, many=3000), listed),
}
REFUSED = ("a bomb.", "a bomb beside", "40,000 labels", "a script", "high", "wide", "pickle", "objects", "the header")


@pytest.mark.parametrize("kind", READERS)
def test_files_that_mean_harm_are_refused_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, read = READERS[kind]
    monkeypatch.setattr("featlab.extraction.columns._MUCH", 1_000_000)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\n/bin/touch {tmp_path}/canary\n", encoding="ascii")
    (tmp_path / "bin" / "gs").chmod(0o755)
    for number, (name, content) in enumerate(made(tmp_path)):
        path = tmp_path / f"{number}{Path(name).suffix if kind in ('tables', 'checkpoints', 'pictures') else '.csv'}"
        path.write_bytes(content)
        try:
            read(path)
        except FeatlabError as error:
            lines = len(str(error).splitlines())
            assert lines == 1, name  # some are read, and need not be refused
        else:
            assert not any(word in name for word in REFUSED), name
        assert not (tmp_path / "canary").exists(), name


def test_caches_of_others_are_refused_or_read_rightly(tmp_path: Path, refused: Any) -> None:
    for number, (name, path) in enumerate(caches.hostile_caches(tmp_path)):
        if name.endswith("rows are promised"):  # More is not read than a cache holds.
            with refused(FeatlabError, "promises", "holds at most"):
                caches.open_cache(path)
        if number % 3 == 0 or "promised" in name:
            assert caches.same_rows(path) in HELD, name


SOME = """
import random, sys
from pathlib import Path
import artefacts, disturbed, trust_damage as damage, trust_kills as kills
folder, rng = Path(sys.argv[1]), random.Random(1)
place = folder / "place"
jobs = [disturbed.prepared(job, place) for job in disturbed.jobs(folder) if job.name in ("import", "train")]
rows = [kills.row(job.name, kills.kills(job, place, 5, rng)) for job in jobs]
rows.append(kills.row("a full disk", kills.full_disk(jobs, place, 4, rng)))
rows.append(kills.row("a signal", kills.stops(jobs, place, 4, rng)))
for each in artefacts.artefacts(artefacts.made(folder / "files", 0)):
    some = [*damage.flips(each, 0.02, rng), *damage.cuts(each, 0.1)][:12]
    rows.append(kills.row(each.name, damage.tried(each.use, some)))
print(*rows, sep="\\n")
print("held:", all(row.held for row in rows))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_some_faults_and_damages_lose_nothing_and_change_nothing_silently(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(trust_fuzz.__file__).parent), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", SOME, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.stdout.endswith("held: True\n"), done.stdout + done.stderr


def test_every_pin_has_hashes_and_a_licence() -> None:
    pinned = pins(PINS)
    assert len(pinned) > 50
    assert pins(HASHED) == pinned
    assert {name for name, found in hashes(HASHED).items() if found} == pinned.keys()
    listed = re.findall(r"^\| (\S+) \| (\S+) \| \S", LICENCES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert dict(listed[1:]) == pinned

"""Rows of features, and the files that people keep them in."""

import csv
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from featlab.cache import open_cache
from featlab.extraction.tables import ImportConfig, import_features


@dataclass(frozen=True, eq=False)
class People:
    """Rows in no order that a cache would like."""

    features: NDArray[np.float32]
    columns: tuple[str, ...]
    subject: list[str]
    label: list[str]
    video: list[str]
    frame: list[int]

    def key(self, row):
        return self.subject[row], self.video[row], self.frame[row]


def make_people(dim=3, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        (s, la, f"{la}-{clip}", f) for s in ("bo", "anna") for la in ("smile", "rest") for clip in "ba" for f in (4, 0)
    ]
    rows = [rows[place] for place in rng.permutation(len(rows))]
    return People(
        features=rng.normal(size=(len(rows), dim)).astype(np.float32),
        columns=tuple(f"f{place}" for place in range(dim)),
        subject=[row[0] for row in rows],
        label=[row[1] for row in rows],
        video=[row[2] for row in rows],
        frame=[row[3] for row in rows],
    )


@pytest.fixture
def people():
    return make_people()


NAMES = ("subject", "label", "video", "frame")


def write_csv(path, people, *, features=True):
    """The user's card: subject,label,video,frame, then a column a feature; without features, a manifest."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow([*NAMES, *(people.columns if features else ())])
        for row, values in enumerate(people.features):
            # repr of a float32's float64 gives all of its digits.
            numbers = map(repr, values.tolist()) if features else ()
            writer.writerow([*(getattr(people, name)[row] for name in NAMES), *numbers])
    return path


@pytest.fixture
def card(tmp_path, people):
    return write_csv(tmp_path / "features.csv", people)


def check_cache(path, people):
    """Every row is in the cache, under its own name and with its own values, exactly."""
    with open_cache(path) as cache:
        table = cache.read()
    found = {}
    for row in range(len(table)):
        label = None if table.label[row] < 0 else table.classes[table.label[row]]
        key = (table.subjects[table.subject[row]], table.videos[table.video[row]], int(table.frame[row]))
        found[key] = (label, table.embeddings[row].tolist())
    wanted = {people.key(row): (people.label[row], people.features[row].tolist()) for row in range(len(people.subject))}
    assert found == wanted
    assert table.classes[0] == table.neutral == "rest"
    return table


@pytest.fixture(scope="session")
def tools():
    """The functions of this file, for tests that make their own people."""
    return SimpleNamespace(make_people=make_people, write_csv=write_csv, check_cache=check_cache)


@pytest.fixture
def run(tmp_path):
    """``run(source, out=…, **config)``: import with neutral label ``rest``."""

    def do(source, *, out=None, **config):
        settings = ImportConfig(**{"neutral": "rest", **config})
        return import_features(source, out or tmp_path / "cache.h5", settings)

    return do

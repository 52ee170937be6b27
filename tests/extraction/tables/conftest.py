"""Rows of features, and the files that people keep them in."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from featlab import open_cache
from featlab.extraction.tables import ImportConfig, import_features

NAMES = ("subject", "label", "video", "frame")


@pytest.fixture
def people():
    """Sixteen rows of three features, in no order that a cache would like."""
    rng = np.random.default_rng(0)
    rows = [
        (s, la, f"{la}-{clip}", f) for s in ("bo", "anna") for la in ("smile", "rest") for clip in "ba" for f in (4, 0)
    ]
    rows = [rows[place] for place in rng.permutation(len(rows))]
    names = {name: [row[place] for row in rows] for place, name in enumerate(NAMES)}
    features = rng.normal(size=(len(rows), 3)).astype(np.float32)
    return SimpleNamespace(features=features, columns=("f0", "f1", "f2"), names=names)


@pytest.fixture
def put(tmp_path):
    """``put("x.csv", *lines)``: a text file of these lines."""

    def write(name, *lines, encoding="utf-8"):
        (tmp_path / name).write_bytes("\n".join(lines).encode(encoding))
        return tmp_path / name

    return write


@pytest.fixture
def write_csv(tmp_path):
    """``write_csv("x.csv", people)``: the names, then a column a feature; without features, a manifest."""

    def write(name, people, *, features=True):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow([*NAMES, *(people.columns if features else ())])
            for row, values in enumerate(people.features):
                # repr of a float32's float64 gives all of its digits.
                numbers = map(repr, values.tolist()) if features else ()
                writer.writerow([*(people.names[name][row] for name in NAMES), *numbers])
        return path

    return write


@pytest.fixture
def card(people, write_csv):
    return write_csv("features.csv", people)


@pytest.fixture
def run(tmp_path):
    """``run(source, out=…, **config)``: import with neutral label ``rest``."""

    def do(source, *, out="cache.h5", **config):
        return import_features(source, tmp_path / out, ImportConfig(**{"neutral": "rest", **config}))

    return do


@pytest.fixture
def read():
    """``read(report)``: the table of the cache that was written."""

    def opened(report):
        with open_cache(report.path) as cache:
            return cache.read()

    return opened


@pytest.fixture
def check_cache(read):
    """Every row is in the cache, under its own name and with its own values, exactly."""

    def check(report, people):
        table = read(report)
        found = {
            (table.subjects[s], (*table.classes, None)[label], table.videos[v], int(f)): e.tolist()
            for s, label, v, f, e in zip(
                table.subject, table.label, table.video, table.frame, table.embeddings, strict=True
            )
        }
        assert found == dict(zip(zip(*people.names.values(), strict=True), people.features.tolist(), strict=True))
        assert len(table) == len(people.features)
        assert table.classes[0] == table.neutral == "rest"
        return table

    return check

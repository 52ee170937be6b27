"""Rows of features, and the files that people keep them in."""

import csv
from types import SimpleNamespace

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

from featlab.cache.reader import open_cache
from featlab.extraction.tables import ImportConfig, import_features

NAMES = ("subject", "label", "video", "frame")


@pytest.fixture
def people():
    """Sixteen rows in no order that a cache would like: ``features`` f0, f1, f2, and their names as columns."""
    rng = np.random.default_rng(0)
    rows = [
        (s, la, f"{la}-{clip}", f) for s in ("bo", "anna") for la in ("smile", "rest") for clip in "ba" for f in (4, 0)
    ]
    names = zip(*(rows[place] for place in rng.permutation(len(rows))), strict=True)
    features = rng.normal(size=(len(rows), 3)).astype(np.float32)
    return SimpleNamespace(features=features, names=dict(zip(NAMES, map(list, names), strict=True)))


@pytest.fixture
def columns(people):
    """The names and features of the people, a column each."""
    return people.names | {f"f{place}": column for place, column in enumerate(people.features.T)}


@pytest.fixture
def put(tmp_path):
    """``put("x.csv", *lines)``: a text file of these lines."""

    def write(name, *lines, encoding="utf-8"):
        (tmp_path / name).write_bytes("\n".join(lines).encode(encoding))
        return tmp_path / name

    return write


@pytest.fixture
def save(tmp_path):
    """``save("x.npz", columns, f=None)``: a file of the kind that its name says, without the columns that are None."""

    def write(name, columns, /, **changes):
        path, given = tmp_path / name, {key: each for key, each in (columns | changes).items() if each is not None}
        if path.suffix == ".npz":
            np.savez(path, **{key: np.array(each) for key, each in given.items()})
        elif path.suffix == ".parquet":
            parquet.write_table(arrow.table(given), path)
        else:
            # A float32's float64 is written with all of its digits.
            cells = [each.tolist() if isinstance(each, np.ndarray) else each for each in given.values()]
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
                writer.writerows([[*given], *zip(*cells, strict=True)])
        return path

    return write


@pytest.fixture
def card(save, columns):
    """The people in a csv."""
    return save("features.csv", columns)


@pytest.fixture
def run(tmp_path):
    """``run(source, out=…, **config)``: import with neutral label ``rest``, in place of what is there."""

    def do(source, *, out="cache.h5", **config):
        return import_features(
            source, tmp_path / out, ImportConfig(**{"neutral": "rest", "if_exists": "overwrite", **config})
        )

    return do


@pytest.fixture
def read():
    """``read(report)``: the table of the cache that was written."""

    def opened(report):
        with open_cache(report.path) as cache:
            return cache.read()

    return opened


@pytest.fixture
def check_cache(read, people):
    """Every row is in the cache, under its own name and with its own values, exactly."""

    def check(report):
        table = read(report)
        keys = zip(table.subject, table.label, table.video, table.frame.tolist(), strict=True)
        names = [(table.subjects[s], table.classes[la], table.videos[v], f) for s, la, v, f in keys]
        own = zip(*people.names.values(), strict=True)
        assert dict(zip(names, table.embeddings.tolist(), strict=True)) == dict(
            zip(own, people.features.tolist(), strict=True)
        )
        assert (len(table), table.classes[0], table.neutral) == (len(people.features), "rest", "rest")

    return check

"""merge: two data sets in one file, and a benchmark across them."""

import json
from pathlib import Path

import numpy as np
import pytest

from featlab.cache import write_table


@pytest.fixture
def caches(folder, table, extractor):
    """Four people as one data set and four as another, which is shifted a little."""
    names = table.subjects
    first, second = table.rows_of(*names[:4]), table.rows_of(*names[4:])
    write_table(folder / "raf.h5", first, extractor)
    shifted = second.take(np.arange(len(second)))
    shifted.embeddings[:] += 0.5
    write_table(folder / "fer.h5", shifted, extractor)
    return names


def test_a_merged_cache_is_benchmarked_across_its_data_sets(caches, run, run_json, quickly):
    made = run_json("merge", "raf.h5", "fer.h5", "--out", "both.h5")
    assert (made["rows"], made["subjects"]) == (192, 8)
    assert made["next"].endswith("--targets both.fer.subjects.txt")
    few = ["--methods", "source-only,adabn,ftdnn,pft,oracle", "--set", "adapt.ftdnn.iterations=5"]
    words = [*made["next"].split()[1:], *few, "--jobs", "1", "--no-plots", "--json", *quickly]
    result = run(*words)
    assert result.exit_code == 3, result.stderr  # pft takes one person's neutral clip
    data = json.loads(result.stdout)
    assert {row["subject"] for row in data["results"]} == set(caches[4:])
    assert {row["method"] for row in data["results"] if row["error"]} == {"pft"}
    assert {row["scope"] for row in data["results"]} == {"dataset"}


def test_what_came_out_is_told(caches, run):
    result = run("merge", "raf.h5", "fer.h5", "--out", "both.h5")
    assert result.exit_code == 0, result.stderr
    assert "both.raf.subjects.txt" in result.stdout
    assert "192" in result.stdout
    assert "featlab benchmark --scope dataset --cache both.h5" in result.stdout
    assert Path("both.fer.subjects.txt").read_text().split() == list(caches[4:])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["raf.h5"], "two caches or more"),
        (["raf.h5", "raf.h5"], "named twice"),
        (["raf.h5", "nowhere.h5"], "nowhere.h5"),
        (["raf.h5", "fer.h5", "--rename", "smile"], "OLD=NEW"),
        (["raf.h5", "fer.h5", "--rename", "smile=joy", "--rename", "smile=fun"], "renamed twice"),
        (["raf.h5", "fer.h5", "--rename", "smil=joy"], "did you mean 'smile'"),
    ],
)
def test_what_can_not_be_merged_is_refused(caches, refused, words, expected):
    assert expected in refused("merge", *words, "--out", "both.h5")
    assert not Path("both.h5").exists()


def test_an_output_that_is_there_is_kept(caches, refused, run):
    Path("both.h5").write_bytes(b"mine")
    assert "--force" in refused("merge", "raf.h5", "fer.h5", "--out", "both.h5")
    assert Path("both.h5").read_bytes() == b"mine"
    assert run("merge", "raf.h5", "fer.h5", "--out", "both.h5", "--force").exit_code == 0

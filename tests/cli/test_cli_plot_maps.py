"""`featlab plot tsne|neighbours|style` as typed, in a folder that holds nothing but a cache."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from featlab.analysis.page import read_page
from featlab.cache import write_table

FAST = ["--set", "pretrain.validation=false", "--set", "adapt.sfda-it.iterations=5"]


@pytest.fixture
def flags(quickly):
    return [*quickly, *FAST]


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_tsne_draws_the_first_target_where_none_is_named(folder, run_well, flags):
    result = run_well("plot", "tsne", "--targets", "3", *flags)
    assert "the first target of the first draw" in result.stderr
    where = next((folder / "results").iterdir())
    subject = where.name.removeprefix("plot-tsne-")
    assert {f"tsne-{subject}.{ending}" for ending in ("svg", "pdf", "png", "csv")} < names(where)
    assert result.stdout.splitlines()[-1].startswith(f"results/plot-tsne-{subject}: tsne-{subject}.{{svg,pdf,png,csv}}")
    page = read_page(where)
    assert page.kind == "plot"
    assert page.command.startswith("featlab plot tsne --targets 3")
    assert page.metadata["extractor"]["id"] == "toy"
    assert all(word in result.stdout for word in page.summary)
    assert page.summary[0].startswith(f"{subject}: of the 10 source rows nearest to a test row")


def test_tsne_json_is_what_the_page_says(folder, run_json, flags):
    data = run_json("plot", "tsne", "--subject", "s040", "--subject", "s041", "--by", "pca", "--sources", "all", *flags)
    assert data["subjects"] == ["s040", "s041"]
    views = [(item["subject"], item["view"]) for item in data["scores"]]
    assert views[:4] == [("s040", name) for name in ("as extracted", "T, not adapted", "pft", "sfda-it")]
    assert len(views) == 8
    where = folder / data["files"][0].rpartition("/")[0]
    assert where.name.startswith("plot-pca-2-targets-")
    assert {"pca-s040.csv", "pca-s041.csv"} < names(where)
    with (where / "pca-s040.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert sum((line["panel"], line["group"]) == ("pft", "source") for line in lines) == 6 * 24
    assert list(read_page(where).summary) == data["words"]


def test_refusals_of_tsne(folder, refusals, flags, monkeypatch):
    table = {
        "--by tnse": "did you mean 'tsne'",
        "--by pca --perplexity 9": "leave it out",
        "--sources s041,s042": "protocol.sources",
        "--sources 0": "a number of source rows",
        "--layer pixels": "features, bottleneck",
        "--methods ,": "names no method",
        "--subject s04": "unknown subject 's04'",
        "--subject s040 --methods ptf": "did you mean 'pft'",
    }
    refusals({f"{words} --quiet": said for words, said in table.items()}, "plot", "tsne", *flags)
    monkeypatch.setattr("featlab.analysis.inside.map.find_spec", lambda name: None)
    refusals({"plot tsne --subject s040 --by umap": "pip install 'featlab[umap]'"})


def test_neighbours_reuse_the_bundle_of_adapt(folder, run_well, run_json, flags):
    run_well("adapt", "--subject", "s040", *flags)
    data = run_json("plot", "neighbours", "--subject", "s040", *flags)
    assert len(names(folder / "bundles")) == 1
    assert data["method"] == "pft"
    assert data["frames"] == 18
    assert sum(sum(data["counts"][f"after_{kind}"]) for kind in ("same", "other", "unknown")) == 18
    assert "s040" not in data["counts"]["subject"]
    where = folder / "results" / "plot-neighbours-s040"
    assert {"neighbours-s040.png", "neighbours-s040.csv", "table_spread.md", "page.json"} < names(where)
    assert list(read_page(where).summary) == data["words"]


def test_neighbours_of_some_classes_by_another_method(folder, run_well, refused, flags):
    chosen = ["--subject", "s041", "--method", "neutral-shift", "--classes", "neutral"]
    result = run_well("plot", "neighbours", *chosen, *flags)
    assert "6 frames of s041" in result.stdout
    assert "Neutral-mean shift" in result.stdout
    assert "did you mean 'smile'" in refused(
        "plot", "neighbours", "--subject", "s041", "--classes", "smle", "--quiet", *flags
    )


def test_style_measures_every_target_and_method(folder, run_json, flags):
    data = run_json("plot", "style", "--targets", "s040,s041", "--methods", "pft,sfda-it", *flags)
    assert data["subjects"] == ["s040", "s041"]
    assert data["failures"] == []
    assert set(data["distances"]) == {"pft", "sfda-it"}
    groups = set(data["distances"]["pft"]["group"])
    assert groups == {"adapted rows", "other rows", "source", "source moved"}
    where = folder / "results" / "plot-style"
    assert {"style-pft.png", "style-sfda-it.png", "table_style.tex", "page.json"} < names(where)
    assert list(read_page(where).summary) == data["words"]


def test_style_leaves_out_who_cannot_be_adapted_to(folder, run, refused, table, extractor, flags):
    someone = table.subject == table.subjects.index("s041")
    joyless = replace(table, label=np.where(someone, 1, table.label).astype(np.int16))
    write_table(folder / "joyless.h5", joyless, extractor)
    chosen = ["--cache", "joyless.h5", *flags]
    result = run("plot", "style", "--targets", "s040,s041", *chosen)
    assert result.exit_code == 3, result.stderr
    assert "s041: subject 's041' has no 'neutral' rows" in result.stderr
    assert "1 of 2 targets were left out" in result.stderr
    assert (folder / "results" / "plot-style" / "page.json").exists()
    assert "none of the 1 targets can be adapted to" in refused("plot", "style", "--targets", "s041", *chosen)

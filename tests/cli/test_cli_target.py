"""adapt and predict: one new person."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from featlab import ExtractorInfo, write_table


def test_adapt_runs_as_typed_says_which_stages_ran_first_and_runs_none_again(folder, run_well, run_json):
    result = run_well("adapt --subject s041")
    for line in ("train: 168 rows of 7 source subjects", "pretrain:"):
        assert line in result.stderr
    for words in ("s041", "6 neutral frames of ", "macro F1", "labels used for this line only"):
        assert words in result.stdout
    (stored,) = folder.glob("bundles/*/subjects/s041/adaptation.safetensors")
    before = load_file(stored)
    facts = [run_json("adapt --subject s041") for _ in range(2)]
    assert not any("train:" in each.stderr for each in facts)
    assert facts[0] | {"seconds": 0} == facts[1] | {"seconds": 0}
    assert (facts[0]["subject"], facts[0]["test_rows"]) == ("s041", 18)
    assert all(map(torch.equal, load_file(stored).values(), before.values()))


def test_a_subject_without_labels_is_taken_to_be_neutral_and_told_so(folder, run_json, table, extractor):
    unknown = np.where(table.subject == 3, -1, table.label).astype(np.int16)
    write_table("cache.h5", replace(table, label=unknown), extractor)
    data = run_json("adapt --subject s041")
    assert (data["frames"], data["macro_f1_before"]) == (24, None)
    assert "no row of 's041' has a label" in data.stderr


@pytest.fixture
def reads(monkeypatch):
    """What is read of caches from here on: files that are opened, and (file, first row, row after the last)."""
    files, rows = [], []
    opened, taken = h5py.File.__init__, h5py.Dataset.__getitem__

    def spy_open(file, name, *rest, **options):
        if isinstance(name, str | Path):
            files.append(Path(name).name)
        return opened(file, name, *rest, **options)

    def spy_take(dataset, key, *rest, **options):
        if dataset.name == "/embeddings":
            rows.append((Path(dataset.file.filename).name, *key.indices(len(dataset))[:2]))
        return taken(dataset, key, *rest, **options)

    monkeypatch.setattr(h5py.File, "__init__", spy_open)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy_take)
    return files, rows


def test_with_a_ready_bundle_no_row_but_the_persons_is_read_and_no_source_cache_opened(
    bundle, run_json, table, extractor, reads
):
    files, rows = reads
    mine = np.flatnonzero(table.subject == table.subjects.index("s041"))
    own = {("cache.h5", mine[0], mine[-1] + 1)}
    run_json("adapt --subject s041")
    assert run_json("predict --subject s041")["reused"]
    run_json("adapt --subject s041 --set adapt.pft.guard=false --bundle", bundle)
    assert set(rows) == own
    # A person of another cache, where nobody else is.
    person = replace(table.rows_of("s041"), subjects=tuple(f"new{name}" for name in table.subjects))
    write_table("ward.h5", person, extractor)
    Path("cache.h5").unlink()
    files.clear()
    words = ("--subject", "news041", "--bundle", bundle, "--cache", "ward.h5", "-q")
    adapted, predicted = run_json("adapt", *words), run_json("predict", *words, "--out", "new.csv")
    assert (adapted["frames"], adapted["bundle"]) == (6, bundle)
    assert (predicted["rows"], predicted["reused"], set(files)) == (24, True, {"ward.h5"})


def test_a_bundle_that_has_to_be_made_is_made_of_the_source_rows_alone(folder, run_json, reads):
    run_json("adapt --subject s041,s042 -j 1")
    assert run_json("pretrain --targets s041,s042")["reused"]
    assert sum(last - first for _, first, last in reads[1][:1]) == 48


@pytest.fixture
def bare(folder, table, extractor):
    """s041 of the cache is left without a neutral row."""
    write_table("cache.h5", table.take((table.subject != 3) | (table.label != table.neutral_code)), extractor)


def test_many_people_are_adapted_to_at_once_and_go_on_where_they_were(bare, run_well, run_json, refused, table):
    first = run_json("adapt --subject s041,s042,s043", code=3)
    assert [(item["subject"], item["reused"]) for item in first["people"]] == [("s042", False), ("s043", False)]
    assert [item["subject"] for item in first["refused"]] == ["s041"]
    bundle = ("--bundle", first["bundle"])
    assert run_json("adapt --subject s043", *bundle)["folder"] == first["people"][1]["folder"]
    again = run_well("adapt --subject s041,s042,s043", code=3).stdout
    assert all(told in again for told in ("2 of 3 subjects", "2 stored already", "s041", "neutral"))
    # Everyone whom the bundle doesn't know; by a pattern.
    data = run_json("adapt --subject all", *bundle, code=3)
    assert (len(data["people"]), data["source_subjects_left_out"]) == (2, len(table.subjects) - 3)
    assert len(run_json("adapt --subject s04[23]", *bundle)["people"]) == 2
    assert "nobody is left to train on" in refused("adapt --subject all")


def test_many_people_are_predicted_in_one_file_as_each_alone(bare, run_well, run_json, lines_of):
    words = ("predict --smooth 3 --bundle", run_json("pretrain --targets s041,s042,s043")["folder"], "--subject")
    alone = [line for name in ("s042", "s043") for line in (run_json(*words, name), lines_of("predictions.csv"))[1]]
    told = run_json(*words, "s04[1-3]", "--out", "both.csv", code=3)
    people = [(one["subject"], one["reused"], one["rows"]) for one in told["people"]]
    assert people == [("s042", True, 24), ("s043", True, 24)]
    assert (told["refused"][0]["subject"], "neutral" in told["refused"][0]["reason"]) == ("s041", True)
    assert lines_of("both.csv") == alone
    run_well(*words, "s038,s041", "--out", "none.csv", code=2)
    assert not Path("none.csv").exists()
    shown = run_well(*words, "all", code=3)
    for line in ("2 of 3 subjects (2 adapted to already)", "s041", "no 'neutral' rows"):
        assert line in shown.stdout
    assert "source subjects of the bundle left out" in shown.stderr
    assert "names 2 people; name one person" in run_well(*words, "s042,s043", "--images", "x.png", code=2).stderr


def test_an_adaptation_to_another_clip_is_not_reused_in_silence(bundle, run_json, table, extractor):
    words = ("--subject", "s041", "--bundle", bundle)
    other = np.where(table.subject[:, None] == 3, table.embeddings[::-1], table.embeddings)
    moved = replace(table, embeddings=np.ascontiguousarray(other))
    rows = table.subject == 3
    cases = {
        "another clip": (moved, False),
        "is used; it was made from 6 neutral frames": (table.take(~rows | (table.label != table.neutral_code)), True),
        "is used": (replace(moved, label=np.where(rows, -1, table.label).astype(np.int16)), True),
    }
    for told, (cache, reused) in cases.items():
        run_json("adapt", *words)
        write_table("other.h5", cache, extractor)
        data = run_json("predict --cache other.h5", *words)
        assert (data["reused"], told in data.stderr) == (reused, True), data.stderr


COLUMNS = ["subject", "video", "frame", "adapted_on", "predicted", "p_neutral", "p_smile"]


def test_predict_adapts_first_and_writes_one_line_a_frame(folder, run_well, run_json, lines_of):
    result = run_well("predict --subject s041")
    assert "s041 is not adapted to yet" in result.stderr
    assert "smile-a" in result.stdout
    lines = lines_of("predictions.csv")
    assert (len(lines), list(lines[0])) == (24, COLUMNS)
    # Half of the neutral videos, no frame of any other.
    assert {line["video"] for line in lines if line["adapted_on"] == "yes"} == {"neutral-a"}
    assert {line["adapted_on"] for line in lines if line["video"] == "neutral-a"} == {"yes"}
    for line in lines:
        shares = {name: float(line[f"p_{name}"]) for name in ("neutral", "smile")}
        assert sum(shares.values()) == pytest.approx(1, abs=2e-6)
        assert line["predicted"] == max(shares, key=shares.get)
    assert run_json("predict --subject s041 --set protocol.smoothing=9")["reused"]
    assert lines_of("predictions.csv") == lines
    # Smoothed on request only.
    assert run_json("predict --subject s041 --smooth 3")["smoothing"] == 3
    near = [float(line["p_smile"]) for line in lines[:3]]
    assert float(lines_of("predictions.csv")[1]["p_smile"]) == pytest.approx(np.mean(near), abs=2e-6)
    # An adaptation by another method is not taken.
    made, other = (run_json(f"predict --subject s041 --method {name}") for name in ("adabn", "neutral-shift"))
    assert (made["reused"], other["reused"], "the stored adaptation is adabn" in other.stderr) == (False, False, True)


def test_who_can_not_be_a_target_is_refused_before_anything_runs(bare, refusals, run_json, table):
    refusals(dict.fromkeys(("adapt --subject s041", "evaluate --targets s041"), "no 'neutral' rows"))
    with Path("featlab.toml").open("a") as file:
        file.write('protocol.sources = ["s038", "s039", "s042"]\n')
    both = ("adapt --subject s042", "evaluate --targets s040,s042", "train --subject s042")
    refusals(dict.fromkeys(both, "both source and target"))
    bundle = run_json("pretrain")["folder"]
    refusals({f"adapt --subject s038 --bundle {bundle}": "both source and target"})
    # Nor can who comes from another extractor.
    write_table("other.h5", table, ExtractorInfo("other", "none", "other numbers"))
    words = (f"{command} --subject s040 --bundle {bundle} --cache other.h5" for command in ("adapt", "predict"))
    refusals(dict.fromkeys(words, "the bundle was made for 'toy'"))


@pytest.fixture
def many(folder, people, table, extractor):
    """A cache with enough source people for a bundle to know itself: s041 and eleven others."""
    more = people(12, 2, 6, 12, 2, seed=7, expression=1.0, identity=1.0, resting=0.0)
    names = (*table.subjects, *(f"s{number}" for number in range(50, 54)))
    both = replace(more, subjects=names, videos=table.videos, classes=table.classes, neutral="neutral")
    write_table("cache.h5", both, extractor)
    return both


def test_adapt_says_what_it_expects_without_labels(many, run_well, run_json, extractor):
    known = run_json("adapt --subject s041")
    gain = known["expected_gain"]
    assert gain["frames"] == known["test_rows"] == 18
    assert gain["low"] <= gain["expected"] <= gain["high"]
    assert 0 <= gain["chance"] <= 1
    assert known["report"]["refusal"] == ""
    shown = run_well("adapt --subject s041").stdout
    assert "expected gain" in shown
    assert "no label used" in shown
    # The labels of the other frames change nothing of it.
    label = np.where((many.subject == 3) & (many.label == 1), -1, many.label).astype(np.int16)
    write_table("cache.h5", replace(many, label=label), extractor)
    assert run_json("adapt --subject s041")["expected_gain"] == gain


def test_a_clip_that_is_not_neutral_is_refused_unless_forced(many, refused, run_json, extractor):
    rows = np.flatnonzero((many.subject == 3) & (many.video == many.video[many.subject == 3].min()))
    embeddings = many.embeddings.copy()
    smile = many.embeddings[many.label == 1].mean(axis=0) - many.embeddings[many.label == 0].mean(axis=0)
    embeddings[rows[::2]] += 8 * smile
    write_table("cache.h5", replace(many, embeddings=embeddings), extractor)
    run_json("pretrain --targets s041,")
    line = refused("adapt --subject s041 --targets s041, -q")
    assert "does not look neutral" in line
    assert "--force" in line
    assert not list(Path("bundles").glob("*/subjects/*"))
    forced = run_json("adapt --subject s041 --targets s041, --force")
    assert "does not look neutral" in forced["report"]["refusal"]
    assert any("does not look neutral" in warning for warning in forced["warnings"])

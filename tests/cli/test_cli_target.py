"""adapt and predict: one new person."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from featlab import ExtractorInfo, write_table


def test_adapt_runs_as_typed_says_which_stages_ran_first_and_runs_none_again(folder, run_well, run_json, quickly):
    # The settings stand in the file, so that the command is the one that people type.
    lines = [f"{value.split('=')[0]} = {value.split('=')[1]}\n" for value in quickly[1::2]]
    Path("featlab.toml").write_text("".join(lines))
    result = run_well("adapt", "--subject", "s041")
    for line in ("train: 168 rows of 7 source subjects", "pretrain:"):
        assert line in result.stderr
    for words in ("s041", "6 neutral frames of ", "macro F1", "labels used for this line only"):
        assert words in result.stdout
    (stored,) = folder.glob("bundles/*/subjects/s041/adaptation.safetensors")
    before = load_file(stored)
    facts = []
    for _ in range(2):
        again = run_well("adapt", "--subject", "s041", "--json")
        assert "train:" not in again.stderr
        facts.append({name: value for name, value in json.loads(again.stdout).items() if name != "seconds"})
    assert facts[0] == facts[1]
    assert (facts[0]["subject"], facts[0]["test_rows"]) == ("s041", 18)
    assert all(map(torch.equal, load_file(stored).values(), before.values()))


def test_a_subject_without_labels_is_taken_to_be_neutral_and_told_so(folder, run, table, extractor, quickly):
    unknown = np.where(table.subject == 3, -1, table.label).astype(np.int16)
    write_table("cache.h5", replace(table, label=unknown), extractor)
    result = run("adapt", "--subject", "s041", *quickly, "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["frames"], data["macro_f1_before"]) == (24, None)
    assert "no row of 's041' has a label" in result.stderr


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
    trained, run_json, table, extractor, quickly, reads
):
    files, rows = reads
    mine = np.flatnonzero(table.subject == table.subjects.index("s041"))
    own = {("cache.h5", mine[0], mine[-1] + 1)}
    bundle = run_json("adapt", "--subject", "s041", *quickly, "-q")["bundle"]
    assert run_json("predict", "--subject", "s041", *quickly, "-q")["reused"]
    run_json("adapt", "--subject", "s041", "--bundle", bundle, *quickly, "-q", "--set", "adapt.pft.guard=false")
    assert set(rows) == own
    # A person of another cache, where nobody else is.
    person = replace(table.rows_of("s041"), subjects=tuple(f"new{name}" for name in table.subjects))
    write_table("ward.h5", person, extractor)
    Path("cache.h5").unlink()
    files.clear()
    words = ("--subject", "news041", "--bundle", bundle, "--cache", "ward.h5", *quickly, "-q")
    adapted, predicted = run_json("adapt", *words), run_json("predict", *words, "--out", "new.csv")
    assert (adapted["frames"], adapted["bundle"]) == (6, bundle)
    assert (predicted["rows"], predicted["reused"], set(files)) == (24, True, {"ward.h5"})


def test_a_bundle_that_has_to_be_made_is_made_of_the_source_rows_alone(folder, run_json, table, quickly, reads):
    run_json("adapt", "--subject", "s041,s042", *quickly, "-q", "-j", "1")
    everything = run_json("pretrain", "--targets", "s041,s042", *quickly, "-q")
    assert everything["reused"]
    assert sum(last - first for _, first, last in reads[1][:1]) == 48


@pytest.fixture
def bare(folder, table, extractor):
    """s041 of the cache is left without a neutral row."""
    write_table("cache.h5", table.take((table.subject != 3) | (table.label != table.neutral_code)), extractor)


def test_many_people_are_adapted_to_at_once_and_go_on_where_they_were(bare, run, run_json, table, quickly):
    words = ("adapt", "--subject", "s041,s042,s043", *quickly)
    result = run(*words, "--json")
    assert result.exit_code == 3, result.stderr
    first = json.loads(result.stdout)
    assert [(item["subject"], item["reused"]) for item in first["people"]] == [("s042", False), ("s043", False)]
    assert [item["subject"] for item in first["refused"]] == ["s041"]
    assert "neutral" in first["refused"][0]["reason"]
    of_it = ("--bundle", first["bundle"], *quickly)
    assert run_json("adapt", "--subject", "s043", *of_it)["folder"] == first["people"][1]["folder"]
    again = run(*words)
    assert again.exit_code == 3
    for told in ("2 of 3 subjects", "2 stored already", "s041", "neutral"):
        assert told in again.stdout
    # Everyone whom the bundle doesn't know; by a pattern.
    data = json.loads(run("adapt", "--subject", "all", *of_it, "--json").stdout)
    assert (len(data["people"]), data["source_subjects_left_out"]) == (2, len(table.subjects) - 3)
    assert len(run_json("adapt", "--subject", "s04[23]", *of_it)["people"]) == 2
    refused = run("adapt", "--subject", "all", *quickly)
    assert (refused.exit_code, "nobody is left to train on" in refused.stderr) == (2, True), refused.stderr


def test_many_people_are_predicted_in_one_file_as_each_alone(bare, run, run_json, quickly, lines_of):
    bundle = run_json("pretrain", "--targets", "s041,s042,s043", *quickly)["folder"]
    words = ("predict", "--bundle", bundle, *quickly, "--smooth", "3", "--subject")
    alone = [line for name in ("s042", "s043") for line in (run_json(*words, name), lines_of("predictions.csv"))[1]]
    result = run(*words, "s04[1-3]", "--out", "both.csv", "--json")
    assert result.exit_code == 3, result.stderr
    told = json.loads(result.stdout)
    people = [(one["subject"], one["reused"], one["rows"]) for one in told["people"]]
    assert people == [("s042", True, 24), ("s043", True, 24)]
    assert (told["refused"][0]["subject"], "neutral" in told["refused"][0]["reason"]) == ("s041", True)
    assert lines_of("both.csv") == alone
    assert (run(*words, "s038,s041", "--out", "none.csv").exit_code, Path("none.csv").exists()) == (2, False)
    shown = run(*words, "all")
    for line in ("2 of 3 subjects (2 adapted to already)", "s041", "no 'neutral' rows"):
        assert line in shown.stdout
    assert "source subjects of the bundle left out" in shown.stderr
    assert "names 2 people; name one person" in run(*words, "s042,s043", "--images", "x.png").stderr


def test_an_adaptation_to_another_clip_is_not_reused_in_silence(folder, run_json, run, table, extractor, quickly):
    made = run_json("pretrain", "--subject", "s041", *quickly)
    words = ("--subject", "s041", "--bundle", made["folder"], *quickly)
    run_json("adapt", *words)
    assert run_json("predict", *words)["reused"]
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
        result = run("predict", *words, "--cache", "other.h5", "--json")
        assert result.exit_code == 0, result.stderr
        assert (json.loads(result.stdout)["reused"], told in result.stderr) == (reused, True), result.stderr


COLUMNS = ["subject", "video", "frame", "adapted_on", "predicted", "p_neutral", "p_smile"]


def test_predict_adapts_first_and_writes_one_line_a_frame(folder, run_well, run_json, quickly, lines_of):
    result = run_well("predict", "--subject", "s041", *quickly)
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
    before = Path("predictions.csv").read_bytes()
    assert run_json("predict", "--subject", "s041", *quickly)["reused"]
    assert Path("predictions.csv").read_bytes() == before


def test_predictions_are_smoothed_on_request_only(trained, run_json, quickly, lines_of):
    words, scores = ("predict", "--subject", "s041", *quickly), []
    for flags, frames in (("--set", "protocol.smoothing=9"), 0), (("--smooth", "3"), 3):
        assert run_json(*words, *flags)["smoothing"] == frames
        scores.append([float(line["p_smile"]) for line in lines_of("predictions.csv")[:3]])
    assert scores[1][1] == pytest.approx(np.mean(scores[0]), abs=2e-6)


def test_predict_does_not_take_an_adaptation_of_other_settings(folder, run, quickly):
    run("adapt", "--subject", "s041", "--method", "adabn", *quickly)
    result = run("predict", "--subject", "s041", "--method", "neutral-shift", *quickly, "--json")
    assert not json.loads(result.stdout)["reused"]
    assert "the stored adaptation is adabn" in result.stderr


def test_who_can_not_be_a_target_is_refused_before_anything_runs(bare, refusals, run_json, quickly):
    refusals(dict.fromkeys(("adapt --subject s041", "evaluate --targets s041"), "no 'neutral' rows"))
    Path("featlab.toml").write_text('[protocol]\nsources = ["s038", "s039", "s042"]\n')
    both = ("adapt --subject s042", "evaluate --targets s040,s042", "train --subject s042")
    refusals(dict.fromkeys(both, "both source and target"))
    made = run_json("pretrain", *quickly)
    refusals({f"adapt --subject s038 --bundle {made['folder']}": "both source and target"})


def test_a_cache_of_another_extractor_than_the_bundles_is_refused(trained, refusals, run_json, table, quickly):
    made = run_json("pretrain", "--subject", "s041", *quickly)
    write_table("other.h5", table, ExtractorInfo("other", "none", "other numbers"))
    for command in ("adapt", "predict"):
        words = f"{command} --subject s041 --bundle {made['folder']} --cache other.h5"
        refusals({words: "'other'"})
        refusals({words: "'toy'"})


@pytest.fixture
def many(folder, people, table, extractor):
    """A cache with enough source people for a bundle to know itself: s041 and eleven others."""
    more = people(12, 2, 6, 12, 2, seed=7, expression=1.0, identity=1.0, resting=0.0)
    names = (*table.subjects, *(f"s{number}" for number in range(50, 54)))
    both = replace(more, subjects=names, videos=table.videos, classes=table.classes, neutral="neutral")
    write_table("cache.h5", both, extractor)
    return both


def test_adapt_says_what_it_expects_without_labels(many, run_well, run_json, quickly, extractor):
    known = run_json("adapt", "--subject", "s041", *quickly)
    gain = known["expected_gain"]
    assert gain["frames"] == known["test_rows"] == 18
    assert gain["low"] <= gain["expected"] <= gain["high"]
    assert 0 <= gain["chance"] <= 1
    assert known["report"]["refusal"] == ""
    shown = run_well("adapt", "--subject", "s041", *quickly).stdout
    assert "expected gain" in shown
    assert "no label used" in shown
    # The labels of the other frames change nothing of it.
    label = np.where((many.subject == 3) & (many.label == 1), -1, many.label).astype(np.int16)
    write_table("cache.h5", replace(many, label=label), extractor)
    assert run_json("adapt", "--subject", "s041", *quickly)["expected_gain"] == gain


def test_a_clip_that_is_not_neutral_is_refused_unless_forced(many, refused, run_json, quickly, extractor):
    rows = np.flatnonzero((many.subject == 3) & (many.video == many.video[many.subject == 3].min()))
    embeddings = many.embeddings.copy()
    smile = many.embeddings[many.label == 1].mean(axis=0) - many.embeddings[many.label == 0].mean(axis=0)
    embeddings[rows[::2]] += 8 * smile
    write_table("cache.h5", replace(many, embeddings=embeddings), extractor)
    run_json("pretrain", "--targets", "s041,", *quickly)
    words = ("adapt", "--subject", "s041", "--targets", "s041,", *quickly, "-q")
    line = refused(*words)
    assert "does not look neutral" in line
    assert "--force" in line
    assert not list(Path("bundles").glob("*/subjects/*"))
    forced = run_json(*words, "--force")
    assert "does not look neutral" in forced["report"]["refusal"]
    assert any("does not look neutral" in warning for warning in forced["warnings"])

"""train, pair, pretrain: who is source, what is made, what is reused."""

import json
from pathlib import Path

import pytest


def test_pair_by_landmarks_runs_as_typed_in_a_folder_with_only_a_cache(folder, run):
    result = run("pair", "--strategy", "landmark")
    assert result.exit_code == 0, result.stderr
    assert "192" in result.stdout
    assert "nobody is held out" in result.stderr
    assert list(folder.glob("stages/pair-*/pairs.csv"))


def test_pair_says_what_it_made_and_reuses_it(folder, run_json):
    first = run_json("pair", "--strategy", "cosine", "--label-rule", "same")
    second = run_json("pair", "--strategy", "cosine", "--label-rule", "same")
    assert (first["pairs"], first["same_label_share"], first["reused"]) == (192, 1.0, False)
    assert second == first | {"reused": True}


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_train_prints_notes_on_stderr_unless_quiet(folder, run, quickly, quiet):
    result = run("train", "--subject", "s041", *quickly, *quiet)
    assert result.exit_code == 0, result.stderr
    assert "final loss" in result.stdout
    assert ("held out: s041" in result.stderr) is not bool(quiet)


def test_targets_are_held_out_by_ids_by_number_and_by_file(folder, run_json, quickly):
    Path("who.txt").write_text("s041\ns042  # the second\n")
    subjects = {
        name: run_json("train", *quickly, "-q", *flags)["source_subjects"]
        for name, flags in {
            "nobody": [],
            "ids": ["--targets", "s041,s042"],
            "number": ["--targets", "3"],
            "file": ["--targets", "who.txt"],
            "subjects": ["--subject", "s041", "--subject", "s042"],
        }.items()
    }
    assert subjects == {"nobody": 8, "ids": 6, "number": 5, "file": 6, "subjects": 6}


def test_targets_listed_in_the_file_are_held_out_and_a_flag_beats_them(folder, run_json, quickly):
    Path("featlab.toml").write_text('[protocol]\ntargets = "s038,s039,s040"\n')
    assert run_json("train", *quickly)["source_subjects"] == 5
    assert run_json("train", *quickly, "--targets", "s038")["source_subjects"] == 7


def test_files_are_relative_to_where_they_are_named(folder, tmp_path, run_json, quickly, monkeypatch):
    (folder / "who.txt").write_text("s041\n")
    (folder / "featlab.toml").write_text('[protocol]\ntargets = "who.txt"\n')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "those.txt").write_text("s041\ns042\n")
    monkeypatch.chdir(elsewhere)
    assert run_json("train", "-C", "..", *quickly)["source_subjects"] == 7
    assert run_json("train", "-C", "..", "--targets", "those.txt", *quickly)["source_subjects"] == 6
    assert run_json("train", "-C", "..", "--cache", "../cache.h5", *quickly)["reused"]


def test_pretrain_writes_a_bundle_that_adapt_finds(folder, run_json, run, quickly):
    made = run_json("pretrain", "--subject", "s041", *quickly)
    assert (made["source_subjects"], made["translator"], made["bank_subjects"]) == (7, "linear", 7)
    assert made["last_loss"] < made["first_loss"]
    poster = run_json(
        "pretrain", "--subject", "s041", *quickly, "--set", "pretrain.objective=poster", "--set", "pretrain.epochs=2"
    )
    assert (poster["translator"], poster["epochs"]) == ("mlp", 2)
    assert (folder / made["folder"] / "model.safetensors").exists()
    adapted = run("adapt", "--subject", "s041", *quickly, "--json")
    assert json.loads(adapted.stdout)["bundle"] == made["folder"]
    assert "pretrain:" not in adapted.stderr


def test_a_flag_beats_the_file_and_the_file_beats_the_default(folder, run_json, quickly):
    Path("featlab.toml").write_text('[features]\ndim = 5\n[pair]\nstrategy = "random"\n')
    assert run_json("pair")["strategy"] == "random"
    assert run_json("pair", "--strategy", "cosine")["strategy"] == "cosine"
    assert run_json("pair", "--set", "pair.strategy=landmark")["strategy"] == "landmark"
    assert run_json("train", "--set", "head.epochs=1")["features"] == 5
    assert run_json("train", "--set", "head.epochs=1", "--dim", "4")["features"] == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--set", "head.epoch=3"), "did you mean 'epochs'"),
        (("--set", "hed.epochs=3"), "did you mean 'head'"),
        (("--set", "head.epochs"), "section.key=value"),
        (("--set", "head.epochs=many"), "whole number"),
        (("--targets", "s04x"), "did you mean 's04"),
        (("--targets", "8"), "at least one must stay a source"),
        (("--targets", "s038,s039,s040,s041,s042,s043,s044"), "at least 2 source subjects"),
        (("--device", "tpu"), "tpu"),
        (("-C", "nosuch"), "no such folder"),
    ],
)
def test_bad_flags_are_refused(folder, refused, words, expected):
    assert expected in refused("train", "--quiet", *words)


def test_an_unknown_key_in_the_file_is_refused_with_the_closest(folder, refused):
    Path("featlab.toml").write_text("[pretrain]\nepoch = 3\n")
    assert "did you mean 'epochs'" in refused("pair")


@pytest.mark.parametrize(
    "words",
    [
        ("pretrain", "--quiet", "--strategy", "cosine"),
        ("evaluate", "--targets", "2", "--methods", "source-only,pft", "--label-rule", "same"),
        ("adapt", "--subject", "s041", "--set", "pair.neighbours=2"),
        ("tune", "shot-im", "--targets", "2", "--set", "pretrain.hidden=8"),
        ("ablate", "dims", "--targets", "2", "--quiet", "--set", "pretrain.batch=8"),
        ("export", "--out", "model.safetensors", "--set", "pretrain.axis=vector"),
    ],
)
def test_a_flag_that_nothing_in_the_run_reads_is_refused(folder, refused, words):
    key = {"--strategy": "pair.strategy", "--label-rule": "pair.label_rule"}.get(words[-2], words[-1].partition("=")[0])
    line = refused(*words)
    assert f"command line: {key} has no effect here: it belongs to pretrain.form = mlp" in line
    assert "the method pft-poster" in line
    assert not (folder / "bundles").exists()

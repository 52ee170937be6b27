"""train, pair, pretrain, backbone train: who is source, what is made, what is reused."""

import json
from pathlib import Path

import pytest

from featlab.cache.reader import Cache
from featlab.extraction.training.export import read_card
from featlab.protocol.splits import choose_targets
from featlab.workspace.workspace import _read_once


def test_pair_runs_as_typed_says_what_it_made_and_reuses_it(folder, run_well, run_json):
    result = run_well("pair", "--strategy", "landmark")
    assert "192" in result.stdout
    assert "nobody is held out" in result.stderr
    assert list(folder.glob("stages/pair-*/pairs.csv"))
    first, second = (run_json("pair", "--strategy", "cosine", "--label-rule", "same") for _ in range(2))
    assert (first["pairs"], first["same_label_share"], first["reused"]) == (192, 1.0, False)
    assert second == first | {"reused": True}


def test_pair_by_an_index_says_what_it_found_and_a_bad_one_is_one_line(folder, run_well, run, monkeypatch):
    monkeypatch.setattr("featlab.pairing.search.SMALLEST", 0)
    result = run_well("pair", "--strategy", "cosine", "--index", "IVF4,Flat")
    assert "100.0 % of the true references, on a sample" in " ".join(result.stdout.split())
    (summary,) = folder.glob("stages/pair-*/summary.json")
    assert json.loads(summary.read_text())["recall"] == 1.0
    refused = run("pair", "--strategy", "cosine", "--index", "IVF,Flt")
    assert refused.exit_code == 2
    assert "pair.index = IVF,Flt: faiss can't use it" in refused.stderr


def test_files_are_relative_to_where_they_are_named(folder, run_json, quickly, monkeypatch):
    Path("who.txt").write_text("s041\n")
    Path("featlab.toml").write_text('[protocol]\ntargets = "who.txt"\n')
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    Path("those.txt").write_text("s041\ns042\n")
    assert run_json("train", "-C", "..", *quickly)["source_subjects"] == 7
    assert run_json("train", "-C", "..", "--targets", "those.txt", *quickly)["source_subjects"] == 6
    assert run_json("train", "-C", "..", "--cache", "../cache.h5", *quickly)["reused"]


def test_pretrain_writes_a_bundle_that_adapt_finds(folder, run_json, run, quickly):
    words = ("pretrain", "--subject", "s041", *quickly)
    made = run_json(*words)
    assert (made["source_subjects"], made["translator"], made["bank_subjects"]) == (7, "joint", 7)
    assert made["last"]["loss"] < made["first"]["loss"]
    mlp = run_json(*words, "--set", "pretrain.form=mlp", "--set", "pretrain.epochs=2")
    assert (mlp["translator"], mlp["epochs"]) == ("mlp", 2)
    assert (folder / made["folder"] / "model.safetensors").exists()
    adapted = run("adapt", "--subject", "s041", *quickly, "--json")
    assert json.loads(adapted.stdout)["bundle"] == made["folder"]
    assert "pretrain:" not in adapted.stderr


def test_a_flag_beats_the_file_and_quiet_leaves_out_who_is_held_out(folder, run_well, run_json):
    Path("featlab.toml").write_text('[features]\ndim = 5\n[head]\nepochs = 1\n[pair]\nstrategy = "random"\n')
    assert run_json("pair")["strategy"] == "random"
    assert run_json("pair", "--strategy", "cosine")["strategy"] == "cosine"
    assert [run_json("train", *flags)["features"] for flags in ((), ("--dim", "4"))] == [5, 4]
    for more, said in ([], True), (["--quiet"], False):
        result = run_well("train", "--subject", "s041", *more)
        assert "carried share" in result.stdout
        assert ("held out: s041" in result.stderr) is said


def test_the_source_stages_read_the_rows_of_source_people_alone(folder, run_json, quickly, monkeypatch):
    _read_once.cache_clear()  # Other tests have read this cache, by the same name.
    asked, read = [], Cache.read
    monkeypatch.setattr(Cache, "read", lambda cache, names=None: asked.append(names) or read(cache, names))
    for stage, flags in (("train", quickly), ("pair", ()), ("pretrain", quickly)):
        asked.clear()
        run_json(stage, "--targets", "s041", *flags)
        assert all("s041" not in names for names in asked), stage
    run_json("train", *quickly)
    # All rows, whose digest is checked.
    assert None in asked


QUICK = ["--size", "12", "--epochs", "1", "--batch", "8", "--no-refit", "--jobs", "1", "--layers", "maxpool"]
PEOPLE = tuple(f"s{person}" for person in range(6))


@pytest.fixture
def source(tmp_path, monkeypatch, make_tree):
    """subject/label/image for six people, below the current folder."""
    make_tree(tmp_path / "faces", 6)
    monkeypatch.chdir(tmp_path)
    return Path("faces")


@pytest.fixture
def unwritten(monkeypatch):
    """Leave out the file: an export takes longer than the training here."""
    monkeypatch.setattr("featlab.extraction.training.train.export_backbone", lambda module, path, meta: 0.0)


def test_it_writes_a_backbone_and_says_how_to_go_on(source, run_well):
    result = run_well("backbone", "train", "faces", "--targets", "2", "--draws", "2", "--out", "net.pt2", *QUICK)
    held = sorted({name for draw in range(2) for name in choose_targets(PEOPLE, "2", seed=0, draw=draw)})
    assert read_card(Path("net.pt2"))["held_out_subjects"] == held
    assert "featlab extract faces --backbone pt2:net.pt2 --trust-code --out cache.h5" in result.stdout
    assert f"{6 - len(held)} source subjects, {len(held)} held out" in result.stderr
    assert not Path("net.training").exists()


@pytest.mark.usefixtures("unwritten")
def test_unreadable_source_images_and_nobody_held_out_are_said(source, run, run_well):
    assert "warning: nobody is held out" in run_well("backbone", "train", "faces", "--quiet", *QUICK).stderr
    for person in ("s1", "s2"):
        (source / person / "smile" / "img0.png").write_bytes(b"")
    result = run("backbone", "train", "faces", "--subject", "s2", "--out", "other.pt2", *QUICK)
    assert result.exit_code == 3, result.output
    assert "s1/smile/img0.png: the file is empty" in result.stderr
    assert "s2/smile/img0.png" not in result.stderr


REFUSED = {
    "--targets 6": "at least one must stay a source",
    "--targets 5": "2 or more source subjects",
    "--subject s9": "unknown subject 's9'",
    "--arch smal": "did you mean 'small'",
    "--set flip": "expected key=value",
    "--set flop=1": "did you mean 'flip'",
    "--set augment.flip=1": "backbone.augment.flip is called backbone.flip now",
    "--set augment.gamma=1": "light scales all changes",
    "--if-exists skip": "--if-exists = 'skip' is not one of",
    "--device tpu": "must be auto, cpu, cuda or mps",
    "--weights absent.pt": "absent.pt",
    "--fps 5": "has no videos",
}


def test_refusals(source, refusals):
    words = ("backbone", "train", "--quiet", *QUICK)
    for flags, said in REFUSED.items():
        held = () if "--targets" in flags or "--subject" in flags else ("--subject", "s1")
        refusals({f"faces {flags}": said}, *words, *held)
    refusals({"absent": "absent"}, *words)
    assert not Path("backbone.pt2").exists()

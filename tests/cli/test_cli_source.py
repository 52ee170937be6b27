"""train, pair, pretrain, backbone train: who is source, what is made, what is reused."""

from pathlib import Path

import pytest

from featlab.cache.reader import Cache
from featlab.extraction.training.export import read_card
from featlab.protocol.splits import choose_targets
from featlab.workspace.workspace import _read_once


def test_pair_runs_as_typed_says_what_it_made_and_reuses_it(folder, run_well, run_json, refused, monkeypatch):
    result = run_well("pair --strategy landmark")
    assert "192" in result.stdout
    assert "nobody is held out" in result.stderr
    assert list(folder.glob("stages/pair-*/pairs.csv"))
    first, second = (run_json("pair --strategy cosine --label-rule same") for _ in range(2))
    assert (first["pairs"], first["same_label_share"], first["reused"]) == (192, 1.0, False)
    assert second == first | {"reused": True}
    # By an index.
    monkeypatch.setattr("featlab.pairing.search.SMALLEST", 0)
    shown = run_well("pair --strategy cosine --index IVF4,Flat").stdout
    assert "100.0 % of the true references, on a sample" in " ".join(shown.split())
    assert "pair.index = IVF,Flt: faiss can't use it" in refused("pair --strategy cosine --index IVF,Flt -q")


def test_files_are_relative_to_where_they_are_named_and_a_flag_beats_the_file(folder, run_json, monkeypatch):
    Path("who.txt").write_text("s041\n")
    with Path("featlab.toml").open("a") as file:
        file.write('protocol.targets = "who.txt"\npair.strategy = "random"\n')
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    Path("those.txt").write_text("s041\ns042\n")
    assert run_json("train -C ..")["source_subjects"] == 7
    assert run_json("train -C .. --cache ../cache.h5")["reused"]
    other = run_json("train -C .. --targets those.txt --dim 4")
    assert (other["source_subjects"], other["features"]) == (6, 4)
    assert [run_json("pair -C ..", *more)["strategy"] for more in ((), ("--strategy", "cosine"))] == [
        "random",
        "cosine",
    ]


def test_pretrain_writes_a_bundle_that_adapt_finds_and_quiet_leaves_out_who_is_held_out(folder, run_json):
    made = run_json("pretrain --subject s041")
    assert "held out: s041" in made.stderr
    assert (made["source_subjects"], made["translator"], made["bank_subjects"]) == (7, "joint", 7)
    assert made["last"]["loss"] < made["first"]["loss"]
    mlp = run_json("pretrain --quiet --subject s041 --set pretrain.form=mlp --set pretrain.epochs=2")
    assert (mlp["translator"], mlp["epochs"], mlp.stderr) == ("mlp", 2, "")
    assert (folder / made["folder"] / "model.safetensors").exists()
    adapted = run_json("adapt --subject s041")
    assert (adapted["bundle"], "pretrain:" in adapted.stderr) == (made["folder"], False)


def test_the_source_stages_read_the_rows_of_source_people_alone(folder, run_json, monkeypatch):
    _read_once.cache_clear()  # Other tests have read this cache, by the same name.
    asked, read = [], Cache.read
    monkeypatch.setattr(Cache, "read", lambda cache, names=None: asked.append(names) or read(cache, names))
    for stage in ("train", "pair", "pretrain"):
        asked.clear()
        run_json(stage, "--targets", "s041")
        assert all("s041" not in names for names in asked), stage
    run_json("train")
    # All rows, whose digest is checked.
    assert None in asked


TRAIN = "backbone train --size 12 --epochs 1 --batch 8 --no-refit --jobs 1 --layers maxpool"
PEOPLE = tuple(f"s{person}" for person in range(6))


@pytest.fixture
def source(tmp_path, monkeypatch, make_tree):
    """subject/label/image for six people, below the current folder."""
    make_tree(tmp_path / "faces", 6)
    monkeypatch.chdir(tmp_path)
    return Path("faces")


def test_it_writes_a_backbone_and_says_how_to_go_on(source, run_well):
    result = run_well(TRAIN, "faces", "--targets", "2", "--draws", "2", "--out", "net.pt2")
    held = sorted({name for draw in range(2) for name in choose_targets(PEOPLE, "2", seed=0, draw=draw)})
    assert read_card(Path("net.pt2"))["held_out_subjects"] == held
    assert "featlab extract faces --backbone pt2:net.pt2 --trust-code --out cache.h5" in result.stdout
    assert f"{6 - len(held)} source subjects, {len(held)} held out" in result.stderr
    assert not Path("net.training").exists()


def test_unreadable_source_images_and_nobody_held_out_are_said(source, run_well, monkeypatch):
    # An export takes longer than the training here.
    monkeypatch.setattr("featlab.extraction.training.train.export_backbone", lambda module, path, meta: 0.0)
    assert "warning: nobody is held out" in run_well(TRAIN, "faces", "--quiet").stderr
    for person in ("s1", "s2"):
        (source / person / "smile" / "img0.png").write_bytes(b"")
    result = run_well(TRAIN, "faces", "--subject", "s2", "--out", "other.pt2", code=3)
    assert "s1/smile/img0.png: the file is empty" in result.stderr
    assert "s2/smile/img0.png" not in result.stderr


def test_refusals(source, refusals):
    table = {
        "absent": "absent",
        "faces --targets 6": "at least one must stay a source",
        "faces --subject s9": "unknown subject 's9'",
        "faces --subject s1 --set flip": "expected key=value",
        "faces --subject s1 --set flop=1": "did you mean 'flip'",
        "faces --subject s1 --set augment.flip=1": "backbone.augment.flip is called backbone.flip now",
        "faces --subject s1 --set augment.gamma=1": "light scales all changes",
        "faces --subject s1 --if-exists skip": "--if-exists = 'skip' is not one of",
        "faces --subject s1 --device tpu": "must be auto, cpu, cuda or mps",
        "faces --subject s1 --fps 5": "has no videos",
    }
    refusals(table, f"{TRAIN} --quiet")
    assert not Path("backbone.pt2").exists()

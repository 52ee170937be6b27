from pathlib import Path

import pytest

from featlab.extraction.training.export import read_card
from featlab.protocol.splits import choose_targets

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
    "--set augment.flop=1": "did you mean 'flip'",
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

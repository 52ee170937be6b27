import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import save

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.backbones.weights import state_sha256
from featlab.extraction.training import TrainConfig
from featlab.extraction.training.export import read_card
from featlab.extraction.training.fit import fit
from featlab.extraction.training.train import train_backbone


def _stop_after(phase, epoch):
    def on_epoch(now, done, total, facts):
        if (now, done) == (phase, epoch):
            raise KeyboardInterrupt

    return on_epoch


# A few steps, one tap: what a network costs to export grows with what it returns.
QUICK = TrainConfig(size=12, layers=("maxpool",), epochs=1, batch=8, refit=False)


@pytest.fixture
def unwritten(monkeypatch):
    """Leave out the file, an export takes longer than the training here; the card has the hash of the weights."""
    monkeypatch.setattr("featlab.extraction.training.train.export_backbone", lambda module, path, meta: 0.0)


@pytest.mark.usefixtures("unwritten")
def test_a_killed_run_ends_in_the_same_network_bitwise_without_the_held_out(make_source, tmp_path, monkeypatch):
    def watched(model, *given, **more):
        starts.append(state_sha256(model))
        return fit(model, *given, **more)

    starts = []
    monkeypatch.setattr("featlab.extraction.training.train.fit", watched)
    train = partial(train_backbone, make_source(), replace(QUICK, epochs=3, lr=0.02, refit=True), held_out=["s0"])
    out, seen = tmp_path / "net.pt2", []
    report = train(out, seed=4, on_epoch=lambda *now: seen.append(now[:3]))
    last = report.card["best_epoch"]
    assert last < 3, "for the refit to end where the choice was best"
    assert (len(starts), len(set(starts))) == (2, 1), "the refit begins anew"
    refit = [("refit", done, last) for done in range(1, last + 1)]
    assert seen == [*(("choose", done, 3) for done in (1, 2, 3)), *refit]
    assert report.card["source_subjects"] == ["s1", "s2", "s3", "s4"]
    for phase, epoch in (("choose", 1), ("choose", 3), ("refit", 1)):
        with pytest.raises(KeyboardInterrupt):
            train(out, seed=4, on_epoch=_stop_after(phase, epoch))
        torch.manual_seed(epoch)
    again = train(out, seed=4)
    assert (again.resumed, again.card) == (3 + 1, report.card)
    assert train(out, seed=5).card["weights_sha256"] != report.card["weights_sha256"]
    assert not out.with_suffix(".training").exists()


@pytest.mark.usefixtures("unwritten")
def test_training_learns_what_tells_the_classes_apart_and_ends_when_nothing_gets_better(make_source, tmp_path):
    items = make_source(subjects=6, frames=6)
    config = TrainConfig(size=12, epochs=8, batch=8, refit=False, light=0.3, erase=0.0)
    report = train_backbone(items, config, tmp_path / "net.pt2")
    assert report.card["validation_macro_f1"] >= 0.9
    assert report.card["history"][-1]["loss"] < report.card["history"][0]["loss"]
    # A learning rate that moves nothing: the statistics of BatchNorm alone change the scores.
    config = replace(QUICK, epochs=40, lr=1e-12, patience=2)
    items = [item for item in items if item.subject in ("s0", "s1", "s2")]
    report = train_backbone(items, config, tmp_path / "still.pt2")
    assert report.card["epochs"] == report.card["best_epoch"] + 2 < 40


def test_the_file_is_the_best_epochs_network_says_who_made_it_and_is_kept_for_the_same_request(make_source, tmp_path):
    items, out, state = make_source(), tmp_path / "net.pt2", torch.get_rng_state()
    train = partial(train_backbone, items, replace(QUICK, epochs=4), out, held_out=["s3"], seed=1)
    report = train()
    assert torch.equal(torch.get_rng_state(), state)
    card = read_card(out)
    assert card == json.loads(json.dumps(report.card))
    assert (card["held_out_subjects"], len(card["validation_subjects"])) == (["s3"], 1)
    assert sorted(card["source_subjects"] + card["validation_subjects"]) == ["s0", "s1", "s2", "s4"]
    assert make_backbone(f"pt2:{out}").info().trained_on == ("s0", "s1", "s2", "s4")
    assert len(card["history"]) == card["epochs"] == 4
    scores = [(facts["validation_macro_f1"], -facts["validation_loss"]) for facts in card["history"]]
    assert scores[card["best_epoch"] - 1] == max(scores)
    before = out.stat().st_mtime_ns
    assert (train().resumed, out.stat().st_mtime_ns) == (4, before)
    for change, words in (
        ({"config": replace(QUICK, epochs=4, lr=0.5)}, r"lr was 0\.\d+ and is 0\.5"),
        ({"seed": 2}, "seed was 1 and is 2"),
        ({"held_out": ["s1"]}, r"fit_subjects was|held_out_subjects was"),
        ({"if_exists": "resumed"}, "did you mean 'resume'"),
    ):
        with pytest.raises((InputError, ConfigError), match=words):
            train_backbone(*train.args[:1], **{"config": train.args[1], "out": out, **train.keywords, **change})
    items[0].path.write_bytes(items[1].path.read_bytes())
    with pytest.raises(InputError, match=r"images was .*--if-exists overwrite"):
        train()
    train(if_exists="overwrite")
    assert read_card(out)["request"] != card["request"]


@pytest.mark.usefixtures("unwritten")
def test_another_requests_or_a_damaged_state_is_refused(make_source, tmp_path, refused):
    items, out, config = make_source(), tmp_path / "net.pt2", replace(QUICK, epochs=3, refit=True)
    with pytest.raises(KeyboardInterrupt):
        train_backbone(items, config, out, on_epoch=_stop_after("choose", 3))
    folder = out.with_suffix(".training")
    assert sorted(path.name for path in folder.iterdir()) == ["choose.safetensors", "pixels.uint8"]
    other = replace(config, weight_decay=0.5)
    with refused(InputError, "unfinished training", "weight_decay was ", "and is 0.5", "overwrite"):
        train_backbone(items, other, out)
    state = folder / "choose.safetensors"
    for content in (state.read_bytes()[:20], save({}, {"request": "{}"})):
        state.write_bytes(content)
        with refused(InputError, "choose.safetensors is damaged", "overwrite"):
            train_backbone(items, config, out)
    report = train_backbone(items, other, out, if_exists="overwrite", neutral="smile")
    assert (report.resumed, report.card["classes"]) == (0, ["smile", "neutral"]), "the neutral class comes first"
    with refused(InputError, "no row has the neutral label 'calm'"):
        train_backbone(items, config, tmp_path / "x.pt2", neutral="calm")

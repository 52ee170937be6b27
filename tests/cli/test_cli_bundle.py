"""bundle import: checkpoints of the SHOT family in, and on with adapt, predict and export."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from featlab.bundle.bundle import load_bundle

WIDTH = 5


@pytest.fixture
def shot(folder, table):
    """source_B.pt and source_C.pt beside the cache: the difference of the class means, with the outputs smile first."""
    parts = torch.nn.ModuleDict({"bottleneck": torch.nn.Linear(12, WIDTH), "bn": torch.nn.BatchNorm1d(WIDTH)})
    weight = torch.randn(WIDTH, 12, generator=torch.Generator().manual_seed(4))
    weight[:2] = torch.stack([torch.from_numpy(table.embeddings[table.label == code].mean(axis=0)) for code in (1, 0)])
    parts["bottleneck"].weight.data, parts["bottleneck"].bias.data = weight, -weight.square().sum(dim=1) / 2
    torch.save(parts.state_dict(), "source_B.pt")
    c = {"fc.weight_v": torch.eye(2, WIDTH), "fc.weight_g": torch.full((2, 1), 3.0), "fc.bias": torch.zeros(2)}
    torch.save(c, "source_C.pt")


IMPORT = "bundle import --b source_B.pt --c source_C.pt --out imported"


def test_a_checkpoint_goes_all_the_way_to_predictions_and_an_exported_file(folder, shot, run_json, lines_of):
    made = run_json(f"{IMPORT} --cache cache.h5 --subject s041 --classes smile,neutral")
    assert (made["classes"], made["neutral"]) == (["neutral", "smile"], "neutral")
    assert (made["source_subjects"], made["bank_subjects"], made["translator"]) == (7, 7, "identity")
    assert (made["accuracy"] > 0.7, set(made["files"])) == (True, {"b", "c"})
    assert "s041" not in load_bundle(Path("imported")).source_subjects
    person = ("--subject", "s041", "--bundle", "imported")
    adapted = run_json("adapt", *person)
    assert (adapted["frames"], adapted["method"]) == (6, "pft")
    assert run_json("predict --method source-only", *person)["rows"] == 24
    right = [line["video"].startswith(line["predicted"]) for line in lines_of("predictions.csv")]
    assert np.mean(right) > 0.7
    written = run_json("export --out s041.safetensors", *person)
    assert (written["facts"]["method"], written["rows_checked"]) == ("pft", 24)
    assert written["max_difference"] < 1e-4


def test_the_import_says_what_it_took_for_granted_and_replaces_nothing(folder, shot, run_well, refused):
    result = run_well(IMPORT, "--cache", "cache.h5")
    assert "in the order smile, neutral much better" in result.stderr
    assert "as in the cache; --classes gives another order" in result.stderr
    assert "pft adapts the offset of an identity" in result.stderr
    assert "192 labelled rows" in result.stdout  # Nobody is held out.
    assert "imported: exists" in refused(IMPORT, "--cache", "cache.h5", "--quiet", "--classes", "smile,neutral")


def test_without_a_cache_the_extractor_comes_from_json(folder, shot, run_json, refused, extractor):
    Path("who.json").write_text(json.dumps(extractor.to_dict()))
    made = run_json(f"{IMPORT} --extractor who.json --classes smile,neutral --neutral neutral")
    assert (made["bank_subjects"], made["accuracy"]) == (0, None)
    assert "needs a style bank" in refused("adapt --subject s041 --bundle imported --method neutral-shift")


def test_refusals(folder, shot, refusals):
    table = {
        "": "name the --cache",
        "--cache cache.h5 --extractor who.json": "leave --extractor out",
        "--extractor who.json --subject s041": "no source to keep a subject out of",
        "--cache cache.h5 --subject s04l": "did you mean 's04",
        "--cache cache.h5 --methods corl": "did you mean 'coral'",
        "--cache cache.h5 --t source_B.pt": "two linear layers, found 1",
    }
    refusals(table, IMPORT)

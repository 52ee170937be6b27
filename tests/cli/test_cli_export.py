"""export: a person's model as a file for other programs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from featlab import write_table
from featlab.exchange import formats
from featlab.extraction.backbones import make_backbone


def test_a_person_who_is_not_adapted_to_yet_is_adapted_first(folder, run_well, run_json):
    result = run_well("export --subject s041 --out s041.safetensors")
    assert "s041 is not adapted to yet" in result.stderr
    assert "rows checked         24" in result.stdout
    with safe_open("s041.safetensors", framework="np") as file:
        facts = json.loads(file.metadata()["featlab"])
    assert (facts["subject"], facts["classes"], facts["extractor"]["id"]) == ("s041", ["neutral", "smile"], "toy")
    again = run_json("export --subject s041 --out s041.pt2")
    assert (again["format"], again["rows_checked"]) == ("pt2", 24)
    assert again["max_difference"] < 1e-4


def test_without_a_subject_the_source_model_goes_out(trained, run_json):
    made = run_json("export --out source.safetensors --subject s041 --method source-only")
    plain = run_json("export --out plain.safetensors --targets s041")
    assert (plain["facts"]["subject"], plain["facts"]["method"], plain["rows_checked"]) == (None, "source-only", 0)
    ours, theirs = (load_file(each["path"]) for each in (made, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_bundle_with_an_adaptation_in_it_needs_no_cache(bundle, run_json, refused):
    shutil.copytree(bundle, "elsewhere/bundle")
    Path("cache.h5").unlink()
    words = "export --bundle elsewhere/bundle --out a.safetensors --subject"
    written = run_json(words, "s041")
    assert (written["rows_checked"], written["facts"]["method"]) == (0, "pft")
    assert "no adaptation there" in refused(words, "s042")
    assert "adapted by pft, not adabn" in refused(words, "s041", "--method", "adabn")


def test_a_file_that_computes_something_else_exits_with_1_and_is_gone(trained, run_well, monkeypatch):
    write, load = formats.FORMATS["safetensors"]

    def spoilt(path, module, example, text):
        module.mean += 1
        write(path, module, example, text)

    monkeypatch.setitem(formats.FORMATS, "safetensors", (spoilt, load))
    (line,) = run_well("export --targets s041 --out a.safetensors -q", code=1).stderr.splitlines()
    assert ("differ from the model's" in line, Path("a.safetensors").exists()) == (True, False)


@pytest.fixture
def network(folder, table):
    """The option that names a little network in a .pt2 file; its embeddings of random images are in net.h5."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 9, 5, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        ).eval()
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(net, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=shapes), "backbone.pt2")
    backbone, random = make_backbone("pt2:backbone.pt2", device="cpu"), np.random.default_rng(0)
    images = [random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(len(table))]
    write_table("net.h5", replace(table, embeddings=backbone.embed(images, None)), backbone.info())
    return ("--backbone", "pt2:backbone.pt2", "--trust-code")


def test_the_backbone_that_made_the_features_takes_images_and_another_is_refused(network, run_json, refusals):
    made = run_json("export --cache net.h5 --subject s041 --out whole.pt2", *network)
    assert (made["facts"]["images"]["size"], made["facts"]["subject"]) == (16, "s041")
    assert (made["facts"]["input"], made["random_rows_checked"]) == ("images", 3)
    assert made["max_difference"] < 1e-3
    program = torch.export.load("whole.pt2").module()
    assert program(torch.zeros(1, 3, 16, 16))["probabilities"].shape == (1, 2)
    folder = run_json("pretrain --cache net.h5 --subject s041")["folder"]
    table = {
        "--backbone hog": "'hog' is no torch network",
        "--backbone pt2:backbone.pt2": "pt2:backbone.pt2 is a program, not weights alone",
        "--backbone resnet18 --weights random --option size=32": "'resnet18'",
        f"{' '.join(network)} --quiet --format safetensors": "safetensors holds tensors",
    }
    refusals(table, f"export --out net.pt2 --bundle {folder}")

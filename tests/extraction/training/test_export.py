"""A backbone file says what it is, and is only written when it computes what the network computes.

That it does, for any number of images, is shown where files are read, in the tests of the backbones.
"""

import json

import pytest
import torch
from torch import nn

from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.backbones.hubs import small_resnet
from featlab.extraction.training.export import BackboneMeta, export_backbone, export_onnx, read_card, read_meta

META = BackboneMeta(size=32, id="mine", layers=("maxpool", "layer2"), card={"source_subjects": ["s1"], "n": 3})


@pytest.fixture
def network():
    """A small network in training mode."""
    torch.manual_seed(0)
    return small_resnet(widths=(4, 6, 8, 10), blocks=(1, 1, 1, 1))


def test_the_file_says_what_it_is(network, tmp_path):
    path, extra = tmp_path / "net.pt2", {"featlab.json": ""}
    assert 0 <= export_backbone(network, path, META) <= 1e-5
    assert network.training, "the caller's network must stay as it was"
    assert all(parameter.requires_grad for parameter in network.parameters())
    torch.export.load(path, extra_files=extra)
    content = json.loads(extra["featlab.json"])
    assert content == read_meta(path) == json.loads(META.to_json(10))
    assert (content["format"], content["format_version"]) == ("featlab-backbone", 1)
    assert (content["size"], content["dim"], content["id"]) == (32, 10, "mine")
    assert content["layers"] == ["maxpool", "layer2"]
    assert content["mean"] == [0.485, 0.456, 0.406]
    assert read_card(path) == {"source_subjects": ["s1"], "n": 3}


class _Data(nn.Module):
    """Takes another path for other values: nothing that can be exported."""

    def forward(self, images):
        return images.mean(dim=(2, 3)) if images.sum() > 0 else images.amax(dim=(2, 3))


def test_what_is_no_backbone_is_refused_and_nothing_is_written(network, tmp_path, refused, monkeypatch):
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for other, layers, words in (
        (nn.Sequential(nn.Conv2d(3, 4, 3)), (), "pool over positions"),
        (pooled, ("layer1",), "no layer 'layer1'"),
        (pooled, ("1",), "no positions"),
        (_Data(), (), "can't export"),
    ):
        with refused(ConfigError, words):
            export_backbone(other, tmp_path / "net.pt2", BackboneMeta(size=8, id="x", layers=layers))
    for wrong in ({"size": 0}, {"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}):
        with refused(ConfigError):
            BackboneMeta(**{"size": 8, "id": "x", **wrong})
    monkeypatch.setattr("featlab.extraction.training.export.find_spec", lambda name: None)
    with refused(ConfigError, "an ONNX file needs", "pip install 'featlab[onnx]'"):
        export_onnx(network, tmp_path / "net.onnx", META)
    load = torch.export.load

    def damaged(*args, **kwargs):
        program = load(*args, **kwargs)
        program.state_dict["network.conv1.weight"].mul_(1.01)
        return program

    monkeypatch.setattr(torch.export, "load", damaged)
    with refused(FeatlabError, "differ from the network's"):
        export_backbone(network, tmp_path / "net.pt2", META)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_backbone_of_ours_are_refused(tmp_path, refused):
    (tmp_path / "text.pt2").write_text("no archive")
    torch.export.save(torch.export.export(nn.Flatten(), (torch.zeros(1, 3, 2, 2),)), tmp_path / "foreign.pt2")
    for name, says in (
        ("absent.pt2", "can't be read as a .pt2"),
        ("text.pt2", "can't be read as a .pt2"),
        ("foreign.pt2", "has no featlab.json"),
    ):
        with refused(InputError, says):
            read_meta(tmp_path / name)

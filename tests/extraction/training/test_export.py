"""An exported file computes what the network computes, for any number of images, and says what it is."""

import json

import pytest
import torch
from torch import nn

from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.backbones.hubs import small_resnet
from featlab.extraction.training.export import BackboneMeta, export_backbone, export_onnx, read_card, read_meta

SIZE = 32
META = BackboneMeta(size=SIZE, id="mine", layers=("maxpool", "layer2"), card={"source_subjects": ["s1"], "n": 3})


def _network():
    """Return a small network in training mode whose BatchNorm has seen something."""
    torch.manual_seed(0)
    network = small_resnet(widths=(4, 6, 8, 10), blocks=(1, 1, 1, 1))
    network(torch.randn(8, 3, SIZE, SIZE))
    return network


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Its file: an export takes seconds."""
    path = tmp_path_factory.mktemp("export") / "net.pt2"
    network = _network()
    assert 0 <= export_backbone(network, path, META) <= 1e-5
    assert network.training, "the caller's network must stay as it was"
    return path


def _by_hooks(images):
    """Return the embedding and the layer statistics, the latter with NumPy."""
    network, maps = _network().eval(), {}
    for name in META.layers:
        network.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: maps.__setitem__(name, out.detach().clone().numpy())
        )
    with torch.no_grad():
        found = {"embedding": network(images)}
    for name, values in maps.items():
        found[f"layers.{name}.mean"] = torch.from_numpy(values.mean(axis=(2, 3)))
        found[f"layers.{name}.std"] = torch.from_numpy(values.std(axis=(2, 3)))
    return found


def test_pt2_gives_embedding_and_statistics_for_any_number_of_images(exported):
    program = torch.export.load(exported).module()
    images = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    expected = _by_hooks(images)
    for count in (1, 2, 5):
        found = program(images[:count])
        assert list(found) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value[:count], rtol=1e-5, atol=1e-5)
    # The file says what it is.
    extra = {"featlab.json": ""}
    torch.export.load(exported, extra_files=extra)
    content = json.loads(extra["featlab.json"])
    assert content == read_meta(exported) == json.loads(META.to_json(10))
    assert (content["format"], content["format_version"]) == ("featlab-backbone", 1)
    assert (content["size"], content["dim"], content["id"]) == (SIZE, 10, "mine")
    assert content["layers"] == ["maxpool", "layer2"]
    assert content["mean"] == [0.485, 0.456, 0.406]
    assert read_card(exported) == {"source_subjects": ["s1"], "n": 3}


@pytest.mark.slow
def test_onnx_gives_what_pt2_gives(tmp_path):
    pytest.importorskip("onnxscript", reason="torch's ONNX exporter needs onnxscript (extra onnx)")
    onnx = pytest.importorskip("onnx", reason="extra onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra onnx")
    path = tmp_path / "net.onnx"
    assert export_onnx(_network(), path, META) <= 1e-5
    session = onnxruntime.InferenceSession(str(path))
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    expected = _by_hooks(images)
    names = [output.name for output in session.get_outputs()]
    assert names == list(expected)
    for name, value in zip(names, session.run(names, {"images": images.numpy()}), strict=True):
        torch.testing.assert_close(torch.from_numpy(value), expected[name], rtol=1e-5, atol=1e-5)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(properties["featlab"]) == json.loads(META.to_json(10))


def test_a_module_of_ones_own_with_in_place_layers_is_tapped_before_they_act(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    path = tmp_path / "own.pt2"
    export_backbone(network, path, BackboneMeta(size=8, id="own", layers=("0",)))
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        maps = network[0](images)
        found = torch.export.load(path).module()(images)
    torch.testing.assert_close(found["layers.0.mean"], maps.mean(dim=(2, 3)))
    torch.testing.assert_close(found["layers.0.std"], maps.flatten(2).std(dim=2, correction=0))
    assert maps.min() < 0


class _Data(nn.Module):
    """Takes another path for other values: nothing that can be exported."""

    def forward(self, images):
        return images.mean(dim=(2, 3)) if images.sum() > 0 else images.amax(dim=(2, 3))


def test_what_is_no_backbone_is_refused_and_nothing_is_written(tmp_path, refused):
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for network, layers, words in (
        (nn.Sequential(nn.Conv2d(3, 4, 3)), (), "pool over positions"),
        (pooled, ("layer1",), "no layer 'layer1'"),
        (pooled, ("1",), "no positions"),
        (_Data(), (), "can't export"),
    ):
        with refused(ConfigError, words):
            export_backbone(network, tmp_path / "net.pt2", BackboneMeta(size=8, id="x", layers=layers))
        assert list(tmp_path.iterdir()) == []
    for wrong in ({"size": 0}, {"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}):
        with refused(ConfigError):
            BackboneMeta(**{"size": 8, "id": "x", **wrong})


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch, refused):
    load = torch.export.load

    def damaged(*args, **kwargs):
        program = load(*args, **kwargs)
        program.state_dict["network.conv1.weight"].mul_(1.01)
        return program

    monkeypatch.setattr(torch.export, "load", damaged)
    with refused(FeatlabError, "differ from the network's"):
        export_backbone(_network(), tmp_path / "net.pt2", META)
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

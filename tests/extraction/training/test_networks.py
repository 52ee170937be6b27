import json
import zipfile

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.backbones.exported_program import load_program
from featlab.extraction.backbones.modules import TAPS, resnet18, small_resnet
from featlab.extraction.training.export import BackboneMeta, export_backbone, read_card
from featlab.extraction.training.train import build_network, load_weights


@pytest.mark.usefixtures("libraries")
def test_networks_are_built_without_a_head_with_the_taps_that_have_positions_and_others_are_refused(refused):
    module, dim, taps = build_network("small", 96)
    assert (dim, taps, module.training) == (module.dim, TAPS, True)
    assert build_network("small", 16)[2] == ("maxpool", "layer1", "layer2")
    assert build_network("small", 16, ("layer2.0.conv1",))[2] == ("layer2.0.conv1",)
    assert build_network("torchvision:resnet18", 64)[1:] == (512, TAPS)
    assert build_network("timm:tiny", 64)[1:] == (8, ())
    known = "known: small, resnet18, torchvision:NAME, timm:NAME"
    for arguments, *words in (
        (("smal", 96), known, "did you mean 'small'"),
        (("torchvision:", 96), known),
        (("timm:tinny", 64), "has no network", "did you mean 'tiny'"),
        (("small", 16, ("layer4",)), "'layer4' has no positions"),
        (("small", 96, ("layer5",)), "did you mean 'layer4'"),
        (("timm:tiny", 1), "timm:tiny doesn't take images of 1x1", "--size"),
    ):
        with refused(ConfigError, *words):
            build_network(*arguments)


def by_hand(images, state):
    """The 18-layer net's pooled output from a state dict alone, after table 1 of the paper."""

    def convolved(x, name, norm, **options):
        parts = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, var = (state[f"{norm}.{part}"][:, None, None] for part in parts)
        x = F.conv2d(x, state[f"{name}.weight"], **options)
        return (x - mean) * weight / torch.sqrt(var + 1e-5) + bias

    x = convolved(images, "conv1", "bn1", stride=2, padding=3).clamp(min=0)
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = convolved(x, f"{name}.conv1", f"{name}.bn1", stride=stride, padding=1).clamp(min=0)
            inner = convolved(inner, f"{name}.conv2", f"{name}.bn2", padding=1)
            if stride == 2:
                x = convolved(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=2)
            x = (x + inner).clamp(min=0)
    return x.flatten(2).mean(dim=2)


def test_the_18_layer_net_computes_what_the_paper_says():
    net = resnet18().eval()
    # BatchNorm values that aren't the identity, so that a swapped layer shows.
    random = torch.Generator().manual_seed(1)
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.copy_(0.1 * torch.randn(value.shape, generator=random))
        elif name.endswith("running_var") or value.dim() == 1:
            value.copy_(1 + torch.rand(value.shape, generator=random))
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out, expected = net(images), by_hand(images, net.state_dict())
    assert out.shape == (2, net.dim) == (2, 512)
    assert out.abs().max() > 0.01
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert sum(parameter.numel() for parameter in net.parameters()) == 11_176_512
    assert len(net.state_dict()) == 120


META = BackboneMeta(size=32, id="mine", layers=("maxpool", "layer2"), card={"source_subjects": ["s1"], "n": 3})


@pytest.fixture
def network():
    return small_resnet(widths=(4, 6, 8, 10))


def test_the_file_says_what_it_is_and_starts_a_network(network, tmp_path, refused):
    path = tmp_path / "net.pt2"
    assert 0 <= export_backbone(network, path, META) <= 1e-5
    assert network.training, "the caller's network must stay as it was"
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert load_program(path)[1] == META
    assert read_card(path) == META.card
    content = json.loads(META.to_json(10))
    assert (content["format"], content["format_version"], content["dim"]) == ("featlab-backbone", 1, 10)
    # It starts a network of its shapes.
    fresh = small_resnet(widths=(4, 6, 8, 10))
    load_weights("small", fresh, path)
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in network.state_dict().items())
    with refused(ConfigError, "doesn't fit resnet18: keys 40 missing (layer1.1.conv1.weight"):
        load_weights("resnet18", resnet18(), path)


class Branches(nn.Module):
    def forward(self, images):
        return images.mean(dim=(2, 3)) if images.sum() > 0 else images.amax(dim=(2, 3))


def test_what_is_no_backbone_is_refused_and_nothing_is_written(network, tmp_path, refused, monkeypatch):
    pooled, path = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), tmp_path / "net.pt2"
    monkeypatch.setattr("featlab.extraction.training.export.find_spec", lambda name: None)
    for other, name, layers, words in (
        (nn.Conv2d(3, 4, 3), "net.pt2", (), "pool the map"),
        (pooled, "net.pt2", ("layer1",), "no layer 'layer1'"),
        (pooled, "net.pt2", ("0",), "no positions"),
        (Branches(), "net.pt2", (), "can't export"),
        (pooled, "net.onnx", (), "pip install 'featlab[onnx]'"),
    ):
        with refused(ConfigError, words):
            export_backbone(other, tmp_path / name, BackboneMeta(size=8, id="x", layers=layers))
    with refused(ConfigError, "std positive"):
        BackboneMeta(size=8, id="x", std=(1.0, 0.0, 1.0))
    load = torch.export.load

    def damaged(*args, **kwargs):
        program = load(*args, **kwargs)
        program.state_dict["network.conv1.weight"].mul_(1.01)
        return program

    monkeypatch.setattr(torch.export, "load", damaged)
    with refused(FeatlabError, "differ from the network's"):
        export_backbone(network, path, META)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_backbone_of_ours_have_no_card(tmp_path, refused):
    path = tmp_path / "net.pt2"
    for inner, says in (
        (None, "can't be read as a .pt2"),
        ("extra/other.json", "has no featlab.json"),
        ("extra/featlab.json", "its format is 'another'"),
    ):
        if inner is not None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(f"net/{inner}", '{"format": "another"}')
        with refused(InputError, says):
            read_card(path)

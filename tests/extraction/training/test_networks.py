"""Networks by name, their taps, weights to start from; the residual networks' names, shapes and values."""

import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones.hubs import TAPS, ResNet, resnet18, small_resnet
from featlab.extraction.training.export import BackboneMeta, export_backbone
from featlab.extraction.training.networks import build_network, default_size, load_weights


def test_the_small_net_is_for_96_pixels_and_taps_without_positions_are_left_out():
    assert [default_size(arch) for arch in ("small", "resnet18", "timm:resnet18")] == [96, 224, 224]
    network = build_network("small", 96)
    assert (network.dim, network.taps) == (network.module.dim, TAPS)
    assert network.module.training
    assert build_network("small", 16).taps == ("maxpool", "layer1", "layer2")
    assert build_network("small", 16, ("layer2.0.conv1",)).taps == ("layer2.0.conv1",)
    # It halves the resolution from stage to stage.
    net = small_resnet(widths=(4, 6, 8, 10)).eval()
    shapes = {}
    for name in TAPS:
        net.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: shapes.__setitem__(name, tuple(out.shape[1:]))
        )
    assert net(torch.zeros(1, 3, 96, 96)).shape == (1, net.dim) == (1, 10)
    assert [shapes[name] for name in TAPS] == [(4, 24, 24), (4, 24, 24), (6, 12, 12), (8, 6, 6), (10, 3, 3)]


def test_unknown_networks_and_layers_are_refused(refused, monkeypatch):
    known = "known: small, resnet18, torchvision:NAME, timm:NAME"
    for arguments, *words in (
        *((("smal", 96), known), (("torchvision:", 96), known), (("hf:x", 96), known)),
        (("small", 16, ("layer4",)), "'layer4' of small has no positions", "at 16x16", "e.g. layer2"),
        (("small", 96, ("layer5",)), "did you mean 'layer4'"),
    ):
        with refused(ConfigError, *words):
            build_network(*arguments)
    for library in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.setitem(sys.modules, f"{library}.models", None)
        with refused(ConfigError, "featlab[backbones]"):
            build_network(f"{library}:resnet18", 64)
    for wrong in ({"widths": (4, 8)}, {"blocks": (1, 1, 0, 1)}, {"stem": 4}):
        with refused(ConfigError):
            ResNet(**wrong)


@pytest.mark.usefixtures("libraries")
def test_networks_of_the_libraries_lose_their_head(refused):
    for library, name, wrong, dim, tap in (
        ("torchvision", "resnet18", "resnet19", 512, "maxpool"),
        ("timm", "tiny", "tinny", 8, None),
    ):
        network = build_network(f"{library}:{name}", 64)
        assert (network.dim, network.taps[:1]) == (dim, (tap,) if tap else ())
        with refused(ConfigError, f"{library} has no network", f"did you mean '{name}'"):
            build_network(f"{library}:{wrong}", 64)


def test_weights_of_every_kind_start_a_network(tmp_path, refused):
    torch.manual_seed(0)
    known = small_resnet()
    state = known.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pt")
    export_backbone(known, tmp_path / "w.pt2", BackboneMeta(size=32, id="x"))
    for suffix in ("safetensors", "pt", "pt2"):
        fresh = small_resnet()
        load_weights("small", fresh, tmp_path / f"w.{suffix}")
        assert all(torch.equal(fresh.state_dict()[name], value) for name, value in state.items())
    del state["layer3.0.conv1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with refused(ConfigError, "layer3.0.conv1.weight"):
        load_weights("small", small_resnet(), tmp_path / "w.safetensors")
    (tmp_path / "w.pt2").write_text("no archive")
    with refused(InputError, "w.pt2 isn't a program"):
        load_weights("small", small_resnet(), tmp_path / "w.pt2")


def normalised(x, state, name):
    """BatchNorm in evaluation mode, written out."""
    weight, bias, mean, var = (
        state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) * weight / torch.sqrt(var + 1e-5) + bias


def by_hand(images, state):
    """The 18-layer net's pooled output from a state dict alone, after table 1 of the paper."""

    def convolved(x, name, norm, **options):
        return normalised(F.conv2d(x, state[f"{name}.weight"], **options), state, norm)

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

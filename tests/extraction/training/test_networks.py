"""Networks by name, their taps, and weights to start from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones.resnet import TAPS, small_resnet
from featlab.extraction.training.export import BackboneMeta, export_backbone
from featlab.extraction.training.networks import build_network, default_size, load_weights


def test_the_small_net_is_for_96_pixels_and_the_others_for_224() -> None:
    assert [default_size(arch) for arch in ("small", "resnet18", "timm:resnet18")] == [96, 224, 224]
    network = build_network("small", 96)
    assert (network.dim, network.taps) == (network.module.dim, TAPS)
    assert network.module.training


def test_taps_without_positions_at_this_size_are_left_out_or_refused() -> None:
    assert build_network("small", 16).taps == ("maxpool", "layer1", "layer2")
    assert build_network("small", 16, ("layer2.0.conv1",)).taps == ("layer2.0.conv1",)
    with pytest.raises(ConfigError, match=r"'layer4' of small has no positions.*at 16x16.*e\.g\. layer2"):
        build_network("small", 16, ("layer4",))
    with pytest.raises(ConfigError, match="did you mean 'layer4'"):
        build_network("small", 96, ("layer5",))


@pytest.mark.parametrize("name", ["smal", "resnet", "torchvision:", "hf:x"])
def test_an_unknown_network_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ConfigError, match=r"known: small, resnet18, torchvision:NAME, timm:NAME"):
        build_network(name, 96)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_missing_library_names_the_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.models", None)
    with pytest.raises(ConfigError, match=r"featlab\[backbones\]"):
        build_network(f"{library}:resnet18", 64)


def test_torchvision_and_timm_networks_lose_their_head() -> None:
    pytest.importorskip("torchvision", reason="extra backbones", exc_type=ImportError)
    network = build_network("torchvision:resnet18", 64)
    assert (network.dim, network.taps[0]) == (512, "maxpool")
    with pytest.raises(ConfigError, match="torchvision has no network"):
        build_network("torchvision:resnet19", 64)
    pytest.importorskip("timm", reason="extra backbones", exc_type=ImportError)
    assert build_network("timm:resnet10t", 64).dim == 512


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pt2"])
def test_weights_of_every_kind_start_a_network(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    known, fresh = small_resnet(), small_resnet()
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(known.state_dict(), path)
    elif suffix == ".pt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in known.state_dict().items()}}, path)
    else:
        export_backbone(known, path, BackboneMeta(size=32, id="x"))
    load_weights("small", fresh, path)
    for name, value in known.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    state = small_resnet().state_dict()
    del state["layer3.0.conv1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"layer3\.0\.conv1\.weight"):
        load_weights("small", small_resnet(), tmp_path / "w.safetensors")
    (tmp_path / "w.pt2").write_text("no archive")
    with pytest.raises(InputError, match=r"w\.pt2 isn't a program"):
        load_weights("small", small_resnet(), tmp_path / "w.pt2")

"""The residual networks have the names, shapes and values that others' state dicts expect."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.errors import ConfigError
from featlab.extraction.backbones.resnet import TAPS, ResNet, resnet18, small_resnet


def _normalised(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Return BatchNorm in evaluation mode, written out."""
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    scale = state[f"{name}.weight"] / torch.sqrt(var + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bias"][:, None, None]


def _by_hand(images: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Return the 18-layer net's pooled output from a state dict alone, after table 1 of the paper."""
    x = _normalised(F.conv2d(images, state["conv1.weight"], stride=2, padding=3), state, "bn1").clamp(min=0)
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = _normalised(
                F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), state, f"{name}.bn1"
            ).clamp(min=0)
            inner = _normalised(F.conv2d(inner, state[f"{name}.conv2.weight"], padding=1), state, f"{name}.bn2")
            if stride == 2:
                x = _normalised(
                    F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2), state, f"{name}.downsample.1"
                )
            x = (x + inner).clamp(min=0)
    return x.flatten(2).mean(dim=2)


def _shuffled_statistics(net: ResNet) -> ResNet:
    """Give BatchNorm values that aren't the identity, so that a swapped layer shows."""
    random = torch.Generator().manual_seed(1)
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.copy_(0.1 * torch.randn(value.shape, generator=random))
        elif name.endswith("running_var") or value.dim() == 1:
            value.copy_(1 + torch.rand(value.shape, generator=random))
    return net.eval()


def test_the_18_layer_net_has_the_parameters_of_the_paper_without_fc() -> None:
    net = resnet18()
    assert sum(parameter.numel() for parameter in net.parameters()) == 11_176_512
    assert net.dim == 512


def test_the_state_dict_has_torchvisions_names_and_shapes() -> None:
    state = resnet18().state_dict()
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", *(f"bn1.{field}" for field in batch_norm)}
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            for number in (1, 2):
                expected.add(f"layer{stage}.{block}.conv{number}.weight")
                expected |= {f"layer{stage}.{block}.bn{number}.{field}" for field in batch_norm}
        if stage > 1:
            expected.add(f"layer{stage}.0.downsample.0.weight")
            expected |= {f"layer{stage}.0.downsample.1.{field}" for field in batch_norm}
    assert set(state) == expected
    assert len(state) == 120
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert state["layer4.0.conv1.weight"].shape == (512, 256, 3, 3)


def test_the_18_layer_net_computes_what_the_paper_says() -> None:
    net = _shuffled_statistics(resnet18())
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = net(images)
        expected = _by_hand(images, net.state_dict())
    assert out.shape == (2, 512)
    assert out.abs().max() > 0.01
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_the_small_net_halves_the_resolution_from_stage_to_stage() -> None:
    net = small_resnet(widths=(4, 6, 8, 10)).eval()
    sides = {}
    for name in TAPS:
        net.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: sides.__setitem__(name, tuple(out.shape[1:]))
        )
    assert net(torch.zeros(1, 3, 96, 96)).shape == (1, net.dim) == (1, 10)
    assert sides == {
        "maxpool": (4, 24, 24),
        "layer1": (4, 24, 24),
        "layer2": (6, 12, 12),
        "layer3": (8, 6, 6),
        "layer4": (10, 3, 3),
    }


@pytest.mark.parametrize("wrong", [{"widths": (4, 8)}, {"blocks": (1, 1, 0, 1)}, {"stem": 4}])
def test_shapes_that_are_no_network_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ResNet(**wrong)  # type: ignore[arg-type]

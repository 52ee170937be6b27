from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featlab.errors import ConfigError
from featlab.extraction.backbones.modules import Taps, channel_statistics, position_axes


class Twice(nn.Module):
    """A convolution, a layer that works in place on its output, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.unused = nn.Conv2d(3, 4, 3)
        self.tuple = Pair()

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.conv(images))
        x = self.relu(self.tuple(x)[0])
        out: Tensor = self.pool(x).flatten(1)
        return out


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x - 0.1, None


@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (3, 5, 2, 6), (3, 1, 2, 2), (2, 7, 7, 7)])
def test_statistics_of_a_map_are_numpys_over_its_positions(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 100
    statistics = channel_statistics(values)
    assert statistics is not None
    exact = values.numpy().astype(np.float64)
    np.testing.assert_allclose(statistics[0].numpy(), exact.mean(axis=(2, 3)), rtol=1e-6)
    np.testing.assert_allclose(statistics[1].numpy(), exact.std(axis=(2, 3)), rtol=1e-4)


def test_statistics_of_tokens_are_numpys_over_the_tokens() -> None:
    values = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0))
    statistics = channel_statistics(values)
    assert statistics is not None
    np.testing.assert_allclose(statistics[0].numpy(), values.numpy().mean(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(statistics[1].numpy(), values.numpy().std(axis=1), rtol=1e-5)


def test_channels_last_maps_of_swin_are_told_by_their_square() -> None:
    assert position_axes((2, 7, 7, 96)) == (1, 2)
    assert position_axes((2, 96, 7, 7)) == (2, 3)
    values = torch.randn(2, 7, 7, 96)
    statistics = channel_statistics(values)
    assert statistics is not None
    torch.testing.assert_close(statistics[0], values.mean(dim=(1, 2)))


def test_half_precision_is_summed_in_float32() -> None:
    values = torch.full((1, 1, 64, 64), 40.0, dtype=torch.float16)
    values[0, 0, 0, 0] = 60000
    statistics = channel_statistics(values)
    assert statistics is not None
    assert statistics[0].dtype == torch.float32
    np.testing.assert_allclose(statistics[0].item(), values.float().mean().item(), rtol=1e-6)
    assert torch.isfinite(statistics[1]).all()


def test_a_constant_map_has_no_deviation() -> None:
    statistics = channel_statistics(torch.full((2, 3, 4, 4), 0.1))
    assert statistics is not None
    assert (statistics[1] < 1e-7).all()


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 1, 1), (2, 1, 5), (2, 3, 4, 4, 4)])
def test_outputs_without_positions_have_no_statistics(shape: tuple[int, ...]) -> None:
    assert channel_statistics(torch.zeros(shape)) is None


def test_a_tap_sees_a_layer_before_later_layers_change_it_in_place() -> None:
    module = Twice().eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        with Taps("net", module, ["conv", "tuple"]).collect() as found:
            module(images)
        plain = module.conv(images)
    torch.testing.assert_close(found["conv"][0], plain.mean(dim=(2, 3)))
    torch.testing.assert_close(found["conv"][1], plain.std(dim=(2, 3), correction=0))
    torch.testing.assert_close(found["tuple"][0], plain.relu().mean(dim=(2, 3)) - 0.1)


def test_hooks_are_gone_afterwards_also_after_an_error() -> None:
    module = Twice().eval()
    taps = Taps("net", module, ["conv"])
    with taps.collect():
        module(torch.zeros(1, 3, 8, 8))
    with pytest.raises(RuntimeError), taps.collect():
        module(torch.zeros(1, 5, 8, 8))
    assert not module.conv._forward_hooks


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("cnv", r"net has no layer 'cnv'; did you mean 'conv'\? \(it has: conv, relu, pool"),
        ("", "has no layer ''"),
        ("relu", "'relu' is called more than once"),
        ("unused", "'unused' isn't called"),
        ("pool", r"'pool' has no positions .*\(1, 4, 1, 1\)"),
    ],
)
def test_a_layer_that_cannot_be_tapped_says_why(layer: str, says: str) -> None:
    module = Twice().eval()
    with pytest.raises(ConfigError, match=says), Taps("net", module, [layer]).collect():
        module(torch.zeros(1, 3, 8, 8))

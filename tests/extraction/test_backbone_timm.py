"""timm's networks: through a stand-in for the library, and through the library where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featlab.errors import ConfigError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.backbones.base import APPENDED


class Tiny(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.fc = nn.Linear(8, classes) if classes else nn.Identity()

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.stem(images).mean(dim=(2, 3)))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for timm, with one network, where the import finds it."""
    library = ModuleType("timm")

    def create_model(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        if name == "gone":
            raise RuntimeError("no pretrained\nweights")
        module = Tiny(num_classes)
        if pretrained:
            nn.init.constant_(module.stem.weight, 0.1)
            nn.init.zeros_(module.stem.bias)  # type: ignore[arg-type]
        return module

    config = {"input_size": (3, 40, 40), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic"}
    library.__dict__.update(
        __version__="9.9",
        is_model=lambda name: name in ("tiny", "tiny.tag", "gone"),
        list_models=lambda: ["tiny"],
        create_model=create_model,
        data=SimpleNamespace(resolve_data_config=lambda arguments, model: config),
    )
    monkeypatch.setitem(sys.modules, "timm", library)


def images(size: int) -> list[Any]:
    return list(np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8))


@pytest.mark.usefixtures("fake")
def test_timms_own_input_is_used_and_the_classifier_is_left_out() -> None:
    backbone = make_backbone("timm:tiny.tag", weights="pretrained", layers="stem")
    output = backbone.embed(images(40), None)
    assert output.shape == (2, 24)
    np.testing.assert_allclose(output[:, 8:16], output[:, :8], atol=1e-6)
    info = backbone.info()
    assert info.id == "timm:tiny.tag"
    assert info.preprocessing == f"RGB, centre square, 40x40 bicubic, mean 0.5 0.5 0.5, std 0.5 0.5 0.5, {APPENDED}"
    assert info.weights == make_backbone("timm:tiny", weights="pretrained").info().weights
    assert info.weights != make_backbone("timm:tiny", weights="random").info().weights


@pytest.mark.usefixtures("fake")
def test_a_checkpoint_with_a_classifier_loads(tmp_path: Path) -> None:
    state = Tiny(5).state_dict()
    torch.save({"model": state}, tmp_path / "w.pth")
    backbone = make_backbone("timm:tiny", weights=str(tmp_path / "w.pth"), size=16, layers="stem")
    assert backbone.embed(images(16), None).shape == (2, 24)
    del state["stem.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"doesn't fit timm:tiny: keys 1 missing \(stem.bias\)"):
        make_backbone("timm:tiny", weights=str(tmp_path / "w.pth"))


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("", {}, "what follows the colon is a network's name"),
        ("tini", {}, "timm 9.9 has no network 'tini'; did you mean 'tiny'"),
        ("tiny", {}, "choose weights with --weights: pretrained, a file, or random"),
        ("tiny", {"weights": "imagenet"}, "'imagenet' is no weights file; --weights pretrained takes timm's own"),
        ("gone", {"weights": "pretrained"}, r"timm:gone can't be made \(no pretrained weights\); name a file"),
    ],
)
def test_what_does_not_fit_is_one_line(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        make_backbone(f"timm:{name}", **options)
    assert "\n" not in str(caught.value)


def test_without_timm_the_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"need timm: pip install 'featlab\[backbones\]'"):
        make_backbone("timm:resnet18", weights="random")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "layer", "dim", "channels"),
    [
        ("resnet18", "layer1", 512, 64),
        ("vit_tiny_patch16_224", "blocks.3", 192, 192),
        ("swin_tiny_patch4_window7_224", "layers.0", 768, 96),
    ],
)
def test_the_real_library_gives_one_vector_an_image(name: str, layer: str, dim: int, channels: int) -> None:
    pytest.importorskip("timm", reason="timm isn't installed (extra: backbones)", exc_type=ImportError)
    backbone = make_backbone(f"timm:{name}", weights="random", layers=layer)
    assert backbone.embed(images(224), None).shape == (2, dim + 2 * channels)

"""torchvision's networks: through a stand-in for the library, and through the library where it is installed."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featlab.errors import ConfigError
from featlab.extraction.backbones import APPENDED, make_backbone
from featlab.extraction.backbones.hubs import remove_head, resnet18
from featlab.extraction.backbones.weights import seeded


class Headed(nn.Module):
    """Our ResNet-18 with torchvision's ``fc``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = resnet18()
        for name, child in self.body.named_children():
            setattr(self, name, child)
        del self.body
        self.fc = nn.Linear(512, 1000)

    def forward(self, images: Tensor) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


class Published(Enum):
    IMAGENET1K_V1 = 1

    def transforms(self) -> Any:
        mode = SimpleNamespace(value="bicubic")
        return SimpleNamespace(crop_size=[32], mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25], interpolation=mode)


class PublishedWeights:
    """torchvision's enums can be iterated over and have a DEFAULT."""

    DEFAULT = Published.IMAGENET1K_V1

    def __iter__(self) -> Any:
        return iter(Published)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for torchvision, with one network, where the import finds it."""
    library, models = ModuleType("torchvision"), ModuleType("torchvision.models")

    def get_model(name: str, weights: Any = None) -> nn.Module:
        module = Headed()
        if weights is not None:
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.fill_(0.01)
        return module

    models.__dict__.update(
        list_models=lambda module: ["resnet18", "resnet50"],
        get_model_weights=lambda name: PublishedWeights(),
        get_model=get_model,
    )
    library.__dict__.update(__version__="9.9", models=models)
    monkeypatch.setitem(sys.modules, "torchvision", library)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


def images(count: int = 2, size: int = 32) -> list[Any]:
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


@pytest.mark.usefixtures("fake")
def test_the_head_is_gone_and_the_librarys_input_is_used() -> None:
    backbone = make_backbone("torchvision:resnet18", weights="random", layers="layer2")
    assert backbone.embed(images(), None).shape == (2, 512 + 2 * 128)
    info = backbone.info()
    assert info.id == backbone.name == "torchvision:resnet18"
    assert info.preprocessing == f"RGB, centre square, 32x32 bicubic, mean 0.5 0.5 0.5, std 0.25 0.25 0.25, {APPENDED}"
    assert info.versions["torchvision"] == "9.9"


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("head", [True, False])
def test_the_shot_layout_and_a_full_checkpoint_load(tmp_path: Path, head: bool) -> None:
    state = seeded(Headed, 3).state_dict()
    if not head:
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    torch.save(state, tmp_path / "source_F.pt")
    backbone = make_backbone("torchvision:resnet18", weights=str(tmp_path / "source_F.pt"), mean=0.5, std=0.25)
    own = make_backbone(
        "resnet18", weights=str(tmp_path / "source_F.pt"), size=32, mean=0.5, std=0.25, interpolation="bicubic"
    )
    np.testing.assert_allclose(backbone.embed(images(), None), own.embed(images(), None), atol=1e-5)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", ["IMAGENET1K_V1", "DEFAULT", "pretrained"])
def test_the_librarys_own_weights_go_by_their_name(name: str) -> None:
    info = make_backbone("torchvision:resnet18", weights=name).info()
    assert info.weights == make_backbone("torchvision:resnet18", weights="IMAGENET1K_V1").info().weights
    assert info.weights != make_backbone("torchvision:resnet18", weights="random").info().weights


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("", {}, "what follows the colon is a network's name"),
        ("resnet17", {}, "torchvision 9.9 has no network 'resnet17'; did you mean 'resnet18'"),
        (
            "resnet18",
            {},
            "choose weights with --weights: a file, random, or a name; torchvision's own are IMAGENET1K_V1",
        ),
        ("resnet18", {"weights": "IMAGENET1K_V2"}, "neither a weights file nor a name.*did you mean 'IMAGENET1K_V1'"),
        ("resnet18", {"weights": "nope.pt"}, "nope.pt: no such weights file"),
        ("resnet18", {"weights": "random", "layers": "layer5"}, "did you mean 'layer"),
    ],
)
def test_what_does_not_fit_torchvision_is_one_line(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_backbone(f"torchvision:{name}", **options)


@pytest.mark.usefixtures("fake")
def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, weights: Any = None) -> nn.Module:
        raise OSError("<urlopen error\nno route>")

    monkeypatch.setattr(sys.modules["torchvision.models"], "get_model", offline)
    with pytest.raises(
        ConfigError, match=r"IMAGENET1K_V1 can't be downloaded \(<urlopen error no route>\); name a file"
    ):
        make_backbone("torchvision:resnet18", weights="pretrained")


def test_without_torchvision_the_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConfigError, match=r"need torchvision: pip install 'featlab\[backbones\]'"):
        make_backbone("torchvision:resnet18", weights="random")


class Holder(nn.Module):
    def __init__(self, name: str, head: nn.Module) -> None:
        super().__init__()
        setattr(self, name, head)


def test_only_the_last_linear_layer_of_a_head_is_removed() -> None:
    convnext = Holder("classifier", nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 2)))
    vgg = Holder("classifier", nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    vit = Holder("heads", nn.Sequential())
    vit.heads.add_module("head", nn.Linear(4, 2))
    squeezenet = Holder("classifier", nn.Sequential(nn.Dropout(), nn.Conv2d(4, 2, 1), nn.ReLU()))
    assert [type(part).__name__ for part in remove_head("a", convnext).classifier] == [
        "Identity",
        "Flatten",
        "Identity",
    ]
    assert [type(part).__name__ for part in remove_head("a", vgg).classifier] == ["Linear", "ReLU", "Identity"]
    assert isinstance(remove_head("a", vit).heads.head, nn.Identity)
    assert isinstance(remove_head("a", squeezenet).classifier[1], nn.Identity)
    assert isinstance(remove_head("a", Holder("fc", nn.Linear(4, 2))).fc, nn.Identity)
    with pytest.raises(ConfigError, match="a has no classification head"):
        remove_head("a", Holder("body", nn.Linear(4, 2)))


# One of every family, the smallest: name, D.
FAMILIES = {
    "alexnet": 4096,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "efficientnet_v2_s": 1280,
    "googlenet": 1024,
    "inception_v3": 2048,
    "maxvit_t": 512,
    "mnasnet0_5": 1280,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 1024,
    "regnet_y_400mf": 440,
    "resnet18": 512,
    "resnext50_32x4d": 2048,
    "shufflenet_v2_x0_5": 1024,
    "squeezenet1_1": 512,
    "swin_t": 768,
    "swin_v2_t": 768,
    "vgg11": 4096,
    "vit_b_32": 768,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_family_of_the_real_library_gives_one_vector_an_image() -> None:
    pytest.importorskip("torchvision", reason="torchvision isn't installed (extra: backbones)", exc_type=ImportError)
    for name, dim in FAMILIES.items():
        backbone = make_backbone(f"torchvision:{name}", weights="random")
        output = backbone.embed(images(1, backbone.prepare.size), None)  # type: ignore[union-attr]
        assert output.shape == (1, dim), name
        assert np.isfinite(output).all(), name


def test_the_real_librarys_resnet18_equals_ours_on_the_same_weights(tmp_path: Path) -> None:
    torchvision = pytest.importorskip(
        "torchvision", reason="torchvision isn't installed (extra: backbones)", exc_type=ImportError
    )
    theirs = seeded(lambda: torchvision.models.resnet18(weights=None))
    torch.save(theirs.state_dict(), tmp_path / "full.pth")
    options = {"weights": str(tmp_path / "full.pth"), "layers": "maxpool,layer1,layer4"}
    first = make_backbone("torchvision:resnet18", **options).embed(images(2, 224), None)
    second = make_backbone("resnet18", **options).embed(images(2, 224), None)
    assert first.shape == (2, 512 + 2 * (64 + 64 + 512))
    np.testing.assert_allclose(first, second, atol=1e-5)


class Tiny(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.fc = nn.Linear(8, classes) if classes else nn.Identity()

    def forward(self, images: Tensor) -> Any:
        return self.fc(self.stem(images).mean(dim=(2, 3)))


@pytest.fixture
def fake_timm(monkeypatch: pytest.MonkeyPatch) -> None:
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


def tiny_images(size: int) -> list[Any]:
    return list(np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8))


@pytest.mark.usefixtures("fake_timm")
def test_timms_own_input_is_used_and_the_classifier_is_left_out() -> None:
    backbone = make_backbone("timm:tiny.tag", weights="pretrained", layers="stem")
    output = backbone.embed(tiny_images(40), None)
    assert output.shape == (2, 24)
    np.testing.assert_allclose(output[:, 8:16], output[:, :8], atol=1e-6)
    info = backbone.info()
    assert info.id == "timm:tiny.tag"
    assert info.preprocessing == f"RGB, centre square, 40x40 bicubic, mean 0.5 0.5 0.5, std 0.5 0.5 0.5, {APPENDED}"
    assert info.weights == make_backbone("timm:tiny", weights="pretrained").info().weights
    assert info.weights != make_backbone("timm:tiny", weights="random").info().weights


@pytest.mark.usefixtures("fake_timm")
def test_a_checkpoint_with_a_classifier_loads(tmp_path: Path) -> None:
    state = Tiny(5).state_dict()
    torch.save({"model": state}, tmp_path / "w.pth")
    backbone = make_backbone("timm:tiny", weights=str(tmp_path / "w.pth"), size=16, layers="stem")
    assert backbone.embed(tiny_images(16), None).shape == (2, 24)
    del state["stem.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"doesn't fit timm:tiny: keys 1 missing \(stem.bias\)"):
        make_backbone("timm:tiny", weights=str(tmp_path / "w.pth"))


@pytest.mark.usefixtures("fake_timm")
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
def test_what_does_not_fit_timm_is_one_line(name: str, options: dict[str, Any], says: str) -> None:
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
    assert backbone.embed(tiny_images(224), None).shape == (2, dim + 2 * channels)

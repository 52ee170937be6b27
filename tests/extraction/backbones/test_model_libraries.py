"""torchvision's networks: through a stand-in for the library, and through the library where it is installed."""

import sys
from enum import Enum
from hashlib import sha256
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import APPENDED, make_backbone
from featlab.extraction.backbones.hubs import ResNet, remove_head
from featlab.extraction.backbones.weights import seeded


class Headed(ResNet):
    """Our ResNet-18 with torchvision's ``fc``."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(512, 1000)

    def forward(self, images):
        return self.fc(super().forward(images))


class Published(Enum):
    """torchvision's enums can be iterated over and have a DEFAULT."""

    IMAGENET1K_V1 = 1
    DEFAULT = IMAGENET1K_V1

    def transforms(self):
        mode = SimpleNamespace(value="bicubic")
        return SimpleNamespace(crop_size=[32], mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25], interpolation=mode)


@pytest.fixture
def fake(monkeypatch):
    """Put a stand-in for torchvision, with one network, where the import finds it."""
    library, models = ModuleType("torchvision"), ModuleType("torchvision.models")

    def get_model(name, weights=None):
        module = Headed()
        for parameter in () if weights is None else module.parameters():
            nn.init.constant_(parameter, 0.01)
        return module

    models.__dict__.update(
        list_models=lambda module: ["resnet18", "resnet50"],
        get_model_weights=lambda name: Published,
        get_model=get_model,
    )
    library.__dict__.update(__version__="9.9", models=models)
    monkeypatch.setitem(sys.modules, "torchvision", library)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


@pytest.mark.usefixtures("fake")
def test_the_head_is_gone_and_the_librarys_input_and_weights_are_used(images):
    backbone = make_backbone("torchvision:resnet18", weights="random", layers="layer2")
    assert backbone.embed(images(), None).shape == (2, 512 + 2 * 128)
    info = backbone.info()
    assert info.id == backbone.name == "torchvision:resnet18"
    assert info.preprocessing == f"RGB, centre square, 32x32 bicubic, mean 0.5 0.5 0.5, std 0.25 0.25 0.25, {APPENDED}"
    assert info.versions["torchvision"] == "9.9"
    names = ("IMAGENET1K_V1", "DEFAULT", "pretrained", "random")
    made = [make_backbone("torchvision:resnet18", weights=name).info().weights for name in names]
    assert made[0] == made[1] == made[2] != made[3]


@pytest.mark.usefixtures("fake")
def test_the_shot_layout_and_a_full_checkpoint_load(tmp_path, images):
    # SHOT's ResBase: torchvision's ResNet-18 without fc, saved as netF.state_dict().
    state, path = seeded(Headed, 3).state_dict(), tmp_path / "source_F.pt"
    parts = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}
    assert {key.split(".")[0] for key in state} == parts
    embedded = []
    for left_out in ("nothing", "fc."):
        torch.save({key: value for key, value in state.items() if not key.startswith(left_out)}, path)
        options = {"weights": str(path), "mean": 0.5, "std": 0.25}
        for name, more in (("resnet18", {"size": 32, "interpolation": "bicubic"}), ("torchvision:resnet18", {})):
            backbone = make_backbone(name, **options, **more)
            embedded.append(backbone.embed(images(), None))
            # The weights are known by the file's content, wherever it lies.
            assert (backbone.info().id, backbone.info().weights) == (name, sha256(path.read_bytes()).hexdigest())
    for found in embedded[1:]:
        np.testing.assert_allclose(found, embedded[0], atol=1e-5)
    other = make_backbone("resnet18", weights="random", size=32, interpolation="bicubic", mean=0.5, std=0.25)
    assert np.abs(other.embed(images(), None) - embedded[0]).max() > 0.1


@pytest.mark.usefixtures("fake")
def test_what_does_not_fit_torchvision_is_one_line(monkeypatch, refused):
    def offline(name, weights=None):
        raise OSError("<urlopen error\nno route>")

    for name, options, error, says in (
        ("", {}, ConfigError, "what follows the colon is a network's name"),
        ("resnet17", {}, ConfigError, "torchvision 9.9 has no network 'resnet17'; did you mean 'resnet18'"),
        ("resnet18", {}, ConfigError, "a file, random, or a name; torchvision's own are IMAGENET1K_V1"),
        ("resnet18", {"weights": "IMAGENET1K_V2"}, ConfigError, "did you mean 'IMAGENET1K_V1'"),
        ("resnet18", {"weights": "nope.pt"}, InputError, "nope.pt: no such weights file"),
        ("resnet18", {"weights": "random", "layers": "layer5"}, ConfigError, "did you mean 'layer"),
    ):
        with refused(error, says):
            make_backbone(f"torchvision:{name}", **options)
    monkeypatch.setattr(sys.modules["torchvision.models"], "get_model", offline)
    with refused(ConfigError, "IMAGENET1K_V1 can't be downloaded (<urlopen error no route>); name a file"):
        make_backbone("torchvision:resnet18", weights="pretrained")


def test_without_the_library_the_line_names_the_extra(monkeypatch, refused):
    for library in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, library, None)
        with refused(ConfigError, f"need {library}: pip install 'featlab[backbones]'"):
            make_backbone(f"{library}:resnet18", weights="random")


class Holder(nn.Module):
    def __init__(self, name, head):
        super().__init__()
        setattr(self, name, head)


def test_only_the_last_linear_layer_of_a_head_is_removed(refused):
    vit = nn.Sequential()
    vit.add_module("head", nn.Linear(4, 2))
    for name, head, expected in (
        ("classifier", nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 2)), "Identity Flatten Identity"),
        ("classifier", nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "Linear ReLU Identity"),
        ("classifier", nn.Sequential(nn.Dropout(), nn.Conv2d(4, 2, 1), nn.ReLU()), "Dropout Identity ReLU"),
        ("heads", vit, "Identity"),
        ("fc", nn.Linear(4, 2), "Identity"),
    ):
        left = getattr(remove_head("a", Holder(name, head)), name)
        assert " ".join(type(part).__name__ for part in list(left.children()) or [left]) == expected
    with refused(ConfigError, "a has no classification head"):
        remove_head("a", Holder("body", nn.Linear(4, 2)))


# One of every family, the smallest, by the width of its embedding.
FAMILIES = {
    440: "regnet_y_400mf",
    512: "maxvit_t resnet18 squeezenet1_1",
    768: "convnext_tiny swin_t swin_v2_t vit_b_32",
    1024: "densenet121 googlenet mobilenet_v3_small shufflenet_v2_x0_5",
    1280: "efficientnet_b0 efficientnet_v2_s mnasnet0_5 mobilenet_v2",
    2048: "inception_v3 resnext50_32x4d",
    4096: "alexnet vgg11",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_family_of_the_real_library_gives_one_vector_an_image(images):
    pytest.importorskip("torchvision", reason="torchvision isn't installed (extra: backbones)", exc_type=ImportError)
    for name, dim in ((name, dim) for dim, names in FAMILIES.items() for name in names.split()):
        backbone = make_backbone(f"torchvision:{name}", weights="random")
        output = backbone.embed(images(1, backbone.prepare.size), None)
        assert output.shape == (1, dim), name
        assert np.isfinite(output).all(), name


def test_the_real_librarys_resnet18_equals_ours_on_the_same_weights(tmp_path, images):
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
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.fc = nn.Linear(8, classes) if classes else nn.Identity()

    def forward(self, images):
        return self.fc(self.stem(images).mean(dim=(2, 3)))


@pytest.fixture
def fake_timm(monkeypatch):
    """Put a stand-in for timm, with one network, where the import finds it."""
    library = ModuleType("timm")

    def create_model(name, pretrained, num_classes):
        if name == "gone":
            raise RuntimeError("no pretrained\nweights")
        module = Tiny(num_classes)
        if pretrained:
            nn.init.constant_(module.stem.weight, 0.1)
            nn.init.zeros_(module.stem.bias)
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


@pytest.mark.usefixtures("fake_timm")
def test_timms_own_input_is_used_and_the_classifier_is_left_out(images):
    backbone = make_backbone("timm:tiny.tag", weights="pretrained", layers="stem")
    output = backbone.embed(images(2, 40), None)
    assert output.shape == (2, 24)
    np.testing.assert_allclose(output[:, 8:16], output[:, :8], atol=1e-6)
    info = backbone.info()
    assert info.id == "timm:tiny.tag"
    assert info.preprocessing == f"RGB, centre square, 40x40 bicubic, mean 0.5 0.5 0.5, std 0.5 0.5 0.5, {APPENDED}"
    assert info.weights == make_backbone("timm:tiny", weights="pretrained").info().weights
    assert info.weights != make_backbone("timm:tiny", weights="random").info().weights


@pytest.mark.usefixtures("fake_timm")
def test_a_checkpoint_with_a_classifier_loads(tmp_path, images, refused):
    state = Tiny(5).state_dict()
    torch.save({"model": state}, tmp_path / "w.pth")
    backbone = make_backbone("timm:tiny", weights=str(tmp_path / "w.pth"), size=16, layers="stem")
    assert backbone.embed(images(2, 16), None).shape == (2, 24)
    del state["stem.bias"]
    torch.save(state, tmp_path / "w.pth")
    with refused(ConfigError, "doesn't fit timm:tiny: keys 1 missing (stem.bias)"):
        make_backbone("timm:tiny", weights=str(tmp_path / "w.pth"))


@pytest.mark.usefixtures("fake_timm")
def test_what_does_not_fit_timm_is_one_line(refused):
    for name, weights, says in (
        ("", None, "what follows the colon is a network's name"),
        ("tini", None, "timm 9.9 has no network 'tini'; did you mean 'tiny'"),
        ("tiny", None, "choose weights with --weights: pretrained, a file, or random"),
        ("tiny", "imagenet", "'imagenet' is no weights file; --weights pretrained takes timm's own"),
        ("gone", "pretrained", "timm:gone can't be made (no pretrained weights); name a file"),
    ):
        with refused(ConfigError, says):
            make_backbone(f"timm:{name}", weights=weights)


@pytest.mark.filterwarnings("ignore")
def test_the_real_timm_gives_one_vector_an_image(images):
    pytest.importorskip("timm", reason="timm isn't installed (extra: backbones)", exc_type=ImportError)
    for name, layer, width in (
        ("resnet18", "layer1", 512 + 2 * 64),
        ("vit_tiny_patch16_224", "blocks.3", 192 + 2 * 192),
        ("swin_tiny_patch4_window7_224", "layers.0", 768 + 2 * 96),
    ):
        backbone = make_backbone(f"timm:{name}", weights="random", layers=layer)
        assert backbone.embed(images(2, 224), None).shape == (2, width)

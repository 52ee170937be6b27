import sys
from collections import OrderedDict
from hashlib import sha256

import numpy as np
import pytest
import torch
from torch import nn

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import APPENDED, make_backbone
from featlab.extraction.backbones.modules import remove_head
from featlab.extraction.backbones.weights import built


@pytest.mark.usefixtures("libraries")
def test_the_head_is_gone_and_the_librarys_input_and_weights_are_used(images):
    for name, layer, size, dim, width, std, weights in (
        ("torchvision:resnet18", "layer2", 32, 512, 128, 0.25, ("IMAGENET1K_V1", "DEFAULT", "pretrained", "random")),
        ("timm:tiny.tag", "stem", 40, 8, 8, 0.5, ("pretrained", "pretrained", "pretrained", "random")),
    ):
        backbone = make_backbone(name, weights="pretrained", layers=layer)
        output = backbone.embed(images(2, size), None)
        assert output.shape == (2, dim + 2 * width)
        info = backbone.info()
        assert info.id == backbone.name == name
        line = f"RGB, centre square, {size}x{size} bicubic, mean 0.5 0.5 0.5, std {std} {std} {std}, {APPENDED}"
        assert info.preprocessing == line
        made = [make_backbone(name.removesuffix(".tag"), weights=which).info().weights for which in weights]
        assert info.weights == made[0] == made[1] == made[2] != made[3]
    np.testing.assert_allclose(output[:, 8:16], output[:, :8], atol=1e-6)
    assert make_backbone("torchvision:resnet18", weights="random").info().versions["torchvision"] == "9.9"
    # Of the hub, whatever timm itself knows by name.
    hub = make_backbone("timm:hf-hub:owner/tiny@v1", weights="pretrained").info()
    assert (hub.id, hub.weights) == ("timm:hf-hub:owner/tiny@v1", made[0])


def test_the_shot_layout_and_a_full_checkpoint_load(libraries, tmp_path, images):
    # SHOT's ResBase: torchvision's ResNet-18 without fc, saved as netF.state_dict().
    state, path = built(libraries.models.Headed, 3).state_dict(), tmp_path / "source_F.pt"
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
    torch.save({"model": libraries.timm.tiny(5).state_dict()}, path)
    backbone = make_backbone("timm:tiny", weights=str(path), size=16, layers="stem")
    assert backbone.embed(images(2, 16), None).shape == (2, 24)


def test_what_does_not_fit_is_one_line(libraries, monkeypatch, refused):
    def offline(name, weights=None):
        raise OSError("<urlopen error\nno route>")

    for name, options, error, says in (
        ("torchvision:", {}, ConfigError, "what follows the colon is a network's name"),
        ("torchvision:resnet17", {}, ConfigError, "9.9 has no network 'resnet17'; did you mean 'resnet18'"),
        ("torchvision:resnet18", {}, ConfigError, "a file, random, or torchvision's own: IMAGENET1K_V1"),
        ("torchvision:resnet18", {"weights": "IMAGENET1K_V2"}, ConfigError, "did you mean 'IMAGENET1K_V1'"),
        ("torchvision:resnet18", {"weights": "nope.pt"}, InputError, "nope.pt: can't be read"),
        ("torchvision:resnet18", {"weights": "random", "layers": "layer5"}, ConfigError, "did you mean 'layer"),
        ("timm:", {}, ConfigError, "what follows the colon is a network's name"),
        ("timm:tini", {}, ConfigError, "timm 9.9 has no network 'tini'; did you mean 'tiny'"),
        ("timm:tiny", {}, ConfigError, "choose weights with --weights: a file, random, or timm's own: pretrained"),
        (
            "timm:tiny",
            {"weights": "imagenet"},
            ConfigError,
            "--weights imagenet is none of a file, random, or timm's",
        ),
        ("timm:gone", {"weights": "pretrained"}, ConfigError, "can't be made (no pretrained weights); name a file"),
        ("timm:hf-hub:o/gone@v1", {"weights": "pretrained"}, ConfigError, "run `hf download o/gone` where there is"),
    ):
        with refused(error, says):
            make_backbone(name, **options)
    monkeypatch.setattr(libraries.models, "get_model", offline)
    with refused(ConfigError, "torchvision:resnet18 can't be made (<urlopen error no route>); name a file"):
        make_backbone("torchvision:resnet18", weights="pretrained")
    for library in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, library, None)
        with refused(ConfigError, f"need {library}: pip install 'featlab[backbones]'"):
            make_backbone(f"{library}:resnet18", weights="random")


def test_only_the_last_linear_layer_of_a_head_is_removed(refused):
    def holding(name, part):
        holder = nn.Module()
        setattr(holder, name, part)
        return holder

    for name, head, expected in (
        ("classifier", nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 2)), "Identity Flatten Identity"),
        ("classifier", nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "Linear ReLU Identity"),
        ("classifier", nn.Sequential(nn.Dropout(), nn.Conv2d(4, 2, 1), nn.ReLU()), "Dropout Identity ReLU"),
        ("heads", nn.Sequential(OrderedDict(head=nn.Linear(4, 2))), "Identity"),
        ("fc", nn.Linear(4, 2), "Identity"),
    ):
        left = getattr(remove_head("a", holding(name, head)), name)
        assert " ".join(type(part).__name__ for part in list(left.children()) or [left]) == expected
    with refused(ConfigError, "a has no classification head"):
        remove_head("a", holding("body", nn.Linear(4, 2)))

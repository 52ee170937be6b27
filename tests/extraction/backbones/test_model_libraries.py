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
        output, info = backbone.embed(images(2, size), None), backbone.info()
        assert output.shape == (2, dim + 2 * width)
        assert info.id == backbone.name == name
        line = f"RGB, centre square, {size}x{size} bicubic, mean 0.5 0.5 0.5, std {std} {std} {std}, {APPENDED}"
        assert info.preprocessing == line
        made = [make_backbone(name.removesuffix(".tag"), weights=which).info() for which in weights]
        assert info.weights == made[0].weights == made[1].weights == made[2].weights != made[3].weights
        assert made[3].versions[name.partition(":")[0]] == "9.9"
    # Of the hub, whatever timm itself knows by name.
    hub = make_backbone("timm:hf-hub:owner/tiny@v1", weights="pretrained").info()
    assert (hub.id, hub.weights) == ("timm:hf-hub:owner/tiny@v1", made[0].weights)


def test_the_shot_layout_and_a_full_checkpoint_load(libraries, tmp_path, images):
    # SHOT's ResBase: torchvision's ResNet-18 without fc, saved as netF.state_dict().
    state, path, embedded = built(libraries.headed, 3).state_dict(), tmp_path / "source_F.pt", []
    for left_out in ("nothing", "fc."):
        torch.save({key: value for key, value in state.items() if not key.startswith(left_out)}, path)
        for name in ("resnet18", "torchvision:resnet18"):
            options = {"mean": 0.5, "std": 0.25, "size": 32, "interpolation": "bicubic"}
            backbone = make_backbone(name, weights=str(path), **options)
            embedded.append(backbone.embed(images(), None))
            # The weights are known by the file's content, wherever it lies.
            assert (backbone.info().id, backbone.info().weights) == (name, sha256(path.read_bytes()).hexdigest())
    for found in embedded[1:]:
        np.testing.assert_allclose(found, embedded[0], atol=1e-5)
    other = make_backbone("resnet18", weights="random", **options)
    assert np.abs(other.embed(images(), None) - embedded[0]).max() > 0.1
    torch.save({"model": libraries.tiny(5).state_dict()}, path)
    backbone = make_backbone("timm:tiny", weights=str(path), size=16)
    assert backbone.embed(images(2, 16), None).shape == (2, 8)


def test_what_does_not_fit_is_one_line(libraries, monkeypatch, refused):
    for name, options, error, says in (
        ("torchvision:", {}, ConfigError, "what follows the colon is a network's name"),
        ("torchvision:resnet17", {}, ConfigError, "9.9 has no network 'resnet17'; did you mean 'resnet18'"),
        ("torchvision:resnet18", {}, ConfigError, "a file, random, or torchvision's own: IMAGENET1K_V1"),
        ("torchvision:resnet18", {"weights": "IMAGENET1K_V2"}, ConfigError, "did you mean 'IMAGENET1K_V1'"),
        ("torchvision:resnet18", {"weights": "nope.pt"}, InputError, "nope.pt: can't be read"),
        ("timm:tini", {}, ConfigError, "timm 9.9 has no network 'tini'; did you mean 'tiny'"),
        ("timm:tiny", {"weights": "imagenet"}, ConfigError, "imagenet is none of a file, random, or timm's"),
        ("timm:gone", {"weights": "pretrained"}, ConfigError, "can't be made (no pretrained weights); name a file"),
        ("timm:hf-hub:o/gone@v1", {"weights": "pretrained"}, ConfigError, "run `hf download o/gone` where there is"),
    ):
        with refused(error, says):
            make_backbone(name, **options)
    for library in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, library, None)
        with refused(ConfigError, f"need {library}: pip install 'featlab[backbones]'"):
            make_backbone(f"{library}:resnet18", weights="random")


def test_only_the_last_linear_layer_of_a_head_is_removed(refused):
    for name, head, expected in (
        ("classifier", nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "Linear ReLU Identity"),
        ("classifier", nn.Sequential(nn.Dropout(), nn.Conv2d(4, 2, 1), nn.ReLU()), "Dropout Identity ReLU"),
        ("heads", nn.Sequential(OrderedDict(head=nn.Linear(4, 2))), "Identity"),
    ):
        module = nn.Module()
        setattr(module, name, head)
        left = getattr(remove_head("a", module), name)
        assert " ".join(type(part).__name__ for part in left) == expected
    with refused(ConfigError, "a has no classification head"):
        remove_head("a", nn.Linear(4, 2))


CODE = """
from collections import OrderedDict
import torch
from torch import nn
from featlab.extraction.backbones import make_backbone

def untrained(width=4, note=""):
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, width, 3), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()))

def trained(width=4, note=""):
    torch.manual_seed(width)
    return untrained(width)

def light(size=16):
    return make_backbone("hog", size=size)

def broken():
    raise ValueError("no such\\ncheckpoint")

nothing, number = lambda: 3, 3
ready, ready_backbone = trained(), light()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the current folder, which is not otherwise on the path."""
    name = f"own_networks_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    (tmp_path / f"{name}_broken.py").write_text("import nowhere_to_be_found")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield name
    sys.modules.pop(name, None)


def make(module, name, **options):
    return make_backbone(f"python:{module}:{name}", size=16, **options)


def test_a_function_that_returns_a_module_is_a_backbone(module, images, tmp_path, refused):
    pictures = images(2, 16)
    backbone = make(module, "trained", layers="conv")
    output = backbone.embed(pictures, None)
    assert output.shape == (2, 12)
    np.testing.assert_allclose(output[:, 4:8], output[:, :4], atol=1e-6)
    info = backbone.info()
    assert (info.id, len(info.weights)) == (f"python:{module}:trained", 64)
    assert make(module, "trained", layers="conv").info().fingerprint == info.fingerprint
    # Its arguments are passed and recorded; where a file lies is nobody's matter: it goes into caches and bundles.
    wide = make(module, "trained", width=7, note=str(tmp_path / f"{module}.py"))
    assert wide.embed(pictures, None).shape == (2, 7)
    assert wide.info().preprocessing.endswith(f", note {module}.py, width 7")
    # A module or a backbone stands for itself.
    assert make(module, "ready").embed(pictures, None).shape == (2, 4)
    for name in ("light", "ready_backbone"):
        assert make_backbone(f"python:{module}:{name}").info().id == "hog"
    # Weights are the module's, a file's, or random when asked for.
    with refused(ConfigError, "gives other weights at every call", "--weights random"):
        make(module, "untrained")
    first, second = (make(module, "untrained", weights="random") for _ in range(2))
    assert first.info().fingerprint == second.info().fingerprint
    np.testing.assert_array_equal(first.embed(pictures, None), second.embed(pictures, None))
    torch.save({"conv.weight": torch.zeros(4, 3, 3, 3), "conv.bias": torch.arange(4.0)}, tmp_path / "w.pt")
    np.testing.assert_allclose(make(module, "untrained", weights="w.pt").embed(pictures, None)[0], [0, 1, 2, 3])


def test_what_does_not_work_is_one_line(module, refused):
    for name, options, says in (
        (":trained", {}, "a module and a function in it, for example"),
        ("no_such_module_here:f", {}, "no module 'no_such_module_here', neither installed nor in"),
        ("M_broken:f", {}, "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("M:traned", {}, "has no 'traned'; did you mean 'trained'"),
        ("M:trained", {"depth": 3}, "trained() got an unexpected keyword argument 'depth'"),
        ("M:broken", {}, "failed: ValueError: no such checkpoint"),
        ("M:nothing", {}, "returned a int; it must return a torch.nn.Module"),
        ("M:number", {}, "is a int; it must be a function that returns"),
        ("M:ready", {"width": 3}, "is no function, so it has no option 'width'"),
        ("M:light", {"layers": "a"}, "returns a backbone, which has no option 'layers'"),
    ):
        with refused(ConfigError, says):
            make_backbone(f"python:{name.replace('M', module)}", **options)

import sys

import numpy as np
import pytest
import torch

from featlab.errors import ConfigError
from featlab.extraction.backbones import make_backbone

CODE = """
import torch
from torch import nn
from featlab.extraction.backbones import make_backbone

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)

    def forward(self, images):
        return self.conv(images).mean(dim=(2, 3))

def trained(width=4):
    torch.manual_seed(width)
    return Net(width)

def noted(note):
    return trained()

def light(size=16):
    return make_backbone("hog", size=size)

def broken():
    raise ValueError("no such\\ncheckpoint")

untrained, nothing = Net, lambda: 3
ready = trained()
ready_backbone = light()
number = 3
"""


@pytest.fixture(autouse=True)
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


def test_a_function_that_returns_a_module_is_a_backbone(module, images, tmp_path):
    backbone = make(module, "trained", layers="conv")
    output = backbone.embed(images(2, 16), None)
    assert output.shape == (2, 12)
    np.testing.assert_allclose(output[:, 4:8], output[:, :4], atol=1e-6)
    info = backbone.info()
    assert (info.id, len(info.weights)) == (f"python:{module}:trained", 64)
    assert make(module, "trained", layers="conv").info().fingerprint == info.fingerprint
    # Its arguments are passed and recorded; a module or a backbone stands for itself.
    wide = make(module, "trained", width=7)
    assert wide.embed(images(1, 16), None).shape == (1, 7)
    assert wide.info().preprocessing.endswith(", width 7")
    # Where a file lies is nobody's matter: what the extractor says goes into caches and bundles.
    named = make(module, "noted", note=str(tmp_path / f"{module}.py")).info().preprocessing
    assert named.endswith(f", note {module}.py")
    assert make(module, "ready").embed(images(1, 16), None).shape == (1, 4)
    for name in ("light", "ready_backbone"):
        assert make_backbone(f"python:{module}:{name}").info().id == "hog"


def test_weights_are_the_modules_a_files_or_random_when_asked_for(module, images, tmp_path, refused):
    with refused(ConfigError, "gives other weights at every call", "--weights random"):
        make(module, "untrained")
    first, second = (make(module, "untrained", weights="random") for _ in range(2))
    assert first.info().fingerprint == second.info().fingerprint
    np.testing.assert_array_equal(first.embed(images(1, 16), None), second.embed(images(1, 16), None))
    torch.save({"conv.weight": torch.zeros(4, 3, 3, 3), "conv.bias": torch.arange(4.0)}, tmp_path / "w.pt")
    backbone = make(module, "untrained", weights="w.pt")
    np.testing.assert_allclose(backbone.embed(images(1, 16), None), [[0, 1, 2, 3]])


def test_what_does_not_work_is_one_line(module, refused):
    for name, options, says in (
        ("", {}, "a module and a function in it, for example"),
        (":trained", {}, "a module and a function in it"),
        ("no_such_module_here:f", {}, "no module 'no_such_module_here', neither installed nor in"),
        ("M_broken:f", {}, "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("M:traned", {}, "has no 'traned'; did you mean 'trained'"),
        ("M:trained", {"depth": 3}, "trained() got an unexpected keyword argument 'depth'"),
        ("M:broken", {}, "failed: ValueError: no such checkpoint"),
        ("M:nothing", {}, "returned a int; it must return a torch.nn.Module"),
        ("M:number", {}, "is a int; it must be a function"),
        ("M:ready", {"width": 3}, "is no function, so it has no option 'width'"),
        ("M:light", {"layers": "a"}, "returns a backbone, which has no option 'layers'"),
    ):
        with refused(ConfigError, says):
            make_backbone(f"python:{name.replace('M', module)}", **options)

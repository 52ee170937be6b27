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


def untrained():
    return Net()


def light(size=16):
    return make_backbone("hog", size=size)


def broken():
    raise ValueError("no such\\ncheckpoint")


def nothing():
    return 3


ready = trained()
ready_backbone = light()
number = 3
"""

SIZE = {"size": 16}


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


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_a_function_that_returns_a_module_is_a_backbone(module):
    backbone = make_backbone(f"python:{module}:trained", layers="conv", **SIZE)
    output = backbone.embed([image(), image(1)], None)
    assert output.shape == (2, 12)
    np.testing.assert_allclose(output[:, 4:8], output[:, :4], atol=1e-6)
    info = backbone.info()
    assert (info.id, len(info.weights)) == (f"python:{module}:trained", 64)
    assert make_backbone(f"python:{module}:trained", layers="conv", **SIZE).info().fingerprint == info.fingerprint
    # Its arguments are passed and recorded; a module or a backbone stands for itself.
    wide = make_backbone(f"python:{module}:trained", width=7, **SIZE)
    assert wide.embed([image()], None).shape == (1, 7)
    assert wide.info().preprocessing.endswith(", width 7")
    assert make_backbone(f"python:{module}:ready", **SIZE).embed([image()], None).shape == (1, 4)
    for name in ("light", "ready_backbone"):
        assert make_backbone(f"python:{module}:{name}").info().id == "hog"


def test_weights_that_change_at_every_call_are_refused_unless_asked_for(module):
    with pytest.raises(ConfigError, match=r"gives other weights at every call.*--weights random"):
        make_backbone(f"python:{module}:untrained", **SIZE)
    first, second = (make_backbone(f"python:{module}:untrained", weights="random", **SIZE) for _ in range(2))
    assert first.info().fingerprint == second.info().fingerprint
    np.testing.assert_array_equal(first.embed([image()], None), second.embed([image()], None))


def test_a_weights_file_goes_into_the_returned_module(module, tmp_path):
    state = {"conv.weight": torch.zeros(4, 3, 3, 3), "conv.bias": torch.arange(4.0)}
    torch.save(state, tmp_path / "w.pt")
    backbone = make_backbone(f"python:{module}:untrained", weights="w.pt", **SIZE)
    np.testing.assert_allclose(backbone.embed([image()], None), [[0, 1, 2, 3]])
    del state["conv.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"1 missing \(conv.bias\)"):
        make_backbone(f"python:{module}:untrained", weights="w.pt", **SIZE)


def test_what_does_not_work_is_one_line(module, refused):
    for name, options, says in (
        ("", {}, "a module and a function in it, for example"),
        (":trained", {}, "a module and a function in it"),
        ("no_such_module_here:f", {}, "no module 'no_such_module_here', neither installed nor in"),
        ("M_broken:f", {}, "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("M:traned", {}, "has no 'traned'; did you mean 'trained'"),
        ("M:trained", {"depth": 3}, "(width=4) can't be called with these options: "),
        ("M:broken", {}, "failed: ValueError: no such checkpoint"),
        ("M:nothing", {}, "returned a int; it must return a torch.nn.Module"),
        ("M:number", {}, "is a int; it must be a function"),
        ("M:ready", {"width": 3}, "is no function, so it has no option 'width'"),
        ("M:light", {"layers": "a"}, "returns a backbone, which has no option 'layers'"),
    ):
        with refused(ConfigError, says):
            make_backbone(f"python:{name.replace('M', module)}", **options)

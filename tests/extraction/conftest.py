"""Tiny images, made here, and stand-ins for the libraries of networks."""

import sys
from collections import OrderedDict
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from featlab import ExtractorInfo
from featlab.extraction.layouts import read_layout


@pytest.fixture
def pixels():
    """A 24 x 20 RGB picture without symmetry, another one for every seed."""

    def make(seed):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((20, 24), Image.Resampling.BICUBIC))

    return make


@pytest.fixture
def make_image(pixels):
    def make(path, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed)).save(path)
        return path

    return make


@pytest.fixture
def images():
    """``images(count, size)``: the same noise at every call."""

    def make(count=2, size=32):
        return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))

    return make


@pytest.fixture
def stand_in():
    """``stand_in(embed, prepare=None)``: a backbone that gets its batches in the main process, as a network does."""

    def make(embed, prepare=None):
        info = ExtractorInfo("stand-in", "none", "mean colour")
        facts = {"name": "stand-in", "needs_images": True, "needs_landmarks": False, "in_worker": False}
        return SimpleNamespace(**facts, prepare=prepare, embed=embed, info=lambda: info)

    return make


@pytest.fixture
def make_source(tmp_path, make_tree):
    def make(subjects=5, frames=4, side=12):
        return read_layout("auto", make_tree(tmp_path / "source", subjects, frames, side))

    return make


@pytest.fixture
def onnx_file():
    """``onnx_file(path, nodes)``: a convolution and then nodes, each (operator, inputs, output, attributes).

    By default they are a classifier's: the mean of the maps as "flat", 40 values, and a Gemm to 7 "scores".
    """
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    make, rng = onnx.helper, np.random.default_rng(3)
    values = {"conv": rng.normal(size=(40, 3, 3, 3)), "head": rng.normal(size=(40, 7)), "bias": rng.normal(size=7)}
    values["head4"] = values["head"].T[:, :, None, None]
    mean = [("GlobalAveragePool", ["maps"], "mean", {}), ("Flatten", ["mean"], "flat", {})]
    classifier = (*mean, ("Gemm", ["flat", "head", "bias"], "scores", {}))

    def write(
        path, nodes=classifier, shape=("n", 3, 12, 12), kind="float32", outputs=None, first=(), inputs=(), **places
    ):
        taken, given = (make.np_dtype_to_tensor_dtype(np.dtype(each)) for each in (kind, "float32"))
        first = first or [("Cast", ["x"], "cast", {"to": given})]
        nodes = [*first, ("Conv", [first[-1][2], "conv"], "maps", {}), *nodes]
        weights = values | ({"conv": values["conv"][:, :1]} if 1 in shape else {})
        graph = make.make_graph(
            [make.make_node(op, ins, [out], name=f"the {out}", **more) for op, ins, out, more in nodes],
            "net",
            [make.make_tensor_value_info(name, taken, shape) for name in ("x", *inputs)],
            [make.make_tensor_value_info(name, given, None) for name in outputs or [nodes[-1][2]]],
            [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
        )
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, str(path), **places)
        return path

    return write


@pytest.fixture
def libraries(monkeypatch):
    """Put stand-ins where the imports find them: torchvision with its ResNet-18, timm with one network of its own."""
    from torch import nn

    from featlab.extraction.backbones.modules import ResNet

    class Headed(ResNet):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(512, 1000)

        def forward(self, images):
            return self.fc(super().forward(images))

    def tiny(classes):
        head = nn.Linear(8, classes) if classes else nn.Identity()
        parts = {"stem": nn.Conv2d(3, 8, 3, 2), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": head}
        return nn.Sequential(OrderedDict(parts))

    class Published(Enum):
        IMAGENET1K_V1 = 1
        DEFAULT = IMAGENET1K_V1

        def transforms(self):
            mode = SimpleNamespace(value="bicubic")
            return SimpleNamespace(crop_size=[32], mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25], interpolation=mode)

    def trained(module, weights):
        for parameter in module.parameters() if weights else ():
            nn.init.constant_(parameter, 0.01)
        return module

    def create_model(name, pretrained, num_classes):
        if "gone" in name:
            raise RuntimeError("no pretrained\nweights")
        return trained(tiny(num_classes), pretrained)

    models = SimpleNamespace(
        list_models=lambda module=None: ["resnet18", "resnet50"],
        get_model_weights=lambda name: Published,
        get_model=lambda name, weights=None: trained(Headed(), weights),
    )
    config = {"input_size": (3, 40, 40), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic"}
    timm = SimpleNamespace(
        __name__="timm",
        __version__="9.9",
        is_model=lambda name: name in ("tiny", "tiny.tag", "gone"),
        list_models=lambda: ["tiny"],
        create_model=create_model,
        data=SimpleNamespace(resolve_data_config=lambda arguments, model: config),
    )
    torchvision = SimpleNamespace(__name__="torchvision", __version__="9.9", models=models)
    for module in (torchvision, timm):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return SimpleNamespace(headed=Headed, tiny=tiny)

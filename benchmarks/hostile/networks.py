"""What is called a backbone: a name for ``--backbone`` each."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hostile.parts import pickles, zipped


def networks(folder: Path) -> Iterator[tuple[str, str]]:
    """What is called a backbone: a name for ``--backbone`` each."""
    canary = folder / "canary"
    for kind in ("pt2", "onnx", "hf"):
        for number, code in enumerate(
            [
                *pickles(canary),
                b"",
                b"\xff" * 1000,
                zipped({"archive/models/model.json": b"[" * 10**5}, zipfile.ZIP_STORED),
            ]
        ):
            path = folder / f"{number}.{kind}"
            path.write_bytes(code)
            yield f"file {number}.{kind}", f"{kind}:{path}"
        yield f"a folder.{kind}", f"{kind}:{folder}"
        yield f"nowhere.{kind}", f"{kind}:/nowhere"
    code = folder / "code"
    code.mkdir()
    (code / "code.py").write_text(f"open({str(canary)!r}, 'w').close()\n", encoding="utf-8")
    named = {"model_type": "another", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (code / "config.json").write_text(json.dumps(named), encoding="utf-8")
    (code / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    yield "a folder with code.hf", f"hf:{code}"
    yield from _programs(folder, canary)
    yield from _graphs(folder)


def _programs(folder: Path, canary: Path) -> Iterator[tuple[str, str]]:
    """Good programs of torch.export, in which an expression or a function is another one."""
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    good = folder / "good.pt2"
    shapes = ({0: torch.export.Dim("n", min=1)},)
    torch.export.save(torch.export.export(module, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes), good)
    code = f"open({str(canary)!r},'w').close()"
    calls = {
        "an expression": ("expr_str", f"__import__('builtins').exec({code!r})"),
        "a lambda": ("expr_str", f"(lambda: exec({code!r}))()"),
        "a class": (
            "expr_str",
            "[c for c in ().__class__.__base__.__subclasses__() if c.__name__=='_wrap_close'][0]"
            f".__init__.__globals__['system']('touch {canary}')",
        ),
        "a function": ("target", "torch.os.abort"),
        "an operator": ("target", "_operator.methodcaller"),
    }
    yield "a good one", f"pt2:{good}"
    for name, (key, value) in calls.items():
        path = folder / f"{name}.pt2"
        with zipfile.ZipFile(good) as archive, zipfile.ZipFile(path, "w") as other:
            for member in archive.namelist():
                data = archive.read(member)
                if member.endswith("model.json"):
                    data = json.dumps(_with(json.loads(data), key, value)).encode()
                other.writestr(member, data)
        yield name, f"pt2:{path}"


def _with(content: object, key: str, value: str) -> object:
    """Return JSON with another value at every place of a key."""
    if isinstance(content, dict):
        return {
            name: value if name == key and isinstance(inner, str) else _with(inner, key, value)
            for name, inner in content.items()
        }
    return [_with(inner, key, value) for inner in content] if isinstance(content, list) else content


def _graphs(folder: Path) -> Iterator[tuple[str, str]]:
    """ONNX files whose weights are said to lie elsewhere, and broken ones."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return
    secret = folder.parent / "secret.bin"
    secret.write_bytes(bytes(4 * 12))
    shutil.copy(secret, folder / "own.bin")
    (folder / "linked.bin").symlink_to(secret)
    for name, location in {
        "own": "own.bin",
        "above": "../secret.bin",
        "absolute": str(secret),
        "winding": "x/../../secret.bin",
        "a device": "/dev/zero",
        "nowhere": "no.bin",
        "a folder": ".",
        "NUL": "own\0.bin",
    }.items():
        for where in ("initializer", "constant"):
            weight = numpy_helper.from_array(np.ones((3, 4), dtype=np.float32), "w")
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.add(key="location", value=location)
            nodes = [
                helper.make_node("GlobalAveragePool", ["x"], ["p"]),
                helper.make_node("Flatten", ["p"], ["f"]),
                helper.make_node("MatMul", ["f", "w"], ["embedding"]),
            ]
            if where == "constant":
                nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
            ends = [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in (("x", ["n", 3, 8, 8]), ("embedding", ["n", 4]))
            ]
            graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight] if where == "initializer" else [])
            path = folder / f"{name} {where}.onnx"
            path.write_bytes(
                helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
            )
            yield f"weights {name}, {where}", f"onnx:{path}"

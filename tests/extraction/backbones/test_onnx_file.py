"""Networks of other people in ONNX files: how the pictures lie in the input, and which value is the embedding."""

import numpy as np
import pytest

from featlab.errors import ConfigError
from featlab.extraction.backbones import make_backbone

pytest.importorskip("onnxruntime", reason="needs the extra onnx")
onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
SIDE, WIDTH = 12, 40
RNG = np.random.default_rng(3)
IMAGES = list(RNG.integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8))
PLAIN = {"mean": 0, "std": 1}
CONV = RNG.normal(size=(WIDTH, 3, 3, 3))
HEAD, BIAS = RNG.normal(size=(WIDTH, 7)), RNG.normal(size=7)
POOL = [("Relu", ["maps"], "kept", {}), ("GlobalAveragePool", ["kept"], "mean", {}), ("Flatten", ["mean"], "flat", {})]
GEMM = [*POOL, ("Gemm", ["flat", "head", "bias"], "scores", {})]


def write(path, nodes, *, shape=("n", 3, SIDE, SIDE), kind="float32", outputs=None, first=(), beside=False, inputs=()):
    """A convolution and then ``nodes``, each (operator, inputs, output, attributes); ``first`` stand before it."""
    taken, given = (onnx.helper.np_dtype_to_tensor_dtype(np.dtype(each)) for each in (kind, "float32"))
    head4 = HEAD.T[:, :, None, None]
    weights = {"conv": CONV[:, :1] if 1 in shape else CONV, "head": HEAD, "bias": BIAS, "head4": head4}
    first = first or [("Cast", ["x"], "cast", {"to": given})]
    nodes = [*first, ("Conv", [first[-1][2], "conv"], "maps", {}), *nodes]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ins, [out], name=f"the {out}", **more) for op, ins, out, more in nodes],
        "net",
        [onnx.helper.make_tensor_value_info(name, taken, shape) for name in ("x", *inputs)],
        [onnx.helper.make_tensor_value_info(name, given, None) for name in outputs or [nodes[-1][2]]],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    places = {"save_as_external_data": True, "location": "weights.data", "size_threshold": 64}
    onnx.save(model, str(path), **(places if beside else {}))
    return path


def vectors(path, **options):
    return make_backbone(f"onnx:{path}", **PLAIN, **options).embed(IMAGES, None)


def test_channels_lie_where_the_input_says(tmp_path, refused):
    expected = vectors(write(tmp_path / "first.onnx", POOL))
    assert expected.shape == (5, WIDTH)
    moved = [("Transpose", ["x"], "moved", {"perm": [0, 3, 1, 2]})]
    for shape in (("n", SIDE, SIDE, 3), (2, SIDE, "w", 3), ("n", "h", "w", 3), ("a", None, None, 3)):
        path = write(tmp_path / "last.onnx", POOL, shape=shape, first=moved)
        given = {} if SIDE in shape else {"size": SIDE}
        np.testing.assert_allclose(vectors(path, **given), expected, rtol=1e-4)
    for shape, kind in (
        (("n", "c", SIDE, SIDE), "float32"),
        (("n", "c", "h", "w"), "float32"),
        ((3, 3, SIDE, SIDE), "float64"),
        (("n", 3, SIDE, SIDE), "float16"),
    ):
        path = write(tmp_path / "other.onnx", POOL, shape=shape, kind=kind)
        found = vectors(path, **({} if SIDE in shape else {"size": SIDE}))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2 if kind == "float16" else 0)
    first = vectors(write(tmp_path / "grey.onnx", POOL, shape=("n", 1, SIDE, SIDE)))
    last = vectors(write(tmp_path / "grey.onnx", POOL, shape=("n", SIDE, SIDE, 1), first=moved))
    np.testing.assert_allclose(last, first, rtol=1e-4)
    square = "a backbone takes one batch of square images, (n, C, S, S) or (n, S, S, C), C 3 or 1"
    for shape, more, says in (
        (("n", 3, "h", 3), {}, f"has an input ['n', 3, 'h', 3]; {square}"),
        (("n", SIDE, SIDE, 4), {}, square),
        (("n", 3, SIDE, 2 * SIDE), {}, square),
        (("n", SIDE, SIDE, "c"), {}, square),
        (("n", 3, SIDE, SIDE), {"inputs": ("y",)}, "has 2 inputs"),
        (("n", "h", "w", "c"), {"first": moved}, "can't embed images of 224x224"),
        (("n", 3, SIDE, SIDE), {"kind": "uint8"}, "takes tensor(uint8); a backbone takes float images"),
    ):
        with refused(ConfigError, says):
            vectors(write(tmp_path / "no.onnx", POOL, shape=shape, **more))


def test_a_list_of_scores_is_no_embedding_until_it_is_named(tmp_path, refused):
    flat = vectors(write(tmp_path / "flat.onnx", POOL))
    product = [*POOL, ("MatMul", ["flat", "head"], "product", {}), ("Add", ["product", "bias"], "scores", {})]
    maps = [
        ("Relu", ["maps"], "kept", {}),
        ("Conv", ["kept", "head4"], "last", {}),
        ("GlobalAveragePool", ["last"], "g", {}),
    ]
    for nodes, node, ending in (
        (GEMM, "flat", "Gemm"),
        ([*GEMM, ("Softmax", ["scores"], "shares", {})], "flat", "Softmax"),
        ([*GEMM, ("Sigmoid", ["scores"], "p", {}), ("Identity", ["p"], "495", {})], "flat", "Sigmoid"),
        (product, "flat", "MatMul"),
        ([*product, ("LogSoftmax", ["scores"], "l", {})], "flat", "LogSoftmax"),
        ([*maps, ("Flatten", ["g"], "scores", {})], "kept", "Conv"),
    ):
        out = nodes[-1][2]
        for beside in (False, True):
            path = write(tmp_path / "scores.onnx", nodes, beside=beside)
            says = f"7 values an image, after its last {ending}: scores of classes"
            with refused(ConfigError, says, f"--option node={node}, or the scores with --option node={out}"):
                vectors(path)
            for name in (node, f"the {node}"):
                np.testing.assert_allclose(vectors(path, node=name), flat, rtol=1e-4)
        assert vectors(path, node=out).shape == (5, 7)
    made = [make_backbone(f"onnx:{path}", **PLAIN, **more).info() for more in ({"node": "kept"}, {"node": "scores"})]
    assert made[0].fingerprint != made[1].fingerprint
    assert made[0].preprocessing.endswith(", node kept")
    for options, says in (
        ({"node": "flatt"}, "has no value 'flatt' inside; did you mean"),
        ({"output": "scores"}, ".output is called "),
    ):
        with refused(ConfigError, says):
            vectors(path, **options)


def test_what_is_short_or_ends_otherwise_or_is_named_an_embedding_is_taken(tmp_path, refused):
    bottleneck = [*GEMM, ("Relu", ["scores"], "short", {})]
    named = [*GEMM[:-1], ("Gemm", ["flat", "head", "bias"], "embedding", {})]
    sums = [*GEMM, ("Add", ["scores", "scores"], "twice", {})]
    for nodes, width in ((bottleneck, 7), (named, 7), (sums, 7), (POOL, WIDTH)):
        assert vectors(write(tmp_path / "taken.onnx", nodes)).shape == (5, width)
    both = write(tmp_path / "both.onnx", GEMM, outputs=["flat", "scores"])
    with refused(ConfigError, "has 2 outputs that may be the embedding (flat, scores)"):
        vectors(both)

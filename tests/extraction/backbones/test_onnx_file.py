"""Networks of other people in ONNX files: how the pictures lie in the input, and which value is the embedding."""

import numpy as np
import pytest

from featlab.errors import ConfigError
from featlab.extraction.backbones import make_backbone

IMAGES = list(np.random.default_rng(3).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8))
POOL = [("Relu", ["maps"], "kept", {}), ("GlobalAveragePool", ["kept"], "mean", {}), ("Flatten", ["mean"], "flat", {})]
GEMM = [*POOL, ("Gemm", ["flat", "head", "bias"], "scores", {})]
BESIDE = {"save_as_external_data": True, "location": "weights.data", "size_threshold": 64}


@pytest.fixture
def made(tmp_path, onnx_file):
    """``made(nodes, file_options, **options)``: the backbone of such a file."""

    def make(nodes, file=None, **options):
        path = onnx_file(tmp_path / "net.onnx", nodes, **(file or {}))
        return make_backbone(f"onnx:{path}", mean=0, std=1, **options)

    return make


def vectors(backbone):
    return backbone.embed(IMAGES, None)


def test_channels_lie_where_the_input_says(made, refused):
    expected = vectors(made(POOL))
    assert expected.shape == (5, 40)
    moved = [("Transpose", ["x"], "moved", {"perm": [0, 3, 1, 2]})]
    for shape, more in (
        (("n", 12, 12, 3), {"first": moved}),
        ((2, 12, "w", 3), {"first": moved}),
        (("n", "h", "w", 3), {"first": moved}),
        (("n", "c", "h", "w"), {}),
        ((3, 3, 12, 12), {"kind": "float64"}),
        (("n", 3, 12, 12), {"kind": "float16"}),
    ):
        found = vectors(made(POOL, {"shape": shape, **more}, **({} if 12 in shape else {"size": 12})))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2 if more == {"kind": "float16"} else 0)
    first = vectors(made(POOL, {"shape": ("n", 1, 12, 12)}))
    np.testing.assert_allclose(vectors(made(POOL, {"shape": ("n", 12, 12, 1), "first": moved})), first, rtol=1e-4)
    square = "a backbone takes one batch of square images, (n, C, S, S) or (n, S, S, C), C 3 or 1"
    for file, says in (
        ({"shape": ("n", 3, "h", 3)}, f"has an input ['n', 3, 'h', 3]; {square}"),
        ({"shape": ("n", 12, 12, 4)}, square),
        ({"shape": ("n", 3, 12, 24)}, square),
        ({"shape": ("n", 12, 12, "c")}, square),
        ({"inputs": ("y",)}, "has 2 inputs"),
        ({"shape": ("n", "h", "w", "c"), "first": moved}, "can't embed images of 224x224"),
        ({"kind": "uint8"}, "takes tensor(uint8); a backbone takes float images"),
    ):
        with refused(ConfigError, says):
            made(POOL, file)


def test_a_list_of_scores_is_no_embedding_until_it_is_named(made, refused):
    flat = vectors(made(POOL))
    product = [*POOL, ("MatMul", ["flat", "head"], "product", {}), ("Add", ["product", "bias"], "scores", {})]
    maps = [POOL[0], ("Conv", ["kept", "head4"], "last", {}), ("GlobalAveragePool", ["last"], "g", {})]
    for nodes, node, ending in (
        (GEMM, "flat", "Gemm"),
        ([*GEMM, ("Sigmoid", ["scores"], "p", {}), ("Identity", ["p"], "495", {})], "flat", "Sigmoid"),
        ([*product, ("LogSoftmax", ["scores"], "l", {})], "flat", "LogSoftmax"),
        ([*maps, ("Flatten", ["g"], "scores", {})], "kept", "Conv"),
    ):
        out, beside = nodes[-1][2], BESIDE if nodes is GEMM else {}
        says = f"7 values an image, after its last {ending}: scores of classes"
        with refused(ConfigError, says, f"--option node={node}, or the scores with --option node={out}"):
            made(nodes, beside)
        for name in (node, f"the {node}"):
            np.testing.assert_allclose(vectors(made(nodes, beside, node=name)), flat, rtol=1e-4)
        assert vectors(made(nodes, beside, node=out)).shape == (5, 7)
    infos = [made(GEMM, node=node).info() for node in ("kept", "scores")]
    assert [info.preprocessing.rpartition(", ")[2] for info in infos] == ["node kept", "output scores"]
    for options, says in (
        ({"node": "flatt"}, "has no value 'flatt' inside; did you mean"),
        ({"output": "scores"}, ".output is called "),
        ({"layers": "maps"}, "has no layer 'maps' (it has: none that can be tapped)"),
    ):
        with refused(ConfigError, says):
            made(GEMM, **options)


def test_weights_beside_the_file_are_part_of_its_hash(made, tmp_path):
    before, beside = made(POOL, BESIDE).info().weights, tmp_path / "weights.data"
    beside.write_bytes(beside.read_bytes()[:-1] + b"!")
    assert make_backbone(f"onnx:{tmp_path / 'net.onnx'}").info().weights != before


def test_what_is_short_or_ends_otherwise_or_is_named_an_embedding_is_taken(made, refused):
    bottleneck = [*GEMM, ("Relu", ["scores"], "short", {})]
    named = [*POOL, ("Gemm", ["flat", "head", "bias"], "embedding", {})]
    sums = [*GEMM, ("Add", ["scores", "scores"], "twice", {})]
    for nodes, width in ((bottleneck, 7), (named, 7), (sums, 7), (POOL, 40)):
        assert vectors(made(nodes)).shape == (5, width)
    with refused(ConfigError, "has 2 outputs that may be the embedding (flat, scores)"):
        made(GEMM, {"outputs": ["flat", "scores"]})

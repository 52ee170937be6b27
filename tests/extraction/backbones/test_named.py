"""Networks by name: their files, what is done to a picture, what the cache keeps of them."""

import http.client
import io
import sys

import numpy as np
import pytest

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import make_backbone, named

pytest.importorskip("onnxruntime", reason="needs the extra onnx")
onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
RNG = np.random.default_rng(5)
IMAGES = list(RNG.integers(0, 256, (3, 30, 20, 3), dtype=np.uint8))


def write(path, *, side, width):
    """A network of the same form: a convolution, the mean of its map, a linear layer."""
    weights = {"conv": RNG.normal(size=(width, 3, 3, 3)), "head": RNG.normal(size=(width, 8)), "bias": np.zeros(8)}
    nodes = [("Conv", ["x", "conv"], "map"), ("GlobalAveragePool", ["map"], "mean"), ("Flatten", ["mean"], "flat")]
    make = onnx.helper
    graph = make.make_graph(
        [make.make_node(op, ins, [out]) for op, ins, out in [*nodes, ("Gemm", ["flat", "head", "bias"], "scores")]],
        "net",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, side, side])],
        [make.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", 8])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATLAB_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize(("network", "side", "mean"), [("enet_b2_8", 260, None), ("mbf_va_mtl", 112, 0.5)])
def test_a_network_of_emotiefflib_is_seen_as_its_library_sees_it(models, network, side, mean):
    path = write(models / f"{network}.onnx", side=side, width=6)
    made = make_backbone(f"emotiefflib:{network}")
    same = {} if mean is None else {"mean": mean, "std": mean}
    plain = make_backbone(f"onnx:{path}", node="flat", **same)
    np.testing.assert_array_equal(made.embed(IMAGES, None), plain.embed(IMAGES, None))
    info = made.info()
    assert info.id == f"emotiefflib:{network}"
    assert info.weights == plain.info().weights
    assert info.about == {"licence": "Apache-2.0", "training sets": "VGGFace2, AffectNet"}
    assert type(info).from_dict(info.to_dict()).about == info.about
    elsewhere = make_backbone(f"emotiefflib:{network}", weights=str(path.rename(models.parent / "other.onnx")))
    assert elsewhere.info() == info


def test_a_file_that_is_not_there_is_fetched_or_named(models, monkeypatch):
    content = write(models / "made.onnx", side=224, width=6).read_bytes()
    asked = []
    monkeypatch.setattr(named.urllib.request, "urlopen", lambda url, timeout: asked.append(url) or io.BytesIO(content))
    first = make_backbone("emotiefflib:enet_b0_8_best_vgaf")
    assert make_backbone("emotiefflib:enet_b0_8_best_vgaf").info() == first.info()
    assert asked == [named.EMOTIEFFLIB["enet_b0_8_best_vgaf"].url]

    def no_network(url, timeout):
        raise OSError("no network")

    def cut(url, timeout):
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr(named.urllib.request, "urlopen", cut)
    with pytest.raises(InputError, match="can't be fetched"):
        make_backbone("emotiefflib:enet_b2_7")
    monkeypatch.setattr(named.urllib.request, "urlopen", no_network)
    # A server's page in place of the file, and no such package.
    (models / "enet_b2_8.onnx").write_bytes(b"<html>sign in</html>")
    with pytest.raises(InputError, match=r"enet_b2_8.onnx can't be read"):
        make_backbone("emotiefflib:enet_b2_8")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        with pytest.raises(ConfigError, match=r"featlab\[onnx\]"):
            make_backbone("emotiefflib:enet_b2_8")
    for name, options, words in (
        ("emotiefflib:enet_b2_7", {}, ("no network", "enet_b2_7.onnx", str(models), "--weights")),
        ("emotiefflib:enet_b2_7", {"weights": "gone.onnx"}, ("gone.onnx",)),
        ("fer", {}, ("fer.onnx", "small_networks.py")),
        ("face-api", {"weights": str(models / "made.onnx")}, ("not the file of face-api", "small_networks.py")),
    ):
        with pytest.raises(InputError) as refused:
            make_backbone(name, **options)
        assert all(word in str(refused.value) for word in words)
        assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="did you mean"):
        make_backbone("emotiefflib:enet_b2_9")


def test_a_model_of_the_hub_is_read_as_its_folder(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **more: asked.append((args, more)) or tmp_path / "vit")
    whole = make_backbone("hf:owner/vit@v1", size=16)
    assert whole.info() == make_backbone(f"hf:{tmp_path / 'vit'}", size=16).info()
    ((args, more),) = asked
    assert (args, more["revision"]) == (("owner/vit",), "v1")
    assert not any("bin" in pattern for pattern in more["allow_patterns"])

    def no_network(*args, **more):
        raise RuntimeError("no network")

    monkeypatch.setattr(hub, "snapshot_download", no_network)
    for name in ("hf:owner/vit", "clip:ViT-B/32"):
        with pytest.raises(InputError, match=r"no network.*hf download"):
            make_backbone(name)
    with pytest.raises(ConfigError, match="ViT-L/14"):
        make_backbone("clip:ViT-Z")

"""Networks by name: their files, what is done to a picture, what the cache keeps of them."""

import http.client
import io
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.backbones import IMAGENET_MEAN, IMAGENET_STD, make_backbone, named

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
    assert asked == [named.NETWORKS["emotiefflib"]["enet_b0_8_best_vgaf"].url]

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


def convnext_tensors(widths, depths):
    """Tensors of a ConvNeXt V2 under timm's names, as py-feat's file has them."""
    shapes = {"stem_0": (widths[0], 3, 4, 4), "stem_1": (widths[0],)}
    for stage, (before, width, depth) in enumerate(zip((0, *widths), widths, depths, strict=False)):
        if stage:
            shapes[f"stages_{stage}.downsample.0"] = (before,)
            shapes[f"stages_{stage}.downsample.1"] = (width, before, 2, 2)
        parts = {"conv_dw": (width, 1, 7, 7), "norm": (width,), "mlp.fc1": (4 * width, width), "mlp.grn": (4 * width,)}
        for block in range(depth):
            for name, shape in (parts | {"mlp.fc2": (width, 4 * width)}).items():
                shapes[f"stages_{stage}.blocks.{block}.{name}"] = shape
    ends = [(f"{name}.{end}", form) for name, s in shapes.items() for end, form in (("weight", s), ("bias", s[:1]))]
    return {f"backbone.{name}": torch.from_numpy(RNG.normal(size=form).astype(np.float32) / 3) for name, form in ends}


def convnext(tensors, depths, x):
    """The formula of Woo et al. (2023), without the norm at its end."""

    def of(name):
        return [tensors[f"backbone.{name}.{end}"].double() for end in ("weight", "bias")]

    def conv(name, x, **options):
        weight, bias = of(name)
        return F.conv2d(x, weight if weight.ndim == 4 else weight[:, :, None, None], bias, **options)

    def norm(name, x):
        return F.layer_norm(x.movedim(1, 3), x.shape[1:2], *of(name), 1e-6).movedim(3, 1)

    x = norm("stem_1", conv("stem_0", x, stride=4))
    for stage, depth in enumerate(depths):
        if stage:
            x = conv(f"stages_{stage}.downsample.1", norm(f"stages_{stage}.downsample.0", x), stride=2)
        for start in (f"stages_{stage}.blocks.{block}" for block in range(depth)):
            inner = norm(f"{start}.norm", conv(f"{start}.conv_dw", x, padding=3, groups=x.shape[1]))
            inner = F.gelu(conv(f"{start}.mlp.fc1", inner))
            length = inner.square().sum(dim=(2, 3), keepdim=True).sqrt()
            scale, shift = (each[:, None, None] for each in of(f"{start}.mlp.grn"))
            inner = inner + scale * inner * length / (length.mean(dim=1, keepdim=True) + 1e-6) + shift
            x = x + conv(f"{start}.mlp.fc2", inner)
    return x.mean(dim=(2, 3))


def test_pyfeat_is_its_trunk_as_the_paper_has_it(models, monkeypatch):
    pytest.importorskip("transformers", reason="needs the extra hf")
    depths = (1, 2, 1, 1)
    tensors = convnext_tensors((4, 6, 8, 10), depths)
    path = models / "face_multitask_v28.safetensors"
    save_file(tensors | {"emotion.fc.weight": torch.zeros(7, 10)}, path)
    made = make_backbone("pyfeat:v2")
    # The middle 224 of 256 pixels.
    pictures = list(RNG.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8))
    pixels = torch.from_numpy(np.stack(pictures)[:, 16:240, 16:240]).double().permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(each).double()[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    expected = convnext(tensors, depths, (pixels - mean) / std).numpy()
    np.testing.assert_allclose(made.embed(pictures, None), expected, rtol=1e-4, atol=1e-4)
    info = made.info()
    assert "centre square of 0.875 of the shorter side, 224x224" in info.preprocessing
    assert "non-commercial" in info.about["licence"]
    assert "AffectNet" in info.about["training sets"]
    tapped = make_backbone("pyfeat:v2", layers=("encoder.stages.1",)).embed(pictures, None)
    np.testing.assert_allclose(tapped[:, :10], expected, rtol=1e-4, atol=1e-4)
    assert tapped.shape == (2, 10 + 2 * 6)

    def no_network(url, timeout):
        raise OSError("no network")

    monkeypatch.setattr(named.urllib.request, "urlopen", no_network)
    path.rename(models / "face_multitask_v27.safetensors")
    cut = {name: tensor for name, tensor in tensors.items() if "grn.bias" not in name}
    save_file(cut, models / "cut.safetensors")
    save_file({"fc.weight": torch.zeros(2, 2)}, models / "other.safetensors")
    for name, options, words in (
        ("pyfeat:v2", {}, ("py-feat/face_multitask_v2/resolve/main/face_multitask_v28.safetensors", str(path))),
        ("pyfeat:v2.7", {}, ("not the file of pyfeat:v2.7", "e3c870e22ba0", "fetch https://huggingface.co/py-feat")),
        ("pyfeat:v2", {"weights": str(models / "cut.safetensors")}, ("missing", "grn.bias")),
        ("pyfeat:v2", {"weights": str(models / "other.safetensors")}, ("no ConvNeXt V2", "other.safetensors")),
        ("pyfeat:v3", {}, ("there is no network 'v3'", "v2.7")),
        ("pyfeat", {}, ("a network's name: v2",)),
    ):
        with pytest.raises(FeatlabError) as refused:
            make_backbone(name, **options)
        assert all(word in str(refused.value) for word in words)

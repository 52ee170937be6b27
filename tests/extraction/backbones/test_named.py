"""Networks by name: their files, what is done to a picture, what the cache keeps of them."""

import http.client
import io
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import IMAGENET_MEAN, IMAGENET_STD, make_backbone, named

RNG = np.random.default_rng(5)
IMAGES = list(RNG.integers(0, 256, (3, 30, 20, 3), dtype=np.uint8))


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATLAB_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def answer(monkeypatch):
    """``answer(bytes or an error)``: what the network has for every address; returns the list of those asked for."""

    def set_to(content):
        asked = []

        def urlopen(url, timeout):
            asked.append(url)
            if isinstance(content, Exception):
                raise content
            return io.BytesIO(content)

        monkeypatch.setattr(named.urllib.request, "urlopen", urlopen)
        return asked

    return set_to


def test_a_network_of_emotiefflib_is_seen_as_its_library_sees_it(models, onnx_file):
    for network, side, own in (("enet_b2_8", 260, {}), ("mbf_va_mtl", 112, {"mean": 0.5, "std": 0.5})):
        path = onnx_file(models / f"{network}.onnx", shape=("n", 3, side, side))
        made, plain = make_backbone(f"emotiefflib:{network}"), make_backbone(f"onnx:{path}", node="flat", **own)
        np.testing.assert_array_equal(made.embed(IMAGES, None), plain.embed(IMAGES, None))
        info = made.info()
        assert (info.id, info.weights) == (f"emotiefflib:{network}", plain.info().weights)
        assert info.about == {"licence": "Apache-2.0", "training sets": "VGGFace2, AffectNet"}
        elsewhere = path.rename(models.parent / "other.onnx")
        assert make_backbone(f"emotiefflib:{network}", weights=str(elsewhere)).info() == info


def test_a_file_that_is_not_there_is_fetched_or_named(models, onnx_file, answer, monkeypatch, refused):
    asked = answer(onnx_file(models / "made.onnx", shape=("n", 3, 224, 224)).read_bytes())
    first = make_backbone("emotiefflib:enet_b0_8_best_vgaf")
    assert make_backbone("emotiefflib:enet_b0_8_best_vgaf").info() == first.info()
    assert asked == [named.NETWORKS["emotiefflib"]["enet_b0_8_best_vgaf"].url]
    # A server's page in place of the file, and what no server should send.
    (models / "enet_b2_8.onnx").write_bytes(b"<html>sign in</html>")
    known = {"weights": str(models / "made.onnx")}
    for content, name, options, error, *words in (
        (http.client.IncompleteRead(b"half"), "emotiefflib:enet_b2_7", {}, InputError, "can't be fetched"),
        (OSError("no network"), "emotiefflib:enet_b2_7", {}, InputError, "no network", "enet_b2_7.onnx", "--weights"),
        (b"", "emotiefflib:enet_b2_8", {}, InputError, "enet_b2_8.onnx can't be read"),
        (b"", "emotiefflib:enet_b2_7", {"weights": "gone.onnx"}, InputError, "gone.onnx"),
        (b"", "fer", {}, InputError, "fer.onnx", "small_networks.py"),
        (b"", "face-api", known, InputError, "not the file of face-api", "small_networks.py"),
        (b"", "emotiefflib:enet_b2_9", {}, ConfigError, "did you mean"),
    ):
        answer(content)
        with refused(error, *words):
            make_backbone(name, **options)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with refused(ConfigError, "featlab[onnx]"):
        make_backbone("emotiefflib:enet_b0_8_best_vgaf")


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


def test_pyfeat_is_its_trunk_as_the_paper_has_it(models, answer, refused):
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
    answer(OSError("no network"))
    path.rename(models / "face_multitask_v27.safetensors")
    other, cut = models / "other.safetensors", models / "cut.safetensors"
    save_file({"fc.weight": torch.zeros(2, 2)}, other)
    save_file({name: tensor for name, tensor in tensors.items() if "grn.bias" not in name}, cut)
    for name, options, error, *words in (
        ("pyfeat:v2", {}, InputError, "face_multitask_v2/resolve/main/face_multitask_v28.safetensors", str(path)),
        ("pyfeat:v2.7", {}, InputError, "not the file of pyfeat:v2.7", "e3c870e22ba0", "fetch https://huggingface.co/"),
        ("pyfeat:v2", {"weights": str(cut)}, ConfigError, "missing", "grn.bias"),
        ("pyfeat:v2", {"weights": str(other)}, InputError, "no ConvNeXt V2", "other.safetensors"),
        ("pyfeat", {}, ConfigError, "a network's name: v2"),
    ):
        with refused(error, *words):
            make_backbone(name, **options)

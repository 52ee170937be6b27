import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from featlab.errors import ConfigError
from featlab.extraction.backbones import (
    APPENDED,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    InputSpec,
    NetworkOptions,
    make_backbone,
    network_options,
)
from featlab.extraction.backbones.modules import resnet18
from featlab.extraction.backbones.network import channel_statistics, module_backbone
from featlab.extraction.backbones.weights import built, state_sha256

SIZE = 24


class Pair(nn.Module):
    def forward(self, x):
        return x - 0.1, None


class Small(nn.Module):
    """With a layer that works in place and is used twice, one that is not used, and one that returns a pair."""

    def __init__(self, change=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.pair = Pair()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.unused = nn.Conv2d(3, 4, 3)
        self.change = change

    def forward(self, images):
        maps = self.relu(self.pair(self.relu(self.norm(self.conv(images))))[0])
        return self.pool(maps).flatten(1) if self.change is None else self.change(maps)


def small(change=None, **options):
    module = built(lambda: Small(change))
    return module_backbone("small", module, NetworkOptions(**options), InputSpec(size=SIZE), id="s", weights="w")


def normalised(batch):
    scaled = np.stack(batch).astype(np.float32) / 255
    values = (scaled - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    return torch.from_numpy(values.transpose(0, 3, 1, 2).copy())


def test_embeddings_and_statistics_are_those_of_the_modules_own_maps(images):
    batch, module = images(4, SIZE), built(Small).eval()
    before = state_sha256(module)
    with torch.no_grad():
        values, maps = module(normalised(batch)).numpy(), module.conv(normalised(batch))
        normed, maps = (x.numpy().astype(np.float64) for x in (module.norm(maps), maps))
    options = NetworkOptions(layers=("norm", "conv", "pair"))
    backbone = module_backbone("small", module.train(), options, InputSpec(size=SIZE), id="s", weights="w")
    output = backbone.embed(batch, None)
    assert (module.training, state_sha256(module)) == (False, before)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert (output.dtype, output.shape) == (np.float32, (4, 6 + 6 * 6))
    # Each as it was before a later layer changed it in place.
    three = (normed, maps, normed.clip(0) - 0.1)
    statistics = [part for x in three for part in (x.mean(axis=(2, 3)), x.std(axis=(2, 3)))]
    np.testing.assert_allclose(output, np.concatenate([values, *statistics], axis=1), atol=1e-6)
    with pytest.raises(RuntimeError):
        backbone.network.taps.run(torch.zeros(1, 5, 8, 8))
    assert not module.conv._forward_hooks
    # No layer, a map of one position, a tuple of one.
    for change in (None, lambda maps: maps.mean(dim=(2, 3), keepdim=True), lambda maps: (maps.mean(dim=(2, 3)),)):
        np.testing.assert_allclose(small(change).embed(batch, None), output[:, :6], rtol=1e-6)


def test_the_built_in_resnet18_fits_the_protocol_and_the_batch_changes_nothing_but_rounding(images):
    backbone, batch = make_backbone("resnet18", weights="random", size=32), images(3)
    assert isinstance(backbone, Backbone)
    with torch.no_grad():
        expected = built(resnet18).eval()(normalised(batch)).numpy()
    np.testing.assert_allclose(backbone.embed(batch, None), expected, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([backbone.embed([x], None) for x in batch]), expected, atol=1e-5)
    assert np.abs(np.diff(expected, axis=0)).max() > 1e-3


def test_layers_and_all_that_changes_pixels_change_the_fingerprint_and_the_device_does_not(refused):
    half = (0.5, 0.5, 0.5)
    changes = [{}, {"layers": ("conv",)}, {"size": 32}, {"mean": half}, {"std": half}]
    changes += [{"crop": 0.9}, {"interpolation": "bicubic"}]
    infos = [small(**change).info() for change in changes]
    assert len({info.fingerprint for info in infos}) == len(changes)
    assert small(device="cpu").info().fingerprint == infos[0].fingerprint
    line = f"RGB, centre square, {SIZE}x{SIZE} bilinear, mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
    assert [info.preprocessing for info in infos[:2]] == [line, f"{line}, {APPENDED}"]
    assert "centre square of 0.9 of the shorter side" in infos[5].preprocessing
    with refused(ConfigError, "device must be auto, cpu, cuda or mps, got 'tpu'"):
        small(device="tpu")
    if not torch.cuda.is_available():
        with refused(ConfigError, "mixed precision (amp) needs a GPU"):
            small(amp=True)


def test_an_output_that_is_no_embedding_is_one_line(refused):
    for change, says in (
        (lambda maps: maps, "returned float32 (2, 6, 11, 11) for 2 images; it must return floats (n, D)"),
        (lambda maps: maps.mean(dim=(0, 2, 3)), "returned float32 (6,)"),
        (lambda maps: maps.mean(dim=(2, 3))[:1], "returned float32 (1, 6) for 2 images"),
        (lambda maps: maps.mean(dim=(2, 3)).argmax(dim=1, keepdim=True), "returned int64 (2, 1)"),
        (lambda maps: (maps, maps), "returned a tuple"),
        (lambda maps: None, "returned a NoneType"),
        (lambda maps: maps @ maps.new_zeros(3, 3), "can't embed images of 24x24"),
    ):
        with refused(ConfigError, says):
            small(change)


def test_statistics_are_numpys_over_the_positions():
    random = torch.Generator().manual_seed(0)
    for shape, axes in (
        *(((3, 5, 2, 6), (2, 3)), ((3, 1, 2, 2), (2, 3)), ((2, 7, 7, 7), (2, 3)), ((2, 96, 7, 7), (2, 3))),
        *(((3, 9, 5), (1,)), ((2, 7, 7, 96), (1, 2))),  # tokens; Swin's channels last
    ):
        values = torch.randn(shape, generator=random) * 3 + 100
        exact = values.numpy().astype(np.float64)
        mean, deviation = channel_statistics(values)
        np.testing.assert_allclose(mean.numpy(), exact.mean(axis=axes), rtol=1e-6)
        np.testing.assert_allclose(deviation.numpy(), exact.std(axis=axes), rtol=1e-4)
    for shape in ((2, 5), (2, 5, 1, 1), (2, 1, 5), (2, 3, 4, 4, 4)):
        assert channel_statistics(torch.zeros(shape)) is None
    # Half precision is summed in float32.
    half = torch.full((1, 1, 64, 64), 4e4, dtype=torch.float16)
    assert channel_statistics(half)[0].item() == pytest.approx(4e4, rel=1e-3)


def test_a_layer_that_cannot_be_tapped_says_why(refused):
    for layer, says in {
        "cnv": "small has no layer 'cnv'; did you mean 'conv'? (it has: conv, norm, relu",
        "": "has no layer ''",
        "relu": "'relu' is called more than once",
        "unused": "'unused' isn't called",
        "pool": "'pool' has no positions",
    }.items():
        with refused(ConfigError, says):
            small(layers=(layer,))


def test_preparing_is_pillows_resizing_of_the_centre_square():
    def noise(height, width):
        return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)

    image, square = noise(40, 64), noise(40, 40)
    whole = np.asarray(Image.fromarray(image).resize((32, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(InputSpec(20)(image), whole[:, 6:26])
    np.testing.assert_array_equal(InputSpec(20)(image.transpose(1, 0, 2)), whole[:, 6:26].transpose(1, 0, 2))
    for name in ("bilinear", "bicubic", "lanczos"):
        expected = Image.fromarray(square).resize((24, 24), Image.Resampling[name.upper()])
        np.testing.assert_array_equal(InputSpec(24, interpolation=name)(square), np.asarray(expected))
    np.testing.assert_array_equal(InputSpec(20, crop=0.5)(square), square[10:30, 10:30])
    assert InputSpec(40)(square) is square
    for shape in ((1, 1), (1, 50), (300, 7)):
        assert InputSpec(8)(noise(*shape)).shape == (8, 8, 3)


def test_options_come_as_the_command_line_gives_them_and_those_that_do_not_fit_say_so(refused):
    options = network_options("net", NetworkOptions, {"layers": " a, b.c ,", "mean": 0.5, "std": "1,2,3", "size": 64})
    assert options.layers == ("a", "b.c")
    assert options.input_spec(InputSpec(crop=0.9)) == InputSpec(64, (0.5, 0.5, 0.5), (1.0, 2.0, 3.0), 0.9)
    assert network_options("net", NetworkOptions, {"layers": "none"}) == NetworkOptions()
    for name, value, says in (
        ("size", 0, "size must be a positive whole number of pixels, got 0"),
        ("std", 0, "std positive"),
        ("mean", "0.5,0.5", "mean must be one number or three"),
        ("crop", 1.5, "net.crop = 1.5 must be between 0.01 and 1"),
        ("interpolation", "nearest", "not one of bilinear, bicubic, lanczos"),
        ("layers", ("a", "a"), "'a' is named twice"),
        ("prefix", "ema", "prefix is for a weights file"),
    ):
        with refused(ConfigError, says):
            network_options("net", NetworkOptions, {name: value}).input_spec(InputSpec())

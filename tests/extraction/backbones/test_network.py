"""The built-in network, and what every network shares."""

import pickle
import shutil
import subprocess
import sys

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
    ResizeCrop,
    make_backbone,
    network_options,
)
from featlab.extraction.backbones.hubs import resnet18
from featlab.extraction.backbones.network import (
    Taps,
    channel_statistics,
    in_fixed_batches,
    module_backbone,
    position_axes,
)
from featlab.extraction.backbones.weights import seeded

SIZE = 24
SMALL = InputSpec(size=SIZE)


class Small(nn.Module):
    """A convolution and a mean, or whatever ``change`` makes of it."""

    def __init__(self, change=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2)
        self.norm = nn.BatchNorm2d(6)
        self.change = change

    def forward(self, images):
        maps = self.norm(self.conv(images)).relu()
        return maps.mean(dim=(2, 3)) if self.change is None else self.change(maps)


def small(change=None, **options):
    return module_backbone(
        "small", seeded(lambda: Small(change)), NetworkOptions(**options), SMALL, id="s", weights="w"
    )


def images(count, size=SIZE, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def normalised(batch):
    scaled = np.stack(batch).astype(np.float32) / 255
    values = (scaled - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    return torch.from_numpy(values.transpose(0, 3, 1, 2).copy())


def close(rows, expected):
    """Equal up to float32 rounding in 18 layers: the size of the batch orders a convolution's sums."""
    assert (np.linalg.norm(rows - expected, axis=1) <= 4e-6 * np.linalg.norm(expected, axis=1)).all()


def test_embeddings_and_statistics_are_those_of_the_modules_own_maps():
    module = seeded(Small).eval()
    with torch.no_grad():
        values, maps = module(normalised(images(4))).numpy(), module.conv(normalised(images(4)))
        normed, maps = (x.numpy().astype(np.float64) for x in (module.norm(maps), maps))
    backbone = small(layers=("norm", "conv"))
    output = backbone.embed(images(4), None)
    assert output.dtype == np.float32
    assert (output.shape, backbone.dim) == ((4, 6 + 4 * 6), 30)
    statistics = [part for x in (normed, maps) for part in (x.mean(axis=(2, 3)), x.std(axis=(2, 3)))]
    np.testing.assert_allclose(output, np.concatenate([values, *statistics], axis=1), atol=1e-6)
    info, plain = backbone.info(), small().info()
    assert (info.layers, plain.layers) == (("norm", "conv"), ())
    assert info.preprocessing == f"{plain.preprocessing}, {APPENDED}"
    np.testing.assert_array_equal(small().embed(images(4), None), output[:, :6])
    assert backbone.embed([], None).shape == (0, 30)


def test_the_batch_changes_nothing_but_the_order_counts():
    backbone = make_backbone("resnet18", weights="random", layers="layer1", size=32)
    batch = images(7, 32)
    together = backbone.embed(batch, None)
    alone = [backbone.embed([image], None) for image in batch]
    close(np.concatenate(alone), together)
    close(backbone.embed(batch[::-1], None)[::-1], together)
    assert np.abs(np.diff(together, axis=0)).max() > 1e-3


def test_the_network_stays_in_evaluation_mode_without_gradients():
    module = Small().train()
    backbone = module_backbone("small", module, NetworkOptions(), SMALL, id="s", weights="w")
    before = module.norm.running_mean
    assert before is not None
    kept = before.clone()
    backbone.embed(images(3), None)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(before, kept)


def test_the_built_in_resnet18_fits_the_protocol():
    backbone = make_backbone("resnet18", weights="random", size=32)
    assert isinstance(backbone, Backbone)
    assert (backbone.needs_images, backbone.needs_landmarks, backbone.in_worker) == (True, False, False)
    info = backbone.info()
    assert (backbone.name, info.id, info.layers, len(info.weights)) == ("resnet18", "resnet18", (), 64)
    assert {"torch", "pillow", "numpy"} <= set(info.versions)
    with torch.no_grad():
        expected = seeded(resnet18).eval()(normalised(images(2, 32)))
    np.testing.assert_allclose(backbone.embed(images(2, 32), None), expected.numpy(), atol=1e-5)


def test_a_renamed_weights_file_keeps_the_fingerprint_and_other_weights_change_it(tmp_path):
    state = resnet18().state_dict()
    torch.save(state, tmp_path / "a.pt")
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")

    def fingerprint(name):
        return make_backbone("resnet18", weights=str(tmp_path / name), size=32).info().fingerprint

    assert fingerprint("a.pt") == fingerprint("b.pt")
    state["conv1.weight"] += 1e-3
    torch.save(state, tmp_path / "a.pt")
    assert fingerprint("a.pt") != fingerprint("b.pt")


def test_layers_and_inputs_change_the_fingerprint_and_the_device_does_not():
    def fingerprint(**options):
        return str(small(**options).info().fingerprint)

    different = [{}, {"layers": ("conv",)}, {"size": 32}, {"crop": 0.9}, {"interpolation": "bicubic"}]
    assert len({fingerprint(**options) for options in different}) == len(different)
    assert fingerprint(device="cpu") == fingerprint()


def test_devices_that_are_not_there_are_refused(refused):
    with refused(ConfigError, "device must be auto, cpu or cuda, got 'tpu'"):
        small(device="tpu")
    if not torch.cuda.is_available():
        with refused(ConfigError, "torch finds no GPU here; use cpu"):
            small(device="cuda")
        with refused(ConfigError, "mixed precision (amp) needs a GPU"):
            small(amp=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_and_cpu_agree_and_mixed_precision_is_another_extractor():
    batch = images(5)
    cpu, gpu = small(device="cpu", layers=("conv",)), small(device="cuda", layers=("conv",))
    np.testing.assert_allclose(gpu.embed(batch, None), cpu.embed(batch, None), atol=1e-5)
    assert gpu.info().fingerprint == cpu.info().fingerprint
    mixed = small(device="cuda", amp=True, layers=("conv",))
    output = mixed.embed(batch, None)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, cpu.embed(batch, None), atol=1e-2)
    assert mixed.info().fingerprint != cpu.info().fingerprint


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


def test_a_map_of_one_position_and_a_tuple_of_one_are_embeddings():
    expected = small().embed(images(3), None)
    for change in (lambda maps: maps.mean(dim=(2, 3), keepdim=True), lambda maps: (maps.mean(dim=(2, 3)),)):
        np.testing.assert_array_equal(small(change).embed(images(3), None), expected)


def test_a_fixed_batch_is_filled_up_and_cut():
    seen = []

    def run(batch):
        seen.append(len(batch))
        return batch.flatten(1).sum(dim=1, keepdim=True)

    for count in (1, 2, 3, 7):
        batch = torch.arange(count * 3.0).reshape(count, 3, 1, 1)
        vectors = in_fixed_batches(run, batch, 3)
        assert torch.equal(vectors, batch.flatten(1).sum(dim=1, keepdim=True))
    assert set(seen) == {3}


class Twice(nn.Module):
    """A convolution, a layer that works in place on its output, and one that is used twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.unused = nn.Conv2d(3, 4, 3)
        self.tuple = Pair()

    def forward(self, images):
        x = self.relu(self.conv(images))
        x = self.relu(self.tuple(x)[0])
        out = self.pool(x).flatten(1)
        return out


class Pair(nn.Module):
    def forward(self, x):
        return x - 0.1, None


def test_statistics_are_numpys_over_the_positions():
    random = torch.Generator().manual_seed(0)
    for shape, axes in (
        *(((3, 5, 4, 4), (2, 3)), ((3, 5, 2, 6), (2, 3)), ((3, 1, 2, 2), (2, 3)), ((2, 7, 7, 7), (2, 3))),
        *(((3, 9, 5), (1,)), ((2, 7, 7, 96), (1, 2)), ((2, 96, 7, 7), (2, 3))),  # tokens; Swin's channels last
    ):
        assert position_axes(shape) == axes
        values = torch.randn(shape, generator=random) * 3 + 100
        exact = values.numpy().astype(np.float64)
        mean, deviation = channel_statistics(values)
        np.testing.assert_allclose(mean.numpy(), exact.mean(axis=axes), rtol=1e-6)
        np.testing.assert_allclose(deviation.numpy(), exact.std(axis=axes), rtol=1e-4)
    for shape in ((2, 5), (2, 5, 1, 1), (2, 1, 5), (2, 3, 4, 4, 4)):
        assert channel_statistics(torch.zeros(shape)) is None
    assert (channel_statistics(torch.full((2, 3, 4, 4), 0.1))[1] < 1e-7).all()
    # Half precision is summed in float32.
    values = torch.full((1, 1, 64, 64), 40.0, dtype=torch.float16)
    values[0, 0, 0, 0] = 60000
    mean, deviation = channel_statistics(values)
    assert mean.dtype == torch.float32
    np.testing.assert_allclose(mean.item(), values.float().mean().item(), rtol=1e-6)
    assert torch.isfinite(deviation).all()


def test_a_tap_sees_a_layer_before_later_layers_change_it_in_place():
    module = Twice().eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        with Taps("net", module, ["conv", "tuple"]).collect() as found:
            module(images)
        plain = module.conv(images)
    torch.testing.assert_close(found["conv"][0], plain.mean(dim=(2, 3)))
    torch.testing.assert_close(found["conv"][1], plain.std(dim=(2, 3), correction=0))
    torch.testing.assert_close(found["tuple"][0], plain.relu().mean(dim=(2, 3)) - 0.1)


def test_hooks_are_gone_afterwards_also_after_an_error():
    module = Twice().eval()
    taps = Taps("net", module, ["conv"])
    with taps.collect():
        module(torch.zeros(1, 3, 8, 8))
    with pytest.raises(RuntimeError), taps.collect():
        module(torch.zeros(1, 5, 8, 8))
    assert not module.conv._forward_hooks


def test_a_layer_that_cannot_be_tapped_says_why(refused):
    for layer, says in {
        "cnv": "net has no layer 'cnv'; did you mean 'conv'? (it has: conv, relu, pool",
        "": "has no layer ''",
        "relu": "'relu' is called more than once",
        "unused": "'unused' isn't called",
        "pool": "'pool' has no positions",
    }.items():
        module = Twice().eval()
        with refused(ConfigError, says), Taps("net", module, [layer]).collect():
            module(torch.zeros(1, 3, 8, 8))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_preparing_is_pillows_resizing_of_the_centre_square():
    image = noise(40, 64)
    whole = np.asarray(Image.fromarray(image).resize((32, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(ResizeCrop(20)(image), whole[:, 6:26])
    np.testing.assert_array_equal(ResizeCrop(20)(image.transpose(1, 0, 2)), whole[:, 6:26].transpose(1, 0, 2))
    square = noise(40, 40)
    for name in ("bilinear", "bicubic", "lanczos"):
        expected = Image.fromarray(square).resize((24, 24), Image.Resampling[name.upper()])
        np.testing.assert_array_equal(ResizeCrop(24, interpolation=name)(square), np.asarray(expected))
    np.testing.assert_array_equal(ResizeCrop(20, crop=0.5)(square), square[10:30, 10:30])
    assert ResizeCrop(40)(square) is square
    for shape in ((1, 1), (1, 50), (3, 2), (300, 7)):
        assert ResizeCrop(8)(noise(*shape)).shape == (8, 8, 3)


def test_what_goes_to_the_workers_is_pickled_and_imports_no_torch():
    data = pickle.dumps(InputSpec(size=12).prepare())
    code = (
        "import pickle, sys, numpy as np\n"
        f"prepare = pickle.loads({data!r})\n"
        "print(prepare(np.zeros((30, 20, 3), np.uint8), None).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(12, 12, 3) False"


def test_everything_that_changes_pixels_is_in_the_description():
    half = (0.5, 0.5, 0.5)
    changes = [{}, {"size": 96}, {"mean": half}, {"std": half}, {"crop": 0.875}, {"interpolation": "bicubic"}]
    assert len({InputSpec(**change).describe() for change in changes}) == 6
    line = "RGB, centre square, 224x224 bilinear, mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
    assert InputSpec().describe() == line
    assert "centre square of 0.875 of the shorter side" in InputSpec(crop=0.875).describe()


def test_options_that_do_not_fit_say_so(refused):
    for name, value, says in (
        ("size", 0, "size must be a positive whole number of pixels, got 0"),
        ("size", True, "net.size = True must be a number"),
        ("size", 2.5, "net.size = 2.5 must be a whole number"),
        ("std", 0, "std positive"),
        ("mean", "nan", "net.mean = 'nan' must be finite"),
        ("mean", "0.5,0.5", "mean must be one number or three"),
        ("crop", 1.5, "crop is a fraction"),
        ("interpolation", "nearest", "must be one of bilinear, bicubic, lanczos"),
        ("layers", 3, "net.layers = 3 must be a list"),
        ("layers", ("a", "a"), "'a' is named twice"),
        ("amp", "perhaps", "net.amp = 'perhaps' must be true or false"),
        ("weights", [3], "must be text"),
        ("sise", 3, "did you mean 'size'"),
    ):
        with refused(ConfigError, says):
            network_options("net", NetworkOptions, {name: value}).input_spec(InputSpec())


def test_options_come_as_the_command_line_gives_them():
    options = network_options("net", NetworkOptions, {"layers": " a, b.c ,", "mean": 0.5, "std": "1,2,3", "size": 64})
    assert options.layers == ("a", "b.c")
    spec = options.input_spec(InputSpec(crop=0.9))
    assert spec == InputSpec(64, (0.5, 0.5, 0.5), (1.0, 2.0, 3.0), 0.9)
    assert network_options("net", NetworkOptions, {"layers": "none"}).layers == ()
    assert network_options("net", NetworkOptions, {}).layers == ()
    assert network_options("net", NetworkOptions, {}).input_spec(InputSpec()).mean == IMAGENET_MEAN

"""The built-in network, and what every network shares."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

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

    def __init__(self, change: Any = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2)
        self.norm = nn.BatchNorm2d(6)
        self.change = change

    def forward(self, images: Tensor) -> Any:
        maps = self.norm(self.conv(images)).relu()
        return maps.mean(dim=(2, 3)) if self.change is None else self.change(maps)


def small(change: Any = None, **options: Any) -> Any:
    return module_backbone(
        "small", seeded(lambda: Small(change)), NetworkOptions(**options), SMALL, id="s", weights="w"
    )


def images(count: int, size: int = SIZE, seed: int = 0) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def normalised(batch: list[NDArray[np.uint8]]) -> Tensor:
    scaled = np.stack(batch).astype(np.float32) / 255
    values = (scaled - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    return torch.from_numpy(values.transpose(0, 3, 1, 2).copy())


def close(rows: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Equal up to float32 rounding in 18 layers: the size of the batch orders a convolution's sums."""
    assert (np.linalg.norm(rows - expected, axis=1) <= 4e-6 * np.linalg.norm(expected, axis=1)).all()


def test_embeddings_are_the_modules_own_on_normalised_images() -> None:
    module = seeded(Small).eval()
    with torch.no_grad():
        expected = module(normalised(images(4)))
    output = small().embed(images(4), None)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected.numpy(), atol=1e-6)


def test_what_is_appended_are_numpys_statistics_of_the_modules_own_maps() -> None:
    module = seeded(Small).eval()
    with torch.no_grad():
        maps = module.conv(normalised(images(4))).numpy().astype(np.float64)
        normed = module.norm(module.conv(normalised(images(4)))).numpy().astype(np.float64)
    backbone = small(layers=("norm", "conv"))
    output = backbone.embed(images(4), None)
    assert output.dtype == np.float32
    assert (output.shape, backbone.dim) == ((4, 6 + 4 * 6), 30)
    expected = [small().embed(images(4), None)]
    for values in (normed, maps):
        expected += [values.mean(axis=(2, 3)), values.std(axis=(2, 3))]
    np.testing.assert_allclose(output, np.concatenate(expected, axis=1), atol=1e-6)
    info, plain = backbone.info(), small().info()
    assert (info.layers, plain.layers) == (("norm", "conv"), ())
    assert info.preprocessing == f"{plain.preprocessing}, {APPENDED}"


def test_the_batch_changes_nothing_but_the_order_counts() -> None:
    backbone = make_backbone("resnet18", weights="random", layers="layer1", size=32)
    batch = images(7, 32)
    together = backbone.embed(batch, None)
    alone = [backbone.embed([image], None) for image in batch]
    close(np.concatenate(alone), together)
    close(backbone.embed(batch[::-1], None)[::-1], together)
    assert np.abs(np.diff(together, axis=0)).max() > 1e-3


def test_images_of_other_sizes_are_prepared_and_none_at_all_is_fine() -> None:
    backbone = small(layers=("conv",))
    large = images(2, 51)
    prepared = [backbone.prepare(image, None) for image in large]
    np.testing.assert_array_equal(backbone.embed(large, None), backbone.embed(prepared, None))
    assert backbone.embed([], None).shape == (0, 18)


def test_the_network_stays_in_evaluation_mode_without_gradients() -> None:
    module = Small().train()
    backbone = module_backbone("small", module, NetworkOptions(), SMALL, id="s", weights="w")
    before = module.norm.running_mean
    assert before is not None
    kept = before.clone()
    backbone.embed(images(3), None)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(before, kept)


def test_the_built_in_resnet18_fits_the_protocol() -> None:
    backbone = make_backbone("resnet18", weights="random", size=32)
    assert isinstance(backbone, Backbone)
    assert (backbone.name, backbone.needs_images, backbone.needs_landmarks, backbone.in_worker) == (
        "resnet18",
        True,
        False,
        False,
    )
    info = backbone.info()
    assert (info.id, info.layers, len(info.weights)) == ("resnet18", (), 64)
    assert {"torch", "pillow", "numpy"} <= set(info.versions)
    module = seeded(resnet18).eval()
    with torch.no_grad():
        expected = module(normalised(images(2, 32)))
    np.testing.assert_allclose(backbone.embed(images(2, 32), None), expected.numpy(), atol=1e-5)


def test_a_renamed_weights_file_keeps_the_fingerprint_and_other_weights_change_it(tmp_path: Path) -> None:
    state = resnet18().state_dict()
    torch.save(state, tmp_path / "a.pt")
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")

    def fingerprint(name: str) -> str:
        return make_backbone("resnet18", weights=str(tmp_path / name), size=32).info().fingerprint

    assert fingerprint("a.pt") == fingerprint("b.pt")
    state["conv1.weight"] += 1e-3
    torch.save(state, tmp_path / "a.pt")
    assert fingerprint("a.pt") != fingerprint("b.pt")


def test_layers_and_inputs_change_the_fingerprint_and_the_device_does_not() -> None:
    def fingerprint(**options: Any) -> str:
        return str(small(**options).info().fingerprint)

    different = [{}, {"layers": ("conv",)}, {"size": 32}, {"crop": 0.9}, {"interpolation": "bicubic"}]
    assert len({fingerprint(**options) for options in different}) == len(different)
    assert fingerprint(device="cpu") == fingerprint()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "tpu"}, "device must be auto, cpu or cuda, got 'tpu'"),
        ({"layers": ("cov",)}, "small has no layer 'cov'; did you mean 'conv'"),
    ],
)
def test_options_that_do_not_fit_the_network_say_so(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        small(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what a machine without a GPU says")
def test_what_needs_a_gpu_says_so_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="torch finds no GPU here; use cpu"):
        small(device="cuda")
    with pytest.raises(ConfigError, match=r"mixed precision \(amp\) needs a GPU"):
        small(amp=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_and_cpu_agree_and_mixed_precision_is_another_extractor() -> None:
    batch = images(5)
    cpu, gpu = small(device="cpu", layers=("conv",)), small(device="cuda", layers=("conv",))
    np.testing.assert_allclose(gpu.embed(batch, None), cpu.embed(batch, None), atol=1e-5)
    assert gpu.info().fingerprint == cpu.info().fingerprint
    mixed = small(device="cuda", amp=True, layers=("conv",))
    output = mixed.embed(batch, None)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, cpu.embed(batch, None), atol=1e-2)
    assert mixed.info().fingerprint != cpu.info().fingerprint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda maps: maps, r"returned float32 \(2, 6, 11, 11\) for 2 images; it must return floats \(n, D\)"),
        (lambda maps: maps.flatten(2), r"returned float32 \(2, 6, 121\)"),
        (lambda maps: maps.mean(dim=(0, 2, 3)), r"returned float32 \(6,\)"),
        (lambda maps: maps.mean(dim=(2, 3))[:1], r"returned float32 \(1, 6\) for 2 images"),
        (lambda maps: maps.mean(dim=(2, 3)).argmax(dim=1, keepdim=True), r"returned int64 \(2, 1\)"),
        (lambda maps: (maps, maps), "returned a tuple"),
        (lambda maps: {"x": maps}, "returned a dict"),
        (lambda maps: None, "returned a NoneType"),
        (lambda maps: maps @ maps.new_zeros(3, 3), "can't embed images of 24x24 .*RuntimeError.*option size"),
    ],
)
def test_an_output_that_is_no_embedding_is_one_line(change: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        small(change)
    assert "\n" not in str(caught.value)


def test_a_map_of_one_position_and_a_tuple_of_one_are_embeddings() -> None:
    expected = small().embed(images(3), None)
    for change in (lambda maps: maps.mean(dim=(2, 3), keepdim=True), lambda maps: (maps.mean(dim=(2, 3)),)):
        np.testing.assert_array_equal(small(change).embed(images(3), None), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_fixed_batch_is_filled_up_and_cut(count: int) -> None:
    seen = []

    def run(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return batch.flatten(1).sum(dim=1, keepdim=True)

    batch = torch.arange(count * 3.0).reshape(count, 3, 1, 1)
    vectors = in_fixed_batches(run, batch, 3)
    assert set(seen) == {3}
    assert torch.equal(vectors, batch.flatten(1).sum(dim=1, keepdim=True))


class Twice(nn.Module):
    """A convolution, a layer that works in place on its output, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.unused = nn.Conv2d(3, 4, 3)
        self.tuple = Pair()

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.conv(images))
        x = self.relu(self.tuple(x)[0])
        out: Tensor = self.pool(x).flatten(1)
        return out


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x - 0.1, None


@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (3, 5, 2, 6), (3, 1, 2, 2), (2, 7, 7, 7)])
def test_statistics_of_a_map_are_numpys_over_its_positions(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 100
    statistics = channel_statistics(values)
    assert statistics is not None
    exact = values.numpy().astype(np.float64)
    np.testing.assert_allclose(statistics[0].numpy(), exact.mean(axis=(2, 3)), rtol=1e-6)
    np.testing.assert_allclose(statistics[1].numpy(), exact.std(axis=(2, 3)), rtol=1e-4)


def test_statistics_of_tokens_are_numpys_over_the_tokens() -> None:
    values = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0))
    statistics = channel_statistics(values)
    assert statistics is not None
    np.testing.assert_allclose(statistics[0].numpy(), values.numpy().mean(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(statistics[1].numpy(), values.numpy().std(axis=1), rtol=1e-5)


def test_channels_last_maps_of_swin_are_told_by_their_square() -> None:
    assert position_axes((2, 7, 7, 96)) == (1, 2)
    assert position_axes((2, 96, 7, 7)) == (2, 3)
    values = torch.randn(2, 7, 7, 96)
    statistics = channel_statistics(values)
    assert statistics is not None
    torch.testing.assert_close(statistics[0], values.mean(dim=(1, 2)))


def test_half_precision_is_summed_in_float32() -> None:
    values = torch.full((1, 1, 64, 64), 40.0, dtype=torch.float16)
    values[0, 0, 0, 0] = 60000
    statistics = channel_statistics(values)
    assert statistics is not None
    assert statistics[0].dtype == torch.float32
    np.testing.assert_allclose(statistics[0].item(), values.float().mean().item(), rtol=1e-6)
    assert torch.isfinite(statistics[1]).all()


def test_a_constant_map_has_no_deviation() -> None:
    statistics = channel_statistics(torch.full((2, 3, 4, 4), 0.1))
    assert statistics is not None
    assert (statistics[1] < 1e-7).all()


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 1, 1), (2, 1, 5), (2, 3, 4, 4, 4)])
def test_outputs_without_positions_have_no_statistics(shape: tuple[int, ...]) -> None:
    assert channel_statistics(torch.zeros(shape)) is None


def test_a_tap_sees_a_layer_before_later_layers_change_it_in_place() -> None:
    module = Twice().eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        with Taps("net", module, ["conv", "tuple"]).collect() as found:
            module(images)
        plain = module.conv(images)
    torch.testing.assert_close(found["conv"][0], plain.mean(dim=(2, 3)))
    torch.testing.assert_close(found["conv"][1], plain.std(dim=(2, 3), correction=0))
    torch.testing.assert_close(found["tuple"][0], plain.relu().mean(dim=(2, 3)) - 0.1)


def test_hooks_are_gone_afterwards_also_after_an_error() -> None:
    module = Twice().eval()
    taps = Taps("net", module, ["conv"])
    with taps.collect():
        module(torch.zeros(1, 3, 8, 8))
    with pytest.raises(RuntimeError), taps.collect():
        module(torch.zeros(1, 5, 8, 8))
    assert not module.conv._forward_hooks


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("cnv", r"net has no layer 'cnv'; did you mean 'conv'\? \(it has: conv, relu, pool"),
        ("", "has no layer ''"),
        ("relu", "'relu' is called more than once"),
        ("unused", "'unused' isn't called"),
        ("pool", r"'pool' has no positions .*\(1, 4, 1, 1\)"),
    ],
)
def test_a_layer_that_cannot_be_tapped_says_why(layer: str, says: str) -> None:
    module = Twice().eval()
    with pytest.raises(ConfigError, match=says), Taps("net", module, [layer]).collect():
        module(torch.zeros(1, 3, 8, 8))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_it_equals_resizing_the_shorter_side_and_cropping_the_centre() -> None:
    image = noise(40, 64)
    whole = Image.fromarray(image).resize((32, 20), Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[:, 6:26]
    np.testing.assert_array_equal(ResizeCrop(20)(image), expected)
    np.testing.assert_array_equal(ResizeCrop(20)(image.transpose(1, 0, 2)), expected.transpose(1, 0, 2))


def test_crop_leaves_the_border_out() -> None:
    image = noise(40, 40)
    assert (ResizeCrop(20, crop=0.5)(image) == image[10:30, 10:30]).all()
    image[:10] = image[30:] = 0
    changed = ResizeCrop(20, crop=0.5)(image)
    np.testing.assert_array_equal(changed, noise(40, 40)[10:30, 10:30])


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    image = noise(16, 16)
    assert ResizeCrop(16)(image) is image


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2), (300, 7)])
def test_any_size_becomes_a_square(shape: tuple[int, int]) -> None:
    out = ResizeCrop(8)(noise(*shape))
    assert out.shape == (8, 8, 3)
    assert out.dtype == np.uint8


def test_the_filters_are_pillows() -> None:
    image = noise(50, 50)
    for name, filter in (("bicubic", Image.Resampling.BICUBIC), ("lanczos", Image.Resampling.LANCZOS)):
        expected = np.asarray(Image.fromarray(image).resize((24, 24), filter))
        np.testing.assert_array_equal(ResizeCrop(24, interpolation=name)(image), expected)


def test_what_goes_to_the_workers_is_pickled_and_imports_no_torch() -> None:
    data = pickle.dumps(InputSpec(size=12).prepare())
    code = (
        "import pickle, sys, numpy as np\n"
        f"prepare = pickle.loads({data!r})\n"
        "print(prepare(np.zeros((30, 20, 3), np.uint8), None).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(12, 12, 3) False"


def test_everything_that_changes_pixels_is_in_the_description() -> None:
    base = InputSpec()
    others = [
        InputSpec(size=96),
        InputSpec(mean=(0.5, 0.5, 0.5)),
        InputSpec(std=(0.5, 0.5, 0.5)),
        InputSpec(crop=0.875),
        InputSpec(interpolation="bicubic"),
    ]
    lines = {spec.describe() for spec in (base, *others)}
    assert len(lines) == 6
    assert base.describe() == ("RGB, centre square, 224x224 bilinear, mean 0.485 0.456 0.406, std 0.229 0.224 0.225")
    assert "centre square of 0.875 of the shorter side" in InputSpec(crop=0.875).describe()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "size must be a positive whole number of pixels, got 0"),
        ({"size": True}, "net.size = True must be a number"),
        ({"size": 2.5}, "net.size = 2.5 must be a whole number"),
        ({"std": 0}, "std positive"),
        ({"mean": "nan"}, "net.mean = 'nan' must be finite"),
        ({"mean": "0.5,0.5"}, "mean must be one number or three"),
        ({"std": "a,b,c"}, "net.std = 'a' must be a number"),
        ({"crop": 0}, "crop is a fraction"),
        ({"crop": 1.5}, "crop is a fraction"),
        ({"crop": "all"}, "net.crop = 'all' must be a number"),
        ({"interpolation": "nearest"}, "must be one of bilinear, bicubic, lanczos"),
        ({"layers": 3}, "net.layers = 3 must be a list"),
        ({"layers": ("a", "a")}, "'a' is named twice"),
        ({"amp": "perhaps"}, "net.amp = 'perhaps' must be true or false"),
        ({"weights": [3]}, "must be text"),
        ({"sise": 3}, "did you mean 'size'"),
    ],
)
def test_options_that_do_not_fit_say_so(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        network_options("net", NetworkOptions, options).input_spec(InputSpec())


def test_options_come_as_the_command_line_gives_them() -> None:
    options = network_options("net", NetworkOptions, {"layers": " a, b.c ,", "mean": 0.5, "std": "1,2,3", "size": 64})
    assert options.layers == ("a", "b.c")
    spec = options.input_spec(InputSpec(crop=0.9))
    assert spec == InputSpec(64, (0.5, 0.5, 0.5), (1.0, 2.0, 3.0), 0.9)
    assert network_options("net", NetworkOptions, {"layers": "none"}).layers == ()
    assert network_options("net", NetworkOptions, {}).layers == ()
    assert network_options("net", NetworkOptions, {}).input_spec(InputSpec()).mean == IMAGENET_MEAN

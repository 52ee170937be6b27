"""The built-in network, and what every network shares."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featlab.errors import ConfigError
from featlab.extraction.backbones import Backbone, make_backbone
from featlab.extraction.backbones.base import APPENDED
from featlab.extraction.backbones.modules import module_backbone
from featlab.extraction.backbones.network import in_fixed_batches
from featlab.extraction.backbones.options import IMAGENET_MEAN, IMAGENET_STD, InputSpec, NetworkOptions
from featlab.extraction.backbones.resnet import resnet18
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

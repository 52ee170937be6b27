from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featlab.errors import ConfigError
from featlab.extraction.backbones.options import IMAGENET_MEAN, InputSpec, NetworkOptions, ResizeCrop, network_options


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
        ({"crop": 0}, "crop is a share"),
        ({"crop": 1.5}, "crop is a share"),
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

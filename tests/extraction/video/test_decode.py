import struct
import sys
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags, Image

from featlab.errors import ConfigError, InputError
from featlab.extraction import decode as module
from featlab.extraction.decode import decode_image, read_pixels
from featlab.extraction.items import Item
from featlab.extraction.video import expand_videos


def test_an_image_turned_by_exif_is_set_upright(tmp_path, pixels):
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels(1)).save(path, exif=exif)
    np.testing.assert_array_equal(decode_image(path), np.rot90(pixels(1), -1))
    Image.fromarray(pixels(1)).save(tmp_path / "damaged.jpg", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert decode_image(tmp_path / "damaged.jpg").shape == (24, 20, 3)


def test_every_common_mode_becomes_contiguous_rgb(tmp_path, pixels):
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"):
        image = Image.fromarray(pixels(2)).convert(mode)
        path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
        image.save(path)
        decoded = decode_image(path)
        assert (decoded.shape, decoded.dtype, decoded.flags.c_contiguous) == ((24, 20, 3), np.uint8, True)
        np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], dtype=np.uint8)
    palette = Image.new("P", (1, 1), 3)
    palette.putpalette([0, 0, 0, 0, 0, 0, 0, 0, 0, 250, 250, 250])
    red, blue = (Image.new("RGB", (1, 1), colour) for colour in ("red", "blue"))
    for name, image, options, expected in (
        ("rgba.png", Image.fromarray(rgba), {}, [[[200, 100, 50], [0, 0, 0]]]),
        ("palette.png", palette, {"transparency": 3}, [[[0, 0, 0]]]),
        ("animated.gif", red, {"save_all": True, "append_images": [blue]}, [[[255, 0, 0]]]),
    ):
        image.save(tmp_path / name, **options)
        np.testing.assert_array_equal(decode_image(tmp_path / name), expected)


def test_grey_of_any_depth_is_scaled_by_the_smallest_usual_full_scale_that_holds_it(tmp_path):
    steps = np.linspace(0, 1, 16).reshape(4, 4)
    for kind, low, high, darkest, brightest in (
        *(("<u2", 0, 200, 0, 200), ("<u2", 0, 255, 0, 255), ("<u2", 0, 1023, 0, 255), ("<u2", 0, 4095, 0, 255)),
        *(("<u2", 0, 600, 0, 150), ("<i4", 0, 255, 0, 255), ("<i4", 0, 65535, 0, 255), ("<i4", 0, 2**31 - 1, 0, 255)),
        *(("<i4", -32768, 32767, 0, 255), ("<i4", -3, 255, 0, 255), ("<f4", 0, 1, 0, 255), ("<f4", -1, 1, 0, 255)),
        *(("<f4", -0.02, 1.02, 0, 255), ("<f4", 0, 255, 0, 255), ("<f4", 0, 65535, 0, 255)),
    ):
        grey = (low + steps * (high - low)).astype(kind)
        Image.fromarray(grey).save(tmp_path / "a.tif")
        decoded = decode_image(tmp_path / "a.tif")[..., 0].ravel()
        assert (decoded[0], decoded[-1]) == (darkest, brightest), (kind, low, high)
        assert (np.diff(decoded.astype(int)) >= 0).all()
    # Whole numbers of 32 bits without a sign, which Pillow takes for some with one.
    Image.fromarray(np.array([[0, -1]], dtype="<i4")).save(tmp_path / "a.tif")
    signed, unsigned = (struct.pack("<HHIH", 339, 3, 1, kind) for kind in (2, 1))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes().replace(signed, unsigned))
    assert decode_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 255]


def test_colours_of_16_bits_that_use_few_of_them_are_refused_and_not_black(tmp_path, refused):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    for brightest, read in ((255, False), (4095, False), (65535, True)):
        pixels = np.array([0] * 3 + [brightest] * 3, dtype=">u2").tobytes()
        content = header + chunk(b"IDAT", zlib.compress(b"\0" + pixels)) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
        if read:
            assert decode_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 255]
        else:
            with refused(InputError, "16 bits and use few of them"):
                decode_image(tmp_path / "a.png")


def test_heic_is_read_through_its_extra_which_is_named_where_it_is_missing(tmp_path, pixels, monkeypatch, refused):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\0\0\0\x1cftypheic" + bytes(30))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with refused(InputError, "pip install 'featlab[heic]'"):
        decode_image(path)
    opener = lambda: path.write_bytes(b"") or Image.fromarray(pixels(1)).save(path, "PNG")  # noqa: E731
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=opener))
    np.testing.assert_array_equal(decode_image(path), pixels(1))


def test_what_is_no_image_is_refused_without_a_path(tmp_path, pixels, monkeypatch, refused):
    path = tmp_path / "a.tif"
    for content, says in (
        (None, "No such file"),
        (b"", "the file is empty"),
        (b"not an image", "not an image that Pillow can read"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, ""),
        (b"\xff\xd8\xff\xe0" + b"\0" * 30, ""),
        (np.full((3, 3), 3, dtype=np.float32), "from 3 to 3 have no known range"),
        (np.full((3, 3), np.nan, dtype=np.float32), "NaN or infinite"),
    ):
        if isinstance(content, np.ndarray):
            Image.fromarray(content).save(path)
        elif content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            decode_image(path)
        assert says in str(caught.value)
        assert not any(word in str(caught.value) for word in (str(tmp_path), "\n"))
    with refused(InputError, "a folder, not an image"):
        decode_image(tmp_path)
    Image.fromarray(pixels(1)).save(path)
    for limit in (300, 100):  # of 480 pixels: above Pillow's warning, above its error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with refused(InputError, f"more than {limit} pixels"):
            decode_image(path)


def test_a_file_cut_anywhere_is_an_input_error_or_an_image(tmp_path, pixels):
    for suffix in ("png", "jpeg", "tiff", "gif", "bmp", "webp"):
        path, refused = tmp_path / f"a.{suffix}", 0
        Image.fromarray(pixels(3)).save(path)
        content = path.read_bytes()
        for cut in range(1, len(content), max(1, len(content) // 60)):
            path.write_bytes(content[:cut])
            try:
                assert decode_image(path).shape == (24, 20, 3)
            except InputError:
                refused += 1
        assert refused > 30


def item(path, **more):
    return replace(Item(path, path.name, "s", "n", "v", 0, 0), **more)


def test_what_is_read_comes_in_the_order_of_the_items(tmp_path, make_image, make_video, read_number, monkeypatch):
    image = make_image(tmp_path / "i.png", 3)
    a, b = (expand_videos([item(make_video(tmp_path / name, range(9)))]).items for name in ("a.mp4", "b.mkv"))
    mixed = [a[2], a[5], item(image), b[1], b[0], b[8], a[8], item(tmp_path / "x.png"), a[0], a[0]]
    results = list(read_pixels(mixed))
    np.testing.assert_array_equal(results[2], decode_image(image))
    assert isinstance(results[7], InputError)
    assert str(results[7]) == "No such file or directory"
    numbers = [read_number(result) for place, result in enumerate(results) if place not in (2, 7)]
    assert numbers == [2, 5, 1, 0, 8, 8, 0, 0]
    # Consecutive frames of a video are one pass.
    passes = []
    original = module.decode_frames
    monkeypatch.setattr(module, "decode_frames", lambda path, stamps: passes.append(stamps) or original(path, stamps))
    assert len(list(read_pixels([*a[1:8:2], a[0]]))) == 5
    assert passes == [[512, 1536, 2560, 3584], [0]]


def test_a_line_of_a_csv_is_read_at_its_byte_and_what_is_no_image_is_refused(tmp_path, monkeypatch, refused):
    path = tmp_path / "A.CSV"
    path.write_text("pixels\n" + "12 " * 48 * 48)
    good, *bad = read_pixels([item(path, at=7), item(path, at=0), item(tmp_path / "a.mp4"), item(tmp_path / "a.csv")])
    np.testing.assert_array_equal(good, np.full((48, 48, 3), 12))
    assert [str(result) for result in bad] == [
        "1 pixels, expected 48 x 48 = 2304",
        "a whole video, not one frame of it; expand_videos turns it into frames",
        "a whole csv, not one image of it",
    ]
    monkeypatch.setitem(sys.modules, "av", None)
    with refused(ConfigError, "pip install 'featlab[video]'"):
        list(read_pixels([item(tmp_path / "a.mp4", at=0)]))


def test_a_box_cuts_the_image_and_is_cut_at_its_edge(tmp_path, make_image):
    path = make_image(tmp_path / "i.png", 3)
    whole = decode_image(path)  # 24 high, 20 wide
    boxes = ((2, 3, 12, 9), (-5, 20, 4, 90), (20, 0, 30, 9), (5, 5, 5, 9))
    inside, over, outside, empty = read_pixels([item(path, box=box) for box in boxes])
    np.testing.assert_array_equal(inside, whole[3:9, 2:12])
    np.testing.assert_array_equal(over, whole[20:24, 0:4])
    assert str(outside) == "the box 20,0,30,9 has nothing of the image, 20x24"
    assert isinstance(empty, InputError)

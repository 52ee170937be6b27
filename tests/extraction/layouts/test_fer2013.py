import numpy as np
import pytest

from featlab.errors import InputError
from featlab.extraction.decode import decode_csv_pixels
from featlab.extraction.layouts import detect_layout, read_layout


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)


def pixels(seed):
    return " ".join(map(str, picture(seed).ravel().tolist()))


ROWS = ((6, 0, "Training"), (0, 1, "Training"), (6, 2, "PublicTest"), (3, 3, "PrivateTest"), (6, 4, "Training"))


def write(put, name="fer2013.csv", end="\n"):
    lines = ["emotion,pixels,Usage", *(f"{code},{pixels(seed)},{usage}" for code, seed, usage in ROWS)]
    return put(name, text=end.join(lines) + end)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_line_comes_back_with_its_class_split_and_pixels(put, end):
    root = write(put, end=end)
    items = read_layout("fer2013", root)
    assert sorted((item.name, item.subject, item.label, item.video, item.frame) for item in items) == [
        ("fer2013.csv#row=0", "fer2013-Training", "neutral", "Training/neutral", 0),
        ("fer2013.csv#row=1", "fer2013-Training", "anger", "Training/anger", 0),
        ("fer2013.csv#row=2", "fer2013-PublicTest", "neutral", "PublicTest/neutral", 0),
        ("fer2013.csv#row=3", "fer2013-PrivateTest", "happiness", "PrivateTest/happiness", 0),
        ("fer2013.csv#row=4", "fer2013-Training", "neutral", "Training/neutral", 1),
    ]
    for item in items:
        row = int(item.name.rpartition("=")[2])
        assert item.at is not None
        image = decode_csv_pixels(item.path, item.at)
        assert image.shape == (48, 48, 3)
        assert image.dtype == np.uint8
        for channel in range(3):
            np.testing.assert_array_equal(image[:, :, channel], picture(row))
    assert [item.row for item in items] == list(range(5))
    assert detect_layout(root) == "fer2013"


def test_the_data_set_can_be_one_subject(put):
    items = read_layout("fer2013", write(put), group="dataset")
    assert {item.subject for item in items} == {"fer2013"}
    assert {item.video for item in items} >= {"Training/neutral", "PublicTest/neutral"}


def test_other_headers_quotes_byte_order_marks_and_single_files_are_understood(put):
    root = put("a/icml_face_data.csv", text=f'emotion, Usage, pixels\n"6",Training,"{pixels(9)}"\n') / "a"
    (item,) = read_layout("fer2013", root)
    assert (item.label, item.video) == ("neutral", "Training/neutral")
    np.testing.assert_array_equal(decode_csv_pixels(item.path, item.at)[:, :, 1], picture(9))
    # Two files without usage are two splits, and one without classes is unknown.
    put("b/train.csv", text=f"emotion,pixels\n6,{pixels(0)}\n")
    root = put("b/test.csv", text=f"pixels\n{pixels(1)}\n") / "b"
    assert [(item.subject, item.label, item.video) for item in read_layout("fer2013", root)] == [
        ("fer2013-test", None, "test/unknown"),
        ("fer2013-train", "neutral", "train/neutral"),
    ]
    # The whole is read before its parts, a file by itself.
    put("b/fer2013/fer2013.csv", text=f"\ufeffemotion,pixels,Usage\n6,{pixels(0)},Training\n\n")
    for place, name in ((root, "fer2013/fer2013.csv#row=0"), (root / "fer2013" / "fer2013.csv", "fer2013.csv#row=0")):
        assert [item.name for item in read_layout("fer2013", place)] == [name]


def test_a_csv_that_does_not_fit_is_refused(put, refused):
    head = "emotion,pixels,Usage\n"
    for text, says in (
        ("", "line 1: no column 'pixels'"),
        ("emotion,pixel,Usage\n", "no column 'pixels' (found: emotion, pixel, usage); did you mean 'pixel'"),
        (head, "has a header and no rows"),
        (head + "6,1 2\n", "line 2: 2 values under 3 columns"),
        (head + "6,1 2,Training\n7,1 2,Training\n", "line 3: the emotion '7' isn't a whole number"),
        (head + "x,1 2,Training\n", "line 2: the emotion 'x'"),
        (head + "6,1 2,\n", "line 2: the Usage ''"),
    ):
        assert says in refused("fer2013", put("fer2013.csv", text=text))


def test_pixels_that_do_not_fit_say_why_without_the_path(tmp_path):
    path, most = tmp_path / "fer2013.csv", " ".join(["1"] * (48 * 48 - 1))
    for line, says in {
        f"6,{most},Training": "2303 pixels, expected 48 x 48 = 2304",
        "6,,Training": "1 pixels",
        f"6,{most} x,Training": "a pixel is 'x'",
        f"6,{most} -1,Training": "a pixel is '-1'",
        f"6,{most} 256,Training": "a pixel is 256",
        f"6,{most} 1000000,Training": "a pixel is '1000000'",
        "": "the line is empty",
    }.items():
        path.write_text(f"header\n{line}\n")
        with pytest.raises(InputError) as caught:
            decode_csv_pixels(path, len("header\n"))
        assert says in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InputError, match="the file ends before it"):
        decode_csv_pixels(path, 100)
    with pytest.raises(InputError, match=r"^no such file$"):
        decode_csv_pixels(tmp_path / "gone.csv", 0)

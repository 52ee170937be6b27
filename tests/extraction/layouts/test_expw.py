import numpy as np
import pytest
from PIL import Image

from featlab.cache import ExtractorInfo
from featlab.errors import ConfigError, InputError
from featlab.extraction.decode import read_pixels
from featlab.extraction.layouts import detect_layout, read_layout
from featlab.extraction.shards import _key

LIST = (
    "grave_asian_43.jpg 0 44 189 358 213 66.75 6\n"
    "grave_asian_43.jpg 1 10 20 40 60 12.5 3\n"
    "afraid_asian_1.jpg 0 1 2 30 40 90 6\n"
)


def tree(put, label="label/label.lst", image="image/origin", text=LIST):
    put(f"{image}/grave_asian_43.jpg", f"{image}/afraid_asian_1.jpg")
    return put(label, text=text)


@pytest.mark.parametrize("image", ["image/origin", "image", "origin"])
def test_every_face_is_an_image_with_its_box(put, image):
    root = tree(put, "label.lst" if image == "image" else "label/label.lst", image)
    items = read_layout("expw", root)
    # label.lst writes top, left, right, bottom; a box is left, top, right, bottom.
    assert [(item.name, item.label, item.video, item.frame, item.box) for item in items] == [
        (f"{image}/grave_asian_43.jpg#face=1", "happiness", "happiness", 0, (20, 10, 40, 60)),
        (f"{image}/afraid_asian_1.jpg#face=0", "neutral", "neutral", 0, (2, 1, 30, 40)),
        (f"{image}/grave_asian_43.jpg#face=0", "neutral", "neutral", 1, (189, 44, 358, 213)),
    ]
    assert all(item.path.is_file() and item.subject == "expw" for item in items)
    assert detect_layout(root) == "expw"


def test_the_pixels_of_a_face_are_those_in_its_box(put, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    (tmp_path / "image").mkdir()
    Image.fromarray(photo).save(tmp_path / "image" / "a.png")
    root = put("label.lst", text="a.png 0 10 20 50 40 90 6\na.png 1 5 70 95 25 90 6\na.png 2 100 100 110 110 90 6\n")
    inside, over, beside = read_pixels(read_layout("expw", root))
    np.testing.assert_array_equal(inside, photo[10:40, 20:50])
    np.testing.assert_array_equal(over, photo[5:25, 70:80])
    assert isinstance(beside, InputError)


def test_margin_and_confidence(put):
    root = tree(put)
    wide = read_layout("expw", root, margin=0.25)
    boxes = {item.name: item.box for item in wide}
    assert boxes["image/origin/grave_asian_43.jpg#face=1"] == (15, -2, 45, 72)
    toy = ExtractorInfo("toy", "none", "x")
    keys = {_key(items, None, toy, "float32", False) for items in (read_layout("expw", root), wide)}
    assert len(keys) == 2, "the box is part of a shard's key"
    assert len(read_layout("expw", root, confidence=60)) == 2
    with pytest.raises(ConfigError, match=r"expw.confidence = 99 leaves none of the 3 faces"):
        read_layout("expw", root, confidence=99)


def test_a_line_that_does_not_fit_is_refused(put, refused):
    for line, says in {
        "a.jpg 0 1 2 3 4 50": "line 1: 7 values, expected 8",
        "a.jpg 0 1 2 x 4 50 6": "line 1: a value isn't a number",
        "a.jpg 0 1 2 nan 4 50 6": "line 1: a value isn't a number",
        "a.jpg 0 1 2 30 40 50 7": "line 1: the label 7 isn't a whole number from 0 to 6",
        "a.jpg 0 10 20 20 40 50 6": "line 1: the box is empty",
        "": "is empty",
    }.items():
        assert says in refused("expw", tree(put, text=line + "\n"))


def test_other_trees_are_refused_and_a_missing_image_stays_to_fail_later(put, refused):
    root = put("image/origin/a.jpg")
    assert "expected label/label.lst" in refused("expw", root)
    put("label/label.lst", text=LIST)
    assert "none of the 2 files that label/label.lst lists is there" in refused("expw", root)
    put("image/origin/grave_asian_43.jpg")
    assert [item.path.exists() for item in read_layout("expw", root)] == [True, False, True]

import numpy as np
import pytest

from featlab import ExtractorInfo
from featlab.errors import ConfigError, InputError
from featlab.extraction.decode import decode_csv_pixels
from featlab.extraction.layouts import detect_layout, read_layout
from featlab.extraction.shards import plan_shards


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)


def pixels(seed):
    return " ".join(map(str, picture(seed).ravel().tolist()))


ROWS = ((6, "Training"), (0, "Training"), (6, "PublicTest"), (3, "PrivateTest"), (6, "Training"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_line_of_fer2013_comes_back_with_its_class_split_and_pixels(put, facts, end):
    lines = ["emotion,pixels,Usage", *(f"{code},{pixels(seed)},{usage}" for seed, (code, usage) in enumerate(ROWS))]
    root = put("fer2013.csv", text=end.join(lines) + end)
    labels = ("neutral", "anger", "neutral", "happiness", "neutral")
    assert sorted(facts("fer2013", root, "name subject label video frame")) == [
        (f"fer2013.csv#row={row}", f"fer2013-{usage}", labels[row], f"{usage}/{labels[row]}", int(row == 4))
        for row, (_, usage) in enumerate(ROWS)
    ]
    for item in read_layout("fer2013", root):
        grey = picture(int(item.name.rpartition("=")[2]))
        image = decode_csv_pixels(item.path, item.at)
        np.testing.assert_array_equal(image, np.stack([grey] * 3, axis=-1), strict=True)
    assert detect_layout(root) == "fer2013"
    assert set(facts("fer2013", root, "subject", group="dataset")) == {"fer2013"}


def test_other_headers_quotes_byte_order_marks_and_single_files_are_understood(put, facts):
    root = put("a/icml_face_data.csv", text=f'emotion, Usage, pixels\n"6",Training,"{pixels(9)}"\n') / "a"
    (item,) = read_layout("fer2013", root)
    assert (item.label, item.video) == ("neutral", "Training/neutral")
    np.testing.assert_array_equal(decode_csv_pixels(item.path, item.at)[:, :, 1], picture(9))
    # Two files without usage are two splits, and one without classes is unknown.
    put("b/train.csv", text=f"emotion,pixels\n6,{pixels(0)}\n")
    root = put("b/test.csv", text=f"pixels\n{pixels(1)}\n") / "b"
    assert facts("fer2013", root, "subject label video") == [
        ("fer2013-test", None, "test/unknown"),
        ("fer2013-train", "neutral", "train/neutral"),
    ]
    # The whole is read before its parts, a file by itself.
    put("b/fer2013/fer2013.csv", text=f"\ufeffemotion,pixels,Usage\n6,{pixels(0)},Training\n\n")
    for place, name in ((root, "fer2013/fer2013.csv#row=0"), (root / "fer2013" / "fer2013.csv", "fer2013.csv#row=0")):
        assert facts("fer2013", place, "name") == [name]


def test_pixels_that_do_not_fit_say_why_without_the_path(tmp_path):
    path, most = tmp_path / "fer2013.csv", " ".join(["1"] * (48 * 48 - 1))
    for line, offset, says in (
        (f"6,{most},Training", 7, "2303 pixels, expected 48 x 48 = 2304"),
        ("6,,Training", 7, "1 pixels"),
        (f"6,{most} x,Training", 7, "a pixel is 'x'"),
        (f"6,{most} -1,Training", 7, "a pixel is '-1'"),
        (f"6,{most} 256,Training", 7, "a pixel is '256'"),
        (f"6,{most} 1000000,Training", 7, "a pixel is '1000000'"),
        ("", 7, "the line is empty"),
        ("", 100, "the file ends before it"),
    ):
        path.write_text(f"header\n{line}\n")
        with pytest.raises(InputError, match=says) as caught:
            decode_csv_pixels(path, offset)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InputError, match=r"^No such file or directory$"):
        decode_csv_pixels(tmp_path / "gone.csv", 0)


GRAVE, AFRAID = "grave_asian_43.jpg", "afraid_asian_1.jpg"
LIST = f"{GRAVE} 0 44 189 358 213 66.75 6\n{GRAVE} 1 10 20 40 60 12.5 3\n{AFRAID} 0 1 2 30 40 90 6\n"


@pytest.mark.parametrize("image", ["image/origin", "image", "origin"])
def test_every_face_of_expw_is_an_image_with_its_box(put, facts, image):
    put(f"{image}/{GRAVE}")
    root = put("label.lst" if image == "image" else "label/label.lst", text=LIST)
    # A missing image stays to fail later.
    assert [path.exists() for path in facts("expw", root, "path")] == [True, False, True]
    put(f"{image}/{AFRAID}")
    # label.lst writes top, left, right, bottom; a box is left, top, right, bottom.
    assert facts("expw", root, "name subject label video frame box") == [
        (f"{image}/{GRAVE}#face=1", "expw", "happiness", "happiness", 0, (20, 10, 40, 60)),
        (f"{image}/{AFRAID}#face=0", "expw", "neutral", "neutral", 0, (2, 1, 30, 40)),
        (f"{image}/{GRAVE}#face=0", "expw", "neutral", "neutral", 1, (189, 44, 358, 213)),
    ]
    assert detect_layout(root) == "expw"
    wide = read_layout("expw", root, margin=0.25)
    assert wide[0].box == (15, -2, 45, 72)
    how = {"dtype": "float32", "shard_rows": 9, "with_files": False}
    toy = ExtractorInfo("toy", "none", "x")
    keys = {plan_shards(items, None, None, toy, **how)[0].key for items in (read_layout("expw", root), wide)}
    assert len(keys) == 2, "the box is part of a shard's key"
    assert len(read_layout("expw", root, confidence=60)) == 2
    with pytest.raises(ConfigError, match=r"expw.confidence = 99 leaves none of the 3 faces"):
        read_layout("expw", root, confidence=99)


@pytest.mark.parametrize(("label", "image"), [("EmoLabel/", "Image/"), ("basic/EmoLabel/", "basic/Image/"), ("", "")])
def test_the_list_of_raf_db_says_split_and_class(put, facts, refuses, label, image):
    put(*(f"{image}aligned/{name}_aligned.jpg" for name in ("train_00001", "train_00002", "train_00010", "test_0001")))
    text = "train_00001.jpg 5\ntrain_00010.jpg 7\ntrain_00002.jpg 7\ntest_0001.jpg 4\n"
    root = put(f"{label}list_patition_label.txt", text=text)
    assert facts("raf-db", root, "name subject label video frame row") == [
        (f"{image}aligned/test_0001_aligned.jpg", "raf-db-test", "happiness", "test/happiness", 0, 0),
        (f"{image}aligned/train_00002_aligned.jpg", "raf-db-train", "neutral", "train/neutral", 0, 1),
        (f"{image}aligned/train_00010_aligned.jpg", "raf-db-train", "neutral", "train/neutral", 1, 2),
        (f"{image}aligned/train_00001_aligned.jpg", "raf-db-train", "sadness", "train/sadness", 0, 3),
    ]
    assert detect_layout(root) == "raf-db"
    assert set(facts("raf-db", root, "subject", group="dataset")) == {"raf-db"}
    refuses("raf-db", put("list_patition_label.txt", text=text, root=root / "other"), "expected Image/aligned/ with")


@pytest.mark.parametrize(("base", "test"), [("", "test"), ("DATASET/", "val_set")])
def test_numbered_folders_stand_for_the_list_of_raf_db(put, facts, base, test):
    root = put(*(f"{base}train/{code}/a{code}.jpg" for code in range(1, 8)), f"{base}{test}/7/b.jpg")
    labels = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
    faces = [("raf-db-train", label, f"{base}train/{code}/a{code}.jpg") for code, label in enumerate(labels, 1)]
    assert set(facts("raf-db", root, "subject label name")) == {
        ("raf-db-test", "neutral", f"{base}{test}/7/b.jpg"),
        *faces,
    }
    assert detect_layout(root) == "raf-db"

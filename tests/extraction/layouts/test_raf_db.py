import pytest

from featlab.extraction.layouts import detect_layout, read_layout

LIST = "train_00001.jpg 5\ntrain_00002.jpg 7\ntrain_00010.jpg 7\ntest_0001.jpg 4\n"
ALIGNED = ("train_00001", "train_00002", "train_00010", "test_0001")


def tree(put, label, image, text=LIST):
    put(*(f"{image}/{name}_aligned.jpg" for name in ALIGNED))
    return put(label, text=text)


@pytest.mark.parametrize("base", ["", "basic/", None])
def test_the_list_says_split_and_class(put, base):
    label, image = ("list_patition_label.txt", "aligned")
    if base is not None:
        label, image = f"{base}EmoLabel/{label}", f"{base}Image/{image}"
    root = tree(put, label, image)
    items = read_layout("raf-db", root)
    assert [(item.name, item.subject, item.label, item.video, item.frame, item.row) for item in items] == [
        (f"{image}/test_0001_aligned.jpg", "raf-db-test", "happiness", "test/happiness", 0, 0),
        (f"{image}/train_00002_aligned.jpg", "raf-db-train", "neutral", "train/neutral", 0, 1),
        (f"{image}/train_00010_aligned.jpg", "raf-db-train", "neutral", "train/neutral", 1, 2),
        (f"{image}/train_00001_aligned.jpg", "raf-db-train", "sadness", "train/sadness", 0, 3),
    ]
    assert all(item.path.is_file() for item in items)
    assert detect_layout(root) == "raf-db"


def test_original_photographs_and_one_subject_are_there_on_request(put, refused):
    root = tree(put, "EmoLabel/list_patition_label.txt", "Image/aligned")
    assert "expected Image/original/ (or original/)" in refused("raf-db", root, images="original")
    put("Image/original/train_00001.jpg")
    items = read_layout("raf-db", root, images="original", group="dataset")
    assert {item.subject for item in items} == {"raf-db"}
    assert [item.path.exists() for item in items] == [False, False, False, True]


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("DATASET/train", "DATASET/test")])
def test_folders_by_number_are_read_as_well(put, train, test):
    for code in range(1, 8):
        root = put(f"{train}/{code}/train_{code:05}_aligned.jpg", f"{test}/{code}/test_{code:04}_aligned.jpg")
    items = read_layout("raf-db", root)
    assert len(items) == 14
    labels = {item.path.parent.name: item.label for item in items if item.subject == "raf-db-test"}
    names = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    assert labels == {str(code): name for code, name in enumerate(names, 1)}
    assert detect_layout(root) == "raf-db"


def test_a_list_that_does_not_fit_is_refused(put, refused):
    for text, says in {
        "train_00001.jpg 8\n": "line 1: expected an image and a number from 1 to 7",
        "train_00001.jpg 0\n": "line 1: expected an image and a number from 1 to 7",
        "train_00001.jpg\n": "line 1: expected an image and a number",
        "x_1.jpg 7\n": "line 1: the image 'x_1.jpg' begins neither with train_ nor with test_",
        "\n": "is empty",
        "train_9.jpg 7\n": "none of the 1 files that list_patition_label.txt lists is there",
    }.items():
        assert says in refused("raf-db", tree(put, "EmoLabel/list_patition_label.txt", "Image/aligned", text))

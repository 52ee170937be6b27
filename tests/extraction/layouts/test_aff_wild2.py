import pytest

from featlab.extraction.layouts import detect_layout, read_layout

HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
TRAIN = "6th ABAW Annotations/EXPR_Recognition_Challenge/Train_Set"
VALIDATION = "6th ABAW Annotations/EXPR_Recognition_Challenge/Validation_Set"


def annotate(put, video, *labels, place=TRAIN):
    return put(f"{place}/{video}.txt", text="\n".join([HEADER, *map(str, labels)]) + "\n")


def pictures(put, video, *numbers, place="cropped_aligned"):
    return put(*(f"{place}/{video}/{number:05}.jpg" for number in numbers))


def facts(root, **options):
    return [(item.subject, item.frame, item.label) for item in read_layout("aff-wild2", root, **options)]


@pytest.mark.parametrize("place", ["cropped_aligned", "batch1/cropped_aligned", "cropped_aligned_new_50_vids"])
def test_line_and_image_meet_by_number_and_minus_one_is_dropped(put, place):
    annotate(put, "video5", 0, -1, 4, 7, 6)
    root = pictures(put, "video5", 1, 2, 3, 5, place=place)
    items = read_layout("aff-wild2", root)
    assert facts(root) == [("video5", 0, "neutral"), ("video5", 2, "happiness"), ("video5", 4, "surprise")]
    assert [(item.row, item.path.name) for item in items] == [(0, "00001.jpg"), (1, "00003.jpg"), (2, "00005.jpg")]
    assert all(item.path == root / item.name and item.video == "video5" and item.at is None for item in items)
    assert detect_layout(root) == "aff-wild2"
    # Lines without an image, and images without a line, are left out.
    pictures(put, "video5", 6, place=place)
    annotate(put, "video6", 0, 1, 2)
    pictures(put, "video6", 1, 2, place=place)
    assert facts(root)[3:] == [("video6", 0, "neutral"), ("video6", 1, "anger")]


@pytest.mark.parametrize("folder", ["EXPR_Classification_Challenge", "annotations/EX", "a/b/expr_challenge"])
def test_annotations_are_found_by_what_is_in_them(put, folder):
    put("VA_Estimation_Challenge/Train_Set/video5.txt", text="valence,arousal\n0.1,0.2\n")
    names = ("6-30-1920x1080_left", "6-30-1920x1080_right", "video6")  # two people in one video are two subjects
    for code, (name, part) in enumerate(zip(names, ("Train_Set", "Train_Set", "Validation_Set"), strict=True)):
        annotate(put, name, code, place=f"{folder}/{part}")
        root = pictures(put, name, 1)
    assert facts(root) == [(names[0], 0, "neutral"), (names[1], 0, "anger"), (names[2], 0, "disgust")]


def test_split_every_and_drop_choose(put):
    annotate(put, "video5", 0, 1, 7, 3)
    annotate(put, "video6", 2, place=VALIDATION)
    pictures(put, "video6", 1)
    root = pictures(put, "video5", 1, 2, 3, 4)
    assert facts(root, split="validation") == [("video6", 0, "disgust")]
    assert facts(root, split="train", every=2) == [("video5", 0, "neutral"), ("video5", 2, "other")]
    assert facts(root, split="train", drop="other,anger") == [("video5", 0, "neutral"), ("video5", 3, "fear")]


def test_a_video_stands_in_for_images_with_one_item_a_labelled_frame(put):
    annotate(put, "video5", 0, -1, 4)
    root = put("batch1/video5.mp4")
    items = read_layout("aff-wild2", root)
    assert [(item.name, item.frame, item.label, item.at) for item in items] == [
        ("batch1/video5.mp4", 0, "neutral", None),
        ("batch1/video5.mp4", 2, "happiness", None),
    ]


def test_images_are_taken_before_the_video_and_aligned_ones_before_others(put):
    annotate(put, "video5", 0)
    put("batch1/video5.mp4")
    pictures(put, "video5", 1, place="cropped")
    root = pictures(put, "video5", 1, place="cropped_aligned")
    assert [item.name for item in read_layout("aff-wild2", root)] == ["cropped_aligned/video5/00001.jpg"]
    assert [item.name for item in read_layout("aff-wild2", root, media="cropped")] == ["cropped/video5/00001.jpg"]
    assert [item.name for item in read_layout("aff-wild2", root, media="batch1")] == ["batch1/video5.mp4"]


def test_a_video_that_is_not_there_stays_to_fail_later(put, refused):
    annotate(put, "video5", 0)
    annotate(put, "video6", 1, 1)
    root = put()
    assert "neither images (cropped_aligned/VIDEO/00001.jpg) nor a video of any of the 2" in refused("aff-wild2", root)
    pictures(put, "video5", 1)
    items = read_layout("aff-wild2", root)
    assert [(item.subject, item.path.exists(), item.label) for item in items] == [
        ("video5", True, "neutral"),
        ("video6", False, None),
    ]


def test_an_annotation_that_does_not_fit_is_refused(put, refused):
    pictures(put, "video5", 1, 2, 3, 4, 5)
    for text, *says in (
        ("0\n1\n", "line 1: expected the names of the classes (Neutral,Anger,…), found '0'"),
        ("valence,arousal\n0.1,0.2\n", "found 'valence,arousal'"),
        (f"{HEADER}\n0\nx\n", "line 3: expected a whole number from -1 to 7, found 'x'"),
        (f"{HEADER}\n8\n", "line 2: expected a whole number from -1 to 7, found '8'"),
        (f"{HEADER}\n0\n\n1\n", "line 3: expected a whole number"),
        ("", "line 1: expected the names"),
        (f"{HEADER}\n0\n1\n", "has 2 lines, and", "has 5 numbered images up to 5; they don't belong together"),
    ):
        told = refused("aff-wild2", put(f"{TRAIN}/video5.txt", text=text))
        assert all(words in told for words in says)


def test_trees_that_leave_a_doubt_are_refused(put, refused):
    root = put("videos/video5.mp4")
    assert "expected EXPR_…_Challenge/Train_Set/VIDEO.txt" in refused("aff-wild2", root)
    assert "found videos/" in refused("aff-wild2", root)
    annotate(put, "video5", 0)
    assert "there is no such folder" in refused("aff-wild2", root, media="frames")
    annotate(put, "video5", 0, place=VALIDATION)
    assert "video5 is annotated twice" in refused("aff-wild2", root)
    (root / VALIDATION / "video5.txt").unlink()
    put("batch2/video5.mp4")
    assert "video5 is in" in refused("aff-wild2", root)
    annotate(put, "video5", 0, place="EX/Train_Set")
    assert "annotations of expressions are in" in refused("aff-wild2", root)

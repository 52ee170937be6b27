import pytest

from featlab.extraction.layouts import detect_layout, read_layout

HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
CHALLENGE = "6th ABAW Annotations/EXPR_Recognition_Challenge"


def annotate(put, video, *labels, place=f"{CHALLENGE}/Train_Set"):
    return put(f"{place}/{video}.txt", text="\n".join([HEADER, *map(str, labels)]) + "\n")


def pictures(put, video, *numbers, place="cropped_aligned"):
    return put(*(f"{place}/{video}/{number:05}.jpg" for number in numbers))


@pytest.mark.parametrize("place", ["cropped_aligned", "batch1/cropped_aligned", "cropped_aligned_new_50_vids"])
def test_line_and_image_meet_by_number_and_minus_one_is_dropped(put, facts, place):
    annotate(put, "video5", 0, -1, 4, 7, 6)
    root = pictures(put, "video5", 1, 2, 3, 5, place=place)
    assert facts("aff-wild2", root, "subject video frame label row name at") == [
        ("video5", "video5", 0, "neutral", 0, f"{place}/video5/00001.jpg", None),
        ("video5", "video5", 2, "happiness", 1, f"{place}/video5/00003.jpg", None),
        ("video5", "video5", 4, "surprise", 2, f"{place}/video5/00005.jpg", None),
    ]
    assert all(item.path == root / item.name for item in read_layout("aff-wild2", root))
    assert detect_layout(root) == "aff-wild2"
    # Lines without an image, and images without a line, are left out.
    pictures(put, "video5", 6, place=place)
    annotate(put, "video6", 0, 1, 2)
    pictures(put, "video6", 1, 2, place=place)
    assert facts("aff-wild2", root, "subject frame label")[3:] == [("video6", 0, "neutral"), ("video6", 1, "anger")]


@pytest.mark.parametrize("folder", ["EXPR_Classification_Challenge", "annotations/EX", "a/b/expr_challenge"])
def test_annotations_are_found_by_what_is_in_them(put, facts, folder):
    put("VA_Estimation_Challenge/Train_Set/video5.txt", text="valence,arousal\n0.1,0.2\n")
    names = ("6-30-1920x1080_left", "6-30-1920x1080_right", "video6")  # two people in one video are two subjects
    for code, (name, part) in enumerate(zip(names, ("Train_Set", "Train_Set", "Validation_Set"), strict=True)):
        annotate(put, name, code, place=f"{folder}/{part}")
        root = pictures(put, name, 1)
    assert facts("aff-wild2", root, "subject frame label") == [
        (name, 0, label) for name, label in zip(names, ("neutral", "anger", "disgust"), strict=True)
    ]


def test_split_every_and_drop_choose(put, facts):
    annotate(put, "video5", 0, 1, 7, 3)
    annotate(put, "video6", 2, place=f"{CHALLENGE}/Validation_Set")
    pictures(put, "video6", 1)
    root = pictures(put, "video5", 1, 2, 3, 4)
    for options, expected in (
        ({"split": "validation"}, [("video6", 0, "disgust")]),
        ({"split": "train", "every": 2}, [("video5", 0, "neutral"), ("video5", 2, "other")]),
        ({"split": "train", "drop": "other,anger"}, [("video5", 0, "neutral"), ("video5", 3, "fear")]),
    ):
        assert facts("aff-wild2", root, "subject frame label", **options) == expected


def test_a_video_stands_in_for_images_and_aligned_images_come_first(put, facts):
    annotate(put, "video5", 0, -1, 4)
    root = put("batch1/video5.mp4")
    assert facts("aff-wild2", root, "name frame label at") == [
        ("batch1/video5.mp4", 0, "neutral", None),
        ("batch1/video5.mp4", 2, "happiness", None),
    ]
    for place in ("cropped", "cropped_aligned"):
        pictures(put, "video5", 1, place=place)
    assert facts("aff-wild2", root, "name") == ["cropped_aligned/video5/00001.jpg"]
    assert facts("aff-wild2", root, "name", media="cropped") == ["cropped/video5/00001.jpg"]
    assert facts("aff-wild2", root, "name", media="batch1") == ["batch1/video5.mp4"] * 2


def test_trees_that_leave_a_doubt_are_refused(put, refuses):
    root = put("videos/video5.mp4")
    refuses("aff-wild2", root, "expected EXPR_…_Challenge/Train_Set/VIDEO.txt", "found videos/")
    annotate(put, "video5", 0)
    refuses("aff-wild2", root, "there is no such folder", media="frames")
    annotate(put, "video5", 0, place=f"{CHALLENGE}/Validation_Set")
    refuses("aff-wild2", root, "video5 is annotated twice")
    (root / CHALLENGE / "Validation_Set" / "video5.txt").unlink()
    put("batch2/video5.mp4")
    refuses("aff-wild2", root, "video5 is in")
    annotate(put, "video5", 0, place="EX/Train_Set")
    refuses("aff-wild2", root, "annotations of expressions are in")

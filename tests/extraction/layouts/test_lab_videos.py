"""Videos of many recordings: BioVid, StressID, BAH and Aff-Wild2."""

import pytest

from featlab.errors import ConfigError
from featlab.extraction.layouts import LAYOUTS, detect_layout, read_layout

PEOPLE = ("071309_w_21", "112610_w_60")


def biovid(put, base="video"):
    names = [f"{person}/{person}-{level}" for person in PEOPLE for level in ("BL1", "PA1", "PA4")]
    return put(*(f"{base}/{name}-{number:03}.mp4" for name in names for number in (6, 81)))


@pytest.mark.parametrize("base", ["video/", "PartA/video/", ""])
def test_no_pain_is_neutral_and_the_highest_level_is_pain(put, facts, base):
    root = biovid(put, base or ".")
    assert facts("biovid", root, "subject label video frame name at") == [
        (person, label, video := f"{person}-{level}-{number}", 0, f"{base}{person}/{video}.mp4", None)
        for person in PEOPLE
        for level, label in (("BL1", "neutral"), ("PA4", "pain"))
        for number in ("006", "081")
    ]
    assert detect_layout(root) == "biovid"
    for merge, labels in (("true", {"neutral", "pain"}), ("false", {"neutral", "PA1", "PA4"})):
        chosen = facts("biovid", root, "label", levels="BL1,PA1,PA4", merge=merge)
        assert (len(chosen), set(chosen)) == (12, labels)
    assert LAYOUTS.get("biovid").sampling.window == (2.0, 5.0), "that of the published protocol"


@pytest.mark.parametrize("mark", ["\t", ",", ";"])
def test_samples_csv_is_the_list_and_what_it_misses_stays_to_fail_later(put, facts, mark):
    root = biovid(put)
    listed = [f"{PEOPLE[0]}-{end}" for end in ("BL1-006", "PA4-006", "PA4-099", "PA1-006")]
    lines = ["subject_id\tsubject_name\tsample_name", *(f"1\t{PEOPLE[0]}\t{name}" for name in listed)]
    put("samples.csv", text="\n".join(lines).replace("\t", mark))
    assert facts("biovid", root, "video") == listed[:3]
    assert [path.exists() for path in facts("biovid", root, "path")] == [True, True, False]


def test_folders_of_frames_stand_for_videos(put, facts):
    root = put(*(f"a_w_1/a_w_1-{level}-081/image{ms}.jpg" for level in ("BL1", "PA4") for ms in (2040, 960)))
    assert facts("biovid", root, "video frame path.name") == [
        (f"a_w_1-{level}-081", frame, f"image{(960, 2040)[frame]}.jpg") for level in ("BL1", "PA4") for frame in (0, 1)
    ]


LABELS = (
    "subject/task,binary-stress,affect3-class\n"
    "2ea4_Breathing,0,0\n2ea4_Math,1.0,2.0\n2ea4_Stroop,0,1\n2ea4_Reading,,\n9zzz_Math,1,2\n"
)
TASKS = {
    "Baseline": ("neutral", "neutral"),
    "Breathing": ("neutral", "relaxed"),
    "Math": ("stress", "stress"),
    "Reading": (None, None),
    "Stroop": ("neutral", "neutral"),
    "Video2": (None, None),
}


@pytest.mark.parametrize("base", ["Videos/", "videos/", ""])
def test_labels_are_looked_up_and_what_has_none_is_unknown(put, facts, base, refuses):
    put("labels.csv", text=LABELS)
    root = put(*(f"{base}2ea4/2ea4_{task}.mp4" for task in TASKS))
    for place, column in enumerate(("binary-stress", "affect3-class")):
        assert facts("stressid", root, "subject video label", labels=column) == [
            ("2ea4", f"2ea4_{task}", labels[place]) for task, labels in TASKS.items()
        ]
    assert facts("stressid", root, "video", tasks="Math,Baseline") == ["2ea4_Baseline", "2ea4_Math"]
    refuses("stressid", root, "no recording of the task Maths (there are: Baseline, Breathing", tasks="Maths")
    assert detect_layout(root) == "stressid"
    assert LAYOUTS.get("stressid").sampling.fps == 1.0


CALM = "Videos/82725/Visite_1/82725_Question_1_2024-11-19_15-12-23_Video.mp4"
TORN = "Videos/82567/Visite_1/82567_Question_7_2024-10-02 15-46-17_Video.mp4"
HESITANT = "ambivalence-hesitancy"


def bah_frames(put, prefix="", base=""):
    for video, numbers in ((CALM, (0, 1, 2, 10)), (TORN, (0, 1))):
        put(*(f"{base}cropped-aligned-faces/{video}/frame-{number}.jpg" for number in numbers))
    lines = [f"{prefix}{CALM}/frame-{number}.jpg,{int(number > 1)}\n" for number in (0, 1, 10, 2)]
    put(f"{base}split-frames/train.txt", text="".join(lines))
    return put(f"{base}split-frames/test.txt", text=f"{prefix}{TORN}/frame-0.jpg,1\n{prefix}{TORN}/frame-1.jpg,0\n")


@pytest.mark.parametrize("base", ["", "data/", "BAH_DB/"])
@pytest.mark.parametrize("prefix", ["", "cropped-aligned-faces/"])
def test_frames_have_labels_of_their_own(put, facts, refused, prefix, base):
    root = bah_frames(put, prefix, base)
    calm = CALM.rpartition("/")[2]
    assert facts("bah", root, "subject frame label")[:2] == [("82567", 0, HESITANT), ("82567", 1, "neutral")]
    assert facts("bah", root, "subject video frame label")[2:] == [
        ("82725", calm, frame, HESITANT if frame > 1 else "neutral") for frame in (0, 1, 2, 10)
    ]
    assert all(path.is_file() for path in facts("bah", root, "path"))
    assert detect_layout(root) == "bah"
    assert facts("bah", root, "subject frame", split="test", every=2) == [("82567", 0)]
    assert facts("bah", root, "frame", split="train", every=2) == [0, 2, 10]
    with refused(ConfigError, "bah.every = 5 leaves no frame"):
        put(f"{base}split-frames/test.txt", text=f"{TORN}/frame-1.jpg,0\n")
        read_layout("bah", root, split="test", every=5)


@pytest.mark.parametrize("place", ["split", "dataset-splits/video-level/BAH_DB/split-0"])
def test_videos_have_one_label_and_a_transcript_with_commas(put, facts, refuses, place):
    put(CALM, TORN)
    put(f"{place}/train.txt", text=f"{CALM},0,Well, when I wake up, I get ready.\n")
    root = put(f"{place}/val.txt", text=f"{TORN},1,I could have.\n")
    assert facts("bah", root, "subject label name video frame") == [
        (who, label, name, name.rpartition("/")[2], 0)
        for who, label, name in (("82567", HESITANT, TORN), ("82725", "neutral", CALM))
    ]
    assert detect_layout(root) == "bah"
    # Where both are there the level decides, and a missing file stays to fail later.
    bah_frames(put)
    assert len(read_layout("bah", root)) == 6
    (root / TORN).unlink()
    assert [path.exists() for path in facts("bah", root, "path", level="video")] == [False, True]
    (root / CALM).unlink()
    refuses("bah", root, f"none of the 2 files that {place}/train.txt lists is there", level="video")


HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
CHALLENGE = "6th ABAW Annotations/EXPR_Recognition_Challenge"
LEFT = "6-30-1920x1080_left"  # One of two people in a video is a subject.


def annotate(put, video, *labels, place=f"{CHALLENGE}/Train_Set"):
    return put(f"{place}/{video}.txt", text="\n".join([HEADER, *map(str, labels)]) + "\n")


def pictures(put, video, *numbers, place="cropped_aligned"):
    return put(*(f"{place}/{video}/{number:05}.jpg" for number in numbers))


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        (CHALLENGE, "cropped_aligned"),
        ("annotations/EX", "batch1/cropped_aligned"),
        ("a/b/expr_classification_challenge", "cropped_aligned_new_50_vids"),
    ],
)
def test_line_and_image_meet_by_number_and_minus_one_and_what_has_no_partner_are_left_out(put, facts, folder, place):
    put("VA_Estimation_Challenge/Train_Set/video5.txt", text="valence,arousal\n0.1,0.2\n")
    annotate(put, "video5", 0, -1, 4, 7, 6, place=f"{folder}/Train_Set")
    annotate(put, LEFT, 0, 1, 2, place=f"{folder}/Validation_Set")
    pictures(put, "video5", 1, 2, 3, 5, 6, place=place)
    root = pictures(put, LEFT, 1, 2, place=place)
    kept = [(LEFT, 0, "neutral"), (LEFT, 1, "anger")]
    kept += [("video5", 0, "neutral"), ("video5", 2, "happiness"), ("video5", 4, "surprise")]
    assert facts("aff-wild2", root, "subject video frame label name at") == [
        (video, video, frame, label, f"{place}/{video}/{frame + 1:05}.jpg", None) for video, frame, label in kept
    ]
    assert detect_layout(root) == "aff-wild2"


def test_split_every_drop_and_media_choose_and_aligned_images_come_first(put, facts):
    annotate(put, "video5", 0, 1, 7, 3)
    annotate(put, "video6", 2, place=f"{CHALLENGE}/Validation_Set")
    root = put("batch1/video5.mp4", "batch1/video6.mp4")
    video5 = [("neutral", 0), ("anger", 1), ("other", 2), ("fear", 3)]
    assert facts("aff-wild2", root, "label frame name at", split="train", every=2) == [
        (*each, "batch1/video5.mp4", None) for each in video5
    ]
    for place in ("cropped", "cropped_aligned"):
        pictures(put, "video5", 1, 2, 3, 4, place=place)
    for options, expected in (
        ({"split": "validation"}, [("disgust", 0)]),
        ({"split": "train", "every": 2}, video5[::2]),
        ({"split": "train", "drop": "other,anger"}, video5[::3]),
    ):
        assert facts("aff-wild2", root, "label frame", **options) == expected
    for options, place in (
        ({}, "cropped_aligned/video5/00001.jpg"),
        ({"media": "cropped"}, "cropped/video5/00001.jpg"),
        ({"media": "batch1"}, "batch1/video5.mp4"),
    ):
        assert facts("aff-wild2", root, "name", split="train", **options)[0] == place


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

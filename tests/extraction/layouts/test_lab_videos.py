import pytest

from featlab.errors import ConfigError
from featlab.extraction.layouts import LAYOUTS, detect_layout, read_layout

PEOPLE = ("071309_w_21", "112610_w_60")
LABELS = (
    "subject/task,binary-stress,affect3-class\n"
    "2ea4_Breathing,0,0\n2ea4_Math,1.0,2.0\n2ea4_Stroop,0,1\n2ea4_Reading,,\n9zzz_Math,1,2\n"
)
TASKS = ("Baseline", "Breathing", "Math", "Stroop", "Reading", "Video2")


def biovid(put, base="video"):
    names = [f"{person}/{person}-{level}" for person in PEOPLE for level in ("BL1", "PA1", "PA4")]
    return put(*(f"{base}/{name}-{number:03}.mp4" for name in names for number in (6, 81)))


def stressid(put, base="Videos/"):
    put("labels.csv", text=LABELS)
    return put(*(f"{base}2ea4/2ea4_{task}.mp4" for task in TASKS))


@pytest.mark.parametrize("base", ["video", "PartA/video", "."])
def test_no_pain_is_neutral_and_the_highest_level_is_pain(put, base):
    root = biovid(put, base)
    items = read_layout("biovid", root)
    assert [item.row for item in items] == list(range(len(PEOPLE) * 2 * 2))
    first = items[0]
    assert (first.subject, first.label, first.video, first.frame) == (PEOPLE[0], "neutral", f"{PEOPLE[0]}-BL1-006", 0)
    assert all(item.path == root / item.name and item.path.is_file() and item.at is None for item in items)
    assert {(item.video.split("-")[1], item.label) for item in items} == {("BL1", "neutral"), ("PA4", "pain")}
    assert detect_layout(root) == "biovid"
    for merge, labels in (("true", {"neutral", "pain"}), ("false", {"neutral", "PA1", "PA4"})):
        chosen = read_layout("biovid", root, levels="BL1,PA1,PA4", merge=merge)
        assert (len(chosen), {item.label for item in chosen}) == (12, labels)
    assert LAYOUTS.get("biovid").sampling.window == (2.0, 5.0), "that of the published protocol"


@pytest.mark.parametrize("mark", ["\t", ",", ";"])
def test_samples_csv_is_the_list_and_what_it_misses_stays_to_fail_later(put, mark):
    root = biovid(put)
    listed = [f"{PEOPLE[0]}-{end}" for end in ("BL1-006", "PA4-006", "PA4-099", "PA1-006")]
    rows = [f"1\t{PEOPLE[0]}\t0\t{name.split('-')[1]}\t1\t{name}" for name in listed]
    header = "subject_id\tsubject_name\tclass_id\tclass_name\tsample_id\tsample_name"
    put("samples.csv", text="\n".join([header, *rows]).replace("\t", mark))
    items = read_layout("biovid", root)
    assert [item.video for item in items] == listed[:3]
    assert [item.path.exists() for item in items] == [True, True, False]
    assert items[2].name == f"video/{PEOPLE[0]}/{PEOPLE[0]}-PA4-099.mp4"


def test_folders_of_frames_stand_for_videos(put, facts):
    root = put(*(f"a_w_1/a_w_1-{level}-081/image{ms}.jpg" for level in ("BL1", "PA4") for ms in (2040, 960)))
    assert facts("biovid", root, "video frame path.name") == [
        ("a_w_1-BL1-081", 0, "image960.jpg"),
        ("a_w_1-BL1-081", 1, "image2040.jpg"),
        ("a_w_1-PA4-081", 0, "image960.jpg"),
        ("a_w_1-PA4-081", 1, "image2040.jpg"),
    ]
    root = put("s/2ea4/2ea4_Math/frame10.jpg", "s/2ea4/2ea4_Math/frame9.jpg", "s/labels.csv", text=LABELS) / "s"
    read = facts("stressid", root, "frame path.name label")
    assert read == [(0, "frame9.jpg", "stress"), (1, "frame10.jpg", "stress")]


@pytest.mark.parametrize("base", ["Videos/", "videos/", ""])
def test_labels_are_looked_up_and_what_has_none_is_unknown(put, base, refuses):
    root = stressid(put, base)
    items = read_layout("stressid", root)
    labels = dict(zip(TASKS, ("neutral", "neutral", "stress", "neutral", None, None), strict=True))
    assert {item.video: item.label for item in items} == {f"2ea4_{task}": label for task, label in labels.items()}
    assert {item.subject for item in items} == {"2ea4"}
    assert all(item.path == root / item.name and item.path.is_file() for item in items)
    assert detect_layout(root) == "stressid"
    assert LAYOUTS.get("stressid").sampling.fps == 1.0

    def chosen(**options):
        return {item.video.removeprefix("2ea4_"): item.label for item in read_layout("stressid", root, **options)}

    three = chosen(labels="affect3-class")
    assert (three["Breathing"], three["Math"], three["Stroop"]) == ("relaxed", "stress", "neutral")
    assert chosen(baseline="neutral")["Baseline"] == "neutral"
    assert chosen(baseline="unknown")["Baseline"] is None
    assert "Baseline" not in chosen(baseline="drop")
    assert list(chosen(tasks="Math,Baseline")) == ["Baseline", "Math"]
    refuses("stressid", root, "no recording of the task Maths (there are: Baseline, Breathing", tasks="Maths")


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
def test_frames_have_labels_of_their_own(put, facts, prefix, base):
    root = bah_frames(put, prefix, base)
    assert facts("bah", root, "subject frame label row") == [
        ("82567", 0, HESITANT, 0),
        ("82567", 1, "neutral", 1),
        ("82725", 0, "neutral", 2),
        ("82725", 1, "neutral", 3),
        ("82725", 2, HESITANT, 4),
        ("82725", 10, HESITANT, 5),
    ]
    items = read_layout("bah", root)
    assert items[2].video == CALM.rpartition("/")[2]
    assert all(item.path == root / item.name and item.path.is_file() for item in items)
    assert detect_layout(root) == "bah"


def test_splits_and_every_second_frame_are_chosen(put, facts, refused):
    root = bah_frames(put)
    assert set(facts("bah", root, "subject", split="test")) == {"82567"}
    assert facts("bah", root, "frame", split="train", every=2) == [0, 2, 10]
    put("split-frames/test.txt", text=f"{TORN}/frame-1.jpg,0\n")
    with refused(ConfigError, "bah.every = 5 leaves no frame"):
        read_layout("bah", root, split="test", every=5)


@pytest.mark.parametrize("place", ["split", "dataset-splits/video-level/BAH_DB/split-0"])
def test_videos_have_one_label_and_a_transcript_with_commas(put, facts, refuses, place):
    put(CALM, TORN)
    put(f"{place}/train.txt", text=f"{CALM},0,Well, when I wake up, I get ready.\n")
    root = put(f"{place}/val.txt", text=f"{TORN},1,I could have.\n")
    assert facts("bah", root, "subject label name video frame") == [
        ("82567", HESITANT, TORN, TORN.rpartition("/")[2], 0),
        ("82725", "neutral", CALM, CALM.rpartition("/")[2], 0),
    ]
    assert detect_layout(root) == "bah"
    # Where both are there the level decides, and a missing file stays to fail later.
    bah_frames(put)
    assert len(read_layout("bah", root)) == 6
    (root / TORN).unlink()
    assert [path.exists() for path in facts("bah", root, "path", level="video")] == [False, True]
    (root / CALM).unlink()
    refuses("bah", root, f"none of the 2 files that {place}/train.txt lists is there", level="video")

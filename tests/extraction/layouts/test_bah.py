import pytest

from featlab.errors import ConfigError
from featlab.extraction.layouts import detect_layout, read_layout

CALM = "Videos/82725/Visite_1/82725_Question_1_2024-11-19_15-12-23_Video.mp4"
TORN = "Videos/82567/Visite_1/82567_Question_7_2024-10-02 15-46-17_Video.mp4"


def frames(put, prefix="", base=""):
    put(*(f"{base}cropped-aligned-faces/{CALM}/frame-{number}.jpg" for number in (0, 1, 2, 10)))
    put(*(f"{base}cropped-aligned-faces/{TORN}/frame-{number}.jpg" for number in (0, 1)))
    put(
        f"{base}split-frames/train.txt",
        text="".join(f"{prefix}{CALM}/frame-{number}.jpg,{int(number > 1)}\n" for number in (0, 1, 10, 2)),
    )
    return put(f"{base}split-frames/test.txt", text=f"{prefix}{TORN}/frame-0.jpg,1\n{prefix}{TORN}/frame-1.jpg,0\n")


def videos(put, place="split"):
    put(CALM, TORN)
    put(f"{place}/train.txt", text=f"{CALM},0,Well, when I wake up, I get ready.\n")
    return put(f"{place}/val.txt", text=f"{TORN},1,I could have.\n")


@pytest.mark.parametrize("base", ["", "data/", "BAH_DB/"])
@pytest.mark.parametrize("prefix", ["", "cropped-aligned-faces/"])
def test_frames_have_labels_of_their_own(put, prefix, base):
    root = frames(put, prefix, base)
    items = read_layout("bah", root)
    assert [(item.subject, item.frame, item.label, item.row) for item in items] == [
        ("82567", 0, "ambivalence-hesitancy", 0),
        ("82567", 1, "neutral", 1),
        ("82725", 0, "neutral", 2),
        ("82725", 1, "neutral", 3),
        ("82725", 2, "ambivalence-hesitancy", 4),
        ("82725", 10, "ambivalence-hesitancy", 5),
    ]
    assert items[2].video == CALM.rpartition("/")[2]
    assert all(item.path == root / item.name and item.path.is_file() for item in items)
    assert detect_layout(root) == "bah"


def test_splits_and_every_second_frame_are_chosen(put):
    root = frames(put)
    assert {item.subject for item in read_layout("bah", root, split="test")} == {"82567"}
    assert [item.frame for item in read_layout("bah", root, split="train", every=2)] == [0, 2, 10]
    put("split-frames/test.txt", text=f"{TORN}/frame-1.jpg,0\n")
    with pytest.raises(ConfigError, match=r"bah.every = 5 leaves no frame"):
        read_layout("bah", root, split="test", every=5)


@pytest.mark.parametrize("place", ["split", "dataset-splits/video-level/BAH_DB/split-0"])
def test_videos_have_one_label_and_a_transcript_with_commas(put, place):
    root = videos(put, place)
    items = read_layout("bah", root)
    assert [(item.subject, item.label, item.name, item.video, item.frame) for item in items] == [
        ("82567", "ambivalence-hesitancy", TORN, TORN.rpartition("/")[2], 0),
        ("82725", "neutral", CALM, CALM.rpartition("/")[2], 0),
    ]
    assert detect_layout(root) == "bah"


def test_where_both_are_there_the_level_decides_and_a_missing_file_stays_to_fail_later(put):
    frames(put)
    root = videos(put)
    assert len(read_layout("bah", root)) == 6
    (root / TORN).unlink()
    assert [item.path.exists() for item in read_layout("bah", root, level="video")] == [False, True]


def test_other_trees_and_lists_are_refused(put, refused):
    root = put(CALM)
    assert "expected split-frames/train.txt" in refused("bah", root)
    assert "found Videos/" in refused("bah", root)
    videos(put)
    for line, says in {
        "Videos/1/v.mp4,2,text": "line 1: expected VIDEO,LABEL,TRANSCRIPT with the label 0 or 1",
        "no label here": "line 1: expected VIDEO,LABEL,TRANSCRIPT",
        "v.mp4,0,text": "expected a path Videos/SUBJECT/…",
        "Videos/v.mp4,0,text": "expected a path Videos/SUBJECT/…",
        "": "is empty",
    }.items():
        assert says in refused("bah", put("split/train.txt", text=line + "\n"))
    videos(put)
    (root / CALM).unlink()
    (root / TORN).unlink()
    assert "none of the 2 files that split/train.txt lists is there" in refused("bah", root)
    frames(put)
    for line, says in {
        f"{CALM}/first.jpg,0": "line 1: the image 'first.jpg' has no number at its end",
        f"{CALM}/frame-1.jpg": "line 1: expected IMAGE,LABEL",
    }.items():
        assert says in refused("bah", put("split-frames/train.txt", text=line + "\n"))

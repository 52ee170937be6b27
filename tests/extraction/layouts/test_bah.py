"""BAH: ambivalence and hesitancy, a label a frame or a video."""

import pytest

from featlab.errors import ConfigError
from featlab.extraction.layouts import detect_layout, read_layout

CALM = "Videos/82725/Visite_1/82725_Question_1_2024-11-19_15-12-23_Video.mp4"
TORN = "Videos/82567/Visite_1/82567_Question_7_2024-10-02 15-46-17_Video.mp4"
HESITANT = "ambivalence-hesitancy"


def frames(put, prefix="", base=""):
    for video, numbers in ((CALM, (0, 1, 2, 10)), (TORN, (0, 1))):
        put(*(f"{base}cropped-aligned-faces/{video}/frame-{number}.jpg" for number in numbers))
    lines = [f"{prefix}{CALM}/frame-{number}.jpg,{int(number > 1)}\n" for number in (0, 1, 10, 2)]
    put(f"{base}split-frames/train.txt", text="".join(lines))
    return put(f"{base}split-frames/test.txt", text=f"{prefix}{TORN}/frame-0.jpg,1\n{prefix}{TORN}/frame-1.jpg,0\n")


def videos(put, place="split"):
    put(CALM, TORN)
    put(f"{place}/train.txt", text=f"{CALM},0,Well, when I wake up, I get ready.\n")
    return put(f"{place}/val.txt", text=f"{TORN},1,I could have.\n")


@pytest.mark.parametrize("base", ["", "data/", "BAH_DB/"])
@pytest.mark.parametrize("prefix", ["", "cropped-aligned-faces/"])
def test_frames_have_labels_of_their_own(put, facts, prefix, base):
    root = frames(put, prefix, base)
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


def test_splits_and_every_second_frame_are_chosen(put, facts):
    root = frames(put)
    assert set(facts("bah", root, "subject", split="test")) == {"82567"}
    assert facts("bah", root, "frame", split="train", every=2) == [0, 2, 10]
    put("split-frames/test.txt", text=f"{TORN}/frame-1.jpg,0\n")
    with pytest.raises(ConfigError, match=r"bah.every = 5 leaves no frame"):
        read_layout("bah", root, split="test", every=5)


@pytest.mark.parametrize("place", ["split", "dataset-splits/video-level/BAH_DB/split-0"])
def test_videos_have_one_label_and_a_transcript_with_commas(put, facts, refuses, place):
    root = videos(put, place)
    assert facts("bah", root, "subject label name video frame") == [
        ("82567", HESITANT, TORN, TORN.rpartition("/")[2], 0),
        ("82725", "neutral", CALM, CALM.rpartition("/")[2], 0),
    ]
    assert detect_layout(root) == "bah"
    # Where both are there the level decides, and a missing file stays to fail later.
    frames(put)
    assert len(read_layout("bah", root)) == 6
    (root / TORN).unlink()
    assert [path.exists() for path in facts("bah", root, "path", level="video")] == [False, True]
    (root / CALM).unlink()
    refuses("bah", root, f"none of the 2 files that {place}/train.txt lists is there", level="video")

import pytest

from featlab.extraction.layouts import detect_layout, get_layout, read_layout

PEOPLE = ("071309_w_21", "112610_w_60")
HEADER = "subject_id\tsubject_name\tclass_id\tclass_name\tsample_id\tsample_name\n"


def tree(put, base="video"):
    for person in PEOPLE:
        for level in ("BL1", "PA1", "PA4"):
            put(*(f"{base}/{person}/{person}-{level}-{number:03}.mp4" for number in (6, 81)))


def samples(put, *names, mark="\t", header=HEADER):
    lines = [header]
    for name in names:
        person, level, _ = name.split("-")
        lines.append(f"1\t{person}\t0\t{level}\t1\t{name}\n")
    put("samples.csv", text="".join(lines).replace("\t", mark))


@pytest.mark.parametrize("base", ["video", "PartA/video", "."])
def test_no_pain_is_neutral_and_the_highest_level_is_pain(put, base):
    tree(put, base)
    root = put()
    items = read_layout("biovid", root)
    assert [item.row for item in items] == list(range(len(PEOPLE) * 2 * 2))
    first = items[0]
    assert (first.subject, first.label, first.video, first.frame) == (PEOPLE[0], "neutral", f"{PEOPLE[0]}-BL1-006", 0)
    assert all(item.path == root / item.name and item.path.is_file() and item.at is None for item in items)
    assert {(item.video.split("-")[1], item.label) for item in items} == {("BL1", "neutral"), ("PA4", "pain")}
    assert detect_layout(root) == "biovid"
    # Levels are chosen, and merged or kept apart; the window is the one of the published protocol.
    merged = read_layout("biovid", root, levels="BL1,PA1,PA4")
    apart = read_layout("biovid", root, levels="BL1,PA1,PA4", merge="false")
    assert {item.label for item in merged} == {"neutral", "pain"}
    assert {item.label for item in apart} == {"neutral", "PA1", "PA4"}
    assert len(merged) == len(apart) == 12
    assert get_layout("biovid").sampling.window == (2.0, 5.0)


def test_folders_of_frames_stand_for_videos(put):
    root = put(
        *(f"071309_w_21/071309_w_21-{level}-081/image{ms}.jpg" for level in ("BL1", "PA4") for ms in (960, 2040))
    )
    items = read_layout("biovid", root)
    assert [(item.video, item.frame, item.path.name) for item in items] == [
        ("071309_w_21-BL1-081", 0, "image960.jpg"),
        ("071309_w_21-BL1-081", 1, "image2040.jpg"),
        ("071309_w_21-PA4-081", 0, "image960.jpg"),
        ("071309_w_21-PA4-081", 1, "image2040.jpg"),
    ]


@pytest.mark.parametrize("mark", ["\t", ",", ";"])
def test_samples_csv_is_the_list_and_what_it_misses_stays_to_fail_later(put, mark):
    tree(put)
    listed = [f"{PEOPLE[0]}-BL1-006", f"{PEOPLE[0]}-PA4-006", f"{PEOPLE[0]}-PA4-099", f"{PEOPLE[0]}-PA1-006"]
    samples(put, *listed, mark=mark)
    root = put()
    items = read_layout("biovid", root)
    assert [item.video for item in items] == listed[:3]
    assert [item.path.exists() for item in items] == [True, True, False]
    assert items[2].name == f"video/{PEOPLE[0]}/{PEOPLE[0]}-PA4-099.mp4"


def test_other_trees_are_refused(put, refused):
    root = put("video/s1/rest.mp4")
    assert "expected video/SUBJECT/SUBJECT-LEVEL-NUMBER.mp4" in refused("biovid", root)
    assert "found video/s1/ with rest.mp4" in refused("biovid", root)
    put("video/a_w_1/a_w_1-BL1-081.mp4", "video/a_w_1/a_w_1-PA1-001.mp4")
    assert "no sample of level PA4 (there are: BL1 1, PA1 1)" in refused("biovid", root)
    put("video/b/a_w_1-BL1-081.mp4")
    assert "a_w_1-BL1-081 is there twice" in refused("biovid", root)
    put("video/a_w_1/a_w_1-BL1-081/1.png")
    assert "are the same recording" in refused("biovid", root)


def test_a_samples_csv_that_does_not_fit_is_refused(put, refused):
    tree(put)
    for text, says in (
        (HEADER + "1\ta_w_1\t0\tBL1\t1\ta_w_1-BL1\n", "line 2: the sample_name 'a_w_1-BL1' isn't a_w_1-LEVEL-NUMBER"),
        (HEADER + "1\ta_w_1\t0\tBL1\t1\tb_w_1-BL1-001\n", "isn't a_w_1-LEVEL-NUMBER"),
        (HEADER + "1\ta_w_1\t0\tPA4\t1\ta_w_1-BL1-001\n", "the class_name 'PA4' isn't the level of a_w_1-BL1-001"),
        (HEADER + "1\ta_w_1\t0\tBL1\n", "line 2: 4 values under 6 columns"),
        (HEADER, "has no rows"),
        ("subject_name\tclass_name\tsample\nx\ty\tz\n", "no column 'sample_name' "),
        (
            HEADER + "".join(f"1\ta_w_1\t0\t{level}\t1\ta_w_1-{level}-001\n" for level in ("BL1", "PA4")),
            "none of the 2 files that samples.csv lists is there",
        ),
    ):
        assert says in refused("biovid", put("samples.csv", text=text))

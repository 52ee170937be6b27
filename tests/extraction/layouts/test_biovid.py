import pytest

from featlab.errors import InputError
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
    assert len(items) == len(PEOPLE) * 2 * 2
    first = items[0]
    assert (first.subject, first.label, first.video, first.frame, first.row, first.at) == (
        "071309_w_21",
        "neutral",
        "071309_w_21-BL1-006",
        0,
        0,
        None,
    )
    assert first.path == root / first.name
    assert first.path.is_file()
    assert [item.row for item in items] == list(range(len(items)))
    assert {(item.video.split("-")[1], item.label) for item in items} == {("BL1", "neutral"), ("PA4", "pain")}
    assert detect_layout(root) == "biovid"


def test_levels_are_chosen_and_merged_or_kept_apart(put):
    tree(put)
    root = put()
    merged = read_layout("biovid", root, levels="BL1,PA1,PA4")
    assert {item.label for item in merged} == {"neutral", "pain"}
    apart = read_layout("biovid", root, levels="BL1,PA1,PA4", merge="false")
    assert {item.label for item in apart} == {"neutral", "PA1", "PA4"}
    assert len(merged) == len(apart) == 12


def test_the_recommended_window_is_the_one_of_the_published_protocol():
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


def test_a_level_that_nobody_has_is_named(put, refused):
    root = put("video/a_w_1/a_w_1-BL1-081.mp4", "video/a_w_1/a_w_1-PA1-001.mp4")
    assert "no sample of level PA4 (there are: BL1 1, PA1 1)" in refused("biovid", root)


def test_a_sample_that_is_there_twice_is_refused(put, refused):
    root = put("video/a_w_1/a_w_1-BL1-081.mp4", "video/b/a_w_1-BL1-081.mp4")
    assert "a_w_1-BL1-081 is there twice" in refused("biovid", root)
    root = put("video/a_w_1/a_w_1-BL1-081/1.png")
    assert "are the same recording" in refused("biovid", root)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1\ta_w_1\t0\tBL1\t1\ta_w_1-BL1\n", "line 2: the sample_name 'a_w_1-BL1' isn't a_w_1-LEVEL-NUMBER"),
        ("1\ta_w_1\t0\tBL1\t1\tb_w_1-BL1-001\n", "isn't a_w_1-LEVEL-NUMBER"),
        ("1\ta_w_1\t0\tPA4\t1\ta_w_1-BL1-001\n", "the class_name 'PA4' isn't the level of a_w_1-BL1-001"),
        ("1\ta_w_1\t0\tBL1\n", "line 2: 4 values under 6 columns"),
        ("", "has no rows"),
    ],
)
def test_a_row_of_samples_csv_that_does_not_fit_is_refused(put, refused, row, says):
    tree(put)
    assert says in refused("biovid", put("samples.csv", text=HEADER + row))


def test_a_samples_csv_without_its_columns_names_the_closest(put):
    tree(put)
    root = put("samples.csv", text="subject_name\tclass_name\tsample\nx\ty\tz\n")
    with pytest.raises(InputError, match=r"no column 'sample_name' .*; did you mean 'sample'"):
        read_layout("biovid", root)


def test_a_list_of_which_nothing_is_there_is_refused(put, refused):
    samples(put, f"{PEOPLE[0]}-BL1-006", f"{PEOPLE[0]}-PA4-006")
    root = put("video/readme.txt")
    assert "none of the 2 files that samples.csv lists is there" in refused("biovid", root)

import pytest

from featlab.extraction.layouts import detect_layout, get_layout, read_layout

LABELS = (
    "subject/task,binary-stress,affect3-class\n"
    "2ea4_Breathing,0,0\n2ea4_Math,1.0,2.0\n2ea4_Stroop,0,1\n2ea4_Reading,,\n9zzz_Math,1,2\n"
)
TASKS = ("Baseline", "Breathing", "Math", "Stroop", "Reading", "Video2")


def tree(put, base="Videos/"):
    put("labels.csv", text=LABELS)
    put(*(f"{base}2ea4/2ea4_{task}.mp4" for task in TASKS))


@pytest.mark.parametrize("base", ["Videos/", "videos/", ""])
def test_labels_are_looked_up_and_what_has_none_is_unknown(put, base):
    tree(put, base)
    root = put()
    items = read_layout("stressid", root)
    assert {item.video: item.label for item in items} == {
        "2ea4_Baseline": "neutral",
        "2ea4_Breathing": "neutral",
        "2ea4_Math": "stress",
        "2ea4_Stroop": "neutral",
        "2ea4_Reading": None,
        "2ea4_Video2": None,
    }
    assert {item.subject for item in items} == {"2ea4"}
    assert all(item.path == root / item.name and item.path.is_file() for item in items)
    assert detect_layout(root) == "stressid"
    assert get_layout("stressid").sampling.fps == 1.0


def test_classes_baseline_and_tasks_are_chosen(put, refused):
    tree(put)
    root = put()

    def labels(**options):
        return {item.video.removeprefix("2ea4_"): item.label for item in read_layout("stressid", root, **options)}

    three = labels(labels="affect3-class")
    assert (three["Breathing"], three["Math"], three["Stroop"]) == ("relaxed", "stress", "neutral")
    assert labels(baseline="neutral")["Baseline"] == "neutral"
    assert labels(baseline="unknown")["Baseline"] is None
    assert "Baseline" not in labels(baseline="drop")
    assert list(labels(tasks="Math,Baseline")) == ["Baseline", "Math"]
    assert "no recording of the task Maths (there are: Baseline, Breathing" in refused("stressid", root, tasks="Maths")


def test_folders_of_frames_stand_for_videos_and_other_trees_are_refused(put, refused):
    root = put("2ea4/2ea4_Math/frame10.jpg", "2ea4/2ea4_Math/frame9.jpg")
    assert "expected labels.csv with the column subject/task" in refused("stressid", root)
    put("labels.csv", text=LABELS)
    assert [(item.frame, item.path.name, item.label) for item in read_layout("stressid", root)] == [
        (0, "frame9.jpg", "stress"),
        (1, "frame10.jpg", "stress"),
    ]
    put("other/labels.csv", text=LABELS)
    assert "found Videos/ with 2ea4/" in refused("stressid", put("other/Videos/2ea4/math.txt") / "other")


def test_labels_that_do_not_fit_are_refused(put, refused):
    tree(put)
    head = "subject/task,binary-stress\n"
    for labels, says in {
        "subject/task,stress\n2ea4_Math,1\n": "no column 'binary-stress' (found: subject/task, stress)",
        head + "2ea4_Math,2\n": "line 2: binary-stress is '2', expected 0 to 1 or nothing",
        head + "2ea4_Math\n": "line 2: 1 values under 2 columns",
        head + '"2ea4_Math,1\n': "not a valid table",
        head: "has no rows",
        head + "x_Math,1\n": "none of the 6 recordings is in labels.csv: the first is 2ea4_Base",
        "a\0b": "NUL characters",
    }.items():
        assert says in refused("stressid", put("labels.csv", text=labels))

"""Tables as tools write them, columns after the tools' own sources, from import to evaluation; `featlab calibrate`."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from featlab import open_cache
from featlab.extraction.tables.rows import PRESETS

SEVEN = "anger disgust fear happiness sadness surprise neutral"
EIGHT = "Anger Contempt Disgust Fear Happiness Neutral Sadness Surprise"
COLUMNS = {
    "openface2": "frame face_id timestamp confidence success gaze_0_x gaze_angle_y pose_Tx pose_Rz x_0 x_1 y_0 y_1 X_0 "
    "Y_0 Z_0 p_scale p_0 AU01_r AU12_r AU45_r AU01_c AU12_c AU45_c",
    "openface3": "timestamp video_path frame_index face_id face_detection landmarks emotion gaze_yaw gaze_pitch "
    "action_units",
    "py-feat": "FaceRectX FaceRectY FaceRectWidth FaceRectHeight FaceScore x_0 x_1 y_0 y_1 Pitch Roll Yaw X Y Z AU01 "
    f"AU12 AU43 {SEVEN} Identity_1 Identity_2 gaze_pitch gaze_yaw gaze_angle FrameHeight FrameWidth input frame "
    "approx_time Identity",
    "libreface": "frame_idx frame_time_in_ms pitch yaw roll lm_mp_0_x lm_mp_0_y lm_mp_0_z au_1 au_12 au_24 "
    "au_1_intensity au_12_intensity facial_expression gaze_yaw gaze_pitch",
    "openwillis": f"frame time {SEVEN} AU01 AU12 AU43 mouth_openness",
    "deepface": "embedding facial_area face_confidence",
    "emotiefflib": f"features {EIGHT} valence arousal",
}
TAKEN = {
    "openface2": ["AU01_r", "AU12_r", "AU45_r"],
    "py-feat": ["AU01", "AU12", "AU43"],
    "libreface": ["au_1_intensity", "au_12_intensity"],
    "openwillis": ["AU01", "AU12", "AU43"],
}
OTHER = {
    "py-feat": ("emotions", 7),
    "openwillis": ("emotions", 7),
    "libreface": ("au-c", 3),
    "openface2": ("gaze", 2),
}
FAILS = ("openface2", "openface3", "py-feat", "deepface")


def cell(column, name, frame, level, failed, rng):
    """What a tool writes in a column; of a frame without a face 0, or nothing where the tool has no number for it."""
    some = [round(float(value), 4) for value in level + 0.3 * rng.normal(size=6)]
    listed = {"action_units": [some], "embedding": some, "features": some, "face_detection": some}
    listed["landmarks"] = [some[:2], some[2:4]]
    if column in listed:
        return "" if failed else f'"{listed[column]}"'
    return {
        "frame": frame,
        "frame_index": frame,
        "frame_idx": frame,
        "face_id": "" if failed and name == "openface3" else 0,
        "success": int(not failed),
        "confidence": 0.98 * (not failed),
        "FaceScore": "" if failed else 0.99,
        "face_confidence": 0.9 * (not failed),
        "facial_area": "\"{'x': 3, 'y': 4, 'w': 50, 'h': 60}\"",
        "facial_expression": "Happiness",
        "input": "clip.mp4",
        "Identity": "" if failed else "Person_0",
        "emotion": 1,
    }.get(column, frame / 30 if "time" in column else 0 if failed else some[0])


def write(path, name):
    """Four people, two clips a class, six frames each; the third without a face if the tool says so."""
    rng = np.random.default_rng(5)
    columns, mark = COLUMNS[name].split(), ", " if name == "openface2" else ","
    lines = [mark.join(["subject", "label", "video", *columns])]
    for row in range(4 * 2 * 2 * 6):
        person, clip, frame = row // 24, row // 6 % 4, row % 6
        failed, label = name in FAILS and frame == 2, ("neutral", "happy")[clip // 2]
        cells = [cell(column, name, frame, person + clip // 2 * 2, failed, rng) for column in columns]
        lines.append(mark.join(map(str, [f"p{person}", label, f"{label}-{clip}", *cells])))
    path.write_text("\n".join(lines))


def test_every_tools_table_is_imported_and_what_comes_of_it_evaluated(tmp_path, monkeypatch, run_json):
    assert set(COLUMNS) == set(PRESETS)
    for name in COLUMNS:
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        write(folder / "table.csv", name)
        left, code = (16, 3) if name in FAILS else (0, 0)
        data = run_json("import table.csv", code=code)
        assert f"import: taken as {PRESETS[name].title}'s table: {data['dim']} " in data.stderr
        assert (data["rows"], data["failures"], data["warnings"]) == (96 - left, left, [])
        assert (data["dim"], data["features"]) == (len(TAKEN.get(name, range(6))), TAKEN.get(name, []))
        assert run_json("import table.csv --from", name, code=code)["digest"] == data["digest"]
        with open_cache("cache.h5") as cache:
            frames = set(cache.read().frame.tolist())
        assert frames == set(range(6)) - ({2} if left and "frame" in COLUMNS[name] else {5} if left else set())
        if name in OTHER:
            group, dim = OTHER[name]
            other = run_json("import table.csv --out x.h5 --features", group, code=code)
            assert (other["dim"], other["rows"]) == (dim, 96 - left)
        if name in ("openface2", "deepface"):  # With and without frame numbers; a cache is a cache from here on.
            words = "evaluate --targets p1 --methods source-only,pft --no-plots --jobs 1"
            assert [row["error"] for row in run_json(words)["results"]] == ["", ""]


AUS = ("AU04_r", "AU12_r")


@pytest.fixture
def openface(tmp_path, monkeypatch):
    """Six people, two sessions, a neutral and a smiling clip in each; s3 frowns more at rest in the second."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("openface").mkdir()
    listed = []
    for person in range(1, 7):
        for session in (1, 2):
            for label in ("neutral", "smile"):
                values = rng.normal([0.3 * person, 0.5], 0.05, size=(60, 2))
                values += [0.5 * (person == 3 and session == 2), 2.0 * (label == "smile")]
                name = f"s{person}_{label}_{session}.csv"
                with open(f"openface/{name}", "w", newline="") as file:
                    csv.writer(file).writerows([["frame", " success", *(f" {au}" for au in AUS)]])
                    csv.writer(file).writerows([t + 1, 1, *row] for t, row in enumerate(values.tolist()))
                listed.append((name, f"s{person}", label, session))
    with open("openface/manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "subject", "label", "session"), *listed])
    return tmp_path


def test_a_folder_becomes_distances_from_each_persons_rest(openface, run_well, lines_of):
    result = run_well("calibrate openface --out openface.csv")
    assert "s3: AU04_r at rest differs by 0.5" in result.stderr
    assert "6 people, 12 neutral clips" in result.stdout
    rows = lines_of("openface.csv")
    assert list(rows[0])[-5:] == ["session", *AUS, *(f"{au}_z" for au in AUS)]
    assert len(rows) == 1440
    for label, expected in (("neutral", 0.0), ("smile", 2.0)):
        smile = np.array([[float(row[au]) for au in AUS] for row in rows if row["label"] == label])
        np.testing.assert_allclose(np.median(smile, axis=0), [0, expected], atol=0.03)
    rest = lines_of("openface.rest.csv")
    assert len(rest) == 6 * 3 * 2
    assert {row["session"] for row in rest} == {"all", "1", "2"}
    assert {(row["frames"], row["clips"]) for row in rest if row["session"] == "1"} == {("60", "1")}
    page = json.loads(Path("openface.rest/page.json").read_text())
    assert [figure["name"] for figure in page["figures"]] == ["rest", "drift"]
    assert {row["person"] for row in lines_of("openface.rest/drift.csv") if row["drifts"] == "True"} == {"s3"}
    run_well("import openface.csv --columns .*_z --out z.h5")
    run_well("report openface.rest")
    run_well("calibrate openface --neutral video:*neutral_1,*neutral_2 --out o.parquet --no-plots")
    read = [pyarrow.parquet.read_table("o.parquet"), pyarrow.csv.read_csv("openface.csv")]
    assert read[0].drop(["session"]).equals(read[1].drop(["session"]).cast(read[0].drop(["session"]).schema))


def test_who_has_no_neutral_frame_is_left_out_and_listed(openface, run_json, refusals):
    lines = Path("openface/manifest.csv").read_text().replace("s6,neutral", "s6,talk")
    Path("few.csv").write_text(lines)
    data = run_json("calibrate openface --manifest few.csv --out o.csv --no-plots", code=3)
    assert (data["left_out"], "s6: no neutral frame" in data.stderr) == (["s6"], True)
    assert not re.search("s6,|nan", Path("o.csv").read_text().lower())
    table = {
        "--out o.xlsx": "ends in .csv or .parquet",
        "--out o.csv --neutral calm": "no row has the label 'calm' (labels: neutral, smile)",
        "--out o.csv --neutral video:s9*": "no row has the video 's9*'",
        "--out o.csv --neutral none.csv": "none.csv: no such file",
    }
    refusals(table, "calibrate openface")

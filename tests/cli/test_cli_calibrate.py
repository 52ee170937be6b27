"""`featlab calibrate` from a folder of OpenFace's csv files to a table, its resting faces and its figures."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

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


def test_a_folder_becomes_distances_from_each_persons_rest(openface, run, run_well, lines_of):
    result = run_well("calibrate", "openface", "--out", "openface.csv")
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
    assert run_well("import", "openface.csv", "--columns", ".*_z", "--out", "z.h5").exit_code == 0
    assert run_well("report", "openface.rest").exit_code == 0
    run_well("calibrate", "openface", "--neutral", "video:*neutral_1,*neutral_2", "--out", "o.parquet", "--no-plots")
    read = [pyarrow.parquet.read_table("o.parquet"), pyarrow.csv.read_csv("openface.csv")]
    assert read[0].drop(["session"]).equals(read[1].drop(["session"]).cast(read[0].drop(["session"]).schema))


def test_who_has_no_neutral_frame_is_left_out_and_listed(openface, run):
    lines = Path("openface/manifest.csv").read_text().replace("s6,neutral", "s6,talk")
    Path("few.csv").write_text(lines)
    result = run("calibrate", "openface", "--manifest", "few.csv", "--out", "o.csv", "--no-plots", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["left_out"] == ["s6"]
    assert "s6: no neutral frame" in result.stderr
    assert "s6," not in Path("o.csv").read_text()
    assert "nan" not in Path("o.csv").read_text().lower()


def test_bad_words_are_one_line(openface, refusals):
    refusals(
        {
            "--out o.xlsx": "ends in .csv or .parquet",
            "--out o.csv --neutral calm": "no row has the label 'calm' (labels: neutral, smile)",
            "--out o.csv --neutral video:s9*": "no row has the video 's9*'",
            "--out o.csv --neutral none.csv": "none.csv: no such file",
        },
        "calibrate",
        "openface",
    )

"""`featlab plot pairs | clip | confusion` as typed, in a folder that holds nothing but a cache."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from featlab.cache import write_table

PAGE = ("svg", "pdf", "png", "csv")
TABLE = ("json", "jsonl", "csv", "md", "tex")


def page_files(figure, table):
    return {
        *(f"{figure}.{ending}" for ending in PAGE),
        *(f"table_{table}.{ending}" for ending in TABLE),
        "page.json",
    }


def lines(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def page_of(folder):
    return json.loads((folder / "page.json").read_text(encoding="utf-8"))


def pictured(folder, table, extractor):
    """Give the rows of the cache pictures beside it, each of a colour of its own."""
    names = tuple(f"frames/{row}.png" for row in range(len(table)))
    (folder / "cache.h5").unlink()
    write_table(folder / "cache.h5", replace(table, paths=names), extractor)
    (folder / "faces" / "frames").mkdir(parents=True)
    for row, name in enumerate(names):
        Image.new("RGB", (8, 8), (row, 100, 50)).save(folder / "faces" / name)
    return folder / "faces"


def test_pairs_draws_every_strategy_and_counts_over_all_rows_and_gives_the_same_bytes(folder, run_well, table):
    made, written = folder / "results" / "plot-pairs", []
    for _ in range(2):
        result = run_well("plot", "pairs", "--rows", "2", "--subject", "s038")
        written.append({path.name: path.read_bytes() for path in made.iterdir()})
    assert written[0] == written[1]
    assert {path.name for path in made.iterdir()} == page_files("pairs", "pairs")
    rows = lines(made / "pairs.csv")
    assert [row["strategy"] for row in rows] == ["random"] * 2 + ["cosine"] * 2 + ["landmark"] * 2
    assert all(row["row_subject"] != row["reference_subject"] for row in rows)
    assert "s038" not in {row[side] for row in rows for side in ("row_subject", "reference_subject")}
    source = (table.subject != 0).sum()
    assert [row["Pairs"] for row in lines(made / "table_pairs.csv")] == [str(source)] * 3
    assert result.stdout.splitlines()[-1].startswith(f"{made.relative_to(folder)}: pairs.{{svg,pdf,png,csv}}")
    assert "the cache names no images: landmarks are drawn" in result.stderr
    assert page_of(made)["command"] == "featlab plot pairs --rows 2 --subject s038"


def test_pairs_without_landmarks_leaves_landmark_out_and_says_so(folder, run_well, table, extractor):
    (folder / "cache.h5").unlink()
    write_table(folder / "cache.h5", replace(table, landmarks=None), extractor)
    result = run_well("plot", "pairs", "--rows", "1")
    assert "strategy landmark is left out" in result.stderr
    assert "landmark" not in {row["strategy"] for row in lines(folder / "results" / "plot-pairs" / "pairs.csv")}


def test_pairs_in_json_are_those_that_featlab_pair_makes(folder, run, run_json):
    data = run_json("plot", "pairs", "--strategies", "cosine", "--label-rule", "same", "--targets", "2", "--rows", "1")
    paired = run_json("pair", "--strategy", "cosine", "--label-rule", "same", "--targets", "2")
    assert paired["reused"]
    assert [item["strategy"] for item in data["strategies"]] == ["cosine"]
    assert data["strategies"][0]["same_label"] == paired["same_label_share"] == 1.0
    assert data["strategies"][0]["cosine"] == pytest.approx(paired["median_score"], abs=0.2)
    assert all(word in data for word in ("examples", "words", "files"))


def test_refusals_of_pairs(folder, refusals):
    table = {
        "--strategies cosin": "unknown strategy 'cosin'",
        "--faces drawings": "plot.faces",
        "--images nowhere": "no such folder",
        "--subject s0": "unknown subject 's0'",
    }
    refusals(table, "plot", "pairs")


def test_clip_takes_the_first_target_and_its_most_expressive_test_video(folder, run_well, quickly):
    result = run_well("plot", "clip", "--targets", "3", "--faces", "none", *quickly)
    subject = result.stderr.partition("subject: ")[2].partition(",")[0]
    made = folder / "results" / f"plot-clip-{subject}-smile-a-pft"
    assert {path.name for path in made.iterdir()} == page_files("clip", "clip")
    rows = lines(made / "clip.csv")
    assert [int(row["frame"]) for row in rows] == list(range(6))
    assert {row["label"] for row in rows} == {"smile"}
    assert "Of the 6 labelled frames" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(f"results/{made.name}: clip.{{svg,pdf,png,csv}}")


def test_clip_reuses_the_bundle_of_adapt_and_predicts_as_predict_does(folder, run_well, run_json, quickly):
    run_well("adapt", "--subject", "s040", "--method", "neutral-shift", *quickly)
    flags = ["--subject", "s040", "--method", "neutral-shift", *quickly]
    bare = ["--faces", "none", *flags]
    clip = run_well("plot", "clip", "--video", "smile-b", *bare)
    assert "train:" not in clip.stderr
    run_well("predict", *flags)
    predicted = [float(row["p_smile"]) for row in lines(folder / "predictions.csv") if row["video"] == "smile-b"]
    shown = lines(folder / "results" / "plot-clip-s040-smile-b-neutral-shift" / "clip.csv")
    assert [float(row["after"]) for row in shown] == pytest.approx(predicted, abs=1e-5)
    data = run_json("plot", "clip", "--video", "smile-b", "--class", "neutral", "--smooth", "3", *bare)
    assert (data["subject"], data["video"], data["class"]) == ("s040", "smile-b", "neutral")
    edge = [1 - np.mean(predicted[:2]), 1 - np.mean(predicted[-2:])]
    assert [data["frames"]["after"][0], data["frames"]["after"][-1]] == pytest.approx(edge, abs=1e-5)


def test_refusals_of_clip(trained, refusals, quickly):
    table = {
        "--video smile-z": "no such video",
        "--video neutral-a": "adapted on",
        "--class fear": "none of the classes",
        "--subject s999": "unknown subject 's999'",
        "--smooth 2": "odd",
    }
    table = {f"--subject s041 {words}" if "--subject" not in words else words: said for words, said in table.items()}
    refusals(table, "plot", "clip", "--quiet", *quickly)
    refusals({"--subject s041 --method oracle": "given the person's labels"}, "plot", "clip", "--quiet", *quickly)
    assert not list((trained / "results").glob("plot-*"))


def test_clip_warns_where_nothing_is_labelled(folder, run_well, table, extractor, quickly):
    label = table.label.copy()
    label[table.subject == 2] = -1
    (folder / "cache.h5").unlink()
    write_table(folder / "cache.h5", replace(table, label=label), extractor)
    flags = ["--subject", "s040", "--method", "neutral-shift", "--faces", "none", *quickly]
    result = run_well("plot", "clip", *flags)
    assert "featlab: warning: no row of 's040' has a label" in result.stderr
    assert re.search(r"None of the \d+ frames has a label", result.stdout)


@pytest.mark.parametrize("faces", ["photographs", "landmarks"])
def test_faces_beside_the_cache_are_shown_as_asked(folder, run_well, table, extractor, quickly, faces):
    pictured(folder, table, extractor)
    flags = ["--subject", "s040", "--video", "smile-b", "--method", "neutral-shift", "--faces", faces, *quickly]
    result = run_well("plot", "clip", *flags)
    assert "images" not in result.stderr
    path = folder / "results" / "plot-clip-s040-smile-b-neutral-shift" / "clip.png"
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    first = int(np.flatnonzero((table.subject == 2) & (table.video == 3))[0])
    seen = [(np.abs(pixels - np.array([row, 100, 50])).max(axis=1) <= 2).sum() for row in (first, first + 5)]
    assert all(count > 1000 for count in seen) == (faces == "photographs")


def test_images_named_by_flag_and_by_file_are_found(folder, run, table, extractor):
    pictures = pictured(folder, table, extractor)
    pictures.rename(folder / "elsewhere")
    flags = ["plot", "pairs", "--rows", "1", "--strategies", "random"]
    assert "--images DIR" in run(*flags).stderr
    assert "images" not in run(*flags, "--images", "elsewhere").stderr
    (folder / "featlab.toml").write_text('[plot]\nimages = "elsewhere"\n', encoding="utf-8")
    for row in range(1, len(table)):
        (folder / "elsewhere" / "frames" / f"{row}.png").unlink()
    assert "2 images are not in elsewhere: their landmarks are drawn" in run(*flags).stderr


def test_confusion_shows_the_newest_results_with_their_class_names(trained, evaluated, run_well, run_json):
    result = run_well("plot", "confusion")
    assert f"results: results/{evaluated.name}, the newest" in result.stderr
    made = trained / "results" / f"plot-confusion-{evaluated.name}"
    assert {path.name for path in made.iterdir()} == page_files("confusion", "confusion")
    rows = lines(made / "confusion.csv")
    assert [row["method"] for row in rows] == ["source-only"] * 4 + ["pft"] * 4
    pairs = [(label, predicted) for label in ("neutral", "smile") for predicted in ("neutral", "smile")]
    assert [(row["label"], row["predicted"]) for row in rows] == 2 * pairs
    assert page_of(made)["facts"]["cache_digest"]
    data = run_json("plot", "confusion", str(evaluated), "--methods", "source-only,neutral-shift,pft")
    counts = data["confusion"]
    diagonal = [
        share
        for share, label, predicted in zip(counts["share"], counts["label"], counts["predicted"], strict=True)
        if label == predicted
    ]
    wanted = [float(row[name]) for row in lines(evaluated / "table_classes.csv") for name in ("neutral", "smile")]
    assert [100 * share for share in diagonal] == pytest.approx(wanted, abs=0.005)


def test_confusion_reads_a_file_and_takes_names_from_a_cache(trained, evaluated, run_well):
    moved = trained / "moved"
    moved.mkdir()
    (evaluated / "results.jsonl").rename(moved / "results.jsonl")
    bare = run_well("plot", "confusion", "moved/results.jsonl", "--workspace", "moved")
    assert "the classes are numbered" in bare.stderr
    assert "Class 1" in bare.stdout
    named = run_well("plot", "confusion", "moved", "--cache", "cache.h5")
    assert "Class 1" not in named.stdout
    assert named.stderr == ""


def test_refusals_of_confusion(trained, evaluated, refusals):
    refusals({"nowhere": "no results there", "--methods shot --quiet": "no method 'shot'"}, "plot", "confusion")
    path = evaluated / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    old = [{name: value for name, value in row.items() if name != "confusion"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in old), encoding="utf-8")
    refusals({"plot confusion --quiet": "run the same evaluation again"})
    assert not list((trained / "results").glob("plot-*"))
    path.parent.rename("moved")
    refusals({"plot confusion": "run featlab evaluate first"})

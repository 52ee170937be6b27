"""`featlab plot pairs | clip | confusion` as typed, in a folder that holds nothing but a cache."""

import csv
import json
import re
import shutil
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


def test_pairs_draws_every_strategy_and_counts_over_all_rows(folder, run, table):
    result = run("plot", "pairs", "--rows", "2", "--subject", "s038")
    assert result.exit_code == 0, result.stderr
    made = folder / "results" / "plot-pairs"
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


def test_pairs_without_landmarks_leaves_landmark_out_and_says_so(folder, run, table, extractor):
    (folder / "cache.h5").unlink()
    write_table(folder / "cache.h5", replace(table, landmarks=None), extractor)
    result = run("plot", "pairs", "--rows", "1")
    assert result.exit_code == 0, result.stderr
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


def test_pairs_refuses_what_it_can_not_show(folder, refused):
    assert "unknown strategy 'cosin'" in refused("plot", "pairs", "--strategies", "cosin")
    assert "plot.faces" in refused("plot", "pairs", "--faces", "drawings")
    assert "no such folder" in refused("plot", "pairs", "--images", "nowhere")
    assert "unknown subject 's0'" in refused("plot", "pairs", "--subject", "s0")
    assert not (folder / "results").exists()


def test_clip_takes_the_first_target_and_its_most_expressive_test_video(folder, run, quickly):
    result = run("plot", "clip", "--targets", "3", "--faces", "none", *quickly)
    assert result.exit_code == 0, result.stderr
    subject = result.stderr.partition("subject: ")[2].partition(",")[0]
    made = folder / "results" / f"plot-clip-{subject}-smile-a-pft"
    assert {path.name for path in made.iterdir()} == page_files("clip", "clip")
    rows = lines(made / "clip.csv")
    assert [int(row["frame"]) for row in rows] == list(range(6))
    assert {row["label"] for row in rows} == {"smile"}
    assert "Of the 6 labelled frames" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(f"results/{made.name}: clip.{{svg,pdf,png,csv}}")


def test_clip_reuses_the_bundle_of_adapt_and_predicts_as_predict_does(folder, run, run_json, quickly):
    assert run("adapt", "--subject", "s040", "--method", "neutral-shift", *quickly).exit_code == 0
    flags = ["--subject", "s040", "--method", "neutral-shift", *quickly]
    bare = ["--faces", "none", *flags]
    clip = run("plot", "clip", "--video", "smile-b", *bare)
    assert clip.exit_code == 0, clip.stderr
    assert "train:" not in clip.stderr
    assert run("predict", *flags).exit_code == 0
    predicted = [float(row["p_smile"]) for row in lines(folder / "predictions.csv") if row["video"] == "smile-b"]
    shown = lines(folder / "results" / "plot-clip-s040-smile-b-neutral-shift" / "clip.csv")
    assert [float(row["after"]) for row in shown] == pytest.approx(predicted, abs=1e-5)
    data = run_json("plot", "clip", "--video", "smile-b", "--class", "neutral", "--smooth", "3", *bare)
    assert (data["subject"], data["video"], data["class"]) == ("s040", "smile-b", "neutral")
    edge = [1 - np.mean(predicted[:2]), 1 - np.mean(predicted[-2:])]
    assert [data["frames"]["after"][0], data["frames"]["after"][-1]] == pytest.approx(edge, abs=1e-5)


def test_clip_refuses_in_one_line(folder, refused, quickly):
    flags = ["--subject", "s040", "--quiet", *quickly]
    assert "no such video" in refused("plot", "clip", "--video", "smile-z", *flags)
    assert "adapted on" in refused("plot", "clip", "--video", "neutral-a", *flags)
    assert "none of the classes" in refused("plot", "clip", "--class", "fear", *flags)
    assert "unknown subject 's999'" in refused("plot", "clip", "--subject", "s999", "--quiet", *quickly)
    assert "odd" in refused("plot", "clip", "--smooth", "2", *flags)
    assert "given the person's labels" in refused("plot", "clip", "--method", "oracle", *flags)
    assert not (folder / "results").exists()


def test_clip_warns_where_nothing_is_labelled(folder, run, table, extractor, quickly):
    label = table.label.copy()
    label[table.subject == 2] = -1
    (folder / "cache.h5").unlink()
    write_table(folder / "cache.h5", replace(table, label=label), extractor)
    flags = ["--subject", "s040", "--method", "neutral-shift", "--faces", "none", *quickly]
    result = run("plot", "clip", *flags)
    assert result.exit_code == 0, result.stderr
    assert "featlab: warning: no row of 's040' has a label" in result.stderr
    assert re.search(r"None of the \d+ frames has a label", result.stdout)


@pytest.mark.parametrize("faces", ["photographs", "landmarks"])
def test_faces_beside_the_cache_are_shown_as_asked(folder, run, table, extractor, quickly, faces):
    pictured(folder, table, extractor)
    flags = ["--subject", "s040", "--video", "smile-b", "--method", "neutral-shift", "--faces", faces, *quickly]
    result = run("plot", "clip", *flags)
    assert result.exit_code == 0, result.stderr
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


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the results of the one evaluation are kept from test to test."""
    return tmp_path_factory.mktemp("kept") / "results"


@pytest.fixture
def evaluated(folder, kept, run, quickly):
    """The folder of an evaluation, in a workspace that holds nothing else."""
    if not kept.exists():
        flags = ["--targets", "3", "--methods", "source-only,neutral-shift", "--jobs", "1", "--no-plots", *quickly]
        result = run("evaluate", *flags)
        assert result.exit_code == 0, result.stderr
        shutil.copytree(folder / "results", kept)
    else:
        shutil.copytree(kept, folder / "results")
    return next(path for path in (folder / "results").iterdir() if path.name.startswith("evaluate-"))


def test_confusion_shows_the_newest_results_with_their_class_names(folder, run, run_json, evaluated):
    result = run("plot", "confusion")
    assert result.exit_code == 0, result.stderr
    assert f"results: results/{evaluated.name}, the newest" in result.stderr
    made = folder / "results" / f"plot-confusion-{evaluated.name}"
    assert {path.name for path in made.iterdir()} == page_files("confusion", "confusion")
    rows = lines(made / "confusion.csv")
    assert {row["method"] for row in rows} == {"source-only"}
    assert [(row["label"], row["predicted"]) for row in rows] == [
        (label, predicted) for label in ("neutral", "smile") for predicted in ("neutral", "smile")
    ]
    data = run_json("plot", "confusion", str(evaluated), "--methods", "source-only,neutral-shift")
    recalls = lines(evaluated / "table_classes.csv")
    diagonal = [share for share, a, b in zip(*_triples(data["confusion"]), strict=True) if a == b]
    wanted = [float(row[name]) for row in recalls for name in ("neutral", "smile")]
    assert [100 * share for share in diagonal] == pytest.approx(wanted, abs=0.005)
    assert page_of(made)["facts"]["cache_digest"]


def _triples(columns):
    return columns["share"], columns["label"], columns["predicted"]


def test_confusion_reads_a_file_and_takes_names_from_a_cache(folder, run, evaluated):
    moved = folder / "moved"
    moved.mkdir()
    (evaluated / "results.jsonl").rename(moved / "results.jsonl")
    bare = run("plot", "confusion", "moved/results.jsonl", "--workspace", "moved")
    assert bare.exit_code == 0, bare.stderr
    assert "the classes are numbered" in bare.stderr
    assert "Class 1" in bare.stdout
    named = run("plot", "confusion", "moved", "--cache", "cache.h5")
    assert "Class 1" not in named.stdout
    assert named.stderr == ""


def test_confusion_refuses_in_one_line(folder, refused, evaluated):
    assert "no results there" in refused("plot", "confusion", "nowhere")
    assert "no method 'pft'" in refused("plot", "confusion", "--methods", "pft", "--quiet")
    path = evaluated / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    old = [{name: value for name, value in row.items() if name != "confusion"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in old), encoding="utf-8")
    assert "run the same evaluation again" in refused("plot", "confusion", "--quiet")
    assert not list((folder / "results").glob("plot-*"))


def test_confusion_needs_results(folder, refused):
    assert "run featlab evaluate first" in refused("plot", "confusion")


@pytest.mark.parametrize("command", ["pairs", "clip", "confusion"])
def test_help_says_what_is_drawn(run, command):
    result = run("plot", command, "--help")
    assert result.exit_code == 0
    assert "To be written" not in result.stdout
    assert "--workspace" in result.stdout


def test_the_same_command_gives_the_same_bytes(folder, run):
    written = []
    for _ in range(2):
        assert run("plot", "pairs", "--rows", "1").exit_code == 0
        made = next((folder / "results").glob("plot-*"))
        written.append({path.name: path.read_bytes() for path in made.iterdir()})
    assert written[0] == written[1]

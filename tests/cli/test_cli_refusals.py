"""What is refused: by every command in one line, with exit code 2, and before any folder is made."""

from pathlib import Path

import pytest

READ = "no effect here: it belongs to"
FORM = f"{READ} pretrain.form = joint or pretrain.form = mlp"
LINEAR = "--set pretrain.form=linear"
SHARES = ("0/2", "3/2", "2", "a/b", "-1/2", "1/0")

# The first words of a command, what follows them, and what the line says.
BESIDE_A_CACHE = {
    "": {
        "nosuch": "--help",
        "train --nosuch": "--help",
        "adapt": "--help",
        "evaluate --draws 0": "--help",
        "london photographs": "benchmarks/london_morph/make_clips.py",
        # The line is not wrapped, and its brackets are no markup.
        f"adapt --subject '[bold]{'very ' * 60}long[/bold]'": f"[bold]{'very ' * 60}long[/bold]",
        "predict --subject s04l": "unknown subject 's04l' among the 8 of the cache; did you mean 's04",
        f"pretrain --quiet --strategy cosine {LINEAR}": f"pair.strategy has {FORM}",
        "pair --quiet --strategy random --index HNSW32": f"pair.index has {READ} pair.strategy = auto",
        f"evaluate --targets 2 --methods source-only,pft --label-rule same {LINEAR}": f"pair.label_rule has {FORM}",
        f"export --out model.safetensors --set pretrain.axis=vector {LINEAR}": f"pretrain.axis has {FORM}",
    },
    "train --quiet": {
        "--set head.epoch=3": "did you mean 'epochs'",
        "--set head.epochs": "expected key=value",
        "--targets s04x": "did you mean 's04",
        "--targets 8": "at least one must stay a source",
        "--targets s038,s039,s040,s041,s042,s043,s044": "at least 2 source subjects",
        "--device tpu": "tpu",
        "-C nosuch": "no such folder",
    },
    "adapt --quiet --subject s041": {
        "--method ptf": "did you mean 'pft'",
        "--bundle nosuch": "no model bundle there",
        "--set adapt.pft.iteration=3": "did you mean 'iterations'",
    },
    "predict --quiet --subject s041": {
        "--smooth 2": "--smooth = 2 must be odd",
        **{
            flag: f"{flag.split()[0]} says how images are read"
            for flag in ("--backbone hog", "--option cell=6", "--align", "--fps 5")
        },
    },
    "evaluate --targets 2 --jobs 1": {
        "--methods pft,sorce-only": "did you mean 'source-only'",
        "--targets 99": "8 subjects",
        "--pool s038": "--targets 2: the pool has 1 subjects",
        "--smooth 4": "protocol.smoothing = 4 must be odd",
        "--contamination 1.5": "protocol.contamination = 1.5",
        "--name ../x": "without slashes",
        "--name ..": "one folder",
    },
    "benchmark --targets 2 --jobs 1": {
        **{f"--share={share}": "for example 2/8" for share in SHARES},
        "--scope datasets": "did you mean 'dataset'",
        "--scope dataset --frames 3": f"frames has {READ} protocol.scope = person",
    },
    "ablate --targets 3 --quiet": {
        "dims --values big": "whole number",
        "dimensions": "unknown ablation 'dimensions'",
    },
    "tune --quiet --targets 2": {
        "shott": "did you mean 'shot'",
        "shot-im --space epochs=many": "--space epochs",
        "shot-im --trials 1": "--trials",
        "shot-im --sources s99": "s99",
        "shot-im --set adapt.shot-im.lrr=1": "did you mean 'lr'",
        "shot-im -C nowhere": "no such folder",
    },
    "export": {
        "--out model.bin": "which format?",
        "--out a.pt2 --subject s04l": "did you mean 's04",
        "--out a.pt2 --backbone resnet18": "has no weights",
    },
    "plot": {
        "pairs --strategies cosin": "unknown strategy 'cosin'",
        "pairs --faces drawings": "plot.faces",
        "tsne --quiet --methods ,": "names no method",
        "tsne --quiet --subject s04": "unknown subject 's04'",
        "clip --quiet --subject s999": "unknown subject 's999'",
        "clip --quiet --subject s041 --class smil": "none of the classes, neutral, smile; did you mean 'smile'",
        "confusion": "run featlab evaluate first",
        "confusion nowhere": "no results there",
    },
    "branches --quiet": {"--targets s038,s39": "did you mean", "--draws 0": "--draws"},
    "complexity --quiet": {
        "--targets 2 --repeat 0": "--repeat",
        "--batch 1": "--batch",
        "--targets 2 --methods ptf": "'pft'",
    },
    "report": {
        "": "run featlab evaluate first (or benchmark",
        "nowhere": "nowhere: no page.json there",
    },
}


@pytest.mark.parametrize("first", BESIDE_A_CACHE)
def test_refused_beside_a_cache(first, folder, refusals):
    Path("featlab.toml").unlink()
    refusals(BESIDE_A_CACHE[first], first)


def test_refused_in_a_trained_workspace(evaluated, refusals):
    Path("taken").mkdir()
    refusals(
        {
            "adapt --quiet --subject s041 --method oracle": "needs the target's labels",
            "plot clip --quiet --subject s041 --video smile-z": "no such video",
            "plot confusion --quiet --methods shot": "no method 'shot'",
            "report --out taken": "a folder of that name is in the way",
        }
    )


def test_what_the_file_says_is_refused_alike(folder, refusals):
    tuned = "tune shot-im --targets 2 --folds 3 --apply --quiet"
    for text, words, said in (
        ("[pretrain]\nepoch = 3\n", "pair", "did you mean 'epochs'"),
        ("adapt = { shot = { lr = 0.5 } }\n", tuned, "no place for a section [adapt.shot-im]"),
    ):
        Path("featlab.toml").write_text(text)
        refusals({words: said})
        assert Path("featlab.toml").read_text() == text


def test_a_truncated_cache_and_a_missing_one_are_refused(folder, refusals):
    data = Path("cache.h5").read_bytes()
    Path("cache.h5").write_bytes(data[: len(data) // 2])
    refusals(dict.fromkeys(("inspect", "adapt --subject s041", "train", "evaluate"), "cache.h5"))
    Path("cache.h5").unlink()
    for command in ("inspect", "verify", "pair", "adapt --subject s041"):
        refusals({command: "featlab extract", f"{command} --cache nosuch.h5": "nosuch.h5"})

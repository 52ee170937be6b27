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
        "--set head.epochs": "section.key=value",
        "--targets s04x": "did you mean 's04",
        "--targets 8": "at least one must stay a source",
        "--targets s038,s039,s040,s041,s042,s043,s044": "at least 2 source subjects",
        "--device tpu": "tpu",
        "-C nosuch": "no such folder",
    },
    "adapt --quiet": {
        "--subject s04l": "unknown subject 's04l' among the 8 of the cache; did you mean 's04",
        "--subject s041 --method ptf": "did you mean 'pft'",
        "--subject s041 --bundle nosuch": "no model bundle there",
        "--subject s041 --set adapt.pft.iteration=3": "did you mean 'iterations'",
    },
    "predict --subject s041": {
        f"{flag}": f"{flag.split()[0]} says how images are read"
        for flag in ("--backbone hog", "--option cell=6", "--align", "--fps 5")
    },
    "evaluate --targets 2 --jobs 1": {
        "--methods pft,sorce-only": "did you mean 'source-only'",
        "--targets 99": "8 subjects",
        "--pool s038": "--targets 2: the pool has 1 subjects",
        "--pool s038,s039 --targets s038,s039": "leave out --pool",
        "--smooth 4": "protocol.smoothing = 4 must be odd",
        "--contamination 1.5": "protocol.contamination = 1.5",
    },
    "benchmark --targets 2 --jobs 1": {
        **{f"--share={share}": "for example 2/8" for share in SHARES},
        "--scope datasets": "did you mean 'dataset'",
        "--scope dataset --frames 3": f"frames has {READ} protocol.scope = person",
        "--scope dataset --contamination 0.1": f"contamination has {READ} protocol.scope",
    },
    "ablate --targets 3 --quiet": {
        "dims --values big": "whole number",
        "dimensions": "unknown ablation 'dimensions'",
        "pairing --values nearest": "is not one of",
    },
    "tune --quiet --targets 2": {
        "shott": "did you mean 'shot'",
        "shot-im --space epochs=many": "--space epochs",
        "shot-im --trials 1": "--trials",
        "shot-im --scope people": "protocol.scope",
        "shot-im --sources s99": "s99",
        "shot-im --set adapt.shot-im.lrr=1": "did you mean 'lr'",
        "shot-im -C nowhere": "no such folder",
    },
    "export": {
        "--out model.bin": "which format?",
        "--out a.pt2 --subject s04l": "did you mean 's04",
        "--out a.pt2 --bundle nosuch": "no model bundle there",
        "--out a.pt2 --backbone resnet18": "has no weights",
        "--out a.pt2 --backbone hogg": "did you mean 'hog'",
    },
    "plot pairs": {
        "--strategies cosin": "unknown strategy 'cosin'",
        "--faces drawings": "plot.faces",
        "--subject s0": "unknown subject 's0'",
    },
    "plot tsne --quiet": {
        "--methods ,": "names no method",
        "--subject s04": "unknown subject 's04'",
        "--subject s040 --methods ptf": "did you mean 'pft'",
    },
    "branches --quiet": {
        "--targets s038,s39": "did you mean",
        "--targets 3 --pool s038": "the pool has 1 subjects",
        "--draws 0": "--draws",
    },
    "complexity --quiet": {
        "--targets 2 --repeat 0": "--repeat",
        "--batch 1": "--batch",
    },
}
IN_A_TRAINED_WORKSPACE = {
    "plot clip --quiet": {
        "--subject s041 --video smile-z": "no such video",
        "--subject s999": "unknown subject 's999'",
        "--subject s041 --class smil": "none of the classes, neutral, smile; did you mean 'smile'",
        "--subject s041 --method oracle": "given the person's labels",
    },
    "plot confusion --quiet": {"nowhere": "no results there", "--methods shot": "no method 'shot'"},
    "adapt --subject s041 --quiet": {"--method oracle": "needs the target's labels"},
    "evaluate --targets 2 --quiet": {
        "--name ../x": "without slashes",
        "--name /x": "without slashes",
        "--name ..": "one folder",
    },
    "predict --subject s041 --quiet": {"--smooth 2": "--smooth = 2 must be odd"},
    "report": {"--out taken": "a folder of that name is in the way", "nowhere": "nowhere: no page.json there"},
}


@pytest.mark.parametrize("first", BESIDE_A_CACHE)
def test_refused_beside_a_cache(first, folder, refusals):
    refusals(BESIDE_A_CACHE[first], *first.split())


def test_refused_in_a_trained_workspace(trained, refusals, quickly):
    Path("taken").mkdir()
    for first, table in IN_A_TRAINED_WORKSPACE.items():
        # confusion and report train nothing, and have no such flags.
        more = () if first.startswith(("plot confusion", "report")) else quickly
        refusals(table, *first.split(), *more)
    assert not list(Path("results").glob("plot-*"))


def test_what_the_file_says_is_refused_alike(folder, refusals):
    tuned = "tune shot-im --targets 2 --folds 3 --apply --quiet"
    for text, words, said in (
        ("[pretrain]\nepoch = 3\n", "pair", "did you mean 'epochs'"),
        ("adapt = { shot = { lr = 0.5 } }\n", tuned, "no place for a section [adapt.shot-im]"),
    ):
        Path("featlab.toml").write_text(text)
        refusals({words: said})
        assert Path("featlab.toml").read_text() == text
    Path("featlab.toml").unlink()
    refusals({"plot confusion": "run featlab evaluate first", "report": "run featlab evaluate first (or benchmark"})


def test_a_truncated_cache_and_a_missing_one_are_refused(folder, refusals):
    data = (folder / "cache.h5").read_bytes()
    (folder / "cache.h5").write_bytes(data[: len(data) // 2])
    refusals(dict.fromkeys(("inspect", "adapt --subject s041", "train", "evaluate"), "cache.h5"))
    (folder / "cache.h5").unlink()
    for command in ("inspect", "verify", "pair", "adapt --subject s041"):
        refusals({command: "featlab extract", f"{command} --cache nosuch.h5": "nosuch.h5"})

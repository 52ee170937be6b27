"""The golden record: what every command computes on a few drawn rows, to notice when a change of form changes a number.

The committed record is compared loosely, because another processor rounds otherwise. On one machine, before and after a
change, compare strictly, also on a real cache:

    python -P tests/test_golden.py write FILE [--cache CACHE.h5]
    python -P tests/test_golden.py compare FILE [--cache CACHE.h5]
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from featlab import ExtractorInfo, FeatureTable, write_table
from featlab.cli.app import make_app
from featlab.methods import make_method

RECORD = Path(__file__).parent / "data" / "golden.json"
QUICK = {"head.epochs": 3, "features.dim": 6, "head.bottleneck": 8, "pretrain.hidden": 8, "pretrain.epochs": 3}
"""A source model in a moment."""
LINEAR = {"pretrain.form": "linear"}
SLOW = {"clup", "sfda-it", "sfit", "sfda-de", "dsfda", "agra"}
ABLATIONS = ("dims", "pairing", "losses", "lambda", "layers", "share", "neutral", "sources", "contamination", "bn")
PLACES = 12
"""Numbers are written with that many digits."""


def drawn_rows(people: int = 9, frames: int = 12, dim: int = 12, points: int = 5) -> FeatureTable:
    """Rows of people with two neutral and two smiling clips; their look at rest crosses the classifier's border."""
    rng = np.random.default_rng(7)
    smile, mouth = rng.normal(size=dim), rng.normal(size=(points, 2))
    videos = ("neutral-a", "neutral-b", "smile-a", "smile-b")
    rows = people * len(videos) * frames
    label = np.tile(np.repeat([0, 0, 1, 1], frames), people)
    subject = np.repeat(np.arange(people), len(videos) * frames)
    person = rng.normal(size=(people, dim)) + rng.normal(size=(people, 1)) * smile
    face = rng.normal(size=(people, points, 2))
    embeddings = person[subject] + label[:, None] * smile + 0.3 * rng.normal(size=(rows, dim))
    landmarks = face[subject] + 0.2 * label[:, None, None] * mouth + 0.02 * rng.normal(size=(rows, points, 2))
    return FeatureTable(
        embeddings=embeddings.astype(np.float32),
        label=label.astype(np.int16),
        subject=subject.astype(np.int32),
        video=np.tile(np.repeat(np.arange(4), frames), people).astype(np.int32),
        frame=np.tile(np.arange(frames), people * len(videos)).astype(np.int32),
        subjects=tuple(f"s{number:03}" for number in range(people)),
        videos=videos,
        classes=("neutral", "smile"),
        neutral="neutral",
        landmarks=landmarks.astype(np.float32),
    )


def run_json(*words: str) -> dict[str, Any]:
    """Type a command with --json in the current folder and return what it prints."""
    result = CliRunner().invoke(make_app(), [*words, "--json", "--quiet"])
    if result.exit_code not in (0, 3):
        raise AssertionError(f"featlab {' '.join(words)}: {result.stderr[-400:]}")
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def settings(values: Mapping[str, Any]) -> list[str]:
    """Return values as --set flags."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def parts(quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run every command in the current folder and yield its name and numbers, a command at a time."""
    base = settings(QUICK) if quick else []
    # To start processes takes longer than the little that each would do.
    jobs = ("--jobs", "1") if quick else ()
    linear = [
        *settings({key: value for key, value in QUICK.items() if "pretrain" not in key} if quick else {}),
        *settings(LINEAR),
    ]
    yield "cache", {"digest": run_json("inspect")["digest"]}
    yield "train", _tensors(Path(run_json("train", *base)["folder"]))
    for strategy in ("landmark", "cosine", "random"):
        for rule in ("any", "same", "different"):
            words = ("--strategy", strategy, "--label-rule", rule)
            yield f"pair {strategy} {rule}", _tensors(Path(run_json("pair", *words, *base)["folder"]))
    for name, flags in (("joint", base), ("linear", linear)):
        bundle = Path(run_json("pretrain", "--methods", "pft,pft-poster,dsfda,sfda-de", *flags)["folder"])
        yield f"bundle {name}", _tensors(bundle)
    methods = [
        item["name"] for item in json.loads(CliRunner().invoke(make_app(), ["methods", "--json"]).stdout)["methods"]
    ]
    methods = methods if quick else [name for name in methods if name not in SLOW]
    targets = "1" if quick else "4"
    for name, flags in (("joint", base), ("linear", linear)):
        chosen = methods if name == "joint" else ["pft", "pft-linear"]
        words = ("--targets", targets, "--methods", ",".join(chosen), "--no-plots", *flags)
        found = run_json("evaluate", *words, *jobs, *settings(_short_runs(chosen) if quick else {}))
        for method in chosen:
            yield f"evaluate {name} {method}", _scores(found["results"], method)
    subject = sorted(run_json("inspect")["subjects"])[1]
    for method in ("pft", "shot", "coral"):
        flags = ["--subject", subject, "--set", f"adapt.method={method}", *base]
        run_json("predict", *flags, "--out", f"{method}.csv")
        yield f"predict {method}", {"p": _csv(Path(f"{method}.csv"))}
        run_json("export", "--subject", subject, "--method", method, *base, "--out", f"{method}.safetensors")
        yield f"export {method}", {key: _facts(value) for key, value in load_file(f"{method}.safetensors").items()}
    few = settings({"ablate.dims": "4,0", "ablate.style": "0,1", "ablate.expression": "0,1", "ablate.counts": "4,0"})
    few += settings({"ablate.carried": "0,1"})
    few += settings(
        {"ablate.alignment": "0,1", "ablate.anchor": "0,1", "ablate.frames": "1,0", "ablate.shares": "0,.5"}
    )
    for what in ABLATIONS:
        done = run_json("ablate", what, "--targets", targets, *jobs, *few, *base)
        yield f"ablate {what}", {"summary": _numbers(done["summary"])}


def record(cache: Path | None) -> dict[str, dict[str, Any]]:
    """Return the record of the drawn rows, or of a cache."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        if cache is None:
            write_table(Path("cache.h5"), drawn_rows(), ExtractorInfo("toy", "none", "random numbers"))
        else:
            shutil.copy(cache, "cache.h5")
        return dict(parts(quick=cache is None))


def differences(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]], tolerance: float
) -> list[str]:
    """Return a line for each thing that is missing, new, or further away than the tolerance."""
    lines = [f"{name}: only in one of the two" for name in old.keys() ^ new.keys()]
    for name in old.keys() & new.keys():
        lines += [f"{name} {key}: only in one of the two" for key in old[name].keys() ^ new[name].keys()]
        for key in old[name].keys() & new[name].keys():
            one, two = old[name][key], new[name][key]
            if isinstance(one, str) or isinstance(two, str):
                same, far = one == two, 0.0
            else:
                first, second = np.array(one, dtype=float), np.array(two, dtype=float)
                same = first.shape == second.shape and np.allclose(first, second, tolerance, tolerance, equal_nan=True)
                far = float(np.nanmax(np.abs(first - second))) if first.shape == second.shape and first.size else 0.0
            if not same:
                lines.append(f"{name} {key}: differs by {far:.2g}")
    return sorted(lines)


def _short_runs(methods: list[str]) -> dict[str, Any]:
    """Return settings under which no method takes more than a few steps."""
    configs = {name: make_method(name).config for name in methods}
    return {
        f"adapt.{name}.{key}": 20
        for name, config in configs.items()
        for key in ("iterations", "prepare_iterations", "ssl_iterations", "epochs")
        if getattr(config, key, 0) > 20
    }


def _facts(values: np.ndarray) -> list[float]:
    """Return what tells one tensor from another: its size, mean, spread and a weighted sum that knows the order."""
    flat = values.astype(np.float64).ravel()
    weights = np.cos(np.arange(len(flat)))
    return [_short(item) for item in (len(flat), flat.mean(), flat.std(), flat @ weights / max(1, len(flat)))]


def _tensors(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {key: _facts(value) for key, value in load_file(path).items()}
    return found


def _scores(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    own = [row for row in rows if row["method"] == method]
    keys = ("macro_f1", "accuracy", "balanced_accuracy", "neutral_recall", "iterations", "trainable")
    return {key: [_short(row[key]) for row in own if row.get(key) is not None] for key in keys}


def _csv(path: Path) -> list[float]:
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    return _facts(np.array([[float(value) for key, value in row.items() if key.startswith("p_")] for row in rows]))


def _numbers(rows: list[dict[str, Any]]) -> list[float]:
    """Return every number of a table, row by row, but for what a line search and a clock decide."""
    return [
        _short(value)
        for row in rows
        for key, value in sorted(row.items())
        if isinstance(value, int | float) and not {"seconds", "flops", "iterations"} & set(key.split("_"))
    ]


def _short(value: float) -> float:
    return float(f"{float(value):.{PLACES}g}")


@pytest.mark.slow
def test_the_numbers_are_those_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    # In no number of the record, and two thirds of the time: figures, and every run once more to count its operations.
    monkeypatch.setattr("featlab.analysis.style.save_plot", lambda *given: [])
    monkeypatch.setattr("featlab.evaluation.run.count_flops", lambda run: math.nan)
    # Another processor rounds otherwise, and a step of a training that rounds otherwise goes a little elsewhere.
    loose = differences(json.loads(RECORD.read_text(encoding="utf-8")), record(None), 0.05)
    # Where a line search decides how far a step goes, on six frames, one frame can fall on the other side.
    assert [line for line in loose if not line.startswith(("ablate losses", "ablate lambda"))] == []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-6)
    arguments = parser.parse_args()
    found = record(arguments.cache and arguments.cache.resolve())
    if arguments.what == "write":
        arguments.file.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
        return
    lines = differences(json.loads(arguments.file.read_text(encoding="utf-8")), found, arguments.tolerance)
    print("\n".join(lines) or f"{len(found)} parts, all the same to {arguments.tolerance:g}")
    sys.exit(bool(lines))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

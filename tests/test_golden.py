"""The golden record: what every command computes on a few drawn rows, to notice when a change of form changes a number.

The committed record is compared loosely, because another processor rounds otherwise. On one machine, before and after a
change, compare strictly:

    python -P tests/test_golden.py write FILE
    python -P tests/test_golden.py compare FILE
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
SMALL = {"head.epochs": 3, "features.dim": 6, "head.bottleneck": 8}
"""A source model in a moment; T is an MLP beside the linear part, or linear."""
FORMS = {"joint": {"pretrain.hidden": 8, "pretrain.epochs": 3}, "linear": {"pretrain.form": "linear"}}
ABLATED = {f"ablate.{key}": "0,1" for key in ("style", "expression", "carried", "alignment", "anchor")} | {
    "ablate.dims": "4,0",
    "ablate.counts": "4,0",
    "ablate.frames": "1,0",
    "ablate.shares": "0,.5",
}
ABLATIONS = ("dims", "pairing", "losses", "lambda", "layers", "share", "neutral", "sources", "contamination", "bn")
SHORT = 20
"""No method takes more steps; to start processes takes longer than the little that each would do."""


def drawn_rows() -> FeatureTable:
    """Rows of people with two neutral and two smiling clips; their look at rest crosses the classifier's border."""
    people, frames, dim, points = 9, 12, 12, 5
    rng = np.random.default_rng(7)
    smile, mouth = rng.normal(size=dim), rng.normal(size=(points, 2))
    videos = ("neutral-a", "neutral-b", "smile-a", "smile-b")
    rows = [(person, video, frame) for person in range(people) for video in videos for frame in range(frames)]
    subject, video, frame = map(np.array, zip(*rows, strict=True))
    label = np.char.startswith(video, "smile").astype(float)
    person = rng.normal(size=(people, dim)) + rng.normal(size=(people, 1)) * smile
    face = rng.normal(size=(people, points, 2))
    embeddings = person[subject] + label[:, None] * smile + 0.3 * rng.normal(size=(len(rows), dim))
    landmarks = face[subject] + 0.2 * label[:, None, None] * mouth + 0.02 * rng.normal(size=(len(rows), points, 2))
    return FeatureTable.named(
        embeddings.astype(np.float32),
        [name.partition("-")[0] for name in video.tolist()],
        [f"s{number:03}" for number in subject],
        video.tolist(),
        frame,
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


def parts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Run every command in the current folder and yield its name and numbers, a command at a time."""
    flags = {name: settings(SMALL | form) for name, form in FORMS.items()}
    base = flags["joint"]
    yield "cache", {"digest": run_json("inspect")["digest"]}
    yield "train", _tensors(Path(run_json("train", *base)["folder"]))
    for strategy in ("landmark", "cosine", "random"):
        for rule in ("any", "same", "different"):
            words = ("--strategy", strategy, "--label-rule", rule)
            yield f"pair {strategy} {rule}", _tensors(Path(run_json("pair", *words, *base)["folder"]))
    for name in FORMS:
        bundle = Path(run_json("pretrain", "--methods", "pft,pft-poster,dsfda,sfda-de", *flags[name])["folder"])
        yield f"bundle {name}", _tensors(bundle)
    listed = json.loads(CliRunner().invoke(make_app(), ["methods", "--json"]).stdout)["methods"]
    for name, methods in (("joint", [each["name"] for each in listed]), ("linear", ["pft", "pft-linear"])):
        words = ("--targets", "1", "--methods", ",".join(methods), "--no-plots", "--jobs", "1")
        found = run_json("evaluate", *words, *flags[name], *settings(_short_runs(methods)))
        for method in methods:
            yield f"evaluate {name} {method}", _scores(found["results"], method)
    subject = ("--subject", sorted(run_json("inspect")["subjects"])[1])
    for method in ("pft", "shot", "coral"):
        run_json("predict", *subject, "--set", f"adapt.method={method}", *base, "--out", f"{method}.csv")
        yield f"predict {method}", {"p": _csv(Path(f"{method}.csv"))}
        run_json("export", *subject, "--method", method, *base, "--out", f"{method}.safetensors")
        yield f"export {method}", {key: _facts(value) for key, value in load_file(f"{method}.safetensors").items()}
    for what in ABLATIONS:
        done = run_json("ablate", what, "--targets", "1", "--jobs", "1", *settings(ABLATED), *base)
        yield f"ablate {what}", {"summary": _numbers(done["summary"])}


def record() -> dict[str, dict[str, Any]]:
    """Return the record of the drawn rows."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        write_table(Path("cache.h5"), drawn_rows(), ExtractorInfo("toy", "none", "random numbers"))
        return dict(parts())


def differences(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]], tolerance: float
) -> list[str]:
    """Return a line for each thing that is missing, new, or further away than the tolerance."""
    one, two = (
        {f"{name} {key}": value for name, part in each.items() for key, value in part.items()} for each in (old, new)
    )
    lines = [f"{name}: only in one of the two" for name in one.keys() ^ two.keys()]
    for name in one.keys() & two.keys():
        if isinstance(one[name], str) or len(one[name]) != len(two[name]):
            lines += [f"{name}: differs"] if one[name] != two[name] else []
        elif not np.allclose(one[name], two[name], tolerance, tolerance, equal_nan=True):
            lines.append(f"{name}: differs by {np.nanmax(np.abs(np.subtract(one[name], two[name]))):.2g}")
    return sorted(lines)


def _short_runs(methods: Sequence[str]) -> dict[str, Any]:
    configs = {name: make_method(name).config for name in methods}
    return {
        f"adapt.{name}.{key}": SHORT
        for name, config in configs.items()
        for key in ("iterations", "prepare_iterations", "ssl_iterations", "epochs")
        if getattr(config, key, 0) > SHORT
    }


def _facts(values: np.ndarray) -> list[float]:
    """Return what tells one tensor from another: its size, mean, spread and a weighted sum that knows the order."""
    flat = values.astype(np.float64).ravel()
    weights = np.cos(np.arange(len(flat)))
    return [_short(item) for item in (len(flat), flat.mean(), flat.std(), flat @ weights / max(1, len(flat)))]


def _tensors(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("*.safetensors"))
    return {key: _facts(value) for path in files for key, value in load_file(path).items()}


def _scores(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    own = [row for row in rows if row["method"] == method]
    keys = ("macro_f1", "accuracy", "balanced_accuracy", "neutral_recall", "iterations", "trainable")
    scores = {key: [_short(row[key]) for row in own if row.get(key) is not None] for key in keys}
    # Scores of few rows hide a small change: the sum of the confidences tells every one.
    return scores | {"confidence": [_short(sum(row["reliability"][1::3])) for row in own]}


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
    return float(f"{float(value):.12g}")


@pytest.mark.slow
def test_the_numbers_are_those_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    # In no number of the record, and two thirds of the time: figures, and every run once more to count its operations.
    monkeypatch.setattr("featlab.analysis.style.save_plot", lambda *given: [])
    monkeypatch.setattr("featlab.evaluation.run.count_flops", lambda run: math.nan)
    # Another processor rounds otherwise, and a step of a training that rounds otherwise goes a little elsewhere.
    loose = differences(json.loads(RECORD.read_text(encoding="utf-8")), record(), 0.05)
    # Where a line search decides how far a step goes, on six frames, one frame can fall on the other side.
    assert [line for line in loose if not line.startswith(("ablate losses", "ablate lambda"))] == []


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    what, file = sys.argv[1], Path(sys.argv[2]).resolve()
    made = record()
    if what == "write":
        file.write_text(json.dumps(made, indent=0) + "\n", encoding="utf-8")
    elif changed := differences(json.loads(file.read_text(encoding="utf-8")), made, 1e-6):
        sys.exit("\n".join(changed))
    else:
        print(f"{len(made)} parts, all the same to 1e-06")

"""Odd numbers through every command: the right answer or one line, never a raw warning and never a score of NaN."""

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featlab import write_table
from featlab.cache.table import LARGEST

COMMANDS = (
    *("pair", "pair --strategy cosine", "adapt --subject s00", "predict --subject s00"),
    "evaluate --targets 2 --methods source-only,neutral-shift,adabn,referenced,pft --no-plots --jobs 1",
)


def changed(table, where, value):
    embeddings = table.embeddings.copy()
    embeddings[where] = value
    return replace(table, embeddings=embeddings)


ODD = {
    "zero": lambda table: changed(table, slice(None), 0),
    "a constant": lambda table: changed(table, slice(None), 1.5),
    "a zero column": lambda table: changed(table, (slice(None), 3), 0),
    "a person of zeros": lambda table: changed(table, table.subject == 0, 0),
    "large": lambda table: changed(table, slice(None), table.embeddings * np.float32(1e13)),
    "one large value": lambda table: changed(table, (3, 2), LARGEST),
    "small": lambda table: changed(table, slice(None), table.embeddings * np.float32(1e-30)),
    "one person": lambda table: table.take(table.subject == 0),
    "two people": lambda table: table.take(table.subject < 2),
    "one class": lambda table: table.take(table.label == 1),
    "one frame a person": lambda table: table.take((table.frame == 0) & (table.video % 2 == 0)),
    "one frame a video": lambda table: table.take(table.frame == 0),
    "no face": lambda table: replace(table, landmarks=np.full_like(table.landmarks, np.nan)),
    "faces of one point": lambda table: replace(table, landmarks=np.zeros_like(table.landmarks)),
    "large faces": lambda table: replace(table, landmarks=table.landmarks * np.float32(1e30)),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_numbers_give_an_answer_or_one_line(what, folder, people, extractor, run):
    write_table("cache.h5", ODD[what](people(8, 2, 5, 12, 2, seed=7)), extractor)
    for words in COMMANDS:
        with warnings.catch_warnings():
            for kind in (RuntimeWarning, UserWarning):
                warnings.simplefilter("error", kind)
            result = run(words)
        assert result.exit_code in (0, 2, 3), (words, result.stderr)
        if result.exit_code == 2:
            (line,) = [line for line in result.stderr.splitlines() if "error" in line]
            assert line.startswith("featlab: error: ")
            assert "this is a bug" not in line
    for path in Path("results").rglob("results.jsonl"):
        for row in map(json.loads, path.read_text().splitlines()):
            assert row["error"] or 0 <= row["macro_f1"] <= 1
    if Path("predictions.csv").exists():
        assert not re.search(r"\bnan\b", Path("predictions.csv").read_text())

"""Odd numbers through every command: the right answer or one line, never a raw warning and never a score of NaN."""

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from featlab.cache import verify_cache, write_table
from featlab.cache.encode import write_array
from featlab.cache.table import LARGEST
from featlab.errors import FeatlabError

COMMANDS = (
    "pair",
    "pair --strategy cosine",
    "adapt --subject s00",
    "predict --subject s00",
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
def test_odd_numbers_give_an_answer_or_one_line(what, people, extractor, tmp_path, monkeypatch, run, quickly):
    monkeypatch.chdir(tmp_path)
    table = people(8, 2, 5, 12, 2, seed=7)
    write_table("cache.h5", ODD[what](table), extractor)
    for words in COMMANDS:
        with warnings.catch_warnings():
            for kind in (RuntimeWarning, UserWarning):
                warnings.simplefilter("error", kind)
            result = run(*words.split(), *quickly, "--set", "pretrain.epochs=2")
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


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_values_that_no_embedding_has_are_refused_at_every_door(value, folder, table, extractor, run, refused):
    with pytest.raises(FeatlabError, match="not finite, or above 1e"):
        write_table("other.h5", changed(table, (3, 2), value), extractor)
    with pytest.raises(FeatlabError, match=r"too large for float16|not finite"):
        write_table("other.h5", changed(table, (3, 2), 1e5), extractor, dtype="float16")
    # A cache that somebody else wrote: its digest fits.
    with h5py.File("cache.h5", "r+") as file:
        del file["embeddings"]
        write_array(file, "embeddings", changed(table, (3, 2), value).embeddings)
    for words in ("train", "pair --strategy cosine", "adapt --subject s038"):
        assert "not finite, or above 1e" in refused(*words.split(), "-q")
    assert any("not finite" in problem for problem in verify_cache("cache.h5"))
    Path("t.csv").write_text(
        "subject,label,video,frame,x\n" + "".join(f"{who},calm,v,{n},{n + 1}\n" for who in "ab" for n in range(3))
    )
    text = Path("t.csv").read_text().replace("b,calm,v,1,2", f"b,calm,v,1,{value}")
    Path("t.csv").write_text(text)
    assert "line 6" in refused("import", "t.csv", "--neutral", "calm", "--out", "i.h5")
    result = run("import", "t.csv", "--neutral", "calm", "--out", "i.h5", "--skip-bad")
    assert result.exit_code == 3

import importlib.metadata
import json
import math
from dataclasses import replace
from unittest.mock import Mock

import pytest

from featlab.analysis.page import json_lines
from featlab.cache.atomic import atomic_write_text
from featlab.errors import InputError
from featlab.evaluation.results import read_results, versions


@pytest.fixture
def finished(result):
    return result("pft", "s041", 0.7831, seed=2, histogram=(30, 12), frames=42)


def test_rows_survive_the_round_trip_through_a_file_of_strict_json(tmp_path, finished, result):
    failed = result("shot", "sübject", math.nan, draw=1, error="needs two classes")
    full = replace(finished, macro_f1_smoothed=0.8, reliability=tuple(range(45)))
    path = tmp_path / "results.jsonl"
    for rows in ([], [finished, failed, full]):
        atomic_write_text(path, json_lines(row.to_dict() for row in rows))
        read = read_results(path)
        assert [row.to_dict() for row in read] == [row.to_dict() for row in rows]
    assert math.isnan(read[0].non_neutral_recall)
    assert read[0].histogram == (30, 12)
    assert list(tmp_path.iterdir()) == [path]

    def refuse(name):
        raise AssertionError(name)

    line = json.loads(path.read_text(encoding="utf-8").splitlines()[0], parse_constant=refuse)
    assert line["non_neutral_recall"] is None
    # What an older file does not have is missing.
    path.write_text(
        json.dumps({key: value for key, value in line.items() if key not in ("macro_f1_smoothed", "reliability")})
    )
    (old,) = read_results(path)
    assert math.isnan(old.macro_f1_smoothed)
    assert old.reliability == ()


def test_a_damaged_line_is_named_by_file_and_line(tmp_path, finished, refused):
    def damaged(**changes):
        return json.dumps({**finished.to_dict(), **changes})

    path = tmp_path / "results.jsonl"
    for line, said in (
        (damaged()[:-9], "no JSON"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": NaN}', "NaN is no finite number"),
        (damaged(macro_f2=1.0), "unknown key 'macro_f2'; did you mean 'macro_f1'"),
        (json.dumps({"method": "pft"}), "missing subject, draw"),
        (damaged(draw=True), "draw is True, expected int"),
        (damaged(draw=-1), "draw is -1"),
        (damaged(draw=1.0), "draw is 1.0"),
        (damaged(accuracy="0.8"), "accuracy is '0.8', expected float"),
        (damaged(accuracy=10**400), "accuracy is"),
        (damaged(histogram=[1, 2.5]), "histogram is 2.5"),
        (damaged(histogram=3), "expected whole numbers"),
        (damaged(collapsed=1), "collapsed is 1, expected bool"),
        (damaged(selection="best"), "selection = 'best' is not one of source-free"),
        (damaged(macro_f1=None), "no finite macro_f1 and no error"),
        (damaged(reliability=[1.0, 2.0]), "reliability has 2 numbers, expected 45"),
        (damaged(confusion=[1, 2, 3]), "confusion has 3 counts, expected "),
    ):
        path.write_text(damaged() + "\n" + line + "\n", encoding="utf-8")
        with refused(InputError, f"{path}, line 2: ", said):
            read_results(path)


def test_what_can_not_be_read_or_says_nothing_is_refused(tmp_path, finished, refused):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"\n\xff\xfe{}\n")
    for call, words in (
        (lambda: read_results(path), "line 2: no JSON"),
        (lambda: read_results(tmp_path / "nothing.jsonl"), "No such file"),
        (lambda: replace(finished, macro_f1=float("nan")), "no error that says why"),
    ):
        with refused(InputError, words):
            call()


def test_versions_name_what_a_result_depends_on(monkeypatch):
    found, real = versions(), importlib.metadata.version
    assert {"python", "featlab", "torch", "numpy"} <= set(found)
    assert all(found.values())
    # A library under another name is left out.
    missing = importlib.metadata.PackageNotFoundError
    monkeypatch.setattr(importlib.metadata, "version", Mock(side_effect=[missing, *map(real, ["numpy"] * 9)]))
    assert len(versions()) == len(found) - 1

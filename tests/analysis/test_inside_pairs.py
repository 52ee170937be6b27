"""Example pairs and what the strategies do to all rows, against scipy and plain loops."""

import math
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from scipy.spatial import procrustes

from featlab.analysis.inside.faces import find_faces
from featlab.analysis.inside.pairs import (
    agreement,
    agreement_sentence,
    agreement_table,
    draw_pairs,
    example_columns,
    example_pairs,
    example_rows,
    first_references,
    known_strategies,
    pair_cosine,
    pair_disparity,
    pairs_result,
)
from featlab.config.sections import PairConfig
from featlab.errors import ConfigError, InputError
from featlab.pairing.pairs import Pairs, make_pairs

FRAMES = 4


@pytest.fixture
def rows_of(people):
    """``rows_of(landmarks=True, subjects=5)``: people of long names with three videos, of one class each."""

    def make(landmarks=True, subjects=5):
        table = people(subjects, 1, FRAMES, 7, 3, landmarks=landmarks)
        return replace(table, subjects=tuple(f"participant_{number:04}_session_2" for number in range(subjects)))

    return make


def examples_of(workspace, strategies=("random", "cosine", "landmark"), count=4):
    return example_pairs(workspace.source(()), strategies, count)


def test_cosine_and_disparity_are_those_of_plain_numpy_and_scipy_also_beyond_a_block(monkeypatch, rows_of):
    table = rows_of()
    table.embeddings[3], table.landmarks[5] = 0, np.nan
    row, reference = np.array([0, 1, 3, 9, 5]), np.array([20, 33, 40, 3, 50])
    a, b = table.embeddings[row].astype(float), table.embeddings[reference].astype(float)
    with np.errstate(invalid="ignore"):
        expected = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    cosine, shape = pair_cosine(table, row, reference), pair_disparity(table, row, reference)
    assert cosine == pytest.approx(expected, abs=1e-7, nan_ok=True)
    for found, left, right in zip(shape, table.landmarks[row], table.landmarks[reference], strict=True):
        whole = np.isfinite(left).all()
        assert found == pytest.approx(procrustes(left, right)[2] if whole else math.nan, abs=1e-6, nan_ok=True)
    monkeypatch.setattr("featlab.analysis.inside.pairs._BLOCK", 2)
    assert np.array_equal(pair_cosine(table, row, reference), cosine, equal_nan=True)


def test_agreement_is_the_mean_over_all_pairs_and_nothing_where_there_is_nothing(rows_of):
    table = rows_of()
    table.label[:2] = -1
    for strategy, neighbours in (("cosine", 2), ("landmark", 1)):
        pairs = make_pairs(table, PairConfig(strategy=strategy, neighbours=neighbours), seed=0)
        found = agreement(pairs, table)
        same, score = table.label[pairs.row] == table.label[pairs.reference], float(pairs.score.mean())
        known = (table.label[pairs.row] >= 0) & (table.label[pairs.reference] >= 0)
        assert found.same_label == pytest.approx(same[known].mean())
        assert (found.cosine if strategy == "cosine" else 1 - found.disparity) == pytest.approx(score, abs=1e-5)
        assert found.used == pytest.approx(len(set(pairs.reference.tolist())) / len(table))
        assert (found.pairs, found.skipped) == (neighbours * len(table), 0)
    bare = rows_of(landmarks=False)
    bare.label[:] = -1
    bare.embeddings[:] = 0
    found = agreement(make_pairs(bare, PairConfig(strategy="random"), seed=0), bare)
    assert agreement_table([found]).rows[0][:6] == ("random", "60", "0", "–", "–", "–")


def test_examples_are_spread_with_their_first_reference_and_landmark_is_left_out_where_there_are_none(rows_of):
    table = rows_of(subjects=9)
    picked = table.take(np.array(example_rows(table, 3)))
    assert (picked.subject_names_present(), picked.label.tolist()) == (table.subjects[::4], [0, 1, 2])
    assert set(picked.frame) == {FRAMES // 2}
    assert len(example_rows(table, 50)) == 9
    row, reference = np.array([1, 1, 4, 7, 7]), np.array([9, 8, 3, 5, 2])
    pairs = Pairs(row, reference, np.ones(5, dtype=np.float32), strategy="cosine", label_rule="any", skipped=0)
    assert first_references(pairs, [0, 1, 4, 6, 7, 12]).tolist() == [-1, 9, 3, -1, 5, -1]
    without = rows_of(landmarks=False)
    assert known_strategies(["landmark", "random", "random"], rows_of()) == (("landmark", "random"), "")
    shown, note = known_strategies(["random", "landmark"], without)
    assert (shown, "landmark is left out" in note) == (("random",), True)
    for names, said in [(["landmarks"], "did you mean 'landmark'"), ([], "none was named"), (["landmark"], "no landm")]:
        with pytest.raises(ConfigError, match=said):
            known_strategies(names, without)


def test_the_examples_are_the_pairs_that_featlab_pair_makes(opened, rows_of):
    workspace = opened(rows_of(), **{"pair.label_rule": "same", "protocol.seed": 3})
    examples = examples_of(workspace)
    source = workspace.source(())
    for strategy, references in examples.references.items():
        pairs = make_pairs(source.table, PairConfig(strategy=strategy, label_rule="same"), seed=3)
        wanted = dict(zip(pairs.row.tolist(), pairs.reference.tolist(), strict=True))
        assert references.tolist() == [wanted[row] for row in examples.rows.tolist()]
        assert (source.table.subject[references] != source.table.subject[examples.rows]).all()
    assert [item.same_label for item in examples.agreements] == [1.0] * 3
    said = "Label rule same: the same label in 100.0 % of random, 100.0 % of cosine, 100.0 % of landmark pairs."
    assert agreement_sentence(examples.agreements, "same") == said
    alone = opened(rows_of(), **{"protocol.sources": ["participant_0001_session_2"]})
    with pytest.raises(InputError, match="two source subjects"):
        examples_of(alone)


def test_a_row_without_a_reference_has_an_empty_place_and_an_unknown_label_no_line(opened, rows_of):
    table = rows_of()
    table = replace(table, label=table.label * 0 - 1)
    table.landmarks[example_rows(table, 3)[1]] = np.nan
    examples = examples_of(opened(table), ("landmark",), count=3)
    assert (examples.references["landmark"] >= 0).tolist() == [True, False, True]
    assert examples.agreements[0].skipped == 1
    assert example_columns(examples)["row_label"] == ["", ""]
    figure = draw_pairs(examples, lambda row: np.full((6, 6, 3), row, dtype=np.uint8))
    assert [bool(axes.images) for axes in figure.axes] == [True] * 3 + [True, False, True]
    assert figure.axes[0].get_xlabel() == "participant_0000_session_2"
    assert figure.axes[3].get_xlabel().endswith(f"\n{example_columns(examples)['disparity'][0]:.4f}")


def test_the_folder_holds_the_numbers_and_pictures_are_of_the_cache_s_rows(opened, stored, readable, rows_of):
    # A subject is held out: the source's rows are not the first ones of the cache.
    workspace = opened(rows_of())
    examples = example_pairs(workspace.source((workspace.table.subjects[0],)), ("random",), 2)
    faces, asked = find_faces(workspace), []
    result = pairs_result(examples, faces, "any")
    readable(result.figures[0].drawn)
    stored(result)
    assert result.notes == [faces.note]
    spy = Mock(table=workspace.table, note="", image=Mock(side_effect=asked.append))
    assert pairs_result(examples, spy, "any").notes == []
    seen = workspace.table.take(np.array(asked, dtype=np.intp))
    wanted = examples.source.embeddings[np.concatenate([examples.references["random"], examples.rows])]
    assert sorted(seen.embeddings.tolist()) == sorted(wanted.tolist())
    assert 0 not in seen.subject

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.spatial

from featlab.config.sections import LABEL_RULES, STRATEGIES, PairConfig
from featlab.errors import ConfigError, InputError
from featlab.pairing.pairs import make_pairs, pairs_summary, write_pairs_csv

CLASSES = ("anger", "neutral", "disgust")


@pytest.fixture(scope="module")
def make_table(people):
    """``make_table(subjects=7, frames=6, …)``: 3 videos a subject, some rows without a label, some without a face."""

    def make(subjects=7, frames=6, seed=0, noise=1.0, unknown=0.1, faceless=0.05):
        table = people(subjects, 1, frames, classes=len(CLASSES), seed=seed, noise=noise)
        rng = np.random.default_rng(seed)
        table.label[rng.random(len(table)) < unknown] = -1
        table.landmarks[rng.random(len(table)) < faceless] = np.nan
        return table

    return make


def scipy_similarity(table):
    """1 - scipy's disparity for every two rows, NaN without a face; it is symmetric, so half is computed."""
    n = len(table)
    similarity = np.full((n, n), np.nan)
    faces = np.flatnonzero(np.isfinite(table.landmarks).all(axis=(1, 2)))
    points = table.landmarks.astype(np.float64)
    for place, i in enumerate(faces):
        for j in faces[place + 1 :]:
            if table.subject[i] != table.subject[j]:
                similarity[i, j] = similarity[j, i] = 1.0 - scipy.spatial.procrustes(points[i], points[j])[2]
    return similarity


def cosine_similarity(table):
    rows = table.embeddings.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    with np.errstate(invalid="ignore"):
        return rows @ rows.T / norms / norms[:, None]


def admissible(table, row, rule):
    """The rows that may be the row's reference by subject and label, one at a time."""
    for other in np.flatnonzero(table.subject != table.subject[row]).tolist():
        mine, theirs = table.label[row], table.label[other]
        if rule == "any" or (min(mine, theirs) >= 0 and (mine == theirs) == (rule == "same")):
            yield other


def naive_pairs(table, similarity, rule, k):
    pairs = []
    for row in range(len(table)):
        scored = [(-round(similarity[row, other], 11), other) for other in admissible(table, row, rule)]
        scored = sorted(pair for pair in scored if not np.isnan(pair[0]))
        pairs += [(row, other) for _, other in scored[:k]]
    return pairs


def check(table, config, similarity):
    pairs = make_pairs(table, config, seed=0)
    expected = naive_pairs(table, similarity, config.label_rule, config.neighbours)
    assert list(zip(pairs.row.tolist(), pairs.reference.tolist(), strict=True)) == expected
    np.testing.assert_allclose(pairs.score, similarity[pairs.row, pairs.reference], atol=1e-6)
    assert pairs.skipped == len(table) - len({row for row, _ in expected})
    assert (pairs.row.dtype, pairs.reference.dtype, pairs.score.dtype) == (np.int64, np.int64, np.float32)


@pytest.fixture(scope="module")
def faces(make_table):
    table = make_table(subjects=12, faceless=0.02)
    return table, scipy_similarity(table)


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_landmark_pairs_equal_a_loop_over_scipys_procrustes(rule, faces):
    table, similarity = faces
    check(table, PairConfig("landmark", rule), similarity)
    check(table, PairConfig("landmark", rule, neighbours=3), similarity)


@pytest.mark.parametrize("rule", LABEL_RULES)
@pytest.mark.parametrize(("noise", "k"), [(1.0, 1), (0.01, 4)])
@pytest.mark.parametrize("no_faiss", ["0", "1"])
def test_cosine_pairs_equal_brute_force(rule, noise, k, no_faiss, monkeypatch, make_table):
    monkeypatch.setenv("FEATLAB_NO_FAISS", no_faiss)
    table = make_table(subjects=12, noise=noise)
    check(table, PairConfig("cosine", rule, k), cosine_similarity(table))


@pytest.fixture(scope="module")
def equal_faces(make_table):
    """Rows about four times each."""
    table = make_table(subjects=5, frames=2)
    table = table.take(np.sort(np.random.default_rng(1).integers(30, size=120)))
    return table, scipy_similarity(table)


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_equal_rows_are_paired_in_table_order(rule, equal_faces):
    table, similarity = equal_faces
    check(table, PairConfig("cosine", rule, neighbours=6), cosine_similarity(table))
    check(table, PairConfig("landmark", rule, neighbours=6), similarity)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_the_rows_changes_no_pair(strategy, make_table):
    table = make_table(seed=4)
    shuffle = np.random.default_rng(0).permutation(len(table))
    config = PairConfig(strategy, "different", neighbours=3)
    straight, shuffled = make_pairs(table, config, seed=1), make_pairs(table.take(shuffle), config, seed=1)
    known = set(zip(straight.row.tolist(), straight.reference.tolist(), strict=True))
    assert known == set(zip(shuffle[shuffled.row].tolist(), shuffle[shuffled.reference].tolist(), strict=True))


def test_rows_with_few_admissible_references_get_those_there_are(make_table):
    table = make_table(subjects=2, frames=10, unknown=0)
    table = replace(table, label=np.where(np.arange(60) == 0, 1, 0).astype(np.int16))
    for strategy in STRATEGIES:
        pairs = make_pairs(table, PairConfig(strategy, "different", neighbours=5), seed=0)
        second = table.subject == 1
        usable = np.isfinite(table.landmarks).all(axis=(1, 2)) if strategy == "landmark" else np.ones(60, bool)
        assert np.bincount(pairs.row, minlength=60)[0] == 5
        assert set(pairs.row.tolist()) == {0} | set(np.flatnonzero(second & usable).tolist())
        assert (pairs.reference[pairs.row > 0] == 0).all()


def test_random_references_are_uniform_over_the_admissible_rows(make_table):
    table = make_table(subjects=4, frames=3, seed=6)
    one = [make_pairs(table, PairConfig("random"), seed=1).reference for _ in range(2)]
    np.testing.assert_array_equal(*one)
    for rule in LABEL_RULES:
        counts = np.zeros((len(table), len(table)))
        for seed in range(400):
            pairs = make_pairs(table, PairConfig("random", rule, neighbours=2), seed=seed)
            np.add.at(counts, (pairs.row, pairs.reference), 1)
            assert np.isnan(pairs.score).all()
            assert len(set(zip(pairs.row.tolist(), pairs.reference.tolist(), strict=True))) == len(pairs)
            assert pairs.skipped == len(table) - len(set(pairs.row.tolist()))
        for row in range(len(table)):
            allowed = list(admissible(table, row, rule))
            if len(allowed) > 2:
                expected = 800 / len(allowed)
                assert counts[row].sum() == counts[row, allowed].sum() == 800
                chi_square = ((counts[row, allowed] - expected) ** 2 / expected).sum()
                assert chi_square < scipy.stats.chi2.isf(1e-5, len(allowed) - 1)
            else:
                assert counts[row].sum() == counts[row, allowed].sum() == 400 * len(allowed)


def test_rows_without_a_direction_take_no_part_in_cosine(make_table):
    table = make_table()
    embeddings = table.embeddings.copy()
    embeddings[[3, 50]] = 0.0
    pairs = make_pairs(replace(table, embeddings=embeddings), PairConfig("cosine"), seed=0)
    assert pairs.skipped == 2
    assert not np.isin([3, 50], np.concatenate([pairs.row, pairs.reference])).any()


def test_a_strategy_is_resolved_and_a_wrong_configuration_refused_with_the_closest_name(refused, make_table):
    assert make_pairs(make_table(), PairConfig(), seed=0).strategy == "landmark"
    assert (PairConfig().resolved(False), PairConfig("random").resolved(True)) == ("cosine", "random")
    for options, words in (
        ({"strategy": "landmarks"}, ("pair.strategy = 'landmarks'", "did you mean 'landmark'")),
        ({"label_rule": "differnt"}, ("pair.label_rule = 'differnt'", "did you mean 'different'")),
        ({"neighbours": 0}, ("pair.neighbours = 0",)),
    ):
        with refused(ConfigError, *words):
            PairConfig(**options, where="pair")
    with refused(ConfigError, "a seed is 0 or more"):
        make_pairs(make_table(), PairConfig(), seed=-1)


def test_rows_that_can_not_be_paired_are_refused_with_the_remedy(refused, make_table):
    table = make_table()
    bare = replace(table, landmarks=None)
    faceless = replace(table, landmarks=np.full_like(table.landmarks, np.nan))
    blank = replace(table, embeddings=np.zeros_like(table.embeddings))
    unlabelled, one_class = (replace(bare, label=np.full(len(table), code, np.int16)) for code in (-1, 0))
    two, different = "two source subjects and the rows hold fewer", {"label_rule": "different"}
    rule = ("label rule 'different' may pair", "use label rule 'any'")
    for rows, options, words in (
        (table.rows_of("s02"), {}, (f"{two} (s02)",)),
        (table.take([]), {}, (f"{two} (none)",)),
        (bare, {"strategy": "landmark"}, ("--landmarks FILE, or use --strategy cosine",)),
        (faceless, {"strategy": "landmark"}, ("check the landmarks, or use --strategy cosine",)),
        (blank, {"strategy": "cosine"}, ("look for zero embeddings",)),
        (unlabelled, different, rule),
        (one_class, different, rule),
    ):
        with refused(InputError, *words):
            make_pairs(rows, PairConfig(**options), seed=0)


def test_the_summary_counts_the_pairs(make_table):
    table = make_table(seed=8)
    pairs = make_pairs(table, PairConfig("cosine", neighbours=2), seed=0)
    summary = json.loads(json.dumps(pairs_summary(pairs, table), allow_nan=False))
    uses = np.array([pairs.reference.tolist().count(row) for row in range(len(table))])
    labels = [(table.label[i], table.label[j]) for i, j in zip(pairs.row, pairs.reference, strict=True)]
    assert (summary["pairs"], summary["skipped"]) == (2 * len(table), 0)
    assert (summary["reference_rows"], summary["most_used_row"]) == (sum(uses > 0), max(uses))
    assert summary["same_label_share"] == pytest.approx(np.mean([a == b for a, b in labels if min(a, b) >= 0]))
    assert summary["median_score"] == pytest.approx(float(np.median(pairs.score)))
    assert summary["references"] == {name: sum(uses[table.subject == code]) for code, name in enumerate(table.subjects)}
    random = make_pairs(replace(table, label=np.full(len(table), -1, np.int16)), PairConfig("random"), seed=0)
    assert pairs_summary(random, table)["median_score"] is None


def test_the_csv_spells_pairs_out_by_name(tmp_path, make_table):
    table = make_table()
    pairs = make_pairs(table, PairConfig("cosine"), seed=0)
    write_pairs_csv(tmp_path / "pairs.csv", pairs, table)
    with open(tmp_path / "pairs.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(pairs)
    expected = {"score": f"{pairs.score[7]:.6f}"}
    for role, row in (("row", pairs.row[7]), ("reference", pairs.reference[7])):
        names = table.subjects[table.subject[row]], table.videos[table.video[row]], str(table.frame[row])
        cells = zip(("subject", "video", "frame", "label"), (*names, ("", *CLASSES)[table.label[row] + 1]), strict=True)
        expected |= {f"{role}_{name}": cell for name, cell in cells}
    assert lines[7] == expected
    write_pairs_csv(tmp_path / "pairs.csv", make_pairs(table, PairConfig("random"), seed=0), table)
    assert (tmp_path / "pairs.csv").read_text().splitlines()[1].endswith(",")
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]

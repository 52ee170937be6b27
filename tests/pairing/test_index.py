import faiss
import numpy as np
import pytest

import featlab.pairing.nearest as nearest_module
import featlab.pairing.search as search_module
from featlab.config.sections import PairConfig
from featlab.errors import ConfigError
from featlab.pairing.pairs import make_pairs, pairs_summary


@pytest.fixture(autouse=True)
def _indexed(monkeypatch):
    monkeypatch.setattr(search_module, "SMALLEST", 20)


@pytest.fixture(scope="module")
def table(people):
    table = people(12, 2, 8, 12, classes=3, noise=0.5)
    table.label[::9] = -1
    return table


def made_pairs(table, *config):
    pairs = make_pairs(table, PairConfig(*config), seed=0)
    return pairs, set(zip(pairs.row.tolist(), pairs.reference.tolist(), strict=True))


@pytest.mark.parametrize("rule", ["any", "same", "different"])
@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW8", "PCA8,IVF4,PQ4x4"])
def test_an_index_keeps_the_rules_and_its_recall_is_that_of_an_exact_search(table, rule, factory):
    (pairs, made), (_, true) = (made_pairs(table, "cosine", rule, 3, name) for name in (factory, ""))
    assert len(made) == len(pairs) == len(true)
    assert (table.subject[pairs.row] != table.subject[pairs.reference]).all()
    if rule != "any":
        assert ((table.label[pairs.row] == table.label[pairs.reference]) == (rule == "same")).all()
    # Fewer rows than a sample: all of them were checked.
    assert pairs.recall == pytest.approx(len(made & true) / len(true))
    assert pairs.recall > 0.6
    assert pairs_summary(pairs, table)["recall"] == pairs.recall
    if factory in ("Flat", "IVF4,Flat"):  # so few cells are all searched
        assert made == true


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat"])
def test_shapes_are_found_by_an_index_too(table, factory):
    exact, found = (make_pairs(table, PairConfig("landmark", "any", 2, made), seed=0) for made in ("", factory))
    assert (np.isnan(exact.recall), found.recall) == (True, 1.0)
    np.testing.assert_array_equal(exact.reference, found.reference)
    np.testing.assert_array_equal(exact.score, found.score)


def test_rows_whose_candidates_are_all_of_their_own_subject_are_searched_in_full_and_counted(people):
    table = people(3, 1, 200, 8, identity=1000.0, noise=0.01)
    found = make_pairs(table, PairConfig("cosine", index="HNSW4"), seed=0)
    exact = make_pairs(table, PairConfig("cosine"), seed=0)
    assert found.searched_in_full > 0
    np.testing.assert_array_equal(exact.row, found.row)
    assert found.recall >= found.searched_in_full / len(table) - 0.05


def test_an_index_that_faiss_cannot_make_or_search_by_the_rules_is_refused(table, refused, monkeypatch):
    for factory, reason in (
        ("IVF,Flt", "could not parse"),
        ("IVF5000,Flat", "5000"),
        ("IVF4,PQ5", "multiple"),
        ("IVF4,PQ4x4,RFlat", "params"),
        ("LSH", "METRIC_L2"),
    ):
        with refused(ConfigError, f"pair.index = {factory}: ", reason, "leave it out"):
            make_pairs(table, PairConfig("cosine", index=factory), seed=0)
    monkeypatch.setenv("FEATLAB_NO_FAISS", "1")
    with refused(ConfigError, "pair.index = Flat needs faiss"):
        make_pairs(table, PairConfig("cosine", index="Flat"), seed=0)


def test_a_projection_keeps_inner_products_whatever_the_mean(table):
    rows = table.embeddings + 3.0
    lengths = search_module.lengths(rows)
    space = search_module._cosine_space((rows, rows), (np.arange(len(rows)),) * 2, (lengths, lengths))
    made = search_module._filled(faiss, space, f"PCA{rows.shape[1]},Flat")
    products, found = made.search(space.left(np.arange(9)), 5)
    unit = rows / lengths[:, None]
    np.testing.assert_allclose(products, np.take_along_axis(unit[:9] @ unit.T, found, axis=1), atol=1e-5)
    np.testing.assert_allclose(products, -np.sort(-unit[:9] @ unit.T, axis=1)[:, :5], atol=1e-5)


def test_no_more_is_scored_again_than_finds_as_many(table, monkeypatch):
    proposed, asked = search_module._propose, []
    monkeypatch.setattr(search_module, "_propose", lambda *given: asked.append(given[-1]) or proposed(*given))
    for factory, all_needed in (("Flat", False), ("PCA2,Flat", True)):
        make_pairs(table, PairConfig("cosine", "any", 3, factory), seed=0)
        assert (asked[-1] == max(asked)) == all_needed
        asked.clear()


def test_an_index_is_trained_on_a_few_tiles(table, monkeypatch):
    make, trained = faiss.index_factory, []

    def spied(*given):
        index = make(*given)
        train = index.train
        index.train = lambda rows: trained.append(len(rows)) or train(rows)
        return index

    monkeypatch.setattr(faiss, "index_factory", spied)
    monkeypatch.setattr(nearest_module, "_BYTES", 4 * table.dim * 40)  # forty rows a tile
    make_pairs(table, PairConfig("cosine", index="IVF4,Flat"), seed=0)
    assert 0 < trained[0] <= search_module._TRAINED_ON * 40 < len(table)

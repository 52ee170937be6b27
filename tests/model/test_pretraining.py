import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from featlab.config.load import Config
from featlab.errors import FeatlabError, InputError
from featlab.methods.pft.poster import poster_style
from featlab.model.losses import style_statistics
from featlab.model.networks import Translator
from featlab.model.pretrain import episodic_pairs, make_style_bank, new_translator, part_of, pretrain_translators
from featlab.model.style_bank import SourceRows
from featlab.model.training import Adam, Translators
from featlab.pairing.pairs import make_pairs
from featlab.workspace.stages import build_bundle, train_source_head

WEIGHTS = ("style", "expression", "classification")


@pytest.fixture(scope="module")
def table(people):
    return people(subjects=4, frames=5)


@pytest.fixture(scope="module")
def trained(table):
    config = Config().with_values({"features.dim": 8, "head.bottleneck": 6, "head.epochs": 3, "head.batch": 16}, "test")
    return train_source_head(table, config, seed=0)


def config_of(**values):
    small = {"form": "mlp", "hidden": 8, "epochs": 2, "batch": 16, "lr": 0.01, "style": 1.0, "expression": 1.0}
    return Config().with_values({f"pretrain.{key}": value for key, value in (small | values).items()}, "t").pretrain


def source_of(table, trained):
    with torch.no_grad():
        features = trained.projection(torch.from_numpy(table.embeddings))
    return SourceRows.of(table, features, make_pairs(table, Config().pair, seed=0))


@pytest.fixture(scope="module")
def source(table, trained):
    return source_of(table, trained)


def pretrained(source, trained, seed=0, share=1.0, on_epoch=None, head=None, **values):
    """One T, and its history."""
    heads, config = [head or trained.head], config_of(**values)
    (translator,), history = pretrain_translators([source], heads, config, share=share, seed=seed, on_epoch=on_epoch)
    return translator, history


def changed(translator, fresh):
    theirs = fresh.state_dict()
    return {name for name, tensor in translator.state_dict().items() if not torch.equal(tensor, theirs[name])}


def only(term):
    return dict.fromkeys(WEIGHTS, 0.0) | {term: 1.0}


def test_the_losses_of_the_poster_reach_every_tensor_and_are_undivided_squares(source, trained):
    translator = Translator(8, 8, residual=False)
    ours, theirs = source.features[:20], source.features[20:45]
    value = poster_style(translator(ours), theirs, trained.head)
    value.backward()
    for name, parameter in translator.named_parameters():
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 0, name
    with torch.no_grad():
        pairs = [(translator(ours), theirs)]
        pairs.append([trained.head.bottleneck(rows) for rows in pairs[0]])
    statistics = [[torch.cat(style_statistics(rows.double())) for rows in pair] for pair in pairs]
    expected = sum(((one - two) ** 2).sum() for one, two in statistics)
    assert value.item() == pytest.approx(float(expected), rel=1e-4)


def test_from_its_zero_start_t_learns_in_all_tensors_but_the_offset_and_the_rest_stays(source, trained):
    head = copy.deepcopy(trained.head)
    translator, _ = pretrained(source, trained)
    fresh = new_translator(8, config_of(), 0)
    assert changed(translator, fresh) == {"first.weight", "first.bias", "last.weight", "last.bias"}
    assert torch.count_nonzero(translator.offset) == 0
    assert not changed(trained.head, head)
    for module in (trained.head, translator):
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_each_loss_falls_when_it_is_all_that_is_minimised(source, trained):
    """A style loss against the reference as the same T moves it chases its own tail, and grows."""
    for term in ("style", "classification"):
        _, history = pretrained(source, trained, epochs=10, dropout=0.0, **only(term))
        assert history[-1]["loss"] < history[0]["loss"], term


def test_the_joint_t_is_the_weighted_mean_of_its_parts_and_gives_each_back(source, trained):
    features = source.features[:30]
    for balance in (0.25, 0.5):
        config = config_of(form="joint", balance=balance)
        joint, linear, mlp = (
            pretrained(source, trained, form=form, balance=balance, share=0.9)[0] for form in ("joint", "linear", "mlp")
        )
        expected = (1 - balance) * linear(features) + balance * mlp(features)
        torch.testing.assert_close(joint(features), expected, atol=1e-5, rtol=1e-5)
        assert joint.first.out_features == linear.first.out_features + mlp.first.out_features
        for part, alone in (("linear", linear), ("mlp", mlp)):
            found = part_of(joint, part, config, len(trained.head.classifier.bias))
            torch.testing.assert_close(found(features), alone(features), atol=1e-5, rtol=1e-5)


def test_another_share_other_pairs_and_another_head_give_another_t(source, trained):
    first, _ = pretrained(source, trained)
    rolled = replace(source.pairs, reference=np.roll(source.pairs.reference, 7))
    head = copy.deepcopy(trained.head)
    head.linear.weight.data.mul_(-1)
    for other in (
        pretrained(source, trained, share=0.5),
        pretrained(replace(source, pairs=rolled), trained),
        pretrained(source, trained, head=head),
    ):
        assert changed(other[0], first)


def test_a_row_without_a_reference_learns_its_class_all_the_same(source, trained):
    pairs = source.pairs
    kept = pairs.row != 3
    few = replace(pairs, row=pairs.row[kept], reference=pairs.reference[kept], score=pairs.score[kept])
    found = episodic_pairs(replace(source, pairs=few))
    assert found[found[:, 0] == 3].tolist() == [[3, -1]]
    assert torch.equal(found[:, 0].sort().values, torch.arange(len(source.features)))
    nothing = replace(pairs, row=pairs.row[:0], reference=pairs.reference[:0], score=pairs.score[:0])
    _, history = pretrained(replace(source, pairs=nothing), trained)
    assert history[-1]["style"] == 0
    assert np.isfinite(history[-1]["loss"])


def test_an_episode_takes_the_person_out_of_the_rows(source, trained, monkeypatch):
    seen, translate = [], Translators.translate

    def spy(translators, features, dropout):
        seen.append(features.detach().clone())
        return translate(translators, features, dropout)

    monkeypatch.setattr(Translators, "translate", spy)
    pretrained(source, trained, epochs=1, batch=len(source.features), style=0.0)
    centre = source.centre
    # What is left of a row without its person's mean is its expression; the person is the larger part.
    assert (seen[0] - centre).square().mean() < 0.7 * (source.features - centre).square().mean()


def test_no_loss_one_that_diverges_and_a_part_that_t_does_not_hold_are_refused(source, trained, refused):
    with refused(FeatlabError, "weight"):
        pretrained(source, trained, style=0.0, expression=0.0, classification=0.0)
    with refused(InputError, "diverged", "pretrain.lr"):
        pretrained(source, trained, lr=1e30, epochs=4)
    for values in ({"form": "linear"}, {"form": "joint", "balance": 0.0}):
        with refused(InputError, "pft-mlp", "pretrain.form"):
            part_of(pretrained(source, trained, **values)[0], "mlp", config_of(**values), 2)


def test_the_whole_source_stage_leaves_the_global_generators_alone(table, small, extractor):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    config = Config().with_values(small, "test")
    build_bundle(table, config, seed=0, extractor=extractor, methods=("coral", "referenced", "pft-poster", "pft"))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_the_same_seed_gives_the_same_weights_whatever_the_global_state(source, trained):
    first, history = pretrained(source, trained)
    with torch.random.fork_rng(devices=[]):
        torch.rand(7)
        again, same = pretrained(source, trained)
    assert not changed(first, again)
    assert history == same
    assert {"first.weight", "last.weight"} <= changed(first, pretrained(source, trained, seed=1)[0])


def test_a_fresh_translator_depends_on_the_seed_and_is_what_there_is_without_an_epoch(source, trained):
    fresh = new_translator(8, config_of(), 0)
    assert not changed(fresh, new_translator(8, config_of(), 0))
    assert changed(fresh, new_translator(8, config_of(), 1)) == {"first.weight", "first.bias"}
    # Hidden 0 takes the width of the features.
    assert new_translator(8, config_of(hidden=0), 0).first.out_features == 8
    translator, history = pretrained(source, trained, epochs=0)
    assert history == []
    assert not changed(translator, fresh)


def test_history_has_an_entry_an_epoch_with_every_term_and_their_sum(source, trained):
    calls = []
    _, history = pretrained(source, trained, epochs=3, on_epoch=lambda *call: calls.append(call))
    assert len(history) == 3
    for entry in history:
        assert set(entry) == {"classification", "style", "expression", "loss"}
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in WEIGHTS), rel=1e-4)
    assert calls == [(epoch + 1, 3, entry["loss"]) for epoch, entry in enumerate(history)]


@pytest.mark.parametrize("uneven", [False, True])
def test_the_style_bank_is_the_mean_over_people_of_their_statistics(uneven, people, trained):
    table = people(subjects=4, frames=5)
    if uneven:
        table = table.take((table.video != table.videos.index("neutral-1")) | (table.frame < 2) | (table.subject > 1))
    source, found = source_of(table, trained), {"features": [], "embedding": [], "bottleneck": []}
    translator, _ = pretrained(source, trained, epochs=4)
    bank = make_style_bank(source, translator, trained.head)
    with torch.no_grad():
        for who, mean in enumerate(source.subject_mean()):
            rows = source.features[torch.from_numpy((table.subject == who) & (table.label == table.neutral_code))]
            moved = translator(rows + source.centre - mean)
            for name, values in zip(found, (rows, moved, trained.head.bottleneck(moved)), strict=True):
                found[name].append(torch.stack(style_statistics(values)))
    assert (bank.size, set(bank.layers)) == (4, set(found))
    for name, statistics in found.items():
        torch.testing.assert_close(torch.stack(bank.layers[name]), torch.stack(statistics).mean(dim=0))
    torch.testing.assert_close(source.neutral_means(), torch.stack(found["features"])[:, 0])


def without_neutral(table, *subjects):
    codes = [table.subjects.index(name) for name in subjects]
    return table.take((table.label != table.neutral_code) | ~np.isin(table.subject, codes))


def test_a_source_subject_without_neutral_rows_is_left_out_of_pairs_and_bank(table, trained):
    source = source_of(without_neutral(table, "s01"), trained)
    translator, history = pretrained(source, trained)
    assert make_style_bank(source, translator, trained.head).size == 3
    assert np.isfinite([entry["loss"] for entry in history]).all()
    # Their rows are in the table, and change nothing.
    other = replace(source, features=torch.where(source.row_subject[:, None] >= 0, source.features, 99.0))
    assert not changed(pretrained(other, trained)[0], translator)


def test_without_neutral_rows_t_is_not_trained_and_nothing_is_prepared(table, people, trained, small_bundle, refused):
    source, three = source_of(without_neutral(table, *table.subjects), trained), people(subjects=3, classes=3)
    for form in ("mlp", "linear", "joint"):
        with refused(InputError, "neutral rows", "label them"):
            pretrained(source, trained, form=form)
    untrained = {"pretrain.epochs": 0, "pretrain.style_bank": "none"}
    for method in ("coral", "referenced"):
        with refused(InputError, method, "neutral"):
            small_bundle(without_neutral(three, *three.subjects), untrained, methods=[method])
    with refused(InputError, "neutral rows"):
        make_style_bank(source, pretrained(source, trained, epochs=0)[0], trained.head)


def test_rows_of_unknown_label_do_not_train_t(table, trained):
    hidden = replace(table, label=np.where(table.frame == 4, -1, table.label).astype(np.int16))
    source, alone = source_of(hidden, trained), only("classification")
    shifted = torch.where(torch.from_numpy(hidden.label < 0)[:, None], torch.tensor(99.0), source.features)
    first, second = (pretrained(rows, trained, **alone)[0] for rows in (source, replace(source, features=shifted)))
    assert not changed(first, second)


def test_a_bundle_says_what_it_was_made_of(people, small_bundle, extractor):
    table = people(subjects=4)
    bundle = small_bundle(table.without("s03"), methods=["pft", "coral"], seed=5)
    assert [name in bundle.source_subjects for name in table.subjects] == [True, True, True, False]
    assert (bundle.classes, bundle.neutral, bundle.extractor) == (table.classes, "neutral", extractor)
    assert (bundle.seed, set(bundle.extras), bundle.share.people) == (5, {"coral"}, 0)
    assert len(bundle.history) == bundle.config.pretrain.epochs


def test_another_name_in_the_cache_and_another_order_of_rows_make_no_other_model(people, small_bundle):
    """`without` keeps the target's name in the table; nothing of it may get into a weight."""
    table, many = people(subjects=4), people(subjects=5).without("s04")
    mixed = table.take(np.random.default_rng(0).permutation(len(table)))
    ours, *others = (small_bundle(rows, methods=["pft", "coral", "referenced"]) for rows in (table, many, mixed))
    for theirs in others:
        for part in ("projection", "head", "translator"):
            assert not changed(getattr(ours, part), getattr(theirs, part))
        for method in ("referenced",) if theirs is others[1] else ours.extras:
            for name, tensor in ours.extras[method].items():
                assert torch.equal(tensor, theirs.extras[method][name]), (method, name)


def test_the_weights_are_the_mean_over_the_second_half_of_the_steps(source, trained, monkeypatch):
    seen, step = [], Adam.step

    def spy(optimiser):
        step(optimiser)
        seen.append([tensor.detach().clone() for tensor in optimiser.param_groups[0]["params"]])

    monkeypatch.setattr(Adam, "step", spy)
    translator, _ = pretrained(source, trained, epochs=3)
    names = [name for name, _ in translator.named_parameters() if name != "offset"]
    for name, *tensors in zip(names, *seen[len(seen) // 2 :], strict=True):
        mean = torch.cat(tensors).mean(dim=0)
        torch.testing.assert_close(translator.get_parameter(name).data, mean, atol=1e-6, rtol=1e-5)


def test_the_expression_loss_is_against_what_c_makes_of_the_row_as_it_is(source, trained):
    """Before any step T is the identity: KL is then that of the offset alone, and none of it without one."""
    one_step = {"epochs": 1, "batch": 10_000, "dropout": 0.0, **only("expression")}
    none, some = (pretrained(source, trained, share=share, **one_step)[1][0]["expression"] for share in (0.0, 1.0))
    assert none == pytest.approx(0, abs=1e-7)
    assert some > 1e-4


def test_a_person_who_is_left_out_is_in_no_pair_of_an_episode(source):
    person = source.row_subject[torch.from_numpy(source.pairs.reference)].mode().values
    rest = source.without(person[None])
    gone = torch.nonzero(source.row_subject == person).squeeze(1)
    pairs = episodic_pairs(rest)
    assert len(pairs) == len(source.features) - len(gone)
    assert not torch.isin(pairs, gone).any()
    # Most rows have their own reference still.
    assert (pairs[:, 1] >= 0).any()

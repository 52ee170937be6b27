import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from featlab.config.load import Config
from featlab.errors import FeatlabError, InputError
from featlab.methods.pft.poster import poster_style
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


def pretrained(source, trained, seed=0, share=1.0, on_epoch=None, **values):
    config = config_of(**values)
    one, history = pretrain_translators([source], [trained.head], config, share=share, seed=seed, on_epoch=on_epoch)
    return SimpleNamespace(translator=one[0], history=history)


def changed(translator, fresh):
    theirs = fresh.state_dict()
    return {name for name, tensor in translator.state_dict().items() if not torch.equal(tensor, theirs[name])}


def only(term):
    return dict.fromkeys(WEIGHTS, 0.0) | {term: 1.0}


def test_the_losses_of_the_poster_reach_every_tensor_and_are_those_of_numpy(source, trained):
    translator = Translator(8, 8, residual=False)
    ours, theirs = source.features[:20], source.features[20:45]
    value = poster_style(translator(ours), theirs, trained.head)
    value.backward()
    for name, parameter in translator.named_parameters():
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 0, name
    expected = 0.0
    with torch.no_grad():
        layers = [(translator(ours), theirs)]
        layers.append(tuple(trained.head.bottleneck(rows) for rows in layers[0]))
    for pair in layers:
        one, two = (rows.double().numpy() for rows in pair)
        expected += ((one.mean(0) - two.mean(0)) ** 2).sum()
        expected += ((np.sqrt(one.var(0) + 1e-6) - np.sqrt(two.var(0) + 1e-6)) ** 2).sum()
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_from_its_zero_start_t_learns_in_all_tensors_but_the_offset_and_the_rest_stays(source, trained):
    head, features = copy.deepcopy(trained.head.state_dict()), source.features.clone()
    translator = pretrained(source, trained).translator
    fresh = new_translator(8, config_of(), 0)
    assert changed(translator, fresh) == {"first.weight", "first.bias", "last.weight", "last.bias"}
    assert torch.count_nonzero(translator.offset) == 0
    assert all(torch.equal(tensor, head[name]) for name, tensor in trained.head.state_dict().items())
    assert torch.equal(source.features, features)
    for module in (trained.head, translator):
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_each_loss_falls_when_it_is_all_that_is_minimised(source, trained):
    """A style loss against the reference as the same T moves it chases its own tail, and grows."""
    for term in ("style", "classification"):
        history = pretrained(source, trained, epochs=10, dropout=0.0, **only(term)).history
        assert history[-1]["loss"] < history[0]["loss"], term
    # The expression loss has its minimum at the start: T stays where the source model's predictions are.
    history = pretrained(source, trained, epochs=10, dropout=0.0, style=10.0).history
    assert history[-1]["expression"] >= 0


def test_the_joint_t_is_the_weighted_mean_of_its_parts_and_gives_each_back(source, trained):
    features = source.features[:30]
    for balance in (0.25, 0.5):
        config = config_of(form="joint", balance=balance)
        joint, linear, mlp = (
            pretrained(source, trained, form=form, balance=balance, share=0.9).translator
            for form in ("joint", "linear", "mlp")
        )
        expected = (1 - balance) * linear(features) + balance * mlp(features)
        torch.testing.assert_close(joint(features), expected, atol=1e-5, rtol=1e-5)
        assert joint.first.out_features == linear.first.out_features + mlp.first.out_features
        for part, alone in (("linear", linear), ("mlp", mlp)):
            found = part_of(joint, part, config, len(trained.head.classifier.bias))
            torch.testing.assert_close(found(features), alone(features), atol=1e-5, rtol=1e-5)


def test_a_part_that_t_does_not_hold_is_refused(source, trained, refused):
    for values in ({"form": "linear"}, {"form": "joint", "balance": 0.0}):
        with refused(InputError, "pft-mlp", "pretrain.form"):
            part_of(pretrained(source, trained, **values).translator, "mlp", config_of(**values), 2)


def test_another_share_other_pairs_and_another_head_give_another_t(source, trained):
    first = pretrained(source, trained).translator
    assert changed(pretrained(source, trained, share=0.5).translator, first)
    order = np.roll(source.pairs.reference, 7)
    assert changed(pretrained(replace(source, pairs=replace(source.pairs, reference=order)), trained).translator, first)
    other = copy.deepcopy(trained)
    other.head.linear.weight.data.mul_(-1)
    assert changed(pretrained(source, other).translator, first)


def test_a_row_without_a_reference_learns_its_class_all_the_same(source, trained):
    pairs = source.pairs
    kept = pairs.row != 3
    few = replace(pairs, row=pairs.row[kept], reference=pairs.reference[kept], score=pairs.score[kept])
    found = episodic_pairs(replace(source, pairs=few))
    assert found[found[:, 0] == 3].tolist() == [[3, -1]]
    assert torch.equal(found[:, 0].sort().values, torch.arange(len(source.features)))
    nothing = replace(pairs, row=pairs.row[:0], reference=pairs.reference[:0], score=pairs.score[:0])
    history = pretrained(replace(source, pairs=nothing), trained).history
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


def test_no_loss_at_all_and_one_that_diverges_are_refused(source, trained, refused):
    with refused(FeatlabError, "weight"):
        pretrained(source, trained, style=0.0, expression=0.0, classification=0.0)
    with refused(InputError, "diverged", "pretrain.lr"):
        pretrained(source, trained, lr=1e30, epochs=4)


def test_the_whole_source_stage_leaves_the_global_generators_alone(table, small, extractor):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    config = Config().with_values(small, "test")
    build_bundle(table, config, seed=0, extractor=extractor, methods=("coral", "referenced", "pft-poster", "pft"))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_the_same_seed_gives_the_same_weights_whatever_the_global_state(source, trained):
    first = pretrained(source, trained)
    with torch.random.fork_rng(devices=[]):
        torch.rand(7)
        again = pretrained(source, trained)
    other = pretrained(source, trained, seed=1)
    assert not changed(first.translator, again.translator)
    assert first.history == again.history
    assert {"first.weight", "last.weight"} <= changed(first.translator, other.translator)


def test_a_fresh_translator_depends_on_the_seed_and_is_the_identity(source, trained):
    values = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    fresh = new_translator(8, config_of(), 0)
    assert not changed(fresh, new_translator(8, config_of(), 0))
    assert changed(fresh, new_translator(8, config_of(), 1)) == {"first.weight", "first.bias"}
    assert torch.equal(fresh(values), values)
    # Hidden 0 takes the width of the features.
    assert new_translator(8, config_of(hidden=0), 0).first.out_features == 8
    result = pretrained(source, trained, epochs=0)
    assert result.history == []
    assert not changed(result.translator, fresh)


def test_history_has_an_entry_an_epoch_with_every_term_and_their_sum(source, trained):
    calls = []
    result = pretrained(source, trained, epochs=3, on_epoch=lambda *call: calls.append(call))
    assert len(result.history) == 3
    for entry in result.history:
        assert set(entry) == {"classification", "style", "expression", "loss"}
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in WEIGHTS), rel=1e-4)
    assert calls == [(epoch + 1, 3, entry["loss"]) for epoch, entry in enumerate(result.history)]
    # A batch larger than all pairs is one step an epoch.
    assert len(pretrained(source, trained, batch=10_000).history) == 2


def numpy_bank(table, source, translator, head):
    """Means and standard deviations of each subject's neutral rows, before and after T with their own offset."""
    features = source.features.numpy()
    neutral = table.label == table.neutral_code
    own = {}
    for code in np.unique(table.subject):
        clips = [neutral & (table.subject == code) & (table.video == video) for video in np.unique(table.video)]
        own[code] = np.mean([features[clip].mean(axis=0) for clip in clips if clip.any()], axis=0)
    centre = np.mean(list(own.values()), axis=0)
    first, last = translator.first, translator.last
    layers = {"features": [], "embedding": [], "bottleneck": []}
    for code, mean in own.items():
        rows = features[neutral & (table.subject == code)]
        seen = rows + centre - mean
        hidden = np.maximum(seen @ first.weight.numpy().T + first.bias.numpy(), 0)
        moved = seen + hidden @ last.weight.numpy().T + last.bias.numpy()
        with torch.no_grad():
            deep = head.bottleneck(torch.from_numpy(moved)).numpy()
        for name, values in zip(layers, (rows, moved, deep), strict=True):
            layers[name].append((values.mean(axis=0), np.sqrt(values.var(axis=0) + 1e-6)))
    return {name: [np.stack(part) for part in zip(*pairs, strict=True)] for name, pairs in layers.items()}


@pytest.mark.parametrize("uneven", [False, True])
def test_the_style_bank_equals_numpy(uneven, people, trained):
    table = people(subjects=4, frames=5)
    if uneven:
        table = table.take((table.video != table.videos.index("neutral-1")) | (table.frame < 2) | (table.subject > 1))
    source = source_of(table, trained)
    translator = pretrained(source, trained, epochs=4).translator
    bank = make_style_bank(source, translator, trained.head)
    expected = numpy_bank(table, source, translator, trained.head)
    assert (bank.size, set(bank.layers)) == (4, set(expected))
    for name, (mean, std) in bank.layers.items():
        np.testing.assert_allclose(mean, expected[name][0].mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(std, expected[name][1].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(source.neutral_means(), expected["features"][0], atol=1e-4)


def without_neutral(table, *subjects):
    codes = [table.subjects.index(name) for name in subjects]
    return table.take((table.label != table.neutral_code) | ~np.isin(table.subject, codes))


def test_a_source_subject_without_neutral_rows_is_left_out_of_pairs_and_bank(table, trained):
    source = source_of(without_neutral(table, "s01"), trained)
    result = pretrained(source, trained)
    assert make_style_bank(source, result.translator, trained.head).size == 3
    assert np.isfinite([entry["loss"] for entry in result.history]).all()
    # Their rows are in the table, and change nothing.
    other = replace(source, features=torch.where(source.row_subject[:, None] >= 0, source.features, 99.0))
    assert not changed(pretrained(other, trained).translator, result.translator)


def test_without_neutral_rows_t_is_not_trained_and_there_is_no_style_bank(table, trained, refused):
    source = source_of(without_neutral(table, *table.subjects), trained)
    for form in ("mlp", "linear", "joint"):
        with refused(InputError, "neutral rows", "label them"):
            pretrained(source, trained, form=form)
    with refused(InputError, "neutral rows"):
        make_style_bank(source, pretrained(source, trained, epochs=0).translator, trained.head)


def test_too_small_a_source_is_refused(people, small, small_bundle, refused):
    with refused(InputError, "at least 2 source subjects", "others are needed"):
        train_source_head(people(subjects=1), Config().with_values(small, "test"), seed=0)
    table = people(subjects=3, classes=3)
    options = {"pretrain.epochs": 0, "pretrain.style_bank": "none"}
    for method in ("coral", "referenced"):
        with refused(InputError, method, "neutral"):
            small_bundle(without_neutral(table, *table.subjects), options, methods=[method])


def test_rows_of_unknown_label_train_neither_head_nor_t(table, trained):
    hidden = replace(table, label=np.where(table.frame == 4, -1, table.label).astype(np.int16))
    source = source_of(hidden, trained)
    shifted = torch.where(torch.from_numpy(hidden.label < 0)[:, None], torch.tensor(99.0), source.features)
    first = pretrained(source, trained, style=0.0, expression=0.0).translator
    second = pretrained(replace(source, features=shifted), trained, style=0.0, expression=0.0).translator
    assert not changed(first, second)


def test_a_bundle_says_what_it_was_made_of(people, small_bundle, extractor):
    table = people(subjects=4)
    bundle = small_bundle(table.without("s03"), {"pretrain.style_bank": "centre"}, methods=["pft", "coral"], seed=5)
    assert [name in bundle.source_subjects for name in table.subjects] == [True, True, True, False]
    assert (bundle.classes, bundle.neutral, bundle.extractor) == (table.classes, "neutral", extractor)
    assert (bundle.seed, set(bundle.extras), bundle.share.people) == (5, {"coral"}, 0)
    assert len(bundle.history) == bundle.config.pretrain.epochs
    assert small_bundle(table, {"pretrain.style_bank": "none"}).bank is None


def test_a_target_in_the_cache_changes_no_bit_of_the_source_model(people, small_bundle):
    """`without` keeps the target's name in the table; nothing of it may get into a weight."""
    few, many = people(subjects=4), people(subjects=5).without("s04")
    ours, theirs = (small_bundle(table, methods=["coral", "referenced"]) for table in (few, many))
    for part in ("projection", "head", "translator"):
        assert not changed(getattr(ours, part), getattr(theirs, part))
    for name, tensors in ours.extras.items():
        assert all(torch.equal(tensor, theirs.extras[name][key]) for key, tensor in tensors.items())


def test_the_order_of_the_source_rows_makes_no_other_model(people, small_bundle):
    table = people(subjects=4)
    mixed = table.take(np.random.default_rng(0).permutation(len(table)))
    ours, theirs = (small_bundle(rows, methods=["pft", "referenced"]) for rows in (table, mixed))
    for part in ("projection", "head", "translator"):
        assert not changed(getattr(ours, part), getattr(theirs, part))
    assert torch.equal(ours.extras["referenced"]["weight"], theirs.extras["referenced"]["weight"])


def test_the_weights_are_the_mean_over_the_second_half_of_the_steps(source, trained, monkeypatch):
    seen, step = [], Adam.step

    def spy(optimiser, *args, **options):
        step(optimiser, *args, **options)
        seen.append([tensor.detach().clone() for group in optimiser.param_groups for tensor in group["params"]])

    monkeypatch.setattr(Adam, "step", spy)
    translator = pretrained(source, trained, epochs=3).translator
    names = [name for name, _ in translator.named_parameters() if name != "offset"]
    half = seen[len(seen) // 2 :]
    for place, name in enumerate(names):
        mean = torch.cat([tensors[place] for tensors in half]).mean(dim=0)
        torch.testing.assert_close(translator.get_parameter(name).data, mean, atol=1e-6, rtol=1e-5)


def test_the_expression_loss_is_against_what_c_makes_of_the_row_as_it_is(source, trained):
    """Before any step T is the identity: KL is then that of the offset alone, and none of it without one."""
    one_step = {"epochs": 1, "batch": 10_000, "dropout": 0.0, **only("expression")}
    assert pretrained(source, trained, share=0.0, **one_step).history[0]["expression"] == pytest.approx(0, abs=1e-7)
    assert pretrained(source, trained, share=1.0, **one_step).history[0]["expression"] > 1e-4


def test_a_person_who_is_left_out_is_in_no_pair_of_an_episode(source):
    person = source.row_subject[torch.from_numpy(source.pairs.reference)].mode().values
    rest = source.without(person[None])
    gone = torch.nonzero(source.row_subject == person).squeeze(1)
    pairs = episodic_pairs(rest)
    assert len(pairs) == len(source.features) - len(gone)
    assert not torch.isin(pairs, gone).any()
    # Most rows have their own reference still.
    assert (pairs[:, 1] >= 0).any()

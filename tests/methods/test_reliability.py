"""What a bundle says of itself, learnt from held-out source subjects: temperature, limits, gain; what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from featlab.exchange.formats import fold
from featlab.methods import make_method
from featlab.methods.pft.adapt import ClipStatistics, align_style, clip_statistics, confidence_gap, source_odds
from featlab.methods.pft.validation import BALANCES, Episode, fit_reliability
from featlab.model.linear import LEAST_SUBJECTS, fit_temperature
from featlab.model.style_bank import SourceRows
from featlab.protocol.splits import target_of

ODDS = torch.tensor([0.0, 1.0])


@pytest.fixture(scope="module")
def table(people):
    return people(subjects=11, frames=8, classes=3)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s10"), methods=["pft"])


@pytest.fixture(scope="module")
def clip(table):
    mine = table.rows_of("s10")
    return mine.take(mine.label == mine.neutral_code)


def episode(subject=0, spread=1.0, before=0.5, after=0.7, frames=8, short=None, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits, source = torch.randn(2, 20, 3, generator=random)
    labels = torch.randint(3, (20,), generator=random)
    return Episode(subject, logits, source, labels, before, after, short or {}, ClipStatistics(frames, spread, 0.0))


def reliability_of(spreads=(0.8, 0.9, 1.0, 1.1, 1.2), **values):
    episodes = [episode(number, spread, seed=number, **values) for number, spread in enumerate(spreads)]
    return fit_reliability(episodes, ODDS)


def test_the_temperature_has_the_least_loss_of_a_grid_every_set_weighs_alike_and_it_stays_within_bounds():
    sets = [(torch.randn(n, 3) * 3, torch.randint(3, (n,))) for n in (5, 50, 500)]

    def loss(temperature):
        return np.mean([float(F.cross_entropy(logits / temperature, labels)) for logits, labels in sets])

    found = fit_temperature(sets)
    assert loss(found) <= min(loss(value) for value in np.geomspace(0.05, 20, 200)) + 1e-6
    # Labels that are always right, or always wrong.
    logits, labels = torch.eye(3).repeat(4, 1) * 5, torch.arange(3).repeat(4)
    assert 0.05 <= fit_temperature([(logits, labels)]) < 0.5
    assert 10 < fit_temperature([(logits, (labels + 1) % 3)]) <= 20


def test_a_temperature_changes_probabilities_and_no_prediction_and_is_exported(bundle, clip, table):
    embeddings = table.rows_of("s10").embeddings
    adapted = make_method("pft").adapt(bundle, target_of(clip))
    temperature = float(adapted.model.temperature)
    assert temperature == pytest.approx(float(make_method("pft").reliability(bundle).temperature))
    plain = replace(adapted, model=type(adapted.model)(bundle.projection, adapted.model.translator, bundle.head))
    ours, theirs = adapted.predict_proba(embeddings), plain.predict_proba(embeddings)
    assert np.array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    np.testing.assert_allclose(ours, torch.softmax(torch.from_numpy(theirs).log() / temperature, dim=1), atol=1e-5)
    folded = fold(adapted.model)(torch.from_numpy(embeddings))["probabilities"]
    np.testing.assert_allclose(folded.numpy(), ours, atol=1e-5)


def test_gap_is_the_probability_of_ones_own_choice_over_the_others():
    probability = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    source = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0]])
    assert confidence_gap(probability.log(), source) == pytest.approx((0 + 0.2 + 0.7) / 3)
    assert confidence_gap(source, source) == 0


def test_the_gain_is_the_line_that_numpy_fits():
    episodes = [episode(number, before=0.1 * number, after=0.6, seed=number) for number in range(6)]
    found = fit_reliability(episodes, ODDS)
    temperature = float(found.temperature)
    gap = np.array([confidence_gap(item.logits / temperature, item.source_logits) for item in episodes])
    gains = np.array([0.6 - 0.1 * number for number in range(6)])
    slope, intercept = np.polyfit(gap, gains, 1)
    np.testing.assert_allclose(found.gain.numpy(), [intercept, slope], rtol=1e-3)
    np.testing.assert_allclose(found.residuals.numpy(), np.sort(gains - intercept - slope * gap), atol=1e-5)
    among = float(gap.mean())
    estimate = found.estimate(among, frames=12)
    assert estimate.expected == pytest.approx(intercept + among * slope, rel=1e-3)
    assert estimate.low <= estimate.expected <= estimate.high
    # Far from what source people showed the line says -4.6 and more: nobody loses more than any of them, or gains more.
    far = [found.estimate(value, frames=12).expected for value in (0.3, -0.3)]
    assert sorted(far) == pytest.approx([gains.min(), gains.max()], rel=1e-3)
    assert estimate.frames == 12
    # Without other frames it is that of all source subjects.
    estimate = found.estimate(None)
    assert estimate.expected == pytest.approx(gains.mean(), abs=1e-6)
    assert (estimate.chance, estimate.frames) == (1, 0)


def test_the_statistics_of_a_clip_are_what_they_say(bundle, clip, table):
    with torch.no_grad():
        features = bundle.projection(torch.from_numpy(clip.embeddings))
        aligned = align_style(features, bundle)
        source = SourceRows.of(rows := table.without("s10"), bundle.projection.of_rows(rows.embeddings))
        means = source.neutral_means()
        found = clip_statistics(features, aligned.offset, bundle, source_odds(means, bundle))

        def odds(rows):
            probability = torch.softmax(bundle.head(bundle.translator(rows)).double(), dim=1)[:, bundle.neutral_code]
            return np.log((probability / (1 - probability)).numpy())

        source = odds(means)
    assert found.frames == len(clip)
    assert found.spread == pytest.approx(odds(features + aligned.offset).std(), rel=1e-3)
    assert found.position == pytest.approx((odds(features).mean() - source.mean()) / source.std(), rel=1e-3)


def test_a_clip_that_varies_more_than_the_sources_is_remarked_on_and_then_refused():
    known = reliability_of()
    # One frame has no spread and is not called uneven.
    assert math.isfinite(ClipStatistics(1, 0.0, 0.0).log_spread())
    for frames, spread, position, remark, refusal in (
        (8, 1.0, 0.0, "", ""),
        (1, 0.0, 0.0, "", ""),
        (8, 1.3, 0.0, "neutral", ""),
        (8, 30.0, 0.0, "", "neutral"),
        (8, 1.0, -9.0, "less neutral", ""),
    ):
        report = known.report(ClipStatistics(frames, spread, position))
        assert (bool(report.remarks), bool(report.refusal)) == (bool(remark), bool(refusal))
        assert remark in " ".join(report.remarks)
        assert refusal in report.refusal


def test_a_clip_that_is_shorter_than_source_subjects_needed_is_refused():
    for short, needed in (({1: 0.69, 4: 0.7}, 1), ({1: 0.5, 4: 0.69}, 4), ({1: 0.5, 4: 0.5}, 8)):
        found = reliability_of(short=short)
        assert int(found.frames_needed) == needed
        assert not found.report(ClipStatistics(needed, 1.0, 0.0)).refusal
        if needed > 1:
            refusal = found.report(ClipStatistics(needed - 1, 1.0, 0.0)).refusal
            assert "too few" in refusal
            assert str(needed) in refusal


def test_a_bundle_with_enough_source_subjects_knows_itself(bundle, table, small_bundle):
    found = make_method("pft").reliability(bundle)
    assert len(found.gains) == len(found.residuals) >= LEAST_SUBJECTS
    assert float(found.after - found.before) == pytest.approx(float(found.gains.mean()), abs=1e-5)
    few = table.without(*[f"s{number:02d}" for number in range(LEAST_SUBJECTS - 1, 11)])
    for rows, options in ((few, {}), (table.without("s10"), {"pretrain.validation": False})):
        without = small_bundle(rows, options, methods=["pft"])
        assert without.extras == {}
        assert make_method("pft").reliability(without) is None


def test_the_target_changes_nothing_of_it_and_the_same_seed_gives_the_same(bundle, table, small_bundle):
    spoilt = replace(table, embeddings=np.where((table.subject == 10)[:, None], 1e3, table.embeddings))
    again = small_bundle(spoilt.without("s10"), methods=["pft"])
    assert all(torch.equal(tensor, again.extras["pft"][name]) for name, tensor in bundle.extras["pft"].items())


def test_the_mean_gain_is_over_people_with_students_interval():
    gains = {0: (0.2, 0.4), 1: (-0.1, -0.1), 2: (0.5,)} | {who: (0.1 * who,) for who in range(3, 8)}
    episodes = [episode(who, before=0.4, after=0.4 + gain) for who, each in gains.items() for gain in each]
    found = fit_reliability(episodes, ODDS)
    means = [0.3, -0.1, 0.5, 0.3, 0.4, 0.5, 0.6, 0.7]
    low, high = stats.t.interval(0.8, 7, np.mean(means), stats.sem(means))
    np.testing.assert_allclose(found.mean_gain.numpy(), [np.mean(means), low, high], rtol=5e-5)
    gain = found.source_gain
    assert (gain.helps, gain.people) == (True, 8)
    assert all(words in gain.sentence() for words in ("+40.0 points", "8 source people"))


def with_gain(bundle, *gain):
    tensors = dict(bundle.extras["pft"]) | {"joint.mean_gain": torch.tensor(gain)}
    return replace(bundle, extras={"pft": tensors})


def test_where_adapting_did_not_help_source_people_the_source_model_is_used_unless_forced(bundle, clip, table):
    embeddings, harmful = table.rows_of("s10").embeddings, with_gain(bundle, -0.02, -0.05, 0.01)
    method = make_method("pft")
    source = make_method("source-only").adapt(bundle, target_of(clip)).predict_proba(embeddings)
    guarded = method.adapt(harmful, target_of(clip))
    assert np.array_equal(guarded.predict_proba(embeddings), source)
    (line,) = (warning for warning in guarded.warnings if "source model" in warning)
    assert "-2.0 points" in line
    assert "--force" in line
    assert method.expected_gain(harmful, guarded.model, embeddings) is None
    good = method.adapt(with_gain(bundle, 0.2, 0.1, 0.3), target_of(clip))
    forced = method.forced().adapt(harmful, target_of(clip)).predict_proba(embeddings)
    assert np.array_equal(forced, good.predict_proba(embeddings))
    assert not np.array_equal(forced, source)
    assert "help" not in " ".join(good.warnings)
    doubtful, unknown = with_gain(bundle, 0.02, -0.01, 0.05), replace(bundle, extras={})
    for other, words in ((doubtful, "may not help"), (unknown, "not known")):
        assert words in " ".join(method.adapt(other, target_of(clip)).warnings)


def test_the_parts_are_weighed_as_they_did_best_on_held_out_source_people(table, bundle, small_bundle):
    chosen = float(bundle.extras["pft"]["balance"])
    assert chosen == bundle.config.pretrain.balance
    said = f"{100 - 100 * chosen:.0f} % linear, {100 * chosen:.0f} % MLP"
    assert make_method("pft").source_gain(bundle).sentence().endswith(said)
    assert make_method("pft-mlp").source_gain(bundle).sentence().endswith("held out")
    scores = {}
    for balance in BALANCES:
        values = {"pretrain.learn_balance": False, "pretrain.balance": balance}
        fixed = small_bundle(table.without("s10"), values, methods=["pft"])
        scores[balance] = float(fixed.extras["pft"]["joint.after"])
        pairs = zip(bundle.translator.parameters(), fixed.translator.parameters(), strict=True)
        assert all(torch.allclose(*pair, atol=1e-6) for pair in pairs) is (balance == chosen)
    assert scores[chosen] == max(scores.values()) == pytest.approx(float(bundle.extras["pft"]["joint.after"]))
    part, other = (make_method("pft-mlp").translator(made) for made in (bundle, fixed))
    torch.testing.assert_close(part.last.weight, other.last.weight)


@pytest.mark.parametrize(("clips", "frames"), [(2, 8), (1, 4)])
def test_a_held_out_subject_is_scored_on_the_rows_that_they_were_not_adapted_on(
    clips, frames, people, small_bundle, monkeypatch
):
    """Of two neutral clips of eight frames one is adapted on, and then the other; of a single one the first half."""
    seen, fit = [], fit_reliability

    def spy(episodes, odds):
        seen.extend(episodes)
        return fit(episodes, odds)

    monkeypatch.setattr("featlab.methods.pft.validation.fit_reliability", spy)
    small_bundle(people(subjects=10, clips=clips, frames=8, classes=3), methods=["pft"])
    assert {(len(item.labels), item.clip.frames) for item in seen} == {(24 * clips - frames, frames)}
    assert {item.subject for item in seen} == set(range(10))

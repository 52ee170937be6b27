"""Tuning on source subjects: who plays, what is tried, what is kept, what is chosen."""

import numpy as np
import pytest

from featlab import FeatureTable, write_table
from featlab.config.sections import ProtocolConfig
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.tuning import cannot_play, deal_folds, open_sources, plan_tuning, run_tuning, search_space
from featlab.evaluation.tuning_report import report_tuning
from featlab.methods.base import SourceFeatures
from featlab.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("planted")


@pytest.fixture
def opened(tmp_path, people, small, extractor):
    """Opens the source side of a workspace with 12 people, 3 of whom are targets: it, and who is reported."""

    def open_side(values=None, *, table=None, root=tmp_path, **options):
        root.mkdir(exist_ok=True)
        if table is not None or not (root / "cache.h5").exists():
            write_table(root / "cache.h5", people(subjects=12) if table is None else table, extractor)
        return open_sources(root, small | {"protocol.targets": "3"} | (values or {}), **options)

    return open_side


def plan(side, *items, method="planted", trials=24, folds=3, fixed=(), options=None):
    space = search_space(method, items=items, fixed=fixed, options=options)
    return plan_tuning(*side, space, trials=trials, folds=folds)


def names_in(workspace):
    return workspace.table.subject_names_present()


def flat(rows):
    return {(number, name): row for number, group in rows.items() for name, row in group.items()}


@pytest.fixture
def tables(monkeypatch):
    """Names of everyone who has a row in any table that is ever made."""
    met, real = set(), FeatureTable.__post_init__
    monkeypatch.setattr(
        FeatureTable, "__post_init__", lambda self: real(self) or met.update(self.subject_names_present())
    )
    return met


@pytest.mark.parametrize("scope", ["person", "dataset"])
def test_no_row_of_a_target_of_any_draw_is_ever_in_a_table(scope, opened, people, tables):
    table = people(subjects=12)
    opened(table=table)
    tables.clear()
    sources, reported = opened({"protocol.draws": 3, "protocol.scope": scope})
    run_tuning(plan((sources, reported), folds=2))
    assert len(reported) > 3
    assert tables == set(table.subjects) - set(reported) == set(names_in(sources))
    # They are those that evaluate would draw; and the spy would see one.
    workspace = Workspace.open(sources.root, {"protocol.targets": "3"})
    assert set(reported) == {name for draw in range(3) for name in workspace.targets(draw)}
    assert tables > set(names_in(sources))


def test_sources_narrow_and_those_of_the_protocol_are_the_only_ones(opened):
    workspace, reported = opened()
    some = names_in(workspace)[2:7]
    fewer, again = opened(sources=some)
    assert (names_in(fewer), again) == (some, reported)
    # A pool is kept for reporting, drawn or not.
    assert opened({"protocol.pool": "s00,s01,s02,s03"})[1] == ("s00", "s01", "s02", "s03")
    side = opened({"protocol.sources": "s00,s01,s02,s03,s04,s05"})
    assert names_in(side[0]) == ("s00", "s01", "s02", "s03", "s04", "s05")
    assert set(side[1]) < {f"s{number:02d}" for number in range(6, 12)}
    assert not any(row.error for row in flat(run_tuning(plan(side))).values())


def test_folds_are_disjoint_and_complete_and_each_is_trained_on_the_others(opened, ran):
    made = plan(opened())
    run_tuning(made)
    everyone = names_in(made.workspace)
    assert len(set(made.subjects)) == len(made.subjects) == 9
    assert sorted(made.subjects) == sorted(everyone)
    assert all(made.folds.values())
    fold_of = {name: set(names) for names in made.folds.values() for name in names}
    assert {names for names, *_ in ran} == {(name,) for name in everyone}
    for (name,), source, _ in ran:
        assert source == set(everyone) - fold_of[name]


def test_a_new_subject_moves_nobody_else_and_too_few_for_folds_is_refused(refused):
    names = [f"p{number}" for number in range(30)]
    few, many, other = (
        {name: number for number, fold in deal_folds(people, people, 4, seed).items() for name in fold}
        for people, seed in ((names[:20], 0), (names, 0), (names, 1))
    )
    assert few == {name: many[name] for name in names[:20]}
    assert other != many
    folds = deal_folds(names[:4], names[:4], 50, 0)
    assert sorted(name for fold in folds.values() for name in fold) == names[:4]
    for subjects, players, count, words in (
        ("abc", "abc", 1, ["leaves 0 to train on", "--folds"]),
        ("abc", "a", 4, ["1 of the 3 source subjects can play"]),
    ):
        with refused(InputError, *words):
            deal_folds(list(subjects), list(players), count, 0)


def test_who_has_no_neutral_clip_or_no_labels_is_trained_on_and_never_plays(opened, people):
    table = people(subjects=12)
    bare = names_in(opened(table=table)[0])[0]
    theirs = table.subject == table.subjects.index(bare)
    side = opened(table=table.take(~theirs | (table.label != table.neutral_code)))
    made = plan(side)
    assert list(made.bystanders) == [bare]
    assert "no 'neutral' rows" in made.bystanders[bare]
    assert bare not in made.subjects
    assert bare in names_in(side[0])
    assert cannot_play(side[0].table, ProtocolConfig(scope="dataset")) == {}
    table = people(subjects=3)
    table.label[table.subject == 1] = -1
    for scope in ("person", "dataset"):
        assert list(cannot_play(table, ProtocolConfig(scope=scope))) == ["s01"]


def test_a_planted_value_is_found_and_a_trial_is_the_mean_over_subjects(opened, people):
    made = plan(opened({"head.epochs": 10}, table=people(subjects=12, identity=0.3, resting=0.0)))
    progress = []
    rows = run_tuning(made, on_step=lambda *call: progress.append(call))
    # The source models of the two folds are steps too.
    assert (progress[0], progress[-1]) == ((0, 56), (56, 56))
    assert progress == sorted(progress)
    report = report_tuning(made, rows)
    for trial in report.trials:
        scores = [rows[trial.number][name].macro_f1 for name in made.subjects]
        assert (trial.macro_f1, trial.sd) == pytest.approx((np.mean(scores), np.std(scores, ddof=1)))
    chosen = report.chosen
    # idle does nothing: of the three that are equal, the one that changes least.
    assert chosen.options == {"spoil": 0.0, "idle": 0}
    assert chosen.macro_f1 > report.default.macro_f1 + 0.2
    assert (chosen.subjects, chosen.wins, chosen.losses) == (9, 9, 0)
    assert chosen.p_holm == pytest.approx(5 * 2 / 2**9)
    assert "Better than the default on 9 validation subjects" in report.verdict


def test_a_data_set_of_players_is_adapted_to_at_once_and_what_is_there_is_not_run_again(opened, ran):
    made = plan(opened({"protocol.scope": "dataset"}))
    rows = run_tuning(made)
    assert sorted((names, len(methods)) for names, _, methods in ran) == sorted(
        (names, 1) for names in made.folds.values() for _ in made.candidates
    )
    assert {row.scope for row in flat(rows).values()} == {"dataset"}
    assert report_tuning(made, rows).chosen.options == {"spoil": 0.0, "idle": 0}
    ran.clear()
    assert run_tuning(made) == rows
    assert ran == []
    # More trials run only the new ones.
    more = plan(opened({"protocol.scope": "dataset"}), "idle=0,1,2,3")
    run_tuning(more)
    assert {method.config.idle for *_, methods in ran for method in methods} == {3}


def test_source_rows_are_those_of_the_fold(opened, monkeypatch):
    met, real = [], SourceFeatures.of

    def spy(bundle, table):
        met.append(
            (set(table.subject_names_present()), {name for name in table.subjects if name in bundle.source_subjects})
        )
        return real(bundle, table)

    monkeypatch.setattr(SourceFeatures, "of", spy)
    made = plan(opened(), method="planted-source")
    assert not any(row.error for row in flat(run_tuning(made)).values())
    assert all(present == trained for present, trained in met)
    others = [set(names_in(made.workspace)) - set(names) for names in made.folds.values()]
    assert {frozenset(present) for present, _ in met} == set(map(frozenset, others))


def test_who_fails_somewhere_is_never_chosen_and_a_subject_on_whom_all_fail_is_in_nobodys_mean(opened, people):
    # One subject's clip has 2 rows; the others' have 6.
    table = people(subjects=12)
    name = names_in(opened(table=table)[0])[3]
    clip = (table.subject == table.subjects.index(name)) & (table.video == table.videos.index("neutral-0"))
    side = opened(table=table.take(~clip | (table.frame < 2)))
    made = plan(side, "least=1,3", "idle=0")
    rows = run_tuning(made)
    assert {name for (_, name), row in flat(rows).items() if row.error} == {name}
    report = report_tuning(made, rows)
    failed = [trial for trial in report.trials if trial.failed]
    assert [trial.options["least"] for trial in failed] == [3, 3]
    assert {trial.reasons for trial in failed} == {("planted needs 3 rows, got 2",)}
    assert report.chosen.options == {"spoil": 0.0, "idle": 0, "least": 1}
    assert list(report.trials[-2:]) == sorted(failed, key=lambda trial: -trial.macro_f1)
    # The default may be among them.
    rows[1][name] = row_of(name, error="too dark")
    report = report_tuning(made, rows)
    assert report.chosen.number != 1
    assert "The default failed" in report.verdict
    made = plan(side, options={"least": 3})
    report = report_tuning(made, run_tuning(made))
    assert report.unscored == {name: "planted needs 3 rows, got 2"}
    assert {(trial.subjects, trial.failed) for trial in report.trials} == {(8, 0)}
    assert report.chosen.options == {"spoil": 0.0, "idle": 0}
    # Where all fail on everybody, nothing is chosen.
    made = plan(side, options={"least": 7})
    report = report_tuning(made, run_tuning(made))
    assert {trial.failed for trial in report.trials} == {9}
    assert (report.options, report.to_dict()["chosen"]) == ({}, None)
    assert "Nothing was chosen" in report.verdict


def row_of(subject, score=float("nan"), error=""):
    who = {"method": "planted", "subject": subject, "draw": 0, "seed": 0, "selection": "source-free"}
    return EvaluationRow(**who, macro_f1=score, error=error)


@pytest.fixture
def scored(opened):
    """The report of candidates with given scores; candidate 1 is the default."""

    def make(*scores, items=("spoil=0", "idle=0,1,2"), count=9):
        made = plan(opened(), *items)
        names = made.subjects[:count]
        rows = {
            number: {
                name: row_of(name, score if np.isscalar(score) else score[place], "" if name in names else "dark")
                for place, name in enumerate(made.subjects)
            }
            for number, score in enumerate(scores, start=1)
        }
        return report_tuning(made, rows)

    return make


def test_the_highest_mean_wins_then_the_one_nearest_the_default_then_the_first(scored):
    # Candidates: default (1, 0); (0, 0) changes one option, (0, 1) and (0, 2) two.
    for scores, number in (
        ((0.5, 0.4, 0.6, 0.7), 4),
        ((0.5, 0.7, 0.7, 0.7), 2),
        ((0.5, 0.6, 0.7, 0.7), 3),
        ((0.7, 0.7, 0.7, 0.7), 1),
        ((0.5, 0.7, 0.7 + 1e-12, 0.7), 2),
    ):
        assert scored(*scores).chosen.number == number
    assert "No candidate scored higher than the default" in scored(0.7, 0.4, 0.6, 0.5).verdict


def test_a_choice_within_noise_says_so(scored):
    base = np.linspace(0.3, 0.7, 9)
    report = scored(base, base + 0.01 * np.array([3, -1, 1, -1, 1, -1, 1, -1, 1]), 0.1, 0.2)
    assert report.chosen.p_holm > 0.05
    assert report.verdict.startswith("Within noise: not shown to be better than the default")
    assert "Holm over 3 comparisons" in report.verdict
    # One subject's gain lifts the mean over eight losses: the test speaks for the others.
    better = 0.5 - 0.01 * np.arange(1, 10)
    better[0] = 1.0
    report = scored(np.full(9, 0.5), better, 0.1, 0.1)
    assert report.chosen.number == 2
    assert report.chosen.wins < report.chosen.losses
    assert "not shown to be better" in report.verdict
    # Five subjects show no difference, however large.
    report = scored(0.3, 0.9, 0.1, 0.2, count=5)
    assert report.chosen.subjects == 5
    assert report.verdict.startswith("Within noise")
    assert "it takes 6 or more" in report.verdict

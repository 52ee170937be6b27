"""What tuning tries: options and values in their types, a grid or a sample, always with the default."""

import pytest

from featlab.config.options import value_text
from featlab.errors import ConfigError
from featlab.evaluation.tuning import choose_candidates, search_space

pytestmark = pytest.mark.usefixtures("planted")


def test_the_full_grid_is_tried_when_it_is_small_and_a_default_outside_all_the_same():
    made = choose_candidates(search_space("planted"), 6, 0)
    points = [tuple(dict(values).values()) for values in made]
    assert points == [(1, 0), (0, 0), (0, 1), (0, 2), (1, 1), (1, 2)]
    made = choose_candidates(search_space("planted", items=["idle=3,4"], fixed=["spoil"]), 24, 0)
    assert [dict(values)["idle"] for values in made] == [0, 3, 4]


def test_a_sample_has_the_default_and_no_candidate_twice_and_follows_the_seed():
    space = search_space("planted", items=["spoil=0,0.1,0.2,0.3", "idle=0,1,2,3"])
    for seed in range(20):
        made = choose_candidates(space, 5, seed)
        assert len(made) == len(set(made)) == 5
        assert dict(made[0]) == {"spoil": 1.0, "idle": 0}
        assert choose_candidates(space, 9, seed)[:5] == made
        assert made == choose_candidates(space, 5, seed)
    assert len({choose_candidates(space, 5, seed) for seed in range(5)}) > 1
    # All points but one of a space that is one too large.
    space = search_space("planted", items=["spoil=0,0.1,0.2,0.3,0.4,0.5", "idle=0,1,2,3"])
    assert space.size == 24
    assert len(set(choose_candidates(space, 23, 0))) == 23


def test_what_the_file_says_is_a_candidate_and_the_default_stays_the_methods_own(planted):
    space = search_space("planted", options={"spoil": 0.4, "least": 3}, items=["idle=0,1"])
    first, second, *_ = choose_candidates(space, 24, 0)
    assert dict(first) == {"spoil": 1.0, "idle": 0}
    assert dict(second) == {"spoil": 0.4, "idle": 0}
    assert space.make(first).config == planted.config_type(least=3)


def test_values_are_replaced_and_added_each_in_its_type_and_written_as_set_reads_them():
    space = search_space("planted", items=["idle=4, 5,4", "words=a+b,c", "top=none,3"])
    assert dict(space.options) == {"spoil": (0.0, 1.0), "idle": (4, 5), "words": (("a", "b"), ("c",)), "top": (None, 3)}
    values = {None: "none", True: "true", 0.1: "0.1", 3: "3", "a b": "a b", ("a", "b"): "a,b"}
    assert {value: value_text(value) for value in values} == values


def test_fixed_options_are_not_searched_and_points_that_do_not_go_together_are_left_out():
    space = search_space("planted", options={"spoil": "0.5", "least": "2"}, fixed=["spoil", "least"])
    assert [name for name, _ in space.options] == ["idle"]
    candidates = choose_candidates(space, 24, 0)
    assert all(space.make(values).config.spoil == 0.5 for values in candidates)
    assert {dict(values)["idle"] for values in candidates} == {0, 1}
    made = choose_candidates(search_space("planted", items=["least=1,2"], fixed=["spoil"]), 24, 0)
    points = [(values["idle"], values["least"]) for values in map(dict, made)]
    assert sorted(points) == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1)]


def test_a_space_that_can_not_be_is_refused(refused):
    for method, items, fixed, words in (
        ("planted", ["idle=two"], [], ["--space idle", "'two'", "whole number"]),
        ("planted", ["idle=1.5"], [], ["whole number"]),
        ("planted", ["spoil=0,-1"], [], ["must not be negative"]),
        ("planted", ["spol=1"], [], ["--space spol", "did you mean 'spoil'"]),
        ("planted", ["spoil"], [], ["expected option=value"]),
        ("planted", ["spoil="], [], ["expected option=value"]),
        ("planted", ["spoil=1", "spoil=2"], [], ["given twice"]),
        ("planted", ["spoil=1"], ["spoil"], ["--space spoil", "--set adapt.planted.spoil"]),
        ("planted", [], ["spoil", "idle"], ["nothing to tune", "fixed by --set"]),
        ("source-only", [], [], ["nothing to tune in source-only", "declares no search space"]),
        ("source-only", ["lr=1"], [], ["no such option", "known: none"]),
        ("oracle", ["lr=0.1,0.2"], [], ["oracle", "labels"]),
        ("plantd", [], [], ["unknown method", "did you mean 'planted'"]),
    ):
        with refused(ConfigError, *words):
            search_space(method, items=items, fixed=fixed)
    with refused(ConfigError, "nothing but the default"):
        choose_candidates(search_space("planted", items=["idle=0"], fixed=["spoil"]), 24, 0)
    with refused(ConfigError, "--trials 1"):
        choose_candidates(search_space("planted"), 1, 0)

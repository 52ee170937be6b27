from dataclasses import fields, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featlab import FeatureTable
from featlab.errors import InputError
from featlab.protocol.splits import (
    Target,
    check_disjoint,
    choose_targets,
    named_subjects,
    split_dataset,
    split_target,
    target_of,
)

CODES = {"n": 1, "p": 0, "?": -1}
NAMES = tuple(f"s{number:03d}" for number in range(40))


def one_person(*videos, seed=None):
    """Rows of one subject; a video is a text of one letter a frame: n neutral, p pain, ? unknown. Named v0, v1, …"""
    rows = [(CODES[letter], number, frame) for number, video in enumerate(videos) for frame, letter in enumerate(video)]
    label, video, frame = np.array(rows, dtype=np.int32).reshape(-1, 3).T
    table = FeatureTable(
        embeddings=np.arange(len(rows) * 2, dtype=np.float32).reshape(-1, 2),
        label=label.astype(np.int16),
        subject=np.zeros_like(video),
        video=video,
        frame=frame,
        subjects=("s0",),
        videos=tuple(f"v{number}" for number in range(len(videos))),
        classes=("pain", "neutral"),
        neutral="neutral",
    )
    return table if seed is None else table.take(np.random.default_rng(seed).permutation(len(rows)))


def where(table, rows):
    """{video name: frames} of some rows."""
    found = {}
    for row in rows:
        found.setdefault(table.videos[table.video[row]], []).append(int(table.frame[row]))
    return {name: sorted(frames) for name, frames in sorted(found.items())}


def all_frames(*videos):
    return {f"v{number}": list(range(len(video))) for number, video in enumerate(videos)}


def test_half_of_the_neutral_videos_by_name_is_adapted_on_and_every_other_video_tested():
    for videos, adapt in (
        (("nnn", "nn", "ppp"), ["v0"]),
        (("ppp", "nnn", "nn"), ["v1"]),
        (("nn", "nn", "nn"), ["v0"]),
        (("nn", "pp", "nn", "nn", "nn"), ["v0", "v2"]),
        (("np", "nn", "pn", "nn"), ["v1"]),
        # Unknown is not neutral.
        (("n?", "nn", "nn"), ["v1"]),
        (("nn", "nn"), ["v0"]),
    ):
        table, every = one_person(*videos), all_frames(*videos)
        split = split_target(table)
        assert where(table, split.adapt) == {name: every[name] for name in adapt}
        assert where(table, split.test) == {name: frames for name, frames in every.items() if name not in adapt}
    table = replace(one_person("nn", "nnn"), videos=("z", "a"))
    assert where(table, split_target(table).adapt) == {"a": [0, 1, 2]}


def test_without_a_second_neutral_video_the_split_is_in_time_with_a_gap():
    for videos, gap, adapt, test in (
        (("n" * 10, "pp"), 2, {"v0": [0, 1, 2, 3, 4]}, {"v0": [7, 8, 9], "v1": [0, 1]}),
        (("n" * 10, "pp"), 0, {"v0": [0, 1, 2, 3, 4]}, {"v0": [5, 6, 7, 8, 9], "v1": [0, 1]}),
        (("n" * 9, "pp"), 3, {"v0": [0, 1, 2, 3, 4]}, {"v0": [7, 8], "v1": [0, 1]}),
        (("n", "pp"), 5, {"v0": [0]}, {"v1": [0, 1]}),
        # The pure video before a mixed one, and a mixed one where there is no other.
        (("nnnn", "np"), 1, {"v0": [0, 1]}, {"v0": [3], "v1": [0, 1]}),
        (("pp", "nnppnnpp"), 1, {"v1": [0, 1]}, {"v0": [0, 1], "v1": [3, 4, 5, 6, 7]}),
        (("npnpnpnp",), 1, {"v0": [0, 2]}, {"v0": [4, 5, 6, 7]}),
        (("n?nn??pp",), 0, {"v0": [0, 2]}, {"v0": [3, 4, 5, 6, 7]}),
    ):
        table = one_person(*videos)
        split = split_target(table, gap)
        assert (where(table, split.adapt), where(table, split.test)) == (adapt, test)


def test_a_target_without_neutral_rows_or_without_test_rows_is_refused(refused):
    for videos in (("pp", "p?"), ("??",), ()):
        with refused(InputError, "no 'neutral' rows"):
            split_target(one_person(*videos))
    with refused(InputError, "'s0'", "no rows left to test on"):
        split_target(one_person("n"), gap=5)


layouts = st.lists(st.text("np?", min_size=1, max_size=14), min_size=1, max_size=6)


@given(layouts, st.integers(0, 6), st.integers(0, 99))
def test_for_every_layout_adapt_is_neutral_and_apart_from_test_in_video_or_in_time(videos, gap, seed):
    table = one_person(*videos, seed=seed)
    try:
        split = split_target(table, gap)
    except InputError:
        return
    assert len(split.adapt) > 0
    assert len(split.test) > 0
    assert (table.label[split.adapt] == table.neutral_code).all()
    assert (np.diff(split.adapt) > 0).all()
    assert (np.diff(split.test) > 0).all()
    assert not set(split.adapt) & set(split.test)
    for video in set(table.video[split.adapt]) & set(table.video[split.test]):
        last_seen = table.frame[split.adapt][table.video[split.adapt] == video].max()
        first_tested = table.frame[split.test][table.video[split.test] == video].min()
        following = int((table.frame[table.video == video] > last_seen).sum())
        assert first_tested > last_seen + min(gap, following // 2)
    outside = np.setdiff1d(np.arange(len(table)), np.concatenate([split.adapt, split.test]))
    assert set(table.video[outside]) <= set(table.video[split.adapt])


@given(layouts, st.integers(0, 99))
def test_a_split_does_not_depend_on_the_order_of_rows(videos, seed):
    def split(table):
        try:
            parts = split_target(table, 2)
        except InputError as error:
            return str(error)
        return where(table, parts.adapt), where(table, parts.test)

    assert split(one_person(*videos)) == split(one_person(*videos, seed=seed))


def test_a_target_is_the_rows_it_was_made_of_without_label_name_or_path(people):
    assert {field.name for field in fields(Target)} == {"embeddings", "video", "frame"}
    table = people(subjects=1)
    rows = split_target(table).adapt
    target = target_of(table, rows)
    for name, values in vars(target).items():
        assert np.array_equal(values, getattr(table, name)[rows])
    assert len(target_of(table)) == len(table)


def test_a_target_without_rows_of_finite_features_is_refused(refused):
    for value in (np.nan, np.inf, -np.inf):
        table = one_person("nnn")
        table.embeddings[1, 1] = value
        with refused(InputError, "NaN or infinity", "extract"):
            target_of(table)
    for shape in ((0, 4), (4,), (2, 2, 2)):
        codes = np.zeros(shape[0], dtype=np.int32)
        with refused(InputError, "needs rows (n, D)", "n ≥ 1", str(shape)):
            Target(np.zeros(shape, dtype=np.float32), codes, codes)


def test_a_number_draws_that_many_of_everyone_equally_often_and_repeats():
    drawn = choose_targets(NAMES, "10", seed=0)
    assert len(set(drawn)) == 10
    assert set(drawn) < set(NAMES)
    assert drawn == tuple(sorted(drawn)) == choose_targets(NAMES, " 10 ", seed=0)
    assert choose_targets(NAMES[::-1], "10", seed=0) == drawn
    assert set(choose_targets(NAMES, "5", seed=0)) < set(drawn)
    assert len({choose_targets(NAMES, "10", seed=seed, draw=draw) for seed in range(3) for draw in range(3)}) == 9
    times = dict.fromkeys(NAMES, 0)
    for draw in range(400):
        for name in choose_targets(NAMES, "10", seed=0, draw=draw):
            times[name] += 1
    # Binomial(400, 1/4): mean 100, standard deviation 8.7.
    assert all(60 < count < 140 for count in times.values())


@given(st.text(min_size=1, max_size=5).filter(lambda name: name not in NAMES), st.integers(1, 39), st.integers(0, 9))
def test_a_new_subject_takes_at_most_one_place_in_a_draw(name, number, draw):
    before = set(choose_targets(NAMES, str(number), seed=0, draw=draw))
    after = set(choose_targets((*NAMES, name), str(number), seed=0, draw=draw))
    assert after - before <= {name}
    assert len(before - after) == len(after - before)


def test_ids_stand_between_commas_or_in_a_file_one_a_line_that_is_no_subject(tmp_path, monkeypatch):
    path = tmp_path / "targets.txt"
    for spec in ("s003,s001", " s001 , s003 ,", "s001,s003,s001"):
        assert choose_targets(NAMES, spec, seed=7, draw=3) == named_subjects(NAMES, spec) == ("s001", "s003")
    for content in ("s003\ns001\n", "# targets\ns001  # first\n\n  s003\n", "\ufeffs001\r\ns003\r\n"):
        path.write_bytes(content.encode())
        assert choose_targets(NAMES, str(path), seed=0) == ("s001", "s003")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s001").write_text("s002\n")
    assert choose_targets(NAMES, "s001", seed=0) == ("s001",)


def test_a_pattern_names_all_whom_it_fits_and_those_alone(tmp_path, refused):
    people = ("Zo\u00eb-1", "Zo\u00eb-2", "a[1]", "a1", "b1")
    (tmp_path / "some.txt").write_text("b*\nZoe\u0308-?\n")
    for spec, found in (
        ("Zoe\u0308*", people[:2]),
        ("a[1]", ("a[1]",)),
        ("?1", ("a1", "b1")),
        ("b1, Zo?-1", ("Zo\u00eb-1", "b1")),
        (str(tmp_path / "some.txt"), ("Zo\u00eb-1", "Zo\u00eb-2", "b1")),
    ):
        assert named_subjects(people, spec) == choose_targets(people, spec, seed=1) == tuple(sorted(found)), spec
    with refused(InputError, "--pool c*: fits none of the 5"):
        named_subjects(people, "a1,c*", "--pool")


def test_a_plain_number_is_a_draw_also_where_subjects_are_called_by_numbers():
    numbers, padded = ([f"{number:{width}d}" for number in range(1, 21)] for width in ("", "03"))
    for names, spec, many in ((numbers, "10", 10), (numbers, "10,", 1), (padded, "010", 1), (padded, "10", 10)):
        assert len(choose_targets(names, spec, seed=0)) == many


def test_targets_and_pools_that_are_none_are_refused(tmp_path, refused):
    nobody, broken = tmp_path / "nobody.txt", tmp_path / "broken.txt"
    nobody.write_bytes(b"# nobody\n")
    broken.write_bytes(b"\xff\xfes001")
    for words, specs in (
        (("40 subjects", "1 to 39"), ("0", "40", "41", "99999")),
        (("unknown subject",), ("s0033", "s001,s0O3", "-3", "2.5", "missing.txt", "s " * 200)),
        (("names no subject",), ("", " ", ",", " , ,", str(nobody))),
        ((str(broken), "can't be read"), (str(broken),)),
    ):
        for spec in specs:
            with refused(InputError, *words):
                choose_targets(NAMES, spec, seed=0)
    with refused(InputError, "'s0O3' among the 3 of the cache; did you mean 's003'"):
        named_subjects(("s003", "x", "y"), "s0O3")
    with refused(InputError, "--pool ','", "give ids with commas"):
        named_subjects(NAMES, ",", "--pool")
    for spec, pool, words in (
        ("0", NAMES[:3], ["--targets 0", "the pool has 3 subjects"]),
        ("4", NAMES[:3], ["--targets 4", "the pool has 3 subjects"]),
        ("40", NAMES, ["at least one must stay a source"]),
        ("s001,s002", NAMES[:10], ["--targets s001,s002", "names the targets", "--pool"]),
    ):
        with refused(InputError, *words):
            choose_targets(NAMES, spec, seed=0, pool=pool)


def test_a_pool_is_drawn_from_as_from_everyone_and_nobody_else_is():
    pool = NAMES[5:15]
    draws = [choose_targets(NAMES, "4", seed=0, draw=draw, pool=pool) for draw in range(20)]
    assert set().union(*draws) == set(pool)
    assert choose_targets(NAMES, "10", seed=3, pool=NAMES[30:]) == NAMES[30:]
    assert choose_targets(NAMES, "10", seed=0, pool=NAMES[::-1]) == choose_targets(NAMES, "10", seed=0)


def test_a_subject_that_is_source_and_target_is_refused(refused):
    check_disjoint(("a", "b"), ("c",))
    check_disjoint((), ("c",))
    with refused(InputError, "both source and target"):
        check_disjoint(("Zoe\u0308",), ("Zo\u00eb",))
    with refused(InputError, "'b'", "both source and target"):
        check_disjoint(("a", "b", "c"), ("c", "b"))


def test_a_subject_with_one_video_of_a_data_set_is_split_in_time_with_a_gap(people):
    table = people(subjects=2, clips=1, frames=12)
    one = table.take(np.flatnonzero(table.video == table.video[0]))
    for gap, first_tested in ((0, 6), (2, 8), (5, 9)):
        split = split_dataset(one, gap)
        assert set(one.frame[split.adapt]) == set(range(6))
        assert set(one.frame[split.test]) == set(range(first_tested, 12))

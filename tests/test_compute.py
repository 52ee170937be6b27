import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featlab.compute import generator, run_seed, stable_hash

TEXTS = st.text(st.characters(exclude_characters="\x1f", codec="utf-8"), max_size=6)


def test_a_hash_is_the_same_on_every_machine_and_in_every_version():
    assert stable_hash("targets", 0, 1, "Zoë") == hashlib.sha256("targets\x1f0\x1f1\x1fZoë".encode()).hexdigest()
    assert run_seed(0, "adapt", "pft", "s041") == 772984847
    assert generator(0, "pairs").integers(2**32) == 3202020895
    assert run_seed(np.int64(3), "head") == run_seed(3, "head") != run_seed("head", 3)


@given(st.lists(TEXTS, min_size=1), st.lists(TEXTS, min_size=1))
def test_other_parts_give_another_hash_and_a_seed_fits_every_library(ours, theirs):
    assert (stable_hash(*ours) == stable_hash(*theirs)) == (ours == theirs)
    assert 0 <= run_seed(*ours) < 2**32


def test_generators_of_the_same_parts_repeat_and_leave_numpys_global_state_alone():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again, other = (generator(0, name).normal(size=8) for name in ("a", "a", "b"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002

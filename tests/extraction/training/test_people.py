"""Who is held out agrees with `featlab evaluate`, and nobody has two parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from featlab.errors import InputError
from featlab.extraction.items import Item
from featlab.extraction.training.data import choose_people
from featlab.protocol.splits import choose_targets, subjects_held_out

PEOPLE = [f"p{number:02}" for number in range(20)]


def _items(names: list[str], label: str | None = "neutral") -> list[Item]:
    return [Item(Path(f"{name}.png"), f"{name}.png", name, label, "v", 0, row) for row, name in enumerate(names)]


def test_everyone_who_is_a_target_in_any_draw_is_held_out() -> None:
    draws = [choose_targets(PEOPLE, "4", seed=3, draw=draw) for draw in range(3)]
    held = subjects_held_out(PEOPLE, "4", draws=3, seed=3, named=["p00"])
    assert set(held) == {"p00", *draws[0], *draws[1], *draws[2]}
    assert list(held) == sorted(held)
    assert len(held) > 4


def test_ids_and_files_hold_out_those_they_name(tmp_path: Path) -> None:
    file = tmp_path / "targets.txt"
    file.write_text("p03\np01  # comment\n")
    assert subjects_held_out(PEOPLE, str(file), draws=5) == ("p01", "p03")
    assert subjects_held_out(PEOPLE, "p02,p07") == ("p02", "p07")
    assert subjects_held_out(PEOPLE, None) == ()


def test_an_unknown_name_is_refused_with_the_closest() -> None:
    with pytest.raises(InputError, match=r"unknown subject 'q07'.*did you mean 'p07'"):
        subjects_held_out(PEOPLE, None, named=["q07"])
    with pytest.raises(InputError, match="unknown subject 'who'"):
        choose_people(_items(PEOPLE), ["who"], 0.2, 0)


def test_parts_are_disjoint_complete_and_reproducible() -> None:
    people = choose_people(_items(PEOPLE), ["p05", "p06"], 0.25, 0)
    assert len(people.validation) == round(0.25 * 18)
    assert sorted((*people.fit, *people.validation, *people.held_out)) == PEOPLE
    assert set(people.source) == set(PEOPLE) - {"p05", "p06"}
    assert people == choose_people(_items(PEOPLE)[::-1], ["p06", "p05"], 0.25, 0)
    assert people.validation != choose_people(_items(PEOPLE), ["p05", "p06"], 0.25, 1).validation


def test_there_is_always_someone_to_validate_and_someone_to_fit() -> None:
    for share in (0.01, 0.99):
        people = choose_people(_items(PEOPLE[:2]), [], share, 0)
        assert (len(people.fit), len(people.validation)) == (1, 1)


def test_people_without_labels_train_nothing() -> None:
    items = _items(["a", "b", "c"]) + _items(["d"], label=None)
    assert "d" not in choose_people(items, [], 0.3, 0).source
    with pytest.raises(InputError, match=r"2 or more source subjects with labels.*1 of 4 are left"):
        choose_people(items, ["a", "b"], 0.3, 0)

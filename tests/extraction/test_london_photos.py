"""What a download may look like, and what is said when it looks otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from featlab.errors import ConfigError, InputError
from featlab.extraction.london_photos import MORPH_PEOPLE, find_people, parse_people

GIVEN = Path(__file__).parents[2].parent / "shared" / "data" / "london-morph"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


FLAT = ("001_03.jpg", "001_08.jpg", "172_03.jpg", "172_08.jpg", "manifest.csv", "001_04.jpg", "001_03.tem")
FOLDERS = tuple(("neutral_front/" if "_03" in name else "smiling_front/") + name for name in FLAT[:4])
NESTED = tuple(f"5047666/{name.replace('/', '.zip/', 1)}" for name in FOLDERS)


@pytest.mark.parametrize("names", [FLAT, FOLDERS, NESTED], ids=["flat", "two folders", "nested"])
def test_photographs_are_found_in_every_layout_of_the_download(tmp_path: Path, names: tuple[str, ...]) -> None:
    # An archive packed on macOS brings a shadow of every file.
    touch(tmp_path, *names, "__MACOSX/neutral_front/001_03.jpg", ".hidden/001_03.jpg")
    people = find_people(tmp_path, None)
    assert [person.subject for person in people] == ["s001", "s172"]
    for person in people:
        assert person.neutral is not None
        assert person.smiling is not None
        assert person.neutral.name == f"{person.number:03d}_03.jpg"
        assert person.smiling.name == f"{person.number:03d}_08.jpg"
        assert person.missing is None


def test_only_those_who_are_wanted_come_back_and_they_all_do(tmp_path: Path) -> None:
    touch(tmp_path, "001_03.jpg", "001_08.jpg", "002_03.jpg", "003_08.jpg", "004_03.jpg", "004_08.jpg")
    people = find_people(tmp_path, (5, 3, 2, 1, 1))
    assert [(person.subject, person.missing) for person in people] == [
        ("s001", None),
        ("s002", "no photograph 002_08.jpg"),
        ("s003", "no photograph 003_03.jpg"),
        ("s005", "no photograph 005_03.jpg and 005_08.jpg"),
    ]


def test_a_download_that_is_not_one_says_what_was_expected_and_what_was_found(tmp_path: Path) -> None:
    zipped = touch(tmp_path / "zipped", "neutral_front.zip", "smiling_front.zip")
    cases = {
        tmp_path / "nowhere": "no such folder",
        touch(tmp_path, "file") / "file": "is a file",
        zipped: r"found neutral_front.zip, smiling_front.zip \(unpack the archives first\)",
        touch(tmp_path / "other", *(f"{n}.txt" for n in range(9))): r"found 0.txt, .* and 3 more",
    }
    for root, reason in cases.items():
        with pytest.raises(InputError, match=reason) as caught:
            find_people(root, None)
        assert "expected NNN_03.jpg" in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="found an empty folder"):
        find_people(tmp_path / "bare", None)


def test_a_download_of_other_people_names_both(tmp_path: Path) -> None:
    touch(tmp_path, "004_03.jpg", "004_08.jpg")
    with pytest.raises(InputError, match="nobody of people 001, 002; found 004"):
        find_people(tmp_path, (1, 2))


def test_a_photograph_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/001_03.jpg", "b/001_03.JPG")
    with pytest.raises(InputError, match="one photograph twice"):
        find_people(tmp_path, None)


def test_people_are_named_by_a_word_or_by_numbers() -> None:
    assert parse_people("all") is None
    assert parse_people(" Morph ") == MORPH_PEOPLE
    assert parse_people("11, s002,003,2") == (2, 3, 11)
    for text in ("", "everyone", "1;2", "1,-2", "12345", "1-3", "²"):
        with pytest.raises(ConfigError, match="expected morph, all, or photograph numbers"):
            parse_people(text)


@pytest.mark.faces
@pytest.mark.skipif(not GIVEN.is_dir(), reason="../shared/data/london-morph is not there")
def test_the_default_people_are_those_of_london_morph() -> None:
    names = {path.name[:4] for path in (GIVEN / "frames").iterdir()}
    assert names == {f"s{number:03d}" for number in MORPH_PEOPLE}
    assert len(MORPH_PEOPLE) == 62


def test_a_copy_deeper_than_an_archive_is_not_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "001_03.jpg", "001_08.jpg", "a/b/c/d/e/f/002_03.jpg")
    assert [person.number for person in find_people(tmp_path, None)] == [1]

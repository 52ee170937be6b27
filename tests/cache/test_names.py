import unicodedata

import pytest

from featlab.cache.names import alike, one_form, one_name_each, spellings

APART = unicodedata.normalize("NFD", "Zoë")


def test_a_name_has_one_form_however_it_was_typed():
    for name in ("Zoë", APART, " Zoë", "Zoë\u00a0", "\ufeffZoë\u200b", f"\t{APART}\n"):
        assert one_form(name) == "Zoë"
    assert one_form("a  b") == "a  b"


def test_spellings_that_differ_in_case_zeros_blanks_or_width_alone_are_told():
    for group in (
        ["Neutral", "neutral"],
        ["001", "1"],
        ["a  b", "a b"],
        ["a b", "a\u00a0b"],
        ["s01", "s1"],
        ["1", "１"],
    ):
        assert spellings([*group, "other", *group]) == [sorted(group)]
    for names in (["10", "1", "100", "101"], ["1-1", "11"], ["ab", "a b"], ["s1", "s10"]):
        assert spellings(names) == []
    assert alike({"subject": ["1", "01"], "label": ["a", "A"]}) == "subject '01', '1'; label 'A', 'a'"
    many = [f"{number:0{digits}}" for number in range(20) for digits in (3, 4)]
    assert alike({"subject": many}).endswith("and 8 more")


@pytest.fixture
def names():
    """Names of rows: subject, label, video, frame, one a column."""

    def make(*rows, merge=True):
        return one_name_each(*(list(column) for column in zip(*rows, strict=True)), merge=merge)

    return make


def test_spellings_are_joined_to_the_most_frequent_only_where_that_is_asked_for(names):
    rows = [("1", "Neutral", "v", 0), ("01", "neutral", "w", 0), ("01", "neutral", "w", 1), ("2", None, "v", 0)]
    asked, joined = names(*rows, merge=False), names(*rows)
    assert (asked.subject, asked.label) == (["1", "01", "01", "2"], ["Neutral", "neutral", "neutral", None])
    said = "names that may be one: subject '01', '1'; label 'Neutral', 'neutral'; --merge-names joins them"
    assert asked.warning == said
    assert (joined.subject, joined.label) == (["01", "01", "01", "2"], ["neutral", "neutral", "neutral", None])
    assert joined.warning == "joined, each to its most frequent spelling: subject '01', '1'; label 'Neutral', 'neutral'"
    assert [joined.neutral(name) for name in ("Neutral", "neutral", "rest ")] == ["neutral", "neutral", "rest"]
    assert names(("a", "b", "v", 0)).warning == ""


def test_recordings_of_a_person_of_two_spellings_stay_apart_where_frames_meet(names):
    for one, other in (("Zoë", APART), ("p1", "P1 ")):
        met = names((one, None, "v", 0), (one, None, "v", 1), (other, None, "v", 0), (one, None, "w", 0))
        assert len(set(met.subject)) == 1
        assert met.video == ["v", "v", "v (2)", "w"]
    assert names(("p", None, "v", 0), ("P", None, "v", 1)).video == ["v", "v"]
    assert names(("p", None, "v", 0), ("q", None, "v", 0)).video == ["v", "v"]

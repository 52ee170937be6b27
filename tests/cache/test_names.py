import unicodedata

from featlab.cache.names import alike, spellings
from featlab.cache.schema import one_form

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

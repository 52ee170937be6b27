"""Names that are one: a single Unicode form, and spellings that may mean the same."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from featlab.errors import CONTROL, InputError

_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_SPELLED_OUT = 12


def spellings(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that differ in case, leading zeros, blanks or width alone, each sorted."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        words = unicodedata.normalize("NFKC", name).casefold().split()
        groups[_LEADING_ZEROS.sub("", " ".join(words))].append(name)
    return [group for group in groups.values() if len(group) > 1]


def alike(kinds: Mapping[str, Iterable[str]]) -> str:
    """Name the spellings that may be one: "subject '01', '1'; label 'Neutral', 'neutral'"; empty without any."""
    groups = [f"{kind} " + ", ".join(map(repr, group)) for kind, names in kinds.items() for group in spellings(names)]
    more = f"; and {len(groups) - _SPELLED_OUT} more" if len(groups) > _SPELLED_OUT else ""
    return "; ".join(groups[:_SPELLED_OUT]) + more


@dataclass(frozen=True)
class Names:
    """Who, what and which recording each of N rows is, in one spelling as far as that was asked for."""

    subject: Sequence[str]
    label: Sequence[str | None]
    video: Sequence[str]
    warning: str  # Which names may be one, or were joined; one line, empty without any.
    labels: Mapping[str, str]  # What each label, and each of its spellings, is now called.

    def neutral(self, name: str) -> str:
        """Return what the neutral label of that name is now called."""
        from featlab.cache.schema import one_form

        return self.labels.get(one_form(name), one_form(name))


def one_name_each(
    subject: Sequence[str], label: Sequence[str | None], video: Sequence[str], frame: Sequence[int], *, merge: bool
) -> Names:
    """Bring the names of rows into one form; with ``merge`` spellings of a subject or label go to the most frequent.

    Where two recordings of what is now one person have one name, and a frame in common, the later ones get a number.
    """
    from featlab.cache.schema import one_form  # To list layouts takes no NumPy.

    who, what, clips = (
        {name: one_form(name) for name in set(names) if name is not None} for names in (subject, label, video)
    )
    said = alike({"subject": who.values(), "label": what.values()})
    warning = f"names that may be one: {said}; --merge-names joins them" if said else ""
    for kind, forms in (("subject", who), ("label", what), ("video", clips)):
        if torn := next((name for name in forms.values() if CONTROL.search(name)), None):
            raise InputError(f"the {kind} {torn[:80]!r} holds a control character; rename it")
    if said and merge:
        warning = f"joined, each to its most frequent spelling: {said}"
        _join(subject, who)
        _join(label, what)
    labels = {one_form(old): new for old, new in what.items()}
    if all(old == new for forms in (who, what, clips) for old, new in forms.items()):
        return Names(subject, label, video, warning, labels)
    before = list(zip(subject, video, strict=True))
    after = [(who[name], clips[clip]) for name, clip in before]
    named = [None if name is None else what[name] for name in label]
    return Names([name for name, _ in after], named, _apart(before, after, frame), warning, labels)


def _join(names: Sequence[str | None], forms: dict[str, str]) -> None:
    """Let the form of each name be its most frequent spelling."""
    counts = Counter(forms[name] for name in names if name is not None)
    for group in spellings(forms.values()):
        best = max(group, key=lambda name: counts[name])
        forms |= {name: best for name, form in forms.items() if form in group}


def _apart(before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]], frame: Sequence[int]) -> list[str]:
    """Return the names of videos ``after`` a change; one that was several ``before``, of equal frames, in numbers."""
    parts: dict[tuple[str, str], dict[tuple[str, str], int]] = defaultdict(dict)
    for old, new in zip(before, after, strict=True):
        parts[new].setdefault(old, len(parts[new]) + 1)
    met = Counter(zip(after, frame, strict=True))
    several = {new for (new, _), count in met.items() if count > 1 and len(parts[new]) > 1}
    return [
        f"{new[1]} ({parts[new][old]})" if new in several and parts[new][old] > 1 else new[1]
        for old, new in zip(before, after, strict=True)
    ]

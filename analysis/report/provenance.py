"""Where the results of a report come from: cache and versions, settings that differ, the protocol, the commands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featlab.analysis.page import Page
from featlab.analysis.table import count_text
from featlab.config.load import Config

_UNKNOWN = "nobody knows where"


@dataclass(frozen=True)
class Origin:
    """What results come from."""

    digest: str  # Of the cache; empty where nobody knows, as below.
    extractor: str  # What made its embeddings.
    fingerprint: str  # Of the extractor.
    versions: tuple[tuple[str, str], ...]  # Package and version.

    @classmethod
    def of(cls, page: Page) -> Origin:
        """Return what a page says of itself."""
        versions = tuple((name, str(version)) for name, version in _part(page.metadata, "versions").items())
        # An ablation may have been run on several caches.
        several = {name: _part(_part(page.metadata, "data_sets"), name) for name in _part(page.metadata, "data_sets")}
        if several:
            digests = ", ".join(f"{name} {str(facts.get('cache_digest', ''))[:12]}" for name, facts in several.items())
            extractors = dict.fromkeys(str(_part(facts, "extractor").get("id", "")) for facts in several.values())
            return cls(digests, ", ".join(extractors), "", versions)
        extractor = _part(page.metadata, "extractor")
        return cls(
            str(page.metadata.get("cache_digest", "")),
            str(extractor.get("id", "")),
            str(extractor.get("fingerprint", "")),
            versions,
        )

    def cache(self) -> dict[str, str]:
        """Return which cache, for people: name to value."""
        extractor = f"{self.extractor} ({self.fingerprint})" if self.fingerprint else self.extractor
        known = {"cache digest": self.digest, "extractor": extractor}
        return {name: value for name, value in known.items() if value} or {"cache": _UNKNOWN}

    def short(self) -> str:
        """Return it in a few words, enough to tell it from another."""
        versions = dict(self.versions)
        digest = self.digest if "," in self.digest else self.digest[:12]
        parts = [f"cache {digest}" if digest else "", self.extractor]
        parts += [f"{name} {versions[name]}" for name in ("featlab", "torch") if name in versions]
        return ", ".join(filter(None, parts)) or _UNKNOWN


@dataclass(frozen=True)
class ChangedSetting:
    """A setting that differs from its default."""

    key: str  # ``section.key``.
    default: str  # What it is without anybody's doing; empty for a method's option, which only the method knows.
    value: str  # What it was.
    pages: tuple[int, ...]  # Which pages say so, counted from 0.


def origins(pages: Sequence[Page]) -> list[tuple[Origin, tuple[int, ...]]]:
    """Return each origin and the pages that have it, counted from 0, in the order in which they appear."""
    found: dict[Origin, list[int]] = {}
    for place, page in enumerate(pages):
        found.setdefault(Origin.of(page), []).append(place)
    return [(origin, tuple(places)) for origin, places in found.items()]


def sources_of(pages: Sequence[Page]) -> list[tuple[dict[str, str], tuple[int, ...]]]:
    """Return each cache and the pages that come from it, then each set of versions and its pages: name to value."""
    found = [Origin.of(page) for page in pages]
    known = [[origin.cache() for origin in found], [dict(o.versions) or {"versions": _UNKNOWN} for o in found]]
    listed = []
    for parts in known:
        unlike = [part for place, part in enumerate(parts) if part not in parts[:place]]
        listed += [(part, tuple(place for place, other in enumerate(parts) if other == part)) for part in unlike]
    return listed


def changed_settings(pages: Sequence[Page]) -> list[ChangedSetting]:
    """Return the settings that differ from the defaults: one entry a value, in the order of the configuration."""
    defaults = _flat(Config().to_dict())
    found: dict[tuple[str, str], list[int]] = {}
    for place, page in enumerate(pages):
        for key, value in _flat(_part(page.metadata, "config")).items():
            if defaults.get(key) != value:
                found.setdefault((key, value), []).append(place)
    sections, order = list(Config().to_dict()), list(defaults)

    def place_of(item: ChangedSetting) -> tuple[int, int, str, tuple[int, ...]]:
        section = item.key.partition(".")[0]
        return (
            sections.index(section) if section in sections else len(sections),
            # Options of methods have no default; they follow what has one.
            order.index(item.key) if item.key in order else len(order),
            item.key,
            item.pages,
        )

    changed = [ChangedSetting(key, defaults.get(key, ""), value, tuple(at)) for (key, value), at in found.items()]
    return sorted(changed, key=place_of)


def configurations(pages: Sequence[Page]) -> list[tuple[str, tuple[int, ...]]]:
    """Return each whole configuration, a setting a line, and the pages that have it, counted from 0."""
    found: dict[str, list[int]] = {}
    for place, page in enumerate(pages):
        settings = _flat(_part(page.metadata, "config"))
        if settings:
            found.setdefault("\n".join(f"{key} = {value}" for key, value in settings.items()), []).append(place)
    return [(text, tuple(places)) for text, places in found.items()]


def commands(pages: Sequence[Page]) -> list[str]:
    """Return what reproduces the pages, each command once; a page that no command made is a comment."""
    lines = [page.command or f"# {page.title}: called from Python" for page in pages]
    return list(dict.fromkeys(" ".join(line.splitlines()) for line in lines))


def protocol_summary(page: Page) -> tuple[str, ...]:
    """Return the protocol of a page, a sentence each; nothing where its metadata hold none."""
    protocol = _part(_part(page.metadata, "config"), "protocol")
    if not protocol:
        return ()
    defaults = Config().protocol
    said = {name: protocol.get(name, getattr(defaults, name)) for name in vars(defaults)}
    targets, sources = str(said["targets"]).strip(), said["sources"]
    seeds = f"{count_text(int(said['seeds']), 'seed')}; the root of every seed is {said['seed']}"
    if targets.isdecimal():
        pool = " among a pool" if said["pool"] else ""
        drawn = f"{count_text(int(targets), 'target subject')} drawn at random{pool}"
        lines = [f"{drawn}, {count_text(int(said['draws']), 'draw')}, {seeds}."]
    else:
        lines = [f"Target subjects that were named ({targets}), {seeds}."]
    limit = f", {said['source_limit']} of them at most" if said["source_limit"] else ""
    who = f"{count_text(len(sources), 'subject')} that were named" if sources else "all who are no target"
    lines.append(f"Source subjects: {who}{limit}. Source and target have nobody in common.")
    if said["scope"] == "dataset":
        lines.append(
            "Adapted to all target subjects together: half of their videos of every class, without labels; the other "
            "half is tested."
        )
    else:
        lines.append(
            "Adapted to each target subject alone, on half of their neutral videos, without labels; every other video "
            f"is tested. With one neutral video the split is in time, {count_text(int(said['gap']), 'frame')} apart."
        )
        if said["frames"]:
            lines.append(f"Of the neutral videos, the first {count_text(int(said['frames']), 'frame')} at most.")
        if said["contamination"]:
            lines.append(
                f"{100 * float(said['contamination']):g} % of the adapted frames show other classes, on purpose."
            )
    return (*lines, *_SCORING)


_SCORING = (
    "Everything is trained and chosen on source subjects; labels of target subjects reach the scores, and the oracle.",
    "A score is the macro F1 over the classes among a subject's test rows, averaged over seeds and draws within a "
    "subject, then over subjects. Intervals are bootstraps over subjects; p values are of Wilcoxon's signed-rank test "
    "over subjects, Holm-adjusted.",
)


def _part(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = metadata.get(name)
    return part if isinstance(part, Mapping) else {}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return ``section.key`` to its value as TOML would write it, or nearly; names as `--set` takes them."""
    flat: dict[str, str] = {}
    for name, value in data.items():
        # Options of methods are nested one deeper than they are typed.
        key = prefix if prefix == "adapt." and name == "options" else f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= _flat(value, key if key.endswith(".") else f"{key}.")
        else:
            flat[key] = json.dumps(value, ensure_ascii=False)
    return flat

"""Keyed hashes in place of names of people, videos and pictures: who has no key can't test a name."""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from featlab.cache.names import one_form
from featlab.cache.schema import ExtractorInfo
from featlab.errors import InputError, one_line
from featlab.extraction.items import Failure, Item, item_order

SPELLINGS = "some names may be one, or were joined; the same command without --pseudonymise, elsewhere, says which"
_KEY_BYTES = 32
_LETTERS = 10
_QUOTED = re.compile(r"'.*'|\".*\"", re.DOTALL)


@dataclass(frozen=True)
class Pseudonyms:
    """What people, videos and pictures are called in place of their names: HMAC-SHA256, its first 50 bits."""

    key: bytes = field(repr=False)

    def subject(self, name: str) -> str:
        """Return a person's pseudonym, the same with the same key whatever the command."""
        return self._hash("p", one_form(name))

    def video(self, subject: str, name: str) -> str:
        """Return what a recording of that person is called; ``subject`` is the person's name."""
        return self._hash("v", one_form(subject), one_form(name))

    def path(self, name: str) -> str:
        """Return what a picture or a line of a table is called in the cache and in lists."""
        return self._hash("f", name)

    def items(self, items: Iterable[Item]) -> list[Item]:
        """Return items that name nobody but for the place of their file, in a cache's order."""
        named = ((each, self.subject(each.subject), self.video(each.subject, each.video)) for each in items)
        hidden = (replace(each, name=self.path(each.name), subject=who, video=clip) for each, who, clip in named)
        return sorted(hidden, key=item_order)

    def failures(self, failures: Iterable[Failure]) -> tuple[Failure, ...]:
        """Return failures that name nobody: what a reason quotes is left out."""
        return tuple(Failure(self.path(path), _QUOTED.sub("…", reason)) for path, reason in failures)

    def extractor(self, info: ExtractorInfo) -> ExtractorInfo:
        """Return an extractor whose own training subjects have pseudonyms."""
        return replace(info, trained_on=tuple(sorted(map(self.subject, info.trained_on))))

    def _hash(self, kind: str, *names: str) -> str:
        text = "\0".join((kind, *names)).encode("utf-8", "surrogatepass")
        digest = hmac.digest(self.key, text, "sha256")
        return f"{kind}-{base64.b32encode(digest).decode().lower()[:_LETTERS]}"


def refuse_equal(names: Collection[str], hidden: Collection[str]) -> None:
    """Refuse two people of one pseudonym; as likely as one in 10⁹ for a thousand people."""
    if len(set(hidden)) < len(set(names)):
        raise InputError("two people would get the same pseudonym with this key; name another key file")


def read_pseudonyms(path: Path | None, notify: Callable[[str], None]) -> Pseudonyms | None:
    """Return the pseudonyms of a key file, None without one; a file that isn't there is made, for its owner's eyes.

    Raises:
        InputError: A file that holds no key, or that can't be read.
    """
    if path is None:
        return None
    try:
        if not path.exists():
            with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            notify(f"made the key {path}: keep it, and keep it away from the cache: who has it can test names")
        key = bytes.fromhex(path.read_text("ascii"))
    except OSError as error:
        raise InputError(f"{path}: the key can't be read or made ({one_line(error)})") from None
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise InputError(f"{path} holds no key of --pseudonymise; name a file that isn't there to have one made")
    return Pseudonyms(key)

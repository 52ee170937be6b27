"""Who trains a backbone, who chooses its epoch, and whose images are never opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featlab.errors import InputError
from featlab.extraction.items import Item
from featlab.protocol import check_known, choose_targets
from featlab.seeding import stable_hash

__all__ = ["People", "choose_people", "held_out_subjects"]


@dataclass(frozen=True)
class People:
    """Subjects by their part, each sorted; nobody is in two parts.

    Attributes:
        fit: Trained on.
        validation: Source subjects who are held out to choose the epoch.
        held_out: Target subjects. No image of theirs is opened.
    """

    fit: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def source(self) -> tuple[str, ...]:
        """Everyone whose images may be opened, sorted."""
        return tuple(sorted((*self.fit, *self.validation)))


def held_out_subjects(
    subjects: Sequence[str], targets: str | None = None, *, draws: int = 1, seed: int = 0, named: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return everyone who is a target in any of the draws that `featlab evaluate` makes of the same subjects.

    Args:
        subjects: Everyone in the source.
        targets: A number, ids with commas, or a file of ids, as `--targets` of `featlab evaluate`; None: nobody.
        draws: Draws of that number.
        seed: Root seed.
        named: Further subjects.

    Returns:
        Subject names, sorted.

    Raises:
        InputError: An unknown subject, or a number that leaves nobody.
    """
    check_known(named, subjects)
    held = set(named)
    if targets is not None:
        for draw in range(draws):
            held |= set(choose_targets(subjects, targets, seed=seed, draw=draw))
    return tuple(sorted(held))


def choose_people(items: Sequence[Item], held_out: Sequence[str], share: float, seed: int) -> People:
    """Divide the subjects. The validation subjects are the first in an order by a hash of seed and name.

    Args:
        items: The whole source.
        held_out: Target subjects.
        share: Of the source subjects, who are held out for validation; at least one of them.
        seed: Root seed.

    Raises:
        InputError: An unknown held-out subject, or fewer than two source subjects with labels.
    """
    subjects = sorted({item.subject for item in items})
    check_known(held_out, subjects)
    labelled = {item.subject for item in items if item.label is not None} - set(held_out)
    if len(labelled) < 2:
        raise InputError(
            f"training a backbone needs 2 or more source subjects with labels, one of them for validation; "
            f"{len(labelled)} of {len(subjects)} are left after {len(set(held_out))} were held out"
        )
    ranked = sorted(labelled, key=lambda name: stable_hash("backbone validation", seed, name))
    count = min(max(1, round(share * len(ranked))), len(ranked) - 1)
    return People(
        fit=tuple(sorted(ranked[count:])),
        validation=tuple(sorted(ranked[:count])),
        held_out=tuple(sorted(set(held_out))),
    )

"""Who of london-morph was looked at while the software was built, and who is reported.

The 26 *development* people are a target in none of the draws 0 to 4 with seed 0; every setting was chosen on them, and
the source-trained network was trained on them. The other 36 are *reported*: `--pool reported.txt` draws targets among
them alone.

    python benchmarks/people.py geometry.h5        # writes development.txt and reported.txt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from featlab import FeatureTable, open_cache
from featlab.cache.atomic import atomic_write_text
from featlab.cache.schema import ExtractorInfo
from featlab.protocol.splits import choose_targets


def development_people(subjects: Sequence[str]) -> list[str]:
    """Return everyone who is a target in none of the five draws."""
    drawn = {name for draw in range(5) for name in choose_targets(subjects, "10", seed=0, draw=draw)}
    return [name for name in subjects if name not in drawn]


def read_table(path: Path) -> tuple[FeatureTable, ExtractorInfo]:
    """Return a cache's rows and what made them."""
    with open_cache(path) as cache:
        return cache.read(), cache.extractor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    subjects = read_table(options.cache)[0].subjects
    development = development_people(subjects)
    groups = {"development": development, "reported": [name for name in subjects if name not in set(development)]}
    for name, people in groups.items():
        atomic_write_text(options.out / f"{name}.txt", "".join(f"{person}\n" for person in people))
        print(f"{options.out / f'{name}.txt'}: {len(people)} people")


if __name__ == "__main__":
    main()

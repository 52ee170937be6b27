from dataclasses import fields, replace

import numpy as np
import pytest

from featlab.cache import CacheBuilder, ExtractorInfo, Rows, open_cache, write_table
from featlab.cache.verify import Repeats, check_cache

CLASSES = ("neutral", "happy", "pain")
PEOPLE, LABELS, TWICE, CHANCE = "of two people", "two labels", "there twice", "by chance"


@pytest.fixture
def found(people, tmp_path):
    """``found([(row, like), …], zeros=…)``: what is said of a cache in which some rows are as others are."""
    # s00 and s01, each with anger-0, anger-1, neutral-0 and neutral-1 of three frames.

    def make(*pairs, zeros=0, paths=False, known=True, landmarks=True, points=True):
        table = people(2, frames=3, dim=20, landmarks=landmarks)
        names = [f"{row}.png" for row in range(len(table))]
        if zeros:
            table.embeddings[:, zeros:] = 0
        if not known:
            table = replace(table, label=np.where(np.arange(len(table)) == pairs[0][0], -1, table.label).astype("i2"))
        for row, like in pairs:
            table.embeddings[row] = table.embeddings[like]
            names[row] = names[like]
            if landmarks and points:
                table.landmarks[row] = table.landmarks[like]
        write_table(
            tmp_path / "c.h5", replace(table, paths=tuple(names) if paths else None), ExtractorInfo("a", "b", "c")
        )
        return [
            [next(kind for kind in (CHANCE, PEOPLE, LABELS, TWICE) if kind in line) for line in lines]
            for lines in check_cache(tmp_path / "c.h5")
        ]

    return make


def test_which_equal_rows_are_a_problem_a_warning_or_nothing(found):
    assert found() == [[], []]
    assert found((12, 0)) == [[PEOPLE], []]
    assert found((6, 0)) == [[LABELS], []]
    assert found((3, 0)) == [[], [TWICE]]
    assert found((12, 0), points=False) == [[], []], "the landmarks differ"
    assert found((6, 0), known=False) == [[], [TWICE]]
    assert found((12, 0), (13, 7), (6, 1), (3, 2), landmarks=False) == [[PEOPLE, LABELS], [TWICE]]
    assert found((1, 0), (2, 0)) == [[], []]
    assert found((1, 0), paths=True) == [[], [TWICE]]
    assert found((12, 0), zeros=3) == [[], [CHANCE]]
    assert found((12, 0), zeros=12) == [[PEOPLE], []]


def test_pictures_are_named_and_counted(people, tmp_path):
    table = people(2, frames=3, dim=20, landmarks=False)
    table.embeddings[12:15] = table.embeddings[:3]
    write_table(tmp_path / "c.h5", table, ExtractorInfo("a", "b", "c"))
    ((line,), _) = check_cache(tmp_path / "c.h5")
    first, second = (f"subject '{who}', video 'anger-0', frame 0, anger" for who in ("s00", "s01"))
    assert line.endswith(f"c.h5: the same picture is of two people: {first} and {second}, and 2 more like it")


def test_what_is_learnt_while_shards_are_written_is_what_a_cache_says_when_it_is_read(make_rows, extractor, tmp_path):
    """The paths of one shard are wider than those of the other, and the equal rows lie in both."""
    rows = make_rows(dim=70)
    for row, like, path in ((9, 2, "same.png"), (12, 1, "one-more.png"), (16, 15, "still.png")):
        rows.embeddings[row], rows.landmarks[row] = rows.embeddings[like], rows.landmarks[like]
        rows.paths[row] = rows.paths[like] = path
    out, learnt = tmp_path / "c.h5", Repeats()
    with CacheBuilder(out, extractor=extractor, classes=CLASSES) as builder:
        for key, part in (("a", slice(0, 7)), ("b", slice(7, None))):
            columns = {field.name: getattr(rows, field.name)[part] for field in fields(Rows)}
            builder.write_shard(key, Rows(**columns), [])
        builder.assemble(["a", "b"], learnt)
    with open_cache(out) as cache:
        problems, warnings = learnt.find(cache)
    assert (problems, warnings) == check_cache(out)
    assert "same.png: subject 'Zoë'" in problems[0]
    assert "still.png" in warnings[0]

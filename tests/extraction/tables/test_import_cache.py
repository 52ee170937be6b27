"""From rows to a cache: what is there already, what float16 costs, landmarks, fingerprints."""

import numpy as np
import pytest

from featlab.cache import open_cache, verify_cache
from featlab.errors import FeatlabError
from featlab.extraction.tables import ImportConfig, make_extractor
from featlab.extraction.tables.rows import Selection


def test_features_of_other_columns_never_meet():
    names = ("a", "b", "c")
    others = (("y", names), ("x", ("a", "c", "b")), ("x", ("a", "b2", "c")), ("x", ()), ("x", names))
    assert len({make_extractor(name, 3, columns).fingerprint for name, columns in others}) == 5
    assert make_extractor("x", 3, names).fingerprint == make_extractor("x", 3, names).fingerprint


def test_equal_imports_give_equal_digests_whatever_the_order_of_rows(tmp_path, people, card, tools, run):
    order = list(range(len(people.subject)))[::-1]
    turned = tools.make_people()
    for name in ("subject", "label", "video", "frame"):
        getattr(turned, name)[:] = [getattr(people, name)[row] for row in order]
    turned.features[:] = people.features[order]
    other = tools.write_csv(tmp_path / "turned.csv", turned)
    assert run(card, out=tmp_path / "a.h5").digest == run(other, out=tmp_path / "b.h5").digest


def test_a_second_import_leaves_a_cache_that_holds_the_same(card, run):
    first = run(card)
    assert verify_cache(first.path) == []
    stamp = first.path.stat().st_mtime_ns
    again = run(card)
    assert (again.was_there, again.digest, first.was_there) == (True, first.digest, False)
    assert first.path.stat().st_mtime_ns == stamp
    assert sorted(path.name for path in first.path.parent.iterdir()) == ["cache.h5", "features.csv"]


def test_another_cache_is_not_replaced_unless_told(card, run, refused):
    for change, words in (
        ({"extractor": "other"}, "its extractor is 'imported'"),
        ({"selection": Selection("f0,f1")}, "3 imported columns"),
        ({"dtype": "float16"}, "its rows differ"),
        ({"neutral": "smile"}, "its classes are rest, smile"),
    ):
        first = run(card, if_exists="overwrite")
        with refused(FeatlabError, "cache.h5 exists and isn't what this would make", "--if-exists overwrite", words):
            run(card, **change)
        assert run(card, if_exists="skip", **change).digest == first.digest
        with refused(FeatlabError, "cache.h5 exists", "--if-exists"):
            run(card, if_exists="error", **change)
        assert run(card, if_exists="overwrite", **change).digest != first.digest
        assert sorted(path.name for path in first.path.parent.iterdir()) == ["cache.h5", "features.csv"]


def test_a_damaged_cache_is_not_replaced_unless_told_and_more_rows_are_counted(tmp_path, card, run, refused):
    (tmp_path / "cache.h5").write_bytes(b"not HDF5")
    with refused(FeatlabError, "cache.h5 exists and isn't", "overwrite"):
        run(card)
    assert run(card, if_exists="overwrite").rows == 16
    with card.open("a") as file:
        file.write("zoe,rest,v,0,1,2,3\n")
    with refused(FeatlabError, "it has 16 rows, the source 17"):
        run(card)


def test_a_list_of_failures_goes_with_its_cache_and_unlabelled_rows_have_the_neutral_class_alone(tmp_path, card, run):
    text = card.read_text()
    card.write_text(text + "zoe,rest,v,0,1,nan,3\n")
    assert len(run(card, skip_bad=True).failures) == 1
    assert len(run(card, skip_bad=True, if_exists="skip").failures) == 1
    card.write_text("subject,f\ns,1\nt,2\n")
    report = run(card, if_exists="overwrite")
    assert report.failures == ()
    assert not (tmp_path / "cache.failures.jsonl").exists()
    with open_cache(report.path) as cache:
        assert (cache.classes, cache.read().label.tolist()) == (("rest",), [-1, -1])


def test_float16_says_what_it_costs(tmp_path, people, card, run, refused):
    report = run(card, dtype="float16")
    with open_cache(report.path) as cache:
        stored = cache.read().embeddings
    half = people.features.astype(np.float16).astype(np.float64)
    lengths = np.linalg.norm(people.features.astype(np.float64), axis=1)
    worst = float((np.linalg.norm(half - people.features, axis=1) / lengths).max())
    assert report.storage_error == pytest.approx(worst, rel=1e-9)
    assert sorted(map(tuple, stored.tolist())) == sorted(map(tuple, half.tolist()))
    assert run(card, out=tmp_path / "full.h5").storage_error is None
    with card.open("a") as file:
        file.write("zoe,rest,v,0,1,70000,3\n")
    with refused(FeatlabError, "line 18", "f1 is 70000, too large for float16"):
        run(card, dtype="float16", if_exists="overwrite")


def test_landmarks_of_a_file_go_with_their_rows_through_bad_ones(tmp_path, run):
    path = tmp_path / "x.csv"
    path.write_text("subject,label,frame,f\ns,rest,2,2\ns,rest,1,nan\ns,rest,0,0\n")
    points = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    points[2, 0, 0] = np.nan
    np.save(tmp_path / "points.npy", points)
    report = run(path, landmarks=tmp_path / "points.npy", skip_bad=True)
    with open_cache(report.path) as cache:
        table = cache.read()
    assert table.frame.tolist() == [0, 2]
    assert np.isnan(table.landmarks[0]).all()
    np.testing.assert_array_equal(table.landmarks[1], points[0])


def test_settings_sources_and_caches_that_are_none_are_one_line(tmp_path, card, run, refused):
    for values, *words in (
        ({"dtype": "float8"}, "float32 or float16", "'float8'"),
        ({"if_exists": "overwite"}, "did you mean 'overwrite'"),
        ({"extractor": " "}, "--extractor is empty"),
    ):
        with refused(FeatlabError, *words):
            ImportConfig(**values)
    np.save(tmp_path / "points.npy", np.ones((15, 2, 2)))
    with refused(FeatlabError, "points.npy has landmarks for 15 rows, the source has 16"):
        run(card, landmarks=tmp_path / "points.npy")
    with refused(FeatlabError, "no.csv", "no such file"):
        run(tmp_path / "no.csv")
    (tmp_path / "x.mat").touch()
    with refused(FeatlabError, "x.mat", ".csv, .tsv, .npy, .npz, .parquet"):
        run(tmp_path / "x.mat")
    (tmp_path / "cache.h5").mkdir()
    with refused(FeatlabError, "cache.h5 is a folder"):
        run(card)

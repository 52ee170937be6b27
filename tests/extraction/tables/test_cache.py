import numpy as np
import pytest

from featlab.cache.verify import verify_cache
from featlab.errors import FeatlabError
from featlab.extraction.tables import make_extractor
from featlab.extraction.tables.rows import Selection


def test_features_of_other_columns_never_meet():
    names = ("a", "b", "c")
    others = (("y", names), ("x", ("a", "c", "b")), ("x", ("a", "b2", "c")), ("x", ()), ("x", names), ("x", names))
    assert len({make_extractor(name, 3, columns).fingerprint for name, columns in others}) == 5


def test_a_cache_of_the_same_rows_in_any_order_stays_and_another_is_not_replaced_unless_told(
    tmp_path, columns, card, save, run, refused
):
    first = run(card)
    assert verify_cache(first.path) == []
    stamp = first.path.stat().st_mtime_ns
    turned = save("turned.csv", {name: column[::-1] for name, column in columns.items()})
    for source in (card, turned):
        again = run(source, if_exists="resume")
        assert (again.was_there, again.digest, first.was_there) == (True, first.digest, False)
    assert first.path.stat().st_mtime_ns == stamp
    other = "cache.h5 exists and isn't what this would make", "--if-exists overwrite", "16 other rows, of 'imported'"
    changes = {"extractor": "other", "selection": Selection("f0,f1"), "dtype": "float16", "neutral": "smile"}
    for change in ({key: value} for key, value in changes.items()):
        first = run(card)
        with refused(FeatlabError, *other):
            run(card, if_exists="resume", **change)
        assert run(card, **change).digest != first.digest
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.h5", "features.csv", "turned.csv"]
    (tmp_path / "cache.h5").write_bytes(b"not HDF5")
    with refused(FeatlabError, *other[:2]):
        run(card, if_exists="resume")
    assert run(card).rows == 16
    with card.open("a") as file:
        file.write("zoe,rest,v,0,1,2,3\n")
    with refused(FeatlabError, *other):
        run(card, if_exists="resume")


def test_failures_go_with_their_cache_and_unlabelled_rows_have_the_neutral_class(tmp_path, card, put, run, read):
    card.write_text(card.read_text() + "zoe,rest,v,0,1,nan,3\n")
    assert len(run(card, skip_bad=True).failures) == 1
    report = run(put("x.csv", "subject,f", "s,1", "t,2"))
    assert report.failures == ()
    assert not (tmp_path / "cache.failures.jsonl").exists()
    assert (read(report).classes, read(report).label.tolist()) == (("rest",), [-1, -1])


def test_float16_says_what_it_costs(people, card, run, read, refused):
    report = run(card, dtype="float16")
    half = people.features.astype(np.float16).astype(np.float64)
    lengths = np.linalg.norm(people.features.astype(np.float64), axis=1)
    worst = float((np.linalg.norm(half - people.features, axis=1) / lengths).max())
    assert report.storage_error == pytest.approx(worst, rel=1e-9)
    assert sorted(map(tuple, read(report).embeddings.tolist())) == sorted(map(tuple, half.tolist()))
    assert run(card).storage_error is None
    with card.open("a") as file:
        file.write("zoe,rest,v,0,1,70000,3\n")
    with refused(FeatlabError, "line 18", "f1 is 70000, too large for float16"):
        run(card, dtype="float16")


def test_landmarks_of_a_file_go_with_their_rows_through_bad_ones(tmp_path, put, run, read):
    path = put("x.csv", "subject,label,frame,f", "s,rest,2,2", "s,rest,1,nan", "s,rest,0,0")
    points = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    points[2, 0, 0] = np.nan
    np.save(tmp_path / "points.npy", points)
    table = read(run(path, landmarks=tmp_path / "points.npy", skip_bad=True))
    assert table.frame.tolist() == [0, 2]
    np.testing.assert_array_equal(table.landmarks, [np.full((2, 2), np.nan), points[0]])


def test_sources_and_caches_that_are_none_are_one_line(tmp_path, card, put, run, refused):
    np.save(tmp_path / "points.npy", np.ones((15, 2, 2)))
    (tmp_path / "folder.h5").mkdir()
    for source, options, *words in (
        (card, {"landmarks": tmp_path / "points.npy"}, "points.npy has landmarks for 15 rows, the source has 16"),
        (tmp_path / "no.csv", {}, "no.csv", "no such file"),
        (put("x.mat"), {}, "x.mat", ".csv, .tsv, .npy, .npz, .parquet"),
        (card, {"out": "folder.h5"}, "folder.h5 is a folder"),
    ):
        with refused(FeatlabError, *words):
            run(source, **options)


def test_names_of_rows_are_in_one_form_and_spellings_are_joined_if_asked(put, run, read):
    rows = "Zo\u00eb,rest,0", "Zoe\u0308 ,Rest,1", "S1,rest,0", "s1,smile\u00a0,0"
    card = put("x.csv", "subject,label,frame,f", *(f"{row},{n}.5" for n, row in enumerate(rows)))
    for merge, subjects, classes, said in (
        (False, ("S1", "Zoë", "s1"), ("rest", "Rest", "smile"), "names that may be one: "),
        (True, ("S1", "Zoë"), ("rest", "smile"), "joined, each to its most frequent spelling: "),
    ):
        report = run(card, merge_names=merge)
        assert (read(report).subjects, read(report).classes) == (subjects, classes)
        assert report.warnings[0].startswith(f"{said}subject 'S1', 's1'; label 'Rest', 'rest'")


def test_stills_of_a_table_are_videos_of_their_own_and_frames_are_not(put, run, read):
    for name, videos, note in (
        ("all/{who}.{label}{n}.tiff", 6, "6 pictures are taken as stills, a video each"),
        ("a/b.dat", 1, "6 pictures"),
        ("{who}/{n}.tiff", 2, ""),
    ):
        who = [(person, label, n) for person in ("KA", "KM") for n, label in enumerate(("rest", "rest", "joy"))]
        lines = [f"{name.format(who=each[0], label=each[1], n=each[2])},{each[0]},{each[1]},{each[2]}" for each in who]
        report = run(put("x.csv", "path,subject,label,f", *lines))
        assert (len({*read(report).videos}), "".join(report.notes)[: len(note)]) == (videos, note)
        assert bool(report.notes) == bool(note)

"""What foreign tables hold beside features: failed rows, missing words, lists in cells, row numbers, the answer."""

import json

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

from featlab.errors import FeatlabError
from featlab.extraction.columns import is_list
from featlab.extraction.tables.rows import Selection

HEAD = "subject,label,video,frame"
ROWS = [("s", "rest" if row < 6 else "smile", "v" if row < 6 else "w", row) for row in range(12)]
NAMES = dict(zip(HEAD.split(","), map(list, zip(*ROWS, strict=True)), strict=True))
RNG = np.random.default_rng(2)


@pytest.fixture
def table(save):
    """``table(f=…, g=…)``: a csv of twelve rows of one person, with these columns beside the names."""
    return lambda **columns: save("x.csv", NAMES, **columns)


def draws(count=12):
    return RNG.normal(size=count).round(3).tolist()


def test_failed_rows_and_other_faces_are_left_out_in_every_kind_of_file_for_every_group(save, run):
    flags = {
        "face_id": [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        "confidence": [0.9, 0, *[0.9] * 10],
        "success": [1, 1, 0, *[1] * 9],
    }
    features = {"AU01_r": draws(), "pose_Tx": draws()}
    spaced = NAMES | {f" {name}": values for name, values in (flags | features).items()}
    files = [save(name, spaced) for name in ("a.csv", "a.tsv", "a.parquet")]
    for name, columns, more in (("a.npz", flags | features, {}), ("b.npz", features, flags)):
        matrix = np.array([*columns.values()], dtype=float).T
        files.append(save(name, NAMES | more, X=matrix, columns=[*columns]))
    for group, taken in ((None, ("AU01_r",)), ("pose", ("pose_Tx",)), ("all", ("AU01_r", "pose_Tx"))):
        reports = [run(file, selection=Selection(group=group)) for file in files]
        for report in reports:
            assert (report.rows, report.columns, report.digest) == (9, taken, reports[0].digest)
            assert [failure.reason for failure in report.failures] == [
                "confidence is 0: no face was found",
                "success is 0: no face was found",
                "another face (face_id 1)",
            ]


def test_a_generic_tables_flags_are_no_features_but_where_they_are_asked_for(table, run):
    source = table(f=draws(), confidence=[0.5 * (row != 3) for row in range(12)])
    report = run(source)
    assert (report.rows, report.columns) == (11, ("f",))
    report = run(source, selection=Selection("f,confidence"))
    assert (report.rows, report.columns) == (12, ("f", "confidence"))
    # The face of most of a recording is the person's.
    report = run(table(f=draws(), face_id=[1, 0, 0, 0, 0, 0, "", 7, 7, 7, 7, 8]))
    assert [failure.reason for failure in report.failures] == ["another face (face_id 1)", "another face (face_id 8)"]


def test_words_for_missing_are_missing_in_features_and_names_alike(table, put, run, read, refused):
    words = "NA n/a nan -nan -nan(ind) nan(ind) -1.#IND00 1.#QNAN #N/A FIND_FAILED <NA> None NULL nil #DIV/0! ."
    for word in ("", *words.split()):
        (failure,) = run(table(f=[*draws(4), word, *draws(7)]), skip_bad=True).failures
        assert (failure.path, failure.reason) == ("x.csv#row=4", "f is missing or NaN")
        report = run(put("y.csv", f"{HEAD},f", f"s,{word},{word},{word},1", "s,rest,,,2"))
        names = read(report)
        assert (names.classes, sorted(names.label.tolist())) == (("rest",), [-1, 0])
        assert {names.videos[code] for code in names.video} == {"rest", "unlabelled"}
        assert not word or f"labels taken as unknown: {word!r}" in report.notes
        source = put("z.csv", "subject,label,f", "s,rest,1", f"{word},rest,2")
        with refused(FeatlabError, "line 3", "the subject is empty"):
            run(source)
        report = run(source, skip_bad=True)
        assert (report.rows, [failure.path for failure in report.failures]) == (1, ["z.csv#row=1"])
    report = run(put("n.csv", "subject,label,f", "s,none,1", "s,pain,2"), neutral="none")
    assert read(report).classes == ("none", "pain")


def test_all_rows_tell_whether_a_column_is_of_numbers_and_numbers_are_strict(table, run, refused):
    codes = [f"0{row}_1" for row in range(12)]
    report = run(table(code=codes, comma=["1,5"] * 12, late=["", "NA", "", *draws(9)]), skip_bad=True)
    assert (report.rows, report.columns, report.notes) == (9, ("late",), ("not features: code, comma",))
    cells = ["+1.5", " 2 ", "1e-3", ".5", "5.", "-0", *draws(6)]
    assert run(table(f=cells)).rows == 12
    cells[7] = cells[9] = "1_0"
    with refused(FeatlabError, "x.csv, line 9", "f is '1_0', not a number", "1 more rows", "--skip-bad", "--columns"):
        run(table(f=cells))
    report = run(table(f=cells), skip_bad=True)
    assert [failure.path for failure in report.failures] == ["x.csv#row=7", "x.csv#row=9"]


def test_a_list_in_a_cell_is_an_embedding_however_it_was_printed(save, table, run, read, refused):
    values = RNG.normal(size=(12, 3)).round(3)
    lists = values.tolist()
    prints = {
        "numpy": [" ".join(str(row).split(" ")).replace(" ", "\n", 1) for row in values],
        "scalars": [f"[{', '.join(f'np.float32({value})' for value in row)}]" for row in lists],
        "array": [f"array({row}, dtype=float32)" for row in lists],
        "tensor": [f"tensor({row}, device='cuda:0')" for row in lists],
        "nested": [f"[{row}]" for row in lists],
        "tuple": [str(tuple(row)) for row in lists],
        "python": [str(row) for row in lists],
    }
    for name, cells in prints.items():
        report = run(table(age=[40] * 12, e=cells))
        assert report.notes == ("not features: age",), name
        np.testing.assert_array_equal(read(report).embeddings, values.astype(np.float32))
    assert run(save("e.parquet", NAMES, e=cells)).digest == report.digest
    # Without brackets four numbers are a list; a date, a thousand or a decimal comma is none.
    for mark in (" ", ";", ", ", "|"):
        bare = run(table(age=[40] * 12, e=[mark.join(map(str, [*row, row[0]])) for row in lists]))
        assert (bare.dim, bare.notes) == (4, ("not features: age",)), mark
    assert not any(map(is_list, ("2020 01 02", "1,5", "1,234.5", "a 1 2 3 4", "12:30:01.5")))
    report = run(table(g=[""] * 12, e=["", "", "", *cells[3:]]), skip_bad=True)
    assert (report.rows, report.dim) == (9, 3)
    for change, *words in (
        ("[1, 2]", "line 6", "a list of 2 values, and earlier ones have 3"),
        ("[0.1 ... 0.2]", "line 6", "cut short ('...')"),
        ("[]", "line 6", "value 0 is missing"),
        ("sorry", "line 6", "e is 'sorry', not a number"),
        ("[1, 2, x]", "line 6", "e is '[1, 2, x]', not a number"),
    ):
        with refused(FeatlabError, *words):
            run(table(e=[*cells[:4], change, *cells[5:]]))
    for more in ({"a": ["[1, 2]"] * 12}, {"a": [1] * 12, "b": [2] * 12, "c": [3] * 12}):
        with refused(FeatlabError, "lists (e", "--columns"):
            run(table(e=cells, **more))


def test_text_and_row_numbers_of_pandas_are_no_features(tmp_path, table, run):
    report = run(table(**{"": [*range(12)]}, side=["left"] * 12, f=draws(), filename=[1] * 12, session=[1] * 12))
    assert (report.columns, report.notes) == (("f",), ("not features: (without a name), side, filename",))
    report = run(table(Label=["rest"] * 12, Frame=[*range(12)], f=draws()))
    assert (report.columns, report.notes[1]) == (("f",), "not read: Label, Frame; names of columns are in lower case")
    numbers = ("Unnamed: 0", "Unnamed: 0.1", "level_0", "index", "__index_level_0__", "rownames")
    assert run(table(**{key: [*range(12)] for key in numbers}, f=draws())).columns == ("f",)
    kept = arrow.table(NAMES | {"f": draws(), "person_code": [3] * 12})
    about = json.dumps({"index_columns": ["person_code", "subject"], "columns": []})
    parquet.write_table(kept.replace_schema_metadata({"pandas": about}), tmp_path / "x.parquet")
    assert run(tmp_path / "x.parquet").columns == ("f",)


def test_features_that_give_something_away_are_named(save, run):
    rows = range(48)
    names = {
        "subject": [f"p{row // 12}" for row in rows],
        "label": [("rest", "smile")[row % 12 // 6] for row in rows],
        "video": [row % 12 // 6 for row in rows],
        "frame": [row % 6 for row in rows],
    }
    told = {
        "code": [row % 12 // 6 * 5 for row in rows],
        "sex": [row // 24 for row in rows],
        "take": [row // 6 % 3 for row in rows],
        "number": [row + 7 for row in rows],
        "clock": [row % 6 * 0.033 + row // 6 for row in rows],
    }
    assert [warning.partition(";")[0] for warning in run(save("x.csv", names | told, f=draws(48))).warnings] == [
        "code gives away the label (one value a class)",
        "sex gives away the subject (one value a person)",
        "take gives away the recording (one value a video)",
        "number gives away the row number",
        "clock gives away the time",
    ]
    assert run(save("x.csv", names, timestamp=[*rows], f=draws(48), g=[1] * 48)).warnings == ()


def test_blank_rows_and_quotes_do_not_shift_the_lines(put, run, refused):
    quoted = 's,rest,v,0,1,"a\nb"'
    lines = [f"{HEAD},f,word", ",,,,,", quoted, "   ", "", "s,rest,w,0,2,", '"","","","","",""', "s,rest,w,1,no,"]
    with refused(FeatlabError, "x.csv, line 9", "f is 'no'"):
        run(put("x.csv", *lines))
    assert run(put("x.csv", *lines[:-1])).rows == 2

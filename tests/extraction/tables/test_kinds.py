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
def table(put):
    """``table("f,g", *rows)``: a csv of twelve rows of one person, with these columns beside the names."""

    def write(columns, cells, name="x.csv"):
        names = [",".join(map(str, row)) for row in ROWS]
        return put(name, f"{HEAD},{columns}", *(f"{row},{more}" for row, more in zip(names, cells, strict=True)))

    return write


def draws(count=12):
    return [f"{value:.3f}" for value in RNG.normal(size=count)]


def test_failed_rows_and_other_faces_are_left_out_in_every_kind_of_file_for_every_group(tmp_path, put, run):
    columns = {
        "face_id": [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        "confidence": [0.9, 0, *[0.9] * 10],
        "success": [1, 1, 0, *[1] * 9],
        "AU01_r": RNG.normal(size=12).round(3),
        "pose_Tx": RNG.normal(size=12).round(3),
    }
    lines = [
        ", ".join(map(str, [*row, *(values[place] for values in columns.values())])) for place, row in enumerate(ROWS)
    ]
    head = ", ".join([*HEAD.split(","), *columns])
    put("a.csv", head, *lines)
    put("a.tsv", head.replace(",", "\t"), *(line.replace(",", "\t") for line in lines))
    parquet.write_table(
        arrow.table(NAMES | {f" {name}": values for name, values in columns.items()}), tmp_path / "a.parquet"
    )
    arrays = {name: np.array(values) for name, values in NAMES.items()}
    matrix = np.stack([np.array(values, dtype=float) for values in columns.values()], axis=1)
    np.savez(tmp_path / "a.npz", X=matrix, columns=np.array(list(columns)), **arrays)
    flags = {name: np.array(columns[name]) for name in ("face_id", "confidence", "success")}
    np.savez(tmp_path / "b.npz", X=matrix[:, 3:], columns=np.array(["AU01_r", "pose_Tx"]), **arrays, **flags)
    for group, taken in ((None, ("AU01_r",)), ("pose", ("pose_Tx",)), ("all", ("AU01_r", "pose_Tx"))):
        digests = set()
        for name in ("a.csv", "a.tsv", "a.parquet", "a.npz", "b.npz"):
            report = run(tmp_path / name, selection=Selection(group=group), if_exists="overwrite")
            assert (report.rows, report.columns) == (9, taken)
            assert [failure.reason for failure in report.failures] == [
                "confidence is 0: no face was found",
                "success is 0: no face was found",
                "another face (face_id 1)",
            ]
            digests.add(report.digest)
        assert len(digests) == 1


def test_a_generic_tables_flags_are_no_features_but_where_they_are_asked_for(table, run):
    source = table("f,confidence", [f"{value},{0 if row == 3 else 0.5}" for row, value in enumerate(draws())])
    report = run(source)
    assert (report.rows, report.columns) == (11, ("f",))
    report = run(source, selection=Selection("f,confidence"), out="all.h5")
    assert (report.rows, report.columns) == (12, ("f", "confidence"))


def test_the_face_of_most_of_a_recording_is_the_persons(table, run, read):
    faces = [1, 0, 0, 0, 0, 0, "", 7, 7, 7, 7, 8]
    report = run(table("f,face_id", [f"{value},{face}" for value, face in zip(draws(), faces, strict=True)]))
    assert [failure.reason for failure in report.failures] == ["another face (face_id 1)", "another face (face_id 8)"]


def test_words_for_missing_are_missing_in_features_and_names_alike(table, put, run, read, refused):
    words = "NA n/a nan -nan -nan(ind) nan(ind) -1.#IND00 1.#QNAN #N/A FIND_FAILED <NA> None NULL nil #DIV/0! ."
    for word in ("", *words.split()):
        cells = draws()
        cells[4] = word
        (failure,) = run(table("f", cells), skip_bad=True, if_exists="overwrite").failures
        assert (failure.path, failure.reason) == ("x.csv#row=4", "f is missing or NaN")
        source = put("y.csv", f"{HEAD},f", f"s,{word},{word},{word},1", "s,rest,,,2")
        report = run(source, out="y.h5", if_exists="overwrite")
        names = read(report)
        assert (names.classes, sorted(names.label.tolist())) == (("rest",), [-1, 0])
        assert {names.videos[code] for code in names.video} == {"rest", "unlabelled"}
        assert not word or f"labels taken as unknown: {word!r}" in report.notes
        with refused(FeatlabError, "line 3", "the subject is empty"):
            run(put("z.csv", "subject,f", "s,1", f"{word},2"))
        report = run(put("z.csv", "subject,label,f", "s,rest,1", f"{word},rest,2"), out="z.h5", skip_bad=True)
        assert (report.rows, [failure.path for failure in report.failures]) == (1, ["z.csv#row=1"])
    report = run(put("n.csv", "subject,label,f", "s,none,1", "s,pain,2"), neutral="none", out="n.h5")
    assert read(report).classes == ("none", "pain")


def test_all_rows_tell_whether_a_column_is_of_numbers_and_numbers_are_strict(table, run, refused):
    late = ["", "NA", "", *draws(9)]
    codes = [f"0{row}_1" for row in range(12)]
    source = table("code,comma,late", [f'{code},"1,5",{value}' for code, value in zip(codes, late, strict=True)])
    report = run(source, skip_bad=True)
    assert (report.rows, report.columns, report.notes) == (9, ("late",), ("not features: code, comma",))
    cells = ["+1.5", " 2 ", "1e-3", ".5", "5.", "-0", *draws(6)]
    assert run(table("f", cells), out="f.h5").rows == 12
    cells[7] = cells[9] = "1_0"
    with refused(FeatlabError, "x.csv, line 9", "f is '1_0', not a number", "1 more rows", "--skip-bad", "--columns"):
        run(table("f", cells), out="g.h5")
    report = run(table("f", cells), out="g.h5", skip_bad=True)
    assert [failure.path for failure in report.failures] == ["x.csv#row=7", "x.csv#row=9"]


def test_a_list_in_a_cell_is_an_embedding_however_it_was_printed(tmp_path, table, run, read, refused):
    values = RNG.normal(size=(12, 3)).round(3)
    prints = {
        "python": [str(row) for row in values.tolist()],
        "numpy": [" ".join(str(row).split(" ")).replace(" ", "\n", 1) for row in values],
        "scalars": [f"[{', '.join(f'np.float32({value})' for value in row)}]" for row in values.tolist()],
        "array": [f"array({row}, dtype=float32)" for row in values.tolist()],
        "tensor": [f"tensor({row}, device='cuda:0')" for row in values.tolist()],
        "nested": [f"[{row}]" for row in values.tolist()],
        "tuple": [str(tuple(row)) for row in values.tolist()],
    }
    for name, cells in prints.items():
        report = run(table("age,e", [f'40,"{cell}"' for cell in cells]), if_exists="overwrite")
        assert report.notes == ("not features: age",), name
        np.testing.assert_array_equal(read(report).embeddings, values.astype(np.float32))
    # Without brackets four numbers are a list; a date, a thousand or a decimal comma is none.
    for mark in (" ", ";", ", ", "|"):
        bare = [mark.join(map(str, [*row, row[0]])) for row in values.tolist()]
        bare_report = run(table("age,e", [f'40,"{cell}"' for cell in bare]), out="bare.h5", if_exists="overwrite")
        assert (bare_report.dim, bare_report.notes) == (4, ("not features: age",)), mark
    assert not any(map(is_list, ("2020 01 02", "1,5", "1,234.5", "a 1 2 3 4", "12:30:01.5")))
    parquet.write_table(arrow.table(NAMES | {"e": prints["python"]}), tmp_path / "e.parquet")
    assert run(tmp_path / "e.parquet", out="parquet.h5").digest == report.digest
    cells = prints["python"]
    late = table("g,e", [f',"{"" if row < 3 else cell}"' for row, cell in enumerate(cells)])
    report = run(late, out="l.h5", skip_bad=True)
    assert (report.rows, report.dim) == (9, 3)
    for change, *words in (
        ("[1, 2]", "line 6", "a list of 2 values, and earlier ones have 3"),
        ("[0.1 ... 0.2]", "line 6", "cut short ('...')"),
        ("[]", "line 6", "value 0 is missing"),
        ("sorry", "line 6", "e is 'sorry', not a number"),
        ("[1, 2, x]", "line 6", "e is '[1, 2, x]', not a number"),
    ):
        with refused(FeatlabError, *words):
            run(table("e", [f'"{change if row == 4 else cell}"' for row, cell in enumerate(cells)]), out="no.h5")
    for more in ('"[1, 2]"', "1,2,3"):
        columns = "a,b,c"[: 2 * more.count(",") + 1] if '"' not in more else "a"
        with refused(FeatlabError, "lists (e", "--columns"):
            run(table(f"e,{columns}", [f'"{cell}",{more}' for cell in cells]), out="no.h5")


def test_row_numbers_of_pandas_are_no_features(tmp_path, table, run):
    report = run(table("Label,Frame,f", [f"rest,{row},{value}" for row, value in enumerate(draws())]), out="case.h5")
    assert (report.columns, report.notes[1]) == (("f",), "not read: Label, Frame; names of columns are in lower case")
    columns = ("Unnamed: 0", "Unnamed: 0.1", "level_0", "index", "__index_level_0__", "rownames")
    source = table(
        ",".join((*columns, "f")), [f"{row},1,{row},{row},{row},{row},{value}" for row, value in enumerate(draws())]
    )
    assert run(source).columns == ("f",)
    kept = arrow.table(NAMES | {"f": RNG.normal(size=12), "person_code": [3] * 12})
    about = json.dumps({"index_columns": ["person_code", "subject"], "columns": []})
    parquet.write_table(kept.replace_schema_metadata({"pandas": about}), tmp_path / "x.parquet")
    assert run(tmp_path / "x.parquet", out="parquet.h5").columns == ("f",)


def test_features_that_give_something_away_are_named(put, run):
    names = [(f"p{row // 12}", ("rest", "smile")[row % 12 // 6], row % 12 // 6, row % 6) for row in range(48)]
    told = [(row % 12 // 6 * 5, row // 24, row // 6 % 3, row + 7, row % 6 * 0.033 + row // 6) for row in range(48)]
    lines = [",".join(map(str, (*names[row], row, *told[row], *draws(1)))) for row in range(48)]
    report = run(put("x.csv", f"{HEAD},timestamp,code,sex,take,number,clock,f", *lines))
    assert [warning.partition(";")[0] for warning in report.warnings] == [
        "code gives away the label (one value a class)",
        "sex gives away the subject (one value a person)",
        "take gives away the recording (one value a video)",
        "number gives away the row number",
        "clock gives away the time",
    ]
    lines = [",".join(map(str, (*names[row], *draws(1), 1))) for row in range(48)]
    assert run(put("y.csv", f"{HEAD},f,g", *lines), out="y.h5").warnings == ()


def test_blank_rows_and_quotes_do_not_shift_the_lines(put, run, refused):
    quoted = 's,rest,v,0,1,"a\nb"'
    lines = [f"{HEAD},f,word", ",,,,,", quoted, "   ", "", "s,rest,w,0,2,", '"","","","","",""', "s,rest,w,1,no,"]
    with refused(FeatlabError, "x.csv, line 9", "f is 'no'"):
        run(put("x.csv", *lines))
    assert run(put("x.csv", *lines[:-1])).rows == 2

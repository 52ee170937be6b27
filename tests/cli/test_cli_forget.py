"""featlab forget: nothing of a person is left, what is of other people stays, and the search finds what is left."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featlab import open_cache, write_table
from featlab.cache.reader import inspect_cache
from featlab.workspace import contents as forgetting
from featlab.workspace.workspace import add_tuned, tuned_on

WHO, OTHER = "s041", "s042"


def holding(name):
    return {str(path) for path in Path().rglob("*") if path.is_file() and name.encode() in path.read_bytes()}


def spread(folder):
    """Put a person, and another one, wherever featlab writes names: lists, predictions, reports, drafts, shards."""
    listed = "".join(json.dumps({"path": f"faces/{who}/a.png", "reason": "cut"}) + "\n" for who in (WHO, OTHER))
    Path("cache.failures.jsonl").write_text(listed)
    Path("cache.one.subjects.txt").write_text(f"{WHO}\n{OTHER}\n")
    Path("predictions.csv").write_text(f"subject,video,frame,predicted,p_a\n{WHO},v,0,a,1\n{OTHER},v,0,a,1\n")
    Path("report.html").write_text(f"<p>{WHO}</p>")
    Path("cache.h5.landmarks").mkdir()
    for name in ("cache.h5.0a1b2c3d.partial", "cache.h5.landmarks/landmarks.npz"):
        Path(name).write_bytes(open_cache("cache.h5").read([WHO]).embeddings.tobytes())
    for method, people in {"pft": [WHO, OTHER], "shot": [WHO]}.items():
        add_tuned(folder, method, people)


def test_a_person_goes_and_everybody_else_stays(bundle, run_well, run_json, refused, lines_of, monkeypatch):
    spread(Path())
    run_well("predict --subject s041 -o theirs.csv --bundle", bundle)
    before, results = holding(WHO), set(Path("results/runs").rglob("*.jsonl"))
    listed = run_json("forget --subject s041 --dry-run")
    assert holding(WHO) == before
    kept = {path for path in results if WHO not in path.read_text()}
    with open_cache("cache.h5") as cache:
        write_table("without.h5", cache.read().without(WHO), cache.extractor)
    expected = inspect_cache("without.h5").digest
    Path("without.h5").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "remove_subjects", lambda *given: 1 / 0)
        run_well("forget --subject s041", code=1)
    done = run_json("forget --subject s041")
    assert (done["hold_the_name"], done["hold_a_row"]) == ([], [])
    assert {each[0] for each in listed["goes"]} > {each[0] for each in done["goes"]}
    assert holding(WHO) == set()
    assert inspect_cache("cache.h5").digest == expected
    assert set(Path("results/runs").rglob("*.jsonl")) == kept
    assert [line["subject"] for line in lines_of("predictions.csv")] == [OTHER]
    assert Path("cache.one.subjects.txt").read_text() == f"{OTHER}\n"
    assert OTHER in Path("cache.failures.jsonl").read_text()
    assert tuned_on(Path()) == {"pft": [OTHER], "shot": []}
    run_well("verify")
    assert "no subject" in refused("forget --subject s041")
    assert "no subject 's04'" in refused("forget --subject s042,s04")


def test_what_was_trained_on_someone_is_made_again_without_them(bundle, run_well):
    there = set(Path("bundles").glob("*"))
    said = run_well("forget --retrain --subject", OTHER).stdout
    assert "0 of " in said
    assert not Path(bundle).exists()
    (made,) = set(Path("bundles").glob("*")) - there
    assert "pretrain" not in said
    assert f"made again: {made}, of 7 source subjects" in said
    assert holding(OTHER) == set()


def test_what_is_left_elsewhere_is_found(folder, table, run_json, extractor):
    who = "Zoë & co"
    names = (who, "Zoë & co-2", *table.subjects[2:])
    write_table("cache.h5", replace(table, subjects=names), extractor, dtype="float32")
    row = table.embeddings[table.subject == 0][3]
    rows = {kind: b"abc" + np.stack([row + 1, row]).astype(f"<{kind}").tobytes() for kind in ("f2", "f4", "f8")}
    named = {who: b"empty", "html": b"<td>Zo\xc3\xab &amp; co</td>", "name": f"cells;{who};1".encode()}
    named["utf-16"] = f"of {who}.".encode("utf-16")
    Path("notes").mkdir()
    for name, content in (rows | named).items():
        Path("notes", name).write_bytes(content)
    Path("notes", "other.txt").write_text("Zoë & co-2 and Zoë & company", encoding="utf-8")
    data = run_json("forget -C . --subject", who, code=1)
    assert sorted(data["hold_a_row"]) == sorted(f"notes/{name}" for name in rows)
    assert sorted(data["hold_the_name"]) == sorted(f"notes/{name}" for name in named)
    assert "still holds the name" in data.stderr


def test_a_cache_alone_and_a_pseudonym(folder, table, run_well, refused, extractor):
    write_table("other.h5", table, replace(extractor, trained_on=table.subjects[:2]), dtype="float16")
    Path("stages/train-1").mkdir(parents=True)
    said = run_well("forget", "--subject", f"{table.subjects[0]},{table.subjects[3]}", "--cache", "other.h5")
    assert "0 of 1 files hold the name, 0 hold a row of theirs" in said.stdout
    assert "pretrain" not in said.stdout
    assert "the backbone was trained on pictures of s038" in said.stderr
    assert Path("stages/train-1").is_dir()
    assert inspect_cache("other.h5").extractor.trained_on == (table.subjects[1],)
    assert inspect_cache("other.h5").dtype == "float16"
    assert len(inspect_cache("cache.h5").subjects) == 8
    rows = "\n".join(f"{who},calm,v,{frame},{frame * 7 + 1}" for who in ("anna", "bo") for frame in range(3))
    Path("t.csv").write_text("subject,label,video,frame,x\n" + rows)
    run_well("import t.csv --neutral calm --out hidden.h5 --pseudonymise k")
    Path("hidden.failures.jsonl").write_text("of anna\nof bo\n")
    words = "forget --subject anna --cache hidden.h5 --pseudonymise"
    # A key that is made now fits nobody.
    assert "gone: no such file" in refused(words, "gone")
    assert not Path("gone").exists()
    assert "nothing is changed" in run_well(words, "k", "--dry-run").stdout
    said = run_well(words, "k").stderr
    assert "rows looked for: 0; those of fewer than 8 different values" in said
    assert Path("hidden.failures.jsonl").read_text() == "of bo\n"
    assert len(inspect_cache("hidden.h5").subjects) == 1
    run_well("forget", "--subject", "bo", "--pseudonymise", "k", "--cache", "hidden.h5")
    assert not Path("hidden.h5").exists()


def test_odd_names_and_text_that_is_no_utf_8_hide_nobody(folder, table, run_well, extractor):
    gone, stays = table.subjects[:2]
    Path("odd").mkdir()
    write_table("odd/one [1].h5", table, extractor)
    Path("odd/one [1].h5.shards").mkdir()
    Path("odd/one [1].h5.shards/a.h5").write_bytes(gone.encode())
    Path("odd/one [1].failures.jsonl").write_bytes(b"\xe9 of " + gone.encode() + b"\n\xe9 of " + stays.encode() + b"\n")
    run_well("forget", "--subject", gone, "--cache", "odd/one [1].h5")
    assert not Path("odd/one [1].h5.shards").exists()
    assert Path("odd/one [1].failures.jsonl").read_bytes() == b"\xe9 of " + stays.encode() + b"\n"
    Path("made.csv").write_bytes(b"subject,video,frame,predicted,p_\xe9\n" + gone.encode() + b",v,0,a,1\n")
    if sys.platform == "linux":  # Others have no such names.
        Path(os.fsdecode(b"\xe9.txt")).write_text("somebody's own")
    run_well("forget", "--subject", gone, "-C", ".")
    assert Path("made.csv").read_bytes() == b"subject,video,frame,predicted,p_\xe9\n"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_what_lies_behind_links_goes_and_is_searched(folder, table, run_json, run_well, tmp_path_factory):
    who, elsewhere = table.subjects[0], tmp_path_factory.mktemp("elsewhere")
    Path("cache.h5").rename(elsewhere / "cache.h5")
    for name in ("stages/train-1", "results/old", "notes"):
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "a.txt").write_text(f"of {who}")
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(elsewhere / name)
    Path("cache.h5").symlink_to(elsewhere / "cache.h5")
    (elsewhere / "notes" / "again").symlink_to(Path.cwd())
    assert run_json("forget -C . --subject", who, code=1)["hold_the_name"] == ["notes/a.txt"]
    assert sorted(path.name for path in elsewhere.rglob("*.txt")) == ["a.txt"]
    assert Path("cache.h5").is_symlink()
    run_well("forget", "--subject", ",".join(table.subjects[1:]), "--cache", "cache.h5")
    assert not (elsewhere / "cache.h5").exists()

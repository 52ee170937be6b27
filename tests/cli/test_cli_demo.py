"""`featlab demo` as typed."""

import json

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_demo_makes_a_workspace_in_which_the_next_command_works(here, run, monkeypatch):
    first = run("demo", "--quick", "--people", "9", "--jobs", "1", "--json")
    assert first.exit_code == 0, first.stderr
    data = json.loads(first.stdout)
    assert data["folder"] == "featlab-demo"
    assert len({row["subject"] for row in data["results"]}) == 6
    assert [line.split()[0] for line in first.stderr.splitlines()[1:9]] == [f"{n}/8" for n in range(1, 9)]
    assert (here / "featlab-demo" / "index.html").is_file()

    again = run("demo", "--quick", "--people", "9", "--jobs", "1")
    assert again.exit_code == 0, again.stderr
    assert again.stderr.count("there already") == 7
    assert "no claim about real people" in again.stdout
    assert "Macro F1 of each target subject" in again.stdout
    assert "featlab adapt --subject s009" in again.stdout

    monkeypatch.chdir(here / "featlab-demo")
    adapted = run("adapt", "--subject", "s009")
    assert adapted.exit_code == 0, adapted.stderr


def test_a_folder_that_is_in_use_is_refused(here, refused):
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("keep")
    assert "holds no demo" in refused("demo", "--out", "mine", "--quiet")


def test_too_few_people_are_refused(here, refused):
    assert "draw 8" in refused("demo", "--quick", "--people", "5")
    assert not list(here.iterdir())

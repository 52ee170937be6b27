"""The command as a whole: help, version, exit codes, completion, what it imports."""

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "faiss", "h5py", "sklearn", "matplotlib", "skimage", "scipy", "numpy", "PIL")


def test_help_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from featlab.cli.app import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0 and 'adapt' in result.stdout, result.output\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("command", ["init", "extract", "adapt", "predict", "evaluate", "pair", "verify"])
def test_every_command_has_help(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_the_version_is_the_packages(run):
    from featlab import __version__

    assert run("--version").stdout == f"featlab {__version__}\n"


def test_nothing_asked_for_shows_the_help_and_no_error_line(run):
    result = run()
    assert result.exit_code == 2
    assert "Usage" in result.output
    assert "error" not in result.output


@pytest.mark.parametrize("words", [("nosuch",), ("train", "--nosuch"), ("adapt",), ("evaluate", "--draws", "0")])
def test_bad_usage_is_one_line_and_exit_2(refused, words):
    assert "--help" in refused(*words)


def test_a_command_that_has_moved_says_where_to(refused):
    assert "benchmarks/london_morph/make_clips.py" in refused("london", "photographs")


def test_a_bug_is_one_line_and_exit_1(folder, run, monkeypatch):
    monkeypatch.setattr("featlab.cache.reader.inspect_cache", lambda path: 1 / 0)
    result = run("inspect")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("featlab: error: ZeroDivisionError: division by zero (this is a bug; run with FEATLAB_DEBUG")


def test_debug_keeps_the_traceback(folder, run, monkeypatch):
    monkeypatch.setenv("FEATLAB_DEBUG", "1")
    monkeypatch.setattr("featlab.cache.reader.inspect_cache", lambda path: 1 / 0)
    assert isinstance(run("inspect").exception, ZeroDivisionError)


def test_an_interruption_says_that_finished_work_is_kept(folder, run, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("featlab.cache.reader.inspect_cache", interrupt)
    result = run("inspect")
    assert result.exit_code == 130
    assert "finished work is kept" in result.stderr


def test_an_error_line_is_not_wrapped_and_its_brackets_are_no_markup(folder, refused):
    name = "[bold]" + "very " * 60 + "long[/bold]"
    assert name in refused("adapt", "--subject", name)


def test_the_console_script_gives_the_exit_code(folder):
    done = subprocess.run(
        [sys.executable, "-c", "from featlab.cli.app import main; main()", "verify", "nosuch.h5"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("featlab adapt --subject s04", {"s040", "s041", "s042", "s043", "s044", "s045"}),
        ("featlab adapt --subject s041 --method pf", {"pft", "pft-poster"}),
        ("featlab evaluate --methods source-only,pf", {"source-only,pft", "source-only,pft-poster"}),
        ("featlab pair --strategy l", {"landmark"}),
        ("featlab extract faces --backbone h", {"hog"}),
    ],
)
def test_values_are_completed(folder, words, expected):
    count = len(words.split()) - 1
    environment = os.environ | {"_FEATLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = subprocess.run(
        [sys.executable, "-c", "from featlab.cli.app import main; main()"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert expected <= set(done.stdout.split())
    assert done.stderr == ""


def test_the_methods_that_are_completed_are_those_of_the_registry():
    from featlab.cli.complete import complete_method, complete_methods
    from featlab.methods import get_method, method_names

    assert complete_method("") == list(method_names())
    assert all(get_method(name).name == name for name in method_names())
    assert complete_methods("pft,clup") == ["pft,clup-swav", "pft,clup-deepcluster"]


def test_completion_without_a_cache_is_silent(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from featlab.cli.complete import complete_subject

    assert complete_subject(SimpleNamespace(params={"workspace": tmp_path}), "s") == []


def test_the_typed_command_is_kept_without_what_changes_no_result(run):
    from featlab.cli.session import typed_command

    run("evaluate", "--cache", "my faces.h5", "--jobs", "2", "-j", "3", "--jobs=4", "--json", "-q", "--targets", "5")
    assert typed_command() == "featlab evaluate --cache 'my faces.h5' --targets 5"

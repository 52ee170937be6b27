"""The command as a whole: help, version, exit codes, completion, what it imports."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from featlab import __version__
from featlab.analysis.ablation import ABLATIONS
from featlab.cli import complete
from featlab.cli.app import make_app
from featlab.cli.session import typed_command
from featlab.config.analysis import GRIDS
from featlab.methods import method_names

HEAVY = ("torch", "faiss", "h5py", "sklearn", "matplotlib", "skimage", "scipy", "numpy", "PIL")
MAIN = [sys.executable, "-c", "from featlab.cli.app import main; main()"]


def test_help_and_the_result_modules_import_no_heavy_library():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from featlab.cli.app import make_app\n"
        "result = CliRunner().invoke(make_app(), ['--help'])\n"
        "assert result.exit_code == 0 and 'adapt' in result.stdout, result.output\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
        "import featlab.evaluation.metrics, featlab.evaluation.results\n"
        "import featlab.evaluation.statistics, featlab.evaluation.summary\n"
        "featlab.evaluation.statistics.compare_ranks({name: [0.1, 0.3] for name in 'abc'})\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules and name != 'numpy'])\n"
        "import featlab.analysis.evaluation.stored\n"
        "print(*[name for name in ('torch', 'matplotlib', 'scipy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_version_and_a_command_without_words(run_well):
    assert run_well("--version").stdout == f"featlab {__version__}\n"
    shown = run_well(code=2).output
    assert ("Usage" in shown, "error" in shown) == (True, False)


def test_a_bug_and_an_interruption_are_one_line(folder, run, monkeypatch):
    for error, code, said in (
        (KeyboardInterrupt(), 130, "interrupted; finished work is kept"),
        (MemoryError("Unable to allocate 9 TiB"), 1, "not enough memory (Unable to allocate 9 TiB); fewer"),
        (ZeroDivisionError("by zero"), 1, "ZeroDivisionError: by zero (this is a bug; run with FEATLAB_DEBUG"),
    ):
        monkeypatch.setattr("featlab.cache.reader.inspect_cache", Mock(side_effect=error))
        result = run("inspect")
        (line,) = result.stderr.splitlines()
        assert (result.exit_code, line.startswith(f"featlab: error: {said}")) == (code, True)
    monkeypatch.setenv("FEATLAB_DEBUG", "1")
    assert isinstance(run("inspect").exception, ZeroDivisionError)


@pytest.mark.parametrize(("how", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_signal_ends_a_command_in_one_line_and_leaves_no_draft(how, code, word, tmp_path):
    steps = (
        # Where the tests run in the background, a shell has switched Ctrl-C off.
        "import os, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)",
        "from featlab.cli import app, data",
        "from featlab.cache.atomic import atomic_write_text",
        f"stop = lambda *_: (os.kill(os.getpid(), signal.{how}), time.sleep(60))",
        # In the middle of a write: what is there is a draft.
        "os.fsync = stop; data.layouts = lambda: atomic_write_text('file', 'text')",
        "app.COMMANDS = {'layouts': ('Data', 'data:layouts')}; app.main()",
    )
    words = [sys.executable, "-c", "\n".join(steps), "layouts"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    line = f"featlab: error: {word}; finished work is kept, the same command goes on from there\n"
    assert (done.returncode, done.stderr) == (code, line)
    assert not list(tmp_path.iterdir())


def test_the_values_that_are_completed_are_those_of_the_registries(folder, tmp_path, monkeypatch):
    assert complete.complete_method("") == list(method_names())
    assert complete.complete_methods("pft,clup") == ["pft,clup-swav", "pft,clup-deepcluster"]
    assert complete.complete_ablation("la") == ["lambda", "layers"]
    assert list(ABLATIONS) == list(GRIDS)
    for words, expected in (
        ("featlab adapt --subject s04", {f"s04{number}" for number in range(6)}),
        ("featlab adapt --subject s041 --method pf", {"pft", "pft-poster"}),
        ("featlab evaluate --methods source-only,pf", {"source-only,pft", "source-only,pft-poster"}),
        ("featlab pair --strategy l", {"landmark"}),
        ("featlab extract faces --backbone h", {"hog"}),
    ):
        monkeypatch.setenv("_FEATLAB_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert expected <= set(CliRunner().invoke(make_app(), [], prog_name="featlab").output.split())
    (tmp_path / "cache.h5").unlink()
    assert complete.complete_subject(SimpleNamespace(params={"workspace": tmp_path}), "s") == []


def test_the_typed_command_is_kept_without_what_changes_no_result(run):
    run("evaluate", "--cache", "my faces.h5", "--jobs", "2", "-j", "3", "--jobs=4", "--json", "-q", "--targets", "5")
    assert typed_command() == "featlab evaluate --cache 'my faces.h5' --targets 5"


def test_a_letter_that_the_output_cannot_write_stops_nothing(folder):
    name = "\u674e\udcff.h5"
    for encoding, words, said in (
        ("ascii", "methods --json", '"safn"'),
        ("cp1252", "methods safn", "safn"),
        ("ascii", f"inspect --cache {name}", "\\u674e\\udcff.h5: no such cache"),
        ("gbk", f"inspect --cache {name}", "\u674e\\udcff.h5: no such cache"),
    ):
        here = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        done = subprocess.run([*MAIN, *words.split()], cwd=folder, env=here, capture_output=True, check=False)
        assert done.returncode == 2 * words.startswith("inspect"), done.stderr
        assert b"Error" not in done.stderr
        assert done.stderr.count(b"\n") == done.returncode / 2
        assert said in (done.stdout + done.stderr).decode(encoding)
        if "--json" in words:
            json.loads(done.stdout.decode(encoding))


STARTED = """
import os, sys
from typer.testing import CliRunner
from featlab.cli.app import make_app

for line in sys.argv[1:]:
    if line.startswith("TAB "):
        words = line.removeprefix("TAB ")
        os.environ |= {"_FEATLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "%d" % words.count(" ")}
        result = CliRunner().invoke(make_app(), [], prog_name="featlab")
        del os.environ["_FEATLAB_COMPLETE"]
    else:
        result = CliRunner().invoke(make_app(line.split()[:1]), line.split())
    assert result.exit_code == 0, result.output
    print(*[name for name in sys.modules if name.partition(".")[2] == "" or name.startswith("featlab.")])
"""


def test_a_command_imports_what_it_needs_and_no_more(bundle):
    methods = {f"featlab.methods.{name}" for name in ("registry", "base", "pft", "pft.method", "pft.adapt")}
    person = ("adapt --subject s041", "predict --subject s041", f"adapt --subject s041 --bundle {bundle}")
    for lines, allowed in (
        (("methods", "layouts", "TAB featlab adapt --method p", "TAB featlab pair --strategy l"), ()),
        (("inspect", "verify cache.h5", "TAB featlab adapt --subject s"), ("numpy", "h5py")),
        (person, ("numpy", "h5py", "torch")),
    ):
        done = subprocess.run([sys.executable, "-c", STARTED, *lines], capture_output=True, text=True, check=True)
        for line, imported in zip(lines, done.stdout.splitlines()[-len(lines) :], strict=True):
            modules = set(imported.split())
            assert modules & set(HEAVY) <= set(allowed), line
            assert "featlab.cli.tune" not in modules or "TAB" in line, line
            if "torch" in allowed:
                assert {name for name in modules if name.startswith("featlab.methods.")} == methods, line
                assert not any(name.startswith(("featlab.pairing.", "featlab.extraction.")) for name in modules), line

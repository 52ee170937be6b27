"""Every command ends with what comes next, and its tables and help fit a small terminal."""

import re
import sys
from pathlib import Path

import typer

from featlab import write_table
from featlab.cli import output as output_module
from featlab.cli.app import make_app
from featlab.cli.output import Output
from featlab.extraction.layouts import LAYOUTS
from featlab.methods import method_names

GROUP = typer.main.get_command(make_app())
ALL = {
    f"{name} {inner}".strip(): found
    for name, command in GROUP.commands.items()
    for inner, found in getattr(command, "commands", {"": command}).items()
}
TYPED = {
    "init": "init there",
    "inspect": "inspect",
    "verify": "verify",
    "layouts": "layouts biovid",
    "methods": "methods pft",
    "train": "train --targets s041,s042",
    "pair": "pair --targets s041,s042",
    "pretrain": "pretrain --targets s041",
    "adapt": "adapt --subject s041 --method adabn",
    "predict": "predict --subject s041",
    "export": "export --subject s041 --out s041.safetensors",
    "evaluate": "evaluate --targets 3 --methods source-only,neutral-shift,pft --no-plots -j 1 --device cpu",
    "benchmark": "benchmark --targets 3 --methods source-only,adabn --no-plots -j 1 --device cpu",
    "tune": "tune pft --space weighting=mean,auto --folds 2 --draws 1 --targets 2 -j 1",
    "ablate": "ablate dims --targets 3 --values 4 --methods pft -j 1",
    "complexity": "complexity --methods source-only,pft --targets 2 --repeat 1 --batch 8",
    "branches": "branches --targets 4",
    "plot confusion": "plot confusion",
    "plot style": "plot style --targets s041 --methods pft",
    "report": "report",
    "paper": "paper",
    "import": "import t.csv --out t.h5",
    "calibrate": "calibrate t.csv --out t2.csv --no-plots",
    "bundle pack": "bundle pack BUNDLE --out b.zip",
    "bundle unpack": "bundle unpack b.zip --out B",
    "forget": "forget --subject s038 --dry-run",
}
"""What is typed, in this order; the others have a test of their own, which looks at their last lines."""
ELSEWHERE = {"extract", "merge", "personalise", "demo", "backbone train", "bundle import"}
ELSEWHERE |= {f"plot {name}" for name in ("tsne", "neighbours", "pairs", "clip")}
WAYS_ON = re.compile(r"next|open it in a browser|without --dry-run")


def test_every_command_ends_with_what_comes_next_and_its_tables_fit_80_columns(trained, run_well, monkeypatch):
    assert set(TYPED) | ELSEWHERE == set(ALL)
    plain, tables = Output.show, []

    def show(self, *shown):
        wide = self.stdout.options.update_width(1000)
        tables.extend(self.stdout.measure(each, options=wide).minimum for each in shown if hasattr(each, "columns"))
        plain(self, *shown)

    monkeypatch.setattr(Output, "show", show)
    rows = "".join(f"p{n % 3},{'neutral' if n % 2 else 'joy'},v{n % 2},{n},{n * 0.3}\n" for n in range(24))
    Path("t.csv").write_text(f"subject,label,video,frame,x\n{rows}")
    bundle = next(Path("bundles").iterdir())
    for name, line in TYPED.items():
        tables.clear()
        said = run_well(*line.replace("BUNDLE", str(bundle)).split()).stdout
        assert any(map(WAYS_ON.search, said.splitlines()[-4:])), (name, said)
        assert max(tables, default=0) <= 80, name
    words = ("--subject", "s041", "--method", "adabn", "--cache", "cache.h5", "--set", "head.epochs=2")
    said = run_well("adapt", *words, "-C", ".")
    step = f"next: featlab predict {' '.join(words)}"
    assert said.stdout.splitlines()[-1] == step
    assert run_well("inspect", "t.h5").stdout.splitlines()[-1] == "next: featlab evaluate --cache t.h5"
    assert "next" not in run_well("inspect", "--quiet").stdout + run_well("inspect", "--json").stdout


def test_what_comes_next_is_a_command_that_has_these_flags():
    steps = {command.callback.then for command in ALL.values()} - {""}
    assert len(steps) > 10
    for step in steps:
        filled = re.sub(r"\{(targets|method|bundle|cache)\}", r" --\1", step).replace("{people}", " --subject")
        filled = re.sub(r"\{(dir|at|out)\}", "", filled)
        for words in re.findall(r"featlab [^;,]*", filled):
            _, first, *second = words.split()
            command = ALL[first] if first in ALL else ALL[f"{first} {second[0]}"]
            known = {flag for item in command.params for flag in item.opts}
            assert set(re.findall(r"--[\w-]+", words)) <= known, (step, words)


def test_no_list_breaks_a_name_and_no_help_breaks_a_choice(run_well, monkeypatch):
    made = output_module._console
    monkeypatch.setattr(output_module, "_console", lambda **how: made(**{**how, "width": 80}))
    monkeypatch.setenv("COLUMNS", "80")
    for command, names in (("methods", method_names()), ("layouts", LAYOUTS.names())):
        text = run_well(command).stdout
        assert {line.split()[0] for line in text.splitlines() if line.split()} >= set(names)
        assert max(len(line) for line in text.splitlines() if not line.startswith("next: ")) <= 80
    for name, command in ALL.items():
        text = run_well(name, "--help").stdout
        assert "<bool>" not in text
        words = set(re.findall(r"\w+", text))
        for item in command.params:
            assert set(re.findall(r"[A-Za-z]\w{2,}", item.metavar or "")) <= words, (name, item.metavar)


def test_a_wrong_name_is_refused_before_torch_is_there(trained, refusals, monkeypatch):
    for module in ("torch", "featlab.workspace.adapt", "featlab.workspace.predict"):
        monkeypatch.setitem(sys.modules, module, None)
    for command in ("adapt", "predict"):
        refusals({"--subject nobody": "unknown subject", "--subject s041 --cache gone.h5": "no cache there"}, command)


def test_where_one_person_is_alone_others_are_asked_for(folder, table, extractor, refusals):
    write_table("cache.h5", table.rows_of("s041"), extractor)
    commands = ("evaluate -q", "train -q", "pretrain -q", "adapt --subject s041 -q", "tune pft -q")
    refusals(dict.fromkeys(commands, "others are needed to learn from"))

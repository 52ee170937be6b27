"""What was typed: how the flags that commands share become a configuration and an open workspace."""

from __future__ import annotations

import inspect
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import typer

from featlab.cli.flags import FLAGS
from featlab.cli.output import Output
from featlab.errors import ConfigError, UnfinishedError, listed

if TYPE_CHECKING:
    from featlab.analysis.page import Result
    from featlab.bundle.bundle import Bundle
    from featlab.cache.schema import ExtractorInfo
    from featlab.evaluation.runner import OnStep, Where
    from featlab.workspace.workspace import Workspace

DONE, FAILED, REFUSED, SKIPPED = 0, 1, 2, 3
"""Exit codes: all well; a run failed; bad usage or input; done, but some items were skipped."""
TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())
TO_REPORT = "featlab report{dir} puts all results on one page"
"""What comes after a command that wrote results."""
_SILENT, _WITH_VALUE = (
    ("--json", "--quiet", "-q", "--wide", "--apply", "--collect"),
    ("--jobs", "-j", "--engine", "--share"),
)
_LONG = 18  # Letters of choices that the help still shows on one line.
_EVERYWHERE = ("workspace", "cache", "settings", "seed", "json_mode", "quiet")
_FILES_OR_NAMES = ("targets", "pool", "sources")


class Session:
    """What was typed, as a command needs it: the flags, where to print, the workspace."""

    def __init__(self, given: Mapping[str, Any], then: str) -> None:
        self.given = dict(given)  # Value of each shared flag.
        modes = {name: given.get(name, False) for name in ("json_mode", "quiet", "wide")}
        self.output = Output(**modes)
        self.workspace: Path = given.get("workspace", Path("."))
        self.then = then  # What may come next; flags in braces stand for what was typed.

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    @property
    def jobs(self) -> int:
        """Return the number of processes: ``--jobs``, or every core that this process may use."""
        from featlab.engine import usable_cores

        return self.given["jobs"] or usable_cores()

    def where(self, workspace: Workspace, on_step: OnStep) -> Where:
        """Return where the runs of a command are made, as `run_tasks` takes it."""
        text = self["share"]
        mine, slash, of = text.partition("/")
        if not (slash and mine.isdecimal() and of.isdecimal() and 1 <= int(mine) <= int(of)):
            raise ConfigError(f"--share {text}: expected I/N with I from 1 to N, for example 2/8")
        return {
            "jobs": self.jobs,
            "engine": workspace.config.engine,
            "share": (int(mine), int(of)),
            "collect": self["collect"],
            "on_step": on_step,
        }

    def tell_unfinished(self, error: UnfinishedError) -> None:
        """Say that this share is done and others are not; raise the error where all should be there."""
        if self["collect"] or self["share"] == FLAGS["share"].default:
            raise error
        self.output.json({"unfinished": str(error)})
        self.output.show(f"share {self['share']} is done: {error}")

    def values(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return ``{"section.key": value}`` of the command line, files as the workspace names them; None: not given."""
        from featlab.config.load import parse_settings

        values: dict[str, Any] = dict(parse_settings(self.given["settings"] or ()))
        caches = self.given.get("caches") or [self.given.get("cache")]
        names = tuple(_from_here(str(path), self.workspace) for path in caches if path is not None)
        found = {FLAGS[name].key: value for name, value in self.given.items() if FLAGS[name].key}
        for name in _FILES_OR_NAMES:
            if self.given.get(name):
                # A file that names people means the same in the workspace.
                spec = self.given[name]
                found[FLAGS[name].key] = _from_here(spec, self.workspace) if os.path.isfile(spec) else spec
        found["cache"] = names[0] if names else None
        found["ablate.caches"] = names if self.given.get("caches") else None
        found |= dict(more or {})
        return values | {key: value for key, value in found.items() if value is not None}

    def open(self, more: Mapping[str, Any] | None = None, **options: Any) -> Workspace:
        """Open the workspace, with ``more`` as in `values` and ``options`` of `Workspace.open`; stages speak here."""
        from featlab.workspace.workspace import Workspace

        device = self.given.get("device", "cpu")
        opened = Workspace.open(self.workspace, self.values(more), device=device, notify=self.output.note, **options)
        # Not sooner: a wrong name is told in the time that reading a cache takes.
        import torch

        # Batches are small: a second thread makes a step slower, on a busy machine many times slower.
        torch.set_num_threads(1)
        return opened

    def held_out(self, workspace: Workspace, subjects: Sequence[str] = ()) -> tuple[str, ...]:
        """Return whom the source stages must not see: ``--subject``, and those that ``protocol.targets`` lists.

        A bare number in the file is a matter of `featlab evaluate`, and holds out nobody unless given as ``--targets``.
        """
        from featlab.protocol.splits import subjects_held_out

        drawn = workspace.config.protocol.targets.strip().isdecimal()
        listed = workspace.targets() if self.given.get("targets") is not None or not drawn else ()
        return subjects_held_out(workspace.table.subjects, None, named=(*subjects, *listed))

    def cache_file(self, named: Path | None) -> Path:
        """Return the cache that was named, or the workspace's; it need not be there."""
        if named is not None:
            return named
        from featlab.config.load import load_config

        return self.workspace / load_config(self.workspace / "featlab.toml").cache

    def tell_next(self, own: Mapping[str, Any]) -> None:
        """Say what may come next, with the values of the command's own flags and of those that it takes over."""
        words = {name: shlex.quote(str(value)) for name, value in own.items()}
        given = {"cache": self.given.get("out"), **{k: v for k, v in self.given.items() if v is not None}}
        for name in ("people", "targets", "method", "bundle", "cache", "seed"):
            value, flag = given.get(name), "subject" if name == "people" else name
            words[name] = "" if value is None else f" --{flag} {shlex.quote(str(value))}"
        words["dir"] = "" if self.workspace == Path(".") else f" -C {shlex.quote(str(self.workspace))}"
        sets = "".join(f" --set {shlex.quote(item)}" for item in given.get("settings") or ())
        words["at"] = words["dir"] + words["cache"] + words["seed"] + sets
        if self.then and not self.output.quiet:
            self.output.show(f"next: {self.then.format(**words)}")

    def result(
        self, folder: str, result: Result, workspace: Workspace | None = None, people: Sequence[str] = ()
    ) -> None:
        """Write a result, what it was made of and the command into a folder under ``results/``, and print it."""
        if workspace is not None:
            from featlab.evaluation.results import run_facts

            result = replace(result, metadata=run_facts(workspace, people))
        self.output.result(self.workspace / "results" / folder, result, typed_command())

    def end(self, left_out: Sequence[tuple[str, str]], rest: str) -> None:
        """Tell what (and why) has been left out, as `Output.warn_of_failures`, and end with the exit code for it."""
        self.output.warn_of_failures(left_out, rest)
        leave(failed=len(left_out))

    def warn_of_seen(self, extractor: ExtractorInfo, targets: Sequence[str]) -> None:
        """Warn when targets are among the people whose images trained the backbone: it has seen them, with labels."""
        seen = sorted(set(targets) & set(extractor.trained_on))
        if seen:
            self.output.warn(
                f"the backbone was trained on images of {len(seen)} of the {len(targets)} targets ({listed(seen)}): "
                "their scores say nothing about new people; train it with them held out (featlab backbone train "
                "--targets …)"
            )

    def warn_of_untested(self, workspace: Workspace, targets: Sequence[str], scope: str = "person") -> None:
        """Warn of classes that targets have and are not tested on, which their scores don't show."""
        from featlab.protocol.splits import untested_classes

        found = untested_classes(workspace.table, targets, workspace.config.protocol.gap, scope)
        if found:
            theirs = [f"{' and '.join(classes)} of {name}" for name, classes in found.items()]
            self.output.warn(
                f"classes that are not tested, for no row of them is left beside the adapted ones: {listed(theirs)}; "
                "give each recording a video of its own, or a person more neutral ones"
            )


def leave(*, failed: int, runs: int = 0) -> None:
    """End with the exit code for runs or other things that failed; for all ``runs`` it is another one."""
    if failed:
        raise typer.Exit(FAILED if failed == runs else SKIPPED)


def people_of(session: Session, spec: str) -> tuple[Workspace, Bundle, Path, tuple[str, ...]]:
    """Open the workspace and the bundle for the people whom a text names; runs the source stages that are missing."""
    with session.output.stages() as progress:
        # The people's own rows: of anyone else's, what the source stages need where they have to run.
        opened = session.open(on_epoch=progress, subjects=partial(_people_in, spec))
        from featlab.workspace.adapt import bundle_for

        people = _people_in(spec, opened.table.subjects)
        session.warn_of_seen(opened.extractor, people)
        return opened, *bundle_for(opened, people, session["bundle"], session.held_out(opened, people)), people


def _people_in(spec: str, subjects: Sequence[str]) -> tuple[str, ...]:
    """Return whom a text means: ``all`` of them, or as `named_subjects`."""
    from featlab.protocol.splits import named_subjects

    everyone = spec.strip() == "all" and "all" not in subjects
    return tuple(subjects) if everyone else named_subjects(subjects, spec, "--subject")


def workspace_command(*flags: str, then: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function, as `command` does, that has the flags of every command that opens a workspace."""
    return command(*flags, *_EVERYWHERE, then=then)


def command(*flags: str, then: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function of a `Session` and own flags, with ``flags`` too; ``then`` as `Session.then`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        _, *own = inspect.signature(function).parameters.values()
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [item.replace(annotation=hints[item.name], kind=keyword) for item in own]
        for name in flags:
            flag = FLAGS[name]
            default = inspect.Parameter.empty if flag.default is ... else flag.default
            parameters.append(inspect.Parameter(name, keyword, default=default, annotation=flag.annotation))

        for item in parameters:
            for info in getattr(item.annotation, "__metadata__", ()):
                # The help folds a long list of choices at spaces, not within a word.
                if len(info.metavar or "") > _LONG:
                    info.metavar = re.sub(r"\|(?! )", "| ", info.metavar)

        @wraps(function)
        def run(**given: Any) -> None:
            session = Session({name: given.pop(name) for name in flags}, then)
            try:
                function(session, **given)
            except UnfinishedError as error:
                session.tell_unfinished(error)
            except typer.Exit as end:
                if end.exit_code == SKIPPED:
                    session.tell_next(given)
                raise
            session.tell_next(given)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        run.then = then  # type: ignore[attr-defined]
        return run

    return decorate


def typed_command() -> str:
    """Return the running command as it was typed, but for flags that change no result: what reproduces it."""
    words, skip = ["featlab"], False
    for word in TYPED.get():
        if skip or word in _SILENT or word.partition("=")[0] in _WITH_VALUE:
            skip = not skip and word in _WITH_VALUE
            continue
        words.append(shlex.quote(word))
    return " ".join(words)


def names_in(text: str | None) -> list[str]:
    """Return the names in a text with commas; none of no text."""
    from featlab.cache.schema import one_form

    return [one_form(name) for name in (text or "").split(",") if name.strip()]


def _from_here(name: str, workspace: Path) -> str:
    """Return a name that means in the workspace what ``name`` means in the current folder."""
    return name if workspace.resolve() == Path.cwd() else str(Path(name).absolute())

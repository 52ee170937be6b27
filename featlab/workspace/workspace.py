"""A workspace: a folder with `featlab.toml` and a cache, where every command finds what the earlier ones made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab import __version__
from featlab.cache.atomic import atomic_write_text
from featlab.cache.reader import open_cache
from featlab.cache.schema import ExtractorInfo, parse_json
from featlab.cache.table import FeatureTable
from featlab.compute import run_seed, stable_hash
from featlab.config.load import Config, load_config
from featlab.errors import BundleError, CacheError, ConfigError, InputError
from featlab.methods.registry import METHODS, preparers, reads_pairs
from featlab.protocol.splits import check_disjoint, check_known, choose_targets, named_subjects

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle

CONFIG_FILE = "featlab.toml"
TUNED_FILE = "tuned.json"
"""On whom the options in it were chosen."""
STAGE_FORMAT = 3
"""Raised when the same rows and settings give another source model."""
Notify = Callable[[str], None]
OnEpoch = Callable[[str, int, int, float], None]
"""Called after each epoch with the stage's name, the epoch, the number of epochs and the mean loss."""


@dataclass(frozen=True, eq=False)
class Workspace:
    """A folder, its configuration, and its cache in RAM."""

    root: Path  # The folder.
    config: Config  # Resolved: flags beat the file, the file beats the defaults.
    table: FeatureTable  # Every row of the cache, or those of the subjects that it was opened for.
    extractor: ExtractorInfo  # What made its embeddings.
    cache_digest: str  # Its digest.
    device: str = "cpu"  # Where to compute, as it was named.
    # Called with one line when something runs that wasn't asked for by name.
    notify: Notify = field(default=lambda line: None)
    on_epoch: OnEpoch | None = None  # Progress of training.
    everyone: tuple[str, ...] = ()  # Whose rows source stages may read where ``table`` lacks them; empty: nobody's.

    @classmethod
    def open(
        cls,
        root: Path,
        overrides: Mapping[str, Any] | None = None,
        *,
        subjects: Sequence[str] | Callable[[tuple[str, ...]], Sequence[str]] | None = None,
        device: str = "cpu",
        notify: Notify | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> Workspace:
        """Read the configuration and the cache.

        Args:
            root: The workspace folder; a folder that holds only a cache will do.
            overrides: ``{"section.key": value}`` from flags.
            subjects: Whose rows are read; of the others, names and codes are. All by default. A function chooses them
                among all names; source stages that have to be run then read the rows that they need.
            device: ``cpu``, ``cuda``, ``mps`` or ``auto``, which trains on a GPU where there is one, and adapts on the
                CPU: a clip is too short to be worth the way to a GPU.
            notify: Called with one line when a stage runs.
            on_epoch: Progress of training.

        Raises:
            InputError: No such folder.
            ConfigError: A bad configuration.
            CacheError: No cache, or one that can't be trusted.
        """
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; make a workspace there with `featlab init {root}`")
        config = load_config(root / CONFIG_FILE, overrides)
        for name in config.adapt.options:
            METHODS.check(name)
        with open_cache(cache_path(root, config)) as cache:
            chosen, everyone = (subjects(cache.subjects), cache.subjects) if callable(subjects) else (subjects, ())
            table, extractor, digest = cache.read(chosen), cache.extractor, cache.digest
        if device not in ("auto", "cpu"):
            from featlab.compute import choose_device

            choose_device(device)  # Refused now, and not after an hour.
        return cls(root, config, table, extractor, digest, device, notify or (lambda line: None), on_epoch, everyone)

    @property
    def adapt_on(self) -> str:
        """Where to adapt and to predict: on the CPU unless a GPU was named."""
        return "cpu" if self.device == "auto" else self.device

    def targets(self, draw: int = 0) -> tuple[str, ...]:
        """Return the target subjects of one draw."""
        protocol = self.config.protocol
        spec, everyone = self._beside(protocol.targets), self.table.subjects
        # A draw is made among those who are not named as sources.
        people = [name for name in everyone if name not in set(self._sources())]
        named = set(self.pool())
        if named:
            pool = [name for name in people if name in named]
            return choose_targets(everyone, spec, seed=protocol.seed, draw=draw, pool=pool)
        subjects = people if spec.strip().isdecimal() else everyone
        return choose_targets(subjects, spec, seed=protocol.seed, draw=draw)

    def pool(self) -> tuple[str, ...]:
        """Return whom targets are drawn from, where `protocol.pool` says so; else nobody."""
        spec = self.config.protocol.pool
        return named_subjects(self.table.subjects, self._beside(spec), "--pool") if spec.strip() else ()

    def _sources(self) -> tuple[str, ...]:
        spec = ",".join(self.config.protocol.sources)
        return named_subjects(self.table.subjects, self._beside(spec), "--sources") if spec else ()

    def _beside(self, spec: str) -> str:
        """Return a text that names people; a file that featlab.toml names lies beside it, wherever we are."""
        path = self.root / spec.strip()
        return str(path) if "," not in spec and os.path.isfile(path) else spec

    def source(self, targets: Sequence[str]) -> Source:
        """Return the source: `protocol.sources`, or everyone who is no target, to `protocol.source_limit` of them."""
        protocol = self.config.protocol
        sources = self._sources()
        check_known(targets, self.table.subjects)
        check_disjoint(sources, targets)
        names = sources or tuple(name for name in self.table.subjects if name not in set(targets))
        if protocol.source_limit:
            # Ranked by a number of their own: a smaller limit takes some of those that a larger one takes.
            ranked = sorted(names, key=lambda name: run_seed("sources", protocol.seed, *sorted(targets), name))
            names = tuple(ranked[: protocol.source_limit])
        chosen = set(names)
        present = tuple(name for name in self.everyone or self.table.subject_names_present() if name in chosen)
        return Source(self, present, protocol.seed)

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process as the path of the cache, which that process reads once."""
        names = self.table.subject_names_present()
        subjects = None if len(names) == len(self.table.subjects) else names
        return _reopened, (self.root.resolve(), self.config, subjects, self.cache_digest, self.device)


@lru_cache(maxsize=2)
def _read_once(path: Path, subjects: tuple[str, ...] | None, digest: str) -> tuple[FeatureTable, ExtractorInfo]:
    with open_cache(path) as cache:
        if cache.digest != digest:
            raise CacheError(f"{path}: replaced while it was in use; run the same command again")
        return cache.read(subjects), cache.extractor


def _reopened(root: Path, config: Config, subjects: tuple[str, ...] | None, digest: str, device: str) -> Workspace:
    table, extractor = _read_once(cache_path(root, config), subjects, digest)
    return Workspace(root, config, table, extractor, digest, device)


@dataclass(frozen=True, eq=False)
class Source:
    """What the source stages work on: the rows of some subjects of a workspace, and the root seed."""

    workspace: Workspace  # Its cache, its configuration and its device.
    subjects: tuple[str, ...]  # Names of the source subjects, in the order of the cache.
    seed: int  # Root seed.

    @property
    def config(self) -> Config:
        """The resolved configuration."""
        return self.workspace.config

    @property
    def table(self) -> FeatureTable:
        """Rows of the source subjects: a copy each time, which is as large as they are, unless they are read here."""
        workspace = self.workspace
        if workspace.everyone:
            # Of all rows the digest is checked.
            names = None if self.subjects == workspace.everyone else self.subjects
            return _read_once(cache_path(workspace.root, self.config), names, workspace.cache_digest)[0]
        return workspace.table.rows_of(*self.subjects)

    def key(self, stage: str, *inputs: Any) -> str:
        """Return the stage's key: a hash of the version, the rows, the seed and the settings that it reads."""
        text = json.dumps([asdict(item) if hasattr(item, "__dataclass_fields__") else item for item in inputs])
        names = ",".join(self.subjects)
        return stable_hash(__version__, STAGE_FORMAT, stage, self.workspace.cache_digest, names, self.seed, text)[:12]


def bundle_folder(source: Source, methods: Sequence[str]) -> Path:
    """Return where the bundle for these methods is kept."""
    from featlab.bundle.bundle import BUNDLE_FORMAT

    config = source.config
    prepared = preparers(methods)
    paired = reads_pairs(config, prepared)
    pair = (config.pair, config.pair.resolved(source.workspace.table.landmarks is not None)) if paired else ()
    inputs = (config.features, config.head, *pair, config.pretrain, prepared, BUNDLE_FORMAT)
    return source.workspace.root / "bundles" / source.key("bundle", *inputs)


def load_made_bundle(folder: Path, device: str) -> Bundle:
    """Read a bundle that the workspace has made."""
    from featlab.bundle.bundle import load_bundle

    try:
        return load_bundle(folder, device=device)
    except BundleError as error:
        raise BundleError(f"{error}; to have it made again, delete {folder}") from error


def tuned_on(root: Path) -> dict[str, list[str]]:
    """Return on whom each method's options were chosen in this workspace, by `featlab tune --apply`.

    Raises:
        ConfigError: A file that can't be read.
    """
    path = root / TUNED_FILE
    if not path.exists():
        return {}
    try:
        content = parse_json(path.read_text("utf-8"))
        return {str(name): [str(who) for who in people] for name, people in content.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: can't be read; delete it, and tune again with --apply") from error


def add_tuned(root: Path, method: str, people: Sequence[str]) -> None:
    """Remember that a method's options were chosen on these people."""
    known = tuned_on(root)
    write_tuned(root, known | {method: sorted({*known.get(method, ()), *people})})


def write_tuned(root: Path, known: Mapping[str, Sequence[str]]) -> None:
    """Write on whom the options of each method were chosen."""
    atomic_write_text(root / TUNED_FILE, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def cache_path(root: Path, config: Config) -> Path:
    """Return the workspace's cache file."""
    path = root / config.cache
    if not path.exists():
        raise InputError(
            f"{path}: no cache there; make one with `featlab extract SOURCE --out {config.cache}`, "
            "or name one with --cache"
        )
    return path

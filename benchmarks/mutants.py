"""Break one line at a time and see whether a test notices: a sign, a detach, an axis, a split.

    python benchmarks/mutants.py                 # all of them, as a table in Markdown
    python benchmarks/mutants.py --only losses   # those whose file's name holds a word

Each mutant lives in a copy of the checkout in a temporary folder; the tests named beside it run there until the first
one fails. A mutant that survives is a hole in the tests: exit code 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

MUTANTS = (
    # file, what stands there, what stands there instead, tests that should notice
    ("featlab/model/losses.py", "+ F.mse_loss(std,", "- F.mse_loss(std,", "tests/model"),
    ("featlab/model/losses.py", "square(), dim) + EPSILON)", "square(), dim))", "tests/model"),
    ("featlab/model/losses.py", '0 if axis == "subject" else 1', '1 if axis == "subject" else 0', "tests/model"),
    (
        "featlab/model/losses.py",
        "F.log_softmax(reference_logits.detach()",
        "F.log_softmax(reference_logits",
        "tests/model",
    ),
    ("featlab/model/losses.py", "F.kl_div(translated, reference,", "F.kl_div(reference, translated,", "tests/model"),
    (
        "featlab/model/losses.py",
        "F.mse_loss(mean, reference_mean.detach())",
        "F.mse_loss(mean, reference_mean)",
        "tests/model",
    ),
    (
        "featlab/model/style_bank.py",
        "(self.centre - self.episode_mean",
        "(self.centre + self.episode_mean",
        "tests/model",
    ),
    (
        "featlab/model/pretrain.py",
        "(source.row_subject[reference] >= 0)",
        "(source.row_subject[reference] >= -1)",
        "tests/model tests/methods",
    ),
    (
        "featlab/model/pretrain.py",
        "expression_loss(plain.flatten(0, 1), ",
        "expression_loss(logits.flatten(0, 1), ",
        "tests/model",
    ),
    ("featlab/model/pretrain.py", "/ (total - total // 2)", "/ total", "tests/model"),
    ("featlab/model/pretrain.py", "share * (source.centre - means)", "share * (means - source.centre)", "tests/model"),
    ("featlab/model/pretrain.py", "weight * part.last.weight for", "part.last.weight for", "tests/model"),
    ("featlab/model/linear.py", "penalty / 2 *", "penalty *", "tests/model"),
    ("featlab/model/linear.py", "share * (rest.centre", "share * (0 * rest.centre", "tests/model"),
    ("featlab/methods/pft/validation.py", "test = mine[~torch.isin(mine, adapt)]", "test = mine", "tests/methods"),
    ("featlab/methods/pft/adapt.py", "not gain.helps", "gain.helps", "tests/methods"),
    (
        "featlab/methods/pft/adapt.py",
        "return Alignment(share * (centre - place), weight",
        "return Alignment(centre - place, weight",
        "tests/methods",
    ),
    (
        "featlab/model/pretrain.py",
        "mean.mean(dim=0), std.mean(dim=0)",
        "mean.sum(dim=0), std.mean(dim=0)",
        "tests/model",
    ),
    ("featlab/model/style_bank.py", "adapted.sum(dim=1, keepdim=True)", "self.count[:, None]", "tests/model"),
    ("featlab/methods/pft/adapt.py", "[:, bundle.neutral_code].clamp_min", "[:, 0].clamp_min", "tests/methods"),
    ("featlab/methods/baselines.py", "shift = centre - target", "shift = centre + target", "tests/methods"),
    ("featlab/methods/baselines.py", "values.var(dim=0, correction=0)", "values.var(dim=0)", "tests/methods"),
    ("featlab/methods/baselines.py", "Affine.shift(-target", "Affine.shift(target", "tests/methods"),
    ("featlab/methods/losses/target.py", "return -(p * torch.log(p", "return (p * torch.log(p", "tests/methods"),
    ("featlab/methods/losses/target.py", "p, scores.detach())", "p, scores)", "tests/methods"),
    ("featlab/methods/losses/domains.py", "1.0 + torch.exp(", "1.0 - torch.exp(", "tests/methods"),
    ("featlab/methods/losses/domains.py", "-theirs / m.clamp_min(1)", "theirs / m.clamp_min(1)", "tests/methods"),
    (
        "featlab/methods/losses/domains.py",
        "torch.sort(q @ directions, dim=0)",
        "torch.sort(q @ directions, dim=1)",
        "tests/methods",
    ),
    ("featlab/methods/losses/target.py", "(1e-8 + weight.sum(dim=0))", "(1e-8 + weight.sum())", "tests/methods"),
    (
        "featlab/methods/translation.py",
        "(student, teacher.detach())",
        "(student, teacher)",
        "tests/methods",
    ),
    (
        "featlab/methods/losses/self_supervision.py",
        "torch.logsumexp(logs, dim=0",
        "torch.logsumexp(logs, dim=1",
        "tests/methods",
    ),
    ("featlab/protocol/splits.py", "pure[: len(pure) // 2]", "pure[: len(pure) // 2 + 1]", "tests/protocol"),
    ("featlab/protocol/splits.py", "np.flatnonzero(~in_adapt)", "np.arange(len(in_adapt))", "tests/protocol"),
    ("featlab/protocol/splits.py", "[min(gap, (len(rows) - half) // 2) :]", "", "tests/protocol"),
    (
        "featlab/pairing/nearest.py",
        "np.lexsort((columns, -grade, rows))",
        "np.lexsort((-columns, -grade, rows))",
        "tests/pairing",
    ),
    (
        "featlab/pairing/nearest.py",
        "space.limit(rows, left_out) + 2 * TIE",
        "space.limit(rows, left_out) - 1.0",
        "tests/pairing",
    ),
    ("featlab/pairing/procrustes.py", "np.maximum(rotation, reflection) ** 2", "rotation**2", "tests/pairing"),
    ("featlab/pairing/procrustes.py", "np.sqrt(2.0) * cosine", "cosine", "tests/pairing"),
    ("featlab/pairing/pairs.py", 'mine if rule == "same"', 'known if rule == "same"', "tests/pairing"),
    ("featlab/evaluation/statistics.py", "p * (len(tested) - rank)", "p * len(tested)", "tests/evaluation"),
    ("featlab/evaluation/statistics.py", "_places(np.abs(difference))", "_places(difference)", "tests/evaluation"),
    (
        "featlab/evaluation/statistics.py",
        "return (score - source) / (oracle - source)",
        "return (score - source) / oracle",
        "tests/evaluation",
    ),
    ("featlab/evaluation/metrics.py", "counts[:, 1] - counts[:, 2]", "counts[:, 1] + counts[:, 2]", "tests/evaluation"),
    (
        "featlab/protocol/splits.py",
        "table.label == table.neutral_code",
        "table.label != table.neutral_code",
        "tests/protocol",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only mutants of files whose name holds this")
    chosen = [item for item in MUTANTS if parser.parse_args().only in item[0]]
    survivors = 0
    print("| file | in place of | stands | caught by |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignored = shutil.ignore_patterns("__pycache__")
        # As one package, before the installed one on the path.
        shutil.copytree(ROOT / "featlab", copy / "site" / "featlab", ignore=ignored)
        for name in ("cache", "cli", "analysis"):
            shutil.copytree(ROOT / name, copy / "site" / "featlab" / name, ignore=ignored)
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", copy)
        for path, old, new, tests in chosen:
            caught = tried(copy, path, old, new, tests.split())
            survivors += caught is None
            print(f"| `{path}` | `{shown(old)}` | `{shown(new)}` | {caught or '**nothing**'} |", flush=True)
    print(f"\n{len(chosen) - survivors} of {len(chosen)} caught")
    sys.exit(bool(survivors))


def tried(copy: Path, path: str, old: str, new: str, tests: list[str]) -> str | None:
    """Return the first test that fails with the mutant in place; None if none does."""
    file = copy / "site" / (path if path.startswith("featlab/") else f"featlab/{path}")
    text = file.read_text(encoding="utf-8")
    if old not in text:
        raise SystemExit(f"{path} no longer holds {old!r}: name another mutant")
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    try:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy / "site")}
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True)
    finally:
        file.write_text(text, encoding="utf-8")
    found = re.search(r"^(?:FAILED|ERROR) (\S+?)(?:\[.*)?(?: - .*)?$", done.stdout, re.MULTILINE)
    return f"`{found[1].rpartition('/')[2]}`" if found else None


def shown(text: str) -> str:
    return text.replace("|", "\\|") or "(nothing)"


if __name__ == "__main__":
    main()

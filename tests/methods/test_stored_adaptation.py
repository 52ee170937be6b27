"""Adaptations on disk: what is refused, and the names of their folders. That they come back is an invariant."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from featlab.bundle.files import (
    ADAPTATION_FORMAT,
    adaptation_folder,
    load_adaptation,
    read_tensors,
    save_adaptation,
    write_tensors,
)
from featlab.errors import BundleError, InputError
from featlab.methods import AdaptedModel, make_method
from featlab.model.networks import PersonalModel
from featlab.protocol.splits import target_of


@pytest.fixture(scope="module")
def model(table, bundle):
    return make_method("coral").adapt(bundle, target_of(table.rows_of("s05")))


def edit(remove="", meta=(), **changes):
    """Write the file again, with the digests of its new content: only the change is wrong then."""

    def changed(path):
        about, tensors = read_tensors(path)
        about.update(meta)
        about.pop(remove, None)
        write_tensors(path, tensors | changes, about)

    return changed


def truncate(fraction):
    return lambda path: path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])


FITS_NOT = ("does not fit its bundle", "featlab adapt again")
KEYS = ("format_version", "translator", "iterations", "trainable", "history", "warnings")
FILE = "adaptation.safetensors"
SEVENS = torch.full((12,), 7.0)
DAMAGES = [
    *((truncate(fraction), (FILE,)) for fraction in (0.0, 0.3, 0.9)),
    (lambda path: path.write_bytes(b"[]"), (FILE, "damaged")),
    (lambda path: save_file({}, path), (FILE, "damaged")),
    *((edit(remove=key), (FILE, "damaged", "featlab adapt")) for key in KEYS),
    (edit(meta={"format_version": ADAPTATION_FORMAT + 1}), ("newer", "update featlab")),
    *((edit(meta={"translator": kind}), FITS_NOT) for kind in ("nothing", "none", "translator")),
    *((edit(**{name: SEVENS}), FITS_NOT[:1]) for name in ("other", "projection.mean", "head.linear.weight")),
    (edit(**{"translator.bias": torch.full((8,), torch.nan)}), ("translator.bias", "NaN")),
    (edit(**{"translator.weight": torch.eye(7), "translator.bias": torch.zeros(7)}), FITS_NOT[:1]),
]


def test_a_damaged_adaptation_is_refused_and_the_bundle_stays(tmp_path, bundle, model, refused):
    before = bundle.projection.mean.clone()
    for number, (damage, words) in enumerate(DAMAGES):
        folder = save_adaptation(tmp_path / str(number), bundle, model, {})
        damage(folder / FILE)
        with refused(BundleError, *words):
            load_adaptation(folder, bundle)
    assert torch.equal(bundle.projection.mean, before)


def test_an_adaptation_that_is_not_there_or_of_another_bundle_is_refused(
    tmp_path, model, table, bundle, small_bundle, refused
):
    folder = save_adaptation(tmp_path / "s05", bundle, model, {})
    with refused(BundleError, "no adaptation there", "featlab adapt"):
        load_adaptation(folder / "nowhere", bundle)
    other = small_bundle(table.without("s05"), methods=["coral"], seed=1)
    with refused(BundleError, "another bundle", "featlab adapt again"):
        load_adaptation(folder, other)


def test_a_model_that_can_not_be_read_back_is_not_written(tmp_path, bundle, refused):
    deep = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    for translator, head in ((deep, bundle.head), (None, deep)):
        adapted = AdaptedModel(PersonalModel(bundle.projection, translator, head))
        with refused(InputError, "Sequential", "can't be stored"):
            save_adaptation(tmp_path / "s05", bundle, adapted, {})
        assert not (tmp_path / "s05").exists()


def test_an_unsafe_name_stays_inside_the_folder_of_subjects_and_names_do_not_meet(tmp_path):
    names = ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "a\0b", "x" * 300, "x" * 301, "語" * 80, "𝒳" * 79]
    names += ["a b", "a_b", "CON", "nul", "-", "é\n", "Zoë", "Zoe"]
    folders = [adaptation_folder(tmp_path, name) for name in names]
    for folder in folders:
        assert folder.parent == tmp_path / "subjects"
        assert folder.resolve().parent == (tmp_path / "subjects").resolve()
        assert folder.name.lower() not in ("con", "nul")
        folder.mkdir(parents=True)
    assert len({folder.name.lower() for folder in folders}) == len(names)
    for plain in ("s041", "S041", "Person_3-b", "7"):
        assert adaptation_folder(tmp_path, plain) == tmp_path / "subjects" / plain

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from featlab import ExtractorInfo
from featlab.bundle.bundle import BUNDLE_FORMAT, Bundle, KeyedNames, load_bundle, save_bundle
from featlab.bundle.files import read_json, write_json, write_tensors
from featlab.config.load import Config
from featlab.errors import BundleError, FeatlabError
from featlab.model.networks import Projection, SourceHead, Translator
from featlab.model.style_bank import StyleBank

FILES = {"model.safetensors", "bundle.json", "card.md", "SHA256SUMS"}


def make_bundle(seed=0, *, bank=True, residual=True, **changes):
    """A bundle of random tensors: 8 embedding values, 6 features, 4 bottleneck values, 3 classes, 2 source subjects."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = SourceHead(6, 4, 3)
        head(torch.randn(20, 6))  # in training mode: running statistics that are not their defaults
        layers = {"features": 6, "embedding": 6, "bottleneck": 4}
        bundle = Bundle(
            projection=Projection(torch.randn(8), torch.randn(8, 6)),
            head=head.eval().requires_grad_(False),
            translator=Translator(6, 5, residual=residual).eval().requires_grad_(False),
            classes=("anger", "neutral", "joy"),
            neutral="neutral",
            extractor=ExtractorInfo("hog", "none", "grey 96x96", layers=("stem.0",), versions={"numpy": "2"}),
            source_subjects=KeyedNames.of(("Zoë", "s1"), "salt"),
            config=Config().with_values({"head.bottleneck": 4}, "test"),
            seed=7,
            bank=StyleBank({name: (torch.randn(width), torch.rand(width)) for name, width in layers.items()}, 3)
            if bank
            else None,
            extras={"shot": {"centre": torch.randn(3), "a.b": torch.arange(4)}, "empty": {}},
            cache_digest="0" * 64,
            history=({"loss": 1.5, "style": 0.25}, {"loss": 1.0, "style": 0.125}),
        )
    return replace(bundle, **changes)


def tensors_of(bundle):
    modules = (bundle.projection, bundle.head, bundle.translator)
    found = [tensor for module in modules for tensor in module.state_dict().values()]
    found += [tensor for pair in (bundle.bank.layers.values() if bundle.bank else ()) for tensor in pair]
    return found + [tensor for _, extra in sorted(bundle.extras.items()) for _, tensor in sorted(extra.items())]


def same_bits(ours, theirs):
    pairs = zip(tensors_of(ours), tensors_of(theirs), strict=True)
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs)


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    return save_bundle(tmp_path_factory.mktemp("bundle") / "model", make_bundle())


@pytest.fixture
def saved(saved_once, tmp_path):
    """A saved bundle to damage; a copy, because syncing to disk takes most of the time of saving."""
    return Path(shutil.copytree(saved_once, tmp_path / "model"))


def edit_meta(folder, **changes):
    """Change entries and write the digests anew: only what is said is wrong then."""
    path = folder / "bundle.json"
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    write_json(path, read_json(path) | changes)


def test_a_bundle_comes_back_bitwise_with_all_it_says_frozen_and_in_evaluation_mode(tmp_path):
    state = torch.get_rng_state()
    for number, options in enumerate(({}, {"bank": False}, {"residual": False}, {"extras": {}}, {"history": ()})):
        bundle = make_bundle(**options)
        loaded = load_bundle(save_bundle(tmp_path / "deep" / str(number), bundle))
        assert same_bits(loaded, bundle)
        for name in ("classes", "neutral", "extractor", "source_subjects", "config", "seed", "cache_digest", "history"):
            assert getattr(loaded, name) == getattr(bundle, name), name
        assert loaded.extractor.versions == bundle.extractor.versions
        assert loaded.extras.keys() == bundle.extras.keys()
        assert getattr(loaded.bank, "size", None) == getattr(bundle.bank, "size", None)
        assert loaded.translator.residual == bundle.translator.residual
        assert loaded.neutral_code == 1
        for module in (loaded.head, loaded.translator):
            assert not any(part.training for part in module.modules())
            assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_bundle_is_four_files_none_of_them_a_pickle_and_the_same_bundle_the_same_bytes(tmp_path, saved):
    again = save_bundle(tmp_path / "again", make_bundle())
    assert {path.name for path in saved.iterdir()} == FILES
    for name in FILES:
        data = (saved / name).read_bytes()
        assert (again / name).read_bytes() == data
        assert not data.startswith((b"\x80\x04", b"PK"))


def test_the_card_names_classes_source_bank_and_extras(tmp_path, saved):
    card = (saved / "card.md").read_text(encoding="utf-8")
    for word in ("anger, neutral, joy", "hog: grey 96x96", "2, not named", "over 3 people", "shot"):
        assert word in card
    card = (save_bundle(tmp_path / "bare", make_bundle(bank=False)) / "card.md").read_text(encoding="utf-8")
    assert "none: only weights left the source site" in card
    # 0.2.0 had an option more, and wrote it.
    config = read_json(saved / "bundle.json")["config"]
    edit_meta(saved, config=config | {"pretrain": config["pretrain"] | {"bank_rows": 20}})
    # It is for people: a missing one does no harm.
    (saved / "card.md").unlink()
    assert same_bits(load_bundle(saved), make_bundle())


def test_features_of_another_extractor_are_refused_and_library_versions_make_no_other(saved, refused):
    bundle = load_bundle(saved)
    bundle.check_extractor(replace(bundle.extractor, versions={"numpy": "3"}), "cache.h5")
    for change in ({"id": "geometry"}, {"weights": "f" * 64}, {"preprocessing": "grey 48x48"}, {"layers": ()}):
        other = replace(bundle.extractor, **change)
        with refused(BundleError, "cache.h5", other.fingerprint[:12], bundle.extractor.fingerprint[:12]):
            bundle.check_extractor(other, "cache.h5")


def test_what_is_no_bundle_is_refused_and_so_is_a_folder_that_can_not_be_made(tmp_path, refused):
    for make in (lambda path: None, lambda path: path.write_text("x")):
        make(tmp_path / "model")
        with refused(BundleError, str(tmp_path / "model"), "no model bundle there", "featlab pretrain"):
            load_bundle(tmp_path / "model")
    (tmp_path / "model").write_text("a file in the way")
    for where in ("model", "model/deep"):
        with refused(FeatlabError, where, "can't be written"):
            save_bundle(tmp_path / where, make_bundle())


@pytest.mark.parametrize("name", ["model.safetensors", "bundle.json"])
def test_a_file_that_is_missing_truncated_or_something_else_is_refused(saved, name, refused):
    data = (saved / name).read_bytes()
    damaged = [data[: int(fraction * len(data))] for fraction in (0.0, 0.01, 0.5, 0.99)]
    for content in (*damaged, b"\xff\xfe\x00garbage" * 20, b"{}", b"[1]", b"null", None):
        (saved / name).unlink() if content is None else (saved / name).write_bytes(content)
        with refused(BundleError, name):
            load_bundle(saved)


def test_a_tensor_that_is_missing_of_another_shape_or_not_finite_is_refused(saved, refused):
    whole = (saved / "model.safetensors").read_bytes()
    missing = ("projection.mean", "projection.components", "head.norm.running_var", "head.linear.weight")
    cases = [(name, None) for name in (*missing, "translator.offset", "bank.bottleneck.std")]
    narrow = ("projection.mean", "head.linear.weight", "translator.first.bias", "head.classifier.bias")
    cases += [(name, "narrow") for name in (*narrow, "bank.bottleneck.std", "bank.features.mean")]
    odd = ("head.linear.weight", "projection.mean", "bank.features.std", "extras.shot.centre")
    cases += [(name, value) for name in odd for value in (float("nan"), float("inf"))]
    for name, value in cases:
        tensors = load_file(saved / "model.safetensors")
        tensor = tensors.pop(name)
        if value is not None:
            tensors[name] = tensor[..., :-1].clone() if value == "narrow" else tensor.fill_(value)
        edit_meta(saved, tensors=write_tensors(saved / "model.safetensors", tensors))
        words = (str(saved), "damaged or incomplete") if value in (None, "narrow") else (name, "NaN or infinity")
        with refused(BundleError, *words):
            load_bundle(saved)
        (saved / "model.safetensors").write_bytes(whole)


KEYS = ("bank", "cache_digest", "classes", "config", "extractor", "extras", "history", "neutral", "seed")
KEYS += ("membership", "source_subjects", "translator")


def test_a_description_that_lacks_an_entry_is_newer_or_does_not_fit_is_refused(saved, refused):
    path = saved / "bundle.json"
    (saved / "SHA256SUMS").unlink()
    whole = read_json(path)
    cases = [({name: value for name, value in whole.items() if name != key}, (str(saved), key)) for key in KEYS]
    newer = ("bundle.json", f"format {BUNDLE_FORMAT + 1}", "update featlab")
    for changes, words in (
        ({"format_version": BUNDLE_FORMAT + 1}, newer),
        ({"neutral": "sad"}, (str(saved), "'sad'")),
    ):
        cases.append((whole | changes, words))
    for meta, words in cases:
        write_json(path, meta)
        with refused(BundleError, *words):
            load_bundle(saved)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_entry_of_another_kind_is_refused_or_harmless_but_never_a_crash(saved):
    whole = (saved / "bundle.json").read_bytes()
    for key in KEYS:
        for value in (3, 1.5, "x", [], [3], {}, {"x": 3}, True):
            edit_meta(saved, **{key: value})
            try:
                load_bundle(saved)
            except BundleError as error:
                assert "\n" not in str(error)  # noqa: PT017
            (saved / "bundle.json").write_bytes(whole)


def test_an_older_bundle_is_replaced_as_a_whole_and_something_else_never(saved, tmp_path, refused):
    (saved / "left-over.txt").write_text("old")
    save_bundle(saved, make_bundle(1))
    assert same_bits(load_bundle(saved), make_bundle(1))
    assert {path.name for path in saved.iterdir()} == FILES
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    mine = tmp_path / "thesis"
    mine.mkdir()
    assert same_bits(load_bundle(save_bundle(mine, make_bundle())), make_bundle()), "an empty folder is filled"
    (mine / "bundle.json").rename(mine / "thesis.tex")
    with refused(BundleError, str(mine), "no model bundle", "choose another name"):
        save_bundle(mine, make_bundle())
    assert (mine / "thesis.tex").exists()

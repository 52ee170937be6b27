"""State dicts of the SHOT family to bundles, against a SHOT head written for this test."""

import json
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from featlab import ExtractorInfo
from featlab.bundle.bundle import load_bundle
from featlab.errors import BundleError, InputError
from featlab.exchange.checkpoint_bundle import FILES, import_bundle, save_imported
from featlab.exchange.checkpoints import (
    check_backbone_file,
    head_of,
    read_checkpoint,
    read_extractor,
    read_parts,
    translator_of,
)
from featlab.extraction.backbones.modules import resnet18
from featlab.extraction.backbones.weights import file_sha256
from featlab.methods import AdaptedModel, base_model, get_method, make_method, method_names
from featlab.protocol.splits import target_of

DIM, WIDTH = 12, 7


class NetB(nn.Module):
    """SHOT's feat_bottleneck, as its paper and the released state dicts describe it."""

    def __init__(self, dim=DIM, width=WIDTH, kind="bn", with_bn=True):
        super().__init__()
        self.kind = kind
        if with_bn:
            self.bn = nn.BatchNorm1d(width)
        self.bottleneck = nn.Linear(dim, width)

    def forward(self, rows):
        out = self.bottleneck(rows)
        return self.bn(out) if self.kind == "bn" else out


class NetC(nn.Module):
    """SHOT's feat_classifier."""

    def __init__(self, classes, width=WIDTH, norm="old"):
        super().__init__()
        self.fc = nn.Linear(width, classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            if norm == "old":
                self.fc = nn.utils.weight_norm(self.fc, name="weight")
            elif norm == "new":
                self.fc = nn.utils.parametrizations.weight_norm(self.fc)

    def forward(self, rows):
        return self.fc(rows)


def make_shot(classes=2, *, dim=DIM, kind="bn", with_bn=True, norm="old", seed=0):
    """A netB and a netC with running statistics and weight norms that are not their defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        b, c = NetB(dim, kind=kind, with_bn=with_bn), NetC(classes, norm=norm)
        b.train()
        for _ in range(3):
            b(3 * torch.randn(20, dim) + 1)
        for tensor in (*b.parameters(), *c.parameters()):
            tensor.data += 0.3 * torch.randn(tensor.shape)
    return b.eval(), c.eval()


def make_t(dim=DIM, hidden=9, seed=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim)).eval()


def save_shot(folder, b, c, t=None):
    """Write them as SHOT does; returns the paths."""
    paths = {"b": folder / "source_B.pt", "c": folder / "source_C.pt"}
    torch.save(b.state_dict(), paths["b"])
    torch.save(c.state_dict(), paths["c"])
    if t is not None:
        paths["t"] = folder / "target_T.pt"
        torch.save(t.state_dict(), paths["t"])
    return paths


def rows(dim=DIM, seed=9):
    return torch.randn(30, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", ["old", "new", "none"])
def test_the_logits_are_those_of_the_modules_that_were_saved(tmp_path, norm):
    for kind, with_bn in (("bn", True), ("ori", True), ("ori", False)):
        b, c = make_shot(3, kind=kind, with_bn=with_bn, norm=norm)
        if norm == "none":
            c.fc.weight.data[1] = 0  # a class whose weights are all zero keeps its bias as logit
        paths = save_shot(tmp_path, b, c)
        head = head_of(read_checkpoint(paths["b"]), read_checkpoint(paths["c"]))
        with torch.no_grad():
            torch.testing.assert_close(head(rows()), c(b(rows())), atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(head.bottleneck(rows()), b(rows()), atol=1e-6, rtol=1e-6)
        assert not head.training
        assert not any(parameter.requires_grad for parameter in head.parameters())


def test_what_is_around_a_state_dict_is_taken_off(tmp_path):
    b, c = make_shot(3)
    for suffix, wrap in (
        ("pt", lambda state: {f"module.{key}": tensor for key, tensor in state.items()}),
        ("pt", lambda state: {"state_dict": state, "epoch": 3, "best": 0.5}),
        ("pt", lambda state: {key: tensor.double() for key, tensor in state.items()}),
        ("safetensors", lambda state: {key: tensor.contiguous() for key, tensor in state.items()}),
    ):
        paths = [tmp_path / f"{name}.{suffix}" for name in "bc"]
        for module, path in zip((b, c), paths, strict=True):
            (save_file if suffix == "safetensors" else torch.save)(wrap(module.state_dict()), path)
        with torch.no_grad():
            torch.testing.assert_close(read_parts(*paths).head(rows()), c(b(rows())), atol=1e-6, rtol=1e-6)


def named(t, first, last):
    """The tensors of T with its layers called so."""
    parts = [(name, layer, part) for name, layer in ((first, t[0]), (last, t[2])) for part in ("weight", "bias")]
    return {f"{name}.{part}": getattr(layer, part).detach() for name, layer, part in parts}


def test_a_translator_is_the_mlp_that_was_saved_whatever_its_layers_are_called(tmp_path, refused):
    def check(path, t):
        translator = translator_of(read_checkpoint(path), DIM)
        with torch.no_grad():
            torch.testing.assert_close(translator(rows()), t(rows()), atol=1e-6, rtol=1e-6)
        assert torch.equal(translator.offset, torch.zeros(DIM))

    # Square: only the order says which layer comes first, and in safetensors only numbers do.
    square, narrow = make_t(hidden=DIM), make_t(hidden=5)
    path, sorted_path = tmp_path / "t.pt", tmp_path / "t.safetensors"
    for names in (("0", "2"), ("fc1", "fc2"), ("up", "down"), ("net.10", "net.9")):
        torch.save(named(square, *names), path)
        check(path, square)
    for t, names in ((square, ("fc2", "fc10")), (narrow, ("in", "back"))):
        save_file(named(t, *names), sorted_path)
        check(sorted_path, t)
    save_file(named(square, "encoder", "decoder"), sorted_path)
    with refused(InputError, "comes first", "encoder", "decoder"):
        translator_of(read_checkpoint(sorted_path), DIM)
    for layer in (square[0], square[2]):
        nn.init.zeros_(layer.bias)
    torch.save({name: tensor for name, tensor in named(square, "0", "2").items() if "weight" in name}, path)
    check(path, square)


def test_files_given_for_another_part_are_told_so(tmp_path, refused):
    paths = save_shot(tmp_path, *make_shot())
    with refused(InputError, "looks like netC: give it as --c"):
        read_parts(paths["c"], paths["b"])
    with torch.random.fork_rng(devices=[]):
        state = resnet18().state_dict()
    torch.save(state, tmp_path / "f.pt")
    with refused(InputError, "and ", "more", "netF, the backbone: give it as --f"):
        read_parts(tmp_path / "f.pt", paths["c"])
    torch.save({f"model.{name}": value for name, value in state.items()}, tmp_path / "t.pt")
    with refused(InputError, "a whole ResNet (11.2 M values)", "leave --t out"):
        translator_of(read_checkpoint(tmp_path / "t.pt"), DIM)


def test_keys_and_shapes_that_do_not_fit_are_named(tmp_path, refused):
    for change, *words in (
        (lambda b, c: b.pop("bottleneck.bias"), "netB", "missing bottleneck.bias"),
        (lambda b, c: b.pop("bn.running_var"), "netB", "missing bn.running_var"),
        (lambda b, c: b.update(extra=torch.ones(1)), "netB", "unexpected extra"),
        (lambda b, c: c.pop("fc.weight_g"), "netC", "missing fc.weight_g"),
        (lambda b, c: c.pop("fc.bias"), "netC", "missing fc.bias"),
        (lambda b, c: c.update({"fc.weight": torch.ones(2, 7)}), "netC", "unexpected fc.weight"),
        (lambda b, c: c.update({"fc.weight_v": torch.ones(2, 6)}), "takes 6 values", "gives 7"),
        (lambda b, c: c.update({"fc.bias": torch.ones(3)}), "don't fit together", "classifier.bias"),
        (lambda b, c: b.update({"bottleneck.weight": torch.ones(7)}), "bottleneck.weight has shape (7,)"),
        (lambda b, c: b.update({"bn.bias": torch.full((7,), torch.nan)}), "bn.bias holds NaN"),
        (lambda b, c: b.update(note="best"), "no state dict"),
    ):
        b, c = (dict(module.state_dict()) for module in make_shot())
        change(b, c)
        torch.save(b, tmp_path / "b.pt")
        torch.save(c, tmp_path / "c.pt")
        with refused(InputError, *words):
            read_parts(tmp_path / "b.pt", tmp_path / "c.pt")


@pytest.fixture
def table(people):
    """Rows of six people, classes (anger, neutral, disgust), 12 values."""
    return people(classes=3, frames=8)


@pytest.fixture
def parts(tmp_path):
    return read_parts(*(save_shot(tmp_path, *make_shot(3))[name] for name in "bc"))


def test_the_classifier_follows_the_cache_s_order_of_classes(table, parts, extractor):
    b, c = make_shot(3)
    given = ("disgust", "anger", "neutral")
    imported = import_bundle(parts, extractor, classes=given, source=table)
    assert imported.bundle.classes == table.classes == ("anger", "neutral", "disgust")
    embeddings = torch.from_numpy(table.embeddings)
    assert torch.equal(imported.bundle.projection(embeddings), embeddings)
    assert torch.equal(imported.bundle.translator(embeddings), embeddings)
    with torch.no_grad():
        theirs = torch.softmax(c(b(embeddings)), dim=1).numpy()
    ours = AdaptedModel(base_model(imported.bundle)).predict_proba(table.embeddings)
    np.testing.assert_allclose(ours, theirs[:, [given.index(name) for name in table.classes]], atol=1e-6)


def test_the_style_bank_holds_neutral_statistics_of_source_subjects_also_of_translated_rows(table, tmp_path, extractor):
    b, c, t = (*make_shot(3), make_t())
    paths, state = save_shot(tmp_path, b, c, t), torch.get_rng_state()
    read, source = read_parts(paths["b"], paths["c"], paths["t"]), table.without("s04", "s05")
    bundle = import_bundle(read, extractor, source=source, cache_digest="d" * 64).bundle
    assert torch.equal(torch.get_rng_state(), state)
    assert (len(bundle.source_subjects), bundle.bank.size) == (4, 4)
    assert bundle.cache_digest == "d" * 64
    means = np.stack([table.embeddings[(table.subject == who) & (table.label == 1)].mean(axis=0) for who in range(4)])
    np.testing.assert_allclose(bundle.bank.layers["features"][0], means.mean(axis=0), atol=1e-5)
    moved = [source.rows_of(name) for name in ("s00", "s01", "s02", "s03")]
    moved = [
        torch.from_numpy(mine.embeddings[mine.label == 1] + (means.mean(axis=0) - mean).astype(np.float32))
        for mine, mean in zip(moved, means, strict=True)
    ]
    with torch.no_grad():
        for layer, run in (("embedding", t), ("bottleneck", lambda rows: b(t(rows)))):
            expected = torch.stack([run(rows).mean(dim=0) for rows in moved]).mean(dim=0)
            torch.testing.assert_close(bundle.bank.layers[layer][0], expected, atol=1e-5, rtol=1e-5)
    assert not bundle.translator.residual


def test_every_method_runs_on_an_imported_bundle_that_was_prepared_for_it(table, tmp_path, extractor):
    paths = save_shot(tmp_path, *make_shot(3), make_t())
    # An imported T has no linear part.
    names = [name for name in method_names() if make_method(name).selection == "source-free" and name != "pft-linear"]
    read = read_parts(paths["b"], paths["c"], paths["t"])
    save_imported(tmp_path / "bundle", import_bundle(read, extractor, source=table.without("s05"), methods=names))
    bundle, mine = load_bundle(tmp_path / "bundle"), table.rows_of("s05")
    target = target_of(mine.take(mine.label == mine.neutral_code))
    for name in names:
        steps = {"epochs", "iterations"} & {field.name for field in fields(get_method(name).config_type)}
        method = make_method(name, {name: dict.fromkeys(steps, 5)})
        assert np.isfinite(method.adapt(bundle, target).predict_proba(mine.embeddings)).all(), name


def test_a_saved_import_reads_back_and_says_where_it_came_from(table, parts, tmp_path, extractor):
    imported = import_bundle(parts, extractor, source=table)
    folder = save_imported(tmp_path / "bundle", imported)
    rows = torch.from_numpy(table.embeddings)
    ours, theirs = (base_model(bundle) for bundle in (load_bundle(folder), imported.bundle))
    assert torch.equal(ours(rows), theirs(rows))
    listed = json.loads((folder / FILES).read_text())
    assert listed["b"] == {"file": "source_B.pt", "sha256": file_sha256(tmp_path / "source_B.pt")}
    assert all(entry["sha256"] in (folder / "card.md").read_text() for entry in listed.values())
    with pytest.raises(BundleError, match="exists"):
        save_imported(folder, imported)
    assert not list(tmp_path.glob("*.partial"))


def test_a_wrong_order_of_classes_shows_in_the_accuracy_and_the_better_order_is_named(people, tmp_path, extractor):
    table = people(subjects=12, classes=3, expression=4.0, identity=0.5, resting=0.2)
    b, c = NetB(DIM, DIM, kind="ori", with_bn=False), NetC(3, width=DIM, norm="none")
    means = torch.stack([torch.from_numpy(table.embeddings[table.label == code].mean(axis=0)) for code in range(3)])
    with torch.no_grad():
        # Nearest class mean, written as a linear classifier on the embeddings themselves.
        b.bottleneck.weight.copy_(torch.eye(DIM))
        b.bottleneck.bias.zero_()
        c.fc.weight.copy_(2 * means)
        c.fc.bias.copy_(-means.square().sum(dim=1))
    paths = save_shot(tmp_path, b, c)
    read = read_parts(paths["b"], paths["c"])
    right, wrong = (
        import_bundle(read, extractor, classes=classes, source=table)
        for classes in (table.classes, ("neutral", "anger", "disgust"))
    )
    assert wrong.accuracy < 0.5 < 0.95 < right.accuracy
    assert (right.better_order, wrong.better_order) == (None, table.classes)
    assert (right.rows, wrong.rows) == (len(table), len(table))


def test_without_a_cache_the_bundle_has_no_bank_and_other_classes_of_a_cache_count_as_unknown(people, parts, extractor):
    names = ("joy", "disgust", "neutral")
    imported = import_bundle(parts, extractor, classes=names, neutral="neutral")
    assert (imported.bundle.bank, len(imported.bundle.source_subjects)) == (None, 0)
    assert (imported.rows, imported.better_order) == (0, None)
    assert np.isnan(imported.accuracy)
    table = people(classes=5)
    imported = import_bundle(parts, extractor, classes=names, source=table)
    assert imported.bundle.classes == names
    assert imported.rows == np.isin(table.label, [table.classes.index(name) for name in names]).sum()


def test_what_does_not_fit_a_bundle_is_refused(people, table, parts, extractor, refused):
    named = {"classes": ("a", "b", "c")}
    for options, *words in (
        ({"source": table, "classes": ("a", "neutral")}, "3 classes", "2 are named"),
        ({"source": table, "classes": ("anger", "neutral", "anger")}, "'anger' is named twice"),
        ({"source": table, "classes": ("anger", "Neutral", "joy")}, "'neutral' is none", "did you mean 'Neutral'"),
        ({"source": table, "neutral": "nose"}, "'nose' is none of the checkpoint's"),
        ({"source": people(dim=8, classes=3)}, "netB takes 12 values", "have 8"),
        ({"source": table.take(table.label != 1)}, "no row of the 6 source subjects is labelled 'neutral'"),
        ({}, "--classes"),
        (named, "--neutral"),
        (named | {"neutral": "a", "methods": ["coral"]}, "coral", "--cache"),
    ):
        with refused(InputError, *words):
            import_bundle(parts, extractor, **options)


def test_who_made_the_features_is_read_from_json_and_checked_by_the_backbones_file(tmp_path, extractor, refused, parts):
    path = tmp_path / "extractor.json"
    for content in (extractor.to_dict(), {"extractor": extractor.to_dict() | {"fingerprint": "x"}}):
        path.write_text(json.dumps(content))
        assert read_extractor(path).fingerprint == extractor.fingerprint
    for text in ("[1]", "{", '{"id": "hog"}', '{"id": 3, "weights": "none", "preprocessing": ""}'):
        path.write_text(text)
        with refused(InputError, "who made the features"):
            read_extractor(path)
    with refused(InputError, "can't be read"):
        read_extractor(tmp_path / "nosuch.json")
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "source_F.pt")
    digest = file_sha256(tmp_path / "source_F.pt")
    right = ExtractorInfo("resnet18", digest, "RGB 224x224")
    assert check_backbone_file(parts, tmp_path / "source_F.pt", right).files["f"]["sha256"] == digest
    with refused(InputError, digest[:12], "did not make the features", "'resnet18'"):
        check_backbone_file(parts, tmp_path / "source_F.pt", replace(right, weights="0" * 64))

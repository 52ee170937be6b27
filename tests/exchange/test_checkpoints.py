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
from featlab.exchange.checkpoints import check_backbone_file, read_checkpoint, read_extractor, read_parts, translator_of
from featlab.extraction.backbones.weights import file_sha256
from featlab.methods import AdaptedModel, base_model, get_method, make_method, method_names
from featlab.protocol.splits import target_of

DIM, WIDTH = 12, 7
ROWS = torch.randn(30, DIM, generator=torch.Generator().manual_seed(9))


class NetB(nn.Module):
    """SHOT's feat_bottleneck, as its paper and the released state dicts describe it."""

    def __init__(self, kind, with_bn):
        super().__init__()
        self.kind = kind
        if with_bn:
            self.bn = nn.BatchNorm1d(WIDTH)
        self.bottleneck = nn.Linear(DIM, WIDTH)

    def forward(self, rows):
        out = self.bottleneck(rows)
        return self.bn(out) if self.kind == "bn" else out


class NetC(nn.Module):
    """SHOT's feat_classifier."""

    def __init__(self, classes, norm):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            normed = {"old": nn.utils.weight_norm, "new": nn.utils.parametrizations.weight_norm, "none": lambda fc: fc}
            self.fc = normed[norm](nn.Linear(WIDTH, classes))

    def forward(self, rows):
        return self.fc(rows)


def make_shot(classes=3, *, kind="bn", with_bn=True, norm="old"):
    """A netB and a netC with running statistics and weight norms that are not their defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        b, c = NetB(kind, with_bn).train(), NetC(classes, norm)
        for _ in range(3):
            b(3 * torch.randn(20, DIM) + 1)
        for tensor in (*b.parameters(), *c.parameters()):
            tensor.data += 0.3 * torch.randn(tensor.shape)
    return b.eval(), c.eval()


def make_t(dim=DIM, hidden=9):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim)).eval()


def saved(folder, *states):
    """Write state dicts of netB, netC and T as SHOT does; return the paths."""
    paths = [folder / name for name in ("source_B.pt", "source_C.pt", "target_T.pt")][: len(states)]
    for state, path in zip(states, paths, strict=True):
        torch.save(state, path)
    return paths


def parts_of(folder, *modules):
    return read_parts(*saved(folder, *(module.state_dict() for module in modules)))


def near(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_the_logits_are_those_of_the_modules_that_were_saved_whatever_is_around_the_state_dict(tmp_path):
    for norm in ("old", "new", "none"):
        for kind, with_bn in (("bn", True), ("ori", True), ("ori", False)):
            b, c = make_shot(kind=kind, with_bn=with_bn, norm=norm)
            if norm == "none":
                c.fc.weight.data[1] = 0  # a class whose weights are all zero keeps its bias as logit
            head = parts_of(tmp_path, b, c).head
            near(head(ROWS), c(b(ROWS)))
            near(head.bottleneck(ROWS), b(ROWS))
            assert not head.training
            assert not any(parameter.requires_grad for parameter in head.parameters())
    for save, suffix, wrap in (
        (torch.save, "pt", lambda state: {f"module.{key}": tensor for key, tensor in state.items()}),
        (torch.save, "pt", lambda state: {"state_dict": state, "epoch": 3, "best": 0.5}),
        (torch.save, "pt", lambda state: {key: tensor.double() for key, tensor in state.items()}),
        (save_file, "safetensors", lambda state: {key: tensor.contiguous() for key, tensor in state.items()}),
    ):
        paths = [tmp_path / f"{name}.{suffix}" for name in "bc"]
        for module, path in zip((b, c), paths, strict=True):
            save(wrap(module.state_dict()), path)
        near(read_parts(*paths).head(ROWS), c(b(ROWS)))


def named(t, first, last, parts=("weight", "bias")):
    """The tensors of T with its layers called so."""
    return {f"{name}.{part}": getattr(t[at], part).detach() for name, at in ((first, 0), (last, 2)) for part in parts}


@torch.no_grad()
def test_a_translator_is_the_mlp_that_was_saved_whatever_its_layers_are_called(tmp_path, refused):
    # Square: only the order says which layer comes first, and in safetensors only numbers do.
    square, narrow, bare = (make_t(hidden=hidden) for hidden in (DIM, 5, DIM))
    for layer in (bare[0], bare[2]):
        nn.init.zeros_(layer.bias)
    for t, save, suffix, state in (
        *((square, torch.save, "pt", named(square, *names)) for names in (("0", "2"), ("up", "down"), ("n.10", "n.9"))),
        (square, save_file, "safetensors", named(square, "fc2", "fc10")),
        (narrow, save_file, "safetensors", named(narrow, "in", "back")),
        (bare, torch.save, "pt", named(bare, "0", "2", ["weight"])),
    ):
        path = tmp_path / f"t.{suffix}"
        save(state, path)
        near(translator_of(read_checkpoint(path), DIM)(ROWS), t(ROWS))
    path = tmp_path / "t.safetensors"
    for t, names, *words in (
        (square, ("encoder", "decoder"), "comes first", "encoder", "decoder"),
        (make_t(dim=5), ("0", "2"), "a translator of 12 values to 12 is needed", "0 5 to 9"),
    ):
        save_file(named(t, *names), path)
        with refused(InputError, *words):
            translator_of(read_checkpoint(path), DIM)


def test_keys_and_shapes_that_do_not_fit_are_named_and_files_for_another_part_too(tmp_path, refused):
    resnet = {f"layer1.0.conv{place}.weight": torch.zeros(4, 4, 3, 3) for place in (1, 2)}
    shot = [dict(module.state_dict()) for module in make_shot(2)]
    for change, *words in (
        (lambda b, c: (c, b), "looks like netC: give it as --c"),
        (lambda b, c: (resnet, c), "netF, the backbone: give it as --f"),
        (lambda b, c: (b, c, resnet), "a whole ResNet (0.0 M values)", "leave --t out"),
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
        states = [dict(state) for state in shot]
        changed = change(*states)
        paths = saved(tmp_path, *(changed if isinstance(changed, tuple) else states))
        with refused(InputError, *words):
            read_parts(*paths)


@pytest.fixture
def table(people):
    """Rows of six people, classes (anger, neutral, disgust), 12 values."""
    return people(classes=3, frames=8)


@pytest.fixture
def parts(tmp_path):
    return parts_of(tmp_path, *make_shot())


def test_an_import_has_the_cache_s_order_of_classes_reads_back_and_says_where_it_came_from(
    table, parts, tmp_path, extractor
):
    b, c = make_shot()
    given = ("disgust", "anger", "neutral")
    imported = import_bundle(parts, extractor, classes=given, source=table)
    folder = save_imported(tmp_path / "bundle", imported)
    bundle = load_bundle(folder)
    assert bundle.classes == table.classes == ("anger", "neutral", "disgust")
    embeddings = torch.from_numpy(table.embeddings)
    assert torch.equal(bundle.translator(bundle.projection(embeddings)), embeddings)
    with torch.no_grad():
        theirs = torch.softmax(c(b(embeddings)), dim=1).numpy()
    ours = AdaptedModel(base_model(bundle)).predict_proba(table.embeddings)
    np.testing.assert_allclose(ours, theirs[:, [given.index(name) for name in table.classes]], atol=1e-6)
    listed = json.loads((folder / FILES).read_text())
    assert listed["b"] == {"file": "source_B.pt", "sha256": file_sha256(tmp_path / "source_B.pt")}
    assert all(entry["sha256"] in (folder / "card.md").read_text() for entry in listed.values())
    with pytest.raises(BundleError, match="exists"):
        save_imported(folder, imported)


def test_the_style_bank_holds_neutral_statistics_of_source_subjects_also_of_translated_rows(table, tmp_path, extractor):
    b, c, t = (*make_shot(), make_t())
    state, source = torch.get_rng_state(), table.without("s04", "s05")
    bundle = import_bundle(parts_of(tmp_path, b, c, t), extractor, source=source, cache_digest="d" * 64).bundle
    assert torch.equal(torch.get_rng_state(), state)
    assert (len(bundle.source_subjects), bundle.bank.size, bundle.cache_digest) == (4, 4, "d" * 64)
    resting = [source.embeddings[(source.subject == who) & (source.label == 1)] for who in range(4)]
    centre = np.mean([mine.mean(axis=0) for mine in resting], axis=0)
    np.testing.assert_allclose(bundle.bank.layers["features"][0], centre, atol=1e-5)
    moved = [torch.from_numpy(mine + centre - mine.mean(axis=0)).float() for mine in resting]
    with torch.no_grad():
        for layer, run in (("embedding", t), ("bottleneck", lambda rows: b(t(rows)))):
            expected = torch.stack([run(rows).mean(dim=0) for rows in moved]).mean(dim=0)
            torch.testing.assert_close(bundle.bank.layers[layer][0], expected, atol=1e-5, rtol=1e-5)
    assert not bundle.translator.residual


def test_every_method_runs_on_an_imported_bundle_that_was_prepared_for_it(table, tmp_path, extractor):
    # An imported T has no linear part.
    names = [name for name in method_names() if make_method(name).selection == "source-free" and name != "pft-linear"]
    read = parts_of(tmp_path, *make_shot(), make_t())
    save_imported(tmp_path / "bundle", import_bundle(read, extractor, source=table.without("s05"), methods=names))
    bundle, mine = load_bundle(tmp_path / "bundle"), table.rows_of("s05")
    target = target_of(mine.take(mine.label == mine.neutral_code))
    for name in names:
        steps = {"epochs", "iterations"} & {field.name for field in fields(get_method(name).config_type)}
        method = make_method(name, {name: dict.fromkeys(steps, 5)})
        assert np.isfinite(method.adapt(bundle, target).predict_proba(mine.embeddings)).all(), name


def test_a_wrong_order_of_classes_shows_in_the_accuracy_and_the_better_order_is_named(people, tmp_path, extractor):
    table = people(subjects=12, classes=3, expression=4.0, identity=0.5, resting=0.2)
    means = torch.stack([torch.from_numpy(table.embeddings[table.label == code].mean(axis=0)) for code in range(3)])
    # Nearest class mean, written as a linear classifier on the embeddings themselves.
    identity = {"bottleneck.weight": torch.eye(DIM), "bottleneck.bias": torch.zeros(DIM)}
    nearest = {"fc.weight": 2 * means, "fc.bias": -means.square().sum(dim=1)}
    parts = read_parts(*saved(tmp_path, identity, nearest))
    right, wrong, foreign = (
        import_bundle(parts, extractor, classes=classes, source=table)
        for classes in (table.classes, ("neutral", "anger", "disgust"), ("joy", "neutral", "disgust"))
    )
    assert wrong.accuracy < 0.5 < 0.95 < right.accuracy
    assert (right.better_order, wrong.better_order) == (None, table.classes)
    assert (right.rows, wrong.rows) == (len(table), len(table))
    # Classes of the cache that the checkpoint doesn't know count as unknown.
    assert (foreign.bundle.classes, foreign.rows) == (("joy", "neutral", "disgust"), (table.label != 0).sum())
    # Without a cache there is no bank.
    alone = import_bundle(parts, extractor, classes=table.classes, neutral="neutral")
    assert (alone.bundle.bank, len(alone.bundle.source_subjects)) == (None, 0)
    assert (alone.rows, alone.better_order, np.isnan(alone.accuracy)) == (0, None, True)


def test_what_does_not_fit_a_bundle_is_refused(people, table, parts, extractor, refused):
    named = {"classes": ("a", "b", "c")}
    for options, *words in (
        ({"source": table, "classes": ("a", "neutral")}, "3 classes", "2 are named"),
        ({"source": table, "classes": ("anger", "neutral", "anger")}, "'anger' is named twice"),
        ({"source": table, "classes": ("anger", "Neutral", "joy")}, "'neutral' is none", "did you mean 'Neutral'"),
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
    for text in ("[1]", "{", '{"id": "hog"}', '{"id": 3, "weights": "none", "preprocessing": ""}', None):
        path.unlink() if text is None else path.write_text(text)
        with refused(InputError, "who made the features" if text else "can't be read"):
            read_extractor(path)
    path.write_bytes(b"weights")
    right = ExtractorInfo("resnet18", file_sha256(path), "RGB 224x224")
    assert check_backbone_file(parts, path, right).files["f"]["sha256"] == right.weights
    with refused(InputError, right.weights[:12], "did not make the features", "'resnet18'"):
        check_backbone_file(parts, path, replace(right, weights="0" * 64))

"""The methods' numbers against NumPy, SciPy and scikit-learn, and adaptations on disk."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from featlab.bundle.adaptation import ADAPTATION_FORMAT, adaptation_folder, load_adaptation, save_adaptation
from featlab.errors import BundleError, ConfigError, InputError
from featlab.methods import (
    AdaptedModel,
    Affine,
    get_method,
    make_method,
    method_names,
)
from featlab.model.networks import PersonalModel
from featlab.protocol.splits import target_of

NAMES = [name for name in method_names() if not get_method(name).needs_source]
"""Those whose adaptation is ever stored: source access ends where `featlab adapt` begins."""


@pytest.fixture(scope="module", params=[2, 3], ids=["2 classes", "3 classes"])
def table(request, people):
    """One neutral clip a source subject, so that a row can be referenced to that one only; s05 is the target."""
    return people(subjects=6, clips=1, frames=16, classes=request.param)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s05"), methods=NAMES)


@pytest.fixture(scope="module")
def rows(table):
    mine = table.rows_of("s05")
    return mine.take(mine.label == mine.neutral_code)


@pytest.fixture(scope="module")
def probe(table):
    return table.rows_of("s05").embeddings


FULL = ("pft", "pft-poster", "oracle")
"""Methods whose numbers are tested here; of the others, which have files of their own, a few steps are enough."""


def run(name, bundle, rows, **options):
    known = {field.name for field in fields(get_method(name).config_type)}
    few = {} if name in FULL else {key: 2 for key in ("iterations", "epochs", "ssl_iterations") if key in known}
    method = make_method(name, {name: few | options})
    if method.needs_labels:
        return method.adapt(bundle, target_of(rows), labels=rows.label)
    return method.adapt(bundle, target_of(rows))


def features_of(bundle, embeddings):
    """P in float64."""
    mean, components = (tensor.double().numpy() for tensor in (bundle.projection.mean, bundle.projection.components))
    return (embeddings.astype(np.float64) - mean) @ components


def bottleneck_of(bundle, features, mean=None, variance=None):
    """B's linear layer and BatchNorm in evaluation mode, by hand."""
    norm = bundle.head.norm
    scale, shift, running_mean, running_var = (
        tensor.double().numpy() for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    values = linear_of(bundle, features)
    mean, variance = (running_mean, running_var) if mean is None else (mean, variance)
    return (values - mean) / np.sqrt(variance + norm.eps) * scale + shift


def linear_of(bundle, features):
    linear = bundle.head.linear
    return features @ linear.weight.double().numpy().T + linear.bias.double().numpy()


def probabilities_of(bundle, bottleneck):
    """C's weight normalisation by hand: w = g v / ‖v‖, row by row."""
    weights = bundle.head.classifier.parametrizations.weight
    length, direction = weights.original0.double().numpy(), weights.original1.double().numpy()
    weight = length * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    logits = bottleneck @ weight.T + bundle.head.classifier.bias.double().numpy()
    return scipy.special.softmax(logits, axis=1)


def centre_of(bundle, table):
    """The mean over source subjects of the mean of their one neutral clip."""
    source = table.without("s05")
    features = features_of(bundle, source.embeddings)
    neutral = source.label == source.neutral_code
    return np.mean([features[neutral & (source.subject == code)].mean(axis=0) for code in range(5)], axis=0)


def test_neutral_shift_equals_numpy(bundle, table, rows, probe):
    shift = centre_of(bundle, table) - features_of(bundle, rows.embeddings).mean(axis=0)
    expected = probabilities_of(bundle, bottleneck_of(bundle, features_of(bundle, probe) + shift))
    model = run("neutral-shift", bundle, rows)
    np.testing.assert_allclose(model.predict_proba(probe), expected, atol=1e-5)
    assert model.trainable == len(shift)


def test_adabn_equals_the_batch_norm_formula(bundle, rows, probe):
    values = linear_of(bundle, features_of(bundle, rows.embeddings))
    mean, variance = values.mean(axis=0), values.var(axis=0)
    expected = probabilities_of(bundle, bottleneck_of(bundle, features_of(bundle, probe), mean, variance))
    model = run("adabn", bundle, rows)
    np.testing.assert_allclose(model.predict_proba(probe), expected, atol=1e-4)
    assert model.trainable == 2 * len(mean)


def test_adabn_centres_the_neutral_clip_at_the_shift_of_the_norm(bundle, rows):
    head = run("adabn", bundle, rows).model.head
    with torch.no_grad():
        centred = head.bottleneck(bundle.projection(torch.from_numpy(rows.embeddings))).mean(dim=0)
    torch.testing.assert_close(centred, bundle.head.norm.bias, atol=1e-4, rtol=0)


def test_coral_equals_scipys_matrix_square_roots(bundle, table, rows, probe):
    source = table.without("s05")
    neutral = source.take(source.label == source.neutral_code)
    features = features_of(bundle, neutral.embeddings)
    for code in range(5):
        features[neutral.subject == code] -= features[neutral.subject == code].mean(axis=0)
    own = features_of(bundle, rows.embeddings)
    identity = np.eye(features.shape[1])
    colour = scipy.linalg.sqrtm(features.T @ features / len(features) + identity).real
    whiten = scipy.linalg.inv(scipy.linalg.sqrtm(np.cov(own.T, bias=True) + identity).real)
    moved = (features_of(bundle, probe) - own.mean(axis=0)) @ whiten @ colour + centre_of(bundle, table)
    expected = probabilities_of(bundle, bottleneck_of(bundle, moved))
    np.testing.assert_allclose(run("coral", bundle, rows).predict_proba(probe), expected, atol=1e-4)


def test_coral_of_one_row_whitens_nothing_and_moves_the_mean(bundle, table, rows):
    one = rows.take([0])
    model = run("coral", bundle, one).model
    with torch.no_grad():
        moved = model.features(torch.from_numpy(one.embeddings))[0]
    np.testing.assert_allclose(moved, centre_of(bundle, table), atol=1e-3)


def test_referenced_equals_scikit_learns_probabilities(bundle, table, rows, probe):
    source = table.without("s05")
    features = features_of(bundle, source.embeddings).astype(np.float32).astype(np.float64)
    neutral = source.label == source.neutral_code
    for code in range(5):
        mine = source.subject == code
        features[mine] -= features[mine & neutral].mean(axis=0)
    # The one neutral clip is half of the time what a subject is referenced to, and half of the time tested.
    weight = np.where(neutral, 0.5, 1.0)
    fitted = LogisticRegression(C=0.03, max_iter=5000).fit(features, source.label, sample_weight=weight)
    own = features_of(bundle, probe) - features_of(bundle, rows.embeddings).mean(axis=0)
    model = run("referenced", bundle, rows)
    np.testing.assert_allclose(model.predict_proba(probe), fitted.predict_proba(own), atol=2e-3)


def test_referenced_never_predicts_a_class_without_source_rows(people, small_bundle, probe, table, rows):
    if len(table.classes) < 3:
        return
    without_disgust = table.without("s05")
    without_disgust = without_disgust.take(without_disgust.label != table.classes.index("disgust"))
    model = run("referenced", small_bundle(without_disgust, methods=["referenced"]), rows)
    probabilities = model.predict_proba(probe)
    assert probabilities[:, table.classes.index("disgust")].max() == 0
    assert np.isfinite(probabilities).all()


def test_the_style_of_features_is_aligned_at_the_centre_minus_the_mean(bundle, table, rows):
    model = run(
        "pft", bundle, rows, iterations=50, optimiser="lbfgs", layers="features", std=0, anchor=0, consistency=0
    )
    expected = centre_of(bundle, table) - features_of(bundle, rows.embeddings).mean(axis=0)
    np.testing.assert_allclose(model.model.translator.offset, expected, atol=1e-3)
    assert model.history[-1]["style"] < 1e-6
    assert model.history[0]["style"] > 1e-3


def test_pft_moves_nothing_but_the_offset_by_default(bundle, rows):
    translator = run("pft", bundle, rows).model.translator.state_dict()
    for name, tensor in bundle.translator.state_dict().items():
        assert torch.equal(tensor, translator[name]) == (name != "offset"), name


@pytest.mark.parametrize("update", ["offset", "last", "all"])
def test_update_says_which_tensors_of_t_move(update, bundle, rows):
    model = run("pft", bundle, rows, update=update, layers="embedding", iterations=5, optimiser="lbfgs")
    moved = {
        name
        for name, tensor in bundle.translator.state_dict().items()
        if not torch.equal(tensor, model.model.translator.state_dict()[name])
    }
    last = {"last.weight", "last.bias"}
    assert moved == {"offset": {"offset"}, "last": last, "all": last | {"offset", "first.weight", "first.bias"}}[update]
    assert model.trainable == sum(bundle.translator.state_dict()[name].numel() for name in moved)


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_adapting_lowers_the_loss(optimiser, bundle, rows):
    layers = "features,embedding,bottleneck"
    history = run("pft", bundle, rows, optimiser=optimiser, layers=layers, std=1.0, anchor=0.1).history
    assert min(entry["loss"] for entry in history) < history[0]["loss"]
    assert all(np.isfinite(list(entry.values())).all() for entry in history)
    for entry in history:
        assert entry["loss"] == pytest.approx(sum(value for name, value in entry.items() if name != "loss"), rel=1e-4)


@pytest.mark.parametrize("options", [{"update": "last"}, {"layers": ""}], ids=str)
def test_options_that_leave_the_loss_without_a_gradient_are_refused_in_one_line(options, bundle, rows, refused):
    with refused(ConfigError, "adapt.pft", "layer"):
        run("pft", bundle, rows, optimiser="lbfgs", **options)


@pytest.mark.parametrize(
    "options",
    [{"std": 1}, {"consistency": 1}, {"anchor": 1}, {"update": "all"}, {"layers": "embedding"}, {"style": 0}],
    ids=str,
)
def test_a_loss_without_a_closed_form_is_refused_and_names_the_optimiser(options, bundle, rows, refused):
    with refused(ConfigError, "adapt.pft", "closed form", "optimiser"):
        run("pft", bundle, rows, **options)


def test_the_closed_form_is_where_the_line_search_ends(bundle, rows, probe):
    plain = run("pft", bundle, rows, weighting="mean")
    searched = run("pft", bundle, rows, optimiser="lbfgs")
    torch.testing.assert_close(plain.model.translator.offset, searched.model.translator.offset, atol=1e-4, rtol=1e-3)
    assert (plain.iterations, plain.trainable) == (1, searched.trainable)


def test_style_without_a_style_bank_is_refused(bundle, rows, refused):
    with refused(InputError, "pft-poster", "style bank"):
        run("pft-poster", replace(bundle, bank=None), rows, style=1)


def test_no_more_steps_are_counted_than_were_allowed(bundle, rows):
    """A line search looks at the loss more than once a step."""
    options = {"layers": "embedding,bottleneck", "std": 1.0, "optimiser": "lbfgs"}
    assert run("pft", bundle, rows, iterations=1, **options).iterations == 1


def test_double_precision_is_taken_as_it_comes(bundle, rows, probe):
    double = replace(target_of(rows), embeddings=rows.embeddings.astype(np.float64))
    model = make_method("neutral-shift").adapt(bundle, double)
    expected = run("neutral-shift", bundle, rows).predict_proba(probe)
    np.testing.assert_allclose(model.predict_proba(probe.astype(np.float64)), expected, atol=1e-6)


def test_a_clip_that_is_not_called_neutral_afterwards_is_warned_about(bundle, table):
    mine = table.rows_of("s05")
    clip = mine.take(mine.label == mine.neutral_code)
    code = table.neutral_code
    expected = run("source-only", bundle, clip).predict_proba(clip.embeddings).argmax(axis=1)
    model = run("pft", replace(bundle, neutral=table.classes[1 - code]), clip)
    assert (expected >= 0).all()
    share = np.mean(model.predict_proba(clip.embeddings).argmax(axis=1) == 1 - code)
    assert bool(model.warnings) == (share < 0.5)


def test_the_oracle_learns_the_labels_it_is_given_and_none_it_is_not(bundle, table, probe):
    mine = table.rows_of("s05")
    method = make_method("oracle")
    model = method.adapt(bundle, target_of(mine), labels=mine.label)
    assert np.mean(model.predict_proba(probe).argmax(axis=1) == mine.label) > 0.9
    assert model.history[-1]["loss"] < model.history[0]["loss"]
    half = np.where(mine.frame < 5, mine.label, -1).astype(np.int16)
    first = target_of(mine, np.flatnonzero(mine.frame < 5))
    partly = method.adapt(bundle, target_of(mine), labels=half)
    only = method.adapt(bundle, first, labels=mine.label[mine.frame < 5])
    assert np.array_equal(partly.predict_proba(probe), only.predict_proba(probe))


def test_the_oracle_without_a_label_is_refused(bundle, rows, refused):
    with refused(InputError, "labelled row"):
        make_method("oracle").adapt(bundle, target_of(rows), labels=np.full(len(rows), -1, dtype=np.int16))


# --- adaptations on disk ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory, bundle, rows):
    """A saved adaptation a method."""
    root = tmp_path_factory.mktemp("adaptations")
    return {name: save_adaptation(root / name, bundle, run(name, bundle, rows), {"method": name}) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_an_adaptation_comes_back_bitwise(name, saved, bundle, rows, probe):
    model = run(name, bundle, rows)
    loaded, meta = load_adaptation(saved[name], bundle)
    assert np.array_equal(loaded.predict_proba(probe), model.predict_proba(probe))
    assert (loaded.iterations, loaded.trainable, loaded.warnings) == (model.iterations, model.trainable, model.warnings)
    assert [dict(entry) for entry in loaded.history] == [dict(entry) for entry in model.history]
    assert meta["method"] == name
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not any(part.training for part in loaded.model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_an_adaptation_holds_only_what_differs_from_the_bundle(name, saved, bundle):
    stored = load_file(saved[name] / "adaptation.safetensors")
    assert not any(key.startswith("projection.") for key in stored)
    if name == "source-only":
        assert stored == {}
    if name == "pft":
        assert set(stored) == {"translator.offset"}
    if not {"bottleneck", "classifier"} & set(get_method(name).updates):
        assert not any(key.startswith("head.") for key in stored)


@pytest.mark.parametrize("name", NAMES)
def test_loading_leaves_the_bundle_and_the_global_generator_alone(name, saved, bundle):
    before = {key: tensor.clone() for key, tensor in bundle.head.state_dict().items()}
    state = torch.get_rng_state()
    load_adaptation(saved[name], bundle)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, bundle.head.state_dict()[key]) for key, tensor in before.items())


@pytest.fixture
def folder(tmp_path, bundle, rows):
    return save_adaptation(tmp_path / "s05", bundle, run("coral", bundle, rows), {"subject": "s05"})


def edit_meta(folder, remove=(), **changes):
    path = folder / "adaptation.json"
    meta = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in meta.items() if key not in remove}), encoding="utf-8")


def test_a_missing_adaptation_is_refused(tmp_path, bundle, refused):
    with refused(BundleError, "no adaptation there", "featlab adapt"):
        load_adaptation(tmp_path / "s05", bundle)


@pytest.mark.parametrize("name", ["adaptation.json", "adaptation.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_adaptation_is_refused(name, share, folder, bundle, refused):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(share * len(data))])
    with refused(BundleError, name):
        load_adaptation(folder, bundle)


def test_an_adaptation_without_its_tensors_is_refused(folder, bundle, refused):
    (folder / "adaptation.safetensors").unlink()
    with refused(BundleError, "adaptation.safetensors"):
        load_adaptation(folder, bundle)


@pytest.mark.parametrize("key", ["format_version", "translator", "iterations", "trainable", "history", "warnings"])
def test_an_adaptation_without_a_fact_is_refused(key, folder, bundle, refused):
    edit_meta(folder, remove=[key])
    with refused(BundleError, "adaptation.json", "damaged", "featlab adapt"):
        load_adaptation(folder, bundle)


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}"])
def test_an_adaptation_described_by_something_else_is_refused(content, folder, bundle, refused):
    (folder / "adaptation.json").write_text(content)
    with refused(BundleError, "adaptation.json", "damaged"):
        load_adaptation(folder, bundle)


def test_an_adaptation_of_a_newer_format_is_refused(folder, bundle, refused):
    edit_meta(folder, format_version=ADAPTATION_FORMAT + 1)
    with refused(BundleError, "newer", "update featlab"):
        load_adaptation(folder, bundle)


@pytest.mark.parametrize("kind", ["nothing", "none", "translator"])
def test_an_adaptation_whose_tensors_do_not_fit_is_refused(kind, folder, bundle, refused):
    edit_meta(folder, translator=kind)
    with refused(BundleError, "does not fit its bundle", "featlab adapt again"):
        load_adaptation(folder, bundle)


def edit_tensors(folder, **changes):
    path = folder / "adaptation.safetensors"
    save_file(load_file(path) | changes, path)


@pytest.mark.parametrize("name", ["other", "projection.mean", "head.linear.weight"])
def test_an_adaptation_with_a_tensor_that_is_not_its_own_is_refused_and_the_bundle_stays(name, folder, bundle, refused):
    before = bundle.projection.mean.clone()
    edit_tensors(folder, **{name: torch.full((bundle.projection.mean.shape[0],), 7.0)})
    with refused(BundleError, "does not fit its bundle"):
        load_adaptation(folder, bundle)
    assert torch.equal(bundle.projection.mean, before)


def test_an_adaptation_that_is_not_finite_is_refused(folder, bundle, refused):
    edit_tensors(folder, **{"translator.bias": torch.full((8,), float("nan"))})
    with refused(BundleError, "translator.bias", "NaN"):
        load_adaptation(folder, bundle)


def test_an_adaptation_of_another_width_is_refused(folder, bundle, refused):
    edit_tensors(folder, **{"translator.weight": torch.eye(7), "translator.bias": torch.zeros(7)})
    with refused(BundleError, "does not fit its bundle"):
        load_adaptation(folder, bundle)


def test_an_adaptation_of_another_bundle_is_refused(folder, table, small_bundle, refused):
    other = small_bundle(table.without("s05"), methods=NAMES, seed=1)
    with refused(BundleError, "another bundle", "featlab adapt again"):
        load_adaptation(folder, other)


@pytest.mark.parametrize("part", ["translator", "head"])
def test_a_model_that_can_not_be_read_back_is_not_written(part, tmp_path, bundle, refused):
    deep = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model = (
        PersonalModel(bundle.projection, deep, bundle.head)
        if part == "translator"
        else PersonalModel(bundle.projection, Affine.shift(torch.zeros(8)), deep)
    )
    with refused(InputError, "Sequential", "can't be stored"):
        save_adaptation(tmp_path / "s05", bundle, AdaptedModel(model), {})
    assert not (tmp_path / "s05").exists()


@pytest.mark.parametrize(
    "subject",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "a\\b",
        "a\0b",
        "x" * 300,
        "語" * 80,
        "𝒳" * 79,
        "a b",
        "CON",
        "nul",
        "-",
        "é\n",
    ],
)
def test_an_unsafe_name_stays_inside_the_folder_of_subjects(subject, tmp_path):
    folder = adaptation_folder(tmp_path, subject)
    assert folder.parent == tmp_path / "subjects"
    assert folder.resolve().parent == (tmp_path / "subjects").resolve()
    assert folder.name.lower() not in ("con", "nul")
    folder.mkdir(parents=True)
    assert folder.is_dir()


@pytest.mark.parametrize("subject", ["s041", "S041", "Person_3-b", "7"])
def test_a_plain_name_is_the_folders_name(subject, tmp_path):
    assert adaptation_folder(tmp_path, subject) == tmp_path / "subjects" / subject


def test_different_names_have_different_folders(tmp_path):
    names = ["a/b", "a\\b", "a b", "a_b", "", ".", "..", "Zoë", "Zoe", "x" * 300, "x" * 301]
    assert len({adaptation_folder(tmp_path, name).name.lower() for name in names}) == len(names)

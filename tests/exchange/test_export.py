"""Models are folded without a change; each format is written, read by its own runtime, and gives our logits."""

import json
import sys
from dataclasses import replace
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from featlab import ExtractorInfo
from featlab.errors import BundleError, ConfigError, FeatlabError, InputError
from featlab.exchange.export import ExportMismatch, export_model, exportable_network, format_of
from featlab.exchange.formats import FORMATS, NetworkWithHead, export_metadata, fold
from featlab.extraction.backbones import APPENDED, InputSpec, NetworkOptions, make_backbone
from featlab.extraction.backbones.network import module_backbone
from featlab.methods import base_model, get_method, make_method, method_names
from featlab.model.networks import PersonalModel
from featlab.protocol.splits import target_of
from featlab.workspace.predict_images import check_backbone

no_onnx = pytest.mark.skipif(find_spec("onnxscript") is None, reason="the extra `onnx` is not installed")
both = pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=no_onnx)])


def holds_no_row(path, person):
    """Whether no row of the person can be found in the file."""
    data = path.read_bytes()
    return not any(row[:4].tobytes() in data for row in person.embeddings)


@pytest.fixture(scope="module")
def person(people):
    """Rows of s04: 12 values, classes (anger, neutral, disgust)."""
    return people(subjects=5, classes=3, frames=8).rows_of("s04")


@pytest.fixture(scope="module")
def bundle(people, small_bundle):
    """Of four others, prepared for every method."""
    return small_bundle(people(subjects=4, classes=3, frames=8), methods=method_names())


@pytest.fixture(scope="module")
def adapted(bundle, person):
    """``adapted("pft")``: the person's model by one method, in 100 steps at most; not to be changed."""

    def adapt(name):
        steps = getattr(get_method(name).config_type(), "iterations", 0)
        method = make_method(name, {name: {"iterations": 100}} if steps > 100 else None)
        if get_method(name).needs_labels:
            return method.adapt(bundle, target_of(person), labels=person.label).model
        return method.adapt(bundle, target_of(person.take(person.label == person.neutral_code))).model

    return cache(adapt)


@pytest.fixture
def exported(tmp_path, bundle, person, adapted):
    """``exported("pt2", method="pft")``: the person's model, the file it went into, and the report."""

    def export(format, method="pft"):
        metadata = export_metadata(bundle, subject="s04", method=method)
        model, path = adapted(method), tmp_path / f"head.{format}"
        return model, path, export_model(model, path, format, metadata, embeddings=person.embeddings)

    return export


@pytest.mark.parametrize("method", [name for name in method_names() if not get_method(name).needs_source])
def test_every_method_s_model_exports_as_tensors_that_numpy_can_compute(exported, person, method):
    model, path, report = exported("safetensors", method)
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["featlab"])
    y = person.embeddings - tensors["mean"]
    logits = y @ tensors["direct_weight"] + tensors["direct_bias"]
    if "hidden_weight" in tensors:
        hidden = np.maximum(y @ tensors["hidden_weight"] + tensors["hidden_bias"], 0)
        logits = logits + hidden @ tensors["out_weight"]
    with torch.no_grad():
        ours = model(torch.from_numpy(person.embeddings)).numpy()
    np.testing.assert_allclose(logits, ours, atol=2e-5, rtol=1e-5)
    assert (metadata["method"], metadata["subject"]) == (method, "s04")
    assert metadata["classes"] == ["anger", "neutral", "disgust"]
    assert report.rows == len(person)
    assert 0 <= report.difference < 1e-4
    assert holds_no_row(path, person)


@both
def test_a_program_gives_our_logits_and_probabilities_for_any_number_of_rows(exported, person, format, capfd):
    model, path, report = exported(format)
    assert capfd.readouterr() == ("", "")
    run, text = FORMATS[format][1](path)
    for count in (1, 7, len(person)):
        rows = torch.from_numpy(person.embeddings[:count])
        with torch.no_grad():
            outputs, ours = run(rows), model(rows)
        torch.testing.assert_close(outputs["logits"], ours, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(outputs["probabilities"], torch.softmax(ours, dim=1), atol=1e-5, rtol=1e-5)
    assert json.loads(text) == json.loads(json.dumps(report.metadata))
    assert holds_no_row(path, person)


def test_a_file_that_computes_something_else_or_lost_its_metadata_is_not_kept(tmp_path, exported, monkeypatch, refused):
    path, (write, load) = tmp_path / "head.safetensors", FORMATS["safetensors"]
    path.write_bytes(b"an older export")

    def spoilt(partial, module, example, text):
        module.direct_bias += 0.001
        write(partial, module, example, text)

    for written, *words in (
        (spoilt, "safetensors", "1.0e-03"),
        (lambda *given: write(*given[:3], '{"classes": []}'), "does not read back"),
    ):
        monkeypatch.setitem(FORMATS, "safetensors", (written, load))
        with refused(ExportMismatch, *words):
            exported("safetensors")
    assert path.read_bytes() == b"an older export"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_wide_ill_scaled_model_stays_within_the_tolerance(people, small_bundle):
    # 600 values far from zero, as pooled features are: rounding that folding adds would show here.
    table = people(subjects=5, classes=3, frames=8, dim=600)
    table.embeddings[:] *= 30
    model, rows = base_model(small_bundle(table)), torch.from_numpy(table.embeddings)
    with torch.no_grad():
        torch.testing.assert_close(fold(model)(rows)["logits"], model(rows), atol=1e-4, rtol=1e-4)


def network(module):
    return module_backbone("net", module, NetworkOptions(), InputSpec(16), id="net", weights="w")


class Pool(nn.Module):
    """A little network whose embedding is 12 wide."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.conv, self.bn = nn.Conv2d(3, 12, 3, 2), nn.BatchNorm2d(12)
            self.bn.running_mean.uniform_(-1, 1)
        self.eval()

    def forward(self, images):
        maps = torch.relu(self.bn(self.conv(images)))
        return maps.mean(dim=(2, 3))


class Branching(Pool):
    def forward(self, images):
        return super().forward(images if images.sum() > 0 else -images)


def test_what_can_not_be_exported_is_refused(tmp_path, bundle, monkeypatch, refused):
    (tmp_path / "file").write_text("")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    for name, format, options, error, *words in (
        ("a.pt2", "pt2", {"embeddings": np.zeros((3, 5), np.float32)}, InputError, "(3, 5)", "(n, 12)"),
        ("a.onnx", "onnx", {}, ConfigError, "onnxscript", "featlab[onnx]"),
        ("file/a.safetensors", "safetensors", {}, FeatlabError, "can't be written"),
        ("a.safetensors", "safetensors", {"network": network(Pool())}, InputError, "holds tensors", "onnx or pt2"),
        ("a.pt2", "pt2", {"network": network(Branching())}, InputError, "can't be exported as pt2", "'net'"),
    ):
        with refused(error, *words):
            export_model(base_model(bundle), tmp_path / name, format, {}, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for translator, head, name in ((nn.Sequential(), bundle.head, "Sequential"), (None, nn.Tanh(), "Tanh")):
        with refused(InputError, name, "can't be exported"):
            fold(PersonalModel(bundle.projection, translator, head))
    # The suffix says the format unless one is named.
    assert [format_of(tmp_path / "a.PT2"), format_of(tmp_path / "a.bin", "pt2")] == ["pt2", "pt2"]
    for name, format, *words in (("model.bin", None, ".onnx", "--format"), ("model", "onx", "did you mean 'onnx'")):
        with refused(ConfigError, *words):
            format_of(tmp_path / name, format)


IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@both
def test_with_a_backbone_images_go_in(tmp_path, bundle, person, adapted, format):
    model, backbone, path = adapted("pft"), network(Pool()), tmp_path / f"whole.{format}"
    if format == "pt2":
        batch = {"images": {0: torch.export.Dim.DYNAMIC}}
        torch.export.save(torch.export.export(Pool(), (IMAGES[:2],), dynamic_shapes=batch), tmp_path / "net.pt2")
        backbone = make_backbone(f"pt2:{tmp_path / 'net.pt2'}", device="cpu")
    metadata = export_metadata(bundle, subject="s04", method="pft", network=backbone)
    report = export_model(model, path, format, metadata, embeddings=person.embeddings, network=backbone)
    assert (report.rows, report.random_rows) == (0, 3)
    assert (report.metadata["input"], report.metadata["images"]["size"]) == ("images", 16)
    with torch.no_grad():
        ours = model(Pool()(IMAGES))
    torch.testing.assert_close(FORMATS[format][1](path)[0](IMAGES)["logits"], ours, atol=1e-4, rtol=1e-4)


def test_statistics_that_a_backbone_appends_are_exported_and_make_another_backbone():
    backbone = module_backbone("net", Pool(), NetworkOptions(layers=("conv",)), InputSpec(16), id="net", weights="w")
    made, ours = exportable_network(backbone, backbone.info()), backbone.network(IMAGES)
    assert ours.shape == (5, 12 + 2 * 12)
    module = NetworkWithHead(made.network, nn.Identity())
    program = torch.export.export(module, (IMAGES[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.testing.assert_close(program.module()(IMAGES), ours)
    made = ExtractorInfo("net", "w", f"RGB 16x16, {APPENDED}", layers=("conv",))
    check_backbone(made, replace(made, versions={"torch": "3"}))
    with pytest.raises(BundleError, match=r"preprocessing 'RGB 16x16' for 'RGB .*; layers \[\] for \['conv'\]"):
        check_backbone(made, ExtractorInfo("net", "w", "RGB 16x16"))

"""Models are folded without a change; each format is written, read by its own runtime, and gives our logits."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from featlab import ExtractorInfo
from featlab.errors import BundleError, ConfigError, FeatlabError, InputError
from featlab.exchange import formats
from featlab.exchange.export import ExportMismatch, export_model, exportable_network, format_of
from featlab.exchange.formats import ImageNetwork, export_metadata, fold
from featlab.extraction.backbones import APPENDED, InputSpec, NetworkOptions
from featlab.extraction.backbones.network import module_backbone
from featlab.methods import base_model, get_method, make_method, method_names
from featlab.model.networks import PersonalModel
from featlab.protocol.splits import target_of
from featlab.workspace.predict_images import check_backbone


def needs(name):
    for module in ("onnxruntime", "onnxscript") if name == "onnx" else ():
        pytest.importorskip(module, reason="the extra `onnx` is not installed")


def holds_no_row(path, person):
    """Whether no row of the person can be found in the file."""
    data = path.read_bytes()
    return not any(row[:4].tobytes() in data for row in person.embeddings)


@pytest.fixture
def exported(tmp_path, bundle, person, adapted):
    """``exported("pt2", method="pft")``: the person's model, the file it went into, and the report."""

    def export(format, method="pft"):
        metadata = export_metadata(bundle, subject="s04", method=method)
        path = tmp_path / f"head.{format}"
        model = adapted(method)
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


@pytest.mark.parametrize(
    ("format", "method"), [("pt2", "pft"), ("pt2", "source-only"), ("onnx", "pft"), ("onnx", "coral")]
)
def test_a_program_gives_our_logits_and_probabilities_for_any_number_of_rows(exported, person, format, method, capfd):
    needs(format)
    model, path, report = exported(format, method)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    if format == "pt2":
        extra = {"featlab.json": ""}
        run = torch.export.load(path, extra_files=extra).module()
        metadata = extra["featlab.json"]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map["featlab"]
        names = ["logits", "probabilities"]

        def run(rows):
            found = session.run(names, {"embeddings": rows.numpy()})
            return dict(zip(names, map(torch.from_numpy, found), strict=True))

    for count in (1, 2, 7, len(person)):
        rows = torch.from_numpy(person.embeddings[:count])
        with torch.no_grad():
            outputs, ours = run(rows), model(rows)
        torch.testing.assert_close(outputs["logits"], ours, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(outputs["probabilities"], torch.softmax(ours, dim=1), atol=1e-5, rtol=1e-5)
    assert json.loads(metadata) == json.loads(json.dumps(report.metadata))
    assert holds_no_row(path, person)


@pytest.mark.parametrize("format", ["safetensors", "onnx", "pt2"])
def test_a_file_that_computes_something_else_or_lost_its_metadata_is_not_kept(
    tmp_path, exported, monkeypatch, format, refused
):
    needs(format)
    path, write = tmp_path / f"head.{format}", getattr(formats, f"write_{format}")
    path.write_bytes(b"an older export")

    def spoilt(partial, module, example, text):
        module.direct_bias += 0.001
        write(partial, module, example, text)

    monkeypatch.setattr(formats, f"write_{format}", spoilt)
    with refused(ExportMismatch, format, "1.0e-03"):
        exported(format)
    monkeypatch.setattr(formats, f"write_{format}", lambda *words: write(*words[:3], '{"classes": []}'))
    with refused(ExportMismatch, "does not read back"):
        exported(format)
    assert path.read_bytes() == b"an older export"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_wide_ill_scaled_model_stays_within_the_tolerance(tmp_path, people, small_bundle):
    # 600 values far from zero, as pooled features are: rounding that folding adds would show here.
    table = people(subjects=5, classes=3, frames=8, dim=600)
    table.embeddings[:] *= 30
    bundle, person = small_bundle(table.without("s04")), table.rows_of("s04")
    neutral = target_of(person.take(person.label == person.neutral_code))
    model = make_method("pft").adapt(bundle, neutral).model
    metadata = export_metadata(bundle, subject="s04", method="pft")
    report = export_model(model, tmp_path / "head.safetensors", "safetensors", metadata, embeddings=person.embeddings)
    assert report.difference < 1e-4


def test_the_suffix_says_the_format_unless_one_is_named(tmp_path, monkeypatch, refused):
    monkeypatch.setattr("featlab.exchange.export.check_onnx", lambda: None)
    for name, format in (("a.onnx", None), ("a.PT2", None), ("a.safetensors", None), ("a.bin", "pt2")):
        assert format_of(tmp_path / name, format) == (format or name[2:].lower())
    with refused(ConfigError, ".onnx", "--format"):
        format_of(tmp_path / "model.bin")
    with refused(ConfigError, "did you mean 'onnx'"):
        format_of(tmp_path / "model", "onx")


def test_what_can_not_be_exported_is_refused(tmp_path, bundle, monkeypatch, refused):
    class Branching(Pool):
        def forward(self, images):
            return super().forward(images if images.sum() > 0 else -images)

    (tmp_path / "file").write_text("")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    for name, format, options, error, *words in (
        ("a.pt2", "pt2", {"embeddings": np.zeros((3, 5), np.float32)}, InputError, "(3, 5)", "(n, 12)"),
        ("a.onnx", "onnx", {}, ConfigError, "onnxscript", "featlab[onnx]"),
        ("file/a.safetensors", "safetensors", {}, FeatlabError, "can't be written"),
        ("a.safetensors", "safetensors", {"network": network(Pool())}, InputError, "holds tensors", "onnx or pt2"),
        ("a.pt2", "pt2", {"network": network(Branching())}, InputError, "can't be exported as pt2", "'pt2:net.pt2'"),
    ):
        with refused(error, *words):
            export_model(base_model(bundle), tmp_path / name, format, {}, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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


def network(module):
    return ImageNetwork("pt2:net.pt2", module, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "RGB 16x16")


IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("format", ["onnx", "pt2"])
@pytest.mark.parametrize("again", [False, True], ids=["written", "loaded from a pt2 file"])
def test_with_a_backbone_images_go_in(tmp_path, bundle, person, adapted, format, again):
    needs(format)
    model, backbone = adapted("pft"), network(Pool())
    if again:
        batch = {"images": {0: torch.export.Dim.DYNAMIC}}
        torch.export.save(torch.export.export(Pool(), (IMAGES[:2],), dynamic_shapes=batch), tmp_path / "backbone.pt2")
        backbone = network(torch.export.load(tmp_path / "backbone.pt2").module())
    metadata = export_metadata(bundle, subject="s04", method="pft", network=backbone.input_metadata())
    path = tmp_path / f"net.{format}"
    report = export_model(model, path, format, metadata, embeddings=person.embeddings, network=backbone)
    assert (report.rows, report.random_rows) == (0, 3)
    assert (report.metadata["input"], report.metadata["images"]["size"]) == ("images", 16)
    with torch.no_grad():
        ours = model(Pool()(IMAGES))
    run, _ = (formats.run_onnx if format == "onnx" else formats.run_pt2)(path)
    torch.testing.assert_close(run(IMAGES), ours, atol=1e-4, rtol=1e-4)


def test_statistics_that_a_backbone_appends_are_exported_and_an_older_bundle_knows_it_without_layers():
    backbone = module_backbone("net", Pool(), NetworkOptions(layers=("conv",)), InputSpec(16), id="net", weights="w")
    made, ours = exportable_network(backbone, backbone.info()), backbone.network(IMAGES)
    assert ours.shape == (5, 12 + 2 * 12)
    program = torch.export.export(made.module, (IMAGES[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.testing.assert_close(program.module()(IMAGES), ours)
    made = ExtractorInfo("net", "w", f"RGB 16x16, {APPENDED}", layers=("conv",))
    older = ExtractorInfo("net", "w", "RGB 16x16", layers=("conv",))
    check_backbone(older, replace(older, layers=()))
    for wanted, other in ((older, made), (made, older), (made, replace(older, layers=()))):
        with pytest.raises(BundleError, match="preprocessing 'RGB 16x16"):
            check_backbone(wanted, other)


def test_folding_changes_nothing_of_the_model_and_parts_that_no_method_makes_are_refused(adapted, bundle, refused):
    model = adapted("pft")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fold(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for translator, head, name in ((nn.Sequential(), bundle.head, "Sequential"), (None, nn.Tanh(), "Tanh")):
        with refused(InputError, name, "can't be exported"):
            fold(PersonalModel(bundle.projection, translator, head))

"""The same small network as a module, as ``.pt2`` and as ONNX; featlab's own files and other people's."""

import json
import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import InputSpec, NetworkOptions, make_backbone
from featlab.extraction.backbones.network import module_backbone
from featlab.extraction.backbones.weights import built
from featlab.extraction.training.export import BackboneMeta, export_backbone

SIZE, MEAN, STD = 20, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
LAYERS = ("stem", "body.0")
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, 2)
        self.norm = nn.BatchNorm2d(5)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.body = nn.Sequential(nn.Conv2d(5, 7, 3), nn.ReLU(inplace=True))

    def forward(self, images):
        return self.body(self.norm(self.stem(images)).relu()).mean(dim=(2, 3))


def network():
    return built(Small).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """``files("own.pt2")``: the small network in a file of featlab's or, foreign or fixed, of torch's own exporter."""
    folder = tmp_path_factory.mktemp("exported")

    def make(name):
        path = folder / name
        if path.suffix == ".onnx":
            pytest.importorskip("onnxscript", reason="needs the extra onnx")
        if not path.exists() and path.stem == "own":
            meta = BackboneMeta(size=SIZE, id="small", layers=LAYERS, mean=MEAN, std=STD)
            assert 0 <= export_backbone(network(), path, meta) <= 1e-5
        elif not path.exists():
            shapes = ({0: torch.export.Dim("n", min=1)},) if path.stem == "foreign" else None
            images = torch.zeros(2, 3, SIZE, SIZE)
            torch.export.save(torch.export.export(network(), (images,), dynamic_shapes=shapes, strict=False), path)
        return path

    return make


def backbone(path, **options):
    return make_backbone(f"{path.suffix[1:]}:{path}", **options)


IMAGES = list(np.random.default_rng(0).integers(0, 256, (5, 33, 37, 3), dtype=np.uint8))


def hooked(mean=MEAN, std=STD, layers=LAYERS):
    options = NetworkOptions(layers=layers)
    return module_backbone("small", network(), options, InputSpec(SIZE, mean, std), id="small", weights="w")


@pytest.mark.parametrize("name", ["own.pt2", "own.onnx"])
def test_a_file_of_featlab_gives_what_the_module_with_hooks_gives(files, tmp_path, name):
    for layers in (LAYERS, ("body.0",), ()):
        made = backbone(files(name), layers=layers)
        assert made.info().layers == layers
        np.testing.assert_allclose(made.embed(IMAGES, None), hooked(layers=layers).embed(IMAGES, None), atol=1e-5)
    alone = np.concatenate([made.embed([image], None) for image in IMAGES])
    np.testing.assert_allclose(alone, made.embed(IMAGES, None), atol=1e-6)
    # It says its own input, and no path is in its identity.
    info = made.info()
    assert info.id == Path(name).suffix[1:]
    assert info.preprocessing == "RGB, centre square, 20x20 bilinear, mean 0.4 0.5 0.6, std 0.2 0.25 0.3"
    moved = Path(shutil.copy(files(name), tmp_path / name.replace("own", "renamed")))
    assert backbone(moved).info().fingerprint == info.fingerprint
    assert backbone(moved, size=SIZE, mean=MEAN, crop=0.9).info().fingerprint != info.fingerprint


def test_other_peoples_files_take_their_size_from_the_file_and_the_rest_from_options(files):
    for name in ("foreign.pt2", "fixed.pt2"):
        made = backbone(files(name), mean=MEAN, std=STD)
        np.testing.assert_allclose(made.embed(IMAGES, None), hooked(layers=()).embed(IMAGES, None), atol=1e-5)
        assert "20x20" in made.info().preprocessing
        assert backbone(files(name)).info().preprocessing.endswith("mean 0.485 0.456 0.406, std 0.229 0.224 0.225")


def test_options_that_do_not_fit_a_file_say_so(files, refused):
    for name, options, says in (
        ("own.pt2", {"layers": "stm"}, "has no layer 'stm'; did you mean 'stem'"),
        ("foreign.pt2", {"layers": "stem"}, "has no layer 'stem' (it has: none that can be tapped)"),
        ("own.pt2", {"size": 32}, "was made for size 20; leave out the option size (32)"),
        ("foreign.pt2", {"size": 32}, "was exported for 20x20 images"),
        ("own.pt2", {"weights": "w.pt"}, "the weights are in its file; leave out --weights w.pt"),
        ("own.pt2", {"output": "x"}, "unknown key"),
        ("own.onnx", {"mean": 0.5}, "was made for mean"),
        ("own.onnx", {"weights": "w.pt"}, "the weights are in its file"),
        ("own.onnx", {"amp": True}, "no mixed precision"),
    ):
        with refused(ConfigError, says):
            backbone(files(name), **options)


def test_a_description_that_is_wrong_is_one_line(files, tmp_path, refused):
    extra = {"featlab.json": ""}
    program = torch.export.load(files("own.pt2"), extra_files=extra)
    right = json.loads(extra["featlab.json"])
    for change, error, says in (
        ({"format": "other"}, InputError, "its format is 'other'"),
        ({"format_version": 2}, InputError, "a backbone of format 2, and this featlab reads up to 1; update it"),
        ({"size": None}, InputError, "no 'size'"),
        ({"mean": [0.5]}, InputError, "what it says of itself can't be read"),
        ({"layers": [3]}, InputError, "layers are names"),
        ({"std": [0, 1, 1]}, InputError, "std positive"),
        ({"size": 32}, ConfigError, "was exported for 20x20 images"),
        ({"layers": ["stem", "head"]}, ConfigError, "layers.head.mean"),
        ({"card": {"source_subjects": 3}}, InputError, "an iterable"),
    ):
        card = {key: value for key, value in (right | change).items() if value is not None}
        torch.export.save(program, tmp_path / "p.pt2", extra_files={"featlab.json": json.dumps(card)})
        with refused(error, says):
            backbone(tmp_path / "p.pt2", layers="head" if "head" in card["layers"] else ())


def test_a_file_that_holds_no_network_is_one_line(files, tmp_path, refused):
    whole, path = files("own.pt2").read_bytes(), tmp_path / "p.pt2"
    onnx = (("gone.onnx", None), ("p.onnx", b"nothing of the kind")) if find_spec("onnxruntime") else ()
    for name, content in (
        *(("gone.pt2", None), ("p.pt2", b""), ("p.pt2", whole[: len(whole) // 2]), ("p.pt2", whole[:-10])),
        *onnx,
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with refused(InputError, str(tmp_path / name)):
            backbone(tmp_path / name)
    torch.save(network().state_dict(), path)
    with refused(InputError, "isn't a program that torch.export.save wrote; weights alone go with --weights"):
        backbone(path)
    torch.export.save(torch.export.export(nn.Flatten(), (torch.zeros(2, 1, 8, 8),)), path)
    with refused(ConfigError, "has an input (2, 1, 8, 8); a backbone takes one batch of square images"):
        backbone(path)


def test_pickled_objects_in_a_program_are_refused_and_never_run(files, tmp_path):
    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (ran,)

    torch.save((Hostile(),), tmp_path / "hostile.pt")
    hostile = (tmp_path / "hostile.pt").read_bytes()
    for replaced, added in (("data/sample_inputs/model.pt", None), (None, "data/constants/opaque_obj_0")):
        path = tmp_path / "p.pt2"
        with zipfile.ZipFile(files("own.pt2")) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                target.writestr(name, hostile if replaced and name.endswith(replaced) else source.read(name))
            root = source.namelist()[0].split("/")[0]
            if added:
                target.writestr(f"{root}/{added}", hostile)
        with pytest.raises(InputError):
            backbone(path)
        assert not ran.exists()


def test_without_the_extra_the_line_names_it(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "onnxruntime", sys)
    for package, says in (("onnx", "need onnx:"), ("onnxruntime", "need onnxruntime:")):
        monkeypatch.setitem(sys.modules, package, None)
        with refused(ConfigError, says, "pip install 'featlab[onnx]'"):
            make_backbone("onnx:gone.onnx")

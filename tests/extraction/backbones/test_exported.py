"""The same small network as a module, as ``.pt2`` and as ONNX; featlab's own files and other people's."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featlab.cache import open_cache
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.backbones import Backbone, InputSpec, NetworkOptions, make_backbone
from featlab.extraction.backbones.network import channel_statistics, module_backbone
from featlab.extraction.backbones.weights import seeded
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.layouts import read_layout

SIZE, MEAN, STD = 20, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
LAYERS = ("stem", "body.0")
CARD: dict[str, Any] = {
    "format": "featlab-backbone",
    "format_version": 1,
    "size": SIZE,
    "mean": list(MEAN),
    "std": list(STD),
    "layers": list(LAYERS),
    "dim": 7,
    "id": "small",
    "card": {},
}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, 2)
        self.norm = nn.BatchNorm2d(5)
        self.body = nn.Sequential(nn.Conv2d(5, 7, 3), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.body(self.norm(self.stem(images)).relu())
        return maps.mean(dim=(2, 3))


class Contract(nn.Module):
    """Returns the outputs of a backbone file, its statistics computed apart from featlab's."""

    def __init__(self, network: Small) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stem = self.network.stem(images)
        first = self.network.body[0](self.network.norm(stem).relu())
        outputs = {"embedding": first.relu().mean(dim=(2, 3))}
        for name, maps in (("stem", stem), ("body.0", first)):
            outputs[f"layers.{name}.mean"] = maps.mean(dim=(2, 3))
            outputs[f"layers.{name}.std"] = maps.var(dim=(2, 3), correction=0).sqrt()
        return outputs


class Maps(Contract):
    """Returns the layers' maps themselves."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stem = self.network.stem(images)
        return {"embedding": self.network(images), "stem": stem, "flat": stem.mean(dim=(2, 3))}


def network() -> Small:
    return seeded(Small).eval()


def program(module: nn.Module, batch: int = 2, *, dynamic: bool = True) -> Any:
    shapes = ({0: torch.export.Dim("n", min=1)},) if dynamic else None
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(
            module.eval(), (torch.zeros(batch, 3, SIZE, SIZE),), dynamic_shapes=shapes, strict=False
        )


def save_pt2(path: Path, module: nn.Module, **more: Any) -> Path:
    torch.export.save(program(module, **more), path)
    return path


@cache
def contract_program() -> Any:
    return program(Contract(network()))


def save_own(path: Path, card: dict[str, Any]) -> Path:
    torch.export.save(contract_program(), path, extra_files={"featlab.json": json.dumps(card)})
    return path


def save_onnx(
    path: Path,
    module: nn.Module,
    names: list[str],
    card: dict[str, Any] | None = None,
    *,
    dynamic: bool = True,
    external: bool = False,
) -> Path:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            module.eval(),
            (torch.zeros(2, 3, SIZE, SIZE),),
            dynamo=True,
            input_names=["images"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},) if dynamic else None,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    if card is not None:
        model.metadata_props.add(key="featlab", value=json.dumps(card))
    if external:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=256)
    else:
        onnx.save(model, str(path))
    return path


CONTRACT_NAMES = ["embedding", *(f"layers.{layer}.{part}" for layer in LAYERS for part in ("mean", "std"))]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes each file once: own, foreign, maps or fixed; ``.pt2`` or ``.onnx``."""
    folder = tmp_path_factory.mktemp("exported")
    makers: dict[str, Callable[[Path], Path]] = {
        "own.pt2": lambda path: save_own(path, CARD),
        "foreign.pt2": lambda path: save_pt2(path, network()),
        "maps.pt2": lambda path: save_pt2(path, Maps(network())),
        "fixed.pt2": lambda path: save_pt2(path, network(), batch=3, dynamic=False),
        "own.onnx": lambda path: save_onnx(path, Contract(network()), CONTRACT_NAMES, CARD),
        "foreign.onnx": lambda path: save_onnx(path, network(), ["vector"]),
        "maps.onnx": lambda path: save_onnx(path, Maps(network()), ["embedding", "stem", "flat"]),
        "fixed.onnx": lambda path: save_onnx(path, network(), ["embedding"], dynamic=False),
        "external.onnx": lambda path: save_onnx(path, network(), ["embedding"], external=True),
    }

    def make(name: str) -> Path:
        path = folder / name
        return path if path.exists() else makers[name](path)

    return make


def backbone(path: Path, **options: Any) -> Backbone:
    return make_backbone(f"{path.suffix[1:]}:{path}", **options)


def images(count: int = 5, size: int = 33) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size + 4, 3), dtype=np.uint8))


def hooked(mean: Any = MEAN, std: Any = STD, layers: tuple[str, ...] = LAYERS) -> Backbone:
    options = NetworkOptions(layers=layers)
    return module_backbone("small", network(), options, InputSpec(SIZE, mean, std), id="small", weights="w")


@pytest.mark.parametrize("name", ["own.pt2", "own.onnx"])
def test_a_file_of_featlab_gives_what_the_module_with_hooks_gives(files: Callable[[str], Path], name: str) -> None:
    for layers in (LAYERS, ()):
        made = backbone(files(name), layers=layers)
        assert made.info().layers == layers
        np.testing.assert_allclose(made.embed(images(), None), hooked(layers=layers).embed(images(), None), atol=1e-5)


@pytest.mark.parametrize("name", ["own.pt2", "own.onnx"])
def test_a_file_says_its_own_input_and_no_path_is_in_its_identity(
    files: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    info = backbone(files(name)).info()
    assert info.id == Path(name).suffix[1:]
    assert info.preprocessing == ("RGB, centre square, 20x20 bilinear, mean 0.4 0.5 0.6, std 0.2 0.25 0.3")
    shutil.copy(files(name), tmp_path / name.replace("own", "renamed"))
    assert backbone(tmp_path / name.replace("own", "renamed")).info().fingerprint == info.fingerprint
    assert backbone(files(name), size=SIZE, mean=MEAN, crop=0.9).info().fingerprint != info.fingerprint


@pytest.mark.parametrize("name", ["own.pt2", "own.onnx"])
def test_some_layers_or_none_can_be_chosen(files: Callable[[str], Path], name: str) -> None:
    assert backbone(files(name), layers="body.0").info().layers == ("body.0",)
    one = backbone(files(name), layers="body.0").embed(images(), None)
    np.testing.assert_allclose(one, hooked(layers=("body.0",)).embed(images(), None), atol=1e-5)
    for made in (backbone(files(name)), backbone(files(name), layers="none")):
        assert made.info().layers == ()
        np.testing.assert_allclose(made.embed(images(), None), hooked(layers=()).embed(images(), None), atol=1e-5)


@pytest.mark.parametrize("name", ["own.pt2", "own.onnx"])
def test_rows_do_not_depend_on_the_batch(files: Callable[[str], Path], name: str) -> None:
    made = backbone(files(name), layers="stem")
    together = made.embed(images(), None)
    for row, image in enumerate(images()):
        np.testing.assert_allclose(made.embed([image], None)[0], together[row], atol=1e-6)


@pytest.mark.parametrize("name", ["foreign.pt2", "foreign.onnx", "fixed.pt2", "fixed.onnx", "external.onnx"])
def test_other_peoples_files_take_their_size_from_the_file_and_the_rest_from_options(
    files: Callable[[str], Path], name: str
) -> None:
    made = backbone(files(name), mean=MEAN, std=STD)
    np.testing.assert_allclose(made.embed(images(), None), hooked(layers=()).embed(images(), None), atol=1e-5)
    assert "20x20" in made.info().preprocessing
    assert backbone(files(name)).info().preprocessing.endswith("mean 0.485 0.456 0.406, std 0.229 0.224 0.225")


@pytest.mark.parametrize("name", ["foreign.pt2", "fixed.pt2"])
def test_layers_of_other_peoples_programs_are_hooked(files: Callable[[str], Path], name: str) -> None:
    output = backbone(files(name), mean=MEAN, std=STD, layers=LAYERS).embed(images(), None)
    np.testing.assert_allclose(output, hooked().embed(images(), None), atol=1e-5)


def test_an_onnx_output_with_a_map_is_a_layer(files: Callable[[str], Path]) -> None:
    output = backbone(files("maps.onnx"), mean=MEAN, std=STD, layers="stem").embed(images(), None)
    np.testing.assert_allclose(output, hooked(layers=("stem",)).embed(images(), None), atol=1e-5)
    named = backbone(files("maps.onnx"), output="flat")
    assert named.embed(images(), None).shape == (5, 5)
    assert named.info().preprocessing.endswith(", output flat")


def test_weights_beside_an_onnx_file_are_part_of_its_hash(files: Callable[[str], Path], tmp_path: Path) -> None:
    path = files("external.onnx")
    for source in (path, path.with_name("external.onnx.data")):
        shutil.copy(source, tmp_path / source.name)
    before = backbone(tmp_path / path.name).info().weights
    data = bytearray((tmp_path / "external.onnx.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "external.onnx.data").write_bytes(data)
    assert backbone(tmp_path / path.name).info().weights != before


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("own.pt2", {"layers": "stm"}, "has no layer 'stm'; did you mean 'stem'"),
        ("own.onnx", {"layers": "stm"}, "has no layer 'stm'; did you mean 'stem'"),
        ("foreign.pt2", {"layers": "stm"}, "has no layer 'stm'; did you mean 'stem'"),
        ("foreign.onnx", {"layers": "stem"}, r"has no layer 'stem' \(it has: vector\)"),
        ("maps.onnx", {"layers": "flat"}, r"the output 'flat' \(2, 5\) has no positions"),
        ("own.pt2", {"size": 32}, r"was made for size 20; leave out the option size \(32\)"),
        ("own.onnx", {"mean": 0.5}, "was made for mean"),
        ("foreign.pt2", {"size": 32}, "was exported for 20x20 images"),
        ("foreign.onnx", {"size": 32}, "was exported for 20x20 images"),
        ("own.pt2", {"weights": "w.pt"}, "the weights are in its file; leave out --weights w.pt"),
        ("own.onnx", {"weights": "w.pt"}, "the weights are in its file"),
        ("own.onnx", {"amp": True}, "no mixed precision"),
        ("maps.onnx", {"output": "x"}, r"no output 'x' \(it has: embedding, stem, flat\)"),
        ("own.pt2", {"output": "x"}, "unknown key .*output"),
    ],
)
def test_options_that_do_not_fit_a_file_say_so(
    files: Callable[[str], Path], name: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        backbone(files(name), **options)


def test_an_onnx_file_with_several_vectors_asks_which_one(tmp_path: Path) -> None:
    class Two(Small):
        def forward(self, images: Tensor) -> Any:
            return super().forward(images), self.stem(images).mean(dim=(2, 3))

    path = save_onnx(tmp_path / "two.onnx", seeded(Two), ["a", "b"])
    with pytest.raises(ConfigError, match=r"2 outputs that may be the embedding \(a, b\); name one with the option"):
        backbone(path)


class Pairs(Small):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images), images


class Unpooled(Small):
    def forward(self, images: Tensor) -> Any:
        return self.stem(images)


class Grey(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("module", "says"), [(Pairs, "returned a tuple"), (Unpooled, r"returned float32 \(2, 5, 9, 9\) for 2 images")]
)
def test_a_program_that_returns_something_else_is_one_line(tmp_path: Path, module: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        backbone(save_pt2(tmp_path / "p.pt2", module()))


def test_a_program_that_takes_something_else_is_one_line(tmp_path: Path) -> None:
    exported = torch.export.export(Grey(), (torch.zeros(2, 1, 8, 8),))
    torch.export.save(exported, tmp_path / "p.pt2")
    with pytest.raises(ConfigError, match=r"has an input \(2, 1, 8, 8\); a backbone takes one batch of square images"):
        backbone(tmp_path / "p.pt2")


def _card(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (CARD | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("card", "error", "says"),
    [
        (_card(format="other"), InputError, "its format is 'other'"),
        (_card(format_version=2), InputError, "a backbone of format 2, and this featlab reads up to 1; update it"),
        (_card(size=None), InputError, "no 'size'"),
        (_card(mean=[0.5]), InputError, "what it says of itself can't be read"),
        (_card(layers=[3]), InputError, "layers are names"),
        (_card(std=[0, 1, 1]), InputError, "std positive"),
        (_card(size=32), ConfigError, "was exported for 20x20 images"),
    ],
)
def test_a_description_that_is_wrong_is_one_line(
    tmp_path: Path, card: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        backbone(save_own(tmp_path / "p.pt2", card))
    assert "\n" not in str(caught.value)


def test_a_layer_that_a_file_promises_and_lacks_is_one_line(tmp_path: Path) -> None:
    path = save_own(tmp_path / "p.pt2", _card(layers=["stem", "head"]))
    with pytest.raises(ConfigError, match="has no layer 'head'"):
        backbone(path, layers="head")


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04 cut off"])
def test_a_file_that_holds_no_network_is_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    path = tmp_path / f"p.{suffix}"
    with pytest.raises(InputError, match="no such file"):
        backbone(path)
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        backbone(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_weights_alone_are_told_from_a_program(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pt2")
    with pytest.raises(
        InputError, match=r"isn't a program that torch.export.save wrote; weights alone go with --weights"
    ):
        backbone(tmp_path / "w.pt2")


def test_a_truncated_program_is_one_line(files: Callable[[str], Path], tmp_path: Path) -> None:
    whole = files("own.pt2").read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 10):
        (tmp_path / "p.pt2").write_bytes(whole[:size])
        with pytest.raises(InputError) as caught:
            backbone(tmp_path / "p.pt2")
        assert "\n" not in str(caught.value)


def test_pickled_objects_in_a_program_are_refused_and_never_run(files: Callable[[str], Path], tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> Any:
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


@pytest.mark.parametrize(("package", "says"), [("onnxruntime", "onnxruntime"), ("onnx", "need onnx:")])
def test_without_the_extra_the_line_names_it(
    files: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, package: str, says: str
) -> None:
    path = files("own.onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{says}.*pip install 'featlab\[onnx\]'"):
        backbone(path)


@pytest.mark.parametrize("name", ["own.pt2", "own.onnx"])
def test_extract_writes_what_the_network_gives(
    files: Callable[[str], Path], tmp_path: Path, make_tree: Callable[..., Path], name: str
) -> None:
    items = read_layout("auto", make_tree(tmp_path / "faces"))
    (tmp_path / "faces" / "s0" / "neutral" / "img1.png").write_bytes(b"broken")
    made = backbone(files(name), layers=LAYERS)
    reports = [
        extract(items, made, tmp_path / f"{jobs}.h5", neutral="neutral", config=ExtractConfig(jobs=jobs, batch=4))
        for jobs in (1, 2)
    ]
    assert [failure.path for failure in reports[0].failures] == ["s0/neutral/img1.png"]
    assert reports[0].digest == reports[1].digest
    with open_cache(tmp_path / "1.h5", verify=True) as cache:
        table, stored = cache.read(), cache.extractor
    assert stored == made.info()
    assert stored.fingerprint == made.info().fingerprint
    kept = [item for item in items if item.name != "s0/neutral/img1.png"]
    assert table.paths == tuple(item.name for item in kept)
    from featlab.extraction.decode import decode_image

    pixels = [decode_image(item.path) for item in kept]
    np.testing.assert_allclose(table.embeddings, hooked().embed(pixels, None), atol=1e-5)


def test_statistics_of_the_contract_are_those_of_hooks() -> None:
    maps = torch.randn(2, 3, 4, 4)
    taken = channel_statistics(maps)
    assert taken is not None
    torch.testing.assert_close(taken[1], maps.var(dim=(2, 3), correction=0).sqrt())
    assert issubclass(InputError, FeatlabError)

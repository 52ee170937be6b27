"""transformers' networks from a folder that the test writes."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import make_backbone

transformers = pytest.importorskip("transformers", reason="transformers isn't installed (extra: hf)")

SIZE = 32
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "size": {"height": SIZE, "width": SIZE},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.6, 0.7],
    "resample": 2,
}


@pytest.fixture
def vit(tmp_path):
    """Saves a ViT of two blocks and returns its folder."""

    def make(*, pooler=True, processor=PROCESSOR, name="vit"):
        torch.manual_seed(0)
        config = transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=SIZE,
            patch_size=8,
        )
        transformers.ViTModel(config, add_pooling_layer=pooler).save_pretrained(tmp_path / name)
        if processor is not None:
            (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(processor))
        return tmp_path / name

    return make


def images(count=3, size=SIZE):
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def reference(folder, batch):
    """What the library's own processor and model give."""
    processor = transformers.AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
    model = transformers.AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
    with torch.no_grad():
        return model(processor(batch, return_tensors="pt")["pixel_values"])


def test_a_folder_gives_what_the_librarys_processor_and_model_give(vit):
    folder = vit()
    for batch in (images(), images(size=48)):
        expected = reference(folder, batch).pooler_output.numpy()
        backbone = make_backbone(f"hf:{folder}")
        np.testing.assert_allclose(backbone.embed(batch, None), expected, atol=2e-5)
    info = backbone.info()
    assert info.id == "hf:vit"
    assert info.preprocessing == (
        "RGB, centre square, 32x32 bilinear, mean 0.5 0.4 0.3, std 0.5 0.6 0.7, pooling pooler"
    )
    assert info.versions["transformers"] == transformers.__version__


def test_tokens_can_be_pooled_otherwise(vit):
    folder = vit()
    hidden = reference(folder, images()).last_hidden_state.numpy()
    for pooling, expected in (("cls", hidden[:, 0]), ("mean", hidden.mean(axis=1))):
        backbone = make_backbone(f"hf:{folder}", pooling=pooling)
        np.testing.assert_allclose(backbone.embed(images(), None), expected, atol=1e-5)
        assert backbone.info().fingerprint != make_backbone(f"hf:{folder}").info().fingerprint


def test_a_pooler_without_weights_in_the_folder_is_never_used(vit):
    folder = vit(pooler=False)
    backbone = make_backbone(f"hf:{folder}")
    assert backbone.info().preprocessing.endswith("pooling cls")
    first = backbone.embed(images(), None)
    np.testing.assert_array_equal(make_backbone(f"hf:{folder}").embed(images(), None), first)
    with pytest.raises(ConfigError, match="holds no weights of the pooler; choose pooling=cls"):
        make_backbone(f"hf:{folder}", pooling="pooler")


def test_layers_of_tokens_are_tapped(vit):
    folder = vit()
    names = [name for name, _ in transformers.AutoModel.from_pretrained(str(folder)).named_modules()]
    block = next(name for name in names if name.endswith(("layers.1", "layer.1")))
    plain = make_backbone(f"hf:{folder}").embed(images(), None)
    output = make_backbone(f"hf:{folder}", layers=(block, "layernorm")).embed(images(), None)
    hidden = reference(folder, images()).last_hidden_state.numpy()
    assert output.shape == (3, plain.shape[1] + 4 * 16)
    np.testing.assert_allclose(output[:, : plain.shape[1]], plain, atol=1e-6)
    np.testing.assert_allclose(output[:, -32:-16], hidden.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(output[:, -16:], hidden.std(axis=1), atol=1e-5)


def test_a_moved_folder_keeps_the_fingerprint_and_other_weights_change_it(vit, tmp_path):
    folder = vit()
    fingerprint = make_backbone(f"hf:{folder}").info().fingerprint
    folder.rename(tmp_path / "moved")
    assert make_backbone(f"hf:{tmp_path / 'moved'}").info().fingerprint == fingerprint
    weights = tmp_path / "moved" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert make_backbone(f"hf:{tmp_path / 'moved'}").info().fingerprint != fingerprint


def test_the_input_is_the_processors_or_imagenets(vit, refused):
    folder = vit(processor=None)
    assert "mean 0.485 0.456 0.406" in make_backbone(f"hf:{folder}", size=SIZE).info().preprocessing
    with refused(ConfigError, "can't embed images of 224x224", "option size"):
        make_backbone(f"hf:{folder}")
    crop = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "do_center_crop": True}
    folder = vit(processor=PROCESSOR | crop | {"crop_size": {"height": SIZE, "width": SIZE}, "resample": 3})
    assert "32x32 bicubic" in make_backbone(f"hf:{folder}").info().preprocessing


def test_of_two_towers_the_vision_tower_is_taken(tmp_path):
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.CLIPConfig(
        text_config=tower | {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2},
        vision_config=tower | {"image_size": SIZE, "patch_size": 8},
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "clip")
    backbone = make_backbone(f"hf:{tmp_path / 'clip'}", size=SIZE, mean=0, std=1)
    batch = images()
    pixels = torch.from_numpy(np.stack(batch).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        expected = model.vision_model(pixels).pooler_output.numpy()
    np.testing.assert_allclose(backbone.embed(batch, None), expected, atol=1e-5)


def test_what_does_not_fit_is_one_line(vit, tmp_path, refused, monkeypatch):
    folder = vit()
    for options, says in (
        ({"weights": "w.pt"}, "the weights are in its folder; leave out --weights w.pt"),
        ({"pooling": "max"}, "pooling = 'max' is not one of auto, pooler, cls, mean"),
        ({"layers": "layrnorm"}, "did you mean 'layernorm'"),
    ):
        with refused(ConfigError, says):
            make_backbone(f"hf:{folder}", **options)
    state = load_file(folder / "model.safetensors")
    del state["layernorm.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with refused(InputError, "1 weights aren't in the folder (layernorm.weight) and would be random"):
        make_backbone(f"hf:{folder}")
    (folder / "config.json").write_text('{"model_type": "no_such_type"}')
    with refused(ConfigError, "can't be loaded"):
        make_backbone(f"hf:{folder}")
    (folder / "model.safetensors").unlink()
    with refused(InputError, "no weights there"):
        make_backbone(f"hf:{folder}")
    (folder / "config.json").unlink()
    with refused(InputError, "no config.json there; hf: takes the folder"):
        make_backbone(f"hf:{folder}")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(vocab_size=30, **sizes)).save_pretrained(tmp_path / "bert")
    with refused(ConfigError, "can't embed images"):
        make_backbone(f"hf:{tmp_path / 'bert'}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with refused(ConfigError, "need transformers: pip install 'featlab[hf]'"):
        make_backbone(f"hf:{vit()}")


def test_nothing_is_written_to_the_terminal(vit, capfd):
    folder = vit(pooler=False)
    capfd.readouterr()
    make_backbone(f"hf:{folder}", pooling="cls")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""

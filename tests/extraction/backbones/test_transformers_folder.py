import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from featlab import open_cache
from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.backbones.builtin import with_mirror
from featlab.extraction.extract import extract
from featlab.extraction.layouts import read_layout

transformers = pytest.importorskip("transformers", reason="transformers isn't installed (extra: hf)")
tokenizers = pytest.importorskip("tokenizers", reason="comes with transformers")

SIZE = 32
PROCESSOR = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True}
PROCESSOR |= {"rescale_factor": 1 / 255, "size": {"height": SIZE, "width": SIZE}, "resample": 2}
PROCESSOR |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture
def vit(tmp_path):
    def make(*, pooler=True, processor=PROCESSOR):
        torch.manual_seed(0)
        config = transformers.ViTConfig(image_size=SIZE, patch_size=8, **TOWER)
        transformers.ViTModel(config, add_pooling_layer=pooler).save_pretrained(tmp_path / "vit")
        if processor is not None:
            (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
        return tmp_path / "vit"

    return make


def reference(folder, batch):
    processor = transformers.AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
    model = transformers.AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
    with torch.no_grad():
        return model(processor(batch, return_tensors="pt")["pixel_values"])


def test_a_folder_gives_what_the_librarys_processor_and_model_give(vit, images, tmp_path):
    folder = vit()
    backbone = make_backbone(f"hf:{folder}")
    for batch in (images(3, 48), images(3, SIZE)):
        plain = reference(folder, batch).pooler_output.numpy()
        np.testing.assert_allclose(backbone.embed(batch, None), plain, atol=2e-5)
    info = backbone.info()
    line = "RGB, centre square, 32x32 bilinear, mean 0.5 0.4 0.3, std 0.5 0.6 0.7, pooling pooler"
    assert (info.id, info.preprocessing) == ("hf:vit", line)
    assert info.versions["transformers"] == transformers.__version__
    # Tokens can be pooled otherwise, and layers of tokens are tapped.
    hidden = reference(folder, batch).last_hidden_state.numpy()
    for pooling, expected in (("cls", hidden[:, 0]), ("mean", hidden.mean(axis=1))):
        other = make_backbone(f"hf:{folder}", pooling=pooling)
        np.testing.assert_allclose(other.embed(batch, None), expected, atol=1e-5)
        assert other.info().fingerprint != info.fingerprint
    output = make_backbone(f"hf:{folder}", layers="layernorm").embed(batch, None)
    np.testing.assert_allclose(output[:, :-32], plain, atol=2e-5)
    np.testing.assert_allclose(output[:, -32:-16], hidden.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(output[:, -16:], hidden.std(axis=1), atol=1e-5)
    # A moved folder keeps the fingerprint, and other weights change it.
    moved = folder.rename(tmp_path / "moved")
    assert make_backbone(f"hf:{moved}").info().fingerprint == info.fingerprint
    data = bytearray((moved / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (moved / "model.safetensors").write_bytes(data)
    assert make_backbone(f"hf:{moved}").info().fingerprint != info.fingerprint


def test_a_model_of_the_hub_is_read_as_its_folder(vit, monkeypatch, refused):
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    folder, asked = vit(), []
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **more: asked.append((args, more)) or folder)
    assert make_backbone("hf:owner/vit@v1").info() == make_backbone(f"hf:{folder}").info()
    ((args, more),) = asked
    assert (args, more["revision"]) == (("owner/vit",), "v1")
    assert not any("bin" in pattern for pattern in more["allow_patterns"])

    def no_network(*args, **more):
        raise RuntimeError("no network")

    monkeypatch.setattr(hub, "snapshot_download", no_network)
    for name in ("hf:owner/vit", "clip:ViT-B/32"):
        with refused(InputError, "no network", "hf download"):
            make_backbone(name)
    with refused(ConfigError, "ViT-L/14"):
        make_backbone("clip:ViT-Z")


def test_a_pooler_without_weights_is_never_used_and_the_input_is_the_processors_or_imagenets(vit, capfd, refused):
    folder = vit(pooler=False, processor=None)
    capfd.readouterr()
    preprocessing = make_backbone(f"hf:{folder}", size=SIZE).info().preprocessing
    assert preprocessing.endswith("mean 0.485 0.456 0.406, std 0.229 0.224 0.225, pooling cls")
    assert capfd.readouterr() == ("", "")
    for options, *words in (
        ({"pooling": "pooler"}, "holds no weights of the pooler; choose pooling=cls"),
        ({}, "can't embed images of 224x224", "option size"),
    ):
        with refused(ConfigError, *words):
            make_backbone(f"hf:{folder}", **options)
    crop = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "do_center_crop": True}
    folder = vit(processor=PROCESSOR | crop | {"crop_size": {"height": SIZE, "width": SIZE}, "resample": 3})
    assert "32x32 bicubic" in make_backbone(f"hf:{folder}").info().preprocessing


KNOWN = ("<s>", "</s>", "?", "a", "photo", "of", "face", "neutral", "happy", "very")


@pytest.fixture
def clip(tmp_path):
    """A folder with a small CLIP and a tokenizer of ten words, and the network in it."""
    torch.manual_seed(1)
    config = transformers.CLIPConfig(
        text_config=TOWER | {"vocab_size": len(KNOWN), "bos_token_id": 0, "eos_token_id": 1},
        vision_config=TOWER | {"image_size": SIZE, "patch_size": 8},
        projection_dim=12,
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "clip")
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: place for place, word in enumerate(KNOWN)}, unk_token="?")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = {"single": "<s> $A </s>", "special_tokens": [("<s>", 0), ("</s>", 1)]}
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(**ends)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="</s>", unk_token="?")
    fast.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip", model


def test_texts_of_the_classes_classify_as_clip_itself_does(clip, images, make_tree, tmp_path, refused):
    folder, model = clip
    make = partial(make_backbone, f"hf:{folder}", size=SIZE, mean=0, std=1)
    backbone, pictures, classes = make(pooling="joint"), images(4), ("neutral", "very_happy")
    embedded = backbone.embed(pictures, None)
    # Each text as its words, one at a time: no padding.
    texts = [f"a photo of a {label} face".split() for label in ("neutral", "very happy")]
    rows = [torch.tensor([[0, *(KNOWN.index(word) for word in text), 1]]) for text in texts]
    pixels = torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        logits = [model(input_ids=row, pixel_values=pixels).logits_per_image for row in rows]
        pooled = model.vision_model(pixels).pooler_output.numpy()
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embedded @ backbone.texts(classes).T, torch.cat(logits, dim=1).numpy(), atol=1e-3)
    assert backbone.info().preprocessing.endswith("pooling joint")
    assert backbone.info().about == {"prompts": "a photo of a {label} face"}
    # Otherwise the vision tower alone is taken.
    np.testing.assert_allclose(make().embed(pictures, None), pooled, atol=1e-5)
    assert make().texts is None
    source = read_layout("auto", make_tree(tmp_path / "source", 3, 4, SIZE))
    extract(source, with_mirror(backbone), tmp_path / "cache.h5", neutral="neutral")
    with open_cache(tmp_path / "cache.h5", verify=True) as cache:
        table = cache.read(["s1", "s2"])
    np.testing.assert_allclose(table.prompts, backbone.texts(table.classes), rtol=1e-5)
    # Another text is another cache of the same rows.
    other = make(pooling="joint", prompts="a {label} face")
    assert other.info() == backbone.info()
    with refused(InputError, "its texts of the classes differ"):
        extract(source, with_mirror(other), tmp_path / "cache.h5", neutral="neutral")
    for options, words in (
        ({"pooling": "joint", "prompts": "a face"}, "must hold {label}"),
        ({"pooling": "joint", "layers": "vision_model"}, "doesn't go with pooling=joint"),
        ({"pooling": "cls", "prompts": "a {label}"}, "prompts has no effect here: it belongs to"),
    ):
        with refused(ConfigError, words):
            make(**options)
    with refused(InputError, "has 104 tokens, and this network reads 77; shorten prompts"):
        make(pooling="joint", prompts="{label}" + " very" * 100).texts(classes)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    bare = make(pooling="joint")
    with refused(InputError, "no tokenizer there"):
        bare.texts(classes)
    # Pictures without labels are no reason to read texts.
    extract([replace(item, label=None) for item in source], bare, tmp_path / "new.h5", neutral="neutral")


def test_what_does_not_fit_is_one_line_and_code_in_a_folder_never_runs(vit, tmp_path, refused, monkeypatch):
    folder, canary = vit(), tmp_path / "canary"
    for options, says in (
        ({"weights": "w.pt"}, "the weights are in its folder; leave out --weights w.pt"),
        ({"layers": "layrnorm"}, "did you mean 'layernorm'"),
        ({"pooling": "joint"}, "compares no pictures with texts"),
    ):
        with refused(ConfigError, says):
            make_backbone(f"hf:{folder}", **options)
    weights, config = folder / "model.safetensors", folder / "config.json"
    state = load_file(weights)
    del state["layernorm.weight"]
    (folder / "code.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    hostile = {"model_type": "another", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for change, error, *words in (
        (lambda: save_file(state, weights, {"format": "pt"}), InputError, "1 weights aren't in the folder (layern"),
        (lambda: config.write_text('{"model_type": "no_such_type"}'), ConfigError, "can't be loaded"),
        (lambda: config.write_text(json.dumps(hostile)), ConfigError, "can't be loaded", "custom code"),
        (weights.unlink, InputError, "no weights there"),
        (config.unlink, InputError, "no config.json there; hf: takes the folder"),
    ):
        change()
        with refused(error, *words):
            make_backbone(f"hf:{folder}")
    assert not canary.exists()
    transformers.BertModel(transformers.BertConfig(vocab_size=30, **TOWER)).save_pretrained(tmp_path / "bert")
    with refused(ConfigError, "can't embed images"):
        make_backbone(f"hf:{tmp_path / 'bert'}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with refused(ConfigError, "need transformers: pip install 'featlab[hf]'"):
        make_backbone("hf:gone")

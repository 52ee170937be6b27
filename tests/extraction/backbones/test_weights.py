import errno
import hashlib
import pickle
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones.exported_program import load_program
from featlab.extraction.backbones.modules import small_resnet
from featlab.extraction.backbones.weights import (
    built,
    load_state_dict,
    module_with_weights,
    read_state_dict,
    state_sha256,
)
from featlab.extraction.shards import read_failures

pytestmark = pytest.mark.filterwarnings("ignore:.*takes the weights under")
Tiny = partial(small_resnet, (4, 5, 6, 7))


@pytest.fixture
def state():
    return {key: value.clone() for key, value in built(Tiny, 5).state_dict().items()}


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def same(module, state):
    return all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_a_state_dict_is_read_from_every_kind_of_file(tmp_path, state):
    for name in ("w.pt", "w.pt.tar", "w.PTH", "w.safetensors"):
        path = tmp_path / name
        (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
        module, sha = module_with_weights("tiny", Tiny, str(path))
        assert same(module, state)
        assert sha == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_a_script_keeps_beside_it_prefixes_heads_and_other_networks_are_taken_off(tmp_path, state):
    path, heads = tmp_path / "w.pt", {"fc.weight": torch.zeros(7, 5), "head.fc.weight": torch.zeros(7)}
    for content in (
        *({"epoch": 3, name: state, "optimizer": {"lr": 0.1}} for name in ("state_dict", "model")),
        *(under(prefix, state) for prefix in ("module.", "model.backbone.", "_orig_mod.", "netF.")),
        under("backbone.", state) | {"bottleneck.weight": torch.zeros(2)},
        state | heads,
        {key: value.double() for key, value in state.items()},
    ):
        torch.save(content, path)
        module, _ = module_with_weights("tiny", Tiny, str(path))
        assert same(module, state)
    assert module.conv1.weight.dtype == torch.float32
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    load_state_dict("tiny", module, old, path)


def test_a_wrong_state_dict_says_how_many_keys_and_which_and_changes_nothing(state, refused):
    del state["bn1.bias"], state["bn1.running_mean"]
    state["layer9.weight"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(4, 1, 3, 3)
    module = Tiny()
    before = state_sha256(module)
    said = (
        "w.pt doesn't fit tiny: keys 2 missing (bn1.bias, bn1.running_mean), 1 unexpected (layer9.weight), "
        "1 of another shape (conv1.weight (4, 1, 3, 3) for (4, 3, 5, 5)); of 72 that it has"
    )
    with refused(ConfigError, said):
        load_state_dict("tiny", module, state, Path("w.pt"))
    assert state_sha256(module) == before
    # Of another network's, the first keys are named only.
    with refused(ConfigError, "60 missing (conv1.weight, bn1.weight, ", "9 unexpected (block0.w, ", " and 3 more)"):
        load_state_dict("tiny", Tiny(), {f"block{i}.w": torch.zeros(1) for i in range(9)}, Path("w.pt"))


def test_random_weights_have_to_be_asked_for_and_are_always_the_same(refused):
    with refused(ConfigError, "tiny has no weights: name a file with --weights FILE ", " --weights random"):
        module_with_weights("tiny", Tiny, None)
    state = torch.get_rng_state()
    shas = [module_with_weights("tiny", Tiny, "random")[1]]
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator has moved"
    torch.manual_seed(7)
    shas.append(module_with_weights("tiny", Tiny, "random")[1])
    assert shas == [state_sha256(built(Tiny))] * 2


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_objects_are_refused_and_never_run(tmp_path, refused):
    path, ran = tmp_path / "w.pt", tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (ran,)

    torch.save({"state_dict": {"a": torch.zeros(1)}, "config": Tiny}, path)
    with refused(InputError, "holds pickled Python objects", "torch.save(model.state_dict(), FILE)"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps(Hostile()))
    with refused(InputError):
        read_state_dict(path)
    assert not ran.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:.*torch.jit.*")
def test_a_file_that_holds_no_weights_is_one_line(tmp_path, refused):
    path = tmp_path / "w.pt"
    for name, content, says in (
        ("w.pt", b"", "isn't a file of torch.save"),
        ("w.pt", b"PK\x03\x04 broken", "isn't a file of torch.save"),
        ("w.safetensors", b"no safetensors", "isn't a safetensors file"),
        ("w.h5", b"", "weights files end in .safetensors, .pt"),
        ("w.pt2", b"", "an exported network is a backbone by itself: pt2:FILE"),
        ("gone.pt", None, "can't be read (No such file"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with refused(InputError, says, str(tmp_path / name)):
            read_state_dict(tmp_path / name)
    for save, content, says in (
        (torch.jit.save, torch.jit.trace(Tiny().eval(), torch.zeros(1, 3, 8, 8)), "is a TorchScript archive"),
        (torch.save, {"epoch": 1, "loss": 0.5}, "holds no state dict (its keys: epoch, loss)"),
        (torch.save, [torch.zeros(1)], "holds a list and no state dict"),
    ):
        save(content, path)
        with refused(InputError, says):
            read_state_dict(path)


def test_of_two_networks_in_a_file_one_is_asked_for(tmp_path, state, refused):
    other = {key: value + 1 for key, value in state.items()}
    unseen = {key: value for key, value in other.items() if not key.endswith("num_batches_tracked")}
    path = tmp_path / "two.pt"
    for content, names in (
        ({"state_dict": under("teacher.", other) | under("student.", state)}, ("teacher", "student")),
        ({"epoch": 3, "student": state, "teacher": under("module.", unseen)}, ("student", "teacher.module")),
        ({"model": state, "model_ema": other, "optimizer": {0: {"exp_avg": torch.zeros(2)}}}, ("model", "model_ema")),
        ({"state_dict": {"net": {"q": state, "k": other}}}, ("state_dict.net.q", "state_dict.net.k")),
        (state | under("ema.", unseen), (".", "ema")),
    ):
        torch.save(content, path)
        read = read_state_dict(path)
        with refused(ConfigError, "2 networks that fit tiny", *map(repr, names), f"--option prefix={names[1]}, or"):
            load_state_dict("tiny", Tiny(), read, path)
        for name in names:
            with pytest.warns(UserWarning, match="tiny .*leaves [67][0-9] of 1[0-9]+ tensors out"):
                module, _ = module_with_weights("tiny", Tiny, str(path), name.removesuffix(".module"))
            wanted = state if name in ("student", "model", "state_dict.net.q", ".") else other
            assert torch.equal(module.conv1.weight, wanted["conv1.weight"])
        with refused(ConfigError, "no names of tiny begin with 'nobody.'"):
            load_state_dict("tiny", Tiny(), read, path, "nobody")


def test_where_one_network_fits_or_both_are_the_same_nothing_is_asked_and_the_start_is_said(state):
    wider = under("d.", built(partial(small_resnet, (8, 5, 6, 7))).state_dict())
    half = {key: value for key, value in under("ema.", state).items() if "running" not in key}
    for content, says in (
        (under("module.", state | {"fc.weight": torch.zeros(7, 5)}), "takes the weights under 'module.'"),
        (wider | under("g.", state), "takes the weights under 'g.' and leaves 72 of 144 tensors out (d.conv1.weight"),
        (half | under("g.", state), "takes the weights under 'g.' and leaves "),
        (under("a.", state) | under("b.", state), "takes the weights under 'a.' and leaves 72 of 144 tensors out (b."),
        (state | under("ema.", state), "leaves 72 of 144 tensors out (ema."),
    ):
        module = Tiny()
        with pytest.warns(UserWarning, match=re.escape(f"w.pt: tiny {says}")):
            load_state_dict("tiny", module, content, Path("w.pt"))
        assert same(module, state)


def test_a_file_that_the_system_will_not_open_is_not_called_another_kind_of_file(tmp_path, refused, monkeypatch):
    def fails(*args, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    readers = {"w.pt": read_state_dict, "w.safetensors": read_state_dict, "w.pt2": load_program}
    readers |= {"c.failures.jsonl": lambda path: read_failures(tmp_path / "c.h5")}
    for name in readers:
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr("io.open", fails)
    for name, read in readers.items():
        with refused(InputError, f"{tmp_path / name}: can't be read (Too many open files)"):
            read(tmp_path / name)

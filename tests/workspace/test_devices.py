"""Where to compute: what auto takes, what is refused, and that a bundle goes where it was sent."""

import pytest
import torch

from featlab import write_table
from featlab.compute import choose_device
from featlab.errors import ConfigError
from featlab.workspace.adapt import open_bundle
from featlab.workspace.workspace import Workspace


def test_auto_takes_a_gpu_to_train_and_the_cpu_for_a_clip(
    tmp_path, people, small, extractor, small_bundle, refused, monkeypatch
):
    write_table(tmp_path / "cache.h5", people(), extractor)
    sent, bundle = [], small_bundle(people())
    monkeypatch.setattr("featlab.workspace.adapt.load_bundle", lambda folder, device: sent.append(device) or bundle)
    for cuda, mps, chosen in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert choose_device("auto").type == chosen
        for named, adapts_on in (("auto", "cpu"), (chosen, chosen)):
            workspace = Workspace.open(tmp_path, small, device=named)
            assert workspace.adapt_on == adapts_on
            open_bundle(workspace, tmp_path, ())
            assert sent[-1] == adapts_on
    for name, why in (("cuda", "torch finds no GPU here"), ("mps", "torch finds no GPU here"), ("tpu", "cuda or mps")):
        with refused(ConfigError, why):
            choose_device(name)
    with pytest.raises(ConfigError, match="needs a GPU of NVIDIA, and this runs on cpu"):
        choose_device("auto", amp=True)

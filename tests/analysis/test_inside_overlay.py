"""A video with probabilities drawn over time: what is refused; one is drawn in tests/cli/test_cli_predict_images.py."""

import sys
from pathlib import Path

import pytest

from featlab.analysis.inside.overlay import check_overlay
from featlab.errors import ConfigError


def test_what_can_not_be_drawn_over_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("av", reason="the extra `video` is not installed")
    clip = tmp_path / "same.mp4"
    clip.write_bytes(b"a film")
    (tmp_path / "folder.mp4").mkdir()
    for path, source, why in (
        ("o.mp4", None, "--images"),
        ("o.mp4", tmp_path, "one video"),
        ("o.avi", clip, "ends in .mp4"),
        (str(tmp_path / "folder.mp4"), clip, "new file"),
        (str(clip), clip, "new file"),
    ):
        with pytest.raises(ConfigError, match=why):
            check_overlay(Path(path), source)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"featlab\[video\]"):
        check_overlay(tmp_path / "o.mp4", clip)

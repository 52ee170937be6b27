"""Landmarks of one face in a text file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featlab.errors import InputError
from featlab.extraction.faces.landmark_files import read_pts, read_tem

PTS = "version: 1\nn_points: 3\n{\n1.000 1.000\n449.459 119.344\n12 7.5\n}\n"
POINTS = [(0, 0), (448.459, 118.344), (11, 6.5)]


@pytest.mark.parametrize(
    "text",
    [
        PTS,
        "\ufeff" + PTS.replace("\n", "\r\n"),
        PTS.replace("n_points: 3", "n_points:  3 "),
        PTS.replace("{\n", "{ ").replace("\n}", " }"),
        "version: 1\n{\n1 1\n449.459\t119.344\n\n12,7.5\n}",
    ],
)
def test_the_upper_left_pixel_of_a_pts_is_one_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.pts").write_bytes(text.encode())
    read = read_pts(tmp_path / "a.pts")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, POINTS, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("1 2\n3 4\n", "no line with an opening brace"),
        ("version: 1\nn_points: 3\n{\n1 1\n", "closing brace is missing"),
        ("n_points: 3\n{\n1 1\n}\n", "says 3 points and holds 1"),
        ("{\n}\n", "no point between the braces"),
        ("n_points: 2\n{\n1 1\n2 two\n}\n", "line 4: expected x and y, found '2 two'"),
        ("n_points: 2\n{\n1 1\n2 2 2\n}\n", "line 4: expected x and y, found '2 2 2'"),
    ],
)
def test_a_pts_that_does_not_fit_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.pts").write_text(text)
    with pytest.raises(InputError) as caught:
        read_pts(tmp_path / "a.pts")
    assert says in str(caught.value)
    assert str(tmp_path / "a.pts") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lines", ["", "1\n0\n3\n0 1 2\n", "\n2\n1\n2\n0 1\n0\n2\n1 2\n"])
def test_a_tem_is_read_up_to_its_line_definitions(tmp_path: Path, lines: str) -> None:
    (tmp_path / "a.tem").write_text("3\n0\t0\n448.459\t118.344\n11 6.5\n" + lines)
    read = read_tem(tmp_path / "a.tem")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, POINTS, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\n", "is empty"),
        ("three\n1 2\n", "line 1: expected the number of points, found 'three'"),
        ("0\n", "line 1: expected the number of points, found '0'"),
        ("-1\n", "line 1: expected the number of points"),
        ("99999999999\n1 2\n", "says 99999999999 points and holds 1; the file is cut off"),
        ("2\n1 2\n3\n", "line 3: expected x and y, found '3'"),
    ],
)
def test_a_tem_that_does_not_fit_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.tem").write_text(text)
    with pytest.raises(InputError) as caught:
        read_tem(tmp_path / "a.tem")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pts").write_bytes(b"version: 1\n\xff\xfe")
    with pytest.raises(InputError, match=r"isn't UTF-8 text \(byte 11\)"):
        read_pts(tmp_path / "a.pts")

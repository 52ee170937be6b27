"""Landmarks as OpenFace writes them."""

import pytest


@pytest.fixture
def openface():
    """``openface(path, "frame, success", ["1, 1", "2, 0"], points)``: a row a face, (n, P, 2), after its own cells."""

    def write(path, first, cells, points):
        path.parent.mkdir(parents=True, exist_ok=True)
        header = [first, *(f"{axis}_{point}" for axis in "xy" for point in range(len(points[0])))]
        lines = [[row, *map(str, face.T.ravel())] for row, face in zip(cells, points, strict=True)]
        path.write_text("\n".join(", ".join(line) for line in [header, *lines]) + "\n")
        return path

    return write

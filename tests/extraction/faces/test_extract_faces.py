from pathlib import Path

import numpy as np
import pytest

from featlab.cache import open_cache
from featlab.extraction.backbones import make_backbone
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.faces.landmarks import find_landmarks, read_landmarks
from featlab.extraction.items import names_by_row
from featlab.extraction.layouts import read_layout

FACES = Path(__file__).parents[3].parent / "shared" / "data" / "london-morph"


@pytest.mark.faces
@pytest.mark.skipif(not FACES.is_dir(), reason="../shared/data/london-morph is not there")
def test_two_real_people_go_through_hog_and_geometry(tmp_path):
    manifest = FACES / "manifest.csv"
    items = read_layout("auto", manifest)
    assert len(items) == 2976
    path = find_landmarks(manifest)
    assert path is not None
    landmarks = read_landmarks(path, len(items), names_by_row(items))
    few = [item for item in items if item.subject in ("s001", "s002")]
    for name, dim in (("hog", 4356), ("geometry", 136)):
        out = tmp_path / f"{name}.h5"
        config = ExtractConfig(jobs=1)
        report = extract(few, make_backbone(name), out, neutral="neutral", landmarks=landmarks, config=config)
        assert (report.rows, report.dim, report.failures) == (96, dim, ())
        with open_cache(out) as cache:
            table = cache.read()
        assert table.landmarks is not None
        np.testing.assert_array_equal(table.landmarks, landmarks[[item.row for item in few]])
        means = np.stack([table.rows_of(subject).embeddings.mean(axis=0) for subject in ("s001", "s002")])
        assert np.linalg.norm(means[0] - means[1]) > 0.01

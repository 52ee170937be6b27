"""predict --images: new images of a person, with the bundle's own extractor."""

import json
import re
import shutil
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featlab import open_cache
from featlab.analysis.inside.faces import find_faces
from featlab.analysis.inside.person import PersonPage
from featlab.bundle.bundle import load_bundle
from featlab.compute import run_seed
from featlab.exchange.formats import run_safetensors
from featlab.extraction.backbones import make_backbone
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.layouts import read_layout
from featlab.methods import make_method
from featlab.protocol.splits import target_of
from featlab.workspace.workspace import Workspace

SIZE = 24
HOG = ("--backbone", "hog", "--option", f"size={SIZE}")


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """faces/PERSON/LABEL/CLIP/FRAME.png of four people, and their cache of HOG."""
    root = tmp_path_factory.mktemp("predict")
    random = np.random.default_rng(0)
    mouth = random.integers(0, 120, (6, SIZE))
    for person, label, clip in product(range(4), ("neutral", "smile"), "ab"):
        look = np.random.default_rng(person).integers(0, 120, (SIZE, SIZE))
        if label == "smile":
            look[14:20] += mouth
        folder = root / "faces" / f"p{person}" / label / clip
        folder.mkdir(parents=True)
        for frame in range(3):
            grey = (look + random.integers(0, 15, look.shape)).astype(np.uint8)
            Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(folder / f"{frame}.png")
    items = read_layout("auto", root / "faces")
    backbone = make_backbone("hog", size=SIZE)
    extract(items, backbone, root / "cache.h5", neutral="neutral", config=ExtractConfig(jobs=1))
    return root


@pytest.fixture
def workspace(faces, tmp_path, monkeypatch):
    """The current folder: the cache, and in clip/ what lies in p3's folders, by other names."""
    shutil.copy(faces / "cache.h5", tmp_path)
    (tmp_path / "clip").mkdir()
    for label in ("neutral", "smile"):
        for frame in range(3):
            shutil.copy(faces / f"faces/p3/{label}/b/{frame}.png", tmp_path / f"clip/{label}{frame}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def typed(quickly):
    """What is typed to predict p3, with the cache's own backbone, but for the images."""
    return ("predict", "--subject", "p3", *HOG, "-j", "1", *quickly)


def test_images_give_what_the_cache_gives_for_the_same_pixels_and_the_others_are_listed(
    workspace, run, run_json, typed, quickly, lines_of
):
    run_json("predict", "--subject", "p3", "--out", "cached.csv", "-j", "1", *quickly)
    Path("clip/broken.png").write_text("no picture")
    result = run(*typed, "--images", "clip", "--json")
    made = json.loads(result.stdout)
    assert (result.exit_code, made["rows"], made["failures"], made["reused"]) == (3, 6, 1, True), result.stderr
    assert "broken.png: not an image" in result.stderr
    (line,) = Path("predictions.failures.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "broken.png"
    lines, cached = lines_of("predictions.csv"), {line["path"]: line for line in lines_of("cached.csv")}
    assert list(lines[0]) == ["path", "subject", "video", "frame", "predicted", "p_neutral", "p_smile"]
    names = [f"{label}{frame}.png" for label in ("neutral", "smile") for frame in range(3)]
    assert [(line["path"], line["subject"]) for line in lines] == [(name, "p3") for name in names]
    for line in lines:
        same = cached[f"p3/{line['path'][:-5]}/b/{line['path'][-5]}.png"]
        assert line["predicted"] == same["predicted"]
        # Rows in batches of another size: their products are rounded otherwise.
        assert float(line["p_smile"]) == pytest.approx(float(same["p_smile"]), abs=1e-5)
    # One image is a source too, and smoothing has nothing to do there.
    made = run_json(*typed, "--images", "clip/smile1.png", "--smooth", "3")
    assert (made["rows"], made["videos"][0]["video"], made["smoothing"]) == (1, "smile1.png", 3)


def test_of_a_source_with_subjects_only_the_person_s_images_are_taken(
    workspace, faces, run_json, refused, typed, lines_of
):
    assert run_json(*typed, "--images", str(faces / "faces"))["rows"] == 12
    assert {line["subject"] for line in lines_of("predictions.csv")} == {"p3"}
    shutil.copytree(faces / "faces/p1", "others/q1")
    assert "none of its images is of 'p3' (subjects: q1)" in refused(*typed, "--images", "others", "-q")


def test_with_mirror_a_turned_picture_is_predicted_as_the_picture_is(
    workspace, faces, run_json, refused, typed, lines_of
):
    again = ("--out", "cache.h5", "--if-exists", "overwrite")
    run_json("extract", str(faces / "faces"), *HOG, "--mirror", *again, "-j", "1")
    Path("turned").mkdir()
    for path in Path("clip").iterdir():
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(Path("turned", path.name))
    scores = []
    for folder in ("clip", "turned"):
        run_json(*typed, "--images", folder, "--mirror")
        scores.append([float(line["p_smile"]) for line in lines_of("predictions.csv")])
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert "averaged with its mirror image" in refused(*typed, "--images", "clip", "-q")


def test_figures_find_the_pictures_where_extract_found_them(workspace, faces, run_well):
    words = ("extract", str(faces / "faces"), *HOG, "--if-exists", "overwrite", "-j", "1")
    run_well(*words, "--pseudonymise", "key")
    assert find_faces(Workspace.open(Path())).folder is None
    run_well(*words)
    assert find_faces(Workspace.open(Path())).folder.resolve() == (faces / "faces").resolve()


def test_a_video_is_sampled_as_asked_and_drawn_over(workspace, run_json, refused, typed, lines_of):
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    with av.open("talk.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 2 * SIZE
        for frame in range(20):
            pixels = np.full((2 * SIZE, 2 * SIZE, 3), 10 * frame, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    made = run_json(*typed, "--images", "talk.mp4", "--fps", "2", "--overlay", "drawn.mp4")
    assert (made["rows"], made["overlay"]) == (4, "drawn.mp4")
    with av.open("talk.mp4") as old, av.open("drawn.mp4") as new:
        assert new.streams.video[0].average_rate == old.streams.video[0].average_rate
        times = [[float(frame.pts * frame.time_base) for frame in file.decode(video=0)] for file in (old, new)]
        assert times[0] == times[1]
    taken = [(line["path"], line["video"]) for line in lines_of("predictions.csv")]
    assert taken == [(f"talk.mp4#t={time:.3f}", "talk.mp4") for time in (0, 0.5, 1, 1.5)]
    # Before anything is embedded, or a person is looked for.
    Path("folder.mp4").mkdir()
    for source, path, why in (
        (("--images", "clip"), "x.mp4", "--images CLIP"),
        ((), "x.mp4", "--images CLIP"),
        (("--images", "talk.mp4"), "x.avi", "ends in .mp4"),
        (("--images", "talk.mp4"), "folder.mp4", "new file"),
        (("--images", "talk.mp4"), "talk.mp4", "new file"),
    ):
        assert why in refused("predict", "--subject", "nobody", *source, "--overlay", path)


def test_an_adapted_bundle_alone_predicts_images_of_its_own_backbone_only(workspace, run_json, refused, quickly):
    bundle = run_json("pretrain", "--subject", "p3", *quickly)["folder"]
    run_json("adapt", "--subject", "p3", "--bundle", bundle)
    Path("cache.h5").unlink()
    Path("empty").mkdir()
    Path("notes.txt").write_text("")
    words = ("predict", "--subject", "p3", "--bundle", bundle, "-j", "1", "--images")
    assert run_json(*words, "clip", *HOG)["rows"] == 6
    line = refused(*words, "clip", "-q")  # the bundle's own name, hog, without its size
    assert "preprocessing 'grey 96x96" in line
    assert "for 'grey 24x24" in line
    assert "weights" not in line
    assert "id 'geometry' for 'hog'" in refused(*words, "clip", "-q", "--backbone", "geometry")
    for name in ("empty", "notes.txt", "nosuch"):
        assert name in refused(*words, name, *HOG, "-q")
    assert "loose" not in refused(*words, "empty", "--layout", "folders", *HOG, "-q")


def test_a_clip_of_a_new_person_becomes_a_checked_model_and_a_page(workspace, run_json, refused, quickly, monkeypatch):
    made = run_json("pretrain", "--targets", "p3", *quickly)
    bundle = load_bundle(Path(made["folder"]))
    at_rest = [f"clip/neutral{frame}.png" for frame in range(3)]
    words = (*HOG, "--bundle", made["folder"], "-j", "1")
    done = run_json("personalise", *at_rest, *words, "--out", "new.safetensors", "--other", "clip")
    # The same as adapting to rows of a cache.
    with open_cache("cache.h5") as cache:
        rows = cache.read(["p3"])
    rest = rows.take(
        np.flatnonzero([path.endswith(tuple(f"neutral/b/{n}.png" for n in range(3))) for path in rows.paths])
    )
    seed = run_seed(bundle.seed, "pft", "new")
    expected = make_method("pft").adapt(bundle, target_of(rest), seed=seed).model
    model, _ = run_safetensors(Path("new.safetensors"))
    embeddings = torch.from_numpy(rows.embeddings)
    torch.testing.assert_close(model(embeddings), expected(embeddings), rtol=1e-4, atol=1e-4)
    assert (done["subject"], done["method"], done["frames"]) == ("new", "pft", 3)
    assert any(line.startswith("clip: ") and "of 6 frames" in line for line in done["words"])
    page = Path("new.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("A model for new", "3 pictures", "data:image"))
    assert not re.search(r"""(?:src|href)=["']?https?:""", page)
    assert Path("new.safetensors").stat().st_mode & 0o777 == 0o600
    Path("notes.txt").write_text("")
    for known, says_why in ((None, True), (done, False)):
        page = PersonPage("new", bundle, "pft", (), None, known, ())
        assert ("too few source people" in page.verdict()) == says_why
    # Each before anything is embedded: these are no pictures.
    first = ("personalise", *words, "notes.txt", "-q")
    for typed, expected in (
        (("gone.mp4", "--out", "x.pt2"), "gone.mp4: no such file"),
        (("--out", "x.pt2", "--other", "gone.mp4"), "gone.mp4"),
        (("--out", "x.txt"), "x.txt: which format?"),
        (("--out", "x.pt2", "--subject", "p0"), "p0"),
        (("--out", "x.pt2", "--method", "gone"), "gone"),
        (("--out", "x.pt2", "--method", "oracle"), "featlab evaluate only"),
        (("--out", "x.pt2", "--method", "coral"), "--methods coral"),
        (("--out", "x.pt2", "--set", "head.lr=0.1"), "head.lr has no effect here"),
        (("--out", "x.pt2", "--set", "adapt.shot.lr=0.1"), "adapt.shot.lr has no effect here"),
    ):
        assert expected in refused(*first, *typed)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    for typed in ((*first, "--out", "x.onnx"), ("export", "--bundle", "gone", "--out", "x.onnx", "-q")):
        assert "pip install 'featlab[onnx]'" in refused(*typed)
    assert not list(Path().glob("x.*"))

"""predict --images: new images of a person, with the bundle's own extractor."""

import json
import re
import shutil
import sys
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
from featlab.exchange.formats import load_safetensors
from featlab.extraction.backbones import make_backbone
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.layouts import read_layout
from featlab.methods import make_method
from featlab.protocol.splits import target_of
from featlab.workspace.workspace import Workspace

SIZE = 24
HOG = f"--backbone hog --option size={SIZE} -j 1"
PREDICT = f"predict --subject s3 {HOG} --images"


@pytest.fixture(scope="session")
def faces(tmp_path_factory, make_tree):
    """faces/PERSON/LABEL/FRAME.png of four people, and their cache of HOG."""
    root = tmp_path_factory.mktemp("predict")
    items = read_layout("auto", make_tree(root / "faces", 4, 16, SIZE))
    backbone = make_backbone("hog", size=SIZE)
    extract(items, backbone, root / "cache.h5", neutral="neutral", config=ExtractConfig(jobs=1))
    return root


@pytest.fixture
def workspace(faces, folder):
    """The current folder: the cache, and in clip/ some of what lies in s3's folders, by other names."""
    shutil.copy(faces / "cache.h5", folder)
    Path("clip").mkdir()
    for label in ("neutral", "smile"):
        for frame in range(3):
            shutil.copy(faces / f"faces/s3/{label}/img{frame}.png", f"clip/{label}{frame}.png")


def test_images_give_what_the_cache_gives_for_the_same_pixels_and_the_others_are_listed(workspace, run_json, lines_of):
    run_json("predict --subject s3 --out cached.csv -j 1")
    Path("clip/broken.png").write_text("no picture")
    made = run_json(PREDICT, "clip", code=3)
    assert (made["rows"], made["failures"], made["reused"]) == (6, 1, True)
    assert "broken.png: not an image" in made.stderr
    (line,) = Path("predictions.failures.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "broken.png"
    lines, cached = lines_of("predictions.csv"), {line["path"]: line for line in lines_of("cached.csv")}
    assert list(lines[0]) == ["path", "subject", "video", "frame", "predicted", "p_neutral", "p_smile"]
    names = [f"{label}{frame}.png" for label in ("neutral", "smile") for frame in range(3)]
    assert [(line["path"], line["subject"]) for line in lines] == [(name, "s3") for name in names]
    for line in lines:
        same = cached[f"s3/{line['path'][:-5]}/img{line['path'][-5]}.png"]
        assert line["predicted"] == same["predicted"]
        # Rows in batches of another size: their products are rounded otherwise.
        assert float(line["p_smile"]) == pytest.approx(float(same["p_smile"]), abs=1e-5)
    # One image is a source too, and smoothing has nothing to do there.
    made = run_json(PREDICT, "clip/smile1.png", "--smooth", "3")
    assert (made["rows"], made["videos"][0]["video"], made["smoothing"]) == (1, "smile1.png", 3)


def test_of_a_source_with_subjects_only_the_person_s_images_are_taken(workspace, faces, run_json, refused, lines_of):
    assert run_json(PREDICT, str(faces / "faces"))["rows"] == 32
    assert {line["subject"] for line in lines_of("predictions.csv")} == {"s3"}
    shutil.copytree(faces / "faces/s1", "others/q1")
    assert "none of its images is of 's3' (subjects: q1)" in refused(PREDICT, "others", "-q")


def test_with_mirror_a_turned_picture_is_predicted_as_the_picture_is(workspace, faces, run_json, refused, lines_of):
    run_json(f"extract {HOG} --mirror --out cache.h5 --if-exists overwrite", str(faces / "faces"))
    Path("turned").mkdir()
    for path in Path("clip").iterdir():
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(Path("turned", path.name))
    scores = []
    for name in ("clip", "turned"):
        run_json(PREDICT, name, "--mirror")
        scores.append([float(line["p_smile"]) for line in lines_of("predictions.csv")])
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert "averaged with its mirror image" in refused(PREDICT, "clip", "-q")


def test_figures_find_the_pictures_where_extract_found_them(workspace, faces, run_well):
    words = (f"extract {HOG} --if-exists overwrite", str(faces / "faces"))
    run_well(*words, "--pseudonymise", "key")
    assert not Path("cache.images.txt").exists()
    run_well(*words)
    assert find_faces(Workspace.open(Path())).folder.resolve() == (faces / "faces").resolve()


def test_a_video_is_sampled_as_asked_and_drawn_over(workspace, run_json, refusals, lines_of):
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    with av.open("talk.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 2 * SIZE
        for frame in range(20):
            pixels = np.full((2 * SIZE, 2 * SIZE, 3), 10 * frame, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    made = run_json(PREDICT, "talk.mp4", "--fps", "2", "--overlay", "drawn.mp4")
    assert (made["rows"], made["overlay"]) == (4, "drawn.mp4")
    with av.open("talk.mp4") as old, av.open("drawn.mp4") as new:
        assert new.streams.video[0].average_rate == old.streams.video[0].average_rate
        times = [[float(frame.pts * frame.time_base) for frame in file.decode(video=0)] for file in (old, new)]
        assert times[0] == times[1]
    taken = [(line["path"], line["video"]) for line in lines_of("predictions.csv")]
    assert taken == [(f"talk.mp4#t={time:.3f}", "talk.mp4") for time in (0, 0.5, 1, 1.5)]
    # Before anything is embedded, or a person is looked for.
    Path("folder.mp4").mkdir()
    table = {
        "--images clip --overlay x.mp4": "--images CLIP",
        "--overlay x.mp4": "--images CLIP",
        "--images talk.mp4 --overlay x.avi": "ends in .mp4",
        "--images talk.mp4 --overlay folder.mp4": "new file",
        "--images talk.mp4 --overlay talk.mp4": "new file",
    }
    refusals(table, "predict --subject nobody")


def test_an_adapted_bundle_alone_predicts_images_of_its_own_backbone_only(workspace, run_json, refused, refusals):
    bundle = run_json("pretrain --subject s3")["folder"]
    run_json("adapt --subject s3 --bundle", bundle)
    Path("cache.h5").unlink()
    Path("empty").mkdir()
    Path("notes.txt").write_text("")
    words = f"predict --subject s3 --bundle {bundle} -j 1 --images"
    assert run_json(f"{words} clip {HOG}")["rows"] == 6
    line = refused(words, "clip", "-q")  # the bundle's own name, hog, without its size
    assert re.search("preprocessing 'grey 96x96.* for 'grey 24x24", line)
    assert "weights" not in line
    assert "id 'geometry' for 'hog'" in refused(words, "clip", "-q", "--backbone", "geometry")
    refusals({f"{name} -q {HOG}": name for name in ("empty", "notes.txt", "nosuch")}, words)
    assert "loose" not in refused(f"{words} empty --layout folders {HOG} -q")


def test_a_clip_of_a_new_person_becomes_a_checked_model_and_a_page(workspace, run_json, refusals, monkeypatch):
    made = run_json("pretrain --targets s3")
    bundle = load_bundle(Path(made["folder"]))
    words = f"personalise {HOG} --bundle {made['folder']}"
    at_rest = " ".join(f"clip/neutral{frame}.png" for frame in range(3))
    done = run_json(f"{words} {at_rest} --out new.safetensors --other clip")
    # The same as adapting to rows of a cache.
    with open_cache("cache.h5") as cache:
        rows = cache.read(["s3"])
    taken = [path in {f"s3/neutral/img{frame}.png" for frame in range(3)} for path in rows.paths]
    seed = run_seed(bundle.seed, "pft", "new")
    expected = make_method("pft").adapt(bundle, target_of(rows.take(np.flatnonzero(taken))), seed=seed).model
    model, _ = load_safetensors(Path("new.safetensors"))
    embeddings = torch.from_numpy(rows.embeddings)
    torch.testing.assert_close(model(embeddings)["logits"], expected(embeddings), rtol=1e-4, atol=1e-4)
    assert (done["subject"], done["method"], done["frames"]) == ("new", "pft", 3)
    assert any(line.startswith("clip: ") and "of 6 frames" in line for line in done["words"])
    page = Path("new.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("A model for new", "3 pictures", "data:image"))
    assert not re.search(r"""(?:src|href)=["']?https?:""", page)
    assert Path("new.safetensors").stat().st_mode & 0o777 == 0o600
    for known, says_why in ((None, True), (done, False)):
        page = PersonPage("new", bundle, "pft", (), None, known, ())
        assert ("too few source people" in page.verdict()) == says_why
    # Each before anything is embedded: this is no picture.
    Path("notes.txt").write_text("")
    table = {
        "gone.mp4 --out x.pt2": "gone.mp4: no such file",
        "--out x.pt2 --other gone.mp4": "gone.mp4",
        "--out x.txt": "x.txt: which format?",
        "--out x.pt2 --subject s0": "s0",
        "--out x.pt2 --method gone": "gone",
        "--out x.pt2 --method oracle": "featlab evaluate only",
        "--out x.pt2 --method coral": "--methods coral",
        "--out x.pt2 --set head.lr=0.1": "head.lr has no effect here",
        "--out x.pt2 --set adapt.shot.lr=0.1": "adapt.shot.lr has no effect here",
    }
    refusals(table, f"{words} notes.txt -q")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    onnx = (f"{words} notes.txt -q --out x.onnx", "export --bundle gone --out x.onnx -q")
    refusals(dict.fromkeys(onnx, "pip install 'featlab[onnx]'"))
    assert not list(Path().glob("x.*"))

"""--pseudonymise: no name of a person is left in what extract and import write and say."""

import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from featlab.cache.reader import inspect_cache
from featlab.cache.writer import CacheBuilder

NAMES = ("Anna Bauer", "Zoë")


def holding(folder, *names):
    """The files below a folder, or their own names, that hold a name in any of three encodings, whatever its case."""
    found = []
    for path in (path for path in Path(folder).rglob("*") if path.is_file()):
        data = str(path.relative_to(folder)).lower().encode() + b"\0" + path.read_bytes().lower()
        codes = ("utf-8", "utf-16-le", "utf-16-be")
        spelled = (name.lower().encode(code) for name in names for code in codes)
        if any(each in data for each in (*spelled, *(name.lower().encode("unicode_escape") for name in names))):
            found.append(path.name)
    return sorted(found)


@pytest.fixture
def sources(tmp_path, make_tree, monkeypatch):
    """A folder of people's pictures, some of them broken, a manifest of it, and a table with a folder of its paths."""
    monkeypatch.chdir(tmp_path)
    make_tree(Path("faces"))
    for number, name in enumerate(NAMES):
        Path("faces", f"s{number}").rename(Path("faces", name))
    Path("faces", NAMES[0], "smile/img9.png").write_bytes(b"no picture")
    Path("faces", NAMES[1], "smile/extra.psd").write_bytes(b"left out")
    lines = [
        f"{path},{path.parts[1]},{path.parts[2]},{' '.join(path.parts[1:3])}"
        for path in sorted(Path("faces").rglob("*.png"))
    ]
    head = "path,subject,label,video"
    Path("manifest.csv").write_text("\n".join([head, *lines]), encoding="utf-8")
    values = [f"{line},{value},{1 - value}" for line, value in zip(lines, np.linspace(0, 1, len(lines)), strict=True)]
    values[1] = f"{lines[1]},{NAMES[0]},1"
    Path("table.csv").write_text("\n".join([f"{head},a,b", *values]), encoding="utf-8")


def test_no_name_is_left_whatever_the_source_and_one_key_gives_one_name(sources, run_well, refused):
    commands = {"folders": "extract faces", "manifest": "extract manifest.csv", "table": "import table.csv --skip-bad"}
    seen = {}
    for name, words in commands.items():
        Path(name).mkdir()
        for again in (False, True):
            result = run_well(f"{words} --out {name}/cache.h5 --pseudonymise people.key", code=3)
            said = (result.stdout + result.stderr).lower()
            assert not any(each.lower() in said for each in (*NAMES, "Bauer")), said
            assert ("made the key people.key" in said) == (name == "folders" and not again)
        assert Path(name, "cache.failures.jsonl").read_text(encoding="utf-8").count("f-") >= 1
        assert holding(name, *NAMES) == []
        seen[name] = inspect_cache(f"{name}/cache.h5").subjects
    assert len(set(map(tuple, seen.values()))) == 1
    assert all(who.startswith("p-") for who in seen["table"])
    assert stat.S_IMODE(Path("people.key").stat().st_mode) == 0o600
    # The same command without the option names them, so the search finds names; another key gives other names.
    run_well("extract faces --out named/cache.h5", code=3)
    assert holding("named", *NAMES) == ["cache.failures.jsonl", "cache.h5"]
    run_well("import table.csv --skip-bad --out other.h5 --pseudonymise other.key", code=3)
    assert not set(inspect_cache("other.h5").subjects) & set(seen["table"])
    Path("broken.key").write_text("abc")
    assert "holds no key" in refused("import table.csv --out x.h5 --pseudonymise broken.key")


def test_a_killed_extraction_and_a_video_leave_no_name_either(sources, run_well, monkeypatch):
    av = pytest.importorskip("av", reason="needs the extra 'video'")
    shutil.rmtree("faces")
    for name in NAMES:
        for label in ("neutral", "smile"):
            Path("faces", name, label).mkdir(parents=True)
            with av.open(f"faces/{name}/{label}/{name}.mp4", "w") as file:
                stream = file.add_stream("mpeg4", rate=5)
                stream.width = stream.height = 32
                for frame in range(5):
                    pixels = np.full((32, 32, 3), 20 * frame + len(label), np.uint8)
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
                file.mux(stream.encode())
    Path("faces", NAMES[0], "smile", "broken.mp4").write_bytes(b"no video")
    words = "extract faces --out videos/cache.h5 --pseudonymise people.key"
    with monkeypatch.context() as patch:
        patch.setattr(CacheBuilder, "assemble", lambda *given: 1 / 0)
        run_well(words, code=1)
    assert list(Path("videos").rglob("cache.h5.shards/*.h5"))
    assert holding("videos", *NAMES) == []
    result = run_well(words, code=3)
    assert holding("videos", *NAMES) == []
    assert "bauer" not in (result.stdout + result.stderr).lower()

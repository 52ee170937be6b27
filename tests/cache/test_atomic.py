"""A file is whole or not there."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from contextlib import nullcontext, suppress

import pytest

from featlab.cache.atomic import (
    SUMS,
    _sweep,
    atomic_folder,
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    check_sum,
    folders_synced_last,
)
from featlab.errors import CacheError, FeatlabError


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    atomic_write_text(tmp_path / "deep" / "er" / "a.txt", "zwei\r\nZeilen ü")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "zwei\r\nZeilen ü".encode()
    atomic_write_bytes(tmp_path / "b", b"\0")
    assert (tmp_path / "b").read_bytes() == b"\0"
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["b", "deep", "link", "real"]


def write_half(target, error):
    with atomic_path(target) as partial:
        assert partial.suffix == ".partial"
        assert partial.parent == target.parent
        partial.write_text("new")
        raise error


def test_the_old_file_stays_until_the_block_ends_and_when_it_raises(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            write_half(target, error)
        assert target.read_text() == "old"
        assert os.listdir(tmp_path) == ["a"]
    with atomic_path(target) as one, atomic_path(target) as two:
        assert one != two, "two writers do not mix"
        one.write_text("one")
        two.write_text("two")
        assert target.read_text() == "old"
    assert target.read_text() == "one"


def test_a_place_that_can_not_be_written_is_one_clear_line(tmp_path, refused):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("folder", "file/below", "n" * 300):
        with refused(FeatlabError, "can't be written", str(tmp_path / name)):
            atomic_write_text(tmp_path / name, "x")
        assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        (tmp_path / "missing").read_text()


def test_a_folder_is_whole_or_not_there_and_a_complete_one_of_another_run_stays(tmp_path):
    def make(text, **options):
        with atomic_folder(tmp_path / "a", **options) as draft:
            assert list(draft.iterdir()) == []
            (draft / "x").write_text(text)
            if text == "broken":
                raise KeyError

    make("one")
    make("two")
    with pytest.raises(KeyError):
        make("broken")
    make("three", keep="x")
    assert (tmp_path / "a" / "x").read_text() == "two"
    make("four", keep="y")
    assert (tmp_path / "a" / "x").read_text() == "four"
    assert os.listdir(tmp_path) == ["a"]
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(FeatlabError, match="can't be written"), atomic_folder(tmp_path / name):
            pass
    assert sorted(os.listdir(tmp_path)) == ["a", "file"]


def test_a_drive_that_syncs_nothing_is_written_to(tmp_path, monkeypatch):
    for number in (errno.EINVAL, errno.ENOTSUP, errno.EIO):

        def unsupported(handle, number=number):
            raise OSError(number, "x")

        monkeypatch.setattr("os.fsync", unsupported)
        expected = pytest.raises(FeatlabError) if number == errno.EIO else nullcontext()
        with expected:
            atomic_write_text(tmp_path / str(number), "x")
        assert (tmp_path / str(number)).exists() == (number != errno.EIO)


def test_what_is_new_is_its_owners_alone_and_what_is_replaced_keeps_its_mode(tmp_path):
    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    before = os.umask(0o022)
    try:
        atomic_write_text(tmp_path / "new" / "er" / "a", "x")
        with atomic_folder(tmp_path / "deep" / "folder") as draft:
            atomic_write_text(draft / "b", "x")
        for given in (0o600, 0o644, 0o440):
            (tmp_path / "old").write_text("")
            (tmp_path / "old").chmod(given)
            atomic_write_text(tmp_path / "old", "x")
            assert mode(tmp_path / "old") == given
            (tmp_path / "old").unlink()
    finally:
        os.umask(before)
    for name in ("new", "new/er", "deep", "deep/folder"):
        assert mode(tmp_path / name) == 0o700, name
    for name in ("new/er/a", "deep/folder/b", "deep/folder/SHA256SUMS"):
        assert mode(tmp_path / name) == 0o600, name


def test_a_new_folder_is_synced_into_the_one_above_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("featlab.cache.atomic.sync_folder", synced.append)
    atomic_write_text(tmp_path / "a" / "b" / "c", "x")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_folders_of_many_files_are_synced_once_at_the_end_and_each_file_before_it_is_there(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(stat.S_ISDIR(os.fstat(handle).st_mode)))
    with suppress(RuntimeError), folders_synced_last():
        for name in ("a/x", "a/y", "b/x"):
            atomic_write_text(tmp_path / name, "x")
        assert synced == [False] * 3
        raise RuntimeError
    assert synced == [False] * 3 + [True] * 3
    atomic_write_text(tmp_path / "b" / "y", "x")
    assert synced[6:] == [False, True]


HANGING = """
import sys, time
from pathlib import Path
from featlab.cache.atomic import atomic_path, atomic_folder
with atomic_path(Path("file")), atomic_folder(Path("folder")) as draft:
    (draft / "inner").write_text("x")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_drafts_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path, monkeypatch):
    """Also of one that died between the two renames which put a folder in the place of another."""
    monkeypatch.setattr("featlab.cache.atomic._NEW", 0.0)
    (tmp_path / "mine.partial").write_text("not ours")
    (tmp_path / "old.000000.partial").write_text("not ours")
    kept = set(os.listdir(tmp_path))
    writers = []
    try:
        for _ in range(2):
            command = [sys.executable, "-c", HANGING]
            writers.append(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE))
            writers[-1].stdout.readline()
        assert len(os.listdir(tmp_path)) == len(kept) + 4
        writers[0].kill()
        writers[0].wait()
        (dead,) = {path.name.split(".")[1] for path in tmp_path.glob("folder.*")} - drafts_after(tmp_path)
        (tmp_path / f"gone.{dead}.partial.old").mkdir()
        drafts_after(tmp_path)
        assert set(os.listdir(tmp_path)) - kept - {"new", "gone"} == {path.name for path in tmp_path.glob("f*.partial")}
        assert len(list(tmp_path.glob("f*.partial"))) == 2
        assert (tmp_path / "gone").is_dir()
        # A drive may not show the locks of another machine.
        (tmp_path / "x.ffffff00000000.partial").write_text("")
        drafts_after(tmp_path)
        assert (tmp_path / "x.ffffff00000000.partial").exists()
        os.utime(tmp_path / "x.ffffff00000000.partial", (1, 1))
        drafts_after(tmp_path)
        assert not (tmp_path / "x.ffffff00000000.partial").exists()
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


def drafts_after(folder):
    """The drafts of folders that are there once a new process has written a file."""
    _sweep.cache_clear()
    atomic_write_text(folder / "new", "x")
    return {path.name.split(".")[1] for path in folder.glob("folder.*")}


def test_sums_are_those_of_sha256sum_and_find_what_changed(tmp_path):
    with atomic_folder(tmp_path / "a") as draft:
        for name in ("one", "zwei ü"):
            atomic_write_text(draft / name, name)
    folder = tmp_path / "a"
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--quiet", "-c", SUMS], cwd=folder, check=True)
    check_sum(folder / "one", CacheError)
    (tmp_path / "unknown").write_text("of an older featlab, or somebody's own")
    check_sum(tmp_path / "unknown", CacheError)
    sums = (folder / SUMS).read_text()
    for cut in ("", sums[:-3]):
        (folder / SUMS).write_text(cut)
        with pytest.raises(CacheError, match="not what was written"):
            check_sum(folder / "zwei ü", CacheError)
    (folder / SUMS).write_text(sums)
    (folder / "one").write_bytes((folder / "zwei ü").read_bytes())
    with pytest.raises(CacheError, match="not what was written"):
        check_sum(folder / "one", CacheError)

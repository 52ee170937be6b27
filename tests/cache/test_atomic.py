"""A file is whole or not there."""

import errno
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest

from featlab.cache.atomic import atomic_folder, atomic_path, atomic_write_bytes, atomic_write_text
from featlab.errors import FeatlabError


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    atomic_write_text(tmp_path / "deep" / "er" / "a.txt", "zwei\r\nZeilen ü")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "zwei\r\nZeilen ü".encode()
    atomic_write_bytes(tmp_path / "b", b"\0")
    assert (tmp_path / "b").read_bytes() == b"\0"
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "real")
    atomic_write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "deep" / "real").read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["b", "deep", "link"]


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


def test_importing_the_package_loads_neither_numpy_nor_h5py():
    told = "print([name for name in ('numpy', 'h5py') if name in sys.modules])"
    script = f"import sys, featlab.cache\n{told}\nfrom featlab.cache import FeatureTable, Rows\n{told}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n['numpy']\n"


def test_a_drive_that_syncs_nothing_is_written_to(tmp_path, monkeypatch):
    for number in (errno.EINVAL, errno.ENOTSUP, errno.EIO):

        def unsupported(handle, number=number):
            raise OSError(number, "x")

        monkeypatch.setattr("os.fsync", unsupported)
        expected = pytest.raises(FeatlabError) if number == errno.EIO else nullcontext()
        with expected:
            atomic_write_text(tmp_path / str(number), "x")
        assert (tmp_path / str(number)).exists() == (number != errno.EIO)

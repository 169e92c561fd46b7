"""Oracles: the XDG base directory rule, and the folder's listing."""

from pathlib import Path

import pytest

from bytelm.errors import DataError
from bytelm.files import cache_directory, write_aside


def test_the_own_variable_wins_then_xdg_then_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("BYTELM_CACHE", "~/own")
    assert cache_directory() == Path("/home/someone/own")
    monkeypatch.delenv("BYTELM_CACHE")
    assert cache_directory() == Path("/xdg/bytelm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path("/home/someone/.cache/bytelm")


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file"
    with write_aside(path) as stream:
        stream.write(b"whole")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == b"whole"


def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with write_aside(path) as stream:
            stream.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_data_error():
    with (
        pytest.raises(DataError, match="cannot write /dev/full-file"),
        write_aside(Path("/dev/full-file")),
    ):
        raise OSError(28, "No space left on device")

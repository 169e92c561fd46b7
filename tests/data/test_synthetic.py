"""Oracles: the uniform distribution, and the listing of the standard library."""

import sysconfig
from pathlib import Path

import numpy as np
import pytest

from bytelm.data import random_bytes, standard_library_files
from bytelm.errors import DataError


def test_random_bytes_are_seeded_and_uniform():
    data = random_bytes(100_000, seed=1)
    assert len(data) == 100_000
    assert data == random_bytes(100_000, seed=1) != random_bytes(100_000, seed=2)
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    expected = len(data) / 256
    # Chi-square, 255 degrees of freedom, p = 0.001 on either side.
    assert 190 < ((counts - expected) ** 2 / expected).sum() < 331


def test_a_negative_number_of_bytes_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        random_bytes(-1, seed=0)


def test_the_library_is_found_without_its_tests():
    files = standard_library_files()
    top = Path(sysconfig.get_path("stdlib"))
    names = [path.relative_to(top).as_posix() for path in files]
    assert {"argparse.py", "json/decoder.py"} <= set(names)
    assert names == sorted(names)
    left_out = {"test", "tests", "idle_test", "idlelib", "encodings", "site-packages"}
    assert not [name for name in names if left_out & set(name.split("/"))]
    assert sum(path.stat().st_size for path in files) > 4_000_000


def test_a_stripped_library_is_an_error(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test/test_x.py").touch()
    with pytest.raises(DataError, match=r"no Python source in .*; give the path"):
        standard_library_files(tmp_path)

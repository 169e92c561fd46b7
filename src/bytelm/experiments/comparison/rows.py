"""The rows of a comparison: training and validation at once, the test when all is trained."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from bytelm.data.pairs import (
    MAX_FILE_BYTES,
    Pair,
    PairSplits,
    fingerprint,
    read_pairs,
    split_pairs,
)
from bytelm.data.tasks import generate
from bytelm.errors import ConfigError, DataError
from bytelm.experiments.comparison.plan import ComparisonPlan


@dataclass(frozen=True)
class Rows:
    """The rows of a plan; nothing but `test` opens a test file."""

    plan: ComparisonPlan

    @cached_property
    def splits(self) -> PairSplits:
        """Training and validation rows; the test rows only where they are cut from one file.

        Raises:
            BytelmError: There is neither a file nor a task, or the file cannot be used.

        """
        data = self.plan.data
        if data.train_csv is not None:
            pairs = read_pairs(Path(data.train_csv), max_bytes=self.plan.model.max_bytes)
        elif self.plan.task is not None:
            pairs = generate(self.plan.task, data.num_train, seed=data.seed)
            _require_fitting(pairs, self.plan.model.max_bytes)
        else:
            raise ConfigError(
                "the plan has neither a task nor rows; name a file with --train-csv PATH"
            )
        return split_pairs(
            pairs,
            valid_fraction=data.valid_fraction,
            test_fraction=data.test_fraction if self._is_cut else 0.0,
            seed=data.seed,
        )

    @property
    def for_training(self) -> PairSplits:
        """What a training gets: no test row is among it."""
        return PairSplits(self.splits.train, self.splits.valid, ())

    @property
    def settings(self) -> dict[str, Any]:
        """What the training and validation rows are, JSON-able."""
        return {
            "train": fingerprint(self.splits.train),
            "valid": fingerprint(self.splits.valid),
        }

    @property
    def test_settings(self) -> dict[str, Any]:
        """What decides the test rows, JSON-able; a file is not opened, but asked for its date.

        Raises:
            DataError: There is no such file, or one look from outside tells that it is no test.

        """
        data = self.plan.data
        if data.test_csv is not None:
            found = _looked_at(data.test_csv)
            assert data.train_csv is not None, "checked by PairData"
            if Path(data.train_csv).samefile(data.test_csv):
                raise DataError(
                    f"the test file {data.test_csv} is the training file: expected rows that "
                    "nothing was learned from; leave it out, and rows of it are kept for the test"
                )
            own = {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
        elif self._is_cut:
            own = {"cut": fingerprint(self.splits.test)}
        else:
            own = {"task": self.plan.task, "num_test": data.num_test, "seed": data.seed}
        return {**self.settings, "max_bytes": self.plan.model.max_bytes, **own}

    def test(self) -> list[Pair]:
        """Read, cut or draw the test rows.

        Raises:
            DataError: The file cannot be used, or the task has no other rows.

        """
        data = self.plan.data
        if data.test_csv is not None:
            return read_pairs(Path(data.test_csv), max_bytes=self.plan.model.max_bytes)
        if self._is_cut:
            return list(self.splits.test)
        assert self.plan.task is not None
        known = {pair.input for pair in (*self.splits.train, *self.splits.valid)}
        return generate(self.plan.task, data.num_test, seed=data.seed, part="test", exclude=known)

    @cached_property
    def mean_bytes(self) -> tuple[float, float]:
        """Of the training inputs and targets."""
        train = self.splits.train
        return (
            fmean(len(pair.input.encode()) for pair in train),
            fmean(len(pair.target.encode()) for pair in train),
        )

    def describe(self) -> dict[str, Any]:
        """What the rows are, for the record."""
        splits, data = self.splits, self.plan.data
        test = len(splits.test) if self._is_cut else data.num_test
        mean_input, mean_target = self.mean_bytes
        return {
            "task": self.plan.task,
            "source": "generated" if data.train_csv is None else "file",
            "train_fingerprint": fingerprint(splits.train),
            "rows": {
                "train": len(splits.train),
                "valid": len(splits.valid),
                # A file that was not opened has rows that nobody counted.
                "test": None if data.test_csv is not None else test,
            },
            "split_seed": data.seed,
            "longest_input_bytes": max(
                len(pair.input.encode()) for pair in (*splits.train, *splits.valid)
            ),
            "mean_input_bytes": mean_input,
            "mean_target_bytes": mean_target,
        }

    @property
    def _is_cut(self) -> bool:
        """Tell whether test rows come from the training file."""
        return self.plan.data.train_csv is not None and self.plan.data.test_csv is None


def _looked_at(path: str) -> os.stat_result:
    """What the system tells of a test file that nobody may open yet."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise DataError(f"cannot read the test file {path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"the test file {path} is a folder or a device, expected a CSV file")
    if not os.access(path, os.R_OK):
        raise DataError(f"the test file {path} may not be read; change its permissions")
    if not 0 < found.st_size <= MAX_FILE_BYTES:
        raise DataError(
            f"the test file {path} has {found.st_size:,} bytes, expected from 1 to "
            f"{MAX_FILE_BYTES:,}; give other rows"
        )
    return found


def _require_fitting(pairs: Sequence[Pair], max_bytes: int) -> None:
    """Refuse rows that are drawn and do not fit; those of files are refused by their line."""
    longest = max(len(text.encode()) for pair in pairs for text in (pair.input, pair.target))
    if longest > max_bytes:
        raise ConfigError(
            f"the task draws rows of {longest} bytes, and model.max_bytes is {max_bytes}; raise it"
        )

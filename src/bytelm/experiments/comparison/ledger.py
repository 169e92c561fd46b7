"""Where the trials of a search are kept: a journal file or a database, by Optuna.

A trial is one entry, begun with its point and its owner in one write, so that there is no half of
one. Only `search` imports this file: Optuna is an extra.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import DuplicatedStudyError, OptunaError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from bytelm.errors import ConfigError, RunError
from bytelm.experiments.comparison.space import Dimension, Params, without_password

_FIRST_BY_CHANCE = 5
"""Points drawn at random before the estimators choose: Optuna's ten are most of a small budget."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A trial that counts, as the storage has it."""

    number: int
    """In the storage; those that do not count have numbers too."""

    params: Params
    """Its point."""

    owner: str
    """Who runs it, or ran it."""

    is_running: bool
    """Neither complete nor failed."""

    beats: int
    """Signs of life so far."""

    value: float | None
    """Of a complete one."""

    details: dict[str, Any]
    """Of a complete one; otherwise empty."""

    error: str | None
    """Of a failed one."""

    seconds: float
    """Of one that is over."""


class Ledger:
    """The trials of one search."""

    def __init__(self, storage: str | Path, *, name: str, owner: str) -> None:
        self._place = without_password(str(storage))
        self._owner = owner
        with self._errors():
            self._storage = _opened(storage)
            self._study = _study(self._storage, name)

    def entries(self) -> list[Entry]:
        """The trials that count, in the order of their numbers."""
        return [_entry(trial) for trial in self._trials() if _counts(trial)]

    def add(self, params: Params, space: Sequence[Dimension], *, budget: int) -> None:
        """Begin a trial, unless another machine begins the same or the last one first."""
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=_distributions(space),
            user_attrs={"owner": self._owner},
        )
        # Optuna leaves the date of a trial that runs to the caller.
        trial.datetime_start = datetime.now()
        with self._errors():
            number = self._storage.get_trial(
                self._storage.create_new_trial(self._study, template_trial=trial)
            ).number
        entries = self.entries()
        before = [entry for entry in entries if entry.number < number]
        (own,) = (entry for entry in entries if entry.number == number)
        if len(before) >= budget or any(entry.params == params for entry in before):
            self.drop(own, "another machine was first")

    def beat(self, entry: Entry, count: int) -> None:
        """Leave a sign of life."""
        try:
            self._write(entry, None, beats=count)
        except RunError as error:
            log.warning("no sign of life was left: %s", error)

    def complete(
        self, entry: Entry, *, value: float, details: dict[str, Any], seconds: float
    ) -> None:
        """Write down the score of a trial."""
        outcome = {"details": details, "seconds": seconds}
        self._write(entry, TrialState.COMPLETE, value, outcome=outcome)

    def fail(self, entry: Entry, *, error: str, seconds: float) -> None:
        """Write down why a trial failed."""
        self._write(entry, TrialState.FAIL, outcome={"error": error, "seconds": seconds})

    def drop(self, entry: Entry, why: str) -> None:
        """Let a trial not count."""
        self._write(entry, TrialState.FAIL, dropped=why)

    def _write(
        self, entry: Entry, state: TrialState | None, value: float | None = None, **notes: Any
    ) -> None:
        """Write notes, and then the state that makes them final."""
        with self._errors():
            trial = self._storage.get_trial_id_from_study_id_trial_number(self._study, entry.number)
            try:
                for name, note in notes.items():
                    self._storage.set_trial_user_attr(trial, name, note)
                if state is not None:
                    values = None if value is None else [value]
                    self._storage.set_trial_state_values(trial, state, values)
            except UpdateFinishedTrialError:
                log.warning("a trial was ended by another machine, which took this one for dead")

    def _trials(self) -> list[FrozenTrial]:
        with self._errors():
            return self._storage.get_all_trials(self._study)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say of what file or database an error is."""
        try:
            yield
        except ImportError as error:
            raise ConfigError(
                f"{self._place} needs a package that is missing ({error.__cause__ or error}); "
                "install it, or name a file"
            ) from error
        except OSError as error:
            raise RunError(f"{self._place} cannot be used: {error.strerror or error}") from error
        except (OptunaError, SQLAlchemyError, LookupError, TypeError, ValueError) as error:
            # The rest are pages of the library's advice, some of which repeat the address.
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise RunError(
                f"{self._place} does not work as a storage of trials ({reason}); give another file "
                "or database"
            ) from error


@contextmanager
def quiet(to: logging.Logger) -> Iterator[None]:
    """Keep Optuna from writing to the terminal, and send its warnings to a log of ours."""
    theirs = logging.getLogger("optuna")
    kept, level = list(theirs.handlers), theirs.level
    theirs.handlers = [_Forward(to)]
    theirs.setLevel(logging.WARNING)
    try:
        yield
    finally:
        theirs.handlers = kept
        theirs.setLevel(level)


def sample(space: Sequence[Dimension], entries: Sequence[Entry], *, seed: int) -> Params:
    """Choose a point from what the complete trials have shown."""
    distributions = _distributions(space)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_FIRST_BY_CHANCE)
    study = optuna.create_study(sampler=sampler, direction="minimize")
    for entry in entries:
        if entry.value is not None:
            study.add_trial(
                create_trial(params=entry.params, distributions=distributions, value=entry.value)
            )
    return study.ask(distributions).params


class _Forward(logging.Handler):
    """Hands records to a log."""

    def __init__(self, to: logging.Logger) -> None:
        super().__init__()
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        self._to.handle(record)


class _Journal(BaseJournalBackend):
    """A file of one JSON object a line, locked by the system: a lock that dies with its owner.

    Optuna's own locks are files, which a killed process leaves behind for half a minute, and a
    line that it was killed in makes its journal unreadable.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        self._file = file

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        # What follows the last line end is still being written, or was never finished.
        whole = self._file.read_bytes().split(b"\n")[:-1]
        return map(json.loads, whole[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(f"{json.dumps(log)}\n" for log in logs)
        with self._file.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())


def _opened(storage: str | Path) -> BaseStorage:
    if "://" in str(storage):
        return RDBStorage(str(storage))
    return JournalStorage(_Journal(Path(storage)))


def _study(storage: BaseStorage, name: str) -> int:
    """The number of a search in its storage, entered there if needed."""
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        try:
            return storage.create_new_study([StudyDirection.MINIMIZE], name)
        except DuplicatedStudyError:
            return storage.get_study_id_from_name(name)


def _counts(trial: FrozenTrial) -> bool:
    return "owner" in trial.user_attrs and "dropped" not in trial.user_attrs


def _entry(trial: FrozenTrial) -> Entry:
    outcome = trial.user_attrs.get("outcome", {})
    is_running = not trial.state.is_finished()
    return Entry(
        number=trial.number,
        params=trial.params,
        owner=trial.user_attrs["owner"],
        is_running=is_running,
        beats=trial.user_attrs.get("beats", 0),
        value=None if is_running else trial.value,
        details={} if is_running else outcome.get("details", {}),
        error=None if is_running else outcome.get("error"),
        seconds=0.0 if is_running else outcome.get("seconds", 0.0),
    )


def _distributions(space: Sequence[Dimension]) -> dict[str, BaseDistribution]:
    return {dimension.key: _distribution(dimension) for dimension in space}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.low is None or dimension.high is None:
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)

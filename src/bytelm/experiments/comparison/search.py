"""The search of settings: one model, a space, a budget of trials; resumes, and may be shared.

Trial n depends on the seed, on n and on the trials that finished before it, and on nothing else: a
search that was killed goes on as the one that was not. A space with no more points than trials is
tried whole, in order; of a larger one Optuna's tree of Parzen estimators chooses (Bergstra et al.
2011), and never the same point twice. A trial whose settings make it fail counts, is recorded and
is passed over; one that a full disk or a missing package ends is taken up again by the next start.

Several machines may share one storage. A trial belongs to the study directory that began it; one
that shows no life for long is given up, and its place in the budget is free again.
"""

import hashlib
import itertools
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.errors import BytelmError, CheckpointError, ConfigError
from bytelm.experiments.comparison.space import Dimension, Params, size_of
from bytelm.training.step import is_out_of_memory

if TYPE_CHECKING:
    from bytelm.experiments.comparison.ledger import Entry, Ledger

POLL_SECONDS = 5.0
"""Between looks at trials that other machines run."""

NEWS_SECONDS = 60.0
"""Between lines that say that one waits, and between signs of life of a trial that runs."""

STALE_SECONDS = 600.0
"""A trial without a sign of life for so long is taken for dead."""

_OF_SETTINGS = (BytelmError, ValueError, ArithmeticError, MemoryError, RuntimeError)
"""What a trial may fail with because of what it tries."""

_SAMPLES = 100
"""Drawn before a point that was not tried yet is looked for in order."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a trial found."""

    value: float
    """Lower is better."""

    details: dict[str, Any] = field(default_factory=dict)
    """JSON-able; kept beside it."""


Objective = Callable[[Params], Score]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial that is over."""

    index: int
    """Among those that count, in the order in which they began."""

    params: Params
    """What was tried."""

    value: float | None
    """None where it failed."""

    details: dict[str, Any]
    """Of its score; empty where it failed."""

    error: str | None
    """Why it failed."""

    seconds: float
    """Of its last start."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the trials of a search are kept, and who works on them here."""

    storage: str | Path
    """A journal file, or the address of a database."""

    name: str
    """Of the search in that storage: the same for all who share it, and for nobody else."""

    owner: str
    """Whose trials are taken up again here."""


def search(
    space: Sequence[Dimension], objective: Objective, *, trials: int, seed: int, place: Place
) -> list[Trial]:
    """Run, or go on running, a search until its budget is spent.

    Args:
        space: What may be varied.
        objective: Scores one point; it is called again with the same point after a kill.
        trials: The budget; a smaller space is tried whole and no more.
        seed: Of the choice of points.
        place: Where the trials are kept.

    Returns:
        The trials that count, in order. A search that ended with failed ones alone is begun anew.

    Raises:
        ConfigError: Optuna, or the driver of a database, is not installed.
        RunError: The storage cannot be used, or is damaged.
        Exception: What ended a trial and is no matter of its settings, as a full disk.

    """
    budget = min(trials, size_of(space) or trials)
    with _ledger(place, budget) as ledger:
        patience = _Patience()
        while True:
            entries = ledger.entries()
            own = next((e for e in entries if e.is_running and e.owner == place.owner), None)
            if own is not None:
                _run(own, objective, ledger, budget, number=entries.index(own) + 1)
            elif len(entries) < budget:
                point = _proposed(space, entries, budget=budget, seed=seed)
                ledger.add(point, space, budget=budget)
            elif any(entry.is_running for entry in entries):
                for entry in patience.given_up(entries):
                    ledger.drop(entry, "showed no life")
            else:
                return [_trial(index, entry) for index, entry in enumerate(entries)]


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial of the lowest value, the earlier of two; None where all failed."""
    complete = [trial for trial in trials if trial.value is not None]
    return min(complete, key=lambda trial: (trial.value, trial.index), default=None)


@contextmanager
def _ledger(place: Place, budget: int) -> Iterator["Ledger"]:
    """Open the storage, with Optuna's own log sent to ours; pass over what is all failures."""
    try:
        from bytelm.experiments.comparison import ledger
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a search needs the package {error.name!r}, which is missing: "
            "pip install 'bytelm[search]'"
        ) from error
    with ledger.quiet(log):
        for attempt in itertools.count(1):
            name = place.name if attempt == 1 else f"{place.name} {attempt}"
            opened = ledger.Ledger(place.storage, name=name, owner=place.owner)
            entries = opened.entries()
            if len(entries) < budget or any(entry.error is None for entry in entries):
                yield opened
                return
            log.warning("all %d trials of the search have failed: they are tried again", budget)


def _proposed(
    space: Sequence[Dimension], entries: Sequence["Entry"], *, budget: int, seed: int
) -> Params:
    """The point of the next trial: a function of the seed and of the trials so far."""
    from bytelm.experiments.comparison import ledger

    tried = {_spelled(entry.params) for entry in entries}
    if size_of(space) != budget:
        for draw in range(_SAMPLES):
            drawn = hashlib.blake2b(f"{seed} {len(entries)} {draw}".encode(), digest_size=4)
            params = ledger.sample(space, entries, seed=int.from_bytes(drawn.digest()))
            if _spelled(params) not in tried:
                return params
    return next(params for params in _points(space) if _spelled(params) not in tried)


def _points(space: Sequence[Dimension]) -> Iterator[Params]:
    """Every point, in order; not `itertools.product`, which would hold all of a long range."""
    if not space:
        yield {}
        return
    first, *others = space
    for value in first.points or ():
        for params in _points(others):
            yield {first.key: value, **params}


def _spelled(params: Params) -> str:
    return json.dumps(params, sort_keys=True)


def _run(
    entry: "Entry", objective: Objective, ledger: "Ledger", budget: int, *, number: int
) -> None:
    """Score a trial and write down what came of it."""
    spelled = ", ".join(f"{key} = {value}" for key, value in entry.params.items())
    log.info("trial %d of %d: %s", number, budget, spelled)
    begun = time.monotonic()
    try:
        with _alive(entry, ledger):
            score = objective(entry.params)
        if not math.isfinite(score.value):
            raise ValueError(f"the score is {score.value}, expected a finite number")
    except _OF_SETTINGS as error:
        if not _is_of_settings(error):
            raise
        reason = f"{type(error).__name__}: {error}"
        log.warning("trial %d of %d failed: %s", number, budget, reason)
        ledger.fail(entry, error=reason, seconds=time.monotonic() - begun)
        return
    log.info("trial %d of %d: %.4f", number, budget, score.value)
    ledger.complete(
        entry, value=score.value, details=score.details, seconds=time.monotonic() - begun
    )


def _is_of_settings(error: BaseException) -> bool:
    """Tell whether the same trial would fail in the same way on any day."""
    if isinstance(error, CheckpointError | OSError | ImportError):
        return False
    if isinstance(error, RuntimeError) and not is_out_of_memory(error):
        # Of the driver of a GPU, for one.
        return False
    return error.__cause__ is None or _is_of_settings(error.__cause__)


@contextmanager
def _alive(entry: "Entry", ledger: "Ledger") -> Iterator[None]:
    """Show those who share the storage that this trial is being worked on."""
    over = threading.Event()

    def beat() -> None:
        count = entry.beats
        while not over.wait(NEWS_SECONDS):
            count += 1
            ledger.beat(entry, count)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Patience:
    """Waits for the trials of others, by this machine's clock alone."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}
        self._said = -math.inf

    def given_up(self, entries: Sequence["Entry"]) -> list["Entry"]:
        """Wait a little; the trials whose sign of life has not changed for too long."""
        running = [entry for entry in entries if entry.is_running]
        now = time.monotonic()
        for entry in running:
            if self._seen.get(entry.number, (None,))[0] != entry.beats:
                self._seen[entry.number] = (entry.beats, now)
        stale = [e for e in running if now - self._seen[e.number][1] >= STALE_SECONDS]
        if not stale:
            if now - self._said >= NEWS_SECONDS:
                log.info("waiting for %d trials of other machines", len(running))
                self._said = now
            time.sleep(POLL_SECONDS)
        return stale


def _trial(index: int, entry: "Entry") -> Trial:
    return Trial(
        index=index,
        params=entry.params,
        value=entry.value,
        details=entry.details,
        error=entry.error,
        seconds=entry.seconds,
    )

"""Stages: what a study is made of, keyed by what they depend on and run in order.

A stage is a pure function of its settings and of the values of the stages it needs. Its key is a
hash of both, so a stage that was done is never done again, and a changed setting makes another key:
nothing that an older setting made is ever taken for it. Killed anywhere and started again, a study
ends with the values of one that was never killed.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bytelm.errors import BytelmError
from bytelm.experiments.store import Store

FAILURES = (
    BytelmError,
    OSError,
    ValueError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    ImportError,
)
"""What ends a stage and not the study: bad data, a full disk, numbers, memory, a missing package.
Anything else is a mistake in this program and is shown as one."""

State = Literal["pending", "done", "failed", "skipped"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage is given."""

    settings: dict[str, Any]
    """The stage's own; what decides its values must be here or in `inputs`."""

    inputs: dict[str, dict[str, Any]]
    """Values of the stages it needs, by the role that each plays."""

    folder: Path
    """The stage's own folder for large files. Not made yet; it may hold what an earlier, killed
    start of the same stage left."""

    folders: dict[str, Path]
    """Folders of the stages it needs, by role."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage returns."""

    values: dict[str, Any]
    """JSON-able; the same for the same settings and inputs."""

    timing: dict[str, Any] = field(default_factory=dict)
    """JSON-able; what another run of the same stage measures differently. No stage reads it."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a study."""

    name: str
    """Unique in its study, for people."""

    task: str
    """What is done, one word; of the stages of a task only settings and inputs differ."""

    version: int
    """Of the task's code: raised when the same settings and inputs would give other values."""

    settings: dict[str, Any]
    """JSON-able."""

    run: Callable[[Work], Outcome]
    """Does it."""

    needs: Mapping[str, str] = field(default_factory=dict)
    """Role to the name of an earlier stage."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Where a stage stands."""

    name: str
    """The stage's."""

    task: str
    """The stage's."""

    key: str
    """Hash of all that decides the values, 32 hexadecimal digits."""

    state: State = "pending"
    """`skipped` means that a stage it needs has failed."""

    values: dict[str, Any] | None = None
    """Of a stage that is done."""

    timing: dict[str, Any] | None = None
    """Of a stage that is done; `stage_seconds` is added to what it returned."""

    error: str | None = None
    """Why it failed or was skipped."""


def stage_keys(stages: Sequence[Stage]) -> dict[str, str]:
    """Return the key of each stage, by name.

    Raises:
        ValueError: A name is used twice, or a stage needs one that does not come before it.

    """
    keys: dict[str, str] = {}
    for stage in stages:
        if stage.name in keys:
            raise ValueError(f"two stages are called {stage.name!r}")
        for role, name in stage.needs.items():
            if name not in keys:
                raise ValueError(
                    f"stage {stage.name!r} needs {name!r} as its {role}, which does not come "
                    "before it"
                )
        needed = {role: keys[name] for role, name in stage.needs.items()}
        depends_on = [stage.task, stage.version, stage.settings, needed]
        text = json.dumps(depends_on, sort_keys=True, allow_nan=False)
        keys[stage.name] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return keys


def run_stages(
    stages: Sequence[Stage],
    store: Store,
    *,
    on_change: Callable[[Sequence[StageResult]], None],
) -> list[StageResult]:
    """Run the stages that are not done yet, in order.

    Args:
        stages: Each after those it needs. Stages of one key are one stage with several names.
        store: Where results are kept and found again.
        on_change: Called with the state of all stages at the start and after each.

    Returns:
        The state of each stage, in order: a failed one does not stop those that can do without it.

    Raises:
        ValueError: As of `stage_keys`.
        RunError: A result cannot be saved.
        CheckpointError: A saved one is damaged.

    """
    results = {}
    for name, key in stage_keys(stages).items():
        task = next(stage.task for stage in stages if stage.name == name)
        results[name] = _found(StageResult(name=name, task=task, key=key), store)
    on_change(list(results.values()))
    for number, stage in enumerate(stages, start=1):
        if results[stage.name].state == "done":
            continue
        log.info("[%d/%d] %s", number, len(stages), stage.name)
        results[stage.name] = _made(stage, results, store)
        on_change(list(results.values()))
    return list(results.values())


def _found(pending: StageResult, store: Store) -> StageResult:
    """The saved result of a stage, or the pending one as it is."""
    saved = store.read(pending.task, pending.key)
    if saved is None:
        return pending
    return replace(pending, state="done", values=saved["values"], timing=saved["timing"])


def _made(stage: Stage, results: Mapping[str, StageResult], store: Store) -> StageResult:
    """The result of a stage, made now if its needs allow it; or why there is none."""
    # A stage of the same key and another name may have been done by now.
    pending = _found(results[stage.name], store)
    if pending.state == "done":
        return pending
    missing = [name for name in stage.needs.values() if results[name].state != "done"]
    if missing:
        log.warning("%s: passed over, as %s has no result", stage.name, missing[0])
        return replace(pending, state="skipped", error=f"needs {missing[0]}, which has no result")
    try:
        saved = _run(stage, results, store)
    except FAILURES as error:
        reason = f"{type(error).__name__}: {error}"
        log.error("%s: failed: %s", stage.name, reason)
        log.debug("%s", stage.name, exc_info=True)
        return replace(pending, state="failed", error=reason)
    store.write(stage.task, pending.key, saved)
    return _found(pending, store)


def _run(stage: Stage, results: Mapping[str, StageResult], store: Store) -> dict[str, Any]:
    """Do the work; what is kept of it, as it looks after a trip through JSON."""
    needed = {role: results[name] for role, name in stage.needs.items()}
    begun = time.monotonic()
    outcome = stage.run(
        Work(
            settings=stage.settings,
            inputs={role: result.values or {} for role, result in needed.items()},
            folder=store.folder(stage.task, results[stage.name].key),
            folders={role: store.folder(r.task, r.key) for role, r in needed.items()},
        )
    )
    timing = {**outcome.timing, "stage_seconds": time.monotonic() - begun}
    saved = {
        "stage": stage.name,
        "version": stage.version,
        "settings": stage.settings,
        "needs": {role: result.key for role, result in needed.items()},
        "values": outcome.values,
        "timing": timing,
    }
    # A number that is not finite fails here and not in the reader of the file.
    return json.loads(json.dumps(saved, allow_nan=False))

"""What a checkpoint of a run holds, and how a run goes on from it, bit for bit on a CPU."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from bytelm import models
from bytelm.errors import CheckpointError
from bytelm.models import AnyModel
from bytelm.training import checkpoints
from bytelm.training.checkpoints import Checkpoint
from bytelm.training.loop import RunState
from bytelm.training.step import Stepper, random_states, set_random_states

OPTIMIZER, RANDOM = "optimizer.", "random."
"""Prefixes of the names of tensors in optimizer.safetensors."""


def save(
    out: Path,
    state: RunState,
    model: AnyModel,
    stepper: Stepper | None = None,
    *,
    keep_every: int | None,
) -> None:
    """Write a checkpoint, let `last` (and `best`) name it, and remove those not wanted any more.

    Args:
        out: Run directory.
        state: Where the run is.
        model: Its model.
        stepper: Holds the optimizer; None for a model that has none.
        keep_every: Keep the checkpoints of multiples of this step.

    Raises:
        CheckpointError: It cannot be written; what was saved before is as it was.

    """
    tensors: dict[str, Tensor] = {}
    scaler = {}
    if stepper is not None:
        optimizer, random = stepper.optimizer.state_dict(), random_states(stepper.device)
        tensors |= {OPTIMIZER + name: tensor for name, tensor in optimizer.items()}
        tensors |= {RANDOM + name: tensor for name, tensor in random.items()}
        scaler = stepper.scaler.state_dict()
    folder = checkpoints.save(
        out,
        step=state.step,
        definition=models.definition(model),
        model=model.state_dict(),
        optimizer=tensors,
        state={"run": state.to_dict(), "scaler": scaler},
    )
    checkpoints.point(out, "last", folder.name)
    _tidy(out, state, keep_every)


def last(out: Path, *, keep_every: int | None) -> Checkpoint | None:
    """The checkpoint to go on from, after clearing up what an interruption left; None at first.

    Raises:
        CheckpointError: It is damaged.

    """
    folder = checkpoints.pointed(out, "last")
    if folder is None:
        checkpoints.prune(out, keep=())
        return None
    checkpoint = checkpoints.read(folder)
    _tidy(out, state_of(checkpoint), keep_every)
    return checkpoint


def state_of(checkpoint: Checkpoint) -> RunState:
    """Where the run was.

    Raises:
        CheckpointError: The state is not one that `save` wrote.

    """
    stored = checkpoint.state
    run, scaler = stored.get("run"), stored.get("scaler")
    if isinstance(run, dict) and isinstance(scaler, dict) and _is_run_state(run):
        return RunState(**run)
    raise CheckpointError(
        f"{checkpoint.path / checkpoints.STATE} does not say where a run was, expected the tables "
        "'run' and 'scaler' of this version of bytelm; use another checkpoint of the run, or "
        "choose another --out"
    )


def _is_run_state(run: dict[str, Any]) -> bool:
    numbers = [run.get(name) for name in ("micro_rows", "step", "bytes_seen")]
    history, best, seconds = run.get("valid_history"), run.get("best_step"), run.get("seconds")
    return (
        run.keys() == {field.name for field in fields(RunState)}
        and all(type(number) is int and number >= 0 for number in numbers)
        and run["micro_rows"] >= 1
        and type(seconds) in (int, float)
        and isinstance(history, list)
        and all(type(value) in (int, float) for value in history)
        and (best is None or type(best) is int)
    )


def restore(checkpoint: Checkpoint, stepper: Stepper) -> None:
    """Put optimizer, loss scale and random generators back to where they were.

    Raises:
        CheckpointError: It has none, because its model was imported.

    """
    tensors = checkpoint.optimizer_state()
    if not tensors:
        raise CheckpointError(
            f"{checkpoint.path} was imported, not trained: there is no optimizer to go on with; "
            "begin a run of your own with its weights, with --init and another --out"
        )
    stepper.optimizer.load_state_dict(_without_prefix(tensors, OPTIMIZER))
    set_random_states(_without_prefix(tensors, RANDOM), stepper.device)
    if checkpoint.state["scaler"]:
        stepper.scaler.load_state_dict(checkpoint.state["scaler"])


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _tidy(out: Path, state: RunState, keep_every: int | None) -> None:
    """Make `best` and the folders those that belong to `state`."""
    keep = {state.step, state.best_step if state.best_step is not None else state.step}
    if keep_every is not None:
        keep |= set(range(keep_every, state.step + 1, keep_every))
    if state.best_step is not None:
        checkpoints.point(out, "best", f"step-{state.best_step}")
    checkpoints.prune(out, keep={f"step-{step}" for step in keep})

"""What every training does around an update: the stepper, advice when it fails, rows shown."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn

from bytelm import models
from bytelm.errors import RunError
from bytelm.training import checkpoints
from bytelm.training.loop import RunState
from bytelm.training.metrics import MetricsFile, Record, TensorBoard
from bytelm.training.optimizers import OptimConfig, Optimizer
from bytelm.training.precision import Precision, autocast_dtype, gradient_scaler
from bytelm.training.progress import ProgressDisplay
from bytelm.training.step import NotFiniteError, Stepper, Trainable, Update, is_out_of_memory


def make_stepper(
    model: nn.Module, optim: OptimConfig, *, precision: Precision, device: torch.device
) -> Stepper:
    """Put a model, its optimizers and its precision together.

    Raises:
        ConfigError: The device cannot compute in this precision.

    """
    dtype = autocast_dtype(precision, device)
    return Stepper(
        model,
        Optimizer(optim, model.named_parameters(), role=models.parameter_role),
        scaler=gradient_scaler(dtype, device),
        dtype=dtype,
        device=device,
    )


def make_update(
    stepper: Stepper, batch: Trainable, state: RunState, *, lr_scale: float, out: Path, shrink: str
) -> tuple[Update, float]:
    """Make the update after `state.step` updates; what it measured, and its learning rate.

    Args:
        stepper: Of the model.
        batch: All rows of the update.
        state: Where the run is.
        lr_scale: Factor on all learning rates.
        out: Run directory, for the advice.
        shrink: What to lower where a single row does not fit into memory.

    Raises:
        RunError: The numbers or the memory do not allow it; the weights are as they were.

    """
    optim = stepper.optimizer.config
    try:
        update = stepper.update(batch, micro_rows=state.micro_rows, lr_scale=lr_scale)
    except NotFiniteError as error:
        last = checkpoints.pointed(out, "last")
        raise RunError(
            f"step {state.step + 1}: {error}. The weights were not changed; the last good "
            f"checkpoint is {last or 'none, as none was saved yet'}. Try a lower optim.lr (now "
            f"{optim.lr:g}) or optim.matrix_lr (now {optim.resolved_matrix_lr:g}), or "
            "training.precision fp32, with another --out"
        ) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"step {state.step + 1}: out of memory with a single row; lower {shrink}"
        ) from error
    return update, optim.lr * lr_scale


@contextmanager
def open_records(
    out: Path, title: str, *, total_steps: int, first_step: int, tensorboard: bool, progress: bool
) -> Iterator[list[Record]]:
    """Everything that is given each row: files and the display.

    Args:
        out: Run directory.
        title: What is being trained.
        total_steps: Of the whole run.
        first_step: Steps that were made before.
        tensorboard: Write its curves too.
        progress: Show progress on stderr.

    Raises:
        RunError: TensorBoard is asked for and missing.

    """
    with ExitStack() as stack:
        file = MetricsFile(out, resume_step=first_step)
        stack.callback(file.close)
        records: list[Record] = [file]
        if tensorboard:
            board = TensorBoard(out, resume_step=first_step)
            stack.callback(board.close)
            records.append(board)
        if progress:
            display = ProgressDisplay(title, total_steps=total_steps, first_step=first_step)
            records.append(stack.enter_context(display))
        yield records

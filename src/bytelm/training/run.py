"""Train from a `RunConfig` to a run directory: data, patches, model and loop put together.

    RunConfig -> corpus -> splits -> entropy model -> threshold -> model -> loop -> runs/NAME

The same call goes on where an earlier one stopped, whatever stopped it, and ends as the earlier
one would have ended.
"""

import datetime
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bytelm import models
from bytelm.data import Batches, Corpus, Overlap, Splits, StreamStarts, build_corpus, split
from bytelm.errors import ConfigError, DataError
from bytelm.models import ByteModel, EntropySource, ModelConfig, Ngram, NgramConfig
from bytelm.training import environment, resume, run_directory
from bytelm.training.checkpoints import Checkpoint
from bytelm.training.entropy_source import cached_run, load_source, resolve_patcher
from bytelm.training.initial import with_initial
from bytelm.training.loading import build_byte_model
from bytelm.training.loop import Cadence, Evaluation, Hooks, RunState, run_loop
from bytelm.training.patch_store import is_worth_storing, stored_starts
from bytelm.training.schedules import lr_scale
from bytelm.training.settings import (
    Calibrated,
    DataConfig,
    EntropyOfInit,
    EntropyRecipe,
    EntropyRun,
    HardwareConfig,
    RunConfig,
    TrainingConfig,
)
from bytelm.training.step import Stepper, Update
from bytelm.training.updates import make_stepper, make_update, open_records
from bytelm.training.validation import Validation, streamed_bits_per_byte

__all__ = [
    "Calibrated",
    "DataConfig",
    "EntropyRecipe",
    "EntropyRun",
    "HardwareConfig",
    "RunConfig",
    "TrainResult",
    "TrainingConfig",
    "train",
]

LARGE_OVERLAP = 0.1
"""Share of a held-out split that may occur in training before a warning."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    run_dir: Path
    """Where everything is."""

    steps: int
    """Updates made, earlier starts included; 0 for an n-gram model."""

    best_valid_bpb: float | None
    """Bits per byte of the best evaluation; None without a validation split."""

    stopped_early: bool
    """Whether patience ended it before its last step."""


def train(
    config: RunConfig, out: str | Path, *, progress: bool = True, init: Path | None = None
) -> TrainResult:
    """Train, or go on training, the model of a recipe.

    Args:
        config: What to train.
        out: Run directory; made if needed. A finished run is left as it is.
        progress: Show progress on stderr.
        init: Run or checkpoint to begin with, if it is not at `config.init.path` (a directory of
            `transformers` is imported first).

    Raises:
        BytelmError: The data, the settings, the disk or the numbers do not allow it.
        KeyboardInterrupt: SIGINT or SIGTERM; the state is saved, the same call goes on.

    """
    config, initial = config.resolved(), None
    if config.init is not None:
        config, initial = with_initial(config, init)
    place = Path(out)
    return _train(config, place, corpus=None, initial=initial, wait=False, progress=progress)


def _train(
    config: RunConfig,
    out: Path,
    *,
    corpus: Corpus | None,
    initial: ByteModel | None,
    wait: bool,
    progress: bool,
) -> TrainResult:
    """As `train`, for settings that are resolved and filled in by `with_initial`.

    Args:
        config: What to train.
        out: Run directory.
        corpus: What `config.data` means, if known.
        initial: What `config.init` means; None without it.
        wait: For another process that trains the same.
        progress: Show progress on stderr.

    """
    device = environment.resolve_device(config.hardware.device)
    deterministic = config.training.deterministic
    with (
        run_directory.locked(out, wait=wait),
        environment.hardware_session(config.hardware, device, is_deterministic=deterministic),
    ):
        run_directory.require_same_settings(out, config)
        checkpoint = resume.last(out, keep_every=config.training.keep_every)
        if checkpoint is not None and _is_finished(config, resume.state_of(checkpoint)):
            return _result(config, out, resume.state_of(checkpoint))
        corpus = _corpus(config.data) if corpus is None else corpus
        run_directory.require_same_data(out, config, corpus.fingerprint)
        start = _Start(
            config=config,
            out=out,
            corpus=corpus,
            initial=initial,
            device=device,
            progress=progress,
        )
        if isinstance(config.model, NgramConfig):
            return _count(start, config.model)
        return _optimize(start, checkpoint)


@dataclass(frozen=True, kw_only=True)
class _Start:
    """One start of a run: its settings, data and place."""

    config: RunConfig
    out: Path
    corpus: Corpus
    initial: ByteModel | None
    device: torch.device
    progress: bool

    def splits(self) -> Splits:
        data = self.config.data
        return split(
            self.corpus,
            valid_fraction=data.valid_fraction,
            test_fraction=data.test_fraction,
            seed=data.split_seed,
        )

    def record(self, splits: Splits, **facts: Any) -> None:
        """Write the settings, and what can matter about this start."""
        run_directory.write_config(self.out, self.config)
        sizes = {name: getattr(splits, name).num_bytes for name in ("train", "valid", "test")}
        run_directory.record_start(
            self.out,
            data={
                "fingerprint": self.corpus.fingerprint,
                "bytes": sizes,
                "overlap": self._overlap(splits),
            },
            start={
                "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                **environment.describe(self.device),
                **facts,
            },
        )

    def _overlap(self, splits: Splits) -> dict[str, Any]:
        """What the held-out splits share with training, JSON-able; measured at the first start."""
        known = run_directory.read_environment(self.out).get("data", {}).get("overlap")
        if known is not None:
            return known
        _warn_of(splits.overlap)
        return asdict(splits.overlap)


def _warn_of(overlap: Overlap) -> None:
    """Log a warning where held-out data are no fair test of what was learned."""
    for name, share in (("validation", overlap.valid), ("test", overlap.test)):
        if share > LARGE_OVERLAP:
            log.warning(
                "%.0f %% of the %s bytes occur in the training data (blocks of 64 bytes): bits "
                "per byte on that split will look better than on new text; remove repeated files "
                "or passages, or keep related ones in one file",
                100 * share,
                name,
            )
    if overlap.duplicates:
        first = overlap.duplicates[0]
        log.warning(
            "%d held-out files are copies of training files (the first: %s of %s): a model that "
            "learned them by heart will look better than it is; remove the copies",
            len(overlap.duplicates),
            first.held_out,
            first.train,
        )


def _count(start: _Start, config: NgramConfig) -> TrainResult:
    """Fit an n-gram model, which takes one pass, and save it."""
    splits = start.splits()
    if not splits.train.num_bytes:
        raise DataError(
            f"the training split has no bytes (the corpus has {start.corpus.num_bytes:,}), "
            "expected at least 1; give files with text in them"
        )
    model = Ngram.fit(config, splits.train)
    start.record(splits)
    state = RunState(micro_rows=1, bytes_seen=splits.train.num_bytes)
    if splits.valid.num_bytes:
        max_bytes = start.config.training.eval_bytes
        state.note_evaluation(streamed_bits_per_byte(model, splits.valid, max_bytes=max_bytes))
    resume.save(start.out, state, model, keep_every=None)
    return _result(start.config, start.out, state)


def _optimize(start: _Start, checkpoint: Checkpoint | None) -> TrainResult:
    """Train from a checkpoint, or from fresh weights."""
    config, training, splits = start.config, start.config.training, start.splits()
    batches = Batches(
        splits.train,
        context_bytes=_context_bytes(config.model),
        rows=training.batch_rows * training.accumulate,
        seed=training.seed,
        stride=config.data.stride,
    )
    model, facts = _model(start, splits, checkpoint)
    stepper = make_stepper(
        model.to(start.device), config.optim, precision=training.precision, device=start.device
    )
    state = RunState(micro_rows=training.batch_rows)
    if checkpoint is not None:
        state = resume.state_of(checkpoint)
        resume.restore(checkpoint, stepper)
    model.train()
    planned_bytes = training.steps * batches.rows * batches.context_bytes
    is_stored = is_worth_storing(model, splits.train, planned_bytes=planned_bytes)
    start.record(splits, first_step=state.step, patch_starts_are_stored=is_stored, **facts)
    with ExitStack() as stack:
        records = stack.enter_context(
            open_records(
                start.out,
                f"{config.model.kind} {start.out.name[:20]}",
                total_steps=training.steps,
                first_step=state.step,
                tensorboard=training.tensorboard,
                progress=start.progress,
            )
        )
        train_starts = valid_starts = None
        if is_stored:
            train_starts = stack.enter_context(stored_starts(model, splits.train))
            valid_starts = stack.enter_context(stored_starts(model, splits.valid))
        hooks = Hooks(
            update=partial(_update, config, start.out, stepper, batches, train_starts),
            epoch=batches.epoch,
            evaluate=_evaluator(config, stepper, splits.valid, valid_starts),
            record=records,
            save=partial(
                resume.save,
                start.out,
                model=model,
                stepper=stepper,
                keep_every=training.keep_every,
            ),
        )
        run_loop(state, _cadence(config), hooks)
    return _result(config, start.out, state)


def _model(
    start: _Start, splits: Splits, checkpoint: Checkpoint | None
) -> tuple[ByteModel, dict[str, Any]]:
    """The checkpoint's model, or a fresh one; and what was measured to build it."""
    config = start.config
    if checkpoint is not None:
        return build_byte_model(checkpoint), {}
    if start.initial is not None:
        torch.manual_seed(config.training.seed)
        return start.initial, {}
    patcher, facts = None, {}
    source = _entropy_source(start)
    if config.patching is not None:
        max_bytes = config.training.eval_bytes
        patcher, found = resolve_patcher(config.patching, source, splits.valid, max_bytes=max_bytes)
        facts = {"calibration": found} if found else {}
    torch.manual_seed(config.training.seed)
    return models.build(config.model, patcher=patcher, entropy_model=source), facts


def _entropy_source(start: _Start) -> EntropySource | None:
    """The source of entropies that the recipe asks for, trained now if need be."""
    match start.config.entropy:
        case None:
            return None
        case EntropyOfInit():
            raise AssertionError("the model of `init` has its entropy model")
        case EntropyRun(path=path):
            return load_source(Path(path))
        case EntropyRecipe(recipe=recipe):
            recipe = _with_data_of(start.config, recipe)
            corpus = start.corpus if _is_same_data(start.config, recipe) else _corpus(recipe.data)
            run_dir = cached_run(recipe, corpus.fingerprint)
            _train(recipe, run_dir, corpus=corpus, initial=None, wait=True, progress=start.progress)
            return load_source(run_dir)


def _with_data_of(config: RunConfig, recipe: RunConfig) -> RunConfig:
    """The entropy recipe of a run, with the run's hardware, and its data where it has none."""
    # The stride is counted for the rows of the run's model; the entropy model has its own.
    data = recipe.data if recipe.data.paths else replace(config.data, stride=None)
    return replace(recipe, data=data, hardware=config.hardware)


def _is_same_data(one: RunConfig, other: RunConfig) -> bool:
    """Whether two recipes mean the same corpus, before it is divided."""
    return (one.data.paths, one.data.suffixes) == (other.data.paths, other.data.suffixes)


def _context_bytes(model: ModelConfig) -> int:
    assert not isinstance(model, NgramConfig), "counted, not trained"
    return model.context_bytes


def _corpus(data: DataConfig) -> Corpus:
    if not data.paths:
        raise ConfigError("data.paths is empty: name files or folders with --data PATH")
    return build_corpus(data.paths, suffixes=data.suffixes)


def _update(
    config: RunConfig,
    out: Path,
    stepper: Stepper,
    batches: Batches,
    starts: StreamStarts | None,
    state: RunState,
) -> tuple[Update, float]:
    """Make the update after `state.step` updates; what it measured, and its learning rate."""
    scale = lr_scale(
        config.schedule,
        step=state.step,
        total_steps=config.training.steps,
        history=state.valid_history,
    )
    return make_update(
        stepper,
        batches.batch(state.step, starts),
        state,
        lr_scale=scale,
        out=out,
        shrink=f"model.context_bytes (now {batches.context_bytes}) or the model's sizes",
    )


def _evaluator(
    config: RunConfig, stepper: Stepper, valid: Corpus, starts: StreamStarts | None
) -> Callable[[RunState], Evaluation] | None:
    """What measures the model between updates; None without text to measure it on."""
    if valid.num_bytes < 2:
        return None
    validation = Validation(
        valid,
        context_bytes=_context_bytes(config.model),
        max_bytes=config.training.eval_bytes,
        starts=starts,
    )

    def evaluate(state: RunState) -> Evaluation:
        bpb = validation.bits_per_byte(
            stepper.model,
            # what fits into memory, found out by the updates
            rows=state.micro_rows,
            device=stepper.device,
            dtype=stepper.dtype,
        )
        return Evaluation(bpb=bpb)

    return evaluate


def _cadence(config: RunConfig) -> Cadence:
    training = config.training
    return Cadence(
        total_steps=training.steps,
        eval_every=training.eval_every,
        save_every=training.save_every,
        patience=training.patience,
    )


def _is_finished(config: RunConfig, state: RunState) -> bool:
    return isinstance(config.model, NgramConfig) or _cadence(config).is_finished(state)


def _result(config: RunConfig, out: Path, state: RunState) -> TrainResult:
    return TrainResult(
        run_dir=out,
        steps=state.step,
        best_valid_bpb=state.best_valid_bpb,
        stopped_early=_cadence(config).is_out_of_patience(state),
    )

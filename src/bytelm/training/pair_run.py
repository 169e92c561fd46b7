"""Train an encoder-decoder on pairs of texts, to a run directory.

    PairRunConfig, PairSplits -> entropy model -> threshold -> model -> loop -> run directory

The loop, the checkpoints and the exact resume are those of `training.run`; what differs is what a
batch is, and that the length of a run is counted in epochs.
"""

import datetime
import hashlib
import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bytelm.data.pair_batches import PairBatch, PairBatches
from bytelm.data.pairs import Pair, PairSplits, fingerprint
from bytelm.errors import ConfigError, DataError, RunError
from bytelm.models import Ngram, Seq2Seq
from bytelm.models.cost import flops_per_pair
from bytelm.models.seq2seq import possible
from bytelm.patching import Patcher
from bytelm.training import environment, metrics, resume, run_directory
from bytelm.training.checkpoints import Checkpoint
from bytelm.training.entropy_source import calibrated, document_entropies
from bytelm.training.initial import fingerprint_of
from bytelm.training.loading import build_stored, load_seq2seq
from bytelm.training.loop import Cadence, Evaluation, Hooks, RunState, run_loop
from bytelm.training.pair_settings import PairRunConfig, PairTraining
from bytelm.training.precision import autocast
from bytelm.training.schedules import lr_scale
from bytelm.training.settings import Calibrated
from bytelm.training.step import Stepper, Update, cross_entropy_nats, is_out_of_memory
from bytelm.training.updates import make_stepper, make_update, open_records

__all__ = ["PairRunConfig", "PairTrainResult", "PairTraining", "train_pairs"]

VALID_ROWS = 64
"""Pairs of one forward pass on the validation split."""

_SHRINK = "the model's sizes, or leave the longest pairs out"
"""What helps where a single pair does not fit into memory."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training pairs came to."""

    epoch: int
    """Counted from 1."""

    step: int
    """Updates made up to its end."""

    train_bpb: float
    """Bits per target byte of its batches, each before its update; ends count as bytes."""

    valid_bpb: float
    """Bits per target byte of the validation pairs, after it."""

    valid_exact_match: float
    """Share of the validation targets that are predicted without a mistake: greedy decoding
    writes exactly these."""

    lr: float
    """AdamW's learning rate in its last update."""


@dataclass(frozen=True, kw_only=True)
class PairTrainResult:
    """How a run ended."""

    run_dir: Path
    """Where everything is."""

    steps: int
    """Updates made, earlier starts included."""

    history: tuple[Epoch, ...]
    """Every epoch, in order."""

    best: Epoch
    """The one with the lowest bits per target byte, whose weights are the run's."""

    weights: str
    """SHA-256 over those weights."""

    parameters: int
    """All trained numbers, hash tables included."""

    table_parameters: int
    """Of these, in hash tables: a byte touches a few rows of them."""

    flops_per_example: float
    """Of a forward pass for a pair of mean lengths; training takes three times as many."""

    mean_patch_bytes: float | None
    """Bytes per patch of the validation inputs; None without patches."""

    threshold_nats: float | None
    """Of the patcher, if it was calibrated."""

    seconds: float
    """Spent on updates and evaluations, earlier starts included."""

    epoch_seconds: tuple[float, ...]
    """Of them, in each epoch."""

    automatic: dict[str, dict[str, Any]]
    """Settings that were chosen here: `choice` and `why` of each."""


def train_pairs(
    config: PairRunConfig, splits: PairSplits, out: Path, *, progress: bool = True
) -> PairTrainResult:
    """Train, or go on training, a model on the pairs of a training split.

    Args:
        config: What to train.
        splits: Training and validation pairs; the test pairs are not looked at.
        out: Run directory; made if needed. A finished run is left as it is.
        progress: Show progress on stderr.

    Raises:
        BytelmError: The data, the settings, the disk or the numbers do not allow it.
        KeyboardInterrupt: SIGINT or SIGTERM; the state is saved, the same call goes on.

    """
    device = environment.resolve_device(config.hardware.device)
    deterministic = config.training.deterministic
    with (
        run_directory.locked(out),
        environment.hardware_session(config.hardware, device, is_deterministic=deterministic),
    ):
        run_directory.require_same_settings(out, config)
        train = _Texts(splits.train, "training")
        valid = _Texts(splits.valid, "validation")
        for texts in (train, valid):
            texts.require_fitting(config.model.max_bytes)
        run = _PairRun(config, train, valid, out, device)
        run.require_same_pairs()
        return run.finish(resume.last(out, keep_every=None), progress=progress)


class _Texts:
    """Pairs as bytes."""

    def __init__(self, pairs: Sequence[Pair], what: str) -> None:
        if not pairs:
            raise DataError(f"there are no {what} pairs; expected at least one")
        self.fingerprint = fingerprint(pairs)
        self.inputs = [pair.input.encode() for pair in pairs]
        self.targets = [pair.target.encode() for pair in pairs]

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def mean_input_bytes(self) -> float:
        return sum(map(len, self.inputs)) / len(self)

    @property
    def mean_target_bytes(self) -> float:
        return sum(map(len, self.targets)) / len(self)

    def require_fitting(self, max_bytes: int) -> None:
        longest = max(map(len, self.inputs + self.targets))
        if longest > max_bytes:
            raise ConfigError(
                f"model.max_bytes is {max_bytes}, but an input or target has {longest} bytes; "
                f"use --model.max_bytes {longest}"
            )


class _PairRun:
    """One start of a run."""

    def __init__(
        self,
        config: PairRunConfig,
        train: _Texts,
        valid: _Texts,
        out: Path,
        device: torch.device,
    ) -> None:
        self.config, self.out, self.device = config, out, device
        self.train, self.valid = train, valid
        both = train.fingerprint + valid.fingerprint
        self.fingerprint = hashlib.sha256(both.encode()).hexdigest()

    def require_same_pairs(self) -> None:
        """Refuse to go on with other pairs than the run was begun with."""
        known = run_directory.read_environment(self.out).get("data", {}).get("fingerprint")
        if known not in (None, self.fingerprint):
            raise RunError(
                f"{self.out} was begun with other pairs ({known[:12]} was {self.fingerprint[:12]} "
                "now); restore them, or choose another --out"
            )

    def finish(self, checkpoint: Checkpoint | None, *, progress: bool) -> PairTrainResult:
        """Train to the end, from a checkpoint or from fresh weights."""
        training = self.config.training
        model, found = self._model(checkpoint)
        batches = PairBatches(
            self.train.inputs,
            self.train.targets,
            rows=training.batch_rows,
            seed=training.seed,
            starts=self._starts(model, self.train),
        )
        cadence = Cadence(
            total_steps=training.epochs * batches.steps_per_epoch,
            eval_every=batches.steps_per_epoch,
            save_every=training.save_every,
            patience=training.patience,
        )
        stepper = make_stepper(
            model.to(self.device),
            self.config.optim,
            precision=training.precision,
            device=self.device,
        )
        automatic = self._automatic(stepper)
        if checkpoint is None:
            state = RunState(micro_rows=self._micro_rows(stepper, batches, automatic))
        else:
            state = resume.state_of(checkpoint)
            resume.restore(checkpoint, stepper)
            automatic["micro_rows"] = {"choice": state.micro_rows, "why": "as the run began"}
        if not cadence.is_finished(state):
            self._announce(automatic, found, first_step=state.step)
            self._loop(state, cadence, stepper, batches, progress=progress)
        return self._result(state, found, automatic)

    # --- the model -----------------------------------------------------------------------------

    def _model(self, checkpoint: Checkpoint | None) -> tuple[Seq2Seq, dict[str, Any]]:
        """The checkpoint's model, or a fresh one; and what was measured to build it."""
        if checkpoint is not None:
            model = build_stored(checkpoint)
            if not isinstance(model, Seq2Seq):
                raise RunError(f"{self.out} holds a model of kind {model.config.kind!r}")
            return model, self._patches(model)
        source, patcher = None, None
        if self.config.entropy is not None:
            documents = [np.frombuffer(one, np.uint8) for one in self.train.inputs]
            source = Ngram.fit(self.config.entropy, documents)
        if self.config.patching is not None:
            patcher = self._patcher(source)
        torch.manual_seed(self.config.training.seed)
        try:
            model = Seq2Seq(self.config.model, patcher, source)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return model, self._patches(model)

    def _patcher(self, source: Ngram | None) -> Patcher:
        """The patcher with its threshold, calibrated on the validation inputs."""
        wanted = self.config.patching
        assert wanted is not None, "the caller asked"
        if not isinstance(wanted, Calibrated):
            return wanted
        assert source is not None, "checked by PairRunConfig"
        texts = [np.frombuffer(one, np.uint8) for one in self.valid.inputs]
        return calibrated(wanted, [document_entropies(source, text) for text in texts])[0]

    def _patches(self, model: Seq2Seq) -> dict[str, Any]:
        """Bytes per patch of the validation inputs, and the threshold that makes it."""
        starts = self._starts(model, self.valid)
        if starts is None:
            return {"mean_patch_bytes": None, "threshold_nats": None}
        num_bytes = sum(map(len, self.valid.inputs))
        return {
            "mean_patch_bytes": num_bytes / sum(int(one.sum()) for one in starts),
            "threshold_nats": getattr(model.patcher, "threshold", None),
        }

    @staticmethod
    def _starts(model: Seq2Seq, texts: _Texts) -> list[np.ndarray] | None:
        return None if model.patcher is None else model.patch_starts(texts.inputs)

    # --- automatic settings --------------------------------------------------------------------

    def _automatic(self, stepper: Stepper) -> dict[str, dict[str, Any]]:
        hardware, training = self.config.hardware, self.config.training
        is_auto = hardware.device == "auto"
        precision = "fp32" if stepper.dtype is None else str(stepper.dtype).removeprefix("torch.")
        return {
            "device": {
                "choice": str(self.device),
                "why": "a GPU if there is one" if is_auto else "as asked for",
            },
            "precision": {
                "choice": precision,
                "why": "bfloat16 where the hardware has it"
                if training.precision == "auto"
                else "as asked for",
            },
            "threads": {
                "choice": torch.get_num_threads(),
                "why": "torch's choice" if hardware.threads == "auto" else "as asked for",
            },
            "workers": {
                "choice": 0,
                "why": "making a batch of pairs takes less than a hundredth of an update",
            },
        }

    def _micro_rows(
        self, stepper: Stepper, batches: PairBatches, automatic: dict[str, dict[str, Any]]
    ) -> int:
        """How many pairs of a batch go through the model at once."""
        training = self.config.training
        if training.micro_rows != "auto":
            automatic["micro_rows"] = {"choice": training.micro_rows, "why": "as asked for"}
            return training.micro_rows
        try:
            rows = stepper.try_out(batches.longest(), micro_rows=training.batch_rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(
                f"out of memory with a single pair of the longest; lower {_SHRINK}"
            ) from error
        automatic["micro_rows"] = {
            "choice": rows,
            "why": "as many of the longest pairs as fit into memory; an update stays one of "
            f"{training.batch_rows} pairs",
        }
        return rows

    def _announce(
        self, automatic: dict[str, dict[str, Any]], found: dict[str, Any], *, first_step: int
    ) -> None:
        """Print and record what can matter about this start."""
        for name, one in automatic.items():
            log.info("%s: %s (%s)", name, one["choice"], one["why"])
        # Not before: a mistake in the settings leaves the folder free.
        run_directory.write_config(self.out, self.config)
        run_directory.record_start(
            self.out,
            data={
                "fingerprint": self.fingerprint,
                "rows": {"train": len(self.train), "valid": len(self.valid)},
            },
            start={
                "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                **environment.describe(self.device),
                "first_step": first_step,
                "automatic": automatic,
                **found,
            },
        )

    # --- the loop ------------------------------------------------------------------------------

    def _loop(
        self,
        state: RunState,
        cadence: Cadence,
        stepper: Stepper,
        batches: PairBatches,
        *,
        progress: bool,
    ) -> None:
        validation = PairValidation(
            self.valid.inputs, self.valid.targets, self._starts(_model_of(stepper), self.valid)
        )
        stepper.model.train()
        with ExitStack() as stack:
            records = stack.enter_context(
                open_records(
                    self.out,
                    f"{'blt' if self.config.model.patches else 'baseline'} {self.out.name[:20]}",
                    total_steps=cadence.total_steps,
                    first_step=state.step,
                    tensorboard=self.config.training.tensorboard,
                    progress=progress,
                )
            )
            hooks = Hooks(
                update=partial(self._update, stepper, batches, cadence),
                epoch=batches.epoch,
                evaluate=lambda _: validation.measure(stepper),
                record=records,
                save=partial(
                    resume.save,
                    self.out,
                    model=_model_of(stepper),
                    stepper=stepper,
                    keep_every=None,
                ),
            )
            run_loop(state, cadence, hooks)

    def _update(
        self, stepper: Stepper, batches: PairBatches, cadence: Cadence, state: RunState
    ) -> tuple[Update, float]:
        scale = lr_scale(
            self.config.schedule,
            step=state.step,
            total_steps=cadence.total_steps,
            history=state.valid_history,
        )
        return make_update(
            stepper,
            batches.batch(state.step),
            state,
            lr_scale=scale,
            out=self.out,
            shrink=_SHRINK,
        )

    # --- the result ----------------------------------------------------------------------------

    def _result(
        self,
        state: RunState,
        found: dict[str, Any],
        automatic: dict[str, dict[str, Any]],
    ) -> PairTrainResult:
        rows = metrics.read(self.out)
        history, seconds = _epochs(rows)
        best = next(one for one in history if one.step == state.best_step)
        model = load_seq2seq(self.out)
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        flops = flops_per_pair(
            model,
            input_bytes=self.train.mean_input_bytes,
            target_bytes=self.train.mean_target_bytes,
            mean_patch_bytes=found["mean_patch_bytes"] or 1.0,
        )
        return PairTrainResult(
            run_dir=self.out,
            steps=state.step,
            history=tuple(history),
            best=best,
            weights=fingerprint_of(model),
            parameters=sum(sizes.values()),
            table_parameters=sum(n for name, n in sizes.items() if "hash_ngrams" in name),
            flops_per_example=flops,
            seconds=state.seconds,
            epoch_seconds=tuple(seconds),
            automatic=automatic,
            **found,
        )


def _model_of(stepper: Stepper) -> Seq2Seq:
    assert isinstance(stepper.model, Seq2Seq), "put together above"
    return stepper.model


def _epochs(rows: Sequence[dict[str, Any]]) -> tuple[list[Epoch], list[float]]:
    """What the updates of each epoch came to, and the seconds that it took."""
    history, lengths = [], []
    nats, before, seconds_before = 0.0, 0, 0.0
    scored_before = 0
    for row in rows:
        nats += row["train_bpb"] * (row["bytes_seen"] - before)
        before = row["bytes_seen"]
        if row["valid_bpb"] is None:
            continue
        history.append(
            Epoch(
                epoch=len(history) + 1,
                step=row["step"],
                train_bpb=nats / max(1, before - scored_before),
                valid_bpb=row["valid_bpb"],
                valid_exact_match=row["valid_exact_match"],
                lr=row["lr"],
            )
        )
        lengths.append(row["seconds"] - seconds_before)
        nats, scored_before, seconds_before = 0.0, before, row["seconds"]
    return history, lengths


class PairValidation:
    """Measures a model on pairs, all of them each time, ordered by length once."""

    def __init__(
        self,
        inputs: Sequence[bytes],
        targets: Sequence[bytes],
        starts: Sequence[np.ndarray] | None,
    ) -> None:
        batches = PairBatches(inputs, targets, rows=VALID_ROWS, seed=0, starts=starts)
        order = np.argsort([len(one) for one in inputs], kind="stable")
        parts = np.split(order, range(VALID_ROWS, len(order), VALID_ROWS))
        self._batches: list[PairBatch] = [batches.of(part) for part in parts]

    @torch.no_grad()
    def measure(self, stepper: Stepper) -> Evaluation:
        """Bits per target byte and exact match; the model's mode is left as it was.

        A target is matched where every byte of it, and its end, is the likeliest after the true
        ones before it; then, and only then, greedy decoding writes it.

        Raises:
            RunError: The loss is not a number.

        """
        model, was_training = stepper.model, stepper.model.training
        model.eval()
        nats, scored, matched, rows = 0.0, 0, 0, 0
        for batch in self._batches:
            own = batch.to(stepper.device)
            with autocast(stepper.dtype, stepper.device):
                logits = own.logits(model)
            nats += cross_entropy_nats(logits, own.targets).item()
            is_right = (possible(logits).argmax(-1) == own.targets) | (own.targets < 0)
            matched += int(is_right.all(1).sum())
            scored, rows = scored + batch.scored, rows + len(batch.targets)
        model.train(was_training)
        if not math.isfinite(nats):
            raise RunError(f"the validation loss is {nats}: the weights are broken")
        return Evaluation(bpb=nats / math.log(2) / scored, exact_match=matched / rows)

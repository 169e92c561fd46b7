"""The stages of a comparison: search, train, read the test, predict, measure the speed.

Each reads what decides its result from its own settings, and from the values of the stages it
needs. The rows, the paths and the hardware are given beside them.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from bytelm import config
from bytelm.data.pair_batches import PairBatches
from bytelm.data.pairs import Pair, fingerprint, shared_inputs
from bytelm.decoding.beam import Beams
from bytelm.decoding.seq2seq import Transduction, transduce
from bytelm.errors import RunError
from bytelm.experiments.comparison.plan import ComparisonPlan, Model
from bytelm.experiments.comparison.rows import Rows
from bytelm.experiments.comparison.trainings import Trainings, searched, trained
from bytelm.experiments.results import Record
from bytelm.experiments.runner import Outcome, Stage, Work
from bytelm.experiments.store import Store, make_folder
from bytelm.models import Seq2Seq
from bytelm.training import checkpoints, environment, metrics
from bytelm.training.loading import load_seq2seq
from bytelm.training.pair_settings import PairRunConfig
from bytelm.training.settings import HardwareConfig
from bytelm.training.updates import make_stepper

MODELS: tuple[Model, ...] = get_args(Model)

BEST = {"blt": "best_blt_model", "baseline": "best_char_model"}
"""Copies of the models of seed 0, in the study's folder of checkpoints."""

CHECKPOINTS = "checkpoints"

SPEED_ROWS = 256
"""Validation rows that are decoded, and training rows that are learned, in a round."""

SPEED_ROUNDS = 3


def list_stages(plan: ComparisonPlan, rows: Rows) -> list[Stage]:
    """List the stages of a plan, each after those it needs, the test after all trainings.

    Raises:
        BytelmError: A setting to search does not exist, or the rows cannot be used.

    """
    trainings = Trainings(plan, rows)
    search = {} if plan.search is None else {one: searched(trainings, one) for one in MODELS}
    models = [
        trained(trainings, model, seed, search.get(model))
        for seed in range(plan.seeds)
        for model in MODELS
    ]
    main = models[: len(MODELS)]
    curve = [arm for arm in plan.runs() if arm not in MODELS]
    models += [trained(trainings, arm, 0, search.get("blt")) for arm in curve]
    test = _tested(rows, models)
    widths = sorted({1, plan.decoding.beam_width})
    predicted = [_predicted(plan, model, test, width) for model in models for width in widths]
    return [*search.values(), *models, test, *predicted, _clocked(plan, rows, main, widths)]


def keep_best(record: Record, out: Path) -> None:
    """Copy the checkpoints of the main arms, seed 0, to where people look for them.

    A copy from an earlier plan goes where this one has nothing to put in its place.

    Raises:
        BytelmError: There is none, or it cannot be copied or removed.

    """
    done = {stage.name: stage for stage in record.stages if stage.state == "done"}
    for model, name in BEST.items():
        target, stage = out / CHECKPOINTS / name, done.get(f"train {model} seed 0")
        if stage is None:
            _remove(target)
        else:
            _copy(Store(out).folder(stage.task, stage.key), target)


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f"{folder} was not removed: {error.strerror or error}") from error


def _copy(run: Path, target: Path) -> None:
    """Copy a run's best checkpoint, so that nobody sees half of it."""
    aside = target.with_name(f".{target.name}")
    make_folder(target.parent)
    for folder in (aside, target):
        _remove(folder)
    try:
        shutil.copytree(checkpoints.find(run), aside)
        aside.replace(target)
    except OSError as error:
        raise RunError(f"{target} was not written: {error.strerror or error}") from error


# --- test --------------------------------------------------------------------------------------


def _tested(rows: Rows, models: Sequence[Stage]) -> Stage:
    return Stage(
        name="test",
        task="test",
        version=1,
        settings=rows.test_settings,
        # It reads nothing of them: as long as one may still be trained, the test stays closed.
        needs={model.name: model.name for model in models},
        run=partial(_run_test, rows=rows),
    )


def _run_test(_: Work, *, rows: Rows) -> Outcome:
    """Open the test file: nothing is learned or chosen after this."""
    pairs = rows.test()
    known = (*rows.splits.train, *rows.splits.valid)
    return Outcome(
        values={
            "pairs": [[pair.input, pair.target] for pair in pairs],
            "shared_with_train": shared_inputs(known, pairs),
            "fingerprint": fingerprint(pairs),
        }
    )


def _predicted(plan: ComparisonPlan, model: Stage, test: Stage, width: int) -> Stage:
    return Stage(
        name=f"{model.name.replace('train', 'predict', 1)} {decoding_name(width)}",
        task="predict",
        version=1,
        settings={
            "arm": model.settings["arm"],
            "seed": model.settings["seed"],
            "beam_width": width,
            "length_penalty": plan.decoding.length_penalty,
        },
        needs={"model": model.name, "test": test.name},
        run=partial(_run_predict, hardware=plan.hardware),
    )


def decoding_name(width: int) -> str:
    """Name a decoding, as in the names of its stages."""
    return "greedy" if width == 1 else f"beam {width}"


def _run_predict(work: Work, *, hardware: HardwareConfig) -> Outcome:
    settings = work.settings
    inputs = [text.encode() for text, _ in work.inputs["test"]["pairs"]]
    with _session(hardware) as device:
        model = load_seq2seq(work.folders["model"]).to(device)
        begun = time.monotonic()
        found = _decoded(model, inputs, settings["beam_width"], settings["length_penalty"])
        seconds = time.monotonic() - begun
        starts = None if model.patcher is None else model.patch_starts(inputs)
    return Outcome(
        values={
            **settings,
            # Once, here: whatever is said of an output that is no UTF-8 is said of this text.
            "predictions": [one.text.decode(errors="replace") for one in found],
            "log_probs": [one.log_prob for one in found],
            "patch_lengths": None if starts is None else [_lengths(one) for one in starts],
        },
        timing={"seconds": seconds, "rows_per_second": metrics.rate(len(inputs), seconds)},
    )


def _decoded(
    model: Seq2Seq, inputs: Sequence[bytes], width: int, length_penalty: float
) -> list[Transduction]:
    """The best output of each input."""
    beams = Beams(beams=width, length_penalty=length_penalty)
    return [best for best, *_ in transduce(model, inputs, beams=beams)]


def _lengths(starts: np.ndarray) -> list[int]:
    """Bytes of each patch."""
    return np.diff(np.flatnonzero(np.append(starts, True))).tolist()


@contextmanager
def _session(hardware: HardwareConfig) -> Iterator[torch.device]:
    """Use the threads and the device of a plan."""
    device = environment.resolve_device(hardware.device)
    with environment.hardware_session(hardware, device, is_deterministic=True):
        yield device


# --- speed -------------------------------------------------------------------------------------


def _clocked(
    plan: ComparisonPlan, rows: Rows, trained: Sequence[Stage], widths: Sequence[int]
) -> Stage:
    """Both models in one process, by turns, so that both have the same machine."""
    return Stage(
        name="speed",
        task="speed",
        version=1,
        settings={
            "rows": SPEED_ROWS,
            "rounds": SPEED_ROUNDS,
            "widths": list(widths),
            "length_penalty": plan.decoding.length_penalty,
            "of": rows.settings,
        },
        needs=dict(zip(MODELS, (stage.name for stage in trained), strict=True)),
        run=partial(_run_clocked, rows=rows, hardware=plan.hardware),
    )


def _run_clocked(work: Work, *, rows: Rows, hardware: HardwareConfig) -> Outcome:
    settings = work.settings
    count, rounds = settings["rows"], settings["rounds"]
    device = environment.resolve_device(hardware.device)
    models = {name: load_seq2seq(work.folders[name]).to(device) for name in MODELS}
    runs = {name: config.from_dict(PairRunConfig, work.inputs[name]["run"]) for name in MODELS}
    inputs = [pair.input.encode() for pair in rows.splits.valid[:count]]
    pairs = rows.splits.train[:count]

    def decode(width: int, name: str) -> float:
        begun = time.monotonic()
        _decoded(models[name], inputs, width, settings["length_penalty"])
        return metrics.rate(len(inputs), time.monotonic() - begun)

    def learn(name: str) -> float:
        return metrics.rate(len(pairs), _seconds_to_learn(models[name], runs[name], pairs))

    with _session(hardware):
        decoded = {
            decoding_name(width): _by_turns(partial(decode, width), rounds)
            for width in settings["widths"]
        }
        # Last, as it changes the weights.
        learned = _by_turns(learn, rounds)
    return Outcome(
        values={"rows": count, "rounds": rounds},
        timing={"train_examples_per_second": learned, "decode_rows_per_second": decoded},
    )


def _by_turns(measure: Callable[[str], float], rounds: int) -> dict[str, list[float]]:
    """What is measured of each model, round by round; a first round is made and not counted."""
    turns = [{name: measure(name) for name in MODELS} for _ in range(rounds + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in MODELS}


def _seconds_to_learn(model: Seq2Seq, run: PairRunConfig, pairs: Sequence[Pair]) -> float:
    """Time of the updates of an epoch of these pairs; patches are found before, as in training."""
    inputs = [pair.input.encode() for pair in pairs]
    batches = PairBatches(
        inputs,
        [pair.target.encode() for pair in pairs],
        rows=run.training.batch_rows,
        seed=0,
        starts=None if model.patcher is None else model.patch_starts(inputs),
    )
    stepper = make_stepper(
        model, run.optim, precision=run.training.precision, device=model.embed.weight.device
    )
    model.train()
    micro_rows = run.training.micro_rows
    if micro_rows == "auto":
        # As the training did, so that no update is made twice for want of memory.
        micro_rows = stepper.try_out(batches.longest(), micro_rows=run.training.batch_rows)
    begun = time.monotonic()
    for step in range(batches.steps_per_epoch):
        stepper.update(batches.batch(step), micro_rows=micro_rows, lr_scale=1.0)
    return time.monotonic() - begun

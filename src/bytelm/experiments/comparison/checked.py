"""What a comparison's record must hold, so that a report can be made of a file that was damaged.

Names of stages become names of files, and numbers become sizes of arrays: both are looked at here,
before anything is made of them.
"""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytelm.errors import CheckpointError
from bytelm.experiments.comparison.findings import (
    BASELINE,
    PREDICTED,
    SEARCHED,
    TRAINED,
    beam_width,
)
from bytelm.experiments.results import ADVICE, Record
from bytelm.experiments.runner import StageResult


@dataclass(frozen=True)
class _Kind:
    """What a value must be."""

    words: str
    """After "expected"."""

    fits: Callable[[Any], bool]


_Table = Mapping[str, _Kind]


def _whole(low: int) -> _Kind:
    return _Kind(
        f"a whole number from {low} on", lambda value: type(value) is int and low <= value < 2**53
    )


def _number(low: float, high: float) -> _Kind:
    return _Kind(
        f"a number from {low:g} to {high:g}",
        lambda value: type(value) in (int, float) and low <= value <= high,
    )


def _or_none(kind: _Kind) -> _Kind:
    return _Kind(f"{kind.words}, or null", lambda value: value is None or kind.fits(value))


def _listed(kind: _Kind) -> _Kind:
    return _Kind(
        f"a list, each item of which is {kind.words}",
        lambda value: isinstance(value, list) and all(map(kind.fits, value)),
    )


def _tabled(kind: _Kind) -> _Kind:
    return _Kind(
        f"a table, each value of which is {kind.words}",
        lambda value: isinstance(value, dict) and all(map(kind.fits, value.values())),
    )


def _keyed(kinds: _Table) -> _Kind:
    return _Kind(
        f"a table of {', '.join(kinds)}",
        lambda value: (
            isinstance(value, dict)
            and all(key in value and kind.fits(value[key]) for key, kind in kinds.items())
        ),
    )


_TEXT = _Kind("a text", lambda value: isinstance(value, str))
_PLAIN = _Kind("a text or a number", lambda value: isinstance(value, str | int | float | bool))
_TABLES = _Kind("a table", lambda value: isinstance(value, dict))

# No measurement comes near these bounds; beyond them sums and axes overflow.
_BITS = _number(0, 1e6)
_SHARE = _number(0, 1)
_BYTES = _number(1e-3, 1e9)
_RATE = _number(0, 1e15)
_SETTING = _Kind(
    "a text or a number up to 1e15",
    lambda value: isinstance(value, str) or (_PLAIN.fits(value) and abs(value) <= 1e15),
)
_PAIR = _Kind(
    "an input and a target, none empty",
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_filled, value)),
)

_DATA: _Table = {
    "rows": _tabled(_or_none(_whole(0))),
    "longest_input_bytes": _whole(0),
    "mean_input_bytes": _number(0, 1e12),
    "mean_target_bytes": _number(0, 1e12),
}
_VALUES: dict[str, _Table] = {
    "search": {
        "model": _TEXT,
        "epochs": _whole(1),
        "budget": _whole(1),
        "space": _tabled(
            _Kind(
                "a list of values, or the ends of a range",
                lambda value: _listed(_SETTING).fits(value) or _RANGE.fits(value),
            )
        ),
        "trials": _listed(
            _keyed(
                {
                    "index": _whole(0),
                    "params": _tabled(_SETTING),
                    "valid_bpb": _or_none(_BITS),
                    "valid_exact": _or_none(_SHARE),
                    "parameters": _or_none(_whole(1)),
                    "error": _or_none(_TEXT),
                }
            )
        ),
        "best": _or_none(_whole(0)),
        "best_params": _tabled(_SETTING),
    },
    "train": {
        "arm": _TEXT,
        "seed": _whole(0),
        "run": _TABLES,
        "parameters": _whole(1),
        "table_parameters": _whole(0),
        "flops_per_example": _number(1e-3, 1e30),
        "mean_patch_bytes": _or_none(_BYTES),
        "threshold_nats": _or_none(_number(-1e6, 1e6)),
        "steps": _whole(0),
        "epochs": _whole(0),
        "best_epoch": _whole(0),
        "best_valid_bpb": _BITS,
        "best_valid_exact": _SHARE,
        "history": _listed(
            _keyed(
                {
                    "epoch": _whole(0),
                    "step": _whole(0),
                    "train_bpb": _BITS,
                    "valid_bpb": _BITS,
                    "valid_exact": _SHARE,
                    "lr": _number(0, 1e6),
                }
            )
        ),
        "weights": _TEXT,
    },
    "test": {
        "pairs": _Kind(
            f"a list of rows, at least one, each of which is {_PAIR.words}",
            lambda value: bool(value) and _listed(_PAIR).fits(value),
        ),
        "shared_with_train": _whole(0),
    },
    "predict": {
        "arm": _TEXT,
        "seed": _whole(0),
        "beam_width": _whole(1),
        "predictions": _listed(_TEXT),
        "patch_lengths": _or_none(_listed(_listed(_whole(1)))),
    },
    "speed": {},
}
_RANGE = _keyed({"low": _number(-1e15, 1e15), "high": _number(-1e15, 1e15)})

_RATES = _tabled(_listed(_RATE))

_TIMING: dict[str, _Table] = {
    "search": {},
    "train": {
        "epoch_seconds": _listed(_RATE),
        "automatic": _tabled(_keyed({"choice": _or_none(_PLAIN), "why": _TEXT})),
    },
    "test": {},
    "predict": {},
    "speed": {"train_examples_per_second": _RATES, "decode_rows_per_second": _tabled(_RATES)},
}
"""What a clock gave; a report is made without it too."""


def check(record: Record, *, where: Path) -> None:
    """Refuse a record that no comparison writes.

    Args:
        record: As it was read.
        where: The file, for the message.

    Raises:
        CheckpointError: A value is missing, of another kind, or does not fit the others; the
            message names the stage and the value.

    """
    at = "the data"
    try:
        _require_some(record.data, _DATA)
        for stage in record.stages:
            at = f"stage {reprlib.repr(stage.name)}"
            _require_stage(stage, record)
    except ValueError as error:
        raise CheckpointError(f"{where}, {at}: {error}; {ADVICE}") from error


def _require_stage(stage: StageResult, record: Record) -> None:
    task = stage.name.partition(" ")[0]
    if task not in _VALUES and stage.task not in _VALUES:
        # No report looks at it.
        return
    _require_name(stage)
    if stage.values is None:
        return
    for key, kind in _VALUES[task].items():
        if key not in stage.values:
            raise ValueError(f"{key} is missing; expected {kind.words}")
        _require(stage.values[key], key, kind)
    _require_some(stage.timing or {}, _TIMING[task])
    match task:
        case "search":
            _require_trials(stage.values)
        case "train":
            _require_training(stage.values)
        case "predict":
            _require_rows(stage.values, record)


def _require_some(table: Mapping[str, Any], kinds: _Table) -> None:
    """Look at what is there of what may be there."""
    for key, kind in kinds.items():
        if key in table:
            _require(table[key], key, kind)


def _require(value: Any, key: str, kind: _Kind) -> None:
    if not kind.fits(value):
        raise ValueError(f"{key} must be {kind.words}, got {reprlib.repr(value)}")


def _require_name(stage: StageResult) -> None:
    """The name must be one that such a stage has, and say what its values say."""
    patterns = {"search": SEARCHED, "train": TRAINED, "predict": PREDICTED}
    pattern = patterns.get(stage.task)
    match = None if pattern is None else pattern.fullmatch(stage.name)
    if match is None and (pattern is not None or stage.name != stage.task):
        raise ValueError(f"no stage of the task {stage.task!r} has this name")
    told = {} if match is None else match.groupdict()
    expected = {key: told[key] for key in ("model", "arm") if key in told}
    expected |= {"seed": int(told["seed"])} if "seed" in told else {}
    expected |= {"beam_width": beam_width(told["decoding"])} if "decoding" in told else {}
    for key, value in expected.items():
        if stage.values is not None and stage.values.get(key) != value:
            got = reprlib.repr(stage.values.get(key))
            raise ValueError(f"{key} must be {value!r}, as in the name, got {got}")


def _require_trials(values: dict[str, Any]) -> None:
    complete = [trial for trial in values["trials"] if trial["valid_bpb"] is not None]
    if values["best"] not in [None, *(trial["index"] for trial in complete)]:
        raise ValueError(f"best must be the index of a trial with a result, got {values['best']}")
    for key, tried in values["space"].items():
        kind = _SETTING if isinstance(tried, list) else _number(-1e15, 1e15)
        for trial in complete:
            _require(trial["params"].get(key), f"params.{key} of trial {trial['index']}", kind)


def _require_training(values: dict[str, Any]) -> None:
    if values["arm"] != BASELINE:
        _require(values["mean_patch_bytes"], "mean_patch_bytes", _BYTES)
    if values["table_parameters"] > values["parameters"]:
        raise ValueError(
            f"table_parameters must be part of the {values['parameters']} parameters, got "
            f"{values['table_parameters']}"
        )


def _require_rows(values: dict[str, Any], record: Record) -> None:
    """Predictions and patches must be those of the test rows, if these are known."""
    # Of a `test` that is damaged its own message tells.
    pairs = (record.values("test") or {}).get("pairs")
    if not _listed(_PAIR).fits(pairs):
        return
    inputs = [text.encode() for text, _ in pairs or ()]
    for key in ("predictions", "patch_lengths"):
        if values[key] is not None and len(values[key]) != len(inputs):
            raise ValueError(
                f"{key} must have the {len(inputs)} rows of the test, got {len(values[key])}"
            )
    for row, (raw, lengths) in enumerate(zip(inputs, values["patch_lengths"] or (), strict=False)):
        if sum(lengths) != len(raw):
            raise ValueError(
                f"patch_lengths of row {row} must add up to the {len(raw)} bytes of its input, "
                f"got {sum(lengths)}"
            )


def _is_filled(value: Any) -> bool:
    return isinstance(value, str) and bool(value)

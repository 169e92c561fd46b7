"""Made-up records of a comparison, whose answers are known because they were put in."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bytelm.experiments.results import Record
from bytelm.experiments.runner import StageResult

PUBLISHED = {"both": 1532, "blt": 2, "baseline": 457, "neither": 9}
"""Rows that the public attempt's models got right: 76.7 % of 2,000 against 99.45 %."""

WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs"),
    *("it's", "zebras", "running", "slowly", "12", "!", "a"),
)
SIGNS = ["caf\u00e9", "\u266b", "\u2764\ufe0f"]


def made_up(
    *,
    seeds: int = 1,
    rows: int = 120,
    wrong: Mapping[str, float] | None = None,
    sweeps: tuple[int, ...] = (4, 6),
    is_searched: bool = True,
) -> Record:
    """A finished study of reversal; `wrong` is the share of rows that each arm gets wrong."""
    wrong = {"blt": 0.05, "baseline": 0.02, "blt 4": 0.1, "blt 6": 0.3} | dict(wrong or {})
    rng = random.Random(0)
    pairs = [(text, text[::-1]) for text in (_phrase(rng) for _ in range(rows))]
    trained = [(arm, seed) for seed in range(seeds) for arm in ("blt", "baseline")]
    trained += [(f"blt {size}", 0) for size in sweeps]
    is_right = {key: [rng.random() >= wrong[key[0]] for _ in pairs] for key in trained}
    return record(pairs, is_right, is_searched=is_searched)


def published() -> Record:
    """The counts of the public attempt, on made-up rows."""
    rng = random.Random(1)
    pairs = [(text, text[::-1]) for text in (f"row {row:04}" for row in range(2000))]
    cells = [cell for cell, count in PUBLISHED.items() for _ in range(count)]
    rng.shuffle(cells)
    is_right = {(arm, 0): [cell in ("both", arm) for cell in cells] for arm in ("blt", "baseline")}
    return record(pairs, is_right, is_searched=False)


def record(
    pairs: list[tuple[str, str]],
    is_right: Mapping[tuple[str, int], list[bool]],
    *,
    is_searched: bool = True,
) -> Record:
    """A finished study, made of which rows each arm and seed got right."""
    stages: list[StageResult] = []

    def add(name: str, values: dict[str, Any], timing: dict[str, Any] | None = None) -> None:
        timing = {**(timing or {}), "stage_seconds": 1.0}
        stages.append(
            StageResult(
                name=name,
                task=name.split()[0],
                key=f"{len(stages):032x}",
                state="done",
                values=values,
                timing=timing,
            )
        )

    if is_searched:
        for model in ("blt", "baseline"):
            add(f"search {model}", _search(model), {"trial_seconds": [1.0] * 6})
    for arm, seed in is_right:
        add(f"train {arm} seed {seed}", *_training(arm, seed))
    add(
        "test",
        {"pairs": [list(pair) for pair in pairs], "shared_with_train": 0, "fingerprint": "cd" * 32},
    )
    for arm, seed in is_right:
        for width in (1, 5):
            decoding = "greedy" if width == 1 else f"beam {width}"
            values = _predictions(pairs, is_right[arm, seed], arm, seed, width)
            add(
                f"predict {arm} seed {seed} {decoding}",
                values,
                {"seconds": 2.0, "rows_per_second": len(pairs) / 2},
            )
    add("speed", {"rows": 64, "rounds": 3}, _speed())
    return Record(
        plan=_plan(),
        data={
            "task": "reversal",
            "source": "generated",
            "train_fingerprint": "ab" * 32,
            "rows": {"train": 9500, "valid": 500, "test": len(pairs)},
            "split_seed": 0,
            "longest_input_bytes": 150,
            "mean_input_bytes": 71.5,
            "mean_target_bytes": 71.5,
        },
        stages=tuple(stages),
        environment={"commit": "0123abcd", "device": "cpu"},
    )


def without(made: Record, names: set[str]) -> Record:
    """The same record, where some stages have failed."""
    return replace(
        made,
        stages=tuple(
            replace(stage, state="failed", values=None, timing=None, error=f"<no {stage.name}>")
            if stage.name in names
            else stage
            for stage in made.stages
        ),
    )


def _phrase(rng: random.Random) -> str:
    words = [rng.choice(WORDS if rng.random() < 0.98 else SIGNS) for _ in range(rng.randint(3, 15))]
    return " ".join(words)


def _plan() -> dict[str, Any]:
    return {
        "kind": "comparison",
        "title": "Reversal of strings",
        "question": "Do patches cost exactness?",
        "task": "reversal",
        "match": "parameters",
    }


def _search(model: str) -> dict[str, Any]:
    rng = random.Random(model)
    trials = [
        {
            "index": index,
            "params": {
                "optim.lr": rng.choice([0.001, 0.002, 0.004]),
                "model.dropout": rng.uniform(0.0, 0.2),
                "model.positions": rng.choice(["learned", "rotary"]),
            },
            "state": "complete",
            "valid_bpb": round(0.05 + rng.random() / 10, 4),
            "valid_exact": round(0.8 + rng.random() / 10, 4),
            "parameters": 1_500_000,
            "error": None,
        }
        for index in range(12)
    ]
    failed = {"state": "failed", "valid_bpb": None, "valid_exact": None, "parameters": None}
    trials[3] |= {**failed, "error": "MemoryError: too wide"}
    done = [trial for trial in trials if trial["valid_bpb"] is not None]
    best = min(done, key=lambda trial: trial["valid_bpb"])
    return {
        "model": model,
        "epochs": 3,
        "budget": 12,
        "space": {
            "optim.lr": [0.001, 0.002, 0.004],
            "model.dropout": {"low": 0.0, "high": 0.2, "log": False},
            "model.positions": ["learned", "rotary"],
        },
        "trials": trials,
        "best": best["index"],
        "best_params": best["params"],
    }


def _training(arm: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    is_patched = arm != "baseline"
    size = float(arm.partition(" ")[2] or 3.2) if is_patched else None
    history = [
        {
            "epoch": epoch,
            "step": 300 * epoch,
            "train_bpb": 3.0 / epoch**2 + 0.02 + seed / 500,
            "valid_bpb": 2.8 / epoch**2 + (0.06 if is_patched else 0.02) + seed / 300,
            "valid_exact": max(0.0, 0.98 - (1.6 if is_patched else 1.2) / epoch**2),
            "lr": 0.001 * (1 - epoch / 11),
        }
        for epoch in range(1, 11)
    ]
    values = {
        "arm": arm,
        "seed": seed,
        "run": {
            "model": {"kind": "seq2seq", "dim": 128, "n_heads": 4, "ffn_dim": 384},
            "training": {"epochs": 10, "batch_rows": 32, "seed": seed},
        },
        "parameters": 1_700_000 if is_patched else 1_705_000,
        "table_parameters": 524_288 if is_patched else 0,
        "flops_per_example": 2.1e8 / (size or 2.0) + 4e8,
        "mean_patch_bytes": size,
        "threshold_nats": 1.3 if is_patched else None,
        "steps": 3000,
        "epochs": 10,
        "best_epoch": 10,
        "best_valid_bpb": history[-1]["valid_bpb"],
        "best_valid_exact": history[-1]["valid_exact"],
        "history": history,
        "weights": "ef" * 32,
    }
    automatic = {
        "device": {"choice": "cpu", "why": "no GPU was found"},
        "micro_rows": {"choice": 32, "why": "the whole batch fits"},
    }
    timing = {
        "seconds": 1234.5,
        "epoch_seconds": [120.0 + epoch for epoch in range(10)],
        "examples_per_second": 80.0 if is_patched else 75.0,
        "automatic": automatic,
    }
    return values, timing


def _predictions(
    pairs: list[tuple[str, str]], is_right: list[bool], arm: str, seed: int, width: int
) -> dict[str, Any]:
    rng = random.Random(f"{arm} {seed}")
    predictions = [
        target if right else _spoiled(target, rng)
        for (_, target), right in zip(pairs, is_right, strict=True)
    ]
    if width == 1:
        # Greedy decoding gets one row in fifty wrong that the beam gets right.
        predictions = [_spoiled(p, rng) if i % 50 == 7 else p for i, p in enumerate(predictions)]
    return {
        "arm": arm,
        "seed": seed,
        "beam_width": width,
        "length_penalty": 1.0,
        "predictions": predictions,
        "log_probs": [-0.1] * len(pairs),
        "patch_lengths": None if arm == "baseline" else [_patches(text, rng) for text, _ in pairs],
    }


def _spoiled(text: str, rng: random.Random) -> str:
    """The text with one mistake of some kind: never the text."""
    if len(text) < 2:
        return text + "##"
    place = rng.randrange(len(text) - 1)
    kind = rng.choice(["change", "change", "swap", "drop", "add", "cut"])
    match kind:
        case "swap" if text[place] != text[place + 1]:
            return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        case "drop":
            return text[:place] + text[place + 1 :]
        case "add":
            return text[:place] + "x" + text[place:]
        case "cut":
            return text[:place]
    return text[:place] + "#" + text[place + 1 :]


def _patches(text: str, rng: random.Random) -> list[int]:
    left, lengths = len(text.encode()), []
    while left:
        lengths.append(min(left, rng.randint(1, 8)))
        left -= lengths[-1]
    return lengths


def _speed() -> dict[str, Any]:
    return {
        "train_examples_per_second": {"blt": [80.0, 82.0, 81.0], "baseline": [75.0, 74.0, 76.0]},
        "decode_rows_per_second": {
            "greedy": {"blt": [30.0, 31.0, 32.0], "baseline": [36.0, 35.0, 37.0]},
            "beam 5": {"blt": [9.0, 9.5, 9.2], "baseline": [10.0, 10.1, 10.4]},
        },
    }

"""The files of a comparison beside its report, made from its record alone.

Names and keys are those that people know from the study this one follows: `char` is the baseline
where files of settings and curves are meant, `baseline` where predictions are.
"""

import csv
import io
import json
import math
import re
from typing import Any

from bytelm.evaluation import (
    by_length,
    by_word_count,
    error_kinds,
    score_row,
    string_metrics,
)
from bytelm.experiments.comparison.contrasts import Contrast, contrasts
from bytelm.experiments.comparison.figures import NAMES as FIGURES
from bytelm.experiments.comparison.findings import (
    BLT,
    MAIN,
    METRICS,
    SIZE,
    Found,
    Predicted,
    estimate,
)
from bytelm.experiments.comparison.groups import by_script, length_edges, word_edges
from bytelm.experiments.comparison.report import summary
from bytelm.experiments.comparison.searched import Searched, searches
from bytelm.experiments.document import as_text
from bytelm.experiments.results import Record

MODES = {"blt": "blt", "baseline": "char"}

_SEED_AND_DECODING = r"(?:_seed[0-9]+)?(?:_greedy|_beam[0-9]+)?"

NAMES = re.compile(
    rf"predictions/predictions_(?:blt|baseline|blt_{SIZE}){_SEED_AND_DECODING}\.csv"
    r"|predictions/predictions_(?:blt|baseline)_metrics\.json"
    rf"|checkpoints/history_(?:blt|char|blt_{SIZE})(?:_seed[0-9]+)?\.json"
    r"|results/hyperparameter_tuning_(?:blt|char)\.json"
    r"|results/summary_report\.txt"
    rf"|results/(?:{'|'.join(FIGURES)})\.(?:png|svg)"
)
"""Every file that a comparison gives a name, in its folder, but its record and its report."""

COLUMNS = ("input", "target", "prediction", "correct", "edit_distance", "patch_lengths")


def files(record: Record) -> dict[str, bytes]:
    """Make the files.

    Args:
        record: Complete or not; what is missing has no file.

    Returns:
        The content by the path in the study's folder.

    """
    found = Found(record)
    tests = contrasts(found)
    made = {"results/summary_report.txt": as_text(summary(found, tests)).encode()}
    for search in searches(found):
        mode = MODES[search.model]
        made[f"results/hyperparameter_tuning_{mode}.json"] = _json(_tuning(search))
    for predicted in found.all_predicted():
        made[f"predictions/{predictions_name(found, predicted)}.csv"] = _csv(found, predicted)
    for arm in MAIN:
        if found.predicted(arm, found.decoding):
            made[f"predictions/predictions_{arm}_metrics.json"] = _json(_metrics(found, arm, tests))
    return made | _histories(found)


def predictions_name(found: Found, predicted: Predicted) -> str:
    """Name a file of predictions: the main decoding of seed 0 has the short name."""
    arm, seed, decoding = predicted.arm, predicted.seed, predicted.decoding
    usual = found.decoding if arm in MAIN else found.curve_decoding
    parts = ["predictions", *arm.split(" ")]
    parts += [f"seed{seed}"] if seed else []
    parts += [decoding.replace(" ", "")] if decoding != usual else []
    return "_".join(parts)


def _json(tables: dict[str, Any]) -> bytes:
    return (json.dumps(tables, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _tuning(search: Searched) -> dict[str, Any]:
    values, best = search.values, search.best
    return {
        "mode": MODES[search.model],
        "tune_epochs": values["epochs"],
        "total_combinations": len(values["trials"]),
        "successful_runs": len(search.complete),
        "budget": values["budget"],
        "space": values["space"],
        "score": "bits per byte of the validation rows, less is better",
        "best_params": values["best_params"],
        "best_score": None if best is None else best["valid_bpb"],
        "all_results": values["trials"],
    }


def _csv(found: Found, predicted: Predicted) -> bytes:
    """The rows as they are, UTF-8; texts are quoted, so that line ends in them are kept."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for row, (source, target) in enumerate(found.pairs):
        prediction = predicted.predictions[row]
        score = score_row(prediction, target)
        lengths = () if predicted.patch_lengths is None else predicted.patch_lengths[row]
        writer.writerow(
            (
                source,
                target,
                prediction,
                int(score.exact),
                score.edit_distance,
                " ".join(map(str, lengths)),
            )
        )
    return text.getvalue().encode()


def _metrics(found: Found, arm: str, tests: list[Contrast]) -> dict[str, Any]:
    """All metrics of the main decoding, first seed, with what all seeds and decodings give."""
    models = found.predicted(arm, found.decoding)
    model = models[0]
    inputs = [text for text, _ in found.pairs]
    rows = (inputs, model.predictions, model.targets)
    patched = found.predicted(BLT, found.decoding)
    edges = found.edges(model, patched=patched[0]) if patched else None
    return {
        "model": arm,
        "decoding": found.decoding,
        "seed": model.seed,
        **string_metrics(model.predictions, model.targets).to_dict(),
        "intervals": _intervals([model]),
        "by_length": _bins(by_length(*rows, edges=length_edges(found.pairs))),
        "by_word_count": _bins(by_word_count(*rows, edges=word_edges(found.pairs))),
        "by_script": {
            group.name: string_metrics(
                [model.predictions[row] for row in group.rows],
                [model.targets[row] for row in group.rows],
            ).to_dict()
            for group in by_script(found.pairs)
        },
        "by_position": _places(model.positions),
        "by_patch_edge": None
        if edges is None
        else {
            key: _places(getattr(edges, key))
            for key in ("from_start", "from_end", "by_patch_length")
        },
        "error_kinds": error_kinds(model.predictions, model.targets),
        "all": [
            {
                "decoding": decoding,
                "seeds": [each.seed for each in known],
                "intervals": _intervals(known),
                "of_each_seed": [
                    string_metrics(each.predictions, each.targets).to_dict() for each in known
                ],
            }
            for decoding in found.decodings(arm)
            if (known := found.predicted(arm, decoding))
        ],
        "tests": [_tested(test) for test in tests if arm in test.arms],
    }


def _intervals(models: list[Predicted]) -> dict[str, Any]:
    """Mean and 95 % interval of each metric, in the unit that its name says."""
    return {
        metric.heading: {"mean": figure.value, "low": figure.low, "high": figure.high}
        for metric in METRICS
        if (figure := estimate(models, metric)) is not None
    }


def _bins(bins: Any) -> list[dict[str, Any]]:
    return [{"low": part.low, "high": part.high, **part.metrics.to_dict()} for part in bins]


def _places(places: Any) -> list[dict[str, Any]]:
    return [
        {
            "low": place.low,
            "high": place.high,
            "right": place.right,
            "characters": place.characters,
            "interval": list(place.interval),
        }
        for place in places
    ]


def _tested(test: Contrast) -> dict[str, Any]:
    return {
        "metric": test.metric.heading,
        "first": test.arms[0],
        "second": test.arms[1],
        "decoding": test.decoding,
        "rows": test.rows,
        "num_rows": test.num_rows,
        "num_seeds": test.num_seeds,
        "difference": test.difference,
        "interval": list(test.interval),
        "p_value": test.p_value,
        "p_value_holm": test.adjusted,
        "better": test.better,
    }


def _histories(found: Found) -> dict[str, bytes]:
    """The course of each training; losses are nats per target byte, as training minimizes them."""
    made = {}
    for arm in (*MAIN, *found.sweep_arms):
        for values in found.trained(arm):
            seed, history = values["seed"], values["history"]
            parts = ["history", *MODES.get(arm, arm).split(" ")]
            parts += [f"seed{seed}"] if seed else []
            timing = found.record.timing(f"train {arm} seed {seed}") or {}
            made[f"checkpoints/{'_'.join(parts)}.json"] = _json(
                {
                    "model": arm,
                    "seed": seed,
                    "commit": found.record.environment.get("commit"),
                    "epochs": [entry["epoch"] for entry in history],
                    "steps": [entry["step"] for entry in history],
                    "train_loss": [math.log(2) * entry["train_bpb"] for entry in history],
                    "val_loss": [math.log(2) * entry["valid_bpb"] for entry in history],
                    "train_bits_per_byte": [entry["train_bpb"] for entry in history],
                    "val_bits_per_byte": [entry["valid_bpb"] for entry in history],
                    "val_exact_match": [entry["valid_exact"] for entry in history],
                    "lr": [entry["lr"] for entry in history],
                    "best_epoch": values["best_epoch"],
                    "weights": values["weights"],
                    "timing": {"epoch_times": timing.get("epoch_seconds")},
                }
            )
    return made

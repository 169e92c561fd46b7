"""The trainings of a comparison: with the settings of the plan, or with those that a search finds.

The baseline is always made from a patched training, its twin, and has the sizes that match it.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bytelm import config
from bytelm.errors import RunError
from bytelm.experiments.comparison.plan import ComparisonPlan, Model, with_settings
from bytelm.experiments.comparison.rows import Rows
from bytelm.experiments.comparison.search import Place, Score, Trial, best_of, search
from bytelm.experiments.comparison.space import Dimension, Params
from bytelm.experiments.runner import Outcome, Stage, Work
from bytelm.experiments.store import make_folder
from bytelm.models import Seq2SeqConfig
from bytelm.training import environment, metrics
from bytelm.training.matching import Match, matched_baseline
from bytelm.training.pair_run import Epoch, train_pairs
from bytelm.training.pair_settings import PairRunConfig
from bytelm.training.precision import Precision, autocast_dtype
from bytelm.training.run_directory import write_file
from bytelm.training.settings import HardwareConfig


@dataclass(frozen=True)
class Trainings:
    """What the trainings of a plan are made from."""

    plan: ComparisonPlan
    rows: Rows

    def of(self, arm: str, *, seed: int) -> PairRunConfig:
        """The training of an arm as the plan has it; of the baseline, that of its patched twin."""
        run = self.plan.runs()["blt" if arm == "baseline" else arm]
        training = replace(run.training, seed=seed, precision=self._precision(run))
        return replace(run, training=training, hardware=HardwareConfig())

    def _precision(self, run: PairRunConfig) -> Precision:
        """What "auto" means here: models of different precisions must not share a key."""
        wanted = run.training.precision
        if wanted != "auto":
            return wanted
        device = environment.resolve_device(self.plan.hardware.device)
        return "fp32" if autocast_dtype(wanted, device) is None else "bf16"

    def matched(self, run: PairRunConfig, match: Match) -> PairRunConfig:
        """The baseline of a patched twin."""
        own = PairRunConfig(model=run.model, patching=run.patching, entropy=run.entropy)
        model = _matched_model(own, match, *self.rows.mean_bytes)
        return replace(run, model=model, patching=None, entropy=None)

    def tuned(self, settings: Mapping[str, Any], params: Params) -> PairRunConfig:
        """The training that a search has found, or tries."""
        run = config.from_dict(PairRunConfig, settings["run"])
        run = with_settings(run, params, where="search.space")
        is_baseline = settings["model"] == "baseline"
        return self.matched(run, settings["match"]) if is_baseline else run


@lru_cache
def _matched_model(
    run: PairRunConfig, match: Match, mean_input_bytes: float, mean_target_bytes: float
) -> Seq2SeqConfig:
    """The model of the baseline: the same for every seed, and found by counting many others."""
    return matched_baseline(
        run, match=match, mean_input_bytes=mean_input_bytes, mean_target_bytes=mean_target_bytes
    ).model


# --- search ------------------------------------------------------------------------------------


def searched(trainings: Trainings, model: Model) -> Stage:
    """The stage that searches the settings of a model.

    Raises:
        ConfigError: A setting to search does not exist, or a value is refused.

    """
    plan = trainings.plan
    assert plan.search is not None
    run = trainings.of(model, seed=plan.search.seed)
    run = replace(run, training=replace(run.training, epochs=plan.search.epochs))
    return Stage(
        name=f"search {model}",
        task="search",
        version=1,
        settings={
            "model": model,
            "run": config.to_dict(run),
            "match": plan.match,
            "space": [config.to_dict(dimension) for dimension in plan.space(model)],
            "trials": plan.search.trials,
            "seed": plan.search.seed,
            "rows": trainings.rows.settings,
        },
        run=partial(_run_search, trainings=trainings),
    )


def _run_search(work: Work, *, trainings: Trainings) -> Outcome:
    settings, plan = work.settings, trainings.plan
    space = [config.from_dict(Dimension, table) for table in settings["space"]]
    assert plan.search is not None

    def objective(params: Params) -> Score:
        run = trainings.tuned(settings, params)
        folder = work.folder / "trials" / _short_hash(run)
        result = train_pairs(
            replace(run, hardware=plan.hardware), trainings.rows.for_training, folder
        )
        best = result.best
        return Score(
            value=best.valid_bpb,
            details={"valid_exact": best.valid_exact_match, "parameters": result.parameters},
        )

    trials = search(
        space,
        objective,
        trials=settings["trials"],
        seed=settings["seed"],
        place=Place(
            storage=plan.search.storage or work.folder / "trials.jsonl",
            # The key of the stage: machines that share a storage share what is the same search.
            name=work.folder.name,
            owner=_owner(work.folder),
        ),
    )
    rows = [_row(trial, work.folder) for trial in trials]
    best = best_of(trials)
    if best is None:
        raise RunError(
            f"every trial of the search failed, the first with: {rows[0]['error']}; change "
            "search.space, or run the same command to try them again"
        )
    return Outcome(
        values={
            "model": settings["model"],
            "epochs": settings["run"]["training"]["epochs"],
            "budget": settings["trials"],
            "space": {dimension.key: dimension.described() for dimension in space},
            "trials": rows,
            "best": best.index,
            "best_params": best.params,
        },
        timing={"trial_seconds": [trial.seconds for trial in trials]},
    )


def _row(trial: Trial, folder: Path) -> dict[str, Any]:
    # Where the trial ran is no part of why it failed.
    error = None if trial.error is None else trial.error.replace(f"{folder}/", "")
    return {
        "index": trial.index,
        "params": trial.params,
        "state": "complete" if error is None else "failed",
        "valid_bpb": trial.value,
        "valid_exact": trial.details.get("valid_exact"),
        "parameters": trial.details.get("parameters"),
        "error": error,
    }


def _owner(folder: Path) -> str:
    """A name for this study's folder that no other has."""
    file = folder / "owner"
    if not file.exists():
        make_folder(folder)
        write_file(file, uuid.uuid4().hex.encode())
    return file.read_text(encoding="utf-8")


def _short_hash(run: PairRunConfig) -> str:
    text = json.dumps(config.to_dict(run), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# --- training ----------------------------------------------------------------------------------


def trained(trainings: Trainings, arm: str, seed: int, searched: Stage | None = None) -> Stage:
    """The stage that trains an arm, with what a search has found if there is one."""
    run, is_baseline = trainings.of(arm, seed=seed), arm == "baseline"
    settings: dict[str, Any] = {"arm": arm, "seed": seed, "rows": trainings.rows.settings}
    if searched is not None:
        settings["model"] = "baseline" if is_baseline else "blt"
        settings["match"] = trainings.plan.match
    elif is_baseline:
        # With its sizes already: what only the patched twin has does not move its key.
        run = trainings.matched(run, trainings.plan.match)
    return Stage(
        name=f"train {arm} seed {seed}",
        task="train",
        version=1,
        settings={**settings, "run": config.to_dict(run)},
        needs={} if searched is None else {"search": searched.name},
        run=partial(_run_train, trainings=trainings),
    )


def _run_train(work: Work, *, trainings: Trainings) -> Outcome:
    settings = work.settings
    run = config.from_dict(PairRunConfig, settings["run"])
    if "search" in work.inputs:
        run = trainings.tuned(settings, work.inputs["search"]["best_params"])
    result = train_pairs(
        replace(run, hardware=trainings.plan.hardware), trainings.rows.for_training, work.folder
    )
    learned = len(result.history) * len(trainings.rows.splits.train)
    return Outcome(
        values={
            "arm": settings["arm"],
            "seed": settings["seed"],
            "run": config.to_dict(run),
            "parameters": result.parameters,
            "table_parameters": result.table_parameters,
            "flops_per_example": result.flops_per_example,
            "mean_patch_bytes": result.mean_patch_bytes,
            "threshold_nats": result.threshold_nats,
            "steps": result.steps,
            "epochs": len(result.history),
            "best_epoch": result.best.epoch,
            "best_valid_bpb": result.best.valid_bpb,
            "best_valid_exact": result.best.valid_exact_match,
            "history": [_epoch(epoch) for epoch in result.history],
            "weights": result.weights,
        },
        timing={
            "seconds": result.seconds,
            "epoch_seconds": list(result.epoch_seconds),
            "examples_per_second": metrics.rate(learned, _seconds_of_updates(work.folder)),
            "automatic": result.automatic,
        },
    )


def _epoch(epoch: Epoch) -> dict[str, Any]:
    return {
        "epoch": epoch.epoch,
        "step": epoch.step,
        "train_bpb": epoch.train_bpb,
        "valid_bpb": epoch.valid_bpb,
        "valid_exact": epoch.valid_exact_match,
        "lr": epoch.lr,
    }


def _seconds_of_updates(folder: Path) -> float:
    """Seconds of a run without its evaluations."""
    rows = metrics.read(folder)
    scored = np.diff([0, *(row["bytes_seen"] for row in rows)]).tolist()
    return sum(
        count / row["bytes_per_second"]
        for count, row in zip(scored, rows, strict=True)
        if row["bytes_per_second"]
    )

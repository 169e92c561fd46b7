"""The stages of a compression study: train, score, compress, and the classical compressors.

Each reads what decides its result from its own settings. The paths of the data and the hardware are
given beside them: the same bytes elsewhere are the same study.
"""

import io
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from bytelm import config
from bytelm.compression import Options, compress_stream, decompress_stream
from bytelm.compression.container import FRAME_HEADER_BYTES
from bytelm.compression.kernels import source_digest
from bytelm.compression.measurement import measure_container
from bytelm.compression.models import codec_model
from bytelm.data import Corpus, Splits, build_corpus, split
from bytelm.errors import CompressionError, ConfigError, DataError
from bytelm.evaluation import CompressorResult, bits_per_byte, reference_compressors
from bytelm.experiments.compression.plan import CompressionPlan
from bytelm.experiments.runner import Outcome, Stage, Work
from bytelm.language_model import LanguageModel, load
from bytelm.models.cost import total_flops_per_byte
from bytelm.training import metrics
from bytelm.training.run import train
from bytelm.training.run_directory import as_json
from bytelm.training.settings import HardwareConfig, RunConfig

BLOCK_BYTES = 4096
"""Units of the paired tests: far longer than the reach of a local burst of surprise."""

_Coded = Literal["mixer", "model", "mixed"]


@dataclass(frozen=True)
class HeldOut:
    """The bytes that are compressed, and how they follow from the data."""

    plan: CompressionPlan

    @cached_property
    def corpus(self) -> Corpus:
        """All data of the plan."""
        if not self.plan.data.paths:
            raise ConfigError("data.paths is empty: name files or folders with --data PATH")
        return build_corpus(self.plan.data.paths, suffixes=self.plan.data.suffixes)

    @cached_property
    def splits(self) -> Splits:
        """As the trainings divide them."""
        data = self.plan.data
        return split(
            self.corpus,
            valid_fraction=data.valid_fraction,
            test_fraction=data.test_fraction,
            seed=data.split_seed,
        )

    @cached_property
    def array(self) -> np.ndarray:
        """The test documents in order, cut to the plan's number of bytes, uint8 `[n]`."""
        documents = list(self.splits.test)
        whole = np.concatenate(documents) if documents else np.zeros(0, np.uint8)
        if not len(whole):
            raise DataError(
                f"the test split has no bytes (the corpus has {self.corpus.num_bytes:,}); give "
                "more data, or a larger data.test_fraction"
            )
        return whole[: self.plan.test_bytes]

    @property
    def settings(self) -> dict[str, Any]:
        """What decides these bytes, JSON-able."""
        data = self.plan.data
        return {
            "corpus": self.corpus.fingerprint,
            "valid_fraction": data.valid_fraction,
            "test_fraction": data.test_fraction,
            "split_seed": data.split_seed,
            "test_bytes": self.plan.test_bytes,
        }

    def describe(self) -> dict[str, Any]:
        """What the data are, for the record."""
        sizes = {name: getattr(self.splits, name).num_bytes for name in ("train", "valid", "test")}
        overlap = asdict(self.splits.overlap)
        return {**self.settings, "bytes": sizes, "compressed": len(self.array), "overlap": overlap}


def list_stages(plan: CompressionPlan, test: HeldOut) -> list[Stage]:
    """List the stages of a plan, each after those it needs.

    Raises:
        BytelmError: A recipe cannot be built, or the data cannot be read.

    """
    found = [_classics(test), _clocked(test, "mixer", None)]
    found += _coded_by(test, "mixer", plan.lanes)
    for seed in range(plan.seeds):
        for arm, run in plan.arms().items():
            trained = _trained(plan, run, test, name=arm, seed=seed)
            lanes = plan.lanes if arm == "base" else (1,)
            found += [trained, _scored(test, trained)]
            found += _coded_by(test, "model", lanes, trained)
            found += _coded_by(test, "mixed", lanes, trained)
            if arm == "base" and seed == 0:
                found += [_clocked(test, "model", trained), _clocked(test, "mixed", trained)]
        for rule, run in plan.patch_arms().items():
            trained = _trained(plan, run, test, name=rule, seed=seed)
            found += [trained, _scored(test, trained), _float_coded(plan, test, trained)]
    return found


def _classics(test: HeldOut) -> Stage:
    return Stage(
        name="classics",
        task="classics",
        version=1,
        settings={"test": test.settings},
        run=partial(_run_classics, test=test),
    )


def _run_classics(_: Work, *, test: HeldOut) -> Outcome:
    values, timing = {}, {}
    for row in reference_compressors([test.array]):
        if row.missing:
            # Not a result to keep: once it is installed, the same command measures it.
            raise DataError(f"{row.name} is missing: {row.missing}")
        values[row.name] = {
            "compressed_bytes": row.bytes,
            "bits_per_byte": row.bits_per_byte,
            "parameters": row.parameters,
            "problem": row.failure or row.missing,
        }
        timing[row.name] = _effort(row)
    return Outcome(values=values, timing=timing)


def _trained(
    plan: CompressionPlan, run: RunConfig, test: HeldOut, *, name: str, seed: int
) -> Stage:
    run = replace(
        run,
        data=replace(plan.data, paths=()),
        hardware=HardwareConfig(),
        training=replace(run.training, seed=seed),
    )
    return Stage(
        name=f"train {name} seed {seed}",
        task="train",
        version=1,
        settings={"run": as_json(run), "corpus": test.corpus.fingerprint},
        run=partial(_run_train, plan=plan),
    )


def _run_train(work: Work, *, plan: CompressionPlan) -> Outcome:
    run = config.from_dict(RunConfig, work.settings["run"])
    data = replace(run.data, paths=plan.data.paths)
    result = train(replace(run, data=data, hardware=plan.hardware), work.folder)
    rows = metrics.read(work.folder)
    model = load(work.folder).model
    return Outcome(
        values={
            "steps": result.steps,
            "best_valid_bpb": result.best_valid_bpb,
            "bytes_seen": rows[-1]["bytes_seen"] if rows else 0,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
        timing={"seconds": rows[-1]["seconds"] if rows else 0.0},
    )


def _scored(test: HeldOut, trained: Stage) -> Stage:
    return Stage(
        name=trained.name.replace("train", "score", 1),
        task="score",
        version=1,
        settings={"test": test.settings, "block_bytes": BLOCK_BYTES},
        needs={"model": trained.name},
        run=partial(_run_score, test=test),
    )


def _run_score(work: Work, *, test: HeldOut) -> Outcome:
    begun = time.monotonic()
    model = load(work.folders["model"])
    scored = model.score(test.array)
    mean_patch_bytes = len(scored.starts) / max(1, int(np.count_nonzero(scored.starts)))
    nats = scored.nll_nats.astype(np.float64)
    edges = np.arange(0, len(nats), work.settings["block_bytes"])
    return Outcome(
        values={
            "bits_per_byte": bits_per_byte(math.fsum(nats), len(nats)),
            "bytes_scored": len(nats),
            "mean_patch_bytes": mean_patch_bytes,
            "flops_per_byte": total_flops_per_byte(model.model, mean_patch_bytes=mean_patch_bytes),
            "block_bits": (np.add.reduceat(nats, edges) / math.log(2)).tolist(),
            "block_bytes": np.diff(np.append(edges, len(nats))).tolist(),
        },
        timing={"seconds": time.monotonic() - begun},
    )


def _coded_by(
    test: HeldOut, mode: _Coded, lanes: tuple[int, ...], trained: Stage | None = None
) -> list[Stage]:
    who = "" if trained is None else trained.name.removeprefix("train")
    return [
        Stage(
            name=f"{mode}{who} lanes {count}",
            task="compress",
            version=1,
            settings={
                "test": test.settings,
                "mode": mode,
                "lanes": count,
                "profile": "exact",
                "codec": source_digest(),
            },
            needs={} if trained is None else {"model": trained.name},
            run=partial(_run_compress, test=test),
        )
        for count in lanes
    ]


def _nats(model: LanguageModel, data: np.ndarray) -> float:
    return float(model.score(data).nll_nats.sum(dtype=np.float64))


def _float_coded(plan: CompressionPlan, test: HeldOut, trained: Stage) -> Stage:
    return Stage(
        name=trained.name.replace("train", "float codec", 1),
        task="compress",
        version=1,
        settings={
            "test": {**test.settings, "test_bytes": min(plan.patches.num_bytes, plan.test_bytes)},
            "mode": "model",
            "lanes": plan.patches.lanes,
            "profile": "float",
            "codec": source_digest(),
        },
        needs={"model": trained.name},
        run=partial(_run_compress, test=test),
    )


def _run_compress(work: Work, *, test: HeldOut) -> Outcome:
    """Compress, decompress and compare; of a float model, what its likelihood promises too."""
    settings = work.settings
    data = test.array[: settings["test"]["test_bytes"]]
    model, expected = None, None
    if "model" in work.folders:
        trained = load(work.folders["model"])
        model = codec_model(trained.model, profile=settings["profile"])
        if settings["profile"] == "float":
            lanes = np.array_split(data, min(settings["lanes"], len(data)))
            expected = bits_per_byte(math.fsum(_nats(trained, lane) for lane in lanes), len(data))
    # Decoded here, once, instead of frame by frame while it is encoded.
    options = Options(mode=settings["mode"], lanes=settings["lanes"], verify=False, workers=1)
    raw, packed, back = data.tobytes(), io.BytesIO(), io.BytesIO()
    done = compress_stream(io.BytesIO(raw), packed, model=model, options=options, size=len(raw))
    packed.seek(0)
    decompress_stream(packed, back, model=model, workers=1)
    if back.getvalue() != raw:
        raise CompressionError(
            f"{settings['mode']} with {settings['lanes']} lanes gave other bytes back than it got; "
            "please report it"
        )
    payload = sum(frame.compressed_bytes - FRAME_HEADER_BYTES for frame in done.frames)
    return Outcome(
        values={
            "raw_bytes": len(raw),
            "compressed_bytes": done.compressed_bytes,
            "bits_per_byte": done.bits_per_byte,
            "payload_bits_per_byte": 8 * payload / len(raw),
            "expected_bits_per_byte": expected,
            "model_bytes": done.model_bytes,
            "modes": sorted({frame.mode for frame in done.frames}),
        }
    )


def _clocked(test: HeldOut, mode: _Coded, trained: Stage | None) -> Stage:
    """Speed and memory of the codec with one lane, measured as the classics are."""
    return Stage(
        name=f"speed {mode}",
        task="speed",
        version=1,
        settings={"test": test.settings, "mode": mode, "lanes": 1, "codec": source_digest()},
        needs={} if trained is None else {"model": trained.name},
        run=partial(_run_clocked, test=test),
    )


def _run_clocked(work: Work, *, test: HeldOut) -> Outcome:
    mode, lanes = work.settings["mode"], work.settings["lanes"]
    row = measure_container(
        mode,
        [test.array],
        run=work.folders.get("model"),
        profile="exact",
        options=Options(mode=mode, lanes=lanes),
    )
    if row.failure is not None:
        raise CompressionError(f"{mode}: {row.failure}; please report it")
    return Outcome(values={"compressed_bytes": row.bytes}, timing=_effort(row))


def _effort(row: CompressorResult) -> dict[str, Any]:
    """Both directions of a row that has them."""
    ways = {"encode": row.encode, "decode": row.decode}
    return {way: asdict(effort) for way, effort in ways.items() if effort is not None}

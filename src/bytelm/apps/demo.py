"""The demo: from raw files to a trained, honestly measured BLT, and a report to open.

files -> entropy model -> threshold -> BLT, and a byte GPT of equal parameters
      -> bits per byte of the held-out files, beside classical compressors -> report.html
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bytelm import config as configs
from bytelm.apps.render import patch_view
from bytelm.apps.report import (
    Sample,
    comparison_section,
    compressor_score,
    curves_section,
    model_score,
    patch_section,
    samples_section,
    settings_section,
    write_report,
)
from bytelm.data import Corpus, build_corpus, split, standard_library_files
from bytelm.evaluation import CompressorResult, Evaluation, evaluate, reference_compressors
from bytelm.language_model import LanguageModel, load
from bytelm.models import BLT, BLTConfig, ByteGPTConfig
from bytelm.models.cost import cost, total_flops_per_byte
from bytelm.training.run import EntropyRecipe, RunConfig, TrainResult, train

BLT_RECIPE, GPT_RECIPE = "blt-small", "byte-gpt-small"
SAMPLE_PROMPT_BYTES = 200
SAMPLE_BYTES = 400
SHOWN_BYTES = 6_000
"""Bytes of a held-out file whose patches the report shows."""

Say = Callable[[str], None]


@contextmanager
def silent(_name: str, _num_bytes: int) -> Iterator[Callable[[int], None]]:
    """No progress display."""
    yield lambda _count: None


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo measured on the held-out files."""

    report: Path
    """The HTML page."""

    models: dict[str, Evaluation]
    """By name: the BLT, its entropy model, the byte GPT."""

    compressors: list[CompressorResult]
    """On the same bytes."""

    parameters: dict[str, int]
    """Of the models."""


def run_demo(
    paths: Sequence[str | Path] = (),
    *,
    out: Path,
    settings: dict[str, Any] | None = None,
    say: Say,
    scoring: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = silent,
) -> DemoResult:
    """Train, measure and write the report.

    Args:
        paths: Files and folders; none: the source of this Python's standard library.
        out: Folder for the runs and the report.
        settings: Dotted recipe keys for both models, as flags would give them.
        say: Called with one line for each stage.
        scoring: Opened with a model's name and the bytes to score; gives what is called with the
            number of bytes that were just scored.

    Raises:
        BytelmError: The data or the disk do not allow it.

    """
    files = tuple(str(path) for path in (paths or standard_library_files()))
    blt_config, gpt_config = _recipes(files, settings or {})
    say("training a BLT: first its entropy model, then the patches' threshold, then the model")
    blt = train(blt_config, out / BLT_RECIPE)
    say("training a byte GPT of equal parameters, on as many bytes")
    gpt = train(gpt_config, out / GPT_RECIPE)

    held_out = _held_out(blt_config)
    say(f"scoring {held_out.num_bytes:,} held-out bytes of {held_out.num_documents} files")
    compressors = reference_compressors(list(held_out))
    loaded = _load(blt, gpt)
    models = {}
    for name, model in loaded.items():
        with scoring(name, held_out.num_bytes) as advance:
            models[name] = _evaluate(model, held_out, compressors, advance)
    result = DemoResult(
        report=out / "report.html",
        models=models,
        compressors=compressors,
        parameters={name: _parameters(model) for name, model in loaded.items()},
    )
    say("writing samples and the report")
    _write(result, loaded, held_out, runs={"BLT": blt, "byte GPT": gpt})
    _write_json(result, out / "results.json")
    return result


def _recipes(files: tuple[str, ...], settings: dict[str, Any]) -> tuple[RunConfig, RunConfig]:
    """Both recipes on the same files, with as many parameters and as many bytes to learn from."""
    overrides = {"data.paths": files, **settings}
    blt = configs.load(RunConfig, BLT_RECIPE, overrides)
    gpt = configs.load(RunConfig, GPT_RECIPE, overrides)
    assert isinstance(blt.model, BLTConfig)
    assert isinstance(gpt.model, ByteGPTConfig)
    missing = cost(blt.model).parameters - cost(gpt.model).parameters
    if isinstance(blt.entropy, EntropyRecipe):
        missing += cost(blt.entropy.recipe.model).parameters
    a_bucket_each = gpt.model.dim * max(1, len(gpt.model.ngram_sizes))
    model = replace(gpt.model, num_buckets=gpt.model.num_buckets + missing // a_bucket_each)
    steps = blt.training.steps * _bytes_per_step(blt) // _bytes_per_step(gpt)
    return blt, replace(gpt, model=model, training=replace(gpt.training, steps=max(1, steps)))


def _bytes_per_step(config: RunConfig) -> int:
    assert isinstance(config.model, BLTConfig | ByteGPTConfig)
    training = config.training
    return config.model.context_bytes * training.batch_rows * training.accumulate


def _held_out(config: RunConfig) -> Corpus:
    """The test split of the run: files that neither training nor calibration has seen."""
    data = config.data
    return split(
        build_corpus(data.paths, suffixes=data.suffixes),
        valid_fraction=data.valid_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
    ).test


def _load(blt: TrainResult, gpt: TrainResult) -> dict[str, LanguageModel]:
    model = load(blt.run_dir)
    models = {"BLT": model}
    if isinstance(model.model, BLT) and model.model.entropy_model is not None:
        models["its entropy model"] = LanguageModel(model.model.entropy_model)
    return models | {"byte GPT": load(gpt.run_dir)}


def _evaluate(
    model: LanguageModel,
    held_out: Corpus,
    compressors: Sequence[CompressorResult],
    on_progress: Callable[[int], None],
) -> Evaluation:
    documents = list(zip(held_out.names, held_out, strict=True))
    found = evaluate(model, documents, compressors=compressors, on_progress=on_progress)
    if found.mean_patch_bytes < 1:
        return found
    flops = total_flops_per_byte(model.model, mean_patch_bytes=found.mean_patch_bytes)
    return replace(found, flops_per_byte=flops)


def _parameters(model: LanguageModel) -> int:
    """Trained numbers; of a count model, the numbers in its tables."""
    trained = sum(parameter.numel() for parameter in model.model.parameters())
    return trained or sum(buffer.numel() for buffer in model.model.buffers())


def _write(
    result: DemoResult,
    models: dict[str, LanguageModel],
    held_out: Corpus,
    runs: dict[str, TrainResult],
) -> None:
    shown = _shown_document(held_out)
    name, data = held_out.names[shown], held_out.document(shown).tobytes()
    scores = [model_score(key, found) for key, found in result.models.items()]
    scores += [compressor_score(row) for row in result.compressors]
    warnings = [line for found in result.models.values() for line in found.warnings]
    prompt = data[:SAMPLE_PROMPT_BYTES]
    samples = [
        Sample(
            label=f"{key}, temperature 0.8, seed 0",
            prompt=prompt,
            text=b"".join(models[key].generate(prompt, max_new_bytes=SAMPLE_BYTES)),
        )
        for key in ("BLT", "byte GPT")
    ]
    blt = result.models["BLT"]
    write_report(
        result.report,
        title="From raw files to a Byte Latent Transformer",
        subtitle=(
            f"{blt.bits_per_byte:.3f} bits per byte on {blt.bytes_scored:,} held-out bytes, "
            f"{blt.mean_patch_bytes:.2f} bytes per patch."
        ),
        sections=[
            comparison_section(
                scores,
                note="Every held-out byte is scored once. The compressors read the held-out files "
                "as one stream; the models read each file alone, after training on the others.",
                warnings=warnings,
            ),
            curves_section({key: run.run_dir for key, run in runs.items()}),
            patch_section(
                patch_view(models["BLT"], data, name=name, max_bytes=SHOWN_BYTES),
                title="Patches of a held-out file",
            ),
            samples_section(samples),
            settings_section(
                {f"parameters, {key}": f"{count:,}" for key, count in result.parameters.items()}
                | {
                    f"seconds of training, {key}": f"{_seconds(run.run_dir):.0f}"
                    for key, run in runs.items()
                },
                commands=[
                    f"bytelm generate {runs['BLT'].run_dir} --prompt 'def main('",
                    f"bytelm patch FILE --run {runs['BLT'].run_dir} --html patches.html",
                    f"bytelm evaluate {runs['BLT'].run_dir} FILES",
                ],
            ),
        ],
    )


def _shown_document(held_out: Corpus) -> int:
    """The first held-out file that is long enough to show."""
    long_enough = np.flatnonzero(held_out.lengths >= min(SHOWN_BYTES, held_out.lengths.max()))
    return int(long_enough[0])


def _seconds(run_dir: Path) -> float:
    from bytelm.training.metrics import read

    rows = read(run_dir)
    return float(rows[-1]["seconds"]) if rows else 0.0


def _write_json(result: DemoResult, path: Path) -> None:
    found = {
        "models": {
            name: {
                "bits_per_byte": row.bits_per_byte,
                "interval": row.interval,
                "bytes_scored": row.bytes_scored,
                "mean_patch_bytes": row.mean_patch_bytes,
                "flops_per_byte": row.flops_per_byte,
                "parameters": result.parameters[name],
            }
            for name, row in result.models.items()
        },
        "compressors": {row.name: asdict(row) for row in result.compressors},
    }
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

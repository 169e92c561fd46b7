"""Kill a compression study at random moments, go on, compare with one that was never killed.

`python kill_study.py FOLDER KILLS SEED`; exits non-zero with the first difference.
Processes are forked from one that has torch loaded and has not computed anything.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np

from bytelm.compression import Options, compress
from bytelm.compression.models import codec_model
from bytelm.evaluation import CompressorResult
from bytelm.evaluation.compressors import Effort
from bytelm.experiments import run_plan
from bytelm.experiments.compression import CompressionPlan, stages
from bytelm.experiments.compression.plan import Patches, PatchRule, Sweep
from bytelm.language_model import load
from bytelm.training.settings import DataConfig, HardwareConfig

SMALL = (
    "model.dim=16",
    "model.ffn_dim=16",
    "model.n_layers=1",
    "model.num_buckets=64",
    "training.steps=12",
    "training.eval_every=4",
    "training.save_every=3",
)


def smoke_plan(file: Path) -> CompressionPlan:
    """Every kind of stage, each as small as it can be."""
    return CompressionPlan(
        title="Smoke",
        question="Does it go on?",
        data=DataConfig(paths=(str(file),)),
        test_bytes=600,
        recipe="codec-tiny",
        settings=SMALL,
        sweeps=(
            Sweep(name="size", title="Size", key="model.dim", values=(8, 16), axis="parameters"),
        ),
        lanes=(1, 3),
        patches=Patches(
            recipe="blt-tiny",
            settings=("training.steps=4", "training.batch_rows=2", "model.num_buckets=64"),
            rules=(PatchRule(name="spaces", settings=("patching.kind=space", "entropy=none")),),
            num_bytes=64,
            lanes=4,
        ),
        hardware=HardwareConfig(device="cpu", threads=1),
    )


EFFORT = Effort(seconds=2.0, cpu_seconds=2.0, peak_bytes=3_000_000)


def in_this_process(
    name: str,
    documents: list[np.ndarray],
    *,
    run: Path | None,
    profile: Literal["exact"],
    options: Options,
) -> CompressorResult:
    """Stands in for `measure_container`, whose processes load torch for seconds each."""
    model = None if run is None else codec_model(load(run).model, profile=profile)
    size = len(compress(documents[0].tobytes(), model=model, options=options))
    return CompressorResult(
        name=name,
        bytes=size,
        bits_per_byte=8 * size / len(documents[0]),
        per_file_bits_per_byte=None,
        parameters="",
        encode=EFFORT,
        decode=EFFORT,
    )


def write_data(folder: Path) -> Path:
    """A file of 12 kB that is easy to predict."""
    file = folder / "data.txt"
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "1234", "bytes;", "slept.\n"]
    file.write_text(" ".join(random.Random(0).choices(words, k=2500)))
    return file


def start(plan: CompressionPlan, out: Path) -> int:
    """Run the study in a new process; its id."""
    if child := os.fork():
        return child
    record = run_plan(plan, out)
    os._exit(len(record.missing))


def finish(child: int) -> int:
    """Wait for a process; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(out: Path) -> dict[str, object]:
    """What must not depend on interruptions: the record but for timing, weights, figures."""
    results = out / "results"
    record = json.loads((results / "comprehensive_results.json").read_text())
    del record["timing"], record["environment"]
    text = (results / "experimental_report.txt").read_text()
    words = text.partition("\nSpeed\n")[0]
    files = [*out.rglob("*.safetensors"), *results.glob("*.svg"), *results.glob("*.png")]
    return {
        "record": record,
        "words": words,
        **{str(file.relative_to(out)): file.read_bytes() for file in files},
    }


def main(folder: Path, kills: int, seed: int) -> None:
    """Run the comparison."""
    folder.mkdir(parents=True)
    stages.measure_container = in_this_process
    plan = smoke_plan(write_data(folder))
    straight, killed = folder / "straight", folder / "killed"
    # Compiled kernels are cached here, so that both take their time over the study.
    assert finish(start(plan, folder / "first")) == 0
    begun = time.monotonic()
    assert finish(start(plan, straight)) == 0
    whole = time.monotonic() - begun

    generator = random.Random(seed)
    died = 0
    for _ in range(kills):
        child = start(plan, killed)
        time.sleep(generator.uniform(0.0, 2 * whole / kills))
        os.kill(child, signal.SIGKILL)
        died += finish(child) == -signal.SIGKILL
    assert finish(start(plan, killed)) == 0

    expected, got = content(straight), content(killed)
    assert got.keys() == expected.keys(), (sorted(got), sorted(expected))
    for name in expected:
        assert got[name] == expected[name], f"{name} differs"
    sys.stdout.write(f"identical after {died} kills\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

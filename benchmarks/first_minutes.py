"""What two minutes of one core teach a model: bits per byte of the last 400 kB of a file.

    python benchmarks/first_minutes.py PATH/dickens [--seconds 120] [--recipes byte-gpt-small ...]

Everything that training needs is inside the time: reading, the entropy model, calibration and
saving. Steps are chosen from a short trial run, because a schedule must know
its length; the time that was really taken is printed. Compare with `xz -9e` and ppmd below.
"""

import argparse
import math
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

import bytelm
from bytelm import config as configs
from bytelm.data import build_corpus, split
from bytelm.evaluation import reference_compressors
from bytelm.training.metrics import read
from bytelm.training.run import RunConfig, train

TRIAL_STEPS = 40
MARGIN = 0.95
"""Part of the time that is planned for: the machine may be slower than in the trial."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--hold-out", type=int, default=400_000, metavar="BYTES")
    parser.add_argument("--recipes", nargs="+", default=["byte-gpt-small", "blt-small"])
    # Whatever is left are settings of the recipes, as `--optim.lr 3e-3`.
    args, settings = parser.parse_known_args()
    torch.set_num_threads(1)

    for name in args.recipes:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, args, configs.parse_overrides(settings), Path(folder))
    held_out = build_corpus([str(args.path)]).document(0)[-args.hold_out :]
    for row in reference_compressors([held_out]):
        print(f"{row.name:16} {row.bits_per_byte} bits/byte", flush=True)


def measure(name: str, args: argparse.Namespace, settings: dict, folder: Path) -> None:
    size = args.path.stat().st_size
    config = configs.load(
        RunConfig,
        name,
        {
            "data.paths": (str(args.path),),
            "data.test_fraction": args.hold_out / size,
            "data.valid_fraction": 50_000 / size,
            "hardware.threads": 1,
            "hardware.device": "cpu",
            **settings,
        },
    )
    steps = math.floor(planned_steps(config, args.seconds, folder))
    training = replace(config.training, steps=steps, eval_every=steps, save_every=steps)
    use_empty_cache(folder / "cache")
    begun = time.perf_counter()
    result = train(replace(config, training=training), folder / "run", progress=False)
    taken = time.perf_counter() - begun
    seen = read(folder / "run")[-1]["bytes_seen"]
    test = split(
        build_corpus([str(args.path)]),
        valid_fraction=config.data.valid_fraction,
        test_fraction=config.data.test_fraction,
        seed=config.data.split_seed,
    ).test
    model = bytelm.load(result.run_dir)
    data = test.document(0)
    assert len(data) == args.hold_out, (len(data), args.hold_out)
    scored = model.score(data)
    bpb = scored.nll_nats.sum(dtype="float64") / math.log(2) / len(data)
    print(
        f"{name:16} {bpb:.4f} bits/byte of {len(data):,} bytes, "
        f"{len(data) / scored.starts.sum():.2f} bytes per patch; "
        f"{taken:.1f} s, {steps} steps, {seen:,} bytes seen",
        flush=True,
    )


def planned_steps(config: RunConfig, seconds: float, folder: Path) -> float:
    """Steps that fit beside what comes before the first one, from a trial of the same run."""
    training = replace(config.training, steps=TRIAL_STEPS, eval_every=TRIAL_STEPS)
    use_empty_cache(folder / "trial-cache")
    begun = time.perf_counter()
    train(replace(config, training=training), folder / "trial", progress=False)
    whole = time.perf_counter() - begun
    rows = read(folder / "trial")
    late = [row["seconds"] for row in rows[TRIAL_STEPS // 4 - 1 : -1]]
    a_step = (late[-1] - late[0]) / (len(late) - 1)
    return MARGIN * (seconds - (whole - TRIAL_STEPS * a_step)) / a_step


def use_empty_cache(folder: Path) -> None:
    """Entropy models count as part of the time: none may come from an earlier run."""
    os.environ["BYTELM_CACHE"] = str(folder)


if __name__ == "__main__":
    main()

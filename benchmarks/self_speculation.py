"""Plain decoding and self-speculation of a BLT with a large global transformer: time and equality.

    python benchmarks/self_speculation.py PATH/dickens [--out runs/speculation] [--runs RUN ...]

Trains the model first (20 minutes on one core; the same command again goes on or finds it trained):
a local part of 128 units under a global transformer of 512 with 8 layers. Then texts are written
after held-out prompts, greedily and at temperature 0.8, plain and with speculation in turn, as
`bytelm generate` does, in float64. `--runs` measures other trained BLTs as well.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

import bytelm
from bytelm.config import load
from bytelm.models import BLT
from bytelm.models.cost import cost
from bytelm.training.run import RunConfig, train

SETTINGS = {
    "model.context_bytes": 512,
    "model.dim": 128,
    "model.n_heads": 4,
    "model.n_layers_decoder": 1,
    "model.window": 128,
    "model.ffn_dim": 384,
    "model.dim_global": 512,
    "model.n_heads_global": 8,
    "model.n_layers_global": 8,
    "model.ffn_dim_global": 1536,
    "model.num_buckets": 16_384,
    "entropy.recipe.model.dim": 128,
    "entropy.recipe.model.n_layers": 3,
    "patching.mean_patch_bytes": 4.5,
    "training.batch_rows": 8,
    "training.steps": 300,
    "training.eval_every": 100,
    "hardware.threads": 1,
}
PROMPT, NEW, PROMPTS = 200, 300, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/speculation"))
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    settings = {**SETTINGS, "data.paths": (str(arguments.text),)}
    train(load(RunConfig, "blt-tiny", settings), arguments.out)
    torch.set_num_threads(1)
    text = arguments.text.read_bytes()
    for run in (arguments.out, *arguments.runs):
        report(run, text)


def report(run: Path, text: bytes) -> None:
    """Measure one model."""
    model = bytelm.load(run)
    assert isinstance(model.model, BLT)
    print(f"{run}: {shares(model, text[-100_000:])}")
    step = 20_000
    prompts = [text[-step * n :][:PROMPT] for n in range(1, PROMPTS + 1)]
    for temperature in (0.0, 0.8):
        ratios, plain_times, equal = [], [], 0
        for seed, prompt in enumerate(prompts):
            plain, took = written(model, prompt, temperature, seed, speculate=False)
            fast, faster = written(model, prompt, temperature, seed, speculate=True)
            equal += plain == fast
            ratios.append(took / faster)
            plain_times.append(took)
        print(
            f"  temperature {temperature}: {1000 * statistics.median(plain_times) / NEW:.2f} ms a "
            f"byte plain, speculation {statistics.median(ratios):.2f} times as fast "
            f"({min(ratios):.2f} to {max(ratios):.2f}), {equal} of {len(prompts)} texts equal",
            flush=True,
        )


def written(
    model: bytelm.LanguageModel, prompt: bytes, temperature: float, seed: int, *, speculate: bool
) -> tuple[bytes, float]:
    """A text, and the seconds from its first byte to its last."""
    pieces = model.generate(
        prompt,
        max_new_bytes=NEW,
        temperature=temperature,
        seed=seed,
        speculate=speculate,
    )
    text = next(pieces)
    begun = time.perf_counter()
    text += b"".join(pieces)
    return text, time.perf_counter() - begun


def shares(model: bytelm.LanguageModel, text: bytes) -> str:
    """How the FLOPs of a byte are divided."""
    blt = model.model
    assert isinstance(blt, BLT)
    assert blt.entropy_model is not None
    mean_patch_bytes = len(text) / int(model.patch_starts(text).sum())
    whole = cost(
        blt.config, mean_patch_bytes=mean_patch_bytes, entropy_config=blt.entropy_model.config
    ).flops_per_byte
    # With endless patches nothing is left of the global transformer.
    local = cost(blt.config, mean_patch_bytes=1e9).flops_per_byte
    return (
        f"{whole / 1e6:.1f} MFLOPs a byte at {mean_patch_bytes:.2f} bytes a patch, "
        f"{1 - local / whole:.0%} of them in the global transformer and the entropy model"
    )


if __name__ == "__main__":
    main()

"""Pairs and settings of runs that take a second, for tests and for `kill_and_resume.py`."""

import random
from dataclasses import replace

from bytelm.data.pairs import Pair, PairSplits
from bytelm.models import NgramConfig, PatchEncoderConfig, Seq2SeqConfig
from bytelm.training.pair_settings import PairRunConfig, PairTraining
from bytelm.training.schedules import Plateau
from bytelm.training.settings import Calibrated, HardwareConfig

SIZES = Seq2SeqConfig(
    max_bytes=12,
    dim=16,
    n_heads=2,
    n_layers_encoder=1,
    n_layers_decoder=1,
    ffn_dim_encoder=16,
    ffn_dim=16,
    positions="learned",
    dropout=0.1,
)
"""With dropout, so that random states matter."""

BASELINE = PairRunConfig(
    model=SIZES,
    schedule=Plateau(patience=1, warmup_steps=2),
    training=PairTraining(epochs=3, batch_rows=4, save_every=4),
    hardware=HardwareConfig(device="cpu", threads=1),
)
"""5 updates an epoch with `splits()`; every evaluation and checkpoint path is used."""

PATCHED = replace(
    BASELINE,
    model=replace(
        SIZES,
        positions="rotary",
        patches=PatchEncoderConfig(
            dim=8, n_heads=2, ffn_dim=8, num_buckets=32, max_patch_bytes=4, cross_attn_k=2
        ),
    ),
    patching=Calibrated(mean_patch_bytes=2.0, max_patch_bytes=4),
    entropy=NgramConfig(order=2),
)


def splits(*, seed: int = 0) -> PairSplits:
    """20 and 9 texts of 2 to 9 bytes, some of them not ASCII, to be copied."""
    generator = random.Random(seed)
    texts = {"".join(generator.choices("abc \u00e9", k=generator.randint(2, 6))) for _ in range(99)}
    pairs = [Pair(text, text) for text in sorted(texts)]
    generator.shuffle(pairs)
    return PairSplits(tuple(pairs[:20]), tuple(pairs[20:29]), ())

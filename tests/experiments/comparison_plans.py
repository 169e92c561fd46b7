"""A comparison of a few seconds, for tests: every kind of stage, each as small as it can be."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

from bytelm.data.pairs import Pair, write_pairs
from bytelm.experiments.comparison.plan import ComparisonPlan, Decoding, PairData
from bytelm.experiments.comparison.space import Dimension, SearchConfig
from bytelm.models import NgramConfig, PatchEncoderConfig, Seq2SeqConfig
from bytelm.training.pair_settings import PairTraining
from bytelm.training.settings import Calibrated, HardwareConfig

SPACE = (
    Dimension(key="optim.lr", values=(0.002, 0.004, 0.008)),
    Dimension(key="training.batch_rows", values=(8, 16)),
    Dimension(key="optim.hash_lr", low=0.01, high=0.1, log=True),
)

FAILING = Dimension(key="optim.lr", values=(0.004, 1e30, 0.008))
"""The second of its trials ends with numbers that are none."""

WORDS = ("it", "was", "the", "best", "of", "times", "worst", "caf\u00e9", "age", "foolish")


def smoke_plan(folder: Path, /, **changes) -> ComparisonPlan:
    """Reversal of three words with a model of a few thousand parameters."""
    plan = ComparisonPlan(
        title="Smoke",
        question="Does it go on?",
        task="reversal",
        data=PairData(
            train_csv=str(folder / "train.csv"),
            test_csv=str(folder / "test.csv"),
            valid_fraction=0.2,
        ),
        model=Seq2SeqConfig(
            max_bytes=30,
            dim=16,
            n_heads=2,
            n_layers_encoder=1,
            n_layers_decoder=1,
            ffn_dim_encoder=16,
            ffn_dim=16,
            patches=PatchEncoderConfig(dim=8, n_heads=2, ffn_dim=8, num_buckets=8),
        ),
        patching=Calibrated(mean_patch_bytes=3.0, max_patch_bytes=8),
        entropy=NgramConfig(order=2),
        training=PairTraining(epochs=2, batch_rows=16, save_every=2),
        decoding=Decoding(beam_width=2),
        hardware=HardwareConfig(device="cpu", threads=1),
    )
    return replace(plan, **changes)


def tuned_plan(folder: Path, /, **changes) -> ComparisonPlan:
    """The same with a search, a curve and two seeds."""
    return smoke_plan(
        folder,
        **{
            "search": SearchConfig(trials=3, epochs=1, space=SPACE),
            "patch_sizes": (4.0,),
            "seeds": 2,
            **changes,
        },
    )


def write_rows(folder: Path, *, num_train: int = 48, num_test: int = 12) -> Path:
    """Write the two files of a smoke plan; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [" ".join(words) for words in itertools.product(WORDS, repeat=3)]
    random.Random(0).shuffle(texts)
    rows = [Pair(text, text[::-1]) for text in texts]
    write_pairs(folder / "train.csv", rows[:num_train])
    write_pairs(folder / "test.csv", rows[num_train : num_train + num_test])
    return folder

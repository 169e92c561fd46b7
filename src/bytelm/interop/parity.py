"""How far a BLT is from the `BltForCausalLM` that transformers makes of its export: tests T1 to T9.

    T1  float32 logits, patches given and patches found by each          1e-4
    T2  float64 logits (transformers keeps parts in float32)             5e-6
    T3  entropies 1e-5, then equal patches, no entropy near the threshold
    T4  buckets of hashed n-grams, all primes                            equal
    T5  logits of rows longer than the window of 512                     1e-4
    T6  gradients of all trained weights, float64                        1e-5 relative
    T7  incremental decoding: float32 log-probabilities 1e-3, float64 against our own forward 1e-9,
        rows of several lengths against single rows
    T8  export, load, save there, import: bits and patches               equal
    T9  the mean loss in nats                                            1e-5

Models are random, `random_blt(seed)`: with and without the projection into the global transformer,
grouped heads, 1, 2 and 4 vectors a patch, 1 to 3 hash functions, windows shorter and longer than
the rows, cross-attention in all and in the first decoder layer. `tests/parity` and
`benchmarks/against_transformers.py` call these same functions.
Shape key: B rows, T ids, S = T + 1, P patches.
"""

import itertools
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bytelm.decoding.reader import Reader
from bytelm.decoding.session import Session
from bytelm.interop.huggingface import export_model, load_directory
from bytelm.interop.names import blt_names
from bytelm.interop.random_models import MARGIN, random_blt, random_ids, with_threshold
from bytelm.models import BLT, EntropyLM, EntropyLMConfig
from bytelm.nn.hash_ngrams import HASH_PRIMES, hash_windows, ngram_powers, ngram_windows
from bytelm.patching import Entropy
from bytelm.training.step import cross_entropy_nats
from bytelm.vocab import IGNORE, OFFSET, VOCAB_SIZE

LONG_WINDOW, LONG_ROW = 512, 700
"""T5: the released window, and rows that cross it."""

DECODED_BYTES = 256
"""T7: steps."""

EXACT_IDS = 128
"""T2: ids of a row. The angles of transformers are float32: its error grows with the position."""

NO_GRADIENT = 1e-9
"""A smaller one is rounding: with one vector a patch, queries and keys have none."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One comparison."""

    test: str
    """T1 to T9."""

    what: str
    """What was compared."""

    difference: float
    """The largest, absolute unless `what` says relative; of equality 0 or 1."""

    tolerance: float
    """The largest that passes."""

    @property
    def passed(self) -> bool:
        """Whether it is within the tolerance; a difference that is not a number is not."""
        return self.difference <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class Case:
    """A random model, the model that transformers made of its export, and rows of ids."""

    ours: BLT
    theirs: Any
    """A `BltForCausalLM` in evaluation mode, float32."""
    folder: Path
    """The export."""
    ids: Int[Tensor, "B T"]
    """Begin with BOS; specials are among them, BOS no second time."""
    starts: Bool[Tensor, "B S"]
    """Our own patches of `ids`."""


def make_case(model: BLT, ids: Int[Tensor, "B T"], folder: Path) -> Case:
    """Export `model` into `folder`, new, and load it with transformers.

    Raises:
        ValueError: Keys are missing, unexpected or mismatched there.

    """
    export_model(model, folder)
    return Case(
        ours=model,
        theirs=load_theirs(folder),
        folder=folder,
        ids=ids,
        starts=model.patch(ids),
    )


def load_theirs(folder: Path) -> Any:
    """The `BltForCausalLM` of an export, float32, in evaluation mode.

    Raises:
        ValueError: Keys are missing, unexpected or mismatched.

    """
    from transformers import BltForCausalLM

    with _quiet():
        loaded: Any = BltForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, report = loaded
    wrong = {name: keys for name, keys in report.items() if keys}
    if wrong:
        raise ValueError(f"transformers did not load {folder} as it is: {wrong}")
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars of transformers."""
    from transformers.utils import logging

    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            logging.enable_progress_bar()


def patch_lengths(starts: Bool[Tensor, "B S"]) -> Int[Tensor, "B P"]:
    """Patches as transformers takes them: a row's lengths sum to S, zeros are padding."""
    rows, total = starts.shape
    lengths = torch.zeros(rows, int(starts.sum(1).max()), dtype=torch.int64)
    for row, flags in enumerate(starts):
        begins = torch.cat((flags.nonzero()[:, 0], torch.tensor([total])))
        lengths[row, : len(begins) - 1] = begins.diff()
    return lengths


def starts_of(lengths: Int[Tensor, "B P"], length: int) -> Bool[Tensor, "B S"]:
    """Patch starts of lengths as the patcher of transformers gives them."""
    starts = torch.zeros(len(lengths), length + 1, dtype=torch.bool)
    starts[:, 0] = True
    for row, ends in zip(starts, lengths.cumsum(1)[:, :-1], strict=True):
        row[ends[ends <= length]] = True
    return starts


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max())


# --- the tests ---------------------------------------------------------------------------------


@torch.no_grad()
def t1_logits(case: Case) -> list[Measured]:
    """Logits in float32."""
    theirs = case.theirs(case.ids, patch_lengths=patch_lengths(case.starts)).logits
    given = _difference(case.ours(case.ids, case.starts), theirs)
    found = _difference(case.ours(case.ids), case.theirs(case.ids).logits)
    return [
        Measured(test="T1", what="logits, patches given", difference=given, tolerance=1e-4),
        Measured(test="T1", what="logits, patches found", difference=found, tolerance=1e-4),
    ]


@torch.no_grad()
def t2_logits_float64(case: Case) -> list[Measured]:
    """Logits in float64."""
    ours, theirs = _doubles(case)
    ids, starts = case.ids[:, :EXACT_IDS], case.starts[:, : EXACT_IDS + 1]
    logits = theirs(ids, patch_lengths=patch_lengths(starts)).logits
    found = _difference(ours(ids, starts), logits)
    return [Measured(test="T2", what="logits in float64", difference=found, tolerance=5e-6)]


@torch.no_grad()
def t3_patches(case: Case) -> list[Measured]:
    """Entropies, then patches, where no entropy is near the threshold."""
    ours, patcher = case.ours, case.theirs.model.patcher
    assert isinstance(ours.entropy_model, EntropyLM), "made by random_blt"
    assert isinstance(ours.patcher, Entropy), "made by random_blt"
    threshold = ours.patcher.threshold or 0.0
    entropies, lengths, _ = patcher(case.ids, patch_size=4, threshold=threshold)
    own = ours.entropy_model.entropies(case.ids)
    near = float((own[:, 1:] - threshold).abs().min())
    found = starts_of(lengths, case.ids.shape[1])
    return [
        Measured(
            test="T3",
            what="entropies, nats",
            difference=_difference(own, entropies),
            tolerance=1e-5,
        ),
        Measured(
            test="T3", what="nearness to the threshold", difference=MARGIN - near, tolerance=0
        ),
        _equal("T3", "patch starts", torch.equal(found, case.starts)),
    ]


def t4_hashes(case: Case) -> list[Measured]:
    """Buckets for all primes, sizes 2 to 8, two numbers of buckets, and ids up to the last."""
    from transformers.models.blt.modeling_blt import byte_group_hash_function

    ids = torch.cat((case.ids, torch.full_like(case.ids[:1], VOCAB_SIZE - 1)))
    sizes, is_equal = tuple(range(2, 9)), True
    powers = ngram_powers(sizes, len(HASH_PRIMES))
    for num_buckets in (5000, 500_002):
        own = hash_windows(ngram_windows(ids, max(sizes)), powers, num_buckets)
        for index, (prime, size) in enumerate(itertools.product(HASH_PRIMES, sizes)):
            theirs = byte_group_hash_function(ids, size, prime, num_buckets)
            is_equal &= torch.equal(own[:, index], theirs.flatten())
    return [_equal("T4", "n-gram buckets", is_equal)]


@torch.no_grad()
def t5_long_rows(case: Case) -> list[Measured]:
    """Logits of rows that are longer than the window of 512."""
    window, length = case.ours.config.window, case.ids.shape[1]
    if not window < length:
        raise ValueError(f"T5 is about rows longer than the window, got {length} and {window}")
    found = _difference(case.ours(case.ids), case.theirs(case.ids).logits)
    what = f"logits, {length} ids, window {window}"
    return [Measured(test="T5", what=what, difference=found, tolerance=1e-4)]


def t6_gradients(case: Case) -> list[Measured]:
    """Gradients of the mean loss in float64, each relative to the largest of its tensor."""
    ours, theirs = _doubles(case)
    names = blt_names(ours.config, _entropy_config(ours))
    foreign = dict(theirs.named_parameters())
    labels = case.ids[:, 1:].flatten()
    logits = theirs(case.ids, patch_lengths=patch_lengths(case.starts)).logits
    F.cross_entropy(logits[:, :-1].flatten(0, 1).double(), labels).backward()
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_(not name.startswith("entropy_model."))
    own_logits = ours(case.ids, case.starts)
    F.cross_entropy(own_logits[:, :-1].flatten(0, 1), labels).backward()
    worst = 0.0
    for name, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"{name} got no gradient"
        own, other = parameter.grad.to_dense(), foreign[names[name]].grad
        worst = max(worst, _difference(own, other) / max(float(other.abs().max()), NO_GRADIENT))
    entropy = [foreign[name].grad for name in foreign if name.startswith("model.patcher.")]
    return [
        Measured(test="T6", what="gradients, relative", difference=worst, tolerance=1e-5),
        _equal("T6", "entropy model without gradient", all(grad is None for grad in entropy)),
    ]


@torch.no_grad()
def t7_decoding(case: Case) -> list[Measured]:
    """Byte by byte with caches, alone and in rows of several lengths."""
    ids = _without_specials(case.ids)
    text = bytes((ids[0, 1:] - OFFSET).tolist())
    theirs = case.theirs(ids).logits[0, :, OFFSET:].log_softmax(-1)
    own = _stepwise(case.ours, text)
    gap = theirs.topk(2).values.diff(dim=-1).abs()[:, 0] > 2e-3
    is_same = torch.equal(own.argmax(-1)[gap], theirs.argmax(-1)[gap])
    exact = deepcopy(case.ours).double()
    forward = exact(ids)[0, :, OFFSET:].log_softmax(-1)
    steps = _stepwise_exact(exact, text)
    lengths = (len(text), len(text) // 3, 0, 2 * len(text) // 3)
    ragged = Session(case.ours, rows=len(lengths))
    ragged.push([text[:length] for length in lengths])
    together = torch.from_numpy(ragged.log_probs())
    alone = own[list(lengths)]
    return [
        Measured(
            test="T7",
            what=f"log-probabilities, {len(text)} steps",
            difference=_difference(own, theirs),
            tolerance=1e-3,
        ),
        _equal("T7", "likeliest byte", is_same),
        Measured(
            test="T7",
            what="steps and forward, float64",
            difference=_difference(steps, forward),
            tolerance=1e-9,
        ),
        Measured(
            test="T7",
            what="rows of several lengths and single ones",
            difference=_difference(together, alone),
            tolerance=1e-5,
        ),
    ]


def _without_specials(ids: Int[Tensor, "B T"]) -> Int[Tensor, "1 S"]:
    """BOS and the bytes of the first row, which is what a session reads."""
    row = ids[0, 1:]
    return torch.cat((ids[0, :1], row[row >= OFFSET][:DECODED_BYTES]))[None]


def _stepwise(model: BLT, text: bytes) -> Float[Tensor, "T 256"]:
    """Log-probabilities before each byte and after the last, one byte at a time."""
    session = Session(model)
    rows = [session.log_probs()]
    for byte in text:
        session.push([bytes([byte])])
        rows.append(session.log_probs())
    return torch.from_numpy(np.concatenate(rows))


def _stepwise_exact(model: BLT, text: bytes) -> Float[Tensor, "T 256"]:
    """The same in float64, which a session does not show."""
    reader = Reader(model)
    pieces = [np.frombuffer(bytes([byte]), np.uint8) for byte in text]
    return torch.cat([reader.begin().log_probs, *(reader.read([p]).log_probs for p in pieces)])


@torch.no_grad()
def t8_round_trip(case: Case) -> list[Measured]:
    """Saved by transformers and imported again."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        case.theirs.save_pretrained(folder)
        back = load_directory(Path(folder))
    assert isinstance(back, BLT), "a BltForCausalLM is a BLT"
    own, other = case.ours.state_dict(), back.state_dict()
    bits = own.keys() == other.keys() and all(torch.equal(own[n], other[n]) for n in own)
    return [
        _equal("T8", "weights", bits and back.patcher == case.ours.patcher),
        _equal("T8", "patches", torch.equal(back.patch(case.ids), case.starts)),
        Measured(
            test="T8",
            what="logits",
            difference=_difference(back(case.ids), case.ours(case.ids)),
            tolerance=0,
        ),
    ]


@torch.no_grad()
def t9_loss(case: Case) -> list[Measured]:
    """The mean loss in nats over the bytes, and bits per byte."""
    targets = F.pad(case.ids[:, 1:], (0, 1), value=IGNORE)
    targets[targets < OFFSET] = IGNORE
    labels = F.pad(targets[:, :-1], (1, 0), value=IGNORE)
    theirs = float(case.theirs(case.ids, labels=labels).loss)
    count = int((targets != IGNORE).sum())
    ours = float(cross_entropy_nats(case.ours(case.ids), targets)) / count
    return [
        Measured(test="T9", what="loss, nats", difference=abs(ours - theirs), tolerance=1e-5),
        Measured(
            test="T9",
            what="bits per byte",
            difference=abs(ours - theirs) / math.log(2),
            tolerance=1.5e-5,
        ),
    ]


def _equal(test: str, what: str, is_equal: bool) -> Measured:
    return Measured(test=test, what=what, difference=0.0 if is_equal else 1.0, tolerance=0)


def _doubles(case: Case) -> tuple[BLT, Any]:
    return deepcopy(case.ours).double(), deepcopy(case.theirs).double()


def _entropy_config(model: BLT) -> EntropyLMConfig:
    assert isinstance(model.entropy_model, EntropyLM), "made by random_blt"
    return model.entropy_model.config


SHORT_TESTS: tuple[Callable[[Case], list[Measured]], ...] = (
    t1_logits,
    t2_logits_float64,
    t3_patches,
    t4_hashes,
    t6_gradients,
    t7_decoding,
    t8_round_trip,
    t9_loss,
)
"""All but T5, which is about long rows."""


def measure(seed: int) -> list[Measured]:
    """T1 to T9 of one random model; everything is measured, whatever passes."""
    with tempfile.TemporaryDirectory() as folder:
        short = make_case(*short_case(seed), Path(folder) / "short")
        long = make_case(*long_case(seed), Path(folder) / "long")
        found = [measured for test in SHORT_TESTS for measured in test(short)]
        return [*found, *t5_long_rows(long)]


def short_case(seed: int) -> tuple[BLT, Int[Tensor, "B T"]]:
    """A random model, and rows for all tests but T5."""
    ids = random_ids(seed, 2, DECODED_BYTES + 30)
    return with_threshold(random_blt(seed), ids, _without_specials(ids)), ids


def long_case(seed: int) -> tuple[BLT, Int[Tensor, "B T"]]:
    """A random model with the released window, and rows that cross it."""
    ids = random_ids(seed, 2, LONG_ROW)
    model = random_blt(seed, window=LONG_WINDOW)
    return with_threshold(model, ids), ids

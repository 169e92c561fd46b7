"""Oracle: the training forward of each row alone; reading with torch and stepping must equal it."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bytelm.models import BLT, ByteGPT, EntropyLM
from bytelm.models.blt import BLTState
from bytelm.models.byte_gpt import SquaredReLU
from bytelm.models.state import StackState
from bytelm.models.steps import (
    MAX_PIECE,
    BLTStepper,
    StackStepper,
    blt_stepper,
    is_short,
    squared_relu,
    stack_stepper,
)
from bytelm.nn.kv_cache import WindowCache
from bytelm.patching import Space, Static
from conftest import CONTEXT, TEXT, as_ids, blt, byte_gpt, entropy_lm, randomize_

Neural = BLT | ByteGPT | EntropyLM

BLTS: dict[str, dict[str, Any]] = {
    "one vector, no global_in": {"dim_global": 16, "n_heads_global": 4, "cross_attn_k": 1},
    "two vectors": {"cross_attn_k": 2, "num_hash_functions": 2},
    "four vectors": {"cross_attn_k": 4, "n_heads": 8, "n_kv_heads": 1, "ngram_sizes": ()},
    "grouped": {"n_heads": 4, "n_kv_heads": 2, "n_heads_global": 6, "n_kv_heads_global": 2},
    "decoder of its own": {
        "n_heads_decoder": 8,
        "n_kv_heads_decoder": 2,
        "ffn_dim_decoder": 20,
        "num_hash_functions": 3,
    },
    "first layer crosses": {"cross_attention_every_layer": False, "n_layers_decoder": 3},
    "windows of one byte": {"window": 1, "n_layers_encoder": 2},
}


def blt_like(sizes: dict[str, Any], patcher: Space | Static) -> BLT:
    model = BLT(dataclasses.replace(blt(False, patcher, None).config, **sizes), patcher)
    randomize_(model)
    return model.eval()


def grouped_entropy_lm() -> EntropyLM:
    config = dataclasses.replace(entropy_lm(False).config, n_heads=4, n_kv_heads=2)
    model = EntropyLM(config)
    randomize_(model)
    return model.eval()


def gpt_without_ngrams() -> ByteGPT:
    config = dataclasses.replace(byte_gpt(False, 5).config, ngram_sizes=())
    model = ByteGPT(config)
    randomize_(model)
    return model.eval()


MODELS: dict[str, Callable[[], Neural]] = {
    **{
        f"blt, {name}, {patcher!r}": lambda sizes=sizes, patcher=patcher: blt_like(sizes, patcher)
        for name, sizes in BLTS.items()
        for patcher in (Static(patch_size=1), Space(max_patch_bytes=6))
    },
    "byte-gpt": lambda: byte_gpt(False, 16),
    "byte-gpt, full attention": lambda: byte_gpt(False, None),
    "byte-gpt, no n-grams": gpt_without_ngrams,
    "entropy-lm": lambda: entropy_lm(False),
    "entropy-lm, grouped": grouped_entropy_lm,
}
each_model = pytest.mark.parametrize("name", MODELS)


class Reading:
    """Rows of a model, read by its stepper or by torch, and what must come of it."""

    def __init__(self, model: Neural, texts: list[bytes]) -> None:
        self.model, self.state = model, model.begin(len(texts))
        self.ids = [as_ids(text) for text in texts]
        starts = [model.patch(ids) if isinstance(model, BLT) else None for ids in self.ids]
        pairs = zip(self.ids, starts, strict=True)
        with torch.no_grad():
            forward = [model(*pair) if isinstance(model, BLT) else model(pair[0]) for pair in pairs]
        self.expected = [logits[0] for logits in forward]
        self.flags = [None if flags is None else flags[0, 1:].numpy() for flags in starts]
        self.at = np.zeros(len(texts), np.int64)
        self.stepper = make_stepper(model, self.state)

    def read(self, counts: list[int], slots: list[int], *, stepping: bool) -> Tensor:
        """Logits after the next ids of some rows."""
        chosen, number = np.array(slots), np.array(counts)
        pairs = list(zip(slots, counts, strict=True))

        def following(rows: list[Any]) -> np.ndarray:
            at = self.at
            return np.concatenate([rows[slot][at[slot] : at[slot] + n] for slot, n in pairs])

        ids = following([ids[0].numpy() for ids in self.ids])
        extra = [following(self.flags)] if isinstance(self.model, BLT) else []
        if stepping:
            assert is_short(ids, chosen)
            logits = torch.from_numpy(self.stepper(ids, *extra, chosen))
        else:
            logits = self.model.read(ids, *extra, number, chosen, self.state)
        self.at[chosen] += number
        return logits

    def wanted(self, counts: list[int], slots: list[int]) -> Tensor:
        """What the last `read` of these must have given."""
        pairs = zip(slots, counts, strict=True)
        ends = self.at
        return torch.cat([self.expected[s][ends[s] - n : ends[s]] for s, n in pairs])

    def left(self) -> np.ndarray:
        return np.array([ids.shape[1] for ids in self.ids]) - self.at


def make_stepper(model: Neural, state: BLTState | StackState) -> BLTStepper | StackStepper:
    if isinstance(model, BLT):
        assert isinstance(state, BLTState)
        made = blt_stepper(model, state)
    else:
        assert isinstance(state, StackState)
        made = stack_stepper(model, state)
    assert made is not None
    return made


def random_counts(reading: Reading, rng: np.random.Generator) -> tuple[list[int], list[int], bool]:
    """Counts, slots, and whether to step: one id of some rows, or a piece of some."""
    left = reading.left()
    slots = [slot for slot in rng.permutation(len(left)).tolist() if left[slot]]
    slots = slots[: int(rng.integers(1, len(slots) + 1))]
    match rng.choice(["step", "step", "read", "piece", "pieces"]):
        case "step":
            return [1] * len(slots), slots, True
        case "read":
            return [1] * len(slots), slots, False
        case "piece":
            return [int(rng.integers(1, min(left[slots[0]], MAX_PIECE) + 1))], slots[:1], True
        case _:
            return [int(rng.integers(1, min(left[s], 30) + 1)) for s in slots], slots, False


TEXTS = [TEXT[: CONTEXT - 1], TEXT[60:90], TEXT[130:175]]


@each_model
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 3e-4), (torch.float64, 1e-10)], ids=["f32", "f64"]
)
def test_stepping_and_reading_in_any_order_equal_the_forward(
    name: str, dtype: torch.dtype, error: float
) -> None:
    model, rng = MODELS[name]().to(dtype), np.random.default_rng(len(name))
    with torch.inference_mode():
        reading = Reading(model, TEXTS)
        while reading.left().any():
            counts, slots, stepping = random_counts(reading, rng)
            logits = reading.read(counts, slots, stepping=stepping)
            expected = reading.wanted(counts, slots)
            torch.testing.assert_close(logits, expected, atol=error, rtol=error)


@each_model
def test_byte_by_byte_far_out_equals_the_forward_at_the_beginning(name: str) -> None:
    """Rotary positions are relative: a row that begins at 4,070 or at 10^6 reads the same."""
    model = MODELS[name]().double()
    with torch.inference_mode():
        reading = Reading(model, TEXTS)
        state = reading.state
        caches = (
            [state.encoder, state.decoder, state.patches]
            if isinstance(state, BLTState)
            else [state.cache]
        )
        for cache in caches:
            cache.positions += np.array([4_070, 0, 1_000_000])
        while reading.left().all():
            logits = reading.read([1] * 3, [0, 1, 2], stepping=True)
            expected = reading.wanted([1] * 3, [0, 1, 2])
            torch.testing.assert_close(logits, expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", [name for name in MODELS if "Space" in name])
@pytest.mark.parametrize("kept", [1, 7, 19])
def test_a_piece_of_which_only_the_first_bytes_are_kept(name: str, kept: int) -> None:
    """As in speculation: what was read after them is taken back, and a row goes on from there."""
    model, row, begin, size = MODELS[name]().double(), np.zeros(1, np.int64), 10, 20
    with torch.inference_mode():
        reading = Reading(model, TEXTS[:1])
        reading.read([begin], [0], stepping=False)
        state, made = reading.state, reading.stepper
        assert isinstance(state, BLTState)
        assert isinstance(made, BLTStepper)
        for cache in (state.encoder, state.decoder):
            assert isinstance(cache, WindowCache)
            cache.reserve(0, size)
        x = made.encode(reading.ids[0][0, begin : begin + size].numpy(), row)
        closing = made.close_piece(x, reading.flags[0][begin : begin + size], 0)
        logits = torch.from_numpy(made.decode_piece(x, closing, 0))
        expected = reading.expected[0][begin : begin + size]
        torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)
        for part in (state.encoder, state.decoder, state.ids):
            part.rewind(0, size - kept)
        state.patches.rewind(0, int(closing.counts[-1] - closing.counts[kept - 1]))
        made.keep_piece(x[:kept], closing, 0)
        reading.at[0] = begin + kept
        for sizes in ([1], [1], [5], [1]):
            logits = reading.read(sizes, [0], stepping=sizes == [1])
            expected = reading.wanted(sizes, [0])
            torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)


@each_model
def test_rows_are_forked_put_back_and_cleared_between_steps(name: str) -> None:
    model, rng = MODELS[name]().double(), np.random.default_rng(1)
    with torch.inference_mode():
        reading = Reading(model, [*TEXTS[:2], TEXTS[0]])

        def some(sizes: list[int], slots: list[int], *, stepping: bool) -> None:
            logits = reading.read(sizes, slots, stepping=stepping)
            expected = reading.wanted(sizes, slots)
            torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)

        some([9, 4], [0, 1], stepping=False)
        some([1, 1], [1, 0], stepping=True)
        some([7], [0], stepping=True)
        saved = reading.state.save(0)
        some([1, 1], [0, 1], stepping=True)
        some([5, 3], [0, 1], stepping=False)
        # Row 2 goes on as row 0, whose text is the same; row 0 goes back.
        reading.state.select([0, 1, 0])
        reading.at[2] = reading.at[0]
        reading.state.restore(0, saved)
        reading.at[0] -= 6
        for _ in range(6):
            some([1, 1, 1], rng.permutation(3).tolist(), stepping=bool(rng.integers(2)))
        reading.state.clear(1)
        reading.at[1] = 0
        some([1, 1, 1], [0, 1, 2], stepping=True)
        some([3, 6, 2], [0, 1, 2], stepping=False)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_squared_relu(dtype: torch.dtype, error: float) -> None:
    module = SquaredReLU(6, 9).to(dtype)
    randomize_(module)
    x = torch.randn(4, 6, dtype=dtype)
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(squared_relu(module)(x.numpy()), expected, atol=error, rtol=error)


def test_half_precision_has_no_stepper() -> None:
    model = copy.deepcopy(blt_like({}, Space())).bfloat16()
    assert blt_stepper(model, model.begin(1)) is None
    lm = grouped_entropy_lm().bfloat16()
    assert stack_stepper(lm, lm.begin(1)) is None

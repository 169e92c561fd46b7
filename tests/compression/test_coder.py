"""The range coder. Oracles: -log2 p, constriction's range coder, hand values, and the way back."""

import math

import constriction
import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from bytelm.compression import coder

BITS = coder.FREQUENCY_BITS


def encode(symbols, rows, bits=BITS) -> tuple[bytes, int]:
    """The payload, and how often the encoder shifted."""
    out = np.zeros(8 * len(symbols) + 64, np.uint8)
    state = coder.new_encoder()
    for symbol, row in zip(symbols, rows, strict=True):
        coder.encode(state, out, int(row[:symbol].sum()), int(row[symbol]), bits)
    shifts = int(state[coder.SHIFTS])
    return out[: coder.finish(state, out)].tobytes(), shifts


def decode(payload, rows, bits=BITS) -> tuple[list[int], int]:
    array = np.frombuffer(payload, np.uint8).copy()
    state = coder.new_decoder(array)
    found = []
    for row in rows:
        ends = row.cumsum()
        symbol = int(np.searchsorted(ends, coder.decode_target(state, bits), side="right"))
        start = int(ends[symbol] - row[symbol])
        coder.decode_took(state, array, start, int(row[symbol]), bits)
        found.append(symbol)
    return found, int(state[coder.SHIFTS])


def random_rows(rng, count, *, sharpness, bits=BITS, symbols=256) -> np.ndarray:
    weights = rng.dirichlet(np.full(symbols, sharpness), size=count)
    rows = 1 + (weights * ((1 << bits) - symbols)).astype(np.int64)
    rows[np.arange(count), rows.argmax(1)] += (1 << bits) - rows.sum(1)
    return rows


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    sharpness=st.sampled_from([1e-3, 0.02, 0.3, 10.0]),
    likely=st.booleans(),
)
def test_what_is_decoded_is_what_was_coded_at_its_information_content(
    seed, count, sharpness, likely
):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, count, sharpness=sharpness)
    symbols = [int(row.argmax()) if likely else int(rng.integers(256)) for row in rows]
    payload, shifts = encode(symbols, rows)
    found, decoder_shifts = decode(payload, rows)
    assert found == symbols
    assert decoder_shifts == shifts, "the proof relies on it (choice._FollowingProof)"
    bits = sum(BITS - math.log2(row[s]) for row, s in zip(rows, symbols, strict=True))
    assert len(payload) <= bits / 8 + 2, "ideal + 2 bytes"


def test_size_is_that_of_constriction():
    rng = np.random.default_rng(1)
    rows = random_rows(rng, 4000, sharpness=0.05)
    symbols = np.array([rng.choice(256, p=row / row.sum()) for row in rows], np.int32)
    payload, _ = encode(symbols.tolist(), rows)
    other = constriction.stream.queue.RangeEncoder()
    family = constriction.stream.model.Categorical(perfect=False)
    other.encode(symbols, family, rows / (1 << BITS))
    assert abs(len(payload) - 4 * len(other.get_compressed())) <= 8


def test_hand_values():
    # Two equal symbols of 2**1: three decisions 1, 0, 1 are the binary fraction .101 = 0xA0.
    half = np.array([1, 1])
    assert encode([1, 0, 1], [half] * 3, bits=1)[0] == b"\xa0"
    assert encode([0, 0, 0], [half] * 3, bits=1)[0] == b"", "zeros past the end need no bytes"
    assert encode([], [])[0] == b""
    # 255 of 256, five times: the interval ends at 1 and the shortest number in it is 0xFF...
    row = np.ones(256, np.int64)
    assert encode([255] * 5, [row] * 5, bits=8)[0] == b"\xff" * 5


def test_a_carry_runs_through_pending_bytes():
    # [0.5 - 2**-40, 0.5 + 2**-40): 0x7F 0xFF ... until the second symbol decides for 0x80.
    low, width = (1 << 23) - 1, 2
    row = np.array([low, width, (1 << 24) - low - width])
    halves = np.array([1 << 23, 1 << 23])
    payload, _ = encode([1, 1], [row, halves])
    assert payload == b"\x80"
    assert decode(payload, [row, halves])[0] == [1, 1]


@settings(max_examples=50, deadline=None)
@given(payload=st.binary(max_size=40), seed=st.integers(0, 1000))
def test_any_bytes_decode_to_some_symbols(payload, seed):
    rows = random_rows(np.random.default_rng(seed), 50, sharpness=0.1)
    found, _ = decode(payload, rows)
    assert len(found) == 50


@settings(max_examples=50, deadline=None)
@given(
    decisions=st.lists(st.tuples(st.integers(1, 65535), st.booleans()), max_size=200),
)
def test_binary_decisions(decisions):
    out = np.zeros(4 * len(decisions) + 64, np.uint8)
    state = coder.new_encoder()
    for p_one, bit in decisions:
        coder.encode_bit(state, out, p_one, int(bit))
    payload = out[: coder.finish(state, out)]
    state = coder.new_decoder(payload)
    for p_one, bit in decisions:
        assert coder.decode_bit(state, payload, p_one) == bit
    bits = -sum(math.log2((p if bit else 65536 - p) / 65536) for p, bit in decisions)
    assert len(payload) <= bits / 8 + 2

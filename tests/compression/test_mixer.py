"""The mixer. Oracles: the way back, the interpreter's run, hand values, and entropies."""

import hashlib
import math
import os
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from bytelm.compression import coder, mixer_tables
from bytelm.compression.coder import FREQUENCY_BITS
from bytelm.compression.kernels import kernel
from bytelm.compression.mixer import code_byte, new_mixer


@kernel
def code_all(mixer, state, buffer, data, rows, which, decoding):
    """Code every byte, in the order of a frame; byte i has row which[i], if there are rows."""
    begins = mixer.begins
    for step in range(begins[1] - begins[0]):
        for lane in range(begins.shape[0] - 1):
            place = begins[lane] + step
            if place < begins[lane + 1]:
                row = rows[which[place]] if rows.shape[0] else rows.reshape(-1)
                code_byte(mixer, state, buffer, data, lane, step, row, decoding)


NO_ROWS = np.zeros((0, 256), np.int32)


def lane_begins(n, lanes) -> np.ndarray:
    short, longer = divmod(n, lanes)
    sizes = [short + 1] * longer + [short] * (lanes - longer)
    return np.cumsum([0, *sizes]).astype(np.int64)


def chosen(n, rows, which) -> tuple[np.ndarray, np.ndarray]:
    return rows, np.arange(n) % max(len(rows), 1) if which is None else which


def encoded(data: bytes, lanes=1, rows=NO_ROWS, which=None) -> bytes:
    array, n = np.frombuffer(data, np.uint8).copy(), len(data)
    mixer = new_mixer(n, lane_begins(n, lanes), has_model=len(rows) > 0)
    state, out = coder.new_encoder(), np.zeros(3 * n + 64, np.uint8)
    code_all(mixer, state, out, array, *chosen(n, rows, which), 0)
    assert array.tobytes() == data
    return out[: coder.finish(state, out)].tobytes()


def decoded(payload: bytes, n: int, lanes=1, rows=NO_ROWS, which=None) -> bytes:
    array, buffer = np.zeros(n, np.uint8), np.frombuffer(payload, np.uint8).copy()
    mixer = new_mixer(n, lane_begins(n, lanes), has_model=len(rows) > 0)
    code_all(mixer, coder.new_decoder(buffer), buffer, array, *chosen(n, rows, which), 1)
    return array.tobytes()


def words(seed, count) -> bytes:
    """Text of a small vocabulary, with numbers, lines and a few long repeats."""
    rng = np.random.default_rng(seed)
    known = [bytes(rng.integers(97, 123, size=rng.integers(1, 9))) for _ in range(60)]
    ends = [b" ", b" ", b" ", b", ", b".\n"]
    parts = [known[rng.zipf(1.4) % 60] + ends[rng.integers(5)] for _ in range(count)]
    return b"".join(parts)


def binary(seed, n) -> bytes:
    """Little-endian records: a counter, a small number, a constant, noise."""
    rng = np.random.default_rng(seed)
    records = np.zeros((n // 12 + 1, 3), "<u4")
    records[:, 0] = np.arange(len(records)) * 12
    records[:, 1] = rng.integers(0, 50, len(records))
    records[:, 2] = rng.integers(0, 2**16, len(records))
    return records.tobytes()[:n]


def frequencies(probabilities) -> np.ndarray:
    """Integer frequencies as a model gives them."""
    row = 1 + (probabilities * ((1 << FREQUENCY_BITS) - 256) / probabilities.sum()).astype(np.int64)
    row[row.argmax()] += (1 << FREQUENCY_BITS) - row.sum()
    return row.astype(np.int32)


def random_rows(rng, count, *, sharpness) -> np.ndarray:
    drawn = rng.dirichlet(np.full(256, sharpness), size=count) + 1e-12
    return np.array([frequencies(probabilities) for probabilities in drawn])


@settings(max_examples=60, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.builds(words, st.integers(0, 99), st.integers(0, 150)),
        st.builds(binary, st.integers(0, 99), st.integers(0, 600)),
        st.builds(lambda part, times: part * times, st.binary(max_size=20), st.integers(0, 60)),
    ),
    lanes=st.one_of(st.integers(1, 8), st.integers(1, 256)),
)
def test_any_bytes_in_any_number_of_lanes_come_back(data, lanes):
    assert decoded(encoded(data, lanes), len(data), lanes) == data


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 300), lanes=st.integers(1, 40))
def test_any_rows_of_a_model_come_back(seed, n, lanes):
    rng = np.random.default_rng(seed)
    data = bytes(rng.integers(0, 256, n, dtype=np.uint8))
    rows = random_rows(rng, 50, sharpness=0.01)
    payload = encoded(data, lanes, rows)
    assert decoded(payload, n, lanes, rows) == data


def test_both_ways_where_a_match_runs_from_one_lane_into_the_next():
    data = b"abcdefghijklmnopqrstuvwxyz" * 40
    for lanes in (1, 2, 7, 26, 39, 256):
        assert decoded(encoded(data, lanes), len(data), lanes) == data


def sample() -> bytes:
    """Text, then records, then text that was there before."""
    text = words(1, 150)[:400]
    return text + binary(2, 300) + text[100:300] + bytes(100)


def digests() -> list[str]:
    data, rows = sample(), random_rows(np.random.default_rng(3), 50, sharpness=0.1)
    payloads = [encoded(data), encoded(data[200:900], 5), encoded(data[:200], 3, rows)]
    return [hashlib.blake2b(payload).hexdigest() for payload in payloads]


def test_the_interpreter_gives_the_same_payloads():
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_mixer; "  # noqa: PTH120
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + "print(*test_mixer.digests())"],
        env={**os.environ, "BYTELM_KERNELS": "python"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == digests()


def test_bytes_that_are_not_coded_yet_are_not_looked_at():
    data, begins = words(5, 300)[:1000], lane_begins(1000, 3)
    array = np.frombuffer(data, np.uint8)
    payloads = []
    for filler in (0, 97):
        seen = np.full(1000, filler, np.uint8)
        mixer = new_mixer(1000, begins, has_model=False)
        state, out = coder.new_encoder(), np.zeros(2000, np.uint8)
        for step in range(334):
            for lane in np.flatnonzero(np.diff(begins) > step).tolist():
                seen[begins[lane] + step] = array[begins[lane] + step]
                code_byte(mixer, state, out, seen, lane, step, NO_ROWS.reshape(-1), 0)
        payloads.append(out[: coder.finish(state, out)].tobytes())
    assert payloads[0] == payloads[1] == encoded(data, 3)


def bits_per_byte(data: bytes, lanes=1, rows=NO_ROWS, which=None) -> float:
    return 8 * len(encoded(data, lanes, rows, which)) / len(data)


def test_noise_costs_eight_bits_a_byte():
    noise = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8).tobytes()
    assert 8 <= bits_per_byte(noise) < 8.15


def test_what_repeats_costs_almost_nothing():
    assert bits_per_byte(bytes(200_000)) < 0.003
    once = np.random.default_rng(0).integers(0, 256, 2000, dtype=np.uint8).tobytes()
    assert len(encoded(once * 20)) - len(encoded(once)) < 250


def test_text_is_below_the_entropy_of_its_bytes_given_the_last_two():
    data = words(7, 8000)
    pairs = np.frombuffer(data, np.uint8).astype(np.int64)
    keys = pairs[:-2] << 16 | pairs[1:-1] << 8 | pairs[2:]
    counts = np.unique(keys, return_counts=True)[1]
    contexts = np.unique(keys >> 8, return_counts=True)[1]
    joint = math.fsum(-c * math.log2(c / len(keys)) for c in counts)
    context = math.fsum(-c * math.log2(c / len(keys)) for c in contexts)
    assert bits_per_byte(data) < (joint - context) / len(keys)


def test_lanes_share_what_was_learnt():
    data = words(8, 8000)
    alone, together = bits_per_byte(data), bits_per_byte(data, lanes=64)
    apart = [bits_per_byte(data[i : i + 600]) for i in range(0, len(data) - 600, 6000)]
    assert alone <= together < 1.25 * alone
    assert together < 0.7 * sum(apart) / len(apart)


def test_a_useless_model_costs_little():
    data = words(9, 12_000)
    rows = random_rows(np.random.default_rng(0), 499, sharpness=0.02)
    assert bits_per_byte(data, rows=rows) < 1.01 * bits_per_byte(data)


def test_a_model_that_knows_leaves_almost_nothing():
    data = np.random.default_rng(1).integers(0, 256, 30_000, dtype=np.uint8).tobytes()
    rows = np.array([frequencies(np.where(np.arange(256) == byte, 1, 1e-7)) for byte in range(256)])
    which = np.frombuffer(data, np.uint8).astype(np.int64)
    assert bits_per_byte(data, rows=rows, which=which) < 0.05


def test_a_model_of_known_entropy_is_used_in_full():
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, 30_000, dtype=np.uint8)
    hints = rng.permuted(np.tile(np.arange(256), (64, 1)), axis=1)
    # The byte is one of four, which the model knows and nothing else tells.
    data = hints[np.arange(30_000) % 64, noise % 4].astype(np.uint8)
    order = rng.permutation(30_000)
    data, which = data[order], (np.arange(30_000) % 64)[order]
    rows = []
    for hint in hints:
        likely = np.full(256, 1e-6)
        likely[hint[:4]] = 0.25
        rows.append(frequencies(likely))
    spent = bits_per_byte(data.tobytes(), rows=np.array(rows), which=which)
    assert 1.99 < spent < 2.1


def test_the_logistic_scale_by_hand():
    squash, stretch = mixer_tables.squash_table(), mixer_tables.stretch_table()
    unit, limit = mixer_tables.UNIT, mixer_tables.LIMIT
    assert squash[limit] == 32768
    for nats in (-5, -2, -1, 1, 2, 5):
        expected = 65536 / (1 + math.exp(-nats))
        assert abs(int(squash[limit + nats * unit]) - expected) <= 0.5
        assert stretch[round(expected)] == pytest.approx(nats * unit, abs=1)
    assert (squash[0], squash[-1]) == (1, 65535)
    assert stretch[32768] == 0
    assert (np.diff(squash) >= 0).all()
    assert (np.diff(stretch) >= 0).all()
    assert np.array_equal(stretch[1:], -stretch[:0:-1])
    assert np.array_equal(squash + squash[::-1], np.full(2 * limit + 1, 65536))
    assert np.abs(stretch).max() < limit


def test_histories_by_hand():
    histories, after = mixer_tables.histories(), mixer_tables.next_history_table()

    def run(bits):
        number = 0
        for bit in bits:
            number = int(after[2 * number + bit])
        return histories[number]

    assert histories[0] == ()
    assert run([1, 0, 1]) == (1, 0, 1)
    assert run([1, 0, 1, 1]) == (-1, 1, 3, 1)
    assert run([1] * 9) == (-1, 0, 9, 1)
    assert run([1] * 100) == (-1, 0, 42, 1)
    # A zero after nine ones: of the nine, as many count as nine has binary digits.
    assert run([1] * 9 + [0]) == (-1, 1, 4, 0)
    assert run([1] * 9 + [0, 0]) == (-1, 2, 3, 0)


def test_histories_fit_a_byte_and_go_on_for_ever():
    histories, after = mixer_tables.histories(), mixer_tables.next_history_table()
    assert len(set(histories)) == len(histories) <= 256
    assert len(after) == 2 * len(histories)
    assert after.min() > 0
    assert after.max() < len(histories)
    # The mirror image of every history is one too.
    swapped = {
        (-1, h[2], h[1], 1 - h[3]) if h[:1] == (-1,) else tuple(1 - bit for bit in h)
        for h in histories
    }
    assert swapped == set(histories)


def test_first_guesses_by_hand():
    guesses = mixer_tables.history_probabilities()
    number = {history: i for i, history in enumerate(mixer_tables.histories())}
    assert guesses[0] == 1 << 21
    assert guesses[number[(1, 1, 1)]] == (7 << 22) // 8
    assert guesses[number[(-1, 3, 1, 0)]] == (3 << 22) // 10


def test_tables_grow_with_the_frame_and_stay_below_200_mb():
    def size(n):
        return sum(array.nbytes for array in new_mixer(n, lane_begins(n, 1), has_model=True))

    assert size(0) < 8_000_000
    assert size(100_000) < 30_000_000
    assert size(16 << 20) == size(64 << 20) < 200_000_000

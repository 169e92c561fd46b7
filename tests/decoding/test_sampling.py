"""Oracles: distributions worked out by hand, chi-square, and one row at a time for batches."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bytelm.decoding.sampling import Noise, Row, Sampling
from bytelm.errors import CheckpointError


def log_probs(*probs: float) -> np.ndarray:
    """The given probabilities for the first byte values, next to nothing for the others."""
    full = np.full(256, 1e-30)
    full[: len(probs)] = probs
    return np.log(full / full.sum()).astype(np.float32)


def row(text: bytes = b"", *, seed: int = 0, new: int = 10**6) -> Row:
    return Row(text, seed=seed, max_new_bytes=new)


def kept(sampling: Sampling, *probs: float, text: bytes = b"") -> list[float]:
    return sampling.distribution(log_probs(*probs)[None], [row(text)])[0, : len(probs)].tolist()


def random_log_probs(seed: int, rows: int = 1) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(0, 3, (rows, 256))
    return (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)


settings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.none() | st.integers(1, 256),
    top_p=st.none() | st.just(1.0) | st.floats(0.01, 0.999),
    min_p=st.none() | st.floats(0, 1),
    repetition_penalty=st.sampled_from([1.0, 1.2, 3.0]),
    repetition_window=st.integers(1, 20),
    valid_utf8=st.booleans(),
)
texts = st.text().map(str.encode)


# --- the distribution --------------------------------------------------------------------------


def test_top_p_keeps_the_byte_that_crosses() -> None:
    assert kept(Sampling(top_p=0.6), 0.5, 0.3, 0.2) == pytest.approx([0.625, 0.375, 0])
    assert kept(Sampling(top_p=0.5), 0.5, 0.3, 0.2) == pytest.approx([1, 0, 0])


def test_top_k_keeps_the_likeliest() -> None:
    assert kept(Sampling(top_k=2), 0.2, 0.5, 0.3) == pytest.approx([0, 0.625, 0.375])


def test_top_p_is_of_what_top_k_leaves() -> None:
    sampling = Sampling(top_k=2, top_p=0.6)
    assert kept(sampling, 0.4, 0.25, 0.35) == pytest.approx([0.4 / 0.75, 0, 0.35 / 0.75])
    assert kept(Sampling(top_k=2, top_p=0.5), 0.4, 0.25, 0.35) == pytest.approx([1, 0, 0])


def test_min_p_is_a_share_of_the_likeliest() -> None:
    assert kept(Sampling(min_p=0.5), 0.5, 0.3, 0.2) == pytest.approx([0.625, 0.375, 0])
    assert kept(Sampling(min_p=1), 0.5, 0.3, 0.2) == pytest.approx([1, 0, 0])
    assert kept(Sampling(min_p=0), 0.5, 0.3, 0.2) == pytest.approx([0.5, 0.3, 0.2])


def test_temperature_is_an_exponent() -> None:
    assert kept(Sampling(temperature=0.5), 0.75, 0.25) == pytest.approx([0.9, 0.1])


def test_the_penalty_is_an_exponent_of_bytes_in_the_window() -> None:
    sampling = Sampling(repetition_penalty=2, repetition_window=2)
    # 0.5^2 = 0.25 beside 0.3 and 0.2; byte 2 lies before the window.
    assert kept(sampling, 0.5, 0.3, 0.2, text=b"\x02\x02\x00\x00") == pytest.approx(
        [0.25 / 0.75, 0.3 / 0.75, 0.2 / 0.75]
    )
    assert kept(sampling, 0.5, 0.3, 0.2) == pytest.approx([0.5, 0.3, 0.2])
    assert Sampling(temperature=0, repetition_penalty=2).choose(
        log_probs(0.5, 0.3, 0.2)[None], [row(b"\x00")]
    ) == [1]


@pytest.mark.parametrize("temperature", [1e-30, 1e-310, 5e-324, 1e308])
def test_any_temperature_above_zero_gives_a_distribution(temperature: float) -> None:
    probs = kept(Sampling(temperature=temperature), 0.2, 0.5, 0.3)
    # The limits of p^(1/T): all on the likeliest, or the same for each of the 256.
    assert probs == pytest.approx([0, 1, 0] if temperature < 1 else [1 / 256] * 3)
    sampling = Sampling(temperature=temperature, top_k=2, top_p=0.9)
    chosen = sampling.choose(log_probs(0.2, 0.5, 0.3)[None], [row()])
    assert chosen == [1] or temperature > 1


def test_of_equal_bytes_the_lowest_values_are_the_likeliest() -> None:
    equal = np.full((1, 256), -math.log(256), np.float32)
    assert Sampling(temperature=0).choose(equal, [row()]) == [0]
    for sampling in (Sampling(top_k=3), Sampling(top_p=2.5 / 256), Sampling(top_k=9, top_p=0.3)):
        assert np.flatnonzero(sampling.distribution(equal, [row()])).tolist() == [0, 1, 2]
    half = Sampling(top_p=0.5).distribution(equal, [row()])[0]
    assert np.flatnonzero(half).tolist() == list(range(128))
    # Some are likelier than those that are equal at the border.
    probs = kept(Sampling(top_k=3), 0.1, 0.1, 0.4, 0.1, 0.3)
    assert np.flatnonzero(probs).tolist() == [0, 2, 4]


@given(sampling=settings, seed=st.integers(0, 99), text=texts)
def test_any_setting_gives_a_distribution_whose_support_is_what_the_options_say(
    sampling: Sampling, seed: int, text: bytes
) -> None:
    """Oracle: each limit applied to a sorted list, one byte at a time."""
    scores = random_log_probs(seed)
    probs = sampling.distribution(scores, [row(text)])[0]
    assert probs.sum() == pytest.approx(1)
    free = Sampling(
        temperature=sampling.temperature,
        repetition_penalty=sampling.repetition_penalty,
        repetition_window=sampling.repetition_window,
        valid_utf8=sampling.valid_utf8,
    )
    whole = free.distribution(scores, [row(text)])[0]
    expected: list[int] = []
    mass = 0.0
    order = sorted(range(256), key=lambda byte: (-whole[byte], byte))[: sampling.top_k]
    total = sum(whole[byte] for byte in order)
    for byte in order:
        if mass >= (sampling.top_p or 1) * total - 1e-12 and sampling.top_p not in (None, 1):
            break
        mass += whole[byte]
        if whole[byte] > 0 and whole[byte] >= (sampling.min_p or 0) * whole.max() - 1e-12:
            expected.append(byte)
    assert np.flatnonzero(probs).tolist() == sorted(expected)


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_k": 0},
        {"top_p": 0.0},
        {"min_p": 1.5},
        {"min_p": math.nan},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.inf},
        {"repetition_window": 0},
    ],
)
def test_settings_out_of_range(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)


# --- drawing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.7, top_p=0.95), Sampling(temperature=1.5, top_k=5)],
    ids=repr,
)
def test_bytes_are_drawn_with_the_probabilities_of_the_distribution(sampling: Sampling) -> None:
    """Oracle: Pearson's chi-square over 8,000 positions of one seed, and over 2,000 seeds."""
    scores = log_probs(0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.015, 0.005)
    expected = sampling.distribution(scores[None], [row()])[0, :8]
    by_position = drawn_at_positions(sampling, scores, 8000)
    by_seed = sampling.choose(np.tile(scores, (2000, 1)), [row(seed=s) for s in range(2000)])
    for drawn in (by_position, by_seed):
        counts = np.bincount(drawn, minlength=8)
        possible = expected > 0
        assert counts[:8][~possible].sum() == 0
        assert counts[8:].sum() == 0
        result = stats.chisquare(counts[:8][possible], expected[possible] * len(drawn))
        assert result.pvalue > 1e-3


def drawn_at_positions(sampling: Sampling, scores: np.ndarray, count: int) -> np.ndarray:
    """What one seed chooses from the same distribution at each of the first positions."""
    rows = [row(seed=7) for _ in range(count)]
    for position, one in enumerate(rows):
        one.text, one.noise = bytearray(position), rows[0].noise
    return sampling.choose(np.tile(scores, (count, 1)), rows)


def test_neighboring_positions_are_independent() -> None:
    """Oracle: the chi-square test of a contingency table of pairs."""
    drawn = drawn_at_positions(Sampling(), log_probs(0.5, 0.3, 0.2), 8000)
    table = np.zeros((3, 3))
    np.add.at(table, (drawn[:-1], drawn[1:]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 10**7), max_size=20))
def test_noise_depends_on_seed_and_position_alone(seed: int, positions: list[int]) -> None:
    """Oracle: the same question asked of a fresh object, in another order."""
    noise = Noise(seed)
    asked = [noise.at(position).copy() for position in positions]
    for position, values in reversed(list(zip(positions, asked, strict=True))):
        np.testing.assert_array_equal(Noise(seed).at(position), values)


def test_noise_of_a_long_text_is_not_kept() -> None:
    noise = Noise(1)
    for position in range(0, 10**6, 1000):
        noise.at(position)
    assert sum(block.nbytes for block in noise._blocks.values()) < 1 << 20


def test_noise_is_standard_exponential() -> None:
    """Oracle: Kolmogorov-Smirnov against the exponential distribution."""
    noise = Noise(11)
    values = np.concatenate([noise.at(position) for position in range(200)])
    assert stats.kstest(values, "expon").pvalue > 1e-3
    assert len(np.unique(values)) == len(values)


def test_noise_is_the_published_generator() -> None:
    """Oracle: the known-answer file of Random123 for philox4x64-10 with a key and counter of 0.

    NumPy counts up before it draws, so its first numbers are those of counter 1; the counter is
    set back by one here to see those of 0.
    """
    known = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    raw = np.random.Philox(key=0, counter=2**256 - 1).random_raw(4)
    assert raw.tolist() == known
    first = (np.random.Philox(key=5).random_raw(256) >> 12) + 0.5
    np.testing.assert_array_equal(Noise(5).at(0), -np.log(first * 2.0**-52))


@given(
    sampling=settings,
    seed=st.integers(0, 99),
    rows=st.lists(st.tuples(texts, st.integers(0, 200)), min_size=1, max_size=9),
)
def test_a_row_of_a_batch_is_chosen_as_if_alone(
    sampling: Sampling, seed: int, rows: list[tuple[bytes, int]]
) -> None:
    """Oracle: the single-row form, which speculation uses."""
    scores = random_log_probs(seed, len(rows))
    batch = []
    for index, (prompt, new) in enumerate(rows):
        batch.append(row(prompt, seed=index))
        batch[-1].text += b"n" * new
    before = [bytes(one.text) for one in batch]
    chosen = sampling.choose(scores, batch).tolist()
    assert [bytes(one.text) for one in batch] == before
    for index, (prompt, _) in enumerate(rows):
        choose = sampling.chooser(prompt, seed=index, max_new_bytes=10**6)
        assert choose(scores[index], batch[index].text) == chosen[index]
        if sampling.temperature:
            assert sampling.distribution(scores, batch)[index, chosen[index]] > 0


def test_the_same_noise_meets_another_distribution() -> None:
    """What lossless speculation needs: drafts that are right wherever distributions agree."""
    choose = Sampling().chooser(b"", seed=1, max_new_bytes=10**6)
    same = [
        choose(random_log_probs(0)[0], bytearray(n))
        == choose(random_log_probs(0)[0] * np.float32(1.01), bytearray(n))
        for n in range(300)
    ]
    assert 0.9 < np.mean(same) < 1


def test_no_rows() -> None:
    for temperature in (0, 1.0):
        none = Sampling(temperature=temperature).choose(np.zeros((0, 256), np.float32), [])
        assert none.tolist() == []


@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_no_distribution_is_refused(temperature: float, value: float) -> None:
    scores = random_log_probs(0, 2)
    scores[1] = value
    with pytest.raises(CheckpointError, match="no next byte after 5 bytes: its log-prob"):
        Sampling(temperature=temperature).choose(scores, [row(), row(b"12345")])
    scores[1] = random_log_probs(1)[0]
    scores[1, 200] = value
    if math.isnan(value):
        with pytest.raises(CheckpointError, match="NaN"):
            Sampling(temperature=temperature).choose(scores, [row(), row()])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=f"whole number, 0 to {2**64 - 1}, got {seed}"):
        Noise(seed)

"""The kernels of `integer_model`: reading a byte, and the frequencies of the next.

No operation overflows and no index leaves its array with the weights that an `IntegerModel` lets
in; the comments say what is bounded by what.
Shape key: L lanes, D width, F feed-forward width, G n-gram tables, W longest n-gram, N layers.
"""

from typing import Final, NamedTuple

import numpy as np

from bytelm.compression.coder import FREQUENCY_BITS
from bytelm.compression.integer_tables import (
    EXP2_BITS,
    EXP2_FRACTION_BITS,
    ONE_BITS,
    SIGMOID_HALF,
)
from bytelm.compression.kernels import Integer, kernel
from bytelm.compression.products import multiply
from bytelm.vocab import NUM_BYTES, OFFSET

UNIT: Final = 32766
"""A normalized vector of length sqrt(D) has this length in integers: each value fits int16."""

SHIFT: Final = 32
"""Sums are scaled by a multiplication with an integer over 2**32."""

ROW_SHIFT: Final = 11
"""Rows of embedding and tables are scaled by an integer over 2**11."""

SQUARE_BITS: Final = 15
"""Squares of feed-forward inputs are over 2**15."""

SHARE_BITS: Final = 37
"""Reciprocals of sums of weights are over 2**37."""

WORD_BITS: Final = 32
"""Hashes are computed in two halves of so many bits."""

LOW_WORD: Final = (1 << WORD_BITS) - 1

_ROUND: Final = 1 << (SHIFT - 1)
_ROW_ROUND: Final = 1 << (ROW_SHIFT - 1)
_SQUARE_ROUND: Final = 1 << (SQUARE_BITS - 1)
_ONE: Final = 1 << ONE_BITS
_ONE_ROUND: Final = 1 << (ONE_BITS - 1)
_LAST_ENTRY: Final = 2 * SIGMOID_HALF
_INT16_MOST: Final = 32767
_SIGN: Final = 1 << (WORD_BITS - 1)
_FRACTION: Final = (1 << EXP2_FRACTION_BITS) - 1
_MOST_HALVINGS: Final = EXP2_BITS + 1
_SHARED: Final = (1 << FREQUENCY_BITS) - NUM_BYTES


class Arrays(NamedTuple):
    """An integer model as its kernels read it: matrices packed, layers stacked."""

    epsilon: np.ndarray
    """int64 `[1]`: what the norms add to a sum of squares."""

    embed: np.ndarray
    """int16 `[260, D]`."""

    embed_multiplier: np.ndarray
    """int32 `[260]`."""

    ngrams: np.ndarray
    """int8 `[G * buckets, D]`."""

    ngrams_multiplier: np.ndarray
    """int32 `[G * buckets]`."""

    powers: np.ndarray
    """int64 `[2, G, W]`: factors of the polynomials, their low and their high 32 bits."""

    buckets: np.ndarray
    """int64: the buckets of a table, and 2**32 and 2**64 modulo that."""

    gates: np.ndarray
    """The packed `[2 D, D]` of each layer: gates, then candidates."""

    gates_multiplier: np.ndarray
    """int64 `[N, 2 D]`."""

    gates_bias: np.ndarray
    """int64 `[N, 2 D]`, with what rounds and what centers the index in it."""

    memory_scale: np.ndarray
    """int64 `[N, D]`."""

    up: np.ndarray
    """The packed `[F, D]` of each layer."""

    up_multiplier: np.ndarray
    """int64 `[N, F]`."""

    down: np.ndarray
    """The packed `[D, F]` of each layer."""

    down_multiplier: np.ndarray
    """int64 `[N, D]`."""

    head: np.ndarray
    """The packed `[256, D]`."""

    head_multiplier: np.ndarray
    """int64 `[256]`."""

    sigmoid: np.ndarray
    exp2: np.ndarray


class LaneState(NamedTuple):
    """Where L lanes are, and room for what is computed on the way."""

    ids: np.ndarray
    """int64 `[L, W]`: the last ids, the newest last; 0 before the first."""

    memory: np.ndarray
    """int32 `[L, N, D]`, over 2**24."""

    residual: np.ndarray
    """int32 `[L, D]`: after the last layer."""

    normalized: np.ndarray
    """int16 `[D]`, zeros up to a multiple of 4."""

    hidden: np.ndarray
    """int16 `[F]`, zeros up to a multiple of 4."""

    sums: np.ndarray
    """int32, room for the rows of any packed matrix."""

    wide: np.ndarray
    """int64 `[max(D, 256)]`."""

    places: np.ndarray
    """int64 `[G]`: the row of each n-gram."""


@kernel
def push(model: Arrays, state: LaneState, lane: Integer, value: Integer) -> None:
    """Read a byte in a lane."""
    read_id(model, state, lane, value + OFFSET)


@kernel
def read_id(model: Arrays, state: LaneState, lane: Integer, new_id: Integer) -> None:
    """Read an id in a lane."""
    ids, residual, sums = state.ids[lane], state.residual[lane], state.sums
    for place in range(ids.shape[0] - 1):
        ids[place] = ids[place + 1]
    ids[ids.shape[0] - 1] = new_id
    _embed(model, state, lane)
    for layer in range(model.gates.shape[0]):
        _normalize(residual, model.epsilon[0], state.normalized)
        multiply(model.gates[layer], state.normalized, sums)
        _gate(sums, model.gates_multiplier[layer], model.gates_bias[layer], model.sigmoid)
        _remember(sums, model.memory_scale[layer], state.memory[lane, layer], residual)
        _normalize(residual, model.epsilon[0], state.normalized)
        multiply(model.up[layer], state.normalized, sums)
        _square(sums, model.up_multiplier[layer], state.hidden)
        multiply(model.down[layer], state.hidden, sums)
        _add(sums, model.down_multiplier[layer], residual)


@kernel
def predict(model: Arrays, state: LaneState, lane: Integer, row: np.ndarray) -> None:
    """Write the frequencies of a lane's next byte to `row`, int32 `[256]`: 2**24 in all."""
    logits, sums = state.wide, state.sums
    _normalize(state.residual[lane], model.epsilon[0], state.normalized)
    multiply(model.head, state.normalized, sums)
    multiplier = model.head_multiplier
    for value in range(NUM_BYTES):
        logits[value] = (np.int64(sums[value]) * multiplier[value] + _ROUND) >> SHIFT
    _share(logits, model.exp2, row)


@kernel
def _embed(model: Arrays, state: LaneState, lane: Integer) -> None:
    """The residual stream begins with the id's row and one row of each n-gram table."""
    ids, wide, out = state.ids[lane], state.wide, state.residual[lane]
    embed, ngrams, multipliers = model.embed, model.ngrams, model.ngrams_multiplier
    powers, buckets, places = model.powers, model.buckets, state.places
    for table in range(places.shape[0]):
        places[table] = table * buckets[0] + _bucket(powers[:, table], buckets, ids)
    newest = ids[ids.shape[0] - 1]
    multiplier = np.int64(model.embed_multiplier[newest])
    for i in range(out.shape[0]):
        wide[i] = np.int64(embed[newest, i]) * multiplier + _ROW_ROUND
    for table in range(places.shape[0]):
        place = places[table]
        multiplier = np.int64(multipliers[place])
        for i in range(out.shape[0]):
            wide[i] += np.int64(ngrams[place, i]) * multiplier
    for i in range(out.shape[0]):
        out[i] = wide[i] >> ROW_SHIFT


@kernel
def _bucket(powers: np.ndarray, buckets: np.ndarray, ids: np.ndarray) -> Integer:
    """The polynomial of the last ids in 64 bits, signed, modulo the number of buckets.

    Ids have 9 bits and factors 32, so that the sums have less than 48.
    """
    low, high = np.int64(0), np.int64(0)
    for place in range(ids.shape[0]):
        low += ids[place] * powers[0, place]
        high += ids[place] * powers[1, place]
    high = (high + (low >> WORD_BITS)) & LOW_WORD
    found = (high % buckets[0]) * buckets[1] + (low & LOW_WORD)
    if high >= _SIGN:
        found += buckets[0] - buckets[2]
    return found % buckets[0]


@kernel
def _normalize(x: np.ndarray, epsilon: Integer, out: np.ndarray) -> None:
    """`x` at the length 32766, but for `epsilon`; the sum of squares is below 2**62."""
    total = np.int64(epsilon)
    for i in range(x.shape[0]):
        total += np.int64(x[i]) * np.int64(x[i])
    # No value is beyond the root of the sum of squares, so none beyond 32766 after this.
    inverse = (np.int64(UNIT) << SHIFT) // root(total)
    for i in range(x.shape[0]):
        out[i] = (np.int64(x[i]) * inverse + _ROUND) >> SHIFT


@kernel
def root(value: Integer) -> Integer:
    """The square root of 1 to 2**62, rounded down, by Newton's method from above."""
    bits, rest = np.int64(1), value
    for step in (32, 16, 8, 4, 2):
        if rest >> step:
            rest >>= step
            bits += step >> 1
    guess = np.int64(1) << bits
    while True:
        better = (guess + value // guess) >> 1
        if better >= guess:
            return guess
        guess = better


@kernel
def _gate(sums: np.ndarray, multiplier: np.ndarray, bias: np.ndarray, sigmoid: np.ndarray) -> None:
    """The sigmoid of scaled sums, over 2**24, in their place."""
    # Two loops: the first is compiled for vectors, look-ups are not.
    for i in range(bias.shape[0]):
        entry = (np.int64(sums[i]) * multiplier[i] + bias[i]) >> SHIFT
        sums[i] = max(0, min(entry, _LAST_ENTRY))
    for i in range(bias.shape[0]):
        sums[i] = sigmoid[sums[i]]


@kernel
def _remember(
    gates: np.ndarray, scale: np.ndarray, memory: np.ndarray, residual: np.ndarray
) -> None:
    """Move a layer's memory to its candidates, and add it to the residual stream."""
    width = memory.shape[0]
    for i in range(width):
        candidate = 2 * np.int64(gates[width + i]) - _ONE
        before = np.int64(memory[i])
        after = before + ((np.int64(gates[i]) * (candidate - before) + _ONE_ROUND) >> ONE_BITS)
        memory[i] = after
        residual[i] += (scale[i] * after + _ROUND) >> SHIFT


@kernel
def _square(sums: np.ndarray, multiplier: np.ndarray, out: np.ndarray) -> None:
    """Squares of what is positive; at most 32767 ** 2."""
    for i in range(multiplier.shape[0]):
        value = (np.int64(sums[i]) * multiplier[i] + _ROUND) >> SHIFT
        value = max(0, min(value, _INT16_MOST))
        out[i] = (value * value + _SQUARE_ROUND) >> SQUARE_BITS


@kernel
def _add(sums: np.ndarray, multiplier: np.ndarray, residual: np.ndarray) -> None:
    """Add scaled sums to the residual stream."""
    for i in range(multiplier.shape[0]):
        residual[i] += (np.int64(sums[i]) * multiplier[i] + _ROUND) >> SHIFT


@kernel
def _share(logits: np.ndarray, exp2: np.ndarray, row: np.ndarray) -> None:
    """Frequencies in proportion to 2**logits, each at least 1; the first of the largest fills up.

    A weight is at most 2**26, the largest is that: so the sum is 2**26 to 2**34.
    """
    highest, total, best = logits[0], np.int64(0), 0
    for value in range(NUM_BYTES):
        highest = max(highest, logits[value])
    while logits[best] < highest:
        best += 1
    for value in range(NUM_BYTES):
        below = highest - logits[value]
        weight = np.int64(exp2[below & _FRACTION]) >> min(
            below >> EXP2_FRACTION_BITS, _MOST_HALVINGS
        )
        logits[value] = weight
        total += weight
    share = (np.int64(_SHARED) << SHARE_BITS) // total
    given = np.int64(0)
    for value in range(NUM_BYTES):
        frequency = 1 + ((logits[value] * share) >> SHARE_BITS)
        row[value] = frequency
        given += frequency
    row[best] += (1 << FREQUENCY_BITS) - given

"""The context mixer: predicts each bit from many contexts at once and learns from each bit.

A byte is eight binary decisions, its highest bit first. For every context (the last bytes, the
word, ...) a hashed cell keeps the history of the bits that followed it, in one byte; an adaptive
map turns a history into a probability. A pointer to an earlier match predicts too. The predictions
meet on the logistic scale, where several sets of weights, chosen by small contexts, each make a sum
of them; a second small layer joins the sums; three adaptive maps of the result correct what is
left. The ideas are those of Mahoney's "Data Compression Explained" (context mixing, indirect
context models, adaptive probability maps); the tables and the code are this package's own. All of
it in integers, so it is the same on every machine.

All lanes share every table, and each coded bit is learnt at once. A lane's own state is a few
numbers: its last bytes, its words, its match.

Bounds: hashes, bytes and places are below 2**32, and a hash's products below 2**62; inputs are
within LIMIT and weights within 2**24, so that a sum of products is below 2**41.
"""

from typing import Final, NamedTuple

import numpy as np

from bytelm.compression import mixer_tables
from bytelm.compression.coder import FREQUENCY_BITS, decode_bit, encode_bit
from bytelm.compression.kernels import Integer, kernel
from bytelm.compression.mixer_tables import LIMIT, UNIT

CONTEXTS: Final = 9
"""Hashed contexts: orders 1 to 5, 8, four blurred bytes, and two of words or of skipped bytes."""

INPUTS: Final = 2 * CONTEXTS + 6
"""Two for each context, two of the match, order 0, a constant, two of the model."""
_MATCH_INPUT: Final = 2 * CONTEXTS
_ORDER0_INPUT: Final = _MATCH_INPUT + 2
_CONSTANT_INPUT: Final = _ORDER0_INPUT + 1
_MODEL_INPUT: Final = _CONSTANT_INPUT + 1

SETS: Final = 5
"""Sets of weights in use at a time, with a model; the last one is the model's."""
_MATCH_ROWS: Final = 0
"""By the match's length and the number of contexts that have been seen before."""
_PARTIAL_ROWS: Final = 256
"""By the bits of this byte so far."""
_BYTE_ROWS: Final = _PARTIAL_ROWS + 256
"""By the last byte."""
_CLASS_ROWS: Final = _BYTE_ROWS + 256
"""By the high bits of the last three bytes."""
_MODEL_ROWS: Final = _CLASS_ROWS + 512
"""By what the model says, and the place of the bit."""
_FINAL_ROWS: Final = _MODEL_ROWS + 256
"""The second layer's weights of the sets, by the bits of this byte so far."""
_ROWS: Final = _FINAL_ROWS + 256

_RATE: Final = 10
"""Of the first layer, over 2**20, of errors of 2**16. Measured on 1 MB each of four kinds."""
_FINAL_RATE: Final = 5
_WEIGHT_MOST: Final = 1 << 24
_FIRST_WEIGHT: Final = 20_000
_FIRST_MATCH_WEIGHT: Final = 12_000

CELL_BYTES: Final = 16
"""A check byte, then the histories of the 15 decisions of half a byte."""
_LINE_CELLS: Final = 4
"""Cells of a cache line, any of which may be a context's."""
_MAX_CELL_BYTES: Final = 1 << 27
_CELL_BYTES_PER_BYTE: Final = 32
_PLENTY_CELL_BYTES: Final = 1 << 22

CORRECTIONS: Final = 3
"""Maps of the mixed prediction: by order 1, by order 2, by the match."""
_POINTS: Final = 25
"""Of a correction, every UNIT of the logistic scale; between them it is interpolated."""
_POINTS_OFFSET: Final = (_POINTS // 2) * UNIT
_ORDER1_CONTEXTS: Final = 1 << 16

# Where things are in `Mixer.tables`.
_STRETCH: Final = 0
_SQUASH: Final = 1 << 16
_NEXT_HISTORY: Final = _SQUASH + 2 * LIMIT + 1
_RECIPROCALS: Final = _NEXT_HISTORY + 512
_MAPS: Final = _RECIPROCALS + 512
_ORDER0: Final = _MAPS + CONTEXTS * 256
_LENGTH_MAPS: Final = _ORDER0 + 256
_EXPECTED_MAPS: Final = _LENGTH_MAPS + 256
_TABLES: Final = _EXPECTED_MAPS + 4 * 2048

# Where things are in a row of `Mixer.lanes`.
_LAST4: Final = 0
_LAST8: Final = 1
_WORD: Final = 2
_WORD_BEFORE: Final = 3
_MATCH: Final = 4
_MATCH_LENGTH: Final = 5
_CONTROLS: Final = 6
_LANE_NUMBERS: Final = 7

# Where things are in `Mixer.work`.
_EXPECTED: Final = 0
_MATCH_BUCKET: Final = 1
_LENGTH_ENTRY: Final = 2
_EXPECTED_ENTRY: Final = 3
_KNOWN: Final = 4
_MIXED: Final = 5
_MODEL_HIGH: Final = 6
_MODEL_SIZE: Final = 7
_MODEL_ONES: Final = 8
_CORRECTED: Final = 9
_HASHES: Final = _CORRECTED + CORRECTIONS
_CELLS: Final = _HASHES + CONTEXTS
_PLACES: Final = _CELLS + CONTEXTS
_ENTRIES: Final = _PLACES + CONTEXTS
_CHOSEN: Final = _ENTRIES + CONTEXTS
_SUMS: Final = _CHOSEN + SETS
_WORK: Final = _SUMS + SETS

_MATCH_LEAST: Final = 6
"""Bytes that agree before a match is followed."""
_MATCH_MOST: Final = 65535
"""Bytes below it are hardly ever text."""
_BINARY: Final = 2048
"""Share of such bytes, of 2**16, from which a lane is taken for something else than text."""

_COUNT_BITS: Final = 9
_COUNT_MOST: Final = (1 << _COUNT_BITS) - 1
_TO_16: Final = _COUNT_BITS + 6
"""From a map's entry to a probability of 2**16."""

_MULTIPLIER: Final = 0x2F0B4C47
_HALF_MULTIPLIER: Final = 0x3D4D51CB
_MASK32: Final = 0xFFFFFFFF


class Mixer(NamedTuple):
    """The arrays of one frame's mixer; `code_byte` changes them."""

    begins: np.ndarray
    """Where each lane begins in the data, int64 `[lanes + 1]`."""
    lanes: np.ndarray
    """What each lane remembers, int64 `[lanes, _LANE_NUMBERS]`."""
    work: np.ndarray
    """Numbers of the byte being coded, int64 `[_WORK]`."""
    cells: np.ndarray
    """Bit histories, uint8 `[size]`, a power of two."""
    tables: np.ndarray
    """Fixed tables and adaptive maps, int32 `[_TABLES]`; a map's entry: 22 bits, count of 9."""
    heads: np.ndarray
    """Where the bytes of a hash were last followed by something, int32 `[power of two]`."""
    inputs: np.ndarray
    """Predictions on the logistic scale, int32 `[INPUTS]`."""
    weights: np.ndarray
    """Of 2**16, int32 `[_ROWS, INPUTS]`."""
    corrections: np.ndarray
    """Probability of 2**22 at each point of each context, int32 `[contexts * _POINTS]`."""


def new_mixer(n: int, lane_begins: np.ndarray, *, has_model: bool) -> Mixer:
    """The mixer at the start of a frame.

    Args:
        n: Bytes of the frame; the tables are sized for them, from 7 MB to 172 MB.
        lane_begins: Where each lane begins, and the end: int64 `[lanes + 1]`.
        has_model: Whether each byte comes with a model's frequencies.

    """
    lanes = np.zeros((len(lane_begins) - 1, _LANE_NUMBERS), np.int64)
    lanes[:, _MATCH] = -1
    weights = np.zeros((_ROWS, INPUTS), np.int32)
    weights[:, :_MATCH_INPUT:2] = _FIRST_WEIGHT
    weights[:, _MATCH_INPUT : _MATCH_INPUT + 2] = _FIRST_MATCH_WEIGHT
    if has_model:
        weights[:, _MODEL_INPUT] = _FIRST_WEIGHT
    weights[_FINAL_ROWS:] = (1 << 16) // (SETS if has_model else SETS - 1)
    points = np.clip(np.arange(_POINTS) * UNIT - _POINTS_OFFSET, -LIMIT, LIMIT)
    hashed = _power_of_two(n, 1 << 10, 1 << 16)
    return Mixer(
        begins=lane_begins.astype(np.int64),
        lanes=lanes,
        work=np.zeros(_WORK, np.int64),
        cells=_aligned(_cell_bytes(n)),
        tables=_new_tables(),
        heads=np.full(_power_of_two(n // 2, 1 << 10, 1 << 22), -1, np.int32),
        inputs=np.zeros(INPUTS, np.int32),
        weights=weights,
        corrections=np.tile(
            mixer_tables.squash_table()[points + LIMIT] << 6,
            _ORDER1_CONTEXTS + (CORRECTIONS - 1) * hashed,
        ),
    )


def _new_tables() -> np.ndarray:
    """The fixed tables, and maps that know nothing but what a history suggests."""
    tables = np.full(_TABLES, 1 << (21 + _COUNT_BITS), np.int32)
    tables[_STRETCH:_SQUASH] = mixer_tables.stretch_table()
    tables[_SQUASH:_NEXT_HISTORY] = mixer_tables.squash_table()
    after = mixer_tables.next_history_table()
    tables[_NEXT_HISTORY : _NEXT_HISTORY + len(after)] = after
    tables[_RECIPROCALS:_MAPS] = (1 << 17) // (2 * np.arange(512) + 3)
    guesses = mixer_tables.history_probabilities() << _COUNT_BITS
    tables[_MAPS:_ORDER0] = np.tile(guesses, CONTEXTS)
    return tables


def _cell_bytes(n: int) -> int:
    """Room for every context of a small frame, for the better part of a large one's."""
    enough = min(n * 2 * CONTEXTS * CELL_BYTES, _PLENTY_CELL_BYTES)
    return _power_of_two(max(enough, n * _CELL_BYTES_PER_BYTE), 1 << 12, _MAX_CELL_BYTES)


def _power_of_two(wanted: int, least: int, most: int) -> int:
    """The power of two from `least` to `most` that is next above `wanted`."""
    return min(max(1 << (max(wanted, 1) - 1).bit_length(), least), most)


def _aligned(size: int) -> np.ndarray:
    """Zero bytes that begin at a cache line."""
    room = np.zeros(size + 63, np.uint8)
    skip = -room.ctypes.data % 64
    return room[skip : skip + size]


@kernel
def code_byte(
    mixer: Mixer,
    coder_state: np.ndarray,
    buffer: np.ndarray,
    data: np.ndarray,
    lane: Integer,
    step: Integer,
    row: np.ndarray,
    decoding: Integer,
) -> None:
    """Code byte `step` of a lane: read from `data`, or written there when decoding.

    Args:
        mixer: Changed.
        coder_state: The range coder's.
        buffer: The coder's bytes, uint8.
        data: The frame, uint8 `[n]`; bytes not yet coded are not looked at when decoding.
        lane: From 0.
        step: Bytes of this lane coded so far.
        row: A model's frequencies, int32 `[256]`, each at least 1, of sum 2**24; or empty.
        decoding: Whether to decode.

    """
    cells, tables, work, inputs = mixer.cells, mixer.tables, mixer.work, mixer.inputs
    weights, corrections, lanes = mixer.weights, mixer.corrections, mixer.lanes
    first = mixer.begins[lane]
    position = first + step
    _begin_byte(lanes, work, data, lane)
    last = lanes[lane, _LAST4]
    sets = SETS if row.shape[0] else SETS - 1
    partial = np.int64(1)
    value = np.int64(0 if decoding else data[position])
    for k in range(8):
        if k & 3 == 0:
            _find_cells(cells, work, partial)
        _gather(cells, tables, work, inputs, partial, k)
        if row.shape[0]:
            _gather_model(tables, work, inputs, row, k)
        _choose(work, inputs, last, partial, k)
        mixed = _mix(inputs, weights, work, sets, partial)
        p = _correct(corrections, work, mixed, partial, last)
        if decoding:
            bit = np.int64(decode_bit(coder_state, buffer, p))
        else:
            bit = (value >> (7 - k)) & 1
            encode_bit(coder_state, buffer, p, bit)
        _train(inputs, weights, work, tables, sets, partial, bit)
        _learn(cells, tables, work, corrections, partial, bit, k)
        if row.shape[0]:
            _descend(work, k, bit)
        partial = partial * 2 + bit
    data[position] = partial & 0xFF
    _end_byte(lanes, lane, partial & 0xFF)
    _follow_match(mixer.heads, lanes, data, lane, first, position)


@kernel
def _hash(a: Integer, b: Integer) -> Integer:
    """32 bits out of two numbers below 2**32."""
    mixed = ((a ^ (b >> 3)) * _MULTIPLIER) >> 15
    return (((mixed + b) & _MASK32) * _MULTIPLIER >> 17) & _MASK32


@kernel
def _begin_byte(lanes: np.ndarray, work: np.ndarray, data: np.ndarray, lane: Integer) -> None:
    """Hash the contexts, and see what the match expects."""
    last4, last8 = lanes[lane, _LAST4], lanes[lane, _LAST8]
    word = lanes[lane, _WORD]
    work[_HASHES] = _hash(last4 & 0xFF, 1)
    work[_HASHES + 1] = _hash(last4 & 0xFFFF, 2)
    work[_HASHES + 2] = _hash(last4 & 0xFFFFFF, 3)
    work[_HASHES + 3] = _hash(last4, 4)
    work[_HASHES + 4] = _hash(last4, 5 + ((last8 & 0xFF) << 8))
    work[_HASHES + 5] = _hash(_hash(last4, 6), last8)
    work[_HASHES + 6] = _hash(last4 & 0xF0F0F0FF, 7)
    if lanes[lane, _CONTROLS] < _BINARY:
        work[_HASHES + 7] = _hash(word, 8 + ((last4 & 0xFF) << 8))
        work[_HASHES + 8] = _hash(word, lanes[lane, _WORD_BEFORE] ^ 9)
    else:
        work[_HASHES + 5] = _hash(last4 & 0xFF00FF00, 12)
        work[_HASHES + 7] = _hash(last4 & 0xFFFF00, 10)
        work[_HASHES + 8] = _hash(last4 & 0xFF0000, 11)
    work[_MODEL_HIGH], work[_MODEL_SIZE] = 256, 1 << FREQUENCY_BITS
    pointer, length = lanes[lane, _MATCH], lanes[lane, _MATCH_LENGTH]
    work[_EXPECTED], work[_MATCH_BUCKET] = 0, 0
    if pointer >= 0:
        work[_EXPECTED] = np.int64(data[pointer]) + 256
        work[_MATCH_BUCKET] = 1 + length if length < 16 else min(17 + ((length - 16) >> 3), 20)


@kernel
def _find_cells(cells: np.ndarray, work: np.ndarray, partial: Integer) -> None:
    """Find each context's cell of this half of the byte, or take over the least useful one."""
    lines = cells.shape[0] // (CELL_BYTES * _LINE_CELLS)
    for i in range(CONTEXTS):
        h = (((work[_HASHES + i] + partial * _HALF_MULTIPLIER) & _MASK32) * _MULTIPLIER) >> 8
        line = ((h >> 8) & (lines - 1)) * (CELL_BYTES * _LINE_CELLS)
        check = h & 0xFF
        place = np.int64(-1)
        worst, worst_place = np.int64(256), line
        for j in range(_LINE_CELLS):
            candidate = line + j * CELL_BYTES
            if np.int64(cells[candidate]) == check:
                place = candidate
                break
            worth = np.int64(cells[candidate + 1])
            if worth < worst:
                worst, worst_place = worth, candidate
        if place < 0:
            place = worst_place
            for j in range(CELL_BYTES):
                cells[place + j] = 0
            cells[place] = check
        work[_CELLS + i] = place


@kernel
def _gather(
    cells: np.ndarray,
    tables: np.ndarray,
    work: np.ndarray,
    inputs: np.ndarray,
    partial: Integer,
    k: Integer,
) -> None:
    """What each context predicts, on the logistic scale."""
    node = partial if k < 4 else (partial & ((1 << (k - 4)) - 1)) | (1 << (k - 4))
    known = np.int64(0)
    for i in range(CONTEXTS):
        place = work[_CELLS + i] + node
        history = np.int64(cells[place])
        entry = _MAPS + i * 256 + history
        work[_PLACES + i], work[_ENTRIES + i] = place, entry
        p = np.int64(tables[entry]) >> _TO_16
        seen = np.int64(history > 0)
        known += seen
        inputs[2 * i] = np.int64(tables[_STRETCH + p]) * seen
        inputs[2 * i + 1] = ((p - (1 << 15)) >> 6) * seen
    # The match: with factors instead of branches, the compiler makes one straight line of it.
    expected = work[_EXPECTED]
    agrees = np.int64((expected >> (8 - k)) == partial)
    bucket = work[_MATCH_BUCKET] * agrees
    sign = (((expected >> (7 - k)) & 1) * 2 - 1) * agrees
    by_length = _LENGTH_MAPS + bucket * 8 + k
    by_byte = _EXPECTED_MAPS + (((bucket + 7) >> 3) * 256 + (expected & 0xFF)) * 8 + k
    p = np.int64(tables[by_length]) >> _TO_16
    inputs[_MATCH_INPUT] = np.int64(tables[_STRETCH + p]) * sign
    p = np.int64(tables[by_byte]) >> _TO_16
    inputs[_MATCH_INPUT + 1] = np.int64(tables[_STRETCH + p]) * sign
    p = np.int64(tables[_ORDER0 + partial]) >> _TO_16
    inputs[_ORDER0_INPUT] = tables[_STRETCH + p]
    inputs[_CONSTANT_INPUT] = UNIT
    work[_KNOWN] = known
    work[_MATCH_BUCKET], work[_LENGTH_ENTRY], work[_EXPECTED_ENTRY] = bucket, by_length, by_byte


@kernel
def _gather_model(
    tables: np.ndarray, work: np.ndarray, inputs: np.ndarray, row: np.ndarray, k: Integer
) -> None:
    """The model's probability of a one: the leaves under it among the leaves left."""
    high = work[_MODEL_HIGH]
    ones = np.int64(0)
    for leaf in range(high - (128 >> k), high):
        ones += np.int64(row[leaf])
    work[_MODEL_ONES] = ones
    p = min(max((ones << 16) // work[_MODEL_SIZE], 1), 65535)
    inputs[_MODEL_INPUT] = tables[_STRETCH + p]
    inputs[_MODEL_INPUT + 1] = (p - (1 << 15)) >> 6


@kernel
def _descend(work: np.ndarray, k: Integer, bit: Integer) -> None:
    """Go to the half of the model's leaves that the bit chose."""
    if bit:
        work[_MODEL_SIZE] = work[_MODEL_ONES]
    else:
        work[_MODEL_SIZE] -= work[_MODEL_ONES]
        work[_MODEL_HIGH] -= 128 >> k


@kernel
def _choose(
    work: np.ndarray, inputs: np.ndarray, last: Integer, partial: Integer, k: Integer
) -> None:
    """Choose the rows of weights."""
    bucket = work[_MATCH_BUCKET]
    match_class = (bucket + 3) >> 2 if bucket < 17 else bucket - 12
    work[_CHOSEN] = _MATCH_ROWS + match_class * 10 + work[_KNOWN]
    work[_CHOSEN + 1] = _PARTIAL_ROWS + partial
    work[_CHOSEN + 2] = _BYTE_ROWS + (last & 0xFF)
    classes = ((last >> 5) & 7) | (((last >> 13) & 7) << 3) | (((last >> 21) & 7) << 6)
    work[_CHOSEN + 3] = _CLASS_ROWS + classes
    work[_CHOSEN + 4] = _MODEL_ROWS + ((np.int64(inputs[_MODEL_INPUT]) + LIMIT) // 200) * 8 + k


@kernel
def _mix(
    inputs: np.ndarray, weights: np.ndarray, work: np.ndarray, sets: Integer, partial: Integer
) -> Integer:
    """Both layers: the sum of the sums, on the logistic scale."""
    total = np.int64(0)
    for s in range(sets):
        chosen = work[_CHOSEN + s]
        dot = np.int64(0)
        for i in range(inputs.shape[0]):
            dot += np.int64(weights[chosen, i]) * np.int64(inputs[i])
        dot = min(max(dot >> 16, np.int64(-LIMIT)), np.int64(LIMIT))
        work[_SUMS + s] = dot
        total += dot * np.int64(weights[_FINAL_ROWS + partial, s])
    mixed = min(max(total >> 16, np.int64(-LIMIT)), np.int64(LIMIT))
    work[_MIXED] = mixed
    return mixed


@kernel
def _correct(
    corrections: np.ndarray, work: np.ndarray, mixed: Integer, partial: Integer, last: Integer
) -> Integer:
    """The probability, of 2**16: what came true of such predictions in three contexts."""
    hashed = (corrections.shape[0] // _POINTS - _ORDER1_CONTEXTS) // (CORRECTIONS - 1)
    match = (work[_EXPECTED] & 0xFF) << 8 | (work[_MATCH_BUCKET] + 3) >> 2
    order1 = (last & 0xFF) << 8 | partial
    order2 = _ORDER1_CONTEXTS + (_hash(last & 0xFFFF, partial) & (hashed - 1))
    by_match = _ORDER1_CONTEXTS + hashed + (_hash(match, partial) & (hashed - 1))
    point, part = (mixed + _POINTS_OFFSET) // UNIT, (mixed + _POINTS_OFFSET) % UNIT
    work[_CORRECTED] = order1 * _POINTS + point
    work[_CORRECTED + 1] = order2 * _POINTS + point
    work[_CORRECTED + 2] = by_match * _POINTS + point
    total = np.int64(0)
    for i in range(CORRECTIONS):
        place = work[_CORRECTED + i]
        low, high = np.int64(corrections[place]), np.int64(corrections[place + 1])
        # Order 2 counts twice.
        total += (low * (UNIT - part) + high * part) << np.int64(i == 1)
        work[_CORRECTED + i] = place + (part >> 7)
    return min(max(total >> 16, np.int64(1)), np.int64((1 << 16) - 1))


@kernel
def _train(
    inputs: np.ndarray,
    weights: np.ndarray,
    work: np.ndarray,
    tables: np.ndarray,
    sets: Integer,
    partial: Integer,
    bit: Integer,
) -> None:
    """Gradient step of both layers: each set by its own error, the second layer by the result's."""
    target = bit << 16
    final_error = (target - np.int64(tables[_SQUASH + LIMIT + work[_MIXED]])) * _FINAL_RATE
    for s in range(sets):
        chosen, dot = work[_CHOSEN + s], work[_SUMS + s]
        error = np.int32((target - np.int64(tables[_SQUASH + LIMIT + dot])) * _RATE)
        for i in range(inputs.shape[0]):
            step = (np.int64(inputs[i]) * np.int64(error) + (1 << 19)) >> 20
            weight = np.int64(weights[chosen, i]) + step
            weights[chosen, i] = min(max(weight, np.int64(-_WEIGHT_MOST)), np.int64(_WEIGHT_MOST))
        step = (dot * final_error + (1 << 19)) >> 20
        weight = np.int64(weights[_FINAL_ROWS + partial, s]) + step
        weights[_FINAL_ROWS + partial, s] = min(
            max(weight, np.int64(-_WEIGHT_MOST)), np.int64(_WEIGHT_MOST)
        )


@kernel
def _learn(
    cells: np.ndarray,
    tables: np.ndarray,
    work: np.ndarray,
    corrections: np.ndarray,
    partial: Integer,
    bit: Integer,
    k: Integer,
) -> None:
    """Move every map that predicted towards the bit, and every history on."""
    target = bit << 22
    for i in range(CONTEXTS):
        _adapt(tables, work[_ENTRIES + i], target)
        place = work[_PLACES + i]
        cells[place] = tables[_NEXT_HISTORY + np.int64(cells[place]) * 2 + bit]
    right = ((work[_EXPECTED] >> (7 - k)) & 1) ^ bit ^ 1
    _adapt(tables, work[_LENGTH_ENTRY], right << 22)
    _adapt(tables, work[_EXPECTED_ENTRY], right << 22)
    _adapt(tables, _ORDER0 + partial, target)
    for i in range(CORRECTIONS):
        place = work[_CORRECTED + i]
        corrections[place] += (target - np.int64(corrections[place])) >> 6


@kernel
def _adapt(tables: np.ndarray, place: Integer, target: Integer) -> None:
    """Move a probability with a count towards 0 or 2**22, the further the smaller the count."""
    entry = np.int64(tables[place])
    count = entry & _COUNT_MOST
    p = entry >> _COUNT_BITS
    p += ((target - p) * np.int64(tables[_RECIPROCALS + count])) >> 16
    p = min(max(p, np.int64(1)), np.int64((1 << 22) - 1))
    tables[place] = (p << _COUNT_BITS) | min(count + 1, np.int64(_COUNT_MOST))


@kernel
def _end_byte(lanes: np.ndarray, lane: Integer, value: Integer) -> None:
    """Take the byte into the lane's contexts."""
    last4 = lanes[lane, _LAST4]
    lanes[lane, _LAST8] = ((lanes[lane, _LAST8] << 8) | (last4 >> 24)) & _MASK32
    lanes[lane, _LAST4] = ((last4 << 8) | value) & _MASK32
    controls = lanes[lane, _CONTROLS]
    lanes[lane, _CONTROLS] += (np.int64(value < 9) * 65536 - controls) >> 6
    lower = value | 32
    if (97 <= lower <= 122) or value >= 128:
        lanes[lane, _WORD] = _hash(lanes[lane, _WORD], lower + 256)
    elif lanes[lane, _WORD] != 0:
        lanes[lane, _WORD_BEFORE] = lanes[lane, _WORD]
        lanes[lane, _WORD] = 0


@kernel
def _follow_match(
    heads: np.ndarray,
    lanes: np.ndarray,
    data: np.ndarray,
    lane: Integer,
    first: Integer,
    position: Integer,
) -> None:
    """Go on with the match, or look for one."""
    pointer, length = lanes[lane, _MATCH], lanes[lane, _MATCH_LENGTH]
    if pointer >= 0:
        length = (
            min(length + 1, np.int64(_MATCH_MOST))
            if data[pointer] == data[position]
            else np.int64(0)
        )
        pointer += 1
        if pointer >= data.shape[0]:
            pointer, length = np.int64(-1), np.int64(0)
    if position - first + 1 >= _MATCH_LEAST:
        key = _hash(lanes[lane, _LAST4], lanes[lane, _LAST8] & 0xFFFF) & (heads.shape[0] - 1)
        if length == 0:
            found, length = _verified(data, np.int64(heads[key]), position)
            pointer = found if found >= 0 else pointer
        heads[key] = position + 1
    lanes[lane, _MATCH], lanes[lane, _MATCH_LENGTH] = pointer, length


@kernel
def _verified(data: np.ndarray, candidate: Integer, position: Integer) -> tuple[Integer, Integer]:
    """The candidate and its length if the bytes before it are those up to `position`."""
    if candidate < 0 or candidate >= data.shape[0]:
        return np.int64(-1), np.int64(0)
    for same in range(_MATCH_LEAST):
        if data[candidate - 1 - same] != data[position - same]:
            return np.int64(-1), np.int64(0)
    return candidate, np.int64(_MATCH_LEAST)

"""Counting n-grams, and turning counts into probabilities, in integers.

Probabilities are interpolated modified Kneser-Ney (Chen and Goodman 1999): the longest contexts
keep their counts, shorter ones count in how many different longer contexts a byte was seen. An
order that does not predict the counted text better, each occurrence left out in turn, passes the
shorter order through: so random bytes cost 8.00 bits, not 8.07.

A key is (context << 8) + the byte that follows; the newest byte of a context is its highest, so
that the contexts of one suffix are neighbors.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bytelm.models.fixed_point import (
    ENTROPY_BITS,
    ONE,
    ONE_BITS,
    entropy_term,
    log2,
)
from bytelm.vocab import NUM_BYTES

PIECE_BYTES = 1 << 22
"""Text that is counted at a time; bounds memory, not results."""

UNIFORM = ONE // NUM_BYTES
_LARGEST_ENTROPY = 8 << ENTROPY_BITS

_DISCOUNT_CLASSES = 3
"""Counts of 1, of 2, and of 3 or more are discounted differently."""

_SMALLEST_DISCOUNT = ONE // 16
"""Some mass is always left for bytes that a context has not seen."""


def context_codes(values: np.ndarray, order: int) -> np.ndarray:
    """int64 `[n]`: the last `order` bytes up to each of `values`, the newest one highest."""
    wide = values.astype(np.int64)
    codes = np.zeros(len(values), np.int64)
    for back in range(min(order, len(values))):
        codes[back:] |= wide[: len(wide) - back] << (8 * (order - 1 - back))
    return codes


Counts = tuple[np.ndarray, np.ndarray]
"""Sorted keys, and how often each was seen."""


class Level(NamedTuple):
    """Counts of one order, sorted by key = (context << 8) + byte that follows."""

    keys: np.ndarray
    counts: np.ndarray
    """How often the byte followed the context."""

    kinds: np.ndarray
    """In how many contexts that are one byte longer it did; the counts, for the longest."""

    discounts: np.ndarray
    """What `kinds` of 0, 1, 2 and >= 3 give away, over 2**30; of all contexts, stored or not."""


def count(documents: Iterable[np.ndarray], *, order: int, min_count: int) -> list[Level]:
    """Count contexts of 0 to `order` bytes, and leave those out that are seen too seldom.

    Text is read once, for the longest contexts; the counts of shorter ones follow from theirs.
    """
    (keys, counts), heads = _no_counts(), [_no_counts() for _ in range(order)]
    for values, ages in _pieces(documents, order):
        read = values.astype(np.int64)
        read[1:] |= context_codes(values, order)[:-1] << 8
        keys, counts = _merged((keys, counts), read[ages >= order])
        for age in range(order):  # a document's first bytes have shorter contexts only
            heads[age] = _merged(heads[age], _shortened(read[ages == age], order - age))
    kinds, levels = counts, []
    for head_keys, head_counts in reversed(heads):
        levels.append(_level(keys, counts, kinds, min_count=min_count))
        keys = np.concatenate((_shortened(keys, 1), head_keys))
        counts = np.concatenate((counts, head_counts))
        keys, counts, kinds = _grouped(keys, counts, np.ones_like(counts))
    levels.append(_level(keys, counts, kinds, min_count=1))
    return levels[::-1]


def _level(keys: np.ndarray, counts: np.ndarray, kinds: np.ndarray, *, min_count: int) -> Level:
    discounts = _discounts(kinds)
    if len(keys):
        _, begins, sizes = _by_context(keys)
        often = np.repeat(np.add.reduceat(counts, begins) >= min_count, sizes)
        keys, counts, kinds = keys[often], counts[often], kinds[often]
    return Level(keys, counts, kinds, discounts)


def _pieces(documents: Iterable[np.ndarray], order: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Text in bulk: bytes, and how many bytes of its document precede each.

    A document that is cut repeats `order` bytes, marked -1: context that is counted already.
    """
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    size = 0
    for document in documents:
        for begin in range(0, len(document), PIECE_BYTES):
            context = min(order, begin)
            values = document[begin - context : begin + PIECE_BYTES]
            ages = np.arange(begin - context, begin - context + len(values))
            ages[:context] = -1
            parts.append((values, ages))
            size += len(values)
            if size >= PIECE_BYTES:
                yield _joined(parts)
                parts, size = [], 0
    if parts:
        yield _joined(parts)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    values, ages = zip(*parts, strict=True)
    return np.concatenate(values), np.concatenate(ages)


def _shortened(keys: np.ndarray, num_bytes: int) -> np.ndarray:
    """Keys without the oldest `num_bytes` of their contexts."""
    return (keys >> (8 + 8 * num_bytes) << 8) | (keys & 0xFF)


def _no_counts() -> Counts:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)


def _merged(
    known: tuple[np.ndarray, np.ndarray], keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add occurrences to sorted counts."""
    if not len(keys):
        return known
    keys = np.sort(keys)
    begins = _group_begins(keys)
    fresh = keys[begins], np.diff(begins, append=len(keys))
    if not len(known[0]):
        return fresh
    keys, counts = map(np.concatenate, zip(known, fresh, strict=True))
    return _grouped(keys, counts)


def _grouped(keys: np.ndarray, *columns: np.ndarray) -> Any:
    """Sorted distinct keys, then each column summed over equal keys."""
    if not len(keys):
        return keys, *columns
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    begins = _group_begins(keys)
    return keys[begins], *(np.add.reduceat(column[order], begins) for column in columns)


def _group_begins(ordered: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


class Smoothed(NamedTuple):
    """One order of the model: its contexts, and the bytes seen in each."""

    contexts: np.ndarray
    sizes: np.ndarray
    """How many different bytes were seen in each context."""

    keys: np.ndarray
    probs: np.ndarray
    """Of each key's byte, over 2**30."""

    backoffs: np.ndarray
    """Factor of each context for what was not seen in it, over 2**30."""

    entropies: np.ndarray
    """Of each context's whole distribution, bits over 2**28."""

    @classmethod
    def uniform(cls) -> "Smoothed":
        """The empty context, in which nothing was seen."""
        none = np.zeros(0, np.int64)
        return cls(
            contexts=np.zeros(1, np.int64),
            sizes=np.zeros(1, np.int64),
            keys=none,
            probs=none,
            backoffs=np.array([ONE]),
            entropies=np.array([_LARGEST_ENTROPY]),
        )


def smooth(levels: Sequence[Level], *, max_contexts: int) -> list[Smoothed]:
    """Turn counts into probabilities, shortest contexts first.

    Args:
        levels: From `count`.
        max_contexts: Kept of each order, those seen most often.

    """
    smoothed: list[Smoothed] = []
    for level in levels:
        shorter = smoothed[-1] if smoothed else None
        kept = level if shorter is None else _most_seen(level, shorter, max_contexts)
        if not len(kept.keys):
            break
        smoothed.append(_smooth(kept, shorter))
    return smoothed


def _most_seen(level: Level, shorter: Smoothed, max_contexts: int) -> Level:
    """The contexts that the model stores: not too many, and only where the suffix is stored."""
    if not len(level.keys):
        return level
    contexts, begins, sizes = _by_context(level.keys)
    place = np.searchsorted(shorter.contexts, contexts >> 8)
    place = np.minimum(place, len(shorter.contexts) - 1)
    keep = shorter.contexts[place] == contexts >> 8
    if keep.sum() > max_contexts:
        seen = np.add.reduceat(level.counts, begins)
        best = np.argsort(np.where(keep, -seen, 0), kind="stable")[:max_contexts]
        keep = np.zeros(len(keep), bool)
        keep[best] = True
    entries = np.repeat(keep, sizes)
    return Level(level.keys[entries], level.counts[entries], level.kinds[entries], level.discounts)


def _by_context(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The contexts of sorted keys, where each begins and how many keys it has."""
    begins = _group_begins(keys >> 8)
    return keys[begins] >> 8, begins, np.diff(begins, append=len(keys))


def _discounts(kinds: np.ndarray) -> np.ndarray:
    """What counts of 0, 1, 2 and >= 3 give away, over 2**30 (Chen and Goodman, equation 26)."""
    n1, n2, n3, n4 = (int((kinds == times).sum()) for times in (1, 2, 3, 4))
    found = [ONE // 2] * _DISCOUNT_CLASSES
    for times, fewer, more in ((1, n1, n2), (2, n2, n3), (3, n3, n4)):
        given = (n1 + 2 * n2) * fewer
        if given:
            found[times - 1] = times * ONE - (times + 1) * n1 * more * ONE // given
    bounded = [
        min(max(discount, _SMALLEST_DISCOUNT), ONE * times)
        for times, discount in enumerate(found, start=1)
    ]
    return np.array([0, *bounded])


def _smooth(level: Level, shorter: Smoothed | None) -> Smoothed:
    counts, discounts = level.kinds, level.discounts
    contexts, begins, sizes = _by_context(level.keys)
    owner = np.repeat(np.arange(len(contexts)), sizes)
    totals = np.add.reduceat(counts, begins)
    if shorter is None:
        below = np.full(len(counts), UNIFORM)
        entropies_below = np.array([_LARGEST_ENTROPY])
    else:
        below = shorter.probs[np.searchsorted(shorter.keys, _shortened(level.keys, 1))]
        suffix = np.searchsorted(shorter.contexts, contexts >> 8)
        entropies_below = shorter.entropies[suffix]

    given = discounts[np.minimum(counts, _DISCOUNT_CLASSES)]
    given_by_context = np.add.reduceat(given, begins)
    if not _helps(counts, totals[owner], given_by_context[owner], discounts, below):
        given = counts << ONE_BITS
        given_by_context = totals << ONE_BITS
    backoffs = np.maximum(given_by_context // totals, 1)
    kept = ((counts << ONE_BITS) - given) // totals[owner]
    probs = np.maximum(kept + ((backoffs[owner] * below) >> ONE_BITS), 1)

    # Bytes not seen keep the shape that they have below, scaled by the back-off factor w:
    # the sum of -w p log(w p) is w (entropy below, less the seen) - w log(w) (1 - seen below).
    seen_below = np.add.reduceat(below, begins)
    rest = np.maximum(entropies_below - np.add.reduceat(entropy_term(below), begins), 0)
    entropies = (
        np.add.reduceat(entropy_term(probs), begins)
        + ((backoffs * rest) >> ONE_BITS)
        + ((entropy_term(backoffs) * np.maximum(ONE - seen_below, 0)) >> ONE_BITS)
    )
    return Smoothed(
        contexts, sizes, level.keys, probs, backoffs, np.minimum(entropies, _LARGEST_ENTROPY)
    )


def _helps(
    counts: np.ndarray,
    totals: np.ndarray,
    given: np.ndarray,
    discounts: np.ndarray,
    below: np.ndarray,
) -> bool:
    """Whether an order codes its own counts in fewer bits than the shorter one.

    Each occurrence is predicted from the other ones: its own would flatter the longer context.
    `totals` and `given` are those of the context of each entry.
    """
    others = totals > 1
    counts, totals, below = counts[others], totals[others] - 1, below[others]
    own = discounts[np.minimum(counts, _DISCOUNT_CLASSES)]
    left = discounts[np.minimum(counts - 1, _DISCOUNT_CLASSES)]
    backoff = (given[others] - own + left) // totals
    kept = (((counts - 1) << ONE_BITS) - left) // totals
    probs = np.maximum(kept + ((backoff * below) >> ONE_BITS), 1)
    return bool((counts * (log2(probs) - log2(below))).sum() > 0)

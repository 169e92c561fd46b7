"""Training, validation and test data: by whole document, before anything is cut into windows."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from bytelm.data.contamination import Duplicate, find_duplicates, overlap
from bytelm.data.corpus import Corpus
from bytelm.data.shuffle import Purpose, keyed_permutation

_TRAIN, _VALID, _TEST = range(3)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What the held-out splits share with the training split."""

    valid: float
    """Share of the validation bytes that occur in training, in blocks of 64 bytes."""
    test: float
    """The same for the test bytes."""
    duplicates: tuple[Duplicate, ...]
    """Held-out documents that are training documents too."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Three corpora without a common byte."""

    train: Corpus
    valid: Corpus
    test: Corpus

    @cached_property
    def overlap(self) -> Overlap:
        """Repeated content across the splits; reads everything once, at the first use."""
        held_out = (self.valid, self.test)
        return Overlap(
            valid=overlap(self.train, self.valid),
            test=overlap(self.train, self.test),
            duplicates=tuple(
                pair for corpus in held_out for pair in find_duplicates(self.train, corpus)
            ),
        )


def split(corpus: Corpus, *, valid_fraction: float, test_fraction: float, seed: int) -> Splits:
    """Divide a corpus at random by whole document, the fractions measured in bytes.

    Every split of a fraction above 0 gets at least one document with bytes in it. Where there are
    fewer such documents than splits, as in a corpus of one file, each document is cut by byte range
    instead: training first, then validation, the very end for the test; `seed` plays no part.

    Args:
        corpus: Any; documents keep its order inside each split.
        valid_fraction: Of the bytes, >= 0.
        test_fraction: Of the bytes, >= 0; both together below 1.
        seed: Decides which documents are held out.

    Raises:
        ValueError: The fractions are not as above.

    """
    fractions = (1 - valid_fraction - test_fraction, valid_fraction, test_fraction)
    if not all(0 <= fraction <= 1 for fraction in fractions) or fractions[_TRAIN] <= 0:
        raise ValueError(
            "valid_fraction and test_fraction must be >= 0 and their sum below 1, got "
            f"{valid_fraction} and {test_fraction}"
        )
    wanted = [part for part, fraction in enumerate(fractions) if fraction > 0]
    if np.count_nonzero(corpus.lengths) < len(wanted):
        parts = _by_range(corpus, valid_fraction, test_fraction)
    else:
        assigned = _assign(corpus.lengths, fractions, seed)
        parts = [corpus.select(np.flatnonzero(assigned == part)) for part in range(3)]
    return Splits(train=parts[_TRAIN], valid=parts[_VALID], test=parts[_TEST])


def _assign(lengths: np.ndarray, fractions: tuple[float, ...], seed: int) -> np.ndarray:
    """Give each document a split: in random order, into the first held-out one with room for it.

    A document fits when it takes the split closer to its fraction than the split is without it, so
    one huge document lands in training.
    """
    room = np.array(fractions) * lengths.sum()
    assigned = np.full(len(lengths), _TRAIN)
    order = keyed_permutation(len(lengths), seed=seed, purpose=Purpose.SPLIT)
    for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        for part in (_TEST, _VALID):
            if room[part] > 0 and length / 2 <= room[part]:
                assigned[index] = part
                room[part] -= length
                break
    for part, fraction in enumerate(fractions):
        if fraction > 0 and not lengths[assigned == part].any():
            assigned[_spare(lengths, assigned)] = part
    return assigned


def _spare(lengths: np.ndarray, assigned: np.ndarray) -> int:
    """Find the smallest document of the split that has most documents, empty ones aside."""
    candidates = np.flatnonzero(lengths > 0)
    donor = np.bincount(assigned[candidates]).argmax()
    candidates = candidates[assigned[candidates] == donor]
    return int(candidates[lengths[candidates].argmin()])


def _by_range(corpus: Corpus, valid_fraction: float, test_fraction: float) -> list[Corpus]:
    num_test = _share(corpus.lengths, test_fraction)
    num_valid = _share(corpus.lengths, valid_fraction)
    num_train = np.maximum(corpus.lengths - num_test - num_valid, 0)
    # A document of one or two bytes has no place for three splits; training comes first.
    num_train = np.where(corpus.lengths > 0, np.maximum(num_train, 1), 0)
    cuts = [
        np.zeros_like(corpus.lengths),
        num_train,
        np.maximum(num_train, corpus.lengths - num_test),
        corpus.lengths,
    ]
    return [_ranges(corpus, first, last) for first, last in pairwise(cuts)]


def _share(lengths: np.ndarray, fraction: float) -> np.ndarray:
    rounded = np.rint(lengths * fraction).astype(np.int64)
    return np.minimum(np.maximum(rounded, int(fraction > 0)), lengths)


def _ranges(corpus: Corpus, first: np.ndarray, last: np.ndarray) -> Corpus:
    kept = np.flatnonzero(last > first)
    return Corpus(
        data=corpus.data,
        starts=(corpus.starts + first)[kept],
        lengths=(last - first)[kept],
        names=tuple(f"{corpus.names[index]}[{first[index]}:{last[index]}]" for index in kept),
        mapped=corpus.mapped,
    )

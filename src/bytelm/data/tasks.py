"""Made-up tasks from text to text whose answers are exact, each generated in any amount.

The words are no English, but look like it: syllables with the usual prefixes and endings, about as
many of each length as among common English words, all equally likely. What else occurs, and how
often, follows a public data set of string reversal: 3 to 16 words, single digits and marks, words
with an apostrophe, and now and then something that is not ASCII. A character is a Unicode code
point, so a sign of two code points is taken apart by a reversal.

The rows are the same on every machine and with every version of Python: of the generator only
`Random.random` is used, whose numbers Python's documentation promises to keep.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal, TypeVar

from bytelm.data.pairs import Pair
from bytelm.errors import DataError

T = TypeVar("T")

FEWEST_CHARACTERS, MOST_CHARACTERS = 12, 144
"""Of a phrase, as in the data set."""

NOISE = "~`\u00a4\u00a7"
"""Signs that `noisy-copy` throws in, of one and of two bytes; no phrase holds one."""

_WORDS_BY_LENGTH = {
    2: 100, 3: 500, 4: 1900, 5: 2800, 6: 3300, 7: 3240, 8: 2700,
    9: 2000, 10: 1340, 11: 760, 12: 400, 13: 220, 14: 70, 15: 30,
}  # fmt: skip
"""Words of each number of letters."""

_NUM_SYLLABLES = 1000
"""Few enough to make words about as predictable as English ones: a count model of order 3 needs 2.8
bits for a byte of unseen phrases, and 2.7 for those of the data set."""

_ONSETS = (
    "r", "t", "n", "l", "c", "d", "s", "m", "p", "b", "g", "f", "h", "v", "w", "st", "pr", "tr",
    "k", "br", "ch", "cr", "gr", "fr", "sh", "cl", "pl", "sp", "j", "bl", "th", "qu", "sc", "dr",
    "fl", "str", "wh", "sl", "y", "ph", "sw", "gl", "z", "sk", "sm", "sn", "spr", "scr",
)  # fmt: skip

_NUCLEI = (
    "e", "i", "a", "o", "u", "ea", "ai", "ou", "io", "ee", "oo", "y", "ie", "ia", "au", "oi", "ue",
)  # fmt: skip

_CODAS = (
    "n", "r", "l", "s", "t", "d", "m", "c", "p", "g", "st", "ck", "nd", "nt", "ss", "ll", "x", "b",
    "sh", "ng", "rt", "ct", "k", "rd", "f", "mp", "ch", "th", "rm", "nk", "w", "ft", "lt",
)  # fmt: skip

_VOWELS = "aeiouy"

_PREFIXES = (
    "re", "con", "in", "de", "un", "dis", "com", "ex", "pro", "pre", "over", "sub", "inter", "en",
)  # fmt: skip

_ENDINGS = (
    "s", "ing", "ed", "er", "tion", "ly", "al", "ment", "ic", "ous", "able", "ness", "ist", "ity",
    "ive", "ance", "est", "less", "ful", "ship",
)  # fmt: skip
"""Parts of words, each in the order of their frequency, the commonest first."""

_MARKS = "0123456789.)?;>@}+/*|\\(^#$%'[=<_:-]!&{"
"""Single characters that stand as words."""

_AFTER_APOSTROPHE = ("s", "s", "s", "s", "s", "s", "ll", "d", "ve", "t")

_SIGNS = (
    "\u266b", "\u2500", "\u00e0", "\u03b1", "\u2122", "\u2588", "\u2800", "\u25a0", "\u2591",
    "\u00a9", "\u2666", "\u266a", "\u00ae", "\u00b0", "\u2764\ufe0f", "\u2605", "\u25cf", "\u03b2",
)  # fmt: skip
"""Words that are not ASCII: letters, signs, bars, and a heart of two code points."""

_ACCENTED = {"e": "\u00e9", "a": "\u00e3", "o": "\u00f4", "c": "\u00e7", "i": "\u00ee"}

_MARK_SHARE = 0.034
_APOSTROPHE_SHARE = 0.013
_ABBREVIATION_SHARE = 0.004
_NON_ASCII_SHARE = 0.00128
"""How often a word is one of these; the last makes 1.2 % of the phrases hold something of it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of pair."""

    name: str
    """As it is asked for."""
    summary: str
    """What the target is, in one line."""
    why: str
    """Why bytes or patches ought to matter."""
    make: Callable[[Random], Pair]
    """Draws one pair."""


def generate(
    task: str,
    count: int,
    *,
    seed: int,
    part: Literal["train", "test"] = "train",
    exclude: Collection[str] = (),
) -> list[Pair]:
    """Draw pairs of a task; no two have the same input.

    The first rows do not depend on how many are asked for.

    Args:
        task: A name in `TASKS`.
        count: Of pairs.
        seed: Of every draw.
        part: Training and test rows of one seed are drawn independently of each other.
        exclude: Inputs that must not occur: those of the training rows, for a test.

    Raises:
        DataError: There is no such task, or it has too few different inputs.
        ValueError: `count` or `seed` is negative.

    """
    if count < 0 or seed < 0:
        raise ValueError(f"count and seed must be >= 0, got {count} and {seed}")
    make = find_task(task).make
    rng = Random(f"bytelm {task} {part} {seed}")
    taken = set(exclude)
    pairs: list[Pair] = []
    misses = 0
    while len(pairs) < count:
        pair = make(rng)
        misses = misses + 1 if pair.input in taken else 0
        # The last of n inputs is found after n draws on average.
        if misses > 1000 + 20 * len(taken):
            raise DataError(
                f"the task '{task}' has no more than about {len(taken):,} different inputs, and "
                f"{count - len(pairs):,} more were asked for: ask for fewer rows"
            )
        if not misses:
            taken.add(pair.input)
            pairs.append(pair)
    return pairs


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        DataError: There is none; the message lists those that there are.

    """
    if name in TASKS:
        return TASKS[name]
    close = difflib.get_close_matches(name, TASKS, n=1)
    suggestion = f"; did you mean '{close[0]}'?" if close else ""
    raise DataError(f"unknown task '{name}', expected one of {', '.join(TASKS)}{suggestion}")


@cache
def vocabulary() -> tuple[str, ...]:
    """Make the words of the phrases: about 20,000, of the letters a to z, always the same ones."""
    rng = Random("bytelm vocabulary")
    room = dict(_WORDS_BY_LENGTH)
    # A dictionary, because a set has no order of its own.
    words: dict[str, None] = {}
    while any(room.values()):
        word = _made_up_word(rng)
        if room.get(len(word)) and word not in words:
            room[len(word)] -= 1
            words[word] = None
    return tuple(words)


# --- tasks -------------------------------------------------------------------------------------


def _reversal(rng: Random) -> Pair:
    phrase = _phrase(rng)
    return Pair(phrase, phrase[::-1])


def _word_reversal(rng: Random) -> Pair:
    phrase = _phrase(rng)
    return Pair(phrase, " ".join(reversed(phrase.split(" "))))


def _noisy_copy(rng: Random) -> Pair:
    phrase = _phrase(rng, most=110)
    # From almost clean to a sign after every third character.
    rate = rng.random() / 3
    noisy = [character + (_pick(rng, NOISE) if rng.random() < rate else "") for character in phrase]
    return Pair("".join(noisy), phrase)


def _counting(rng: Random) -> Pair:
    phrase = _phrase(rng, most=80)
    counts = Counter(phrase)
    # Mostly letters that occur; some of any kind, so that the answer is 0 at times.
    letters = [letter for letter in phrase if letter.isascii() and letter.isalpha()]
    alphabet = letters * 3 + [chr(code) for code in range(ord("a"), ord("z") + 1)]
    asked: list[str] = []
    for _ in range(1 + _below(rng, 3)):
        letter = _pick(rng, alphabet)
        if letter not in asked:
            asked.append(letter)
    return Pair(f"{' '.join(asked)}|{phrase}", " ".join(str(counts[letter]) for letter in asked))


def _spelling(rng: Random) -> Pair:
    phrase = _phrase(rng, most=90)
    return Pair(phrase, " ".join("-".join(word) for word in phrase.split(" ")))


TASKS = {
    task.name: task
    for task in (
        Task(
            name="reversal",
            summary="the input's characters in the opposite order",
            why=(
                "Every character has to come out once, in a place that no word or patch decides: "
                "a model that loses the order of bytes inside a patch fails."
            ),
            make=_reversal,
        ),
        Task(
            name="word-reversal",
            summary="the input's words in the opposite order, their letters kept",
            why=(
                "Words move whole, so patches that follow words are the right units: where patches "
                "help at all they should help here."
            ),
            make=_word_reversal,
        ),
        Task(
            name="noisy-copy",
            summary=f"the input without the signs {' '.join(NOISE)} thrown in between its letters",
            why=(
                "A sign in the middle of a word shifts patch edges, so that the same word never "
                "looks the same twice in patches; to bytes it is one sign to leave out."
            ),
            make=_noisy_copy,
        ),
        Task(
            name="counting",
            summary="how often the letters before the first | occur after it",
            why=(
                "The answer is a sum over single letters: the letters have to be visible inside "
                "patches, and all patches have to be read."
            ),
            make=_counting,
        ),
        Task(
            name="spelling",
            summary="the letters of each word with hyphens between them",
            why=(
                "The letters inside a patch have to be taken apart in their order, but not moved: "
                "reversal without its long way."
            ),
            make=_spelling,
        ),
    )
}
"""By name."""


# --- phrases -----------------------------------------------------------------------------------


def _phrase(rng: Random, *, most: int = MOST_CHARACTERS) -> str:
    """Draw words until they are neither too few characters nor more than `most`."""
    while True:
        phrase = " ".join(_word(rng) for _ in range(_word_count(rng)))
        if FEWEST_CHARACTERS <= len(phrase) <= most:
            return phrase


def _word_count(rng: Random) -> int:
    """Draw 3 to 16, all but the first and the last equally often."""
    return (_below(rng, 39) + 1) // 3 + 3


def _word(rng: Random) -> str:
    share = rng.random()
    if (share := share - _MARK_SHARE) < 0:
        return _pick(rng, _MARKS)
    if (share := share - _APOSTROPHE_SHARE) < 0:
        return f"{_pick(rng, vocabulary())}'{_pick(rng, _AFTER_APOSTROPHE)}"
    if (share := share - _ABBREVIATION_SHARE) < 0:
        return _abbreviation(rng)
    if share < _NON_ASCII_SHARE:
        return _accented(rng) if rng.random() < 0.4 else _pick(rng, _SIGNS)
    return _pick(rng, vocabulary())


def _abbreviation(rng: Random) -> str:
    """Draw letters with dots between them, or a letter before a number."""
    word = _pick(rng, vocabulary())
    return ".".join(word[:2]) if rng.random() < 0.3 else f"{word[0]}{_below(rng, 10)}"


def _accented(rng: Random) -> str:
    """Draw a word, and put an accent on one of its letters."""
    while True:
        word = _pick(rng, vocabulary())
        letter = _pick(rng, tuple(_ACCENTED))
        if letter in word:
            return word.replace(letter, _ACCENTED[letter], 1)


def _made_up_word(rng: Random) -> str:
    """Draw syllables, with a prefix and an ending at times."""
    word = _pick_common(rng, _PREFIXES) if rng.random() < 0.2 else ""
    for _ in range(1 + _below(rng, 3)):
        word += _pick_common(rng, _syllables())
    ending = _pick_common(rng, _ENDINGS) if rng.random() < 0.5 else ""
    return (word.rstrip(_VOWELS) if ending.startswith(tuple(_VOWELS)) else word) + ending


@cache
def _syllables() -> tuple[str, ...]:
    rng = Random("bytelm syllables")
    # A dictionary, because a set has no order of its own.
    made: dict[str, None] = {}
    while len(made) < _NUM_SYLLABLES:
        onset = _pick_common(rng, _ONSETS) if rng.random() < 0.85 else ""
        coda = _pick_common(rng, _CODAS) if rng.random() < 0.5 else ""
        made[onset + _pick_common(rng, _NUCLEI) + coda] = None
    return tuple(made)


def _below(rng: Random, count: int) -> int:
    return int(rng.random() * count)


def _pick(rng: Random, choices: Sequence[T]) -> T:
    return choices[_below(rng, len(choices))]


def _pick_common(rng: Random, choices: Sequence[T]) -> T:
    """Draw the first ones more often: the i-th of n with a weight of about i to the -2/3."""
    return choices[int(rng.random() ** 3 * len(choices))]

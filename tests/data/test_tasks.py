"""Oracles: each task's answer worked out another way, the shape of the public data, golden rows."""

import re
import statistics
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data.pairs import Pair, fingerprint
from bytelm.data.tasks import NOISE, TASKS, Task, find_task, generate, vocabulary
from bytelm.errors import DataError

GOLDEN = {
    "reversal": "67e166e07e42c205",
    "word-reversal": "80218582af567c34",
    "noisy-copy": "cca2f74e022d25c9",
    "counting": "5689064f28dd8acf",
    "spelling": "256073bbdf1bf67f",
}
"""How the fingerprints of 200 rows of seed 1 begin."""

MOST_BYTES = 192
"""What the recipes of these models take."""


@pytest.fixture(scope="module")
def phrases() -> list[str]:
    """As many inputs of the reversal as the public training file has."""
    return [pair.input for pair in generate("reversal", 10_000, seed=0)]


@pytest.fixture(scope="module")
def words(phrases) -> Counter[str]:
    return Counter(word for phrase in phrases for word in phrase.split(" "))


# --- answers -----------------------------------------------------------------------------------


def reversed_characters(text: str) -> str:
    answer = ""
    for character in text:
        answer = character + answer
    return answer


def reversed_words(text: str) -> str:
    found = re.match(r"(\S+) (.*)", text)
    return f"{reversed_words(found[2])} {found[1]}" if found else text


def without_noise(text: str) -> str:
    return re.sub("[~`¤§]", "", text)


def counted(text: str) -> str:
    letters, _, phrase = text.partition("|")
    return " ".join(str(len(phrase.split(letter)) - 1) for letter in letters.split())


def spelled(text: str) -> str:
    return re.sub(r"(?<=\S)(?=\S)", "-", text)


ANSWERS = {
    "reversal": reversed_characters,
    "word-reversal": reversed_words,
    "noisy-copy": without_noise,
    "counting": counted,
    "spelling": spelled,
}


@pytest.mark.parametrize("task", TASKS)
@given(seed=st.integers(0, 2**64))
def test_answers_are_exact_and_fit(task, seed):
    for pair in generate(task, 5, seed=seed):
        assert pair.target == ANSWERS[task](pair.input)
        assert 0 < max(len(pair.input.encode()), len(pair.target.encode())) <= MOST_BYTES


def test_the_oracles_by_hand():
    assert reversed_words("ab ' cd") == "cd ' ab"
    assert counted("a z e|banane |") == "2 0 1"
    assert spelled("to - b'é") == "t-o - b-'-é"


def test_noise_is_all_that_tells_an_input_from_its_target():
    pairs = generate("noisy-copy", 500, seed=0)
    assert not any(set(pair.target) & set(NOISE) for pair in pairs)
    shares = [1 - len(pair.target) / len(pair.input) for pair in pairs]
    assert min(shares) < 0.01 < 0.2 < max(shares)


def test_counts_are_of_one_to_three_letters_and_some_are_zero():
    pairs = generate("counting", 500, seed=0)
    answers = Counter(number for pair in pairs for number in pair.target.split())
    assert {len(pair.target.split()) for pair in pairs} == {1, 2, 3}
    assert answers["0"] > 10
    assert answers.most_common(1)[0][1] < sum(answers.values()) / 2


# --- draws -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_the_same_on_every_machine(task):
    assert fingerprint(generate(task, 200, seed=1))[:16] == GOLDEN[task]


@given(few=st.integers(0, 30), more=st.integers(0, 30), seed=st.integers(0, 99))
def test_the_first_rows_do_not_depend_on_the_count(few, more, seed):
    rows = generate("reversal", few + more, seed=seed)
    assert rows[:few] == generate("reversal", few, seed=seed)


@pytest.mark.parametrize("task", TASKS)
def test_no_input_is_drawn_twice_or_again_for_the_test(task):
    train = {pair.input for pair in generate(task, 300, seed=5)}
    # Rows of the same part would all be the same: every one of them has to be passed over.
    more = {pair.input for pair in generate(task, 300, seed=5, exclude=train)}
    test = {pair.input for pair in generate(task, 300, seed=5, part="test", exclude=train)}
    other = {pair.input for pair in generate(task, 300, seed=6)}
    for inputs in (train, more, test, other):
        assert len(inputs) == 300
    assert not train & more
    assert not train & test
    assert not train & other


def test_a_small_space_is_drawn_out_and_then_ends(monkeypatch):
    inputs = ["a", "b", "c", "d"]

    def make(rng: Random) -> Pair:
        return Pair(inputs[int(rng.random() * 4)], "x")

    monkeypatch.setitem(TASKS, "toy", Task(name="toy", summary="x", why="", make=make))
    assert {pair.input for pair in generate("toy", 4, seed=0)} == set(inputs)
    assert generate("toy", 1, seed=0, exclude=["a", "b", "d"]) == [Pair("c", "x")]
    with pytest.raises(DataError, match="about 4 different inputs, and 1 more were asked for"):
        generate("toy", 5, seed=0)


def test_an_unknown_task_and_wrong_numbers_are_refused():
    with pytest.raises(DataError, match=r"unknown task 'speling', .* did you mean 'spelling'\?"):
        find_task("speling")
    with pytest.raises(DataError, match="expected one of reversal, word-reversal, noisy-copy"):
        generate("sorting", 1, seed=0)
    with pytest.raises(ValueError, match="got -1 and 0"):
        generate("reversal", -1, seed=0)
    with pytest.raises(ValueError, match="got 1 and -1"):
        generate("reversal", 1, seed=-1)


def test_every_task_says_what_it_is():
    for name, task in TASKS.items():
        assert task.name == name
        assert "\n" not in task.summary
        assert len(task.summary) < 80
        assert task.why.endswith(".")


# --- the shape of the public data --------------------------------------------------------------


def test_phrases_are_as_long_as_in_the_public_data(phrases):
    lengths = [len(phrase) for phrase in phrases]
    assert (min(lengths), max(lengths)) == (12, 144)
    # The public file: 70.9 characters.
    assert statistics.mean(lengths) == pytest.approx(71.5, abs=1.5)
    counts = Counter(len(phrase.split(" ")) for phrase in phrases)
    assert sorted(counts) == list(range(3, 17))
    # Of the public file: 524 of 3 words, 684 to 825 of 4 to 15, 255 of 16.
    assert counts[3] == pytest.approx(513, abs=90)
    assert counts[16] == pytest.approx(256, abs=60)
    assert all(counts[number] == pytest.approx(769, abs=110) for number in range(4, 16))


def test_marks_digits_and_signs_are_as_rare_as_in_the_public_data(phrases, words):
    marks = [words[mark] for mark in "0123456789.)?;>@}+/*|\\(^#$%'[=<_:-]!&{"]
    # The public file: 56 to 96 of each.
    assert 45 < min(marks) < max(marks) < 125
    assert statistics.mean(marks) == pytest.approx(81, abs=6)
    # 118 of its rows hold something that is not ASCII.
    assert sum(not phrase.isascii() for phrase in phrases) == pytest.approx(118, abs=33)
    apostrophes = sum(count for word, count in words.items() if re.search("[a-z]'[a-z]", word))
    assert apostrophes == pytest.approx(1229, abs=110)
    signs = {character for phrase in phrases for character in phrase if not character.isascii()}
    assert len(signs) > 15


def test_words_are_drawn_evenly_from_a_vocabulary_like_that_of_the_public_data(words):
    # The public file: 19,826 different words; each word of letters about 5 times.
    assert len(words) == pytest.approx(20_500, abs=1000)
    letters = [word for word in words.elements() if re.fullmatch("[a-z]{2,}", word)]
    assert statistics.mean(map(len, letters)) == pytest.approx(7, abs=0.1)
    # Drawn evenly the counts are Poisson's: their variance is their mean.
    counts = [words[word] for word in vocabulary()]
    assert statistics.variance(counts) == pytest.approx(statistics.mean(counts), rel=0.05)


def test_the_vocabulary_is_of_distinct_lower_case_words():
    found = vocabulary()
    assert len(set(found)) == len(found) == 19_360
    assert all(re.fullmatch("[a-z]{2,15}", word) for word in found)
    # Like words and unlike random letters: few have five consonants in a row.
    clusters = [
        max(map(len, re.findall("[bcdfghjklmnpqrstvwxz]+", word)), default=0) for word in found
    ]
    assert sum(length >= 5 for length in clusters) < 0.05 * len(found)


def test_no_field_needs_quotes():
    for task in TASKS:
        for pair in generate(task, 200, seed=0):
            assert not set(pair.input + pair.target) & set(',"\r\n')

"""Oracles: one text at a time by the plainest loop, and the whole text for its pieces."""

import copy
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_session import Toy, ToySession, hashed, over, toy_sessions

from bytelm.decoding import generation
from bytelm.decoding.generation import Ending, Outlet, generate, generate_batch
from bytelm.decoding.sampling import Row, Sampling
from bytelm.language_model import LanguageModel
from bytelm.models import ByteModel
from conftest import TEXT, _model, ngram

__all__ = ["toy_sessions"]

GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=0.9, top_p=0.95)


def plain(toy: Toy, prompt: bytes, seed: int, ending: Ending, sampling: Sampling = WARM) -> bytes:
    """The text, from the definition: one byte after another, then cut at the first stop."""
    row = Row(prompt, seed=seed, max_new_bytes=ending.max_new_bytes)
    for _ in range(ending.max_new_bytes):
        probs = toy.rule(bytes(row.text))
        with np.errstate(divide="ignore"):
            log_probs = np.log(probs / probs.sum()).astype(np.float32)
        row.text.append(int(sampling.choose(log_probs[None], [row])[0]))
    return cut(bytes(row.text[len(prompt) :]), ending.stop)


def cut(text: bytes, stop: Sequence[bytes]) -> bytes:
    """Up to the stop sequence that is complete first; of those, the one that begins first."""
    for end in range(len(text) + 1):
        found = [len(sequence) for sequence in stop if text[:end].endswith(sequence)]
        if found:
            return text[: end - max(found)]
    return text


# --- pieces ------------------------------------------------------------------------------------

letters = st.lists(st.sampled_from(b"ab"), min_size=1, max_size=5).map(bytes)


@given(st.lists(st.sampled_from(b"abc"), max_size=40).map(bytes), st.lists(letters, max_size=4))
def test_pieces_are_the_text_up_to_the_stop(text: bytes, stop: list[bytes]) -> None:
    ending = Ending(max_new_bytes=len(text), stop=tuple(stop))
    assert b"".join(generation._pieces(text, ending)) == cut(text, stop)


def test_every_short_text_with_every_short_stop() -> None:
    """All of two letters: a stop sequence that begins again inside itself is where this is hard."""
    words = [bytes(word) for n in range(1, 5) for word in itertools.product(b"ab", repeat=n)]
    for text in itertools.product(b"ab", repeat=8):
        for stop in words:
            ending = Ending(max_new_bytes=8, stop=(stop,))
            expected = bytes(text).partition(stop)[0]
            assert b"".join(generation._pieces(text, ending)) == expected


@given(st.lists(st.sampled_from(b"abc"), max_size=40).map(bytes), st.lists(letters, max_size=4))
def test_only_what_could_begin_a_stop_sequence_is_held_back(text: bytes, stop: list[bytes]) -> None:
    """Oracle: the longest end of the text that begins a stop sequence, by trying them all."""
    outlet, shown = Outlet(Ending(max_new_bytes=len(text) + 1, stop=tuple(stop))), b""
    for end, byte in enumerate(text, 1):
        shown += outlet.push(byte)
        if outlet.ended:
            return
        held = max(
            (n for n in range(end + 1) for s in stop if s.startswith(text[end - n : end])),
            default=0,
        )
        assert shown == text[: end - held]


@given(st.text().map(str.encode) | st.binary(), st.lists(letters, max_size=2))
def test_pieces_of_whole_characters(text: bytes, stop: list[bytes]) -> None:
    ending = Ending(max_new_bytes=len(text), stop=tuple(stop), whole_characters=True)
    pieces = list(generation._pieces(text, ending))
    expected = cut(text, stop)
    assert b"".join(pieces) == expected
    assert "".join(p.decode(errors="replace") for p in pieces) == expected.decode(errors="replace")


def test_a_stream_is_not_asked_for_more_than_is_shown() -> None:
    asked = iter(b"abcdef")
    pieces = generation._pieces(asked, Ending(max_new_bytes=9, stop=(b"d",)))
    assert list(pieces) == [b"a", b"b", b"c"]
    assert bytes(asked) == b"ef"


# --- batches -----------------------------------------------------------------------------------

prompts = st.lists(st.sampled_from([b"", b"a", b"b", b"a longer one", b"\xff"]), max_size=12)
stops = st.lists(st.lists(st.sampled_from(b"xy"), min_size=1, max_size=2).map(bytes), max_size=2)


def together(pieces: list[tuple[int, bytes]], count: int) -> list[bytes]:
    assert all(piece for _, piece in pieces)
    return [b"".join(piece for i, piece in pieces if i == index) for index in range(count)]


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
@given(
    prompts=prompts,
    stop=stops,
    rows=st.integers(1, 5),
    new=st.integers(0, 12),
    seed=st.integers(0, 9),
)
def test_every_text_of_a_batch_is_the_one_it_would_be_alone(
    sampling: Sampling, prompts: list[bytes], stop: list[bytes], rows: int, new: int, seed: int
) -> None:
    toy = Toy(over(b"xyz"))
    ending = Ending(max_new_bytes=new, stop=tuple(stop))
    seeds = [seed + index for index in range(len(prompts))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "Session", ToySession)
        pieces = list(
            generate_batch(toy, prompts, ending=ending, sampling=sampling, seeds=seeds, rows=rows)
        )
        expected = [plain(toy, p, s, ending, sampling) for p, s in zip(prompts, seeds, strict=True)]
        assert together(pieces, len(prompts)) == expected
        for index, prompt in enumerate(prompts[:2]):
            one = generate(toy, prompt, ending=ending, sampling=sampling, seed=seeds[index])
            assert b"".join(one) == expected[index]


def test_equal_prompts_are_read_once_and_rows_stay_within_the_limit(
    toy_sessions: list[ToySession],
) -> None:
    toy = Toy(over(b"xyz"))
    prompts = [b"first", b"other", *[b"first"] * 30, b"other", b"third"]
    ending = Ending(max_new_bytes=30, stop=(b"xx",))
    seeds = list(range(len(prompts)))
    list(generate_batch(toy, prompts, ending=ending, sampling=WARM, seeds=seeds, rows=4))
    assert toy.rows_read == 3
    # Four texts, and the one row that keeps the prompt that is waited for.
    assert [session.rows_at_most for session in toy_sessions] == [5]


def test_texts_are_streamed_side_by_side(toy_sessions: list[ToySession]) -> None:
    batch = generate_batch(
        Toy(hashed),
        [b"a", b"b", b"c"],
        ending=Ending(max_new_bytes=3),
        sampling=GREEDY,
        seeds=[0, 0, 0],
        rows=2,
    )
    assert [index for index, _ in batch] == [0, 1, 0, 1, 0, 1, 2, 2, 2]


def test_nothing_is_read_before_it_is_asked_for_nor_after_the_end(
    toy_sessions: list[ToySession],
) -> None:
    texts = generate(Toy(hashed), b"p", ending=Ending(max_new_bytes=2), sampling=GREEDY, seed=0)
    assert toy_sessions == []
    written = b"".join(texts)
    assert toy_sessions[0].documents == [b"p" + written[:1]]


def test_no_prompts(toy_sessions: list[ToySession]) -> None:
    ending = Ending(max_new_bytes=2)
    assert list(generate_batch(Toy(hashed), [], ending=ending, sampling=GREEDY, seeds=[])) == []


@given(
    prompt=st.text(min_size=1).map(str.encode),
    cut=st.integers(0, 3),
    new=st.integers(3, 9),
    seed=st.integers(0, 99),
)
def test_valid_utf8_is_valid_whatever_the_model_says(
    prompt: bytes, cut: int, new: int, seed: int
) -> None:
    """Oracle: Python's decoder. The prompt may end inside a character."""
    prompt = prompt[: max(len(prompt) - cut, 0)]
    toy = Toy(hashed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "Session", ToySession)
        text = b"".join(
            generate(
                toy,
                prompt,
                ending=Ending(max_new_bytes=new),
                sampling=Sampling(temperature=2, valid_utf8=True),
                seed=seed,
            )
        )
    assert len(text) == new
    (prompt + text).decode()


# --- with real models --------------------------------------------------------------------------


def test_real_rows_are_as_alone(any_model: ByteModel) -> None:
    """Every model kind, ragged prompts, texts that end at different bytes and are replaced.

    In float64, as `bytelm.load` gives models: the rounding of a batch is too small to matter.
    """
    model = LanguageModel(copy.deepcopy(any_model).double())
    prompts = [TEXT[:40], b"", TEXT[60:67], TEXT[:40], b"q"]
    options = {"max_new_bytes": 24, "top_p": 0.95, "stop": (b"e", b" ")}
    batch = model.generate_batch(prompts, rows=3, seeds=5, **options)
    alone = [
        b"".join(model.generate(prompt, seed=5 + index, **options))
        for index, prompt in enumerate(prompts)
    ]
    assert together(list(batch), len(prompts)) == alone


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "min_p": 0.01, "seed": 3},
        {"repetition_penalty": 1.3, "repetition_window": 9, "stop": (b"e", b"th"), "seed": 4},
        {"temperature": 1.5, "valid_utf8": True, "whole_characters": True},
    ],
    ids=["greedy", "sampled", "penalized", "utf8"],
)
@pytest.mark.parametrize("name", ["blt-entropy", "blt-space"])
def test_speculation_changes_nothing(name: str, options: dict) -> None:
    """Oracle: the same call without it. In float64, as `bytelm.load` gives models."""
    model = LanguageModel(copy.deepcopy(_model(name, True)).double())
    asked = {"max_new_bytes": 70, **options}
    plainly = list(model.generate(TEXT[:30], **asked))
    assert list(model.generate(TEXT[:30], speculate=True, **asked)) == plainly


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (b"ab\xff", {}, "the byte 0xff at position 2: invalid start byte"),
        ("é".encode()[:1], {"max_new_bytes": 0}, "lacks 1 bytes, and max_new_bytes is 0"),
        (b"", {"stop": (b"\x80",)}, "begins inside a character"),
    ],
)
def test_prompts_that_cannot_stay_text(prompt: bytes, options: dict, message: str) -> None:
    ending = Ending(**{"max_new_bytes": 9, **options})
    with pytest.raises(ValueError, match=message):
        generate(Toy(hashed), prompt, ending=ending, sampling=Sampling(valid_utf8=True), seed=0)
    with pytest.raises(ValueError, match="prompt 1 has the byte"):
        generate_batch(
            Toy(hashed),
            [b"", b"\xff"],
            ending=Ending(max_new_bytes=9),
            sampling=Sampling(valid_utf8=True),
            seeds=[0, 0],
        )


def test_the_public_arguments() -> None:
    model = LanguageModel(ngram())
    with pytest.raises(ValueError, match="expected one seed for each of 1 prompts, got 2"):
        model.generate_batch([b""], seeds=[1, 2])
    with pytest.raises(ValueError, match=f"0 to {2**64 - 1}, got -1"):
        model.generate_batch([b""], seeds=-1)
    with pytest.raises(ValueError, match="an ngram has no patches"):
        model.generate(b"", speculate=True)
    texts = together(list(model.generate_batch([b"a"] * 3, max_new_bytes=9, seeds=None)), 3)
    assert len(set(texts)) == 3
    last = 2**64 - 1
    wrapped = together(list(model.generate_batch([b"a"] * 2, max_new_bytes=9, seeds=last)), 2)
    assert wrapped == [
        b"".join(model.generate(b"a", max_new_bytes=9, seed=seed)) for seed in (last, 0)
    ]


def test_numbers_that_do_not_fit(toy_sessions: list[ToySession]) -> None:
    ending = Ending(max_new_bytes=1)
    with pytest.raises(ValueError, match="one seed for each of 2 prompts, got 1"):
        generate_batch(Toy(hashed), [b"", b""], ending=ending, sampling=WARM, seeds=[0])
    with pytest.raises(ValueError, match="rows must be a whole number, at least 1, got 0"):
        generate_batch(Toy(hashed), [b""], ending=ending, sampling=WARM, seeds=[0], rows=0)
    with pytest.raises(ValueError, match=f"0 to {2**64 - 1}, got -1"):
        generate(Toy(hashed), b"", ending=ending, sampling=WARM, seed=-1)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        Ending(max_new_bytes=-1)
    with pytest.raises(ValueError, match="not empty"):
        Ending(max_new_bytes=1, stop=(b"",))

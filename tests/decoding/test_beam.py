"""Oracles: every text there is, scored one by one; greedy decoding for one beam."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_session import Toy, ToySession, hashed, over, toy_sessions

from bytelm.decoding import beam, generation
from bytelm.decoding.beam import Beams, Hypothesis, beam_search
from bytelm.decoding.generation import Ending, generate
from bytelm.decoding.sampling import Sampling
from bytelm.errors import CheckpointError
from bytelm.language_model import LanguageModel
from bytelm.models import ByteModel
from conftest import TEXT

__all__ = ["toy_sessions"]


def log_prob(toy: Toy, prompt: bytes, new: bytes) -> float:
    total = 0.0
    for index, byte in enumerate(new):
        probs = toy.rule(prompt + new[:index])
        total += math.log(probs[byte] / probs.sum())
    return total


def every_text(alphabet: bytes, ending: Ending) -> set[bytes]:
    """All new bytes that end by a stop sequence, kept at their end, or by the length."""
    texts = set()
    for letters in itertools.product(alphabet, repeat=ending.max_new_bytes):
        text = bytes(letters)
        ends = [
            n for n in range(1, len(text) + 1) if any(text[:n].endswith(s) for s in ending.stop)
        ]
        texts.add(text[: min(ends, default=len(text))])
    return texts


penalties = st.sampled_from([-1.5, -0.5, 0.0, 0.6, 1.0, 2.0])
stops = st.sampled_from([(), (b"x",), (b"yx", b"x"), (b"zz",), (b"xyz", b"yz")])


def search(toy: Toy, prompt: bytes, ending: Ending, beams: Beams) -> list[Hypothesis]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam, "Session", ToySession)
        return beam_search(toy, prompt, ending=ending, beams=beams)


@given(prompt=st.binary(max_size=3), new=st.integers(1, 5), stop=stops, penalty=penalties)
def test_a_beam_wide_enough_finds_what_trying_everything_finds(
    prompt: bytes, new: int, stop: tuple[bytes, ...], penalty: float
) -> None:
    toy, ending = Toy(over(b"xyz")), Ending(max_new_bytes=new, stop=stop)
    everything = every_text(b"xyz", ending)
    width = 3**new
    found = search(
        toy, prompt, ending, Beams(beams=width, n_best=min(5, width), length_penalty=penalty)
    )
    scores = {text: log_prob(toy, prompt, text) / len(text) ** penalty for text in everything}
    expected = sorted(scores, key=lambda text: -scores[text])[:5]
    assert [one.text + one.stop for one in found] == expected
    assert [one.score for one in found] == pytest.approx([scores[t] for t in expected], rel=1e-5)
    for one in found:
        assert one.log_prob == pytest.approx(log_prob(toy, prompt, one.text + one.stop), rel=1e-5)


@given(
    prompt=st.binary(max_size=3),
    stop=stops,
    penalty=penalties,
    width=st.integers(1, 6),
    best=st.integers(1, 3),
)
def test_stopping_early_changes_nothing(
    prompt: bytes, stop: tuple[bytes, ...], penalty: float, width: int, best: int
) -> None:
    """Oracle: the same search that goes on until nothing is open."""
    toy, ending = Toy(over(b"xyz")), Ending(max_new_bytes=9, stop=stop)
    beams = Beams(beams=width, n_best=min(best, width), length_penalty=penalty)
    early = search(toy, prompt, ending, beams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam, "_decided", lambda *_: False)
        assert search(toy, prompt, ending, beams) == early


def test_it_stops_early(toy_sessions: list[ToySession]) -> None:
    """A likely stop at once: no later text can have a larger sum of log-probabilities."""

    def rule(data: bytes) -> np.ndarray:
        probs = np.full(256, 1e-3)
        probs[ord(".")] = 1
        return probs

    ending = Ending(max_new_bytes=50, stop=(b".",))
    (found,) = beam_search(Toy(rule), b"p", ending=ending, beams=Beams(beams=4, length_penalty=0))
    assert (found.text, found.stop) == (b"", b".")
    assert toy_sessions[0].documents == [b"p"]


def test_a_finished_hypothesis_keeps_its_place(toy_sessions: list[ToySession]) -> None:
    """By hand: '.' ends and takes one of the two places at once, so that one row stays."""

    def rule(data: bytes) -> np.ndarray:
        probs = np.full(256, 1e-9)
        probs[list(b".ab")] = (0.2, 0.5, 0.3) if data else (0.5, 0.3, 0.2)
        return probs

    ending = Ending(max_new_bytes=3, stop=(b".",))
    beams = Beams(beams=2, n_best=2, length_penalty=0)
    found = beam_search(Toy(rule), b"", ending=ending, beams=beams)
    assert [one.text + one.stop for one in found] == [b".", b"aaa"]
    assert [one.log_prob for one in found] == pytest.approx([math.log(0.5), math.log(0.075)])
    assert toy_sessions[0].rows_at_most == 1


@given(prompt=st.binary(max_size=3), stop=stops, penalty=penalties)
def test_one_beam_is_greedy(prompt: bytes, stop: tuple[bytes, ...], penalty: float) -> None:
    toy, ending = Toy(over(b"xyz")), Ending(max_new_bytes=8, stop=stop)
    (found,) = search(toy, prompt, ending, Beams(beams=1, length_penalty=penalty))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "Session", ToySession)
        greedy = generate(toy, prompt, ending=ending, sampling=Sampling(temperature=0), seed=0)
        assert found.text == b"".join(greedy)


def test_real_models(any_model: ByteModel) -> None:
    """Oracles: greedy for one beam, and the scores of the texts read again from the start."""
    model = LanguageModel(any_model)
    prompt = TEXT[:21]
    greedy = b"".join(model.generate(prompt, max_new_bytes=12, temperature=0))
    assert model.beam_search(prompt, beams=1, max_new_bytes=12)[0].text == greedy
    found = model.beam_search(prompt, beams=4, n_best=4, max_new_bytes=12, length_penalty=0)
    assert len({one.text for one in found}) == 4
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        rows = model.log_probs(prompt + one.text)[len(prompt) :]
        total = rows[np.arange(12), list(one.text)].sum(dtype=np.float64)
        assert one.log_prob == pytest.approx(float(total), abs=1e-3)


@given(st.text(max_size=3).map(str.encode), st.integers(0, 2), st.integers(3, 6))
def test_valid_utf8(prompt: bytes, cut: int, new: int) -> None:
    prompt = prompt[: max(len(prompt) - cut, 0)]
    beams = Beams(beams=3, n_best=3, valid_utf8=True)
    for one in search(Toy(hashed), prompt, Ending(max_new_bytes=new), beams):
        (prompt + one.text).decode()


def test_no_new_bytes(toy_sessions: list[ToySession]) -> None:
    found = beam_search(Toy(hashed), b"p", ending=Ending(max_new_bytes=0), beams=Beams())
    assert found == [Hypothesis(b"", 0.0, 0.0, b"")]


def test_a_model_of_nothing_is_refused(toy_sessions: list[ToySession]) -> None:
    nothing = Toy(lambda data: np.full(256, math.nan))
    with pytest.raises(CheckpointError, match="after 0 new bytes: its log-probabilities are NaN"):
        beam_search(nothing, b"", ending=Ending(max_new_bytes=3), beams=Beams())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"beams": 0}, "beams must be a whole number, 1 to 1024, got 0"),
        ({"beams": 2, "n_best": 3}, "n_best, of the beams, must be a whole number, 1 to 2, got 3"),
        ({"length_penalty": math.inf}, "length_penalty must be a number from -100 to 100"),
        ({"length_penalty": math.nan}, "length_penalty must be a number from -100 to 100"),
        ({"beams": 1025}, "beams"),
    ],
)
def test_settings_out_of_range(bad: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Beams(**bad)

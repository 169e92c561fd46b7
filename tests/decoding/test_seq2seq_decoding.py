"""Oracles: every text there is, the search of one prompt in `decoding.beam`, each input alone."""

import itertools
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_session import Toy, ToySession

from bytelm.decoding import beam, seq2seq
from bytelm.decoding.beam import Beams, beam_search
from bytelm.decoding.generation import Ending
from bytelm.decoding.seq2seq import Transduction, transduce
from bytelm.errors import CheckpointError
from bytelm.models.seq2seq import PatchEncoderConfig, Seq2Seq, Seq2SeqConfig, Source, possible
from bytelm.patching import Patcher, Space, Static
from bytelm.vocab import BOS, EOS, NUM_BYTES, OFFSET, VOCAB_SIZE
from conftest import TEXT, entropy_patcher, ngram, randomize_

STOP = b"."
"""The byte that is the end mark for an oracle whose texts end with a stop sequence."""

LONGEST = 9

Rule = Callable[[bytes, bytes], np.ndarray]
"""An input and the text so far -> probabilities `[256]`; that of `STOP` is the end mark's."""


@dataclass(frozen=True)
class ToyConfig:
    max_bytes: int = LONGEST


class ToyState:
    """The texts of all rows, in the plainest way."""

    def __init__(self, inputs: Sequence[bytes]) -> None:
        self.inputs = list(inputs)
        self.texts: list[bytes] | None = None

    def select(self, index: np.ndarray) -> None:
        assert index.dtype == np.int64
        assert len(index)
        assert self.texts is not None
        self.inputs = [self.inputs[row] for row in index]
        self.texts = [self.texts[row] for row in index]


class ToyTransducer:
    """A model without weights; it notes the rows of each step and the inputs it read at once."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.config = ToyConfig()
        self.rows: list[int] = []
        self.batches: list[list[bytes]] = []

    def read(self, inputs: Sequence[bytes]) -> list[bytes]:
        self.batches.append(list(inputs))
        return list(inputs)

    def begin(self, memory: list[bytes]) -> ToyState:
        return ToyState(memory)

    def step(self, ids: np.ndarray, state: ToyState) -> np.ndarray:
        assert ids.dtype == np.int64
        self.rows.append(len(ids))
        if state.texts is None:
            assert (ids == BOS).all()
            state.texts = [b""] * len(ids)
        else:
            pairs = zip(state.texts, ids.tolist(), strict=True)
            state.texts = [text + bytes([last - OFFSET]) for text, last in pairs]
        rows = zip(state.inputs, state.texts, strict=True)
        return np.stack([symbol_log_probs(self.rule(source, text)) for source, text in rows])


def symbol_log_probs(probs: np.ndarray) -> np.ndarray:
    """float32 `[260]`: the bytes' in their places, the stop byte's at the end mark."""
    log_probs = np.full(VOCAB_SIZE, -math.inf, np.float32)
    with np.errstate(divide="ignore"):
        logs = np.log(probs / probs.sum())
    log_probs[OFFSET:], log_probs[EOS] = logs, logs[STOP[0]]
    log_probs[OFFSET + STOP[0]] = -math.inf
    return log_probs


def over(alphabet: bytes) -> Rule:
    """Probabilities of some bytes and the end mark that look random, some of them near 1."""

    def rule(source: bytes, text: bytes) -> np.ndarray:
        generator = np.random.default_rng(zlib.crc32(source + b"|" + text))
        probs = np.zeros(NUM_BYTES)
        probs[list(alphabet + STOP)] = generator.uniform(0.1, 1, len(alphabet) + 1) ** 6
        return probs

    return rule


def fixed(**probs: float) -> Rule:
    """The same probabilities always: of letters, and of the end mark as `end`."""
    row = np.zeros(NUM_BYTES)
    for name, value in probs.items():
        row[STOP[0] if name == "end" else ord(name)] = value
    return lambda source, text: row


ENDS = fixed(end=1)(b"", b"")
"""Nothing but the end mark."""


def log_prob(rule: Rule, source: bytes, symbols: bytes) -> float:
    total = 0.0
    for index, byte in enumerate(symbols):
        probs = rule(source, symbols[:index])
        total += math.log(probs[byte] / probs.sum())
    return total


def every_text(alphabet: bytes, longest: int) -> list[bytes]:
    """All texts: those shorter than the longest end with the stop byte, the longest may."""
    inner = [
        bytes(letters) for n in range(longest) for letters in itertools.product(alphabet, repeat=n)
    ]
    whole = [bytes(letters) for letters in itertools.product(alphabet, repeat=longest)]
    return [text + STOP for text in inner] + whole


sources = st.lists(st.binary(min_size=1, max_size=4), max_size=7)
penalties = st.sampled_from([-1.5, -0.5, 0.0, 0.6, 1.0, 2.0])


@given(source=st.binary(min_size=1, max_size=3), longest=st.integers(1, 4), penalty=penalties)
def test_a_beam_wide_enough_finds_what_trying_everything_finds(
    source: bytes, longest: int, penalty: float
) -> None:
    rule, everything = over(b"xyz"), every_text(b"xyz", longest)
    width = len(everything)
    best = min(5, width)
    beams = Beams(beams=width, n_best=best, length_penalty=penalty)
    model = ToyTransducer(rule)
    (found,) = transduce(model, [source], beams=beams, max_new_bytes=longest)
    scores = {text: log_prob(rule, source, text) / len(text) ** penalty for text in everything}
    expected = sorted(scores, key=lambda text: -scores[text])[:best]
    assert [one.text + STOP * one.ended for one in found] == expected
    assert [one.score for one in found] == pytest.approx([scores[t] for t in expected], rel=1e-5)
    for one, text in zip(found, expected, strict=True):
        assert one.log_prob == pytest.approx(log_prob(rule, source, text), rel=1e-5)


@given(
    inputs=sources,
    longest=st.integers(1, LONGEST),
    penalty=penalties,
    width=st.integers(1, 6),
    best=st.integers(1, 3),
    rows=st.integers(1, 4),
)
def test_a_batch_finds_what_the_search_of_one_prompt_finds(
    inputs: list[bytes], longest: int, penalty: float, width: int, best: int, rows: int
) -> None:
    """Oracle: `beam_search` over toy sessions whose texts end with the stop byte."""
    rule = over(b"xyz")
    beams = Beams(beams=width, n_best=min(best, width), length_penalty=penalty)
    found = transduce(ToyTransducer(rule), inputs, beams=beams, max_new_bytes=longest, rows=rows)
    assert len(found) == len(inputs)
    ending = Ending(max_new_bytes=longest, stop=(STOP,))
    for source, texts in zip(inputs, found, strict=True):
        toy = Toy(lambda text, source=source: rule(source, text))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(beam, "Session", ToySession)
            alone = beam_search(toy, b"", ending=ending, beams=beams)
        assert texts == [
            Transduction(one.text, one.log_prob, one.score, bool(one.stop)) for one in alone
        ]


@given(inputs=sources, width=st.integers(1, 4))
def test_an_input_alone_gets_the_same_answer(inputs: list[bytes], width: int) -> None:
    model, beams = ToyTransducer(over(b"ab")), Beams(beams=width, n_best=width)
    together = transduce(model, inputs, beams=beams)
    assert together == [transduce(model, [source], beams=beams)[0] for source in inputs]


@given(source=st.binary(min_size=1, max_size=4))
def test_one_beam_is_greedy(source: bytes) -> None:
    """Oracle: the likeliest symbol, again and again."""
    rule = over(b"xyz")
    text = b""
    while len(text) < LONGEST:
        best = int(rule(source, text).argmax())
        if best == STOP[0]:
            break
        text += bytes([best])
    ((found,),) = transduce(ToyTransducer(rule), [source], beams=Beams(beams=1))
    assert (found.text, found.ended) == (text, len(text) < LONGEST)


@given(source=st.binary(min_size=1), penalty=penalties, width=st.integers(1, 6))
def test_stopping_early_changes_nothing(source: bytes, penalty: float, width: int) -> None:
    """Oracle: the same search that goes on until nothing is open."""
    source = source[:LONGEST]
    beams = Beams(beams=width, n_best=min(2, width), length_penalty=penalty)
    early = transduce(ToyTransducer(over(b"xyz")), [source], beams=beams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seq2seq._Beam, "_decided", lambda *_: [])
        assert transduce(ToyTransducer(over(b"xyz")), [source], beams=beams) == early


def test_it_stops_early() -> None:
    """A likely end at once: no later text can have a larger sum of log-probabilities."""
    model = ToyTransducer(fixed(a=0.1, b=0.1, end=0.8))
    ((found,),) = transduce(model, [b"?"], beams=Beams(beams=4, length_penalty=0))
    assert (found.text, model.rows) == (b"", [1])


def test_a_wider_beam_finds_what_greedy_misses() -> None:
    """By hand: 'a' is likelier first, but what follows it is split."""

    def rule(source: bytes, text: bytes) -> np.ndarray:
        if not text:
            return fixed(a=0.6, b=0.4)(source, text)
        return fixed(a=0.3, b=0.3, end=0.4)(source, text) if text[:1] == b"a" else ENDS

    model = ToyTransducer(rule)
    ((greedy,),) = transduce(model, [b"?"], beams=Beams(beams=1, length_penalty=0))
    ((wide,),) = transduce(model, [b"?"], beams=Beams(beams=2, length_penalty=0))
    assert greedy == Transduction(b"a", greedy.log_prob, greedy.score, ended=True)
    assert greedy.log_prob == pytest.approx(math.log(0.24))
    assert wide.text == b"b"
    assert wide.log_prob == pytest.approx(math.log(0.4))


def test_of_equal_ones_the_better_parent_and_the_lower_id_come_first() -> None:
    """By hand: all of four symbols are equally likely; the end mark's id is below every byte's."""
    model = ToyTransducer(fixed(b=1, a=1, c=1, end=1))
    beams = Beams(beams=4, n_best=4, length_penalty=0)
    (found,) = transduce(model, [b"?"], beams=beams, max_new_bytes=2)
    # First the empty text and a, b, c; then the three places go to the children of a.
    assert [one.text for one in found] == [b"", b"a", b"aa", b"ab"]
    assert [one.ended for one in found] == [True, True, False, False]


def test_finished_rows_leave_at_once() -> None:
    """Each input's answer has the length of its first byte; by hand, one step more a text."""

    def rule(source: bytes, text: bytes) -> np.ndarray:
        return ENDS if len(text) == source[0] else fixed(a=1)(source, text)

    model = ToyTransducer(rule)
    inputs = [bytes([3, 0]), bytes([1]), bytes([3]), bytes([2, 0, 0])]
    found = transduce(model, inputs, beams=Beams(beams=1))
    assert [texts[0].text for texts in found] == [b"aaa", b"a", b"aaa", b"aa"]
    assert model.rows == [4, 4, 3, 2]


def test_inputs_of_one_length_are_read_together() -> None:
    model, told = ToyTransducer(fixed(end=1)), []
    inputs = [b"aa", b"b", b"ccc", b"d", b"ee"]
    transduce(model, inputs, beams=Beams(beams=1), rows=2, progress=told.append)
    assert model.batches == [[b"ccc", b"aa"], [b"ee", b"b"], [b"d"]]
    assert told == [2, 2, 1]


def test_no_inputs() -> None:
    assert transduce(ToyTransducer(over(b"x")), [], beams=Beams()) == []


def test_impossible_texts_are_not_found() -> None:
    """Two texts are possible, and five are asked for."""
    model = ToyTransducer(lambda source, text: ENDS if text else fixed(a=1, b=3)(source, text))
    (found,) = transduce(model, [b"?"], beams=Beams(beams=5, n_best=5))
    assert [one.text for one in found] == [b"b", b"a"]


@given(source=st.binary(min_size=1, max_size=LONGEST), longest=st.integers(1, 7))
def test_valid_utf8(source: bytes, longest: int) -> None:
    def rule(source: bytes, text: bytes) -> np.ndarray:
        generator = np.random.default_rng(zlib.crc32(source + text))
        return generator.dirichlet(np.full(NUM_BYTES, 0.05)) + 1e-9

    beams = Beams(beams=3, n_best=3, valid_utf8=True)
    (found,) = transduce(ToyTransducer(rule), [source], beams=beams, max_new_bytes=longest)
    for one in found:
        one.text.decode()


def test_a_model_of_nothing_is_refused() -> None:
    model = ToyTransducer(lambda source, text: np.full(NUM_BYTES, math.nan))
    with pytest.raises(CheckpointError, match="after 0 new bytes: its log-probabilities are NaN"):
        transduce(model, [b"?"], beams=Beams())


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ([b"a", b""], {}, "input 1 is empty: expected 1 to 9 bytes"),
        ([b"a" * 10], {}, "input 0 has 10 bytes, and this model reads at most 9: shorten it"),
        ([b"a"], {"max_new_bytes": 0}, "max_new_bytes must be a whole number, 1 to 9, got 0"),
        ([b"a"], {"max_new_bytes": 10}, "max_new_bytes must be a whole number, 1 to 9, got 10"),
        ([b"a"], {"rows": 0}, "rows must be a whole number, at least 1, got 0"),
    ],
)
def test_what_is_refused(inputs: list[bytes], options: dict, message: str) -> None:
    model = ToyTransducer(over(b"x"))
    with pytest.raises(ValueError, match=message):
        transduce(model, inputs, beams=Beams(), **options)
    assert model.batches == []


# --- real models -------------------------------------------------------------------------------


def real(positions: str, patcher: Patcher | None) -> Seq2Seq:
    """Small, with random weights; its texts are 20 bytes at most."""
    patches = PatchEncoderConfig(dim=8, n_heads=2, ffn_dim=16, num_buckets=64, max_patch_bytes=6)
    config = Seq2SeqConfig(
        max_bytes=20,
        dim=16,
        n_heads=2,
        n_layers_encoder=2,
        n_layers_decoder=2,
        ffn_dim_encoder=24,
        ffn_dim=24,
        positions=positions,  # pyright: ignore[reportArgumentType]
        patches=None if patcher is None else patches,
    )
    needs = patcher is not None and patcher.needs_entropies
    model = Seq2Seq(config, patcher, ngram() if needs else None)
    randomize_(model, 5)
    return model.eval()


@pytest.fixture(
    params=itertools.product(
        ["learned", "rotary"],
        [
            None,
            Static(patch_size=3),
            Space(max_patch_bytes=6),
            entropy_patcher(ngram(), max_patch_bytes=5),
        ],
    ),
    ids=lambda param: f"{param[0]}-{param[1].kind if param[1] else 'bytes'}",
)
def real_model(request: pytest.FixtureRequest) -> Seq2Seq:
    return real(*request.param)


INPUTS = [TEXT[first : first + size] for first, size in enumerate((20, 1, 7, 13, 7))]


@pytest.mark.parametrize("width", [1, 4])
def test_real_models_answer_an_input_alone_as_in_a_batch(real_model: Seq2Seq, width: int) -> None:
    beams = Beams(beams=width, n_best=width)
    together = transduce(real_model, INPUTS, beams=beams, rows=5)
    for source, texts in zip(INPUTS, together, strict=True):
        (alone,) = transduce(real_model, [source], beams=beams)
        assert [one.text for one in texts] == [one.text for one in alone]
        scores = [one.log_prob for one in alone]
        assert [one.log_prob for one in texts] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("width", [1, 4])
def test_log_probs_are_those_of_the_texts_read_as_a_whole(real_model: Seq2Seq, width: int) -> None:
    """Oracle: the forward pass of training."""
    found = transduce(real_model, INPUTS, beams=Beams(beams=width, n_best=width))
    starts = None if real_model.patcher is None else real_model.patch_starts(INPUTS)
    for rank in range(width):
        texts = [one[rank] for one in found]
        ids = [[BOS, *(byte + OFFSET for byte in one.text), EOS] for one in texts]
        longest = max(map(len, ids))
        padded = torch.tensor([row + [EOS] * (longest - len(row)) for row in ids])
        with torch.inference_mode():
            logits = real_model(Source.of(INPUTS, starts), padded[:, :-1])
        rows = possible(logits).log_softmax(-1).gather(2, padded[:, 1:, None])[..., 0]
        for row, one in zip(rows, texts, strict=True):
            total = float(row[: len(one.text) + one.ended].sum(dtype=torch.float64))
            assert one.log_prob == pytest.approx(total, abs=1e-4)


def test_greedy_texts_of_real_models_are_the_likeliest_symbols(real_model: Seq2Seq) -> None:
    """Oracle: the forward pass of training, each next symbol from the text so far."""
    starts = None if real_model.patcher is None else real_model.patch_starts(INPUTS[:1])
    source = Source.of(INPUTS[:1], starts)
    ids = [BOS]
    while ids[-1] != EOS and len(ids) <= 20:
        with torch.inference_mode():
            ids.append(int(possible(real_model(source, torch.tensor([ids])))[0, -1].argmax()))
    ((found,),) = transduce(real_model, INPUTS[:1], beams=Beams(beams=1))
    assert found.text == bytes(one - OFFSET for one in ids[1:] if one != EOS)

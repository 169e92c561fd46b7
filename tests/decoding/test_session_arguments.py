"""What sessions and generation refuse. Oracles: the messages, and a session that stays as it was.

The type checker of the tests is off here: callers do not have it.
"""

import math
from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest

from bytelm.decoding.generation import new_seed
from bytelm.language_model import LanguageModel
from conftest import ngram

MODEL = LanguageModel(ngram())


@pytest.fixture(autouse=True)
def no_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (lambda x: MODEL.generate(max_new_bytes=x), "max_new_bytes"),
        (lambda x: MODEL.generate(seed=x), "a seed"),
        (lambda x: MODEL.generate(top_k=x), "top_k"),
        (lambda x: MODEL.generate(repetition_window=x), "repetition_window"),
        (lambda x: MODEL.generate_batch([b""], rows=x), "rows"),
        (lambda x: MODEL.generate_batch([b""], seeds=x), "a seed"),
        (lambda x: MODEL.generate_batch([b""], seeds=[x]), "a seed"),
        (lambda x: MODEL.beam_search(beams=x), "beams"),
        (lambda x: MODEL.beam_search(n_best=x), "n_best, of the beams,"),
        (lambda x: MODEL.session(rows=x), "rows"),
        (lambda x: MODEL.session().select([0, x]), "a row"),
        (lambda x: MODEL.session().restart(x), "a row"),
        (lambda x: MODEL.session().snapshot(x), "a row"),
        (lambda x: MODEL.session().rollback(x, MODEL.session().snapshot(0)), "a row"),
    ],
)
@pytest.mark.parametrize("bad", [2.5, 0.9, math.nan, "a", -1])
def test_counts_seeds_and_rows_are_whole_numbers(
    ask: Callable[[object], object], name: str, bad: object
) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number, .*, got {bad!r}"):
        ask(bad)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    options = {"max_new_bytes": np.int64(5), "top_k": np.uint8(9)}
    expected = b"".join(MODEL.generate(max_new_bytes=5, top_k=9, seed=3))
    assert b"".join(MODEL.generate(**options, seed=np.uint64(3))) == expected
    batch = MODEL.generate_batch([b""], **options, seeds=np.int64(3))
    assert b"".join(piece for _, piece in batch) == expected


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (np.array([1, 300, 5]), r"an array int64 \[3\]"),
        (np.zeros((2, 2), np.uint8), r"an array uint8 \[2, 2\]"),
        (memoryview(np.array([1, 300])), "a memoryview of format 'l', 1 dimensions"),
        (np.zeros(0), r"an array float64 \[0\]"),
        ("text", "got str"),
        (7, "got int"),
    ],
)
def test_what_is_not_bytes_is_refused_and_nothing_is_read(bad: object, got: str) -> None:
    session = MODEL.session(rows=2)
    with pytest.raises(ValueError, match=f"row 1: expected bytes.*{got}"):
        session.push([b"a", bad])  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(session.log_probs(), MODEL.session(rows=2).log_probs())
    with pytest.raises(ValueError, match=f"data: expected bytes.*{got}"):
        MODEL.score(bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=f"prompt: expected bytes.*{got}"):
        MODEL.generate(bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=f"prompt 1: expected bytes.*{got}"):
        MODEL.generate_batch([b"", bad])  # pyright: ignore[reportArgumentType]


def test_every_buffer_of_bytes_is_read_as_its_bytes() -> None:
    """Oracle: the same bytes as `bytes`; also backwards, where memory is not in their order."""
    array = np.frombuffer(b"lleh oS", np.uint8)[::-1]
    same = [b"So hell", bytearray(b"So hell"), memoryview(b"lleh oS")[::-1], array]
    session = MODEL.session(rows=4)
    session.push(same)  # pyright: ignore[reportArgumentType]
    assert (session.log_probs() == session.log_probs()[:1]).all()
    assert len({b"".join(MODEL.generate(prompt, max_new_bytes=9)) for prompt in same}) == 1


def test_a_snapshot_of_another_model_is_refused_and_nothing_changes() -> None:
    session, other = MODEL.session(), LanguageModel(ngram()).session()
    session.push([b"Call"])
    before = session.log_probs()
    with pytest.raises(ValueError, match="snapshot is of another model"):
        session.rollback(0, other.snapshot(0))
    np.testing.assert_array_equal(session.log_probs(), before)
    again = MODEL.session()
    again.rollback(0, session.snapshot(0))
    np.testing.assert_array_equal(again.log_probs(), before)


def test_drawn_seeds_are_exact_in_float64() -> None:
    drawn = [new_seed() for _ in range(200)]
    assert all(int(float(seed)) == seed < 2**53 for seed in drawn)
    assert max(drawn) > 2**50

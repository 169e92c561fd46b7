"""The public surface on bytes: arguments, stop sequences, progress, loading."""

from pathlib import Path

import numpy as np
import pytest

import bytelm
from bytelm.config import load
from bytelm.errors import CheckpointError
from bytelm.language_model import LanguageModel
from bytelm.training.run import RunConfig, train
from conftest import TEXT, byte_gpt, ngram


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel(ngram())


def text(model: LanguageModel, **options: object) -> bytes:
    return b"".join(model.generate(b"Call ", **options))  # pyright: ignore[reportArgumentType]


def test_exactly_the_asked_number_of_bytes(model: LanguageModel) -> None:
    assert [len(text(model, max_new_bytes=n)) for n in (0, 1, 77)] == [0, 1, 77]


def test_a_stop_sequence_ends_the_text_and_is_not_part_of_it(model: LanguageModel) -> None:
    whole = text(model, max_new_bytes=60, temperature=0)
    stop = whole[20:25]
    expected = whole[: whole.index(stop)]
    assert text(model, max_new_bytes=60, temperature=0, stop=(stop,)) == expected
    assert text(model, max_new_bytes=60, temperature=0, stop=(b"never",)) == whole


def test_seeds(model: LanguageModel) -> None:
    assert text(model, seed=1) == text(model, seed=1) != text(model, seed=2)
    assert text(model, seed=None) != text(model, seed=None)


def test_arguments_out_of_range(model: LanguageModel) -> None:
    with pytest.raises(
        ValueError, match="max_new_bytes must be a whole number, at least 0, got -1"
    ):
        model.generate(max_new_bytes=-1)
    with pytest.raises(ValueError, match="byte strings that are not empty"):
        model.generate(stop=(b"",))
    with pytest.raises(ValueError, match="rows must be a whole number, at least 1, got 0"):
        model.session(rows=0)
    with pytest.raises(ValueError, match="one piece for each of 2 rows, got 1 pieces"):
        model.session(rows=2).push([b"a"])
    with pytest.raises(ValueError, match=r"an array uint8 \[n\], got an array float64 \[3\]"):
        model.log_probs(np.zeros(3))


def test_progress_counts_every_byte() -> None:
    seen: list[int] = []
    LanguageModel(byte_gpt(False, window=16)).score(TEXT * 40, on_progress=seen.append)
    assert sum(seen) == len(TEXT) * 40
    assert len(seen) > 1


def test_bytes_bytearray_memoryview_and_array_are_the_same(model: LanguageModel) -> None:
    array = np.frombuffer(TEXT, np.uint8)
    wanted = model.bits_per_byte(TEXT)
    assert {model.bits_per_byte(x) for x in (bytearray(TEXT), memoryview(TEXT), array)} == {wanted}


def test_load_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        bytelm.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        bytelm.load(tmp_path)


def test_load_says_how_a_directory_of_transformers_becomes_a_run(tmp_path: Path) -> None:
    """A run that was stopped has a config.json too, of no such key."""
    (tmp_path / "config.json").write_text('{"model_type": "blt"}')
    with pytest.raises(CheckpointError, match=f"`bytelm import {tmp_path} RUN`"):
        bytelm.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model": {"kind": "blt"}}')
    with pytest.raises(CheckpointError, match="was the run stopped"):
        bytelm.load(tmp_path)


def test_a_trained_and_loaded_model_reads_any_chunks_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 4 where it is hardest: at a recipe's size, with log-probabilities far from 0."""
    monkeypatch.setenv("BYTELM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text").write_bytes(TEXT * 300)
    settings = {
        "data.paths": (str(tmp_path / "text"),),
        "training.steps": 40,
        "entropy.recipe.training.steps": 10,
        "hardware.threads": 1,
    }
    train(load(RunConfig, "blt-tiny", settings), tmp_path / "run", progress=False)
    model = bytelm.load(tmp_path / "run")
    data = bytes(reversed(TEXT)) + TEXT
    whole, session = model.log_probs(data), model.session()
    assert whole.min() < -10
    for t in range(len(data)):
        np.testing.assert_allclose(session.log_probs()[0], whole[t], atol=2e-6)
        session.push([data[t : t + 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_buckets": 10**9}, "defines a model of"),
        ({"n_heads": 0}, "does not define a model|n_heads"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_hostile_definition_is_refused_before_memory_is_asked_for(
    tmp_path: Path, change: dict, message: str
) -> None:
    from bytelm.models import definition
    from bytelm.training import checkpoints

    model = byte_gpt(False, window=16)
    stored = definition(model)
    stored["model"] |= change
    folder = checkpoints.save(
        tmp_path,
        step=1,
        definition=stored,
        model=model.state_dict(),
        optimizer={},
        state={},
    )
    with pytest.raises(bytelm.BytelmError, match=message):
        bytelm.load(folder)

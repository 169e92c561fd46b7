"""Oracles: cross-entropy by hand, and a model's prediction of a whole document at once."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from toy import CPU, ToyLM

from bytelm.data import from_documents
from bytelm.errors import RunError
from bytelm.models import Ngram, NgramConfig
from bytelm.training import validation
from bytelm.training.validation import Validation, sample_documents, streamed_bits_per_byte

DOCUMENTS = [b"the cat sat on the mat. " * n for n in (3, 7, 1, 5)] + [b""]


class Uniform(nn.Module):
    """Every id is equally likely."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*ids.shape, 260)


@pytest.mark.parametrize("context_bytes", [8, 64, 10_000])
@pytest.mark.parametrize("max_bytes", [1, 100, 10_000])
def test_a_uniform_model_costs_the_logarithm_of_the_vocabulary(context_bytes, max_bytes) -> None:
    measure = Validation(
        from_documents(DOCUMENTS), context_bytes=context_bytes, max_bytes=max_bytes
    )
    value = measure.bits_per_byte(Uniform(), rows=2, device=CPU, dtype=None)
    assert value == pytest.approx(math.log2(260), rel=1e-6)


def test_it_is_the_same_each_time_in_pieces_of_any_size_and_leaves_the_mode() -> None:
    model = ToyLM(dropout=0.5).train()
    measure = Validation(from_documents(DOCUMENTS), context_bytes=16, max_bytes=200)
    values = {measure.bits_per_byte(model, rows=5, device=CPU, dtype=None) for _ in range(2)}
    assert len(values) == 1
    one_by_one = measure.bits_per_byte(model, rows=1, device=CPU, dtype=None)
    assert one_by_one == pytest.approx(values.pop())
    assert model.training


def test_broken_weights_are_an_error() -> None:
    model = ToyLM()
    nn.init.constant_(model.head.bias, float("nan"))
    measure = Validation(from_documents(DOCUMENTS), context_bytes=16, max_bytes=99)
    with pytest.raises(RunError, match="broken"):
        measure.bits_per_byte(model, rows=4, device=CPU, dtype=None)


@pytest.mark.parametrize("read_bytes", [1, 7, 4096])
def test_streamed_is_the_prediction_of_whole_documents(
    read_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "READ_BYTES", read_bytes)
    corpus = from_documents(DOCUMENTS)
    model = Ngram.fit(NgramConfig(order=2), corpus)
    nats = 0.0
    for document in corpus:
        log_probs, _ = model.predict(document, document[:0])
        nats -= sum(log_probs[i, byte] for i, byte in enumerate(document))
    expected = nats / math.log(2) / corpus.num_bytes
    got = streamed_bits_per_byte(model, corpus, max_bytes=10_000)
    assert got == pytest.approx(expected, rel=1e-5)


def test_the_sample_is_fixed_and_ends_at_the_limit() -> None:
    corpus = from_documents(DOCUMENTS)
    first, second = (b"".join(map(bytes, sample_documents(corpus, 100))) for _ in range(2))
    assert first == second
    assert len(first) == 100
    assert sum(map(len, sample_documents(corpus, 10**6))) == corpus.num_bytes
    assert all(isinstance(d, np.ndarray) for d in sample_documents(corpus, 5))

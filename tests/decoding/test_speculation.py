"""Speculation gives, byte for byte, what plain decoding gives: the oracle is plain decoding."""

import copy
import itertools

import numpy as np
import pytest
import torch

from bytelm.decoding.session import Session
from bytelm.decoding.speculation import _Speculator, speculate
from bytelm.models import BLT, ByteModel
from conftest import CONTEXT, TEXT


def greedy(log_probs: np.ndarray, text: bytearray) -> int:
    return int(log_probs.argmax())


def sampled(log_probs: np.ndarray, text: bytearray) -> int:
    noise = np.random.default_rng([7, len(text)]).gumbel(size=256)
    return int((log_probs.astype(np.float64) / 0.7 + noise).argmax())


def plain(model: ByteModel, prompt: bytes, choose, count: int) -> bytes:
    session, text = Session(model), bytearray(prompt)
    session.push([prompt])
    for _ in range(count):
        text.append(choose(session.log_probs()[0], text))
        session.push([bytes(text[-1:])])
    return bytes(text[len(prompt) :])


@pytest.mark.parametrize(("choose", "draft_bytes"), [(greedy, 7), (sampled, 2), (sampled, 24)])
def test_the_text_is_that_of_plain_decoding(patched_model: BLT, choose, draft_bytes: int) -> None:
    model = copy.deepcopy(patched_model).double()
    for prompt, count in ((b"", 2 * CONTEXT), (TEXT[: CONTEXT + 5], 20)):
        expected = plain(model, prompt, choose, count)
        found = speculate(
            model, prompt, choose=choose, max_new_bytes=count, draft_bytes=draft_bytes
        )
        assert bytes(found) == expected


def test_a_prefix_is_the_prefix(patched_model: BLT) -> None:
    model = copy.deepcopy(patched_model).double()
    whole = bytes(speculate(model, b"So", choose=sampled, max_new_bytes=60))
    for count in (0, 1, 2, 31):
        assert bytes(speculate(model, b"So", choose=sampled, max_new_bytes=count)) == whole[:count]
    taken = itertools.islice(speculate(model, b"So", choose=sampled, max_new_bytes=60), 17)
    assert bytes(taken) == whole[:17]


def test_without_numpy_steps(patched_model: BLT, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where every step is torch's."""
    model = copy.deepcopy(patched_model).double()
    expected = plain(model, TEXT[:20], sampled, 60)
    monkeypatch.setattr("bytelm.decoding.speculation.blt_stepper", lambda *_: None)
    monkeypatch.setattr("bytelm.decoding.reader.blt_stepper", lambda *_: None)
    monkeypatch.setattr("bytelm.decoding.segmenter.stack_stepper", lambda *_: None)
    assert bytes(speculate(model, TEXT[:20], choose=sampled, max_new_bytes=60)) == expected


def test_drafts_are_kept_across_patches(patched_model: BLT) -> None:
    """A chooser that does not look keeps every draft: one cycle closes several patches."""

    def fixed(log_probs: np.ndarray, text: bytearray) -> int:
        return TEXT[len(text) % len(TEXT)]

    model = copy.deepcopy(patched_model).double()
    speculator = _Speculator(model, b"", fixed, 24)
    assert bytes(speculator.run(100)) == TEXT[:100]
    assert speculator._kept > 10
    with torch.inference_mode():
        last = speculator._reader.read_all(np.frombuffer(TEXT[99:101], np.uint8))
    alone = Session(model)
    alone.push([TEXT[:101]])
    np.testing.assert_allclose(last.log_probs[0].numpy(), alone.log_probs()[0], atol=1e-5)


def test_a_model_without_patches_is_refused(full_attention_model: ByteModel) -> None:
    if isinstance(full_attention_model, BLT):
        with pytest.raises(ValueError, match="draft_bytes must be 2 to 64, got 1"):
            speculate(full_attention_model, b"", choose=greedy, max_new_bytes=3, draft_bytes=1)
    else:
        with pytest.raises(ValueError, match="no patches"):
            speculate(full_attention_model, b"", choose=greedy, max_new_bytes=3)

"""The laws of the design, over every model, every patcher, random and trained weights.

Law 5's floor on random bytes and law 7 (resume) are in `training/`, law 8 beside each loader.
"""

import copy
import io
import math

import numpy as np
import pytest
import torch

from bytelm.compression import Options, compress, decompress, describe
from bytelm.compression.container import FRAME_HEADER_BYTES
from bytelm.compression.models import codec_model
from bytelm.language_model import LanguageModel
from bytelm.models import BLT, ByteGPT, ByteModel, EntropyLM, Recurrent
from bytelm.nn.hash_ngrams import HashNgrams
from bytelm.vocab import BOE, NUM_BYTES, OFFSET
from conftest import CONTEXT, TEXT, as_array, as_ids

Neural = BLT | ByteGPT | EntropyLM | Recurrent

FP32, FP64 = 1e-5, 1e-9
"""How far a stepwise reading may be from a whole one, in log-probability."""


def changed(data: bytes, position: int) -> bytes:
    """Other bytes from `position` on."""
    return data[:position] + bytes((byte * 7 + 13) % 256 for byte in data[position:])


# Law 1: causal.


@pytest.mark.parametrize("position", [1, 2, 17, CONTEXT - 1, CONTEXT, 3 * CONTEXT + 5])
def test_later_bytes_change_no_earlier_prediction(any_model: ByteModel, position: int) -> None:
    model = LanguageModel(any_model)
    before, after = model.log_probs(TEXT), model.log_probs(changed(TEXT, position))
    # Row t predicts byte t from the bytes before it: row `position` saw none of the change.
    np.testing.assert_allclose(before[: position + 1], after[: position + 1], atol=FP32)
    assert np.abs(before[position + 1 :] - after[position + 1 :]).max() > FP32


@pytest.mark.parametrize("position", [0, 3, 20, CONTEXT - 2])
def test_later_ids_change_no_earlier_logit_of_the_training_forward(
    neural_model: Neural, position: int
) -> None:
    model = neural_model
    ids, other = as_ids(TEXT[: CONTEXT - 1]), as_ids(changed(TEXT[: CONTEXT - 1], position))
    with torch.no_grad():
        torch.testing.assert_close(
            model(ids)[:, : position + 1], model(other)[:, : position + 1], atol=FP32, rtol=0
        )


@pytest.mark.parametrize("position", [0, 1, 9, 30])
def test_gradient_to_later_embeddings_is_zero(neural_model: Neural, position: int) -> None:
    model = copy.deepcopy(neural_model)
    embedded: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        output = output.detach().requires_grad_()
        embedded.append(output)
        return output

    for module in model.modules():
        if module is model.embed or isinstance(module, HashNgrams):
            module.register_forward_hook(keep)
    model(as_ids(TEXT[:40]))[0, position].square().sum().backward()
    assert embedded
    for grad in (output.grad for output in embedded):
        assert grad is not None
        assert (grad[position + 1 :] == 0).all()
        assert (grad[position] != 0).any()


# Law 2: prefix-stable patching.


def test_patch_starts_of_a_prefix_are_a_prefix_of_the_patch_starts(any_model: ByteModel) -> None:
    model = LanguageModel(any_model)
    whole = model.patch_starts(TEXT)
    assert whole[0]
    for end in (1, 2, 3, 16, 17, 31, CONTEXT, CONTEXT + 1, 100, len(TEXT)):
        np.testing.assert_array_equal(model.patch_starts(TEXT[:end]), whole[:end])


def test_training_rows_are_patched_as_the_same_bytes_read_alone(patched_model: BLT) -> None:
    data = TEXT[: CONTEXT - 1]
    row = patched_model.patch(as_ids(data))[0].numpy()
    ahead = LanguageModel(patched_model).patch_starts(data + b"?")
    # The row begins with BOS, a patch of its own; its last flag is of the byte after the row.
    np.testing.assert_array_equal(row[1:], ahead)
    assert row[0]


# Law 3: a row is alone.


def test_a_row_does_not_depend_on_its_mates_or_on_padding(neural_model: Neural) -> None:
    model = neural_model
    ids = as_ids(TEXT[:30])
    mates = torch.stack([as_ids(TEXT[n : n + 40])[0] for n in (50, 90, 130)])
    padded = torch.nn.functional.pad(ids, (0, 10), value=BOE)
    with torch.no_grad():
        alone = model(ids)
        batched = model(torch.cat((mates[:1], padded, mates[1:])))
    torch.testing.assert_close(batched[1:2, :31], alone, atol=FP32, rtol=0)


def test_session_rows_do_not_depend_on_each_other(any_model: ByteModel) -> None:
    """Exactly in float64, what `bytelm.load` computes in; within rounding in float32."""
    for model, tolerance in (
        (LanguageModel(copy.deepcopy(any_model).double()), 0.0),
        (LanguageModel(any_model), FP32),
    ):
        texts = [TEXT[:70], b"", TEXT[100:133]]
        session = model.session(rows=3)
        session.push([texts[0][:5], b"", texts[2][:33]])
        session.push([texts[0][5:], b"", b""])
        for row, text in enumerate(texts):
            alone = model.session(rows=1)
            cut = (5, 0, 33)[row]
            alone.push([text[:cut]])
            alone.push([text[cut:]])
            own, expected = session.log_probs()[row], alone.log_probs()[0]
            np.testing.assert_allclose(own, expected, atol=tolerance, rtol=0)
            assert session.starts()[row] == alone.starts()[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_step_together_are_each_as_if_alone(
    any_model: ByteModel, dtype: torch.dtype
) -> None:
    """Ragged rows, stepping past windows and contexts, some pausing, one replaced midway."""
    model = LanguageModel(copy.deepcopy(any_model).to(dtype))
    texts = [TEXT, TEXT[31:], TEXT[77:] + TEXT[:50]]
    session, read = model.session(rows=3), [0, 0, 0]
    session.push([texts[0][:9], b"", texts[2][:2]])
    read = [9, 0, 2]
    generator = np.random.default_rng(5)
    for step in range(110):
        sizes = generator.integers(0, 2, 3)
        if step == 60:
            session.restart(1)
            read[1] = 0
        session.push([texts[i][read[i] : read[i] + size] for i, size in enumerate(sizes)])
        read = [min(len(texts[i]), read[i] + int(size)) for i, size in enumerate(sizes)]
        if step % 27 == 0 or step > 105:
            for row, text in enumerate(texts):
                expected = model.log_probs(text[: read[row]] + b"?")[-1]
                tolerance = FP32 if dtype == torch.float32 else FP64 + 1e-7
                np.testing.assert_allclose(
                    session.log_probs()[row], expected, atol=tolerance, rtol=1e-6
                )
                assert session.starts()[row] == model.patch_starts(text[: read[row]] + b"?")[-1]


def test_forked_and_restored_rows_go_on_as_the_row_they_came_from(any_model: ByteModel) -> None:
    model = LanguageModel(copy.deepcopy(any_model).double())
    session = model.session(rows=2)
    session.push([TEXT[:61], TEXT[90:95]])
    early = session.snapshot(0)
    session.push([TEXT[61:80], b""])
    session.select([0, 1, 0])
    session.push([b"x", b"y", TEXT[80:150]])
    session.rollback(1, early)
    expected = [TEXT[:80] + b"x", TEXT[:61], TEXT[:150]]
    for more in (b"", b"q", TEXT[5:60]):
        session.push([more] * 3)
        expected = [text + more for text in expected]
        for row, text in enumerate(expected):
            alone = model.log_probs(text + b"?")[-1]
            np.testing.assert_allclose(session.log_probs()[row], alone, atol=1e-6, rtol=1e-6)
            assert session.starts()[row] == model.patch_starts(text + b"?")[-1]


# Law 4: step == forward.


def stepwise(model: LanguageModel, data: bytes, pieces: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and starts of every byte, reading in pieces of the given sizes."""
    log_probs, starts, read = [], [], 0
    session = model.session(rows=1)
    for size in pieces:
        log_probs.append(session.log_probs()[0])
        starts.append(bool(session.starts()[0]))
        session.push([data[read : read + size]])
        read += size
    return np.stack(log_probs), np.array(starts)


def test_byte_by_byte_equals_the_whole(any_model: ByteModel) -> None:
    model = LanguageModel(any_model)
    log_probs, starts = stepwise(model, TEXT, [1] * len(TEXT))
    np.testing.assert_allclose(log_probs, model.log_probs(TEXT), atol=FP32)
    np.testing.assert_array_equal(starts, model.patch_starts(TEXT))


@pytest.mark.parametrize("seed", range(3))
def test_any_chunked_prefill_equals_the_whole(any_model: ByteModel, seed: int) -> None:
    model = LanguageModel(any_model)
    pieces = np.random.default_rng(seed).integers(0, 60, 12).tolist()
    at = np.minimum(np.cumsum([0, *pieces[:-1]]), len(TEXT) - 1)
    keep = np.cumsum([0, *pieces[:-1]]) < len(TEXT)
    log_probs, starts = stepwise(model, TEXT, pieces)
    np.testing.assert_allclose(log_probs[keep], model.log_probs(TEXT)[at][keep], atol=FP32)
    np.testing.assert_array_equal(starts[keep], model.patch_starts(TEXT)[at][keep])


def test_reading_equals_the_training_forward(neural_model: Neural) -> None:
    """In float32 and float64, against the batched forward over one row."""
    data = TEXT[: CONTEXT - 1]
    for dtype, tolerance in ((torch.float32, FP32), (torch.float64, FP64)):
        model = copy.deepcopy(neural_model).to(dtype)
        with torch.no_grad():
            logits = model(as_ids(data))[0, :-1, OFFSET:]
        expected = logits.log_softmax(-1).numpy()
        pieces = stepwise_rows(model, data)
        np.testing.assert_allclose(pieces, expected, atol=tolerance)


def stepwise_rows(model: torch.nn.Module, data: bytes) -> np.ndarray:
    """Log-probabilities byte by byte in the model's own precision."""
    from bytelm.decoding.reader import Reader

    reader = Reader(model)
    rows = [reader.begin().log_probs]
    rows += [reader.read([as_array(data[i : i + 1])]).log_probs for i in range(len(data) - 1)]
    return torch.cat(rows).numpy()


def test_full_attention_reads_the_window_that_the_design_states(
    full_attention_model: BLT | ByteGPT,
) -> None:
    """Row t of a full-attention model sees data[a:t], a = max(0, (t // h - 1) * h)."""
    model, half = LanguageModel(full_attention_model), CONTEXT // 2
    whole, starts = model.log_probs(TEXT), model.patch_starts(TEXT)
    for t in (0, 1, half, CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * half - 1, 3 * half, 150):
        begin = max(0, (t // half - 1) * half)
        ids = as_ids(TEXT[begin:t])
        with torch.no_grad():
            if isinstance(full_attention_model, BLT):
                flags = np.concatenate(([True, True], starts[begin + 1 : t + 1]))[: t - begin + 2]
                logits = full_attention_model(ids, torch.from_numpy(flags)[None])
            else:
                logits = full_attention_model(ids)
        expected = logits[0, -1, OFFSET:].log_softmax(-1).numpy()
        np.testing.assert_allclose(whole[t], expected, atol=FP32)


# Law 5: bits per raw byte.


def test_log_probs_are_normalized_over_the_byte_values(any_model: ByteModel) -> None:
    log_probs = LanguageModel(any_model).log_probs(TEXT)
    assert log_probs.shape == (len(TEXT), NUM_BYTES)
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(np.exp(log_probs.astype(np.float64)).sum(1), 1, atol=1e-5)


def test_bits_per_byte_is_the_mean_over_every_byte_once(any_model: ByteModel) -> None:
    model = LanguageModel(any_model)
    log_probs = model.log_probs(TEXT).astype(np.float64)
    nats = -log_probs[np.arange(len(TEXT)), as_array(TEXT)].sum()
    assert model.bits_per_byte(TEXT) == pytest.approx(nats / math.log(2) / len(TEXT), abs=1e-6)
    assert len(model.score(TEXT).nll_nats) == len(TEXT)


def test_empty_data(any_model: ByteModel) -> None:
    model = LanguageModel(any_model)
    assert model.log_probs(b"").shape == (0, NUM_BYTES)
    assert model.bits_per_byte(b"") == 0.0
    assert model.patch_starts(b"").shape == (0,)
    assert model.entropies(b"").shape == (0,)


def test_entropies_are_those_that_decide(any_model: ByteModel) -> None:
    model = LanguageModel(any_model)
    entropies, starts = model.entropies(TEXT), model.patch_starts(TEXT)
    assert entropies.dtype == np.float32
    if not isinstance(any_model, BLT):
        assert starts.all()
    elif any_model.patcher.kind == "entropy" and any_model.patcher.limits == (1, None):
        patcher, chosen = any_model.patcher, np.ones(len(TEXT) - 1, bool)
        if patcher.threshold is not None:
            chosen &= entropies[1:] > patcher.threshold
        if patcher.relative_threshold is not None:
            chosen &= np.diff(entropies) > patcher.relative_threshold
        np.testing.assert_array_equal(starts[1:], chosen)


# Law 6: what a model's codec writes has the size that `bits_per_byte` says, and comes back.


def test_a_model_alone_codes_at_its_bits_per_byte(any_model: ByteModel) -> None:
    """Float profile, through windows, contexts and lanes that end at different steps."""
    assert len(TEXT) > 3 * CONTEXT
    assert len(TEXT) % 3
    assert_codes_at_bits_per_byte(any_model, TEXT, lanes=3)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 16])
def test_a_model_alone_codes_long_text_at_its_bits_per_byte(
    any_model: ByteModel, lanes: int
) -> None:
    words = TEXT.split()
    order = np.random.default_rng(0).integers(0, len(words), 300)
    assert_codes_at_bits_per_byte(any_model, b" ".join(words[i] for i in order), lanes)


def assert_codes_at_bits_per_byte(model: ByteModel, data: bytes, lanes: int) -> None:
    codec = codec_model(model, profile="float")
    blob = compress(data, model=codec, options=Options(mode="model", lanes=lanes, verify=False))
    assert decompress(blob, model=codec) == data
    (frame,) = describe(io.BytesIO(blob)).frames
    assert (frame.mode, frame.lanes) == ("model", lanes)
    expected = LanguageModel(model).bits_per_byte(data, lanes=lanes) * len(data) / 8
    size = frame.compressed_bytes - FRAME_HEADER_BYTES
    assert size == pytest.approx(expected, rel=1e-3, abs=2)


# Generation follows the same predictions.


def test_greedy_text_is_the_argmax_of_its_own_predictions(any_model: ByteModel) -> None:
    model = LanguageModel(any_model)
    text = b"".join(model.generate(TEXT[:20], max_new_bytes=60, temperature=0))
    assert len(text) == 60
    rows = model.log_probs(TEXT[:20] + text)[20:]
    best = rows.max(1) - rows[np.arange(60), as_array(text)]
    assert best.max() < 1e-4

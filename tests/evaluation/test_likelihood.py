"""Oracles: closed-form models, figures computed by hand, law 5."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.evaluation.compressors import CompressorResult
from bytelm.evaluation.likelihood import bits_per_byte, evaluate


@dataclass
class FakeScored:
    nll_nats: np.ndarray
    entropies: np.ndarray
    starts: np.ndarray


@dataclass
class Constant:
    """Every byte costs `bits`; a patch starts at every `patch_size`-th byte."""

    bits: float = 8.0
    patch_size: int = 4

    def score(self, data, *, on_progress=None):
        if on_progress is not None and len(data):
            on_progress(len(data) // 2)
            on_progress(len(data) - len(data) // 2)
        nll = np.full(len(data), self.bits * math.log(2), dtype=np.float32)
        return FakeScored(nll, nll, np.arange(len(data)) % self.patch_size == 0)


class ByteCosts:
    """Byte value v costs v bits: documents differ."""

    def score(self, data, *, on_progress=None):
        nll = (data * math.log(2)).astype(np.float32)
        return FakeScored(nll, nll, np.ones(len(data), dtype=bool))


def _document(name: str, data: bytes) -> tuple[str, np.ndarray]:
    return name, np.frombuffer(data, dtype=np.uint8)


def test_bits_per_byte_by_hand():
    assert bits_per_byte(16 * math.log(2), 2) == pytest.approx(8)
    # One byte at probability 1/2, one at 1/8: (1 + 3) / 2 bits.
    assert bits_per_byte(-math.log(1 / 2) - math.log(1 / 8), 2) == pytest.approx(2)
    assert bits_per_byte(0.0, 0) == 0.0


def test_uniform_model_costs_8_bits_and_counts_patches():
    result = evaluate(Constant(), [_document("a", b"x" * 10), _document("b", b"y" * 6)])
    assert result.bits_per_byte == pytest.approx(8)
    assert result.bytes_scored == 16
    assert result.mean_patch_bytes == pytest.approx(16 / 5)  # 3 + 2 patches
    assert result.patches_per_byte == pytest.approx(5 / 16)
    assert result.interval == pytest.approx((8, 8))


def test_total_is_the_ratio_of_sums_not_the_mean_of_ratios():
    result = evaluate(ByteCosts(), [_document("a", b"\x02" * 90), _document("b", b"\x07" * 10)])
    assert result.bits_per_byte == pytest.approx(0.9 * 2 + 0.1 * 7)
    assert [row.bits_per_byte for row in result.per_document] == pytest.approx([2, 7])
    assert "2 documents, so few" in result.interval_method


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_every_byte_is_scored_once(contents):
    result = evaluate(Constant(bits=3.0), [_document("d", data) for data in contents])
    total = sum(map(len, contents))
    assert result.bytes_scored == total == sum(row.num_bytes for row in result.per_document)
    assert len(result.per_document) == len(contents)
    assert result.bits_per_byte == pytest.approx(3.0 if total else 0.0)


def test_a_model_that_skips_a_byte_is_refused():
    class Skips(Constant):
        def score(self, data, *, on_progress=None):
            return super().score(data[1:])

    with pytest.raises(AssertionError, match="3 bytes"):
        evaluate(Skips(), [_document("a", b"abc")])


def test_one_document_resamples_its_blocks_and_says_so():
    data = np.random.default_rng(0).integers(0, 9, size=20 * 4096 + 5, dtype=np.uint8)
    result = evaluate(ByteCosts(), [("a", data), _document("empty", b"")])
    low, high = result.interval
    assert low < result.bits_per_byte < high
    # The mean of 82,000 independent costs of standard deviation 2.58.
    assert high - low == pytest.approx(2 * 1.96 * 2.58 / math.sqrt(len(data)), rel=0.5)
    assert "21 blocks of 4096 bytes of one document" in result.interval_method


@pytest.mark.parametrize(("size", "has_interval"), [(0, False), (1, False), (2, True)])
def test_tiny_documents(size, has_interval):
    result = evaluate(Constant(), [_document("a", b"x" * size)])
    assert (result.interval is not None) is has_interval
    assert result.bits_per_byte == pytest.approx(8.0 if size else 0.0)


def test_progress_counts_bytes_over_all_documents():
    seen: list[int] = []
    documents = [_document("a", b"x" * 10), _document("b", b""), _document("c", b"y" * 4)]
    evaluate(Constant(), documents, on_progress=seen.append)
    assert seen == [5, 5, 2, 2]


def _xz(bits: float) -> CompressorResult:
    return CompressorResult(
        name="xz -9e", bytes=100, bits_per_byte=bits, per_file_bits_per_byte=bits, parameters=""
    )


def test_a_figure_below_half_of_the_best_compressor_is_flagged():
    documents = [_document("a", b"x" * 100)]
    flagged = evaluate(Constant(bits=0.9), documents, compressors=[_xz(2.0)])
    assert "below half of xz -9e (2.000)" in flagged.warnings[0]
    # It names a check that can be made, and only verbs that exist.
    assert "was this text, or a copy of it, in the training data?" in flagged.warnings[0]
    assert set(re.findall(r"`bytelm (\w+)`", flagged.warnings[0])) == {"evaluate"}
    assert evaluate(Constant(bits=1.1), documents, compressors=[_xz(2.0)]).warnings == ()
    assert evaluate(Constant(bits=0.9), documents).warnings == ()


def test_flops_are_passed_on():
    assert evaluate(Constant(), [], flops_per_byte=12.5).flops_per_byte == 12.5

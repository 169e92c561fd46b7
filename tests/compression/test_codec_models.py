"""Models as codecs. Oracles: their probabilities, NumPy's integer model, the bytes themselves."""

import copy
import io
import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import conftest
from bytelm.compression import (
    Options,
    Profile,
    compress,
    compress_stream,
    decompress,
    decompress_stream,
    describe,
    salvage,
)
from bytelm.compression.container import FRAME_HEADER_BYTES
from bytelm.compression.frames import lane_begins
from bytelm.compression.integer_model import NumpyModel
from bytelm.compression.models import codec_model, shares, to_frequencies
from bytelm.errors import (
    CompressionError,
    DamagedError,
    EnvironmentMismatchError,
    WrongModelError,
)
from bytelm.language_model import LanguageModel
from bytelm.models import Ngram, NgramConfig
from conftest import TEXT, as_array

DATA = TEXT * 3 + TEXT[::-1]
FRAME = 1024


@pytest.fixture(scope="module")
def ngram():
    return conftest.ngram()


@pytest.fixture(scope="module")
def recurrent():
    with torch.random.fork_rng():
        return conftest.recurrent(True)


@pytest.fixture(scope="module")
def exact_models(ngram, recurrent):
    return {"ngram": codec_model(ngram), "recurrent": codec_model(recurrent)}


def payload_bytes(blob: bytes) -> int:
    frames = describe(io.BytesIO(blob)).frames
    return sum(frame.compressed_bytes - FRAME_HEADER_BYTES for frame in frames)


# Law 6, the profile exact.


@pytest.mark.parametrize("lanes", [1, 3, 50])
def test_counts_alone_code_at_their_bits_per_byte(ngram, lanes):
    codec = codec_model(ngram)
    assert codec.profile is Profile.EXACT
    blob = compress(DATA, model=codec, options=Options(mode="model", lanes=lanes))
    assert decompress(blob, model=codec) == DATA
    expected = LanguageModel(ngram).bits_per_byte(DATA, lanes=lanes) * len(DATA) / 8
    assert payload_bytes(blob) == pytest.approx(expected, rel=1e-3, abs=2)


@pytest.mark.parametrize("lanes", [1, 7])
def test_an_integer_model_alone_codes_at_the_bits_of_its_own_frequencies(recurrent, lanes):
    """By the NumPy version, which shares no line with the kernels; and close to the floats."""
    codec = codec_model(recurrent)
    assert codec.profile is Profile.EXACT
    data = TEXT * (1 if lanes == 1 else 4)
    blob = compress(data, model=codec, options=Options(mode="model", lanes=lanes))
    assert decompress(blob, model=codec) == data
    bits = 0.0
    for begin, end in itertools.pairwise(lane_begins(len(data), lanes).tolist()):
        oracle = NumpyModel(codec.integers, 1)
        for value in data[begin:end]:
            bits += 24 - math.log2(oracle.frequencies()[0, value])
            oracle.push(np.array([value], np.uint8))
    assert payload_bytes(blob) == pytest.approx(bits / 8, rel=1e-3, abs=2)
    floats = LanguageModel(recurrent).bits_per_byte(data, lanes=lanes) * len(data)
    assert bits == pytest.approx(floats, rel=0.02)


@pytest.mark.parametrize("mode", ["auto", "model", "mixed"])
@pytest.mark.parametrize("lanes", [None, 4, 256])
def test_exact_models_give_any_bytes_back(exact_models, mode, lanes):
    noise = np.random.default_rng(3).bytes(150)
    for codec in exact_models.values():
        for data in (b"", b"x", b"\xff\xfe\0", bytes(200), noise, DATA[-300:]):
            options = Options(mode=mode, lanes=lanes, frame_bytes=FRAME)
            blob = compress(data, model=codec, options=options)
            assert decompress(blob, model=codec) == data


def test_a_float_model_joins_the_mixer():
    model = conftest.byte_gpt(True, window=16)
    codec = codec_model(model)
    assert codec.profile is Profile.FLOAT
    blob = compress(TEXT, model=codec, options=Options(mode="mixed", lanes=4))
    found = describe(io.BytesIO(blob))
    assert found.frames[0].mode == "mixed"
    assert found.header.profile is Profile.FLOAT
    assert decompress(blob, model=codec) == TEXT
    for mode in ("auto", "mixed"):
        for data in (b"", b"a", TEXT[:40]):
            blob = compress(data, model=codec, options=Options(mode=mode))
            assert decompress(blob, model=codec) == data


def test_a_model_that_knows_the_text_makes_it_smaller(ngram):
    codec = codec_model(ngram)
    alone = compress(TEXT, options=Options(mode="mixer"))
    helped = compress(TEXT, model=codec)
    assert describe(io.BytesIO(helped)).frames[0].mode == "mixed"
    assert payload_bytes(helped) < 0.7 * payload_bytes(alone)


def test_a_model_that_knows_nothing_of_it_is_left_out_or_costs_little(ngram):
    data = bytes(range(256)) * 12
    codec = codec_model(ngram)
    assert payload_bytes(compress(data, model=codec)) <= 1.02 * payload_bytes(compress(data)) + 8


def test_progress_of_models_sums_to_the_raw_size(exact_models):
    for codec in exact_models.values():
        for mode in ("auto", "model", "mixed"):
            told, again, target = [], [], io.BytesIO()
            options = Options(mode=mode, lanes=5, frame_bytes=FRAME)
            compress_stream(
                io.BytesIO(DATA), target, model=codec, options=options, on_progress=told.append
            )
            decompress_stream(
                io.BytesIO(target.getvalue()), None, model=codec, on_progress=again.append
            )
            assert sum(told) == sum(again) == len(DATA)


def test_workers_change_no_byte_with_a_model(exact_models):
    for codec in exact_models.values():
        blobs = {
            compress(DATA, model=codec, options=Options(frame_bytes=FRAME, workers=workers))
            for workers in (1, 2, 3)
        }
        assert len(blobs) == 1


def test_summaries_tell_what_the_model_takes(ngram):
    codec = codec_model(ngram)
    summary = compress_stream(io.BytesIO(TEXT), io.BytesIO(), model=codec)
    assert summary.model_bytes == codec.num_bytes > 0
    modes = ("mixer", "zstd", "stored")
    for mode in modes:
        target = io.BytesIO()
        summary = compress_stream(io.BytesIO(TEXT), target, model=codec, options=Options(mode=mode))
        assert summary.model_bytes == 0
        assert decompress(target.getvalue()) == TEXT, "no model took part, and none is needed"


# Which model.


def test_the_container_names_its_model(ngram):
    codec = codec_model(ngram)
    found = describe(io.BytesIO(compress(TEXT, model=codec))).header
    assert found.profile is Profile.EXACT
    assert found.model is not None
    assert found.model.kind == "ngram"
    assert found.model.fingerprint == codec.fingerprint.hex()
    assert found.model.environment == {}


def test_no_model_or_another_one_is_refused_by_name(ngram, recurrent):
    codec = codec_model(ngram)
    blob = compress(TEXT, model=codec)
    other = Ngram.fit(NgramConfig(order=2), [as_array(TEXT)])
    wrong = {
        "needs a ngram with the fingerprint " + codec.fingerprint.hex(): None,
        "got a ngram with the fingerprint": codec_model(other),
        "got a recurrent": codec_model(recurrent),
        "got the profile float": codec_model(ngram, profile="float"),
    }
    for message, model in wrong.items():
        with pytest.raises(WrongModelError, match=message):
            decompress(blob, model=model)
        with pytest.raises(WrongModelError, match=message):
            salvage(io.BytesIO(blob), io.BytesIO(), model=model)
    for mode in ("model", "mixed"):
        with pytest.raises(WrongModelError, match="needs a model"):
            compress(TEXT, options=Options(mode=mode))


def test_fingerprints_are_of_all_that_predicts(recurrent):
    """The weights, the patcher, and the model that the patcher asks."""
    source = conftest.entropy_lm(True)
    patcher = conftest.entropy_patcher(source)
    base = conftest.blt(True, patcher, source)
    found = codec_model(base).fingerprint
    assert codec_model(copy.deepcopy(base)).fingerprint == found
    changed = copy.deepcopy(base)
    with torch.no_grad():
        changed.head.weight[3, 3] += 1e-3
    assert codec_model(changed).fingerprint != found
    other = conftest.blt(True, conftest.Static(patch_size=3), None)
    assert codec_model(other).fingerprint != found
    changed = copy.deepcopy(base)
    with torch.no_grad():
        changed.entropy_model.head.weight[3, 3] += 1e-3
    assert codec_model(changed).fingerprint != found
    limited = conftest.blt(
        True, conftest.entropy_patcher(source, min_patch_bytes=2, max_patch_bytes=5), source
    )
    assert codec_model(limited).fingerprint != found


def test_another_environment_is_refused_before_anything_is_decoded():
    codec = codec_model(conftest.byte_gpt(True, window=16))
    blob = compress(TEXT[:50], model=codec)

    class Elsewhere:
        """The same weights where they predict otherwise."""

        def __init__(self):
            self.environment = {**codec.environment, "torch": "9.9", "threads": 64}

        def __getattr__(self, name):
            return getattr(codec, name)

        def probe(self):
            return bytes(16)

        def coding(self, frame, mixer, *, decoding):
            raise AssertionError("nothing may be decoded")

    with pytest.raises(EnvironmentMismatchError, match=r"torch .* there, 9.9 here"):
        decompress(blob, model=Elsewhere())


def test_the_probe_is_of_the_arithmetic_at_this_number_of_threads():
    codec = codec_model(conftest.byte_gpt(True, window=16))
    before, threads = codec.probe(), torch.get_num_threads()
    assert codec.probe() == before
    assert len(before) == 16
    try:
        torch.set_num_threads(2)
        assert len(codec.probe()) == 16
    finally:
        torch.set_num_threads(threads)
    assert codec.probe() == before


def test_models_without_exact_arithmetic_say_so():
    with pytest.raises(CompressionError, match=r"byte-gpt.*no exact integer arithmetic"):
        codec_model(conftest.byte_gpt(True, window=16), profile="exact")


def test_a_model_that_does_not_repeat_itself_is_found_out(ngram):
    """Forced, the error is raised; chosen freely, the frame is kept without it."""
    codec = codec_model(ngram)

    class Moody:
        def __getattr__(self, name):
            return getattr(codec, name)

        def coding(self, frame, mixer, *, decoding):
            coding = codec.coding(frame, mixer, decoding=decoding)
            if decoding:
                coding._stepper._frequencies = coding._stepper._frequencies[:, ::-1].copy()
            return coding

    with pytest.raises(CompressionError, match="did not give the same bytes back"):
        compress(TEXT, model=Moody(), options=Options(mode="model"))
    blob = compress(TEXT, model=Moody())
    assert describe(io.BytesIO(blob)).frames[0].mode in ("zstd", "mixer", "stored")
    assert decompress(blob, model=codec) == TEXT


# Frequencies.


def test_frequencies_by_hand():
    row = np.zeros((1, 256))
    row[0, 7], row[0, 9] = 3, 1
    found = shares(row)[0]
    rest = 2**24 - 256
    assert found[9] == 1 + rest // 4
    assert found[7] == 1 + 3 * rest // 4
    assert found.sum() == 2**24
    assert set(np.delete(found, [7, 9])) == {1}


def test_frequencies_are_possible_for_any_log_probabilities():
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 40, (50, 256))
    rows[0] = -np.inf
    rows[1], rows[1, 200] = -np.inf, 0
    rows[2] = 0
    found = to_frequencies(rows.astype(np.float32))
    assert found.dtype == np.int32
    assert (found >= 1).all()
    assert (found.sum(1) == 2**24).all()
    assert found[1, 200] == 2**24 - 255
    assert (found[2] == 2**16).all()


# Hostile containers that name a model.


@pytest.mark.parametrize("mode", ["model", "mixed"])
def test_damage_in_a_model_frame_is_named(exact_models, mode):
    rng = np.random.default_rng(5)
    for codec in exact_models.values():
        good = compress(DATA[:300], model=codec, options=Options(mode=mode, lanes=2))
        for _ in range(60):
            blob = bytearray(good)
            blob[int(rng.integers(len(blob)))] ^= 1 << int(rng.integers(8))
            with pytest.raises(CompressionError):
                decompress(bytes(blob), model=codec)
        with pytest.raises(DamagedError):
            decompress(good[:-50], model=codec)


def test_salvage_with_a_model(exact_models):
    for codec in exact_models.values():
        blob = compress(DATA, model=codec, options=Options(mode="mixed", frame_bytes=FRAME))
        target = io.BytesIO()
        damaged = bytearray(blob)
        damaged[-60] ^= 1
        report = salvage(io.BytesIO(bytes(damaged)), target, model=codec)
        assert report.frames == tuple(range(-(-len(DATA) // FRAME) - 1))
        assert DATA.startswith(target.getvalue())
        # The header lost, frames that need a model are gaps with that reason.
        report = salvage(io.BytesIO(blob[100:]), io.BytesIO())
        assert report.frames == ()
        assert all("needs a model" in gap.reason for gap in report.gaps if gap.end is not None)


def test_the_default_codec_needs_no_torch():
    program = (
        "import sys, json\n"
        "import bytelm.compression as c\n"
        "assert c.decompress(c.compress(b'abc' * 99)) == b'abc' * 99\n"
        "print(json.dumps('torch' in sys.modules))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False


def test_language_models_compress_and_decompress(ngram):
    model = LanguageModel(ngram)
    blob = model.compress(TEXT, lanes=2, frame_bytes=FRAME)
    assert model.decompress(blob) == TEXT
    assert describe(io.BytesIO(blob)).header.profile is Profile.EXACT
    assert model.decompress(model.compress(TEXT, profile="float"), profile="float") == TEXT
    with pytest.raises(TypeError):
        model.compress(TEXT, lines=3)


def test_counts_of_order_zero():
    model = Ngram.fit(NgramConfig(order=0), [as_array(TEXT)])
    codec = codec_model(model)
    blob = compress(TEXT, model=codec, options=Options(mode="model", lanes=2))
    assert decompress(blob, model=codec) == TEXT
    expected = LanguageModel(model).bits_per_byte(TEXT, lanes=2) * len(TEXT) / 8
    assert payload_bytes(blob) == pytest.approx(expected, rel=1e-3, abs=2)


def test_a_run_that_a_model_is_sure_of_is_readable(ngram):
    data = bytes(400_000)
    model = codec_model(ngram)
    blob = compress(data, model=model, options=Options(mode="model", lanes=64, verify=False))
    assert decompress(blob, model=model) == data


def test_a_container_of_which_no_frame_needs_its_model_is_read_without_it(ngram):
    blob = compress(os.urandom(500), model=codec_model(ngram))
    assert describe(io.BytesIO(blob)).header.model is not None
    assert len(decompress(blob)) == 500

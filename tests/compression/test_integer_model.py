"""The integer model. Oracles: its second implementation, `math.isqrt`, the hashes of `nn`."""

import dataclasses
import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.compression import integer_kernels, integer_model
from bytelm.compression.integer_model import (
    IntegerArchitecture,
    IntegerModel,
    NumpyModel,
    known_answers,
)
from bytelm.compression.kernels import BACKEND
from bytelm.errors import CompressionError
from bytelm.nn.hash_ngrams import hash_windows, ngram_powers

SIZES = IntegerArchitecture(
    dim=18,
    n_layers=2,
    ffn_dim=11,
    ngram_sizes=(2, 3, 5),
    num_buckets=37,
    residual_bits=12,
    epsilon=5000,
)


def random_model(seed: int = 0, sizes: IntegerArchitecture = SIZES) -> IntegerModel:
    """Any integers of about the size that trained weights have."""
    random, tensors = np.random.default_rng(seed), {}
    scales = {"embed": 1 << 8, "ngrams": 1 << 15, "gates": 1 << 20, "up": 1 << 30}
    scales |= {"down": 1 << 29, "head": 1 << 23, "memory": 1 << 20}
    for name, (dtype, shape) in sizes.shapes().items():
        part, kind = name.split(".")[-2:]
        match kind:
            case "weight":
                most = np.iinfo(dtype).max
                values = random.integers(-most, most + 1, shape)
            case "bias":
                values = random.integers(0, integer_kernels._LAST_ENTRY << 32, shape)
            case _:
                values = random.integers(1, scales[part], shape)
        tensors[name] = values.astype(dtype)
    return IntegerModel(architecture=sizes, tensors=tensors)


MODEL = random_model()
TEXT = np.frombuffer(b"Call me \x00 Ishmael.\xff\xfe Some years ago, aaaaaaaaaa" * 2, np.uint8)


def kernel_rows(model: IntegerModel, values: np.ndarray) -> np.ndarray:
    """int32 `[T, L, 256]`: before each of the values `[T, L]`, lane after lane."""
    state = model.new_state(values.shape[1])
    rows = np.zeros((*values.shape, 256), np.int32)
    for step, lanes in enumerate(values.tolist()):
        for lane, value in enumerate(lanes):
            integer_kernels.predict(model.arrays, state, lane, rows[step, lane])
            integer_kernels.push(model.arrays, state, lane, value)
    return rows


def numpy_rows(model: IntegerModel, values: np.ndarray) -> np.ndarray:
    reader, rows = NumpyModel(model, values.shape[1]), []
    for lanes in values:
        rows.append(reader.frequencies())
        reader.push(lanes)
    return np.stack(rows)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
@settings(max_examples=25)
def test_kernels_and_numpy_agree(seed, lanes):
    random = np.random.default_rng(seed)
    sizes = dataclasses.replace(
        SIZES,
        dim=int(random.integers(1, 40)),
        ffn_dim=int(random.integers(1, 40)),
        n_layers=int(random.integers(1, 4)),
        ngram_sizes=tuple(random.choice(8, random.integers(0, 4), replace=False).tolist()),
        num_buckets=int(random.integers(1, 100)),
    )
    sizes = dataclasses.replace(sizes, ngram_sizes=tuple(1 + g for g in sizes.ngram_sizes))
    model = random_model(seed, sizes)
    values = random.integers(0, 256, (6, lanes)).astype(np.uint8)
    rows = kernel_rows(model, values)
    assert np.array_equal(rows, numpy_rows(model, values))
    assert (rows >= 1).all()
    assert (rows.sum(2, dtype=np.int64) == 1 << 24).all()


def test_a_lane_does_not_depend_on_the_others():
    values = TEXT[:48].reshape(12, 4)
    rows = kernel_rows(MODEL, values)
    for lane in range(4):
        assert np.array_equal(kernel_rows(MODEL, values[:, lane : lane + 1])[:, 0], rows[:, lane])


def test_rows_are_of_different_bytes_after_different_texts():
    # Against a model that is all saturated: the oracle tests would pass.
    rows = kernel_rows(MODEL, TEXT[:, None])[:, 0]
    assert len(np.unique(rows, axis=0)) > 60
    assert (rows.max(1) < 1 << 23).any()


@given(st.integers(1, (1 << 62) - 1))
def test_roots(value):
    assert integer_kernels.root(value) == math.isqrt(value)


@given(st.integers(1, (1 << 31) - 1), st.sampled_from([-1, 0, 1]))
def test_roots_near_squares(value, offset):
    square = max(1, value * value + offset)
    assert integer_kernels.root(square) == math.isqrt(square)


@given(st.lists(st.integers(0, 259), min_size=8, max_size=8), st.integers(1, 2**31 - 1))
def test_buckets_are_those_of_the_float_model(ids, num_buckets):
    sizes = dataclasses.replace(SIZES, ngram_sizes=(1, 2, 5, 8), num_buckets=num_buckets)
    powers = integer_model._hash_factors(sizes)
    windows = torch.tensor([ids])
    expected = hash_windows(windows, ngram_powers(sizes.ngram_sizes), num_buckets)[0]
    buckets = integer_model._bucket_numbers(sizes)
    for table, bucket in enumerate(expected.tolist()):
        found = integer_kernels._bucket(powers[:, table], buckets, np.array(ids))
        assert found == bucket


def test_shares_by_hand():
    logits = np.full(256, -(60 << 11), np.int64)
    logits[[7, 9]] = 5 << 11
    logits[8] = 3 << 11
    row = np.zeros(256, np.int32)
    integer_kernels._share(logits, MODEL.arrays.exp2, row)
    # Four of nine parts, four of nine, one of nine; what rounding leaves: to the first largest.
    rest = (1 << 24) - 256
    assert row[8] == 1 + rest // 9
    assert row[9] == 1 + rest * 4 // 9
    assert row[7] == 1 + rest - rest * 4 // 9 - rest // 9
    assert (np.delete(row, [7, 8, 9]) == 1).all()
    assert row.sum() == 1 << 24


def test_the_largest_weights_that_are_let_in():
    """Every weight, input and multiplier at its bound: kernels and NumPy still agree."""
    tensors = {name: tensor.copy() for name, tensor in MODEL.tensors.items()}
    for name, tensor in tensors.items():
        if name.endswith("weight"):
            tensor[:] = np.where(
                tensor < 0, -np.iinfo(tensor.dtype).max, np.iinfo(tensor.dtype).max
            )
    bound = 1 << 60
    for name, factor in (("gates", bound // (18 * 127 * 32766)), ("up", 1 << 32)):
        for layer in range(2):
            tensors[f"layers.{layer}.{name}.multiplier"][:] = factor
    model = IntegerModel(architecture=SIZES, tensors=tensors)
    values = TEXT[:40].reshape(10, 4)
    assert np.array_equal(kernel_rows(model, values), numpy_rows(model, values))


LARGE = {"embed.multiplier": 1 << 24, "ngrams.multiplier": (1 << 31) - 1}


def changed(values: dict[str, int]) -> dict[str, np.ndarray]:
    filled = {name: np.full_like(MODEL.tensors[name], value) for name, value in values.items()}
    return {**MODEL.tensors, **filled}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (LARGE, "residual stream"),
        ({"layers.0.gates.multiplier": 1 << 40}, r"layers\.0\.gates\.multiplier"),
        ({"layers.1.gates.bias": -(1 << 62)}, r"layers\.1\.gates\.multiplier"),
        ({"layers.0.gates.bias": -(1 << 63)}, r"layers\.0\.gates\.multiplier"),
        ({"layers.0.up.multiplier": -(1 << 63)}, r"layers\.0\.up\.multiplier"),
        ({"layers.1.memory.scale": 1 << 38}, r"layers\.1\.memory"),
        ({"layers.1.down.multiplier": 1 << 37}, "residual stream"),
        ({"head.multiplier": -(1 << 37)}, r"head\.multiplier"),
    ],
)
def test_what_could_overflow_is_refused_by_name(values, message):
    with pytest.raises(CompressionError, match=message):
        IntegerModel(architecture=SIZES, tensors=changed(values))


def test_each_of_large_tensors_alone_is_taken():
    for name, value in LARGE.items():
        IntegerModel(architecture=SIZES, tensors=changed({name: value}))


def test_sums_that_could_overflow_are_refused():
    sizes = dataclasses.replace(SIZES, ffn_dim=600)
    model = random_model(0, sizes)
    tensors = dict(model.tensors)
    tensors["layers.1.down.weight"] = np.full((18, 600), 127, np.int8)
    with pytest.raises(CompressionError, match=r"layers\.1\.down\.weight"):
        IntegerModel(architecture=sizes, tensors=tensors)


def test_tensors_of_another_shape_type_or_name_are_refused():
    wrong = {
        "head.weight": MODEL.tensors["head.weight"][:, :-1],
        "embed.weight": MODEL.tensors["embed.weight"].astype(np.int32),
        "layers.2.up.weight": MODEL.tensors["head.weight"],
    }
    for name, tensor in wrong.items():
        with pytest.raises(CompressionError, match=name):
            IntegerModel(architecture=SIZES, tensors={**MODEL.tensors, name: tensor})
    less = {name: tensor for name, tensor in MODEL.tensors.items() if name != "head.weight"}
    with pytest.raises(CompressionError, match=r"head\.weight"):
        IntegerModel(architecture=SIZES, tensors=less)


@pytest.mark.parametrize(
    "field", ["dim", "n_layers", "ffn_dim", "num_buckets", "residual_bits", "epsilon"]
)
@pytest.mark.parametrize("value", [0, -1, 2**63])
def test_impossible_sizes_are_refused_by_name(field, value):
    with pytest.raises(CompressionError, match=field):
        IntegerModel(
            architecture=dataclasses.replace(SIZES, **{field: value}), tensors=MODEL.tensors
        )


def test_a_fingerprint_is_of_everything():
    found = {MODEL.fingerprint}
    for name, tensor in MODEL.tensors.items():
        other = tensor.copy()
        other.flat[-1] ^= 1
        tensors = {**MODEL.tensors, name: other}
        found.add(IntegerModel(architecture=SIZES, tensors=tensors).fingerprint)
    sizes = dataclasses.replace(SIZES, epsilon=SIZES.epsilon + 1)
    found.add(IntegerModel(architecture=sizes, tensors=MODEL.tensors).fingerprint)
    assert len(found) == len(MODEL.tensors) + 2
    assert random_model().fingerprint == MODEL.fingerprint
    assert len(MODEL.fingerprint) == 16


def test_size_when_stored():
    assert MODEL.num_bytes == sum(t.nbytes for t in MODEL.tensors.values())


def test_known_answers_are_of_the_model():
    assert known_answers(MODEL) == known_answers(random_model())
    assert known_answers(MODEL) != known_answers(random_model(1))


def test_kernels_that_compute_something_else_are_refused(monkeypatch):
    def almost(model, state, lane, row):
        integer_kernels.predict(model, state, lane, row)
        row[0] += 1

    monkeypatch.setattr(integer_model, "predict", almost)
    with pytest.raises(CompressionError, match=f"known-answer test.*{MODEL.fingerprint.hex()}"):
        known_answers(MODEL)


def digest(model: IntegerModel) -> str:
    return hashlib.sha256(kernel_rows(model, TEXT[-30:].reshape(-1, 2)).tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("BYTELM_KERNELS", "python"),
        # Without the instructions of this processor; compiled again, which takes a while.
        pytest.param("NUMBA_CPU_NAME", "generic", marks=pytest.mark.slow),
    ],
)
def test_other_back_ends_get_the_same_frequencies(name, setting):
    code = "import test_integer_model as own\nprint(own.BACKEND, own.digest(own.MODEL))"
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, name: setting, "NUMBA_CPU_FEATURES": ""},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    backend = "python" if setting == "python" else BACKEND
    assert found.stdout.split() == [backend, digest(MODEL)]

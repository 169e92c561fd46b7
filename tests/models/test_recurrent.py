"""The recurrent model. Oracle: its formulas, written here once more as a loop over single bytes."""

import copy
import dataclasses
import inspect
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import bytelm
from bytelm.config import find_recipe, load
from bytelm.errors import ConfigError
from bytelm.interop.huggingface import export_model
from bytelm.language_model import LanguageModel
from bytelm.models import Recurrent, RecurrentConfig
from bytelm.models.cost import cost
from bytelm.models.recurrent import gated_scan
from bytelm.nn.hash_ngrams import HASH_PRIMES
from bytelm.nn.norm import RMS_EPS
from bytelm.training import run
from bytelm.training.run import RunConfig, train
from conftest import CONTEXT, TEXT, as_ids, recurrent


def random_gates(seed: int, times: int, rows: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (times, rows, dim), (times, rows, dim), (rows, dim)
    gate, candidate, first = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return gate.requires_grad_(), candidate.requires_grad_(), first


def some_begins(times: int, rows: int) -> Tensor:
    return (torch.arange(times * rows).view(times, rows, 1) * 7) % 5 == 0


# The scan.


@pytest.mark.parametrize("has_begins", [False, True])
def test_the_scan_is_its_formula(has_begins: bool) -> None:
    gate, candidate, first = random_gates(0, 9, 3, 4)
    begins = some_begins(9, 3) if has_begins else None
    found = gated_scan(gate, candidate, first, begins)
    h = first
    for t in range(9):
        if begins is not None:
            h = torch.where(begins[t], torch.zeros_like(h), h)
        h = h + gate[t].sigmoid() * (candidate[t].tanh() - h)
        torch.testing.assert_close(found[t], h)


@pytest.mark.parametrize("has_begins", [False, True])
@pytest.mark.parametrize("times", [1, 2, 6])
def test_the_gradient_of_the_scan_is_that_of_its_values(times: int, has_begins: bool) -> None:
    """Oracle: torch's finite differences."""
    gate, candidate, first = random_gates(1, times, 2, 3)
    begins = some_begins(times, 2) if has_begins else None
    assert torch.autograd.gradcheck(lambda g, c: gated_scan(g, c, first, begins), (gate, candidate))


def test_the_memory_is_bounded_by_one() -> None:
    gate, candidate, first = random_gates(2, 200, 2, 5)
    h = gated_scan(10 * gate, 100 * candidate, first.clamp(-1, 1))
    assert h.abs().max() <= 1


# The model.


def by_the_formulas(model: Recurrent, ids: list[int]) -> np.ndarray:
    """Logits `[T, V]` after each id, one id at a time, in NumPy and Python's integers."""
    weights = {name: w.numpy().astype(np.float64) for name, w in model.state_dict().items()}
    sizes, buckets = model.config.ngram_sizes, model.config.num_buckets

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean() + RMS_EPS) * weights[f"{name}.weight"]

    memory = [np.zeros(model.config.dim) for _ in model.layers]
    rows = []
    for t, value in enumerate(ids):
        x = weights["embed.weight"][value].copy()
        for table, size in enumerate(sizes):
            gram = [ids[i] if i >= 0 else 0 for i in range(t - size + 1, t + 1)]
            total = sum(one * HASH_PRIMES[0] ** power for power, one in enumerate(gram))
            signed = (total + 2**63) % 2**64 - 2**63
            x += weights["hash_ngrams.weight"][table * buckets + signed % buckets]
        for index in range(len(memory)):
            own = f"layers.{index}.recurrence"
            u = norm(x, f"{own}.norm")
            z, c = (
                weights[f"{own}.{part}.weight"] @ u + weights[f"{own}.{part}.bias"]
                for part in ("gate", "candidate")
            )
            z, c = 1 / (1 + np.exp(-z)), np.tanh(c)
            memory[index] = memory[index] + z * (c - memory[index])
            x = x + weights[f"{own}.scale"] * memory[index]
            u = norm(x, f"layers.{index}.ffn_norm")
            up = np.maximum(weights[f"layers.{index}.ffn.up_proj.weight"] @ u, 0) ** 2
            x = x + weights[f"layers.{index}.ffn.down_proj.weight"] @ up
        rows.append(weights["head.weight"] @ norm(x, "norm"))
    return np.stack(rows)


@pytest.mark.parametrize("sizes", [(), (1, 2, 6), (4,)])
def test_the_forward_is_its_formulas(sizes: tuple[int, ...]) -> None:
    model = recurrent(False, ngram_sizes=sizes).double()
    ids = as_ids(TEXT[120:170])
    with torch.no_grad():
        found = model(ids)[0].numpy()
    np.testing.assert_allclose(found, by_the_formulas(model, ids[0].tolist()), atol=1e-10)


def test_a_bos_inside_a_row_forgets_what_was_before() -> None:
    """Without n-grams, which look back over a BOS as they do in every model."""
    model = recurrent(True, ngram_sizes=()).double()
    first, second = as_ids(TEXT[:20]), as_ids(TEXT[40:70])
    with torch.no_grad():
        together = model(torch.cat((first, second), dim=1))
        torch.testing.assert_close(together[:, first.shape[1] :], model(second))
        torch.testing.assert_close(together[:, : first.shape[1]], model(first))


def test_a_training_gradient_stops_at_a_bos_inside_a_row() -> None:
    model = recurrent(True, ngram_sizes=())
    embedded: list[Tensor] = []
    model.embed.register_forward_hook(lambda *call: embedded.append(call[-1]))
    model.embed.register_forward_hook(lambda *call: call[-1].retain_grad())
    model(torch.cat((as_ids(TEXT[:20]), as_ids(TEXT[40:70])), dim=1))[0, 30].sum().backward()
    grad = embedded[0].grad
    assert grad is not None
    assert (grad[:21] == 0).all()
    assert (grad[21] != 0).any()


def test_it_remembers_further_than_a_training_row() -> None:
    """There is no window: a byte that is three rows back still tells."""
    slow = recurrent(False, ngram_sizes=()).double()
    with torch.no_grad():
        for layer in slow.layers:
            layer.recurrence.gate.bias.fill_(-6.0)
    model = LanguageModel(slow)
    later = TEXT[: 3 * CONTEXT]
    assert np.abs(model.log_probs(b"a" + later)[-1] - model.log_probs(b"b" + later)[-1]).max() > 0


def test_a_fresh_model_predicts_all_bytes_alike_and_every_weight_learns() -> None:
    config = RecurrentConfig(dim=8, n_layers=2, num_buckets=32, ngram_sizes=(2, 3))
    model = Recurrent(config)
    assert (model(as_ids(TEXT[:9])) == 0).all()
    trained = recurrent(False)
    trained(as_ids(TEXT[:40])).square().sum().backward()
    for name, parameter in trained.named_parameters():
        assert parameter.grad is not None, name
        grad = parameter.grad
        assert ((grad.coalesce().values() if grad.is_sparse else grad) != 0).any(), name


def test_the_weights_have_the_names_that_the_integer_model_reads() -> None:
    names = set(recurrent(False).state_dict())
    layer = {
        "recurrence.norm.weight",
        "recurrence.gate.weight",
        "recurrence.gate.bias",
        "recurrence.candidate.weight",
        "recurrence.candidate.bias",
        "recurrence.scale",
        "ffn_norm.weight",
        "ffn.up_proj.weight",
        "ffn.down_proj.weight",
    }
    assert names == {
        "embed.weight",
        "hash_ngrams.weight",
        "norm.weight",
        "head.weight",
        *(f"layers.{index}.{name}" for index in range(2) for name in layer),
    }


def test_bf16_training_keeps_logits_and_memory_in_float32() -> None:
    model, ids = recurrent(True), as_ids(TEXT[:40])
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(ids), atol=0.3, rtol=0.1)


def test_weights_of_half_precision_can_be_read() -> None:
    """Oracle: the same model in float32, within what 8 bits of mantissa cost."""
    model = recurrent(True)
    half = LanguageModel(copy.deepcopy(model).bfloat16())
    whole = LanguageModel(model)
    assert half.bits_per_byte(TEXT) == pytest.approx(whole.bits_per_byte(TEXT), rel=0.05)


def test_export_refuses_it_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a recurrent model is the codec's"):
        export_model(recurrent(False), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_entropy_patcher_takes_its_entropies() -> None:
    with pytest.raises(ConfigError, match="'recurrent' gives no entropies for patches"):
        load(
            RunConfig,
            find_recipe("blt-small"),
            {"entropy.kind": "train", "entropy.recipe.model.kind": "recurrent"},
        )


# Recipes and training.


@pytest.mark.parametrize("recipe", ["codec-small", "codec-tiny"])
def test_a_recipe_of_the_codec_is_cheap_enough_for_its_speed(recipe: str) -> None:
    """At most 400,000 multiply-adds a byte: 100 KB/s in integers beside the mixer."""
    config = load(RunConfig, find_recipe(recipe))
    assert cost(config.model).flops_per_byte / 2 <= 400_000


def small_run(folder: Path, steps: int) -> RunConfig:
    data = folder / "data.txt"
    if not data.exists():
        data.write_bytes(TEXT * 40)
    return load(
        RunConfig,
        find_recipe("codec-tiny"),
        {
            "data.paths": [str(data)],
            "data.valid_fraction": 0.1,
            "hardware.threads": 1,
            "model.context_bytes": 64,
            "model.dim": 16,
            "model.ffn_dim": 16,
            "model.num_buckets": 64,
            "model.dropout": 0.1,
            "model.ngram_dropout": 0.3,
            "training.batch_rows": 2,
            "training.eval_every": 3,
            "training.save_every": 3,
            "training.steps": steps,
        },
    )


def test_a_run_that_is_interrupted_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 7, bit for bit; and the loaded run is the trained model."""
    config, whole, parts = small_run(tmp_path, 8), tmp_path / "whole", tmp_path / "parts"
    train(config, whole, progress=False)

    real = run.run_loop

    def five_steps(state, cadence, hooks):
        """As if killed after its checkpoint of step 3, two steps later."""

        def update(state):
            if state.step == 5:
                raise KeyboardInterrupt
            return hooks.update(state)

        real(state, cadence, dataclasses.replace(hooks, update=update))

    with monkeypatch.context() as patched:
        patched.setattr(run, "run_loop", five_steps)
        with pytest.raises(KeyboardInterrupt):
            train(config, parts, progress=False)
    train(config, parts, progress=False)
    np.testing.assert_array_equal(
        bytelm.load(whole).log_probs(TEXT), bytelm.load(parts).log_probs(TEXT)
    )


@pytest.mark.slow
def test_the_tiny_recipe_learns_in_seconds(tmp_path: Path) -> None:
    """Far below order 0, which is 4.3 bits a byte on this text of Python's library."""
    data = tmp_path / "library.py"
    modules = subprocess, textwrap, inspect
    data.write_text("".join(inspect.getsource(module) for module in modules))
    config = load(
        RunConfig,
        find_recipe("codec-tiny"),
        {"data.paths": [str(data)], "data.valid_fraction": 0.1, "hardware.threads": 1},
    )
    best = train(config, tmp_path / "run", progress=False).best_valid_bpb
    assert best is not None
    assert best < 3.2

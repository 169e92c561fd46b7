"""Oracles: a run that was never interrupted, each pair alone, greedy decoding step by step.

Runs that are killed are in `test_run.py`.
"""

import itertools
import json
import logging
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kill_and_resume import content
from tiny_pairs import BASELINE, PATCHED, SIZES, splits

from bytelm import config as configuration
from bytelm.data.pair_batches import PairBatch, Source
from bytelm.data.pairs import Pair, PairSplits
from bytelm.errors import ConfigError, DataError, RunError
from bytelm.models import Seq2Seq
from bytelm.patching import Space, Static
from bytelm.training import checkpoints, metrics, pair_run, run_directory
from bytelm.training.loading import load_seq2seq
from bytelm.training.loop import Evaluation
from bytelm.training.optimizers import OptimConfig
from bytelm.training.pair_run import PairTrainResult, PairValidation, train_pairs
from bytelm.training.pair_settings import PairRunConfig, PairTraining
from bytelm.training.settings import Calibrated, HardwareConfig
from bytelm.training.step import NotFiniteError, Stepper
from bytelm.training.updates import make_stepper
from bytelm.vocab import BOS, EOS, IGNORE, OFFSET
from conftest import randomize_

ARMS = {"baseline": BASELINE, "blt": PATCHED}
each_arm = pytest.mark.parametrize("arm", ARMS)

TIMES = {"run_dir", "seconds", "epoch_seconds", "automatic"}
"""What two runs that are equal differ in."""


def run(config: PairRunConfig, out: Path, pairs: PairSplits | None = None) -> PairTrainResult:
    return train_pairs(config, pairs or splits(), out, progress=False)


def with_training(config: PairRunConfig, **changes) -> PairRunConfig:
    return replace(config, training=replace(config.training, **changes))


def outcome(result: PairTrainResult) -> dict[str, object]:
    return {name: value for name, value in vars(result).items() if name not in TIMES}


def disturb(monkeypatch: pytest.MonkeyPatch, step: int, disturbance) -> None:
    """Let something happen before one update."""
    update, calls = Stepper.update, iter(range(10_000))

    def disturbed(self, *arguments, **keywords):
        if next(calls) == step:
            disturbance()
        return update(self, *arguments, **keywords)

    monkeypatch.setattr(Stepper, "update", disturbed)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def break_off() -> None:
    raise OSError("the power failed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PairTrainResult]:
    """A run of each arm that nothing disturbed: read it, do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    return {arm: run(config, folder / arm) for arm, config in ARMS.items()}


@each_arm
def test_a_run_leaves_what_it_says(finished, arm: str) -> None:
    config, result = ARMS[arm], finished[arm]
    out = result.run_dir
    assert result.steps == 15
    rows = metrics.read(out)
    assert [row["step"] for row in rows] == list(range(1, 16))
    valid = {row["step"]: row["valid_bpb"] for row in rows if row["valid_bpb"] is not None}
    assert list(valid) == [5, 10, 15]
    assert [one.step for one in result.history] == list(valid)
    assert [one.epoch for one in result.history] == [1, 2, 3]
    assert [one.valid_bpb for one in result.history] == list(valid.values())
    assert result.best.valid_bpb == min(valid.values())
    assert checkpoints.find(out).name == f"step-{result.best.step}"
    assert checkpoints.pointed(out, "last").name == "step-15"
    model = load_seq2seq(out)
    assert model.config == config.model
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert result.parameters == sum(sizes.values())
    assert result.table_parameters == sizes.get("encoder.hash_ngrams.weight", 0)
    assert result.flops_per_example > 1000
    stored = json.loads((out / "config.json").read_text())
    assert configuration.from_dict(PairRunConfig, stored) == config
    environment = json.loads((out / "environment.json").read_text())
    assert environment["data"]["rows"] == {"train": 20, "valid": 9}
    assert environment["starts"][0]["automatic"] == result.automatic
    assert len(result.epoch_seconds) == 3
    assert sum(result.epoch_seconds) == pytest.approx(result.seconds)


def test_an_epoch_is_the_mean_of_its_batches(finished) -> None:
    """Oracle: a weighted mean; the batches have different numbers of bytes."""
    history = finished["baseline"].history
    rows, before = metrics.read(finished["baseline"].run_dir), 0
    for epoch, one in enumerate(history):
        weights, values = [], []
        for row in rows[5 * epoch : 5 * epoch + 5]:
            weights.append(row["bytes_seen"] - before)
            values.append(row["train_bpb"])
            before = row["bytes_seen"]
            assert row["epoch"] == epoch
        assert one.train_bpb == pytest.approx(np.average(values, weights=weights))
        assert one.lr == rows[5 * epoch + 4]["lr"]
    train = splits().train
    assert before == 3 * sum(len(pair.target.encode()) + 1 for pair in train)


# Law 7: exact.


@each_arm
def test_two_runs_of_one_seed_are_equal_and_another_seed_is_not(
    tmp_path: Path, finished, arm: str
) -> None:
    again = run(ARMS[arm], tmp_path / "again")
    other = run(with_training(ARMS[arm], seed=1), tmp_path / "other")
    assert content(again.run_dir) == content(finished[arm].run_dir)
    assert outcome(again) == outcome(finished[arm])
    assert other.weights != again.weights


@each_arm
@pytest.mark.parametrize(("step", "disturbance"), [(2, break_off), (8, interrupt), (9, break_off)])
def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, finished, arm: str, step: int, disturbance
) -> None:
    """Before the first checkpoint, and after some; saved, and not."""
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, step, disturbance)
        with pytest.raises((KeyboardInterrupt, OSError)):
            run(ARMS[arm], tmp_path)
    if disturbance is interrupt:
        assert checkpoints.pointed(tmp_path, "last").name == f"step-{step + 1}"
    resumed = run(ARMS[arm], tmp_path)
    assert content(tmp_path) == content(finished[arm].run_dir)
    assert outcome(resumed) == outcome(finished[arm])
    assert len(json.loads((tmp_path / "environment.json").read_text())["starts"]) == 2


def test_a_finished_run_is_left_alone(finished) -> None:
    first = finished["blt"]
    out = first.run_dir
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.*") if p.name != ".lock"}
    again = run(PATCHED, out)
    assert outcome(again) == outcome(first)
    assert (again.seconds, again.epoch_seconds) == (first.seconds, first.epoch_seconds)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_resumed_run_takes_the_patches_that_it_had(tmp_path, monkeypatch) -> None:
    """Threshold and n-gram counts are in the checkpoint, bit for bit."""
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, 9, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(PATCHED, tmp_path)
    monkeypatch.setattr("bytelm.training.pair_run.calibrated", None)
    monkeypatch.setattr("bytelm.models.Ngram.fit", None)
    assert run(PATCHED, tmp_path).steps == 15


# What is refused.


def test_other_settings_are_refused_by_name(finished) -> None:
    other = replace(
        with_training(PATCHED, epochs=9),
        optim=OptimConfig(lr=0.5),
        model=replace(PATCHED.model, dropout=0.2),
        patching=Calibrated(mean_patch_bytes=3.0, max_patch_bytes=4),
    )
    with pytest.raises(RunError) as caught:
        run(other, finished["blt"].run_dir)
    message = str(caught.value)
    for difference in (
        "optim.lr was 0.006, is now 0.5",
        "training.epochs was 3, is now 9",
        "model.dropout was 0.1, is now 0.2",
        "patching.mean_patch_bytes was 2.0, is now 3.0",
        "choose another --out",
    ):
        assert difference in message


def test_another_machine_is_no_other_setting(finished) -> None:
    moved = replace(BASELINE, hardware=HardwareConfig(device="cpu", threads=2))
    assert outcome(run(moved, finished["baseline"].run_dir)) == outcome(finished["baseline"])


@pytest.mark.parametrize("split", ["train", "valid"])
def test_other_pairs_are_refused(tmp_path: Path, split: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, 1, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(BASELINE, tmp_path)
    own = splits()
    (first, *rest) = getattr(own, split)
    changed = replace(own, **{split: (replace(first, target="x"), *rest)})
    with pytest.raises(RunError, match="was begun with other pairs"):
        run(BASELINE, tmp_path, changed)
    assert run(BASELINE, tmp_path).steps == 15


def test_the_test_pairs_are_not_looked_at(tmp_path: Path, finished) -> None:
    # Too long for the model: whoever looked at it would refuse it.
    run(BASELINE, tmp_path, replace(splits(), test=(Pair("x" * 1000, "y"),)))
    assert content(tmp_path) == content(finished["baseline"].run_dir)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_without_pairs_is_refused(tmp_path: Path, split: str) -> None:
    what = {"train": "training", "valid": "validation"}[split]
    with pytest.raises(DataError, match=f"no {what} pairs; expected at least one"):
        run(BASELINE, tmp_path, replace(splits(), **{split: ()}))


@pytest.mark.parametrize("pair", [Pair("x" * 13, "y"), Pair("y", "\u00e9" * 6 + "x")])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_pair_that_is_too_long_leaves_the_folder_free(
    tmp_path: Path, split: str, pair: Pair
) -> None:
    pairs = replace(splits(), **{split: (pair,)})
    message = "model.max_bytes is 12, but an input or target has 13 bytes; .* 13"
    with pytest.raises(ConfigError, match=message):
        run(BASELINE, tmp_path, pairs)
    longer = replace(BASELINE, model=replace(SIZES, max_bytes=13))
    assert len(run(longer, tmp_path, pairs).history) == 3


def test_a_patcher_without_a_limit_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not limited, expected at most"):
        run(replace(PATCHED, patching=Calibrated(mean_patch_bytes=2.0)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {run_directory.LOCK}
    assert run(PATCHED, tmp_path).steps == 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patching": None}, "with a table `patches` needs table `patching`"),
        ({"model": SIZES}, "without a table `patches` takes no table `patching`"),
        ({"entropy": None}, "a 'calibrated' patcher needs a table `entropy`"),
        ({"patching": Space(max_patch_bytes=4)}, "a 'space' patcher takes no table `entropy`"),
        ({"model": SIZES, "patching": None}, "this model takes no table `entropy`"),
    ],
)
def test_tables_that_do_not_go_together_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PATCHED, **changes)


@pytest.mark.parametrize("name", ["epochs", "batch_rows", "micro_rows", "save_every", "patience"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        PairTraining(**{name: 0})


def test_a_loss_that_is_no_number_ends_with_advice(tmp_path, monkeypatch) -> None:
    def fail() -> None:
        raise NotFiniteError("the loss is nan")

    disturb(monkeypatch, 10, fail)
    with pytest.raises(RunError, match=r"step 11: the loss is nan.*step-\d+.*.*optim\.lr"):
        run(BASELINE, tmp_path)


# Rows of a forward pass.


def test_fewer_rows_at_a_time_have_the_same_gradient() -> None:
    """With patches and rows of several lengths: the loss is one mean of all bytes."""
    pairs = splits().train
    inputs, targets = [one.input.encode() for one in pairs], [one.target.encode() for one in pairs]
    model = a_model("blt").double()
    batch = PairBatch.of(Source.of(inputs, model.patch_starts(inputs)), targets)
    stepper = stepper_of(model)
    expected = dict[str, torch.Tensor]()
    for micro_rows in (20, 7, 1):
        nats, used = stepper._gradients(batch, micro_rows)
        assert used == micro_rows
        grads = {name: one.grad.to_dense() for name, one in model.named_parameters()}
        stepper.optimizer.zero_grad()
        expected = expected or {**grads, "nats": torch.tensor(nats)}
        # The loss is taken in float32 whatever the model's precision.
        assert nats == pytest.approx(float(expected["nats"]), rel=1e-6)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, expected[name], atol=1e-6, rtol=1e-5)


def refuse_rows(monkeypatch: pytest.MonkeyPatch, *, above: int) -> list[int]:
    """Let forward passes in training run out of memory; the rows of those that did not."""
    forward, fitted = Seq2Seq.forward, []

    def small(self, source, written):
        if self.training and len(written) > above:
            torch.rand(3)
            raise torch.OutOfMemoryError("CUDA out of memory")
        fitted.append(len(written))
        return forward(self, source, written)

    monkeypatch.setattr(Seq2Seq, "forward", small)
    return fitted


def test_rows_that_fit_are_found_and_change_nothing(tmp_path, monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO)
    expected = run(with_training(PATCHED, micro_rows=2), tmp_path / "two")
    assert expected.automatic["micro_rows"] == {"choice": 2, "why": "as asked for"}
    refuse_rows(monkeypatch, above=2)
    found = run(PATCHED, tmp_path / "auto")
    assert found.automatic["micro_rows"]["choice"] == 2
    assert "an update stays one of 4 pairs" in caplog.text
    assert found.weights == expected.weights
    assert found.history == expected.history


def test_rows_are_tried_out_without_a_trace(tmp_path: Path, finished) -> None:
    """Also of random states, which dropout draws from."""
    assert finished["blt"].automatic["micro_rows"]["choice"] == 4
    run(with_training(PATCHED, micro_rows=4), tmp_path)
    assert content(tmp_path) == content(finished["blt"].run_dir)


def test_a_pair_that_does_not_fit_into_memory_says_so(tmp_path, monkeypatch) -> None:
    refuse_rows(monkeypatch, above=0)
    with pytest.raises(RunError, match=r"single pair of the longest; lower the model's sizes"):
        run(PATCHED, tmp_path / "auto")
    with pytest.raises(RunError, match=r"step 1: out of memory with a single row; lower the model"):
        run(with_training(PATCHED, micro_rows=4), tmp_path / "four")


def test_automatic_settings_are_told_with_their_reasons(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    automatic = run(with_training(BASELINE, precision="auto"), tmp_path).automatic
    assert set(automatic) == {"device", "precision", "threads", "workers", "micro_rows"}
    for name, one in automatic.items():
        assert set(one) == {"choice", "why"}
        assert f"{name}: {one['choice']} ({one['why']})" in caplog.text
    assert (automatic["device"]["choice"], automatic["threads"]["choice"]) == ("cpu", 1)


# Validation.


def greedy(model: Seq2Seq, text: bytes) -> bytes | None:
    """What the likeliest ids make, one input alone; None without an end."""
    state, ids, out = model.begin(model.read([text])), np.array([BOS]), b""
    for _ in range(model.config.max_bytes + 1):
        ids = model.step(ids, state).argmax(1)
        if ids[0] == EOS:
            return out
        out += bytes([int(ids[0]) - OFFSET])
    return None


def a_model(arm: str) -> Seq2Seq:
    """Random weights."""
    model = Seq2Seq(ARMS[arm].model, None if arm == "baseline" else Static(patch_size=3))
    randomize_(model, 7)
    return model.eval()


def measured(model: Seq2Seq, texts: list[tuple[bytes, bytes]]) -> Evaluation:
    inputs, targets = map(list, zip(*texts, strict=True))
    starts = None if model.patcher is None else model.patch_starts(inputs)
    return PairValidation(inputs, targets, starts).measure(stepper_of(model))


def stepper_of(model: Seq2Seq) -> Stepper:
    return make_stepper(model, OptimConfig(), precision="fp32", device=torch.device("cpu"))


@each_arm
def test_exact_match_is_that_of_greedy_decoding(arm: str, monkeypatch) -> None:
    """Half of the targets are what the model writes, the others differ at the end."""
    monkeypatch.setattr(pair_run, "VALID_ROWS", 8)
    model = a_model(arm)
    # Ends must be likely, or nothing is ever written to its end.
    with torch.no_grad():
        model.head.weight[EOS] *= 3
    texts = [b"%c%c" % letters for letters in itertools.product(b"abcde", repeat=2)]
    written = [(text, own) for text in texts if (own := greedy(model, text))]
    assert len(written) > 16
    assert len({len(own) for _, own in written}) > 2
    pairs = [
        (text, own[:-1] + b"\0" if index % 3 == 0 else own)
        for index, (text, own) in enumerate(written)
    ]
    right = sum(one == other for one, other in zip(pairs, written, strict=True))
    assert 0 < right < len(pairs)
    model.train()
    assert measured(model, pairs).exact_match == right / len(pairs)
    assert model.training


@each_arm
def test_bits_per_byte_is_of_every_target_byte_and_end_once(arm: str) -> None:
    """Oracle: each pair alone, position by position."""
    model = a_model(arm)
    pairs = splits().valid
    texts = [(pair.input.encode(), pair.target.encode()) for pair in pairs]
    nats, scored = 0.0, 0
    for text, target in texts:
        starts = None if model.patcher is None else model.patch_starts([text])
        batch = PairBatch.of(Source.of([text], starts), [target])
        with torch.no_grad():
            log_probs = batch.logits(model)[0].double().log_softmax(-1)
        for position, wanted in enumerate(batch.targets[0].tolist()):
            assert wanted != IGNORE
            nats -= float(log_probs[position, wanted])
            scored += 1
    assert scored == sum(len(target) + 1 for _, target in texts)
    expected = nats / math.log(2) / scored
    assert measured(model, texts).bpb == pytest.approx(expected, rel=1e-5)


@each_arm
def test_the_best_epoch_is_measured_again_from_its_checkpoint(finished, arm: str) -> None:
    result, model = finished[arm], load_seq2seq(finished[arm].run_dir)
    texts = [(pair.input.encode(), pair.target.encode()) for pair in splits().valid]
    found = measured(model, texts)
    assert found.bpb == pytest.approx(result.best.valid_bpb, rel=1e-6)
    assert found.exact_match == result.best.valid_exact_match


def test_patience_ends_a_run_at_its_best_and_it_stays_ended(tmp_path, monkeypatch) -> None:
    values = iter([3.0, 2.0, 2.5, 2.5, 1.0])
    monkeypatch.setattr(
        PairValidation, "measure", lambda *_: Evaluation(bpb=next(values), exact_match=0.5)
    )
    config = with_training(BASELINE, epochs=9, patience=2)
    result = run(config, tmp_path)
    assert (result.steps, result.best.step, result.best.valid_bpb) == (20, 10, 2.0)
    assert len(result.history) == 4
    assert outcome(run(config, tmp_path)) == outcome(result)
    assert checkpoints.find(tmp_path).name == "step-10"


def test_weights_that_are_no_numbers_are_an_error() -> None:
    model = Seq2Seq(SIZES)
    with torch.no_grad():
        model.head.weight[7] = math.nan
    with pytest.raises(RunError, match="validation loss is nan: the weights are broken"):
        measured(model, [(b"a", b"b")])


# Patches.


def test_patches_are_as_long_as_was_asked_for(finished) -> None:
    """Within what one start more or less makes of nine inputs."""
    result, model = finished["blt"], load_seq2seq(finished["blt"].run_dir)
    inputs = [pair.input.encode() for pair in splits().valid]
    starts = model.patch_starts(inputs)
    mean = sum(map(len, inputs)) / sum(int(one.sum()) for one in starts)
    assert result.mean_patch_bytes == mean
    assert mean == pytest.approx(2.0, rel=0.1)
    assert result.threshold_nats == model.patcher.threshold


def test_without_patches_there_is_no_length_of_them(finished) -> None:
    result = finished["baseline"]
    assert (result.mean_patch_bytes, result.threshold_nats) == (None, None)


def test_a_patcher_may_need_no_entropies(tmp_path: Path) -> None:
    config = replace(PATCHED, patching=Static(patch_size=3), entropy=None)
    result = run(config, tmp_path)
    lengths = [len(pair.input.encode()) for pair in splits().valid]
    assert result.mean_patch_bytes == sum(lengths) / sum(-(-length // 3) for length in lengths)
    assert result.threshold_nats is None


# Learning.


@pytest.mark.parametrize("patched", [False, True])
def test_a_tiny_model_learns_to_copy(tmp_path: Path, patched: bool) -> None:
    """Three of four letters: 1.5 bits a byte for who knows the letters and not the input."""
    texts = ["".join(letters) for letters in itertools.product("abcd", repeat=3)]
    np.random.default_rng(0).shuffle(texts)
    pairs = [Pair(text, text) for text in texts]
    own = splits_of(pairs)
    config = replace(
        BASELINE,
        model=replace(SIZES, dim=32, dropout=0.0, max_bytes=3),
        training=PairTraining(epochs=16, batch_rows=8),
        optim=OptimConfig(lr=0.01),
    )
    if patched:
        config = replace(
            config,
            model=replace(config.model, patches=PATCHED.model.patches),
            patching=Static(patch_size=3),
            entropy=None,
        )
    result = run(config, tmp_path, own)
    assert result.history[-1].train_bpb < 0.3
    assert result.best.valid_bpb < 0.7


def splits_of(pairs: list[Pair]) -> PairSplits:
    return PairSplits(tuple(pairs[:52]), tuple(pairs[52:]), ())

"""`bytelm evaluate`. Oracle: a random model of its own kind, and the library called directly."""

import json
import math

import pytest
import torch

import bytelm
from bytelm.cli import main
from bytelm.data import build_corpus
from bytelm.evaluation import reference_compressors
from bytelm.language_model import LanguageModel
from bytelm.models import EntropyLM, EntropyLMConfig


@pytest.fixture
def model(monkeypatch):
    torch.manual_seed(0)
    config = EntropyLMConfig(dim=16, n_layers=1, n_heads=2, context_bytes=32, window=16)
    model = LanguageModel(EntropyLM(config))
    monkeypatch.setattr(bytelm, "load", lambda _: model, raising=False)
    return model


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "held_out"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"one two three " * 30)
    (folder / "b.txt").write_bytes(bytes(range(256)))
    (folder / "c.txt").write_bytes(b"")
    return folder


def test_json_agrees_with_the_library(model, folder, capsys):
    assert main(["evaluate", "run", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    corpus = build_corpus([folder])
    assert found["bytes_scored"] == corpus.num_bytes == 420 + 256
    nats = sum(float(model.score(document).nll_nats.sum(dtype="float64")) for document in corpus)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / 676, abs=1e-9)
    assert found["mean_patch_bytes"] == 1
    assert found["flops_per_byte"] > 0
    low, high = found["interval"]
    assert low <= found["bits_per_byte"] <= high
    for result in reference_compressors(list(corpus)):
        shown = found["compressors"][result.name]
        assert shown["bytes"] == result.bytes
        assert shown["bits_per_byte"] == result.bits_per_byte
        assert shown["per_file_bits_per_byte"] == result.per_file_bits_per_byte
    assert sum(row["num_bytes"] for row in found["per_document"]) == 676


def test_the_table_names_everything(model, folder, capsys):
    assert main(["evaluate", "run", str(folder)]) == 0
    out = capsys.readouterr().out
    for word in (
        "xz -9e",
        "bzip2 -9",
        "zstd -19",
        "brotli -11",
        "ppmd -o6",
        "95 % interval",
        "b.txt",
    ):
        assert word in out
    assert main(["evaluate", "run", str(folder), "--no-compressors"]) == 0
    assert "xz -9e" not in capsys.readouterr().out


def test_missing_data_is_explained(model, tmp_path, capsys):
    assert main(["evaluate", "run", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err

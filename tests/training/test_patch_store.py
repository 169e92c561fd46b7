"""Oracles: `patch_starts` of whole documents, the streaming segmenter, a file never touched."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_and_resume import content
from tiny_run import blt_config, write_files

from bytelm.data import Batches, Corpus, from_documents
from bytelm.decoding.segmenter import Segmenter
from bytelm.errors import DataError
from bytelm.models import BLT, BLTConfig, EntropyLM, EntropyLMConfig, Ngram, NgramConfig
from bytelm.patching import Entropy, Patcher, ShannonWindow, Space, Static, patch_starts
from bytelm.training import patch_store
from bytelm.training.patch_store import PatchStore, is_worth_storing
from bytelm.training.run import RunConfig, train
from bytelm.vocab import BOS

TEXT = (
    b"The cat sat on the mat, and then it slept; 12 bytes of \xc3\xa4\xc3\xb6 and \x00\xff more. "
)
DOCUMENTS = [
    TEXT * 4,
    b"",
    b"x",
    TEXT[5:40],
    b"ab",
    TEXT[::-1] * 3,
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]
MARGIN = 1e-4
"""No entropy of the documents is closer than this to the threshold: rounding cannot flip one."""

PATCHERS = [
    Static(patch_size=3),
    Space(),
    Space(min_patch_bytes=3, max_patch_bytes=7),
    ShannonWindow(),
    ShannonWindow(window=4, threshold=0.9, min_patch_bytes=2, max_patch_bytes=9),
    Entropy(threshold=1.0),
    Entropy(relative_threshold=0.1),
    Entropy(threshold=0.8, relative_threshold=0.05, min_patch_bytes=2),
    Entropy(threshold=1.2, min_patch_bytes=3, max_patch_bytes=6),
    Entropy(threshold=5.0, max_patch_bytes=11),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYTELM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_store, "CHEAP_CHUNK_BYTES", 32)
    monkeypatch.setattr(patch_store, "LEAST_CHUNK_BYTES", 64)


def ngram() -> Ngram:
    return Ngram.fit(NgramConfig(order=3, min_count=1), from_documents(DOCUMENTS))


def entropy_lm(seed: int = 0) -> EntropyLM:
    torch.manual_seed(seed)
    model = EntropyLM(EntropyLMConfig(dim=16, n_layers=2, n_heads=2, window=9, context_bytes=32))
    with torch.no_grad():
        # sharper predictions, so that entropies differ
        model.head.weight.mul_(6)
    return model.eval()


def lm_entropies(source: EntropyLM, document: bytes) -> np.ndarray:
    """Nats of the prediction of each byte, from the segmenter that inference uses."""
    reader = Segmenter(BLT(BLTConfig(context_bytes=64), Entropy(threshold=1.0), source))
    first, _ = reader.begin()
    later, _ = reader.read(np.frombuffer(document, np.uint8))
    return np.concatenate((first, later))[: len(document)]


def threshold_of(source: EntropyLM, documents: list[bytes]) -> float:
    """About the middle of the entropies, away from all of them."""
    found = np.sort(np.concatenate([lm_entropies(source, d) for d in documents if d]))
    gaps = np.diff(found)
    middle = len(gaps) // 2
    index = middle + int(np.argmax(gaps[middle : middle + 20]))
    assert gaps[index] > 2 * MARGIN
    return float(found[index] + gaps[index] / 2)


def stream_flags(documents: list[bytes], flags_of) -> np.ndarray:
    """Flags of the whole stream, document by document, BOS between."""
    parts: list[np.ndarray] = []
    for document in filter(None, documents):
        parts += [np.ones(1, bool)] * bool(parts)
        parts.append(flags_of(document))
    return np.concatenate(parts)


def expected_flags(documents: list[bytes], patcher: Patcher, source: Ngram | None) -> np.ndarray:
    def of(document: bytes) -> np.ndarray:
        data = np.frombuffer(document, np.uint8)
        if source is None:
            return patch_starts(patcher, data)
        return patch_starts(patcher, data, source.document_entropies(data, data[:0])[:-1])

    return stream_flags(documents, of)


def whole(store: PatchStore) -> np.ndarray:
    return store(0, store._stream.length)


@pytest.fixture
def opened() -> Iterator:
    stores: list[PatchStore] = []

    def open_store(corpus: Corpus, patcher: Patcher, source=None) -> PatchStore:
        stores.append(PatchStore(corpus, patcher, source))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.mark.parametrize("patcher", PATCHERS, ids=repr)
def test_stored_starts_are_those_of_each_document(patcher: Patcher, opened) -> None:
    source = ngram() if patcher.needs_entropies else None
    expected = expected_flags(DOCUMENTS, patcher, source)
    store = opened(from_documents(DOCUMENTS), patcher, source)
    assert whole(store).tolist() == expected.tolist()
    again = opened(from_documents(DOCUMENTS), patcher, source)
    assert again.path == store.path
    assert whole(again).tolist() == expected.tolist()


@pytest.mark.parametrize("patcher", PATCHERS, ids=repr)
@settings(max_examples=8)
@given(data=st.data())
def test_any_order_of_questions_has_the_same_answers(patcher: Patcher, data) -> None:
    documents = data.draw(st.lists(st.binary(max_size=90), min_size=1, max_size=6))
    documents.append(b"the end")
    source = ngram() if patcher.needs_entropies else None
    expected = expected_flags(documents, patcher, source)
    store = PatchStore(from_documents(documents), patcher, source)
    try:
        for _ in range(4):
            begin = data.draw(st.integers(0, len(expected) - 1))
            end = data.draw(st.integers(begin + 1, len(expected)))
            assert store(begin, end).tolist() == expected[begin:end].tolist()
    finally:
        store.close()
        store.path.unlink()


@pytest.mark.parametrize(
    "limits", [{}, {"max_patch_bytes": 5}, {"min_patch_bytes": 2, "max_patch_bytes": 8}]
)
def test_a_transformer_decides_as_it_does_in_use(limits: dict, opened) -> None:
    source = entropy_lm()
    patcher = Entropy(threshold=threshold_of(source, DOCUMENTS), **limits)
    expected = stream_flags(
        DOCUMENTS,
        lambda d: patch_starts(patcher, np.frombuffer(d, np.uint8), lm_entropies(source, d)),
    )
    assert 0.05 < expected.mean() < 0.95
    store = opened(from_documents(DOCUMENTS), patcher, source)
    backwards = [store(at, at + 1)[0] for at in reversed(range(len(expected)))]
    assert backwards[::-1] == expected.tolist()
    assert whole(store).tolist() == expected.tolist()


def test_files_are_equal_however_they_were_filled(tmp_path, opened, monkeypatch) -> None:
    source, patcher = entropy_lm(), Entropy(threshold=4.0)
    files = []
    for name, places in (("a", range(0, 600, 7)), ("b", range(599, 0, -11))):
        monkeypatch.setenv("BYTELM_CACHE", str(tmp_path / name))
        store = opened(from_documents(DOCUMENTS), patcher, source)
        for at in places:
            store(at, at + 5)
        whole(store)
        files.append(store.path.read_bytes())
    assert files[0] == files[1]


def test_rows_take_the_flags_of_their_documents(opened) -> None:
    documents = [TEXT, b"ab", b"", TEXT[20:]]
    expected = expected_flags(documents, Space(), None)
    corpus = from_documents(documents)
    store = opened(corpus, Space())
    batches = Batches(corpus, context_bytes=16, rows=9, seed=3)
    seen_bos = 0
    for step in range(6):
        batch = batches.batch(step, store)
        begins, ends = batches._windows(np.arange(9 * step, 9 * step + 9))
        assert batch.starts is not None
        for row, begin, end in zip(range(9), begins, ends, strict=True):
            flags = [True, *expected[begin:end].tolist(), *[False] * (16 - (end - begin))]
            for column, value in enumerate(batch.ids[row].tolist()):
                if value == BOS:
                    seen_bos += column > 0
                    flags[column] = flags[column + 1] = True
            assert batch.starts[row].tolist() == flags
        part = batch.rows(slice(2, 5))
        assert torch.equal(part.starts, batch.starts[2:5])
        assert torch.equal(batch.to("cpu").starts, batch.starts)
    assert seen_bos > 5


def test_a_row_at_a_documents_beginning_is_cut_as_the_model_cuts_it(opened) -> None:
    source = entropy_lm()
    threshold = threshold_of(source, [TEXT])
    model = BLT(BLTConfig(context_bytes=48), Entropy(threshold=threshold), source)
    corpus = from_documents([TEXT])
    store = opened(corpus, model.patcher, source)
    batches = Batches(corpus, context_bytes=48, rows=1, seed=0)
    begins = [int(batches._windows(np.array([step]))[0][0]) for step in range(40)]
    batch = batches.batch(begins.index(0), store)
    length = int((batch.targets >= 0).sum())
    assert torch.equal(batch.starts[:, : length + 1], model.patch(batch.ids[:, :length]))


def test_what_is_stored_is_not_decided_again(opened, monkeypatch) -> None:
    source, patcher = entropy_lm(), Entropy(threshold=4.0)
    first = whole(opened(from_documents(DOCUMENTS), patcher, source))
    monkeypatch.setattr(PatchStore, "_decide", None)
    again = opened(from_documents(DOCUMENTS), patcher, source)
    assert whole(again).tolist() == first.tolist()


def test_everything_that_decides_names_the_file(opened) -> None:
    corpus, patcher, source = from_documents(DOCUMENTS), Entropy(threshold=1.0), entropy_lm()
    changed = entropy_lm()
    with torch.no_grad():
        changed.layers[0].attention.q_proj.weight[0, 0] += 1e-3
    stores = [
        opened(corpus, patcher, source),
        opened(corpus, replace(patcher, threshold=1.0001), source),
        opened(corpus, patcher, changed),
        opened(corpus, patcher, ngram()),
        opened(from_documents([*DOCUMENTS, b"z"]), patcher, source),
        opened(corpus, Space()),
    ]
    assert len({store.path for store in stores}) == len(stores)
    assert opened(from_documents(DOCUMENTS), patcher, entropy_lm()).path == stores[0].path


def damage_bits(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_header(path: Path) -> None:
    path.write_bytes(b"?" + path.read_bytes()[1:])


def fill_with_ones(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


DAMAGES = [damage_bits, damage_header, fill_with_ones]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_decided_anew_with_a_word(damage, opened, caplog) -> None:
    corpus = from_documents(DOCUMENTS)
    expected = whole(opened(corpus, Space()))
    store = opened(corpus, Space())
    intact = store.path.read_bytes()
    damage(store.path)
    again = opened(corpus, Space())
    assert whole(again).tolist() == expected.tolist()
    assert caplog.text.count("is damaged") == 1
    assert str(store.path) in caplog.text
    assert store.path.read_bytes() == intact


def test_records_of_another_store_are_not_taken(opened, caplog) -> None:
    """Oracle: `patch_starts` of this store's patcher; the other file is of the same size."""
    corpus = from_documents(DOCUMENTS)
    store, other = opened(corpus, Space()), opened(corpus, Static(patch_size=3))
    whole(other)
    header = store.path.read_bytes()[: patch_store._HEADER.size]
    store.path.write_bytes(header + other.path.read_bytes()[len(header) :])
    expected = expected_flags(DOCUMENTS, Space(), None).tolist()
    assert whole(opened(corpus, Space())).tolist() == expected
    assert caplog.text.count("is damaged") == 1


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "fifo"])
def test_what_is_no_regular_file_is_refused_and_left_alone(kind, tmp_path, opened) -> None:
    """Oracles: the message, and the file that a link names."""
    store = opened(from_documents(DOCUMENTS), Space())
    store.path.unlink()
    precious = tmp_path / "precious"
    match kind:
        case "link":
            precious.write_text("keep me")
            store.path.symlink_to(precious)
        case "dangling":
            store.path.symlink_to(precious)
        case "folder":
            store.path.mkdir()
        case "fifo":
            os.mkfifo(store.path)
    with pytest.raises(DataError, match=r"\.bits is no regular file.*remove it"):
        PatchStore(from_documents(DOCUMENTS), Space(), None)
    assert precious.exists() == (kind == "link")
    assert kind != "link" or precious.read_text() == "keep me"


def test_a_short_file_is_filled_again(opened, caplog) -> None:
    corpus = from_documents(DOCUMENTS)
    store = opened(corpus, Space())
    expected, intact = whole(store), store.path.read_bytes()
    for size in (0, 10, len(intact) - 5):
        os.truncate(store.path, size)
        assert whole(opened(corpus, Space())).tolist() == expected.tolist()
        assert store.path.read_bytes() == intact
    os.truncate(store.path, 200)
    assert whole(store).tolist() == expected.tolist()


def test_the_first_to_decide_is_right(opened) -> None:
    corpus = from_documents(DOCUMENTS)
    one, other = opened(corpus, Space()), opened(corpus, Space())
    kept = one._write(1, np.ones(32, bool))
    assert other._write(1, np.zeros(32, bool)).tolist() == kept.tolist() == [True] * 32
    assert other(32, 64).tolist() == one(32, 64).tolist() == [True] * 32


def test_many_at_once_fill_one_file(opened) -> None:
    corpus, patcher = from_documents([TEXT * 60]), Entropy(threshold=1.0, max_patch_bytes=9)
    source = ngram()
    found: list[np.ndarray] = []

    def read(seed: int) -> None:
        store, generator = PatchStore(corpus, patcher, source), np.random.default_rng(seed)
        for at in generator.integers(0, len(TEXT) * 60 - 40, 50).tolist():
            store(at, at + 40)
        found.append(whole(store))
        store.close()

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = expected_flags([TEXT * 60], patcher, source).tolist()
    assert [flags.tolist() for flags in found] == [expected] * 4


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BYTELM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot keep patch starts in .*BYTELM_CACHE") as caught:
        PatchStore(from_documents(DOCUMENTS), Space(), None)
    assert "space" not in str(caught.value)


def test_a_full_disk_is_an_error_and_loses_nothing(opened, monkeypatch) -> None:
    store = opened(from_documents(DOCUMENTS), Space())

    def full(*arguments) -> int:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DataError, match=r"No space left .*free some space"):
            whole(store)
    assert whole(store).tolist() == expected_flags(DOCUMENTS, Space(), None).tolist()


@pytest.mark.parametrize(
    ("planned_bytes", "patcher", "is_stored"),
    [
        (149, Entropy(threshold=1.0), False),
        (150, Entropy(threshold=1.0), True),
        (1, Space(), True),
    ],
)
def test_a_short_run_of_a_transformer_is_not_worth_it(planned_bytes, patcher, is_stored) -> None:
    source = entropy_lm() if patcher.needs_entropies else None
    model = BLT(BLTConfig(context_bytes=64), patcher, source)
    corpus = from_documents([bytes(60), b"", bytes(40)])
    assert is_worth_storing(model, corpus, planned_bytes=planned_bytes) == is_stored
    assert not is_worth_storing(entropy_lm(), corpus, planned_bytes=10**9)


def stored_config(folder: Path, **training) -> RunConfig:
    """Reads its text often enough."""
    return blt_config(write_files(folder, files=6, words=15), steps=8, **training)


def test_a_run_is_the_same_with_an_empty_a_half_filled_and_a_full_store(
    tmp_path: Path, cache: Path
) -> None:
    config = stored_config(tmp_path / "data")
    train(config, tmp_path / "empty", progress=False)
    files = sorted((cache / "patches").iterdir())
    assert len(files) == 2
    full = [path.read_bytes() for path in files]
    train(config, tmp_path / "full", progress=False)
    assert content(tmp_path / "full") == content(tmp_path / "empty")
    for path, data in zip(files, full, strict=True):
        path.write_bytes(data[: len(data) // 2])
    train(config, tmp_path / "half", progress=False)
    assert content(tmp_path / "half") == content(tmp_path / "empty")
    assert [path.read_bytes() for path in files] == full


def test_a_second_run_asks_the_entropy_model_nothing(tmp_path, cache, monkeypatch) -> None:
    config = stored_config(tmp_path / "data")
    train(config, tmp_path / "a", progress=False)
    monkeypatch.setattr(PatchStore, "_decide", None)
    monkeypatch.setattr(BLT, "patch", None)
    other = replace(config, optim=replace(config.optim, lr=1e-4))
    train(other, tmp_path / "b", progress=False)
    assert len(list((cache / "patches").iterdir())) == 2


def test_a_short_run_cuts_row_by_row_and_its_validation_once(tmp_path, cache, monkeypatch) -> None:
    config = blt_config(write_files(tmp_path / "data"), steps=6, eval_every=1)
    shapes, patch = [], BLT.patch

    def counted(self: BLT, ids: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(ids.shape))
        return patch(self, ids)

    monkeypatch.setattr(BLT, "patch", counted)
    train(config, tmp_path / "run", progress=False)
    assert not (cache / "patches").exists()
    (start,) = json.loads((tmp_path / "run" / "environment.json").read_text())["starts"]
    assert start["patch_starts_are_stored"] is False
    rows = config.training.batch_rows
    validation = -(-(config.training.eval_bytes // 32) // rows)
    assert len(shapes) == 6 * config.training.accumulate + validation

import hashlib
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.errors import CheckpointError
from bytelm.models import ngram_counts
from bytelm.models.ngram import Ngram, NgramConfig
from bytelm.vocab import BOE, BOS, OFFSET

NOTHING = np.zeros(0, np.uint8)
TEXT = b"the cat sat on the mat. the dog sat on the log; the cat and the dog ran. " * 3 + b"a cab"


def as_array(text):
    return np.frombuffer(text, np.uint8)


def some_text(num_bytes, seed=0):
    rng = np.random.default_rng(seed)
    words = [bytes(rng.integers(97, 123, rng.integers(1, 8), np.uint8)) for _ in range(60)]
    return as_array(b" ".join(words[i] for i in rng.integers(0, 60, num_bytes // 4)))[:num_bytes]


@pytest.fixture(scope="module")
def model():
    return Ngram.fit(NgramConfig(order=4), [some_text(20_000), some_text(3_000, seed=1)])


class PlainKneserNey:
    """Interpolated modified Kneser-Ney by its definition: dictionaries and floating point."""

    def __init__(self, documents, order, min_count):
        counts = [defaultdict(Counter) for _ in range(order + 1)]
        longer = [defaultdict(set) for _ in range(order)]
        for text in documents:
            for t, byte in enumerate(text):
                for k in range(min(t, order) + 1):
                    counts[k][text[t - k : t]][byte] += 1
                for k in range(min(t + 1, order)):  # the document's start is an extension too
                    before = text[t - k - 1 : t] if t > k else None
                    longer[k][text[t - k : t], byte].add(before)
        kinds = [defaultdict(Counter) for _ in range(order)] + [counts[order]]
        for k in range(order):
            for (context, byte), extensions in longer[k].items():
                kinds[k][context][byte] = len(extensions)
        self.order, self.kinds = order, kinds
        self.stored = [
            {c for c, f in counts[k].items() if k == 0 or f.total() >= min_count}
            for k in range(order + 1)
        ]
        self.discounts, self.used = [], []
        for k in range(order + 1):
            self.discounts.append(self._discounts(k))
            self.used.append(True)
            self.used[k] = self._gain(k) > 0

    def _discounts(self, k):
        n = Counter(min(c, 5) for f in self.kinds[k].values() for c in f.values())
        share = n[1] + 2 * n[2]
        found = [0.0]
        for times in (1, 2, 3):
            moved = (times + 1) * n[1] * n[times + 1]
            discount = times - moved / (share * n[times]) if share * n[times] else 0.5
            found.append(min(max(discount, 1 / 16), times))
        return found

    def _gain(self, k):
        gain = 0.0
        for context in self.stored[k]:
            followers = self.kinds[k][context]
            if followers.total() < 2:
                continue
            for byte, c in followers.items():
                others = Counter(followers)
                others[byte] -= 1
                below = self._below(context, byte)
                gain += c * math.log(self._mixed(k, others, byte, below) / below)
        return gain

    def _mixed(self, k, followers, byte, below):
        d = self.discounts[k]
        given = sum(d[min(c, 3)] for c in followers.values())
        c = followers[byte]
        return (c - d[min(c, 3)] + given * below) / followers.total()

    def _below(self, context, byte):
        return self.prob(context[1:], byte) if context else 1 / 256

    def prob(self, context, byte):
        k = len(context)
        if context not in self.stored[k]:
            return self.prob(context[1:], byte)
        below = self._below(context, byte)
        return self._mixed(k, self.kinds[k][context], byte, below) if self.used[k] else below


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("min_count", [1, 2])
def test_equals_kneser_ney_by_its_definition(order, min_count):
    documents = [TEXT, b"the end of the cat", b"a dog", b"the"]
    plain = PlainKneserNey(documents, order, min_count)
    model = Ngram.fit(NgramConfig(order=order, min_count=min_count), map(as_array, documents))
    text = b"the dog and zebras sat\x00"
    log_probs, _ = model.predict(as_array(text), NOTHING)
    for t in range(len(text) + 1):
        context = text[max(0, t - order) : t]
        expected = [plain.prob(context, byte) for byte in range(256)]
        np.testing.assert_allclose(np.exp(log_probs[t]), expected, rtol=2e-4, atol=1e-8)


def test_hand_computed_example():
    """Counts of 4 only: half a count of each is given away, 1/8 in all, and shared by all bytes."""
    model = Ngram.fit(NgramConfig(order=0), [as_array(b"aaaabbbb")])
    log_probs, entropies = model.predict(NOTHING, NOTHING)
    unseen = 1 / 8 / 256
    seen = 3.5 / 8 + unseen
    assert np.exp(log_probs[0, ord("a")]) == pytest.approx(seen, rel=1e-6)
    assert np.exp(log_probs[0, ord("c")]) == pytest.approx(unseen, rel=1e-6)
    expected = -2 * seen * math.log(seen) - 254 * unseen * math.log(unseen)
    assert entropies[0] == pytest.approx(expected, abs=1e-5)


def test_a_new_model_predicts_all_bytes_equally():
    log_probs, entropies = Ngram(NgramConfig()).predict(as_array(b"xyz"), NOTHING)
    np.testing.assert_allclose(log_probs, -math.log(256), rtol=1e-6)
    np.testing.assert_allclose(entropies, math.log(256), rtol=1e-6)


@given(st.binary(max_size=60) | st.text("abc the", max_size=60).map(str.encode))
@settings(deadline=None)
def test_normalized_positive_and_the_table_is_the_entropy(model, text):
    log_probs, entropies = model.predict(as_array(text), NOTHING)
    exact = log_probs.astype(np.float64)
    np.testing.assert_allclose(np.exp(exact).sum(axis=1), 1, atol=1e-6)
    assert np.isfinite(exact).all()
    np.testing.assert_allclose(entropies, -(np.exp(exact) * exact).sum(axis=1), atol=1e-5)
    assert np.array_equal(entropies, model.document_entropies(as_array(text), NOTHING))


@given(st.integers(0, 300), st.integers(0, 300))
@settings(deadline=None)
def test_causal(model, cut, seed):
    data = some_text(300, seed=2)
    changed = data.copy()
    changed[cut:] = np.random.default_rng(seed).integers(0, 256, len(data) - cut)
    before, after = (model.predict(x, NOTHING)[0][: cut + 1] for x in (data, changed))
    assert np.array_equal(before, after)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=10))
@settings(deadline=None, max_examples=30)
def test_chunks_with_history_equal_the_whole(model, sizes):
    data = some_text(sum(sizes), seed=3)
    log_probs, entropies = model.predict(data, NOTHING)
    at = 0
    for size in sizes:
        end = min(at + size, len(data))
        part, part_entropies = model.predict(data[at:end], data[max(0, at - 4) : at])
        assert np.array_equal(part, log_probs[at : end + 1])
        assert np.array_equal(part_entropies, entropies[at : end + 1])
        at = end


def test_long_documents_are_cut_into_pieces_without_a_seam(monkeypatch):
    documents = [some_text(3_000), NOTHING, some_text(500, seed=1)]
    whole = Ngram.fit(NgramConfig(order=3), documents)
    expected = whole.document_entropies(documents[0], NOTHING)
    monkeypatch.setattr(ngram_counts, "PIECE_BYTES", 101)
    monkeypatch.setattr("bytelm.models.ngram._CHUNK_ROWS", 64)
    pieces = Ngram.fit(NgramConfig(order=3), documents)
    for name, buffer in whole.state_dict().items():
        assert torch.equal(buffer, pieces.state_dict()[name]), name
    assert np.array_equal(pieces.document_entropies(documents[0], NOTHING), expected)


def test_rows_of_ids_equal_documents(model):
    """A BOS forgets what came before; rows and padding change nothing."""
    documents = [[b"the cat", b"sat"], [b"x" * 30]]
    ids = torch.full((2, 32), BOE)
    expected = [[], []]
    for row, texts in enumerate(documents):
        line = []
        for text in texts:
            line += [BOS, *(byte + OFFSET for byte in text)]
            expected[row] += model.document_entropies(as_array(text), NOTHING).tolist()
        ids[row, : len(line)] = torch.tensor(line)
    entropies, logits = model.entropies(ids), model(ids)
    for row, values in enumerate(expected):
        assert entropies[row, : len(values)].tolist() == values
    first = model.predict(as_array(documents[0][0]), NOTHING)[0]
    np.testing.assert_allclose(logits[0, :8, OFFSET:].numpy(), first, atol=2e-6)
    assert torch.isneginf(logits[..., :OFFSET]).all()


@pytest.mark.parametrize("order", [2, 5])
def test_random_bytes_cost_eight_bits(order):
    """No model can do better than 8; counts of noise must not cost much either."""
    rng = np.random.default_rng(order)
    train, test = (rng.integers(0, 256, n, dtype=np.uint8) for n in (300_000, 30_000))
    log_probs, _ = Ngram.fit(NgramConfig(order=order), [train]).predict(test, NOTHING)
    bpb = -log_probs[np.arange(len(test)), test].mean() / math.log(2)
    assert 7.999 <= bpb <= 8.02


def test_learns_text(model):
    data = some_text(2_000)
    log_probs, _ = model.predict(data, NOTHING)
    assert -log_probs[np.arange(len(data)), data].mean() / math.log(2) < 2.5


def test_limits_on_contexts():
    data = some_text(20_000)
    few = Ngram.fit(NgramConfig(order=4, max_contexts=50), [data])
    orders = few.keys >> 48
    assert orders.bincount().tolist() == [1, 27, 50, 50, 50]
    assert np.isfinite(few.predict(data[:500], NOTHING)[0]).all()


def test_same_bits_as_ever():
    """Golden: integer arithmetic gives these tables and weights on any machine."""
    i = np.arange(30_000, dtype=np.int64)
    data = (97 + (i * i // 7 + i // 13 * (i % 5)) % 23).astype(np.uint8)
    model = Ngram.fit(NgramConfig(order=4), [data[:20_000], data[20_000:]])
    digest = hashlib.sha256()
    for buffer in model.state_dict().values():
        digest.update(buffer.numpy().tobytes())
    digest.update(model.weights(data[:200], NOTHING).tobytes())
    assert digest.hexdigest() == (
        "1465b609520616eb82472c0c4081421ddf718a3c3a2519f3b0295ca53f6b3df4"
    )


def test_threads_do_not_matter(model):
    data, threads = some_text(5_000, seed=5), torch.get_num_threads()
    digests = []
    for count in (1, 2):
        torch.set_num_threads(count)
        digests.append(model.weights(data, NOTHING).tobytes())
    torch.set_num_threads(threads)
    assert digests[0] == digests[1]


def test_state_dict_round_trip_inside_another_module(model):
    outer = torch.nn.ModuleDict({"entropy_model": Ngram(model.config)})
    state = {f"entropy_model.{k}": v.clone() for k, v in model.state_dict().items()}
    outer.load_state_dict(state, strict=True)
    data = some_text(200, seed=9)
    loaded = outer["entropy_model"]
    assert np.array_equal(loaded.weights(data, NOTHING), model.weights(data, NOTHING))
    del state["entropy_model.probs"]
    with pytest.raises(RuntimeError, match=r"entropy_model\.probs"):
        outer.load_state_dict(state, strict=True)
    with pytest.raises(RuntimeError, match="Unexpected"):
        model.load_state_dict({**model.state_dict(), "more": torch.zeros(1)})


def corrupt(name, change):
    def apply(buffers):
        buffers[name] = change(buffers[name].clone())

    return pytest.param(apply, id=f"{name}-{change.__name__}")


def first_is_huge(x):
    x[0] = 2**30 if x.dtype != torch.uint8 else 255
    return x


def last_is_negative(x):
    x[-1] = -1
    return x


def shorter(x):
    return x[:-1]


def as_float(x):
    return x.float()


def all_equal(x):
    return torch.full_like(x, 7)


def without_suffixes(x):
    x[1:30] += 3
    return x


@pytest.mark.parametrize(
    "damage",
    [
        corrupt(name, change)
        for change in (first_is_huge, shorter, as_float)
        for name in ("keys", "offsets", "symbols", "probs", "backoffs", "entropy_table")
        if (name, change) != ("backoffs", first_is_huge)  # 1 is a back-off factor there can be
    ]
    + [
        corrupt(name, last_is_negative)
        for name in ("keys", "offsets", "probs", "backoffs", "entropy_table")
    ]
    + [corrupt("symbols", all_equal), corrupt("keys", without_suffixes)],
)
def test_corrupt_buffers_are_refused(model, damage):
    buffers = dict(model.state_dict())
    damage(buffers)
    with pytest.raises(CheckpointError, match="n-gram buffers are corrupt"):
        Ngram.from_buffers(model.config, buffers)


def test_a_missing_buffer_and_a_wrong_order_are_refused(model):
    buffers = dict(model.state_dict())
    with pytest.raises(CheckpointError, match="longer than the 2 bytes"):
        Ngram.from_buffers(NgramConfig(order=2), buffers)
    del buffers["keys"]
    with pytest.raises(CheckpointError, match="'keys' is missing"):
        Ngram.from_buffers(model.config, buffers)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"order": 7}, "order must be 0 to 6"),
        ({"order": -1}, "order must be 0 to 6"),
        ({"max_contexts": 0}, "max_contexts must be at least 1"),
        ({"min_count": 0}, "min_count must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        NgramConfig(**setting)


@pytest.mark.parametrize("documents", [[], [NOTHING], [as_array(b"a")]])
def test_next_to_nothing_to_count(documents):
    log_probs, entropies = Ngram.fit(NgramConfig(), documents).predict(as_array(b"ab"), NOTHING)
    assert np.isfinite(log_probs).all()
    assert log_probs.shape == (3, 256)
    assert entropies.shape == (3,)

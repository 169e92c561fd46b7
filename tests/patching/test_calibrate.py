import numpy as np
import pytest

from bytelm.patching import (
    Entropy,
    ShannonWindow,
    calibrate_threshold,
    patch_starts,
    window_entropies,
)


def some_entropies(count=3, length=4000, high=4.0):
    rng = np.random.default_rng(7)
    return [rng.uniform(0, high, length).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    "patcher",
    [
        Entropy(threshold=1.0),
        Entropy(relative_threshold=1.0),
        Entropy(threshold=1.0, relative_threshold=0.05),
        Entropy(threshold=1.0, min_patch_bytes=2, max_patch_bytes=12),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wanted", [3.5, 4.5, 6.0])
def test_the_patcher_that_comes_back_gives_the_wanted_mean(patcher, wanted):
    documents = some_entropies()
    found = calibrate_threshold(documents, mean_patch_bytes=wanted, patcher=patcher)
    starts = [patch_starts(found.patcher, np.zeros(len(h), np.uint8), h) for h in documents]
    mean = sum(map(len, documents)) / sum(s.sum() for s in starts)
    assert mean == pytest.approx(wanted, rel=0.02)
    assert found.mean_patch_bytes == pytest.approx(mean)
    assert found.per_document == pytest.approx([len(s) / s.sum() for s in starts])
    assert found.warnings == ()
    assert found.patcher.limits == patcher.limits


def test_shannon_window():
    data = np.random.default_rng(3).choice(np.frombuffer(b"etaoin shrdlu", np.uint8), 20_000)
    rule = ShannonWindow(window=40, threshold=1.0)
    known = window_entropies(data, window=40)
    found = calibrate_threshold([known], mean_patch_bytes=4.5, patcher=rule)
    assert isinstance(found.patcher, ShannonWindow)
    assert len(data) / patch_starts(found.patcher, data).sum() == pytest.approx(4.5, rel=0.02)


def test_a_size_that_limits_forbid_is_reported_with_the_closest():
    rule = Entropy(threshold=1.0, max_patch_bytes=3)
    found = calibrate_threshold(some_entropies(), mean_patch_bytes=5.0, patcher=rule)
    assert found.mean_patch_bytes == pytest.approx(3.0, rel=0.01)
    assert found.warnings[0].startswith("5 bytes per patch is not attainable here")


def test_collapse_and_uneven_documents_are_named():
    low, high = np.full(500, 0.5, np.float32), np.full(3000, 3.0, np.float32)
    found = calibrate_threshold([low, high], mean_patch_bytes=1.1, patcher=Entropy(threshold=1.0))
    text = "\n".join(found.warnings)
    assert "collapse toward one byte" in text
    assert "1 of 2 documents have patches more than 2 times off" in text
    assert "bytes: document 0 (500.00)" in text


def test_warnings_use_the_names_that_are_given():
    documents = [np.full(500, 0.5, np.float32), np.full(3000, 3.0, np.float32)]
    rule = Entropy(threshold=1.0)
    found = calibrate_threshold(
        documents, mean_patch_bytes=1.1, patcher=rule, names=("calm.txt", "wild.txt")
    )
    assert any("bytes: calm.txt (500.00)" in warning for warning in found.warnings)
    with pytest.raises(ValueError, match="expected 2 names, one for a document, got 1"):
        calibrate_threshold(documents, mean_patch_bytes=1.1, patcher=rule, names=["calm.txt"])


def test_the_threshold_lies_between_values_that_occur():
    values = np.array([0, 1, 2, 3], np.float32).repeat(250)
    values = np.random.default_rng(0).permutation(values)
    found = calibrate_threshold([values], mean_patch_bytes=4.0, patcher=Entropy(threshold=1.0))
    assert found.threshold == 2.5


def test_nothing_to_calibrate_on():
    with pytest.raises(ValueError, match="at least one byte"):
        calibrate_threshold(
            [np.zeros(0, np.float32)], mean_patch_bytes=4.0, patcher=Entropy(threshold=1.0)
        )
    with pytest.raises(ValueError, match="at least 1, got"):
        calibrate_threshold(some_entropies(), mean_patch_bytes=0.5, patcher=Entropy(threshold=1.0))


@pytest.mark.parametrize("documents", [[np.zeros(9, np.float32)], [np.ones(1, np.float32)]])
def test_texts_without_a_useful_value_still_give_a_patcher(documents):
    rule = Entropy(threshold=1.0)
    found = calibrate_threshold(documents, mean_patch_bytes=4.0, patcher=rule)
    assert found.threshold >= 0
    assert found.warnings

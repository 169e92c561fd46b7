import math

import numpy as np
import pytest

from bytelm.patching import Entropy, patch_starts

H = np.array([0.5, 2.0, 1.0, 1.5, 1.5, 0.2, 3.0], np.float32)


@pytest.mark.parametrize(
    ("rule", "starts"),
    [
        (Entropy(threshold=1.5), [0, 1, 6]),  # strictly above
        (Entropy(threshold=1.0), [0, 1, 3, 4, 6]),
        (Entropy(relative_threshold=0.4), [0, 1, 3, 6]),
        (Entropy(relative_threshold=2.0), [0, 6]),
        (Entropy(threshold=1.6, relative_threshold=0.4), [0, 1, 6]),
        (Entropy(threshold=1.0, min_patch_bytes=3), [0, 3, 6]),
        (Entropy(threshold=2.5, max_patch_bytes=4), [0, 4, 6]),
        (Entropy(threshold=5.0), [0]),
    ],
    ids=repr,
)
def test_hand_made_entropies(rule, starts):
    got = patch_starts(rule, np.zeros(7, np.uint8), H)
    assert np.flatnonzero(got).tolist() == starts


def test_the_first_byte_starts_a_patch_whatever_its_entropy():
    got = patch_starts(Entropy(threshold=1.0), np.zeros(2, np.uint8), np.zeros(2, np.float32))
    assert got.tolist() == [True, False]


@pytest.mark.parametrize("name", ["threshold", "relative_threshold"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf])
def test_thresholds_must_be_finite_and_not_negative(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be a finite number of nats"):
        Entropy(**{name: value})


@pytest.mark.parametrize("value", [math.log(260), 8.0])
def test_a_threshold_that_no_entropy_reaches_is_refused(value):
    with pytest.raises(ValueError, match=r"no entropy exceeds 5\.56 nats"):
        Entropy(threshold=value)


def test_one_threshold_is_needed():
    with pytest.raises(ValueError, match="needs threshold, relative_threshold or both"):
        Entropy()

"""What may be said at the end of a study of compression: sentences made from tested differences."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from bytelm.evaluation import PairedDifference, holm, paired_difference
from bytelm.experiments.compression.findings import change, is_apart, relation
from bytelm.experiments.compression.found import Found
from bytelm.experiments.compression.plan import Sweep

SIGNIFICANT = 0.05


def conclusions(found: Found) -> Iterable[str]:
    """Yield the sentences, whatever of the study is there."""
    if found.plan.seeds == 1:
        yield (
            "Each training was done once: a difference is one of these models on these bytes, and "
            "another seed may change it (--seeds N)."
        )
    said = [
        *_against_classics(found),
        *_worth_of_the_model(found),
        *(line for sweep in found.plan.sweeps for line in _along(found, sweep)),
        *_price_of_lanes(found),
        *_price_of_integers(found),
        *_among_rules(found),
        *_promises_kept(found),
    ]
    yield from said or ["Nothing was measured."]


def _against_classics(found: Found) -> Iterable[str]:
    best = next(iter(found.classics().items()), None)
    names = {"mixed": "Model and mixer together", "mixer": "The mixer alone"}
    for mode, subject in names.items():
        ours = found.coded(mode)
        if ours is not None and best is not None:
            name, theirs = best
            yield (
                f"{subject}: {ours} bits per byte, {relation(ours, theirs)} the best classical "
                f"compressor on these bytes ({name}, {theirs})."
            )


def _worth_of_the_model(found: Found) -> Iterable[str]:
    mixed, mixer, size = (
        found.coded("mixed"),
        found.coded("mixer"),
        found.coded("mixed", key="model_bytes"),
    )
    if mixed is None or mixer is None or size is None:
        return
    told = relation(mixed, mixer)
    saved = mixer.mean - mixed.mean
    if not told.endswith("below"):
        yield f"The model does not pay here: model and mixer are {told} the mixer alone."
        return
    yield (
        f"Model and mixer are {told} the mixer alone. It has {size.mean:,.0f} bytes: counted with "
        f"the files, it pays from {8 * size.mean / saved / 1e6:,.1f} MB of such bytes on."
    )


def _along(found: Found, sweep: Sweep) -> Iterable[str]:
    for mode, subject in {"model": "the model alone", "mixed": "model and mixer"}.items():
        known = [
            (value, figure)
            for value in sweep.values
            if (figure := found.coded(mode, sweep.arm(value))) is not None
        ]
        if len(known) > 1:
            (first, low), (last, high) = known[0], known[-1]
            yield (
                f"{sweep.title}: from {sweep.key} = {first} to {last}, {subject}: "
                f"{change(low, high)} ({low} to {high} bits per byte)."
            )


def _price_of_lanes(found: Found) -> Iterable[str]:
    most = max(found.plan.lanes)
    for mode, subject in {"mixer": "the mixer alone", "mixed": "model and mixer"}.items():
        one, many = found.coded(mode), found.coded(mode, lanes=most)
        if one is not None and many is not None and most > 1:
            yield f"{most} lanes instead of 1, {subject}: {change(one, many)}."


def _price_of_integers(found: Found) -> Iterable[str]:
    exact, as_trained = found.coded("model", key="payload_bits_per_byte"), found.scored("base")
    if exact is not None and as_trained is not None:
        yield (
            f"Integers instead of floats cost {exact.mean - as_trained.mean:+.4f} bits per byte "
            f"({as_trained} to {exact}, one lane, headers aside)."
        )


def _promises_kept(found: Found) -> Iterable[str]:
    """How far the float codec's payloads are from the models' own likelihood."""
    shares = [
        abs(values["payload_bits_per_byte"] / values["expected_bits_per_byte"] - 1)
        for rule in found.plan.patches.rules
        for seed in range(found.plan.seeds)
        if (values := found.record.values(f"float codec {rule.name} seed {seed}")) is not None
    ]
    if shares:
        yield (
            f"Patched models as codecs: what was written is within {100 * max(shares):.2f} % of "
            f"the models' own bits per byte ({len(shares)} models, headers aside)."
        )


def _among_rules(found: Found) -> Iterable[str]:
    for first, second, difference, p_value in _rule_tests(found):
        low, high = difference.interval
        gap = (
            f"{difference.difference:+.4f} bits per byte, 95 % {low:+.4f} to {high:+.4f}, "
            f"p = {p_value:.2g} after Holm"
        )
        one, other = found.scored(first), found.scored(second)
        assert one is not None, "it was tested"
        assert other is not None, "it was tested"
        # The test knows these bytes, the seeds know the trainings: both must tell them apart.
        is_shown = p_value < SIGNIFICANT and low * high > 0 and is_apart(one, other)
        if is_shown:
            less, more = (first, second) if difference.difference < 0 else (second, first)
            yield f"Patches: '{less}' needs fewer bits than '{more}' ({gap})."
        else:
            yield f"Patches: no difference shown between '{first}' and '{second}' ({gap})."


def _rule_tests(found: Found) -> list[tuple[str, str, PairedDifference, float]]:
    """Neighbors among the patch rules, best first: paired over blocks of the same bytes."""
    bits = {
        rule.name: blocks
        for rule in found.plan.patches.rules
        if (blocks := _block_bits(found, rule.name)) is not None
    }
    ranked = sorted(bits, key=lambda name: float(bits[name][0].sum()))
    tests = [
        (first, second, paired_difference(bits[first][0], bits[second][0], bits[first][1]))
        for first, second in pairwise(ranked)
        if len(bits[first][1]) > 1
    ]
    adjusted = holm([test[2].p_value for test in tests])
    return [(*test, p_value) for test, p_value in zip(tests, adjusted, strict=True)]


def _block_bits(found: Found, arm: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Bits of each block, the mean over seeds, and the blocks' bytes."""
    scores = [
        values
        for seed in range(found.plan.seeds)
        if (values := found.record.values(f"score {arm} seed {seed}")) is not None
    ]
    if not scores:
        return None
    return np.mean([score["block_bits"] for score in scores], axis=0), np.array(
        scores[0]["block_bytes"]
    )

"""Tables of integers. Oracle: 60 digits of `decimal`, and values by hand."""

import decimal
from decimal import Decimal

import numpy as np

from bytelm.compression.integer_tables import (
    EXP2_BITS,
    EXP2_FRACTION_BITS,
    ONE_BITS,
    SIGMOID_HALF,
    SIGMOID_STEPS,
    exp2_table,
    sigmoid_table,
)

HALF = Decimal("0.5")


def test_sigmoids_are_rounded_to_nearest():
    with decimal.localcontext() as context:
        context.prec = 60
        for index in range(0, 2 * SIGMOID_HALF + 1, 7):
            argument = Decimal(index - SIGMOID_HALF) / SIGMOID_STEPS
            exact = (1 << ONE_BITS) / (1 + (-argument).exp())
            assert abs(exact - int(sigmoid_table()[index])) <= HALF


def test_sigmoids_by_hand():
    table = sigmoid_table().astype(np.int64)
    assert len(table) == 2 * SIGMOID_HALF + 1
    assert table[SIGMOID_HALF] == 1 << (ONE_BITS - 1)
    assert (table + table[::-1] == 1 << ONE_BITS).all()
    assert (np.diff(table) >= 0).all()
    assert table[SIGMOID_HALF + SIGMOID_STEPS] == round(0.7310585786300049 * 2**ONE_BITS)


def test_powers_of_two_are_rounded_to_nearest():
    steps = 1 << EXP2_FRACTION_BITS
    assert len(exp2_table()) == steps
    with decimal.localcontext() as context:
        context.prec = 60
        for index in range(steps):
            exact = (1 << EXP2_BITS) * Decimal(2) ** (Decimal(-index) / steps)
            assert abs(exact - int(exp2_table()[index])) <= HALF


def test_powers_of_two_by_hand():
    assert exp2_table()[0] == 1 << EXP2_BITS
    assert exp2_table()[1024] == round(0.7071067811865476 * 2**EXP2_BITS)

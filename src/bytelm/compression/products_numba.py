"""`products.multiply` for numba: the instructions, as LLVM spells them for any processor.

Loops over int8 and int16 are compiled to a third of what the processor can do: the vectorizer does
not see that two neighboring products may be added at once. Written out for vectors, LLVM takes
vpdpwssd, vpmaddwd, smlal or plain multiplications, whatever there is; the sums are the same.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from bytelm.compression.kernels import kernel

_LANES = 16
"""Sums in a vector: 512 bits."""

_WORDS = 2
"""Vectors of int16 in a pair of columns of 64 rows; each is of two vectors of rows."""

_STEPS = 2
"""Pairs of columns with sums of their own, because an addition takes several cycles."""

_WORD, _SUM, _SIZE = (ir.IntType(bits) for bits in (16, 32, 64))
_SUMS = ir.VectorType(_SUM, _LANES)
_PRODUCTS = ir.VectorType(_SUM, 2 * _LANES)
_FACTORS = ir.VectorType(_WORD, 2 * _LANES)


def _typed_block(
    _context: Any, packed: Any, block: Any, vector: Any, offset: Any, out: Any
) -> tuple[Any, Callable[..., Any]]:
    """Multiply the 64 rows of a block with a vector, less `offset` in the rows of low bytes."""
    signature = types.void(packed, block, vector, offset, out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        weights = context.make_array(kinds[0])(context, builder, args[0])
        inputs = context.make_array(kinds[2])(context, builder, args[2])
        sums = context.make_array(kinds[4])(context, builder, args[4])
        pairs = builder.extract_value(weights.shape, 1)
        first = builder.mul(args[1], builder.mul(pairs, _SIZE(2 * _LANES * _WORDS)))
        found = _emit_block(
            builder,
            builder.gep(builder.bitcast(weights.data, _WORD.as_pointer()), [first]),
            builder.bitcast(inputs.data, _SUM.as_pointer()),
            pairs,
        )
        target = builder.bitcast(sums.data, _SUM.as_pointer())
        offset = _emit_everywhere(builder, builder.trunc(args[3], _SUM))
        for index, value in enumerate(_emit_rows(builder, found, offset)):
            place = builder.mul(args[1], _SIZE(2 * _LANES * _WORDS))
            place = builder.add(place, _SIZE(_LANES * index))
            address = builder.bitcast(builder.gep(target, [place]), _SUMS.as_pointer())
            builder.store(value, address, align=4)
        return context.get_dummy_value()

    return signature, generate


_multiply_block: Any = intrinsic(_typed_block)


def _emit_block(builder: Any, weights: Any, inputs: Any, pairs: Any) -> list[Any]:
    """A loop over pairs of columns; the four vectors of sums after it."""
    before = builder.block
    loop = builder.append_basic_block("products")
    after = builder.append_basic_block("products.after")
    builder.branch(loop)
    builder.position_at_end(loop)
    pair = builder.phi(_SIZE)
    sums = [builder.phi(_SUMS) for _ in range(_STEPS * 2 * _WORDS)]
    found = []
    for step in range(_STEPS):
        now = builder.add(pair, _SIZE(step))
        both = builder.load(builder.gep(inputs, [now]), align=2)
        values = builder.bitcast(_emit_everywhere(builder, both), _FACTORS)
        for index in range(_WORDS):
            place = builder.mul(now, _SIZE(2 * _LANES * _WORDS))
            place = builder.add(place, _SIZE(2 * _LANES * index))
            address = builder.bitcast(builder.gep(weights, [place]), _FACTORS.as_pointer())
            words = builder.load(address, align=2)
            for factors in (words, builder.ashr(words, _FACTORS([8] * (2 * _LANES)))):
                found.append(_emit_sum(builder, sums[len(found)], factors, values))
    following = builder.add(pair, _SIZE(_STEPS))
    pair.add_incoming(_SIZE(0), before)
    pair.add_incoming(following, loop)
    for total, value in zip(sums, found, strict=True):
        total.add_incoming(_SUMS([0] * _LANES), before)
        total.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
    builder.position_at_end(after)
    return found


def _emit_everywhere(builder: Any, value: Any) -> Any:
    """An int32, in each place of a vector."""
    nothing = _SUMS(ir.Undefined)
    alone = builder.insert_element(nothing, value, _SUM(0))
    return builder.shuffle_vector(alone, nothing, _SUMS([0] * _LANES))


def _emit_sum(builder: Any, total: Any, weights: Any, values: Any) -> Any:
    """`total` and, for each row, its two weights times their inputs."""
    products = builder.mul(builder.sext(weights, _PRODUCTS), builder.sext(values, _PRODUCTS))
    nothing = _PRODUCTS(ir.Undefined)
    even, odd = (
        builder.shuffle_vector(products, nothing, _SUMS(list(range(start, 2 * _LANES, 2))))
        for start in (0, 1)
    )
    return builder.add(total, builder.add(even, odd))


def _emit_rows(builder: Any, found: list[Any], offset: Any) -> list[Any]:
    """The sums of rows: see `products` for why."""
    rows = []
    for index in range(0, 2 * _WORDS, 2):
        both, high = (
            builder.add(found[index + half], found[index + half + 2 * _WORDS]) for half in (0, 1)
        )
        low = builder.sub(both, builder.shl(high, _SUMS([8] * _LANES)))
        rows += [builder.sub(low, offset), high]
    return rows


@kernel
def multiply(packed: np.ndarray, vector: np.ndarray, out: np.ndarray) -> None:
    """See `products`."""
    total = np.int64(0)
    for column in range(vector.shape[0]):
        total += vector[column]
    for block in range(packed.shape[0]):
        _multiply_block(packed, block, vector, 128 * total, out)

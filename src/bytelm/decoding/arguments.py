"""What callers hand to decoding, checked before anything is read or changed."""

import operator

import numpy as np


def whole(name: str, value: object, *, low: int = 0, high: int | None = None) -> int:
    """Return a count, a seed or a row as an int; of any type that is a whole number.

    Raises:
        ValueError: It is not one, or not from `low` to `high`; the message names it.

    """
    try:
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        limits = f"at least {low}" if high is None else f"{low} to {high}"
        raise ValueError(f"{name} must be a whole number, {limits}, got {value!r}")
    return number


def byte_array(name: str, data: object) -> np.ndarray:
    """Return bytes as uint8 `[n]`; memory is shared where that is possible.

    Raises:
        ValueError: The data are of another type, or their elements are not bytes.

    """
    match data:
        case bytes() | bytearray():
            return np.frombuffer(data, np.uint8)
        case memoryview() if data.itemsize == 1 and data.ndim == 1:
            return np.frombuffer(data if data.c_contiguous else data.tobytes(), np.uint8)
        case np.ndarray() if data.dtype == np.uint8 and data.ndim == 1:
            return np.ascontiguousarray(data)
        case np.ndarray():
            got = f"an array {data.dtype} {list(data.shape)}"
        case memoryview():
            got = f"a memoryview of format {data.format!r}, {data.ndim} dimensions"
        case _:
            got = type(data).__name__
    raise ValueError(f"{name}: expected bytes, or an array uint8 [n], got {got}")

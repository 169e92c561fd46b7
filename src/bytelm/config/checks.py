"""Ranges of the sizes in a configuration, checked before anything is divided or allocated."""

import math

MAX_LAYERS = 1_000
"""Layers of one transformer. Checkpoints are passed around, and their layers are built before a
weight is read: 10^8 of them would fill the memory of whoever opens the file."""

MAX_NGRAM_BYTES = 64
"""Bytes of one n-gram: hashing takes a pass per byte of the longest."""

MAX_PATCH_VECTORS = 64
"""Vectors of one patch in cross-attention: each is as large as a byte's."""

MAX_SIZE = 2**31 - 1
"""Any other size: far above every model, and products of a few of them stay finite as floats."""


def require_positive(config: object, *names: str, least: int = 1, most: int = MAX_SIZE) -> None:
    """Refuse fields that are zero, negative, no number or too large.

    Args:
        config: The object that has the fields.
        names: Fields to check. None is a setting left out; of a tuple every item is checked; a
            float may be any finite number above 0, whatever the bounds.
        least: Smallest whole number.
        most: Largest whole number.

    Raises:
        ValueError: Names the first field that is out of range.

    """
    for name in names:
        value = getattr(config, name)
        for item in value if isinstance(value, tuple) else (value,):
            wanted = _broken_rule(item, least, most)
            if wanted:
                place = f"each of {name}" if isinstance(value, tuple) else name
                raise ValueError(f"{place} must be {wanted}, got {item}")


def require_heads(config: object, dim: str, heads: str, kv_heads: str | None = None) -> None:
    """Refuse attention heads that do not divide their width, or key/value heads that do not them.

    Args:
        config: The object that has the fields.
        dim: Field of the width.
        heads: Field of the heads; a head needs an even width, for rotary pairs.
        kv_heads: Field of the key/value heads, which may be None: one for each head.

    Raises:
        ValueError: Names the fields.

    """
    width, count = getattr(config, dim), getattr(config, heads)
    if width % (2 * count):
        raise ValueError(
            f"{dim} must be a multiple of 2 * {heads} (rotary pairs), got {dim} = {width}, "
            f"{heads} = {count}"
        )
    groups = None if kv_heads is None else getattr(config, kv_heads)
    if groups is not None and count % groups:
        raise ValueError(
            f"{heads} must be a multiple of {kv_heads}, got {heads} = {count}, "
            f"{kv_heads} = {groups}"
        )


def _broken_rule(value: float | None, least: int, most: int) -> str | None:
    """What the value must be and is not; None where it is in range."""
    if value is None:
        return None
    if isinstance(value, float):
        return None if 0 < value < math.inf else "a finite number above 0"
    if value < least:
        return f"at least {least}"
    return f"at most {most}" if value > most else None

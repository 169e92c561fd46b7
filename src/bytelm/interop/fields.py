"""Read a foreign configuration so that nothing in it is overlooked.

Every key is either read, or known to have no influence on the arithmetic, or refused by name.
"""

import sys
from collections.abc import Mapping
from typing import Any

from bytelm.errors import ConfigError

_OF_EVERY_CONFIGURATION = """
model_type architectures transformers_version dtype torch_dtype _name_or_path name_or_path auto_map
_commit_hash return_dict output_hidden_states output_attentions id2label label2id problem_type
chunk_size_feed_forward is_encoder_decoder is_decoder attn_implementation _attn_implementation
_attn_implementation_autoset initializer_range use_cache torchscript use_bfloat16
pad_token_id bos_token_id eos_token_id sep_token_id decoder_start_token_id
"""
_OF_GENERATION_BEFORE_VERSION_5 = """
max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
encoder_no_repeat_ngram_size num_return_sequences output_scores return_dict_in_generate
"""
# where and how to compute, not what
_OF_THE_CONVERTER_OF_THE_RELEASE = """
attn_impl attn_bias_type patching_device realtime_patching patching_batch_size
"""
HARMLESS = frozenset(
    (
        _OF_EVERY_CONFIGURATION + _OF_GENERATION_BEFORE_VERSION_5 + _OF_THE_CONVERTER_OF_THE_RELEASE
    ).split()
)
"""Keys that change no logit and no patch."""

MAX_SIZE = 2**31 - 1

MAX_CONTEXT = 2**24
"""Bytes that a model sees at once; more is taken for damage, as no machine computes it."""

MAX_ITEMS = 64
"""Of a list of sizes."""

MAX_SHOWN = 40
"""Characters of a value in a message."""


class Fields:
    """One table of a foreign configuration; what is not read is found by `finish`.

    Args:
        table: The JSON object.
        where: Names it in messages.

    """

    def __init__(self, table: object, where: str) -> None:
        if not isinstance(table, Mapping):
            raise ConfigError(f"{where}: expected a table, got {_shown(table)}")
        self._table, self.where, self._read = table, where, set()

    def error(self, message: str) -> ConfigError:
        """Make the error that names this table."""
        return ConfigError(f"{self.where}: {message}")

    def has(self, name: str) -> bool:
        """Whether the key is there, even with the value null."""
        return name in self._table

    def given(self, name: str) -> Any:
        """A value as it stands; None where it is absent."""
        self._read.add(name)
        return self._table.get(name)

    def _value(self, name: str, default: Any, null: Any) -> Any:
        """A value, `default` where the key is absent, `null` where it stands for nothing."""
        value = self.given(name)
        if value is not None:
            return value
        return null if self.has(name) else default

    def whole(
        self,
        name: str,
        default: int | None = None,
        *,
        null: int | None = None,
        most: int = MAX_SIZE,
    ) -> int:
        """A size, at least 1.

        Args:
            name: The key.
            default: What transformers takes for an absent one; None: it must be there.
            null: What transformers takes for null; None: it cannot.
            most: The largest that is read.

        """
        value = self._value(name, default, null)
        if type(value) is not int or not 1 <= value <= most:
            raise self.error(
                f"{name} must be a whole number from 1 to {most:,}, got {_shown(value)}"
            )
        return value

    def context(self, default: int | None = None) -> int:
        """`max_position_embeddings`, in bytes; the default is that of transformers."""
        return self.whole("max_position_embeddings", default, most=MAX_CONTEXT)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number; the default is that of transformers."""
        value = self._value(name, default, None)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # false for NaN, and exact for a whole number that no float can hold
        if not (is_number and abs(value) <= sys.float_info.max):
            raise self.error(f"{name} must be a finite number, got {_shown(value)}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false; the default is that of transformers, and null is false."""
        value = self._value(name, default, False)
        if type(value) is not bool:
            raise self.error(f"{name} must be true or false, got {_shown(value)}")
        return value

    def sizes(self, name: str, default: list[int]) -> tuple[int, ...]:
        """A list of sizes; transformers takes the default for an empty one too."""
        value = self.given(name) or default
        if not isinstance(value, list) or not all(
            type(v) is int and 1 <= v <= MAX_SIZE for v in value
        ):
            raise self.error(
                f"{name} must be a list of whole numbers from 1 to {MAX_SIZE:,}, "
                f"got {_shown(value)}"
            )
        if len(value) > MAX_ITEMS:
            raise self.error(f"{name} has {len(value)} items, expected at most {MAX_ITEMS}")
        return tuple(value)

    def table(self, name: str) -> "Fields":
        """A table in this one; an absent one is empty, so that all its keys are defaults."""
        value = self.given(name)
        return Fields({} if value is None else value, f"{self.where}: {name}")

    def must_be(self, name: str, wanted: Any, why: str, *, null: Any = None) -> None:
        """Refuse any value but `wanted`, which is also what an absent key means.

        Args:
            name: The key.
            wanted: The value.
            why: Ends the message.
            null: What null means; None: nothing that is wanted.

        """
        value = self._value(name, wanted, null)
        if (type(value), value) != (type(wanted), wanted):
            is_equal = type(value) in (int, float) and type(wanted) in (int, float)
            if not (is_equal and value == wanted):
                raise self.error(f"{name} is {_shown(value)}, expected {wanted!r}: {why}")

    def rope_theta(self, default: float) -> float:
        """Base of the rotary positions, in the spelling of version 5 or of version 4.

        Raises:
            ConfigError: The positions are scaled in some way.

        """
        theta = None
        for name in ("rope_parameters", "rope_scaling"):
            table = self.table(name)
            # "type" is what versions before 4.45 wrote
            for key in ("rope_type", "type"):
                why = "scaled rotary positions are not supported"
                table.must_be(key, "default", why, null="default")
            stated = table.given("rope_theta")
            theta = table.number("rope_theta") if stated is not None else theta
            table.finish()
        own = self.given("rope_theta")
        theta = self.number("rope_theta") if own is not None and theta is None else theta
        theta = default if theta is None else theta
        if theta <= 0:
            raise self.error(f"rope_theta must be above 0, got {theta}")
        return theta

    def finish(self) -> None:
        """Refuse a key that nobody read, unless it is absent in all but name.

        Raises:
            ConfigError: It has a value, which may change the arithmetic.

        """
        for name, value in self._table.items():
            is_set = not (value is None or value is False or value in (0, [], {}, ""))
            if name not in self._read and name not in HARMLESS and is_set:
                raise self.error(
                    f"the key {name!r} ({_shown(value)}) is unknown here and may change what "
                    "the model computes; take it out if it does not"
                )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."

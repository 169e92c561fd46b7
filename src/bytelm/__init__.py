"""bytelm: language models that read raw bytes.

    import bytelm
    model = bytelm.load("runs/blt-small")     # any trained model
    model.bits_per_byte(data)                 # bits per raw byte of one document

A byte enters at the top of this list and leaves at the bottom; imports only point up it.

    errors, files     what a user is told; files that are written whole or not at all
    config            recipes and flags as frozen dataclasses
    nn                blocks that know nothing of bytes
    vocab             256 byte values and 4 specials
    data              documents, splits, batches
    patching          where patches start: values over bytes and entropies
    models            byte GPT, entropy LM, recurrent, n-gram counts, BLT, and what they cost
    decoding          reading documents step by step, sessions, sampling, beams, speculation
    evaluation        bits per byte, reference compressors, intervals
    training          runs: loop, step, optimizers, schedules, checkpoints
    compression       the `.blm` codec: mixer, exact integer models, container
    interop           directories of transformers, in and out
    apps              what people look at: patch pages, reports, the demo
    experiments       studies: a plan in TOML, resumed, with statistics and figures
    cli               one file a verb

`language_model` composes them and is built last.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bytelm.decoding.beam import Hypothesis
    from bytelm.errors import BytelmError, CheckpointError, ConfigError, DataError, RunError
    from bytelm.language_model import LanguageModel, Scored, load

__version__ = "0.1.0"

_HOMES = {
    "BytelmError": "bytelm.errors",
    "CheckpointError": "bytelm.errors",
    "ConfigError": "bytelm.errors",
    "DataError": "bytelm.errors",
    "Hypothesis": "bytelm.decoding.beam",
    "RunError": "bytelm.errors",
    "LanguageModel": "bytelm.language_model",
    "Scored": "bytelm.language_model",
    "load": "bytelm.language_model",
}
"""Where each public name lives; loaded when asked for, so that `bytelm --help` needs no torch."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bytelm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


__all__ = [
    "BytelmError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Hypothesis",
    "LanguageModel",
    "RunError",
    "Scored",
    "load",
]

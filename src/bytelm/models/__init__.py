"""The models, one file each, and how a checkpoint names them.

byte_gpt.py    a plain byte transformer: the strong baseline
entropy_lm.py  a small windowed byte transformer: where is the next byte hard to predict?
ngram.py       integer counts: the same question without training
blt.py         the Byte Latent Transformer
recurrent.py   a gated recurrence with hashed n-grams: the model of the codec
seq2seq.py     an encoder-decoder over bytes and its patched twin; no language model
cost.py        parameters and FLOPs of any of them, from its configuration alone
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from bytelm.config import from_dict, to_dict
from bytelm.errors import CheckpointError
from bytelm.models.blt import BLT, BLTConfig
from bytelm.models.byte_gpt import ByteGPT, ByteGPTConfig
from bytelm.models.entropy_lm import EntropyLM, EntropyLMConfig
from bytelm.models.ngram import Ngram, NgramConfig
from bytelm.models.recurrent import Recurrent, RecurrentConfig
from bytelm.models.seq2seq import PatchEncoderConfig, Seq2Seq, Seq2SeqConfig
from bytelm.patching import Patcher

ModelConfig = ByteGPTConfig | EntropyLMConfig | NgramConfig | BLTConfig | RecurrentConfig
ByteModel = ByteGPT | EntropyLM | Ngram | BLT | Recurrent
EntropySource = EntropyLM | Ngram
AnyModel = ByteModel | Seq2Seq
"""What a checkpoint may hold: a model of bytes, or one that maps an input to a target."""


def build(
    config: ModelConfig,
    *,
    patcher: Patcher | None = None,
    entropy_model: EntropySource | None = None,
) -> ByteModel:
    """A model with fresh weights; only a BLT takes a patcher and an entropy model.

    Raises:
        ValueError: A BLT without a patcher, or a patchless model with one.

    """
    if isinstance(config, BLTConfig):
        if patcher is None:
            raise ValueError("a blt needs a patcher: add a [patching] table")
        return BLT(config, patcher, entropy_model)
    if patcher is not None:
        raise ValueError(f"a {config.kind} has no patches: remove the [patching] table")
    match config:
        case ByteGPTConfig():
            return ByteGPT(config)
        case EntropyLMConfig():
            return EntropyLM(config)
        case NgramConfig():
            return Ngram(config)
        case RecurrentConfig():
            return Recurrent(config)


def definition(model: AnyModel) -> dict[str, Any]:
    """Everything but the weights, as JSON: configuration, patcher, entropy model."""
    if isinstance(model, BLT | Seq2Seq) and model.patcher is not None:
        source = model.entropy_model
        return {
            "model": to_dict(model.config),
            "patcher": to_dict(model.patcher),
            "entropy_model": None if source is None else definition(source),
        }
    return {"model": to_dict(model.config)}


def from_definition(stored: Mapping[str, Any]) -> AnyModel:
    """Build the model that `definition` described; its weights are to be loaded.

    Raises:
        CheckpointError: Keys are missing or unknown.
        ConfigError: A stored configuration is not one of this version.

    """
    expected = {"model"} if set(stored) == {"model"} else {"model", "patcher", "entropy_model"}
    if set(stored) != expected:
        raise CheckpointError(
            f"a model definition has the keys {sorted(expected)}, got {sorted(stored)}: "
            "the checkpoint is damaged or of another program"
        )
    config = from_dict(ModelConfig | Seq2SeqConfig, stored["model"], where="model")
    if "patcher" not in stored:
        return Seq2Seq(config) if isinstance(config, Seq2SeqConfig) else build(config)
    patcher = from_dict(Patcher, stored["patcher"], where="patcher")
    source = None if stored["entropy_model"] is None else from_definition(stored["entropy_model"])
    if not isinstance(source, EntropySource | None):
        raise CheckpointError(f"a {source.config.kind} cannot be an entropy model")
    if isinstance(config, Seq2SeqConfig):
        if isinstance(source, EntropyLM):
            raise CheckpointError("a seq2seq takes its entropies from an ngram, got an entropy-lm")
        return Seq2Seq(config, patcher, source)
    return build(config, patcher=patcher, entropy_model=source)


Role = Literal["matrix", "hash_table", "other"]

_NOT_HIDDEN = {"embed", "position_embed", "head"}


def parameter_role(name: str, parameter: nn.Parameter) -> Role:
    """Which optimizer a parameter belongs to: Muon is for the matrices between hidden states."""
    if getattr(parameter, "is_hash_table", False):
        return "hash_table"
    hidden = parameter.ndim == 2 and not _NOT_HIDDEN & set(name.split("."))
    return "matrix" if hidden else "other"


__all__ = [
    "BLT",
    "AnyModel",
    "BLTConfig",
    "ByteGPT",
    "ByteGPTConfig",
    "ByteModel",
    "EntropyLM",
    "EntropyLMConfig",
    "EntropySource",
    "ModelConfig",
    "Ngram",
    "NgramConfig",
    "PatchEncoderConfig",
    "Patcher",
    "Recurrent",
    "RecurrentConfig",
    "Seq2Seq",
    "Seq2SeqConfig",
    "build",
    "definition",
    "from_definition",
    "parameter_role",
]

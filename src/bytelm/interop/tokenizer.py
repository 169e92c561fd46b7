"""The byte tokenizer that `AutoTokenizer` of transformers loads: id = byte + 4, BOS in front.

It is a BPE of 256 symbols without merges. A special is never found in text: `<|bos|>` typed by a
user is seven bytes. Text that is not UTF-8 has no place in a `str`; feed ids (byte + 4) for it.
"""

from typing import Any

from bytelm.vocab import BOE, BOS, BPE, EOS, NUM_BYTES, OFFSET

SPECIALS = {"<|boe|>": BOE, "<|bos|>": BOS, "<|eos|>": EOS, "<|bpe|>": BPE}


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte, as GPT-2 and `tokenizers` have it."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(NUM_BYTES, 2 * NUM_BYTES))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(NUM_BYTES)]


def tokenizer_json() -> dict[str, Any]:
    """The file tokenizer.json of the library `tokenizers`."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": id, "content": text, **flags, "special": True} for text, id in SPECIALS.items()]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    bos = {"SpecialToken": {"id": "<|bos|>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                bos,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [BOS], "tokens": ["<|bos|>"]}},
        },
        "decoder": {**byte_level, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": SPECIALS
            | {symbol: byte + OFFSET for byte, symbol in enumerate(byte_symbols())},
            "merges": [],
        },
    }


def tokenizer_config() -> dict[str, Any]:
    """The file tokenizer_config.json of transformers."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|boe|>",
        # a text is bytes, whatever is written in it
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "model_max_length": 10**30,
    }

"""The byte tokenizer. Oracle: UTF-8 by Python, ids by `vocab.py`, specials by hand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.interop.tokenizer import SPECIALS, byte_symbols, tokenizer_config, tokenizer_json
from bytelm.vocab import BOS, EOS, OFFSET

PIECES = [
    "<|bos|>",
    "<|eos|>",
    "<|boe|>",
    "<|bpe|>",
    "<bos>",
    " ",
    "\n",
    "\r\n",
    "\u0120",
    "\u00e9",
    "e\u0301",
    "a",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """As AutoTokenizer loads it from a directory that holds nothing else."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    for name, value in [
        ("tokenizer.json", tokenizer_json()),
        ("tokenizer_config.json", tokenizer_config()),
        ("config.json", {"model_type": "blt"}),
    ]:
        (folder / name).write_text(json.dumps(value))
    return AutoTokenizer.from_pretrained(folder)


texts = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)


@given(text=texts)
def test_any_text_is_its_bytes_after_bos_and_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids == [BOS, *(byte + OFFSET for byte in text.encode())]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.decode([*ids, EOS], skip_special_tokens=True) == text


@given(pieces=st.lists(texts, min_size=1, max_size=3))
def test_a_padded_batch_has_a_mask(tokenizer, pieces):
    batch = tokenizer(pieces, padding=True)
    for text, ids, mask in zip(pieces, batch["input_ids"], batch["attention_mask"], strict=True):
        own = tokenizer.encode(text)
        assert ids == own + [0] * (len(ids) - len(own))
        assert mask == [1] * len(own) + [0] * (len(ids) - len(own))


def test_the_specials_have_their_ids(tokenizer):
    assert {text: tokenizer.convert_tokens_to_ids(text) for text in SPECIALS} == SPECIALS
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    assert len(tokenizer) == 260
    assert tokenizer.decode([BOS, 104 + OFFSET, EOS]) == "<|bos|>h<|eos|>"


def test_bytes_that_are_no_text_become_replacement_characters(tokenizer):
    assert tokenizer.decode([0xFF + OFFSET, 97 + OFFSET]) == "\ufffda"


def test_the_symbols_are_those_of_the_library():
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(byte_symbols()) == sorted(ByteLevel.alphabet())
    assert byte_symbols()[ord("a")] == "a"

"""The README.md of an exported directory: what it is and how it is loaded."""

from bytelm.interop.byte_gpt import MODEL_TYPE as BYTE_GPT
from bytelm.interop.mistral import MODEL_TYPE as MISTRAL

_CARD = """---
library_name: transformers
pipeline_tag: text-generation
---

# A byte-level language model, exported by bytelm

{architecture}, {parameters:,} parameters. It reads and writes bytes: id = byte + 4, after BOS (1).

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(DIR{arguments})
tokenizer = AutoTokenizer.from_pretrained(DIR{arguments})
ids = tokenizer("A prompt", return_tensors="pt")
out = model.generate(**ids, max_new_tokens=100, do_sample=False)
print(tokenizer.decode(out[0], skip_special_tokens=True))
```

{notes}
- Specials are never written (`suppress_tokens` in generation_config.json).
- Bytes that are no UTF-8 have no place in a `str`: give `model` their ids.

`bytelm import DIR RUN` reads this directory back, bit for bit.
"""

_BLT = """- Keep `use_cache=False`, as the configuration has it: with a cache, transformers 5.23
  raises an error or writes other text. Every byte then costs a pass over the whole text; bytelm
  decodes the same model with a cache.
- Give prompts one at a time, or of equal length: padding on the left changes the patches.
- The entropy model and its threshold are inside (`model.patcher`, `patching_threshold`)."""

_LONG = """
- Trained on at most {context_bytes:,} bytes at once. bytelm forgets the beginning of a longer text;
  transformers does not, and then computes what was never trained."""

_MISTRAL = "- The sliding window is part of the model. Caches and padding on the left work."

_OWN_CODE = """- `trust_remote_code=True` runs modeling_bytelm_byte_gpt.py, which lies beside the
  weights.
- Rows may be padded on the left. There is no cache: every byte costs a pass over the text."""


def card(config: dict[str, object], parameters: int, context_bytes: int) -> str:
    """The text, for a config.json of this package."""
    notes = {MISTRAL: _MISTRAL, BYTE_GPT: _OWN_CODE}.get(str(config["model_type"]), _BLT)
    if config["model_type"] != MISTRAL and config.get("sliding_window") is None:
        notes += _LONG.format(context_bytes=context_bytes)
    architectures = config["architectures"]
    assert isinstance(architectures, list), "written by this package"
    return _CARD.format(
        architecture=architectures[0],
        parameters=parameters,
        arguments=", trust_remote_code=True" if config["model_type"] == BYTE_GPT else "",
        notes=notes,
    )

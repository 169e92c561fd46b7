"""Models in and out of the directories of `transformers`, with proof that they are the same.

Nothing here imports `transformers` but `parity.py`: the directories are written and read as the
files that they are, so that no foreign code runs and no pickle is opened.

    huggingface.py     export a run, import a directory, find what `--init` means
    blt.py names.py    BltForCausalLM: its configuration, and what its weights are called
    released.py        the layout of Meta's release
    mistral.py         an entropy LM as MistralForCausalLM
    byte_gpt.py        a byte GPT with modeling code of its own (hub_code/)
    fields.py          reading a foreign config.json strictly
    weight_files.py    safetensors, whole or in shards, without loading them
    card.py            the README.md of an export
    tokenizer.py       the byte tokenizer that AutoTokenizer loads
    random_models.py   models and rows to compare with
    parity.py          how far a model is from the one that transformers makes of its export
"""

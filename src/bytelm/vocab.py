"""The 260 ids: four specials, then the 256 byte values.

The numbering is that of the released Byte Latent Transformers (id = byte + 4), so that weights
move between projects without a table of ids.
"""

BOE = 0
"""Beginning of example; used here only as padding, and as the value left of the first id."""

BOS = 1
"""Beginning of a document; the context of a document's first byte."""

EOS = 2
"""End of a document; never a target here, because a file's length is not part of its bytes."""

BPE = 3
"""Delimiter of the released vocabulary; unused."""

OFFSET = 4
"""id = byte + OFFSET."""

NUM_BYTES = 256
VOCAB_SIZE = NUM_BYTES + OFFSET

IGNORE = -100
"""Target that is never scored: padding and specials (`torch.nn.functional.cross_entropy`)."""

"""Files to batches: documents, the memory-mapped corpus, splits, shuffled windows.

Reading order: `corpus` (the value), `documents` (files to a corpus), `splits`, `contamination`,
`shuffle` (keyed order), `batches`, `synthetic`.
"""

from bytelm.data.batches import Batch, Batches, Stream, StreamStarts
from bytelm.data.contamination import Duplicate, find_duplicates, overlap
from bytelm.data.corpus import Corpus, from_documents
from bytelm.data.documents import build_corpus
from bytelm.data.splits import Overlap, Splits, split
from bytelm.data.synthetic import random_bytes, standard_library_files

__all__ = [
    "Batch",
    "Batches",
    "Corpus",
    "Duplicate",
    "Overlap",
    "Splits",
    "Stream",
    "StreamStarts",
    "build_corpus",
    "find_duplicates",
    "from_documents",
    "overlap",
    "random_bytes",
    "split",
    "standard_library_files",
]

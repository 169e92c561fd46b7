"""The corpus: bytes that stay on disk, and an index of the documents in them."""

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bytelm.errors import DataError

BLOCK_BYTES = 1 << 20
"""Bytes that are read, written or hashed at a time; bounds the memory, whatever the file's size."""

_FINGERPRINT_HEADER = b"bytelm corpus 1\0"


@dataclass(frozen=True)
class MappedFile:
    """A read-only memory map of the first bytes of a file."""

    path: Path
    data: np.ndarray
    """uint8 [size], a view of the map."""
    mapping: mmap.mmap | None
    """None for a file of no bytes, which cannot be mapped."""

    def check(self) -> None:
        """Raise DataError when the file got shorter than its map: reading it would end the process.

        Only somebody who edits the cache does that: bytelm never writes a file twice. A file that
        grows, is removed, or is replaced by another of the same name leaves the map as it was.
        """
        if self.mapping is not None and self.mapping.size() < self.data.size:
            raise DataError(
                f"{self.path} shrank to {self.mapping.size():,} bytes while it was in use, from "
                f"{self.data.size:,}; start the same command again, which makes it anew"
            )


def map_file(path: Path, size: int) -> MappedFile:
    """Map the first `size` bytes of a file, without reading them.

    Raises:
        DataError: The file has fewer bytes than `size`, or the system refuses to map it.

    """
    if size == 0:
        return MappedFile(path, np.empty(0, dtype=np.uint8), None)
    try:
        with path.open("rb") as stream:
            mapping = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot map {size:,} bytes of {path}: {error}; the file must keep its size, on a file "
            "system that supports memory maps"
        ) from error
    return MappedFile(path, np.frombuffer(mapping, dtype=np.uint8), mapping)


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Documents in a fixed order. The bytes are never copied: subsets share `data`."""

    data: np.ndarray
    """uint8, 1-D, read-only; bytes that belong to no document may lie in it."""
    starts: np.ndarray
    """int64 [num_documents], index in `data` of each document's first byte."""
    lengths: np.ndarray
    """int64 [num_documents], bytes; 0 is a document too."""
    names: tuple[str, ...]
    """For reports; printable whatever the file's name was."""
    mapped: MappedFile | None = field(default=None, repr=False)
    """The cache's file under `data`; None in memory."""
    known_fingerprint: str | None = field(default=None, repr=False)
    """`fingerprint`, when the caller has just computed it from these bytes."""

    def __post_init__(self) -> None:
        if self.data.dtype != np.uint8 or self.data.ndim != 1:
            raise ValueError(f"data must be uint8, 1-D; got {self.data.dtype}, {self.data.ndim}-D")
        if not self.starts.shape == self.lengths.shape == (len(self.names),):
            raise ValueError(
                f"starts, lengths and names must name the same documents; got {self.starts.shape}, "
                f"{self.lengths.shape} and {len(self.names)}"
            )
        ends = self.starts + self.lengths
        if len(ends) and (
            min(self.starts.min(), self.lengths.min()) < 0 or ends.max() > len(self.data)
        ):
            raise ValueError(f"every document must lie inside the {len(self.data):,} bytes of data")

    @property
    def num_bytes(self) -> int:
        """Bytes of all documents."""
        return int(self.lengths.sum())

    @property
    def num_documents(self) -> int:
        """Documents, empty ones included."""
        return len(self.names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the documents' lengths and bytes, in order; names do not count."""
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        self.check()
        return fingerprint_of(self.lengths, self._blocks())

    def document(self, index: int) -> np.ndarray:
        """View one document, uint8 [lengths[index]]."""
        start = int(self.starts[index])
        return self.data[start : start + int(self.lengths[index])]

    def select(self, indices: Sequence[int] | np.ndarray) -> "Corpus":
        """Make a corpus of these documents, in this order, over the same bytes."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Corpus(
            data=self.data,
            starts=self.starts[chosen],
            lengths=self.lengths[chosen],
            names=tuple(self.names[index] for index in chosen),
            mapped=self.mapped,
        )

    def check(self) -> None:
        """Raise DataError when the cache's file under the corpus shrank."""
        if self.mapped is not None:
            self.mapped.check()

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.document(index) for index in range(self.num_documents))

    def _blocks(self) -> Iterator[memoryview]:
        for document in self:
            for first in range(0, len(document), BLOCK_BYTES):
                yield document[first : first + BLOCK_BYTES].data


def from_documents(documents: Sequence[bytes], names: Sequence[str] | None = None) -> Corpus:
    """Make a corpus in memory.

    Args:
        documents: Any bytes, in order; empty ones are kept.
        names: One for each document; `document-0`, `document-1`, … by default.

    Raises:
        ValueError: `names` and `documents` differ in number.

    """
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    return Corpus(
        data=np.frombuffer(b"".join(documents), dtype=np.uint8),
        starts=starts_of(lengths),
        lengths=lengths,
        names=_default_names(len(documents)) if names is None else tuple(names),
    )


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """Place documents one after another: int64 index of each one's first byte."""
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)[: len(lengths)]


def fingerprint_of(lengths: np.ndarray, blocks: Iterable[memoryview]) -> str:
    """Hash the documents' lengths, then their bytes, which arrive in blocks of any size."""
    digest = hashlib.sha256(_FINGERPRINT_HEADER)
    digest.update(np.array([len(lengths), *lengths], dtype="<i8").tobytes())
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _default_names(count: int) -> tuple[str, ...]:
    return tuple(f"document-{index}" for index in range(count))

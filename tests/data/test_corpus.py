"""Oracles: Python's bytes, and hashlib over the documented layout."""

import hashlib
import struct

import numpy as np
import pytest

from bytelm.data.corpus import Corpus, from_documents, map_file
from bytelm.errors import DataError

DOCUMENTS = [b"first", b"", b"\x00\xff\xfe binary \x00", "größe".encode("latin-1")]


def test_documents_come_back_as_they_went_in():
    corpus = from_documents(DOCUMENTS)
    assert [document.tobytes() for document in corpus] == DOCUMENTS
    assert corpus.num_documents == 4
    assert corpus.num_bytes == sum(map(len, DOCUMENTS))
    assert corpus.names == ("document-0", "document-1", "document-2", "document-3")


def test_select_shares_the_bytes_and_keeps_the_given_order():
    corpus = from_documents(DOCUMENTS, names="abcd")
    part = corpus.select([2, 0])
    assert [document.tobytes() for document in part] == [DOCUMENTS[2], DOCUMENTS[0]]
    assert part.names == ("c", "a")
    assert np.shares_memory(part.data, corpus.data)
    assert corpus.select([]).num_bytes == 0


def test_fingerprint_is_sha256_of_lengths_and_bytes():
    layout = b"bytelm corpus 1\0" + struct.pack("<5q", 4, *map(len, DOCUMENTS))
    expected = hashlib.sha256(layout + b"".join(DOCUMENTS)).hexdigest()
    assert from_documents(DOCUMENTS).fingerprint == expected
    assert from_documents(DOCUMENTS, names="abcd").fingerprint == expected


def test_fingerprint_knows_where_documents_end():
    fingerprints = {
        from_documents(documents).fingerprint
        for documents in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"abc", b""], [b"c", b"ab"])
    }
    assert len(fingerprints) == 5


def test_fingerprint_of_a_selection_is_that_of_its_bytes():
    assert (
        from_documents(DOCUMENTS).select([3, 0]).fingerprint
        == from_documents([DOCUMENTS[3], DOCUMENTS[0]]).fingerprint
    )


@pytest.mark.parametrize(
    ("starts", "lengths", "names"),
    [([0], [4], ("a",)), ([-1], [2], ("a",)), ([0], [-1], ("a",)), ([0], [1], ("a", "b"))],
)
def test_documents_outside_the_data_are_refused(starts, lengths, names):
    with pytest.raises(ValueError, match=r"inside|same documents"):
        Corpus(
            data=np.zeros(3, dtype=np.uint8),
            starts=np.array(starts, dtype=np.int64),
            lengths=np.array(lengths, dtype=np.int64),
            names=names,
        )


def test_a_mapped_file_that_shrinks_is_reported_and_not_read(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 10_000)
    mapped = map_file(path, 10_000)
    mapped.check()
    with path.open("r+b") as stream:
        stream.truncate(10)
    with pytest.raises(DataError, match=r"log shrank to 10 bytes while it was in use, from 10,000"):
        mapped.check()


def test_a_file_that_is_already_too_short_cannot_be_mapped(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(b"x")
    with pytest.raises(DataError, match="cannot map 2 bytes"):
        map_file(path, 2)

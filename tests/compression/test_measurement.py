"""The codec in processes of its own. Oracle: the same bytes compressed in this process."""

import numpy as np

from bytelm.compression import Options, compress
from bytelm.compression.measurement import measure_container


def test_the_size_is_that_of_the_container_and_it_comes_back():
    documents = [np.arange(n, dtype=np.uint8) for n in (0, 200, 100)]
    found = measure_container("ours", documents, options=Options(mode="zstd", frame_bytes=1024))
    whole = b"".join(document.tobytes() for document in documents)
    packed = compress(whole, options=Options(mode="zstd", frame_bytes=1024))
    assert (found.name, found.bytes, found.failure) == ("ours", len(packed), None)
    assert found.bits_per_byte == 8 * len(packed) / 300
    assert found.model_bytes == 0
    assert found.parameters == "mode zstd, no model"
    for effort in (found.encode, found.decode):
        assert effort is not None
        assert effort.seconds > 0

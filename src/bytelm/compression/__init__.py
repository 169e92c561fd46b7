"""Lossless compression with a model trained here, and with none.

kernels.py        loops over bytes, compiled or interpreted
coder.py          integer frequencies to bytes and back
mixer.py          a context mixer in integers: the default, which needs no model
quantize.py       a trained recurrent model as integers
integer_model.py  its arithmetic, the same on every machine
frames.py         one frame to a payload and back
models.py         any model as frequencies of the next byte; imported for itself, as it needs torch
choice.py         the smallest payload that is proven to come back
container.py      the bytes of a `.blm` file
stream.py         a container as it is written and read
codec.py          streams in, streams out
salvage.py        what is whole in a damaged container
"""

from bytelm.compression.choice import ModeName
from bytelm.compression.codec import (
    Description,
    Options,
    compress,
    compress_stream,
    decompress,
    decompress_stream,
    describe,
)
from bytelm.compression.container import Header, Mode, ModelRecord, Profile
from bytelm.compression.frames import CodecModel
from bytelm.compression.salvage import Gap, SalvageReport, salvage
from bytelm.compression.stream import FrameSummary, Limits, Summary

__all__ = [
    "CodecModel",
    "Description",
    "FrameSummary",
    "Gap",
    "Header",
    "Limits",
    "Mode",
    "ModeName",
    "ModelRecord",
    "Options",
    "Profile",
    "SalvageReport",
    "Summary",
    "compress",
    "compress_stream",
    "decompress",
    "decompress_stream",
    "describe",
    "salvage",
]

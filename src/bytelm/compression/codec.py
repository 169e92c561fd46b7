"""Compressing and decompressing streams: frames in order, worked on by several threads.

The kernels let go of Python's lock, so that threads use as many cores as processes would, and share
the model. Memory is bounded by the frames in flight.
"""

import io
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import numpy as np

from bytelm.compression import container
from bytelm.compression.choice import (
    CancelledError,
    ModeName,
    Payload,
    Work,
    compress_frame,
    decompress_frame,
)
from bytelm.compression.container import (
    DEFAULT_FRAME_BYTES,
    MAX_FRAME_BYTES,
    MAX_LANES,
    MIN_FRAME_BYTES,
    NEEDS_MODEL,
    FrameHeader,
    Header,
    Mode,
    ModelRecord,
    Profile,
    Source,
    Target,
    read_up_to,
)
from bytelm.compression.frames import CodecModel
from bytelm.compression.stream import (
    ContainerReader,
    ContainerWriter,
    FrameSummary,
    Limits,
    Summary,
    write_all,
)
from bytelm.errors import (
    CompressionError,
    DamagedError,
    EnvironmentMismatchError,
    WrongModelError,
)

_MAX_WORKERS = 4
"""A frame in work takes up to half a gigabyte: more workers are for those who ask for them."""

_Progress = Callable[[int], None]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to compress."""

    mode: ModeName = "auto"
    """auto: for each frame what is smallest of mixer, mixer with model, zstd -19 and stored."""

    lanes: int | None = None
    """Parts of a frame that are coded in lock-step; None: one, or what a float model needs."""

    frame_bytes: int = DEFAULT_FRAME_BYTES
    """Raw bytes of a frame; frames are independent: smaller ones lose less and find less."""

    verify: bool = True
    """Decode each frame before it is written."""

    workers: int | None = None
    """Frames in work at once; None: as many as the cores carry."""

    def __post_init__(self) -> None:
        _require("lanes", self.lanes, 1, MAX_LANES)
        _require("workers", self.workers, 1, 256)
        _require("frame_bytes", self.frame_bytes, MIN_FRAME_BYTES, MAX_FRAME_BYTES)
        if self.mode not in get_args(ModeName):
            raise ValueError(f"mode must be one of {get_args(ModeName)}, got {self.mode!r}")


@dataclass(frozen=True, kw_only=True)
class Description:
    """A container as its headers tell it, nothing decoded."""

    header: Header
    frames: tuple[FrameSummary, ...]
    raw_bytes: int
    compressed_bytes: int


def compress_stream(
    source: Source,
    target: Target,
    *,
    model: CodecModel | None = None,
    options: Options | None = None,
    size: int | None = None,
    on_progress: _Progress | None = None,
) -> Summary:
    """Compress all that `source` has into a container; neither needs to seek.

    Args:
        source: Raw bytes.
        target: Gets the container.
        model: Joins the mixer, or codes alone; None: the mixer needs none.
        options: How.
        size: Raw bytes in `source`, if known: it is kept in the header.
        on_progress: Called with the number of raw bytes just coded, from any thread.

    Raises:
        CompressionError: A mode that needs a model and none is given; `source` has not `size`
            bytes; or a frame did not come back when it was verified.

    """
    options = options or Options()
    if options.mode in ("model", "mixed") and model is None:
        raise WrongModelError(f"the mode {options.mode} needs a model, and none was given")
    used = None if options.mode in ("mixer", "zstd", "stored") else model
    header = Header(
        profile=Profile.NONE if used is None else used.profile,
        frame_bytes=options.frame_bytes,
        raw_bytes=size,
        model=None if used is None else _record(used),
    )
    writer = ContainerWriter(target, header)
    cancelled = threading.Event()
    work = Work(
        mode=options.mode,
        lanes=options.lanes,
        model=used,
        verify=options.verify,
        on_progress=on_progress or _nothing,
        cancelled=cancelled,
    )

    def code(data: bytes) -> tuple[bytes, Payload]:
        array = np.frombuffer(data, np.uint8)
        return container.digest(data), compress_frame(array, work)

    start = time.perf_counter()
    pieces = _cut(source, options.frame_bytes, writer, size)
    workers = _workers(options.workers, used, threads_each=2 if options.verify else 1)
    for data, (checksum, payload) in _in_order(code, pieces, workers, cancelled):
        writer.frame(len(data), checksum, payload)
    return writer.close(
        seconds=time.perf_counter() - start, model_bytes=0 if used is None else used.num_bytes
    )


def decompress_stream(
    source: Source,
    target: Target | None,
    *,
    model: CodecModel | None = None,
    limits: Limits | None = None,
    span: tuple[int, int] | None = None,
    workers: int | None = None,
    on_progress: _Progress | None = None,
) -> Summary:
    """Decompress a container, frame by frame, each verified before and after it is decoded.

    Args:
        source: The container; need not seek.
        target: Gets the raw bytes; None: everything is decoded and verified, nothing written.
        model: The one that the container was made with.
        limits: What the container may ask for.
        span: Only the raw bytes from the first number up to the second; only their frames are
            read, where `source` can seek.
        workers: Frames in work at once; None: as many as the cores carry.
        on_progress: Called with the number of raw bytes just decoded, from any thread.

    Raises:
        NotAContainerError, VersionError, WrongModelError, EnvironmentMismatchError, DamagedError,
        LimitError: As their names say. Bytes that `target` got before are right, unless frames of
            several containers were put together: the end tells.
        ValueError: `span` is none.

    """
    limits = limits or Limits()
    if span is not None and not 0 <= span[0] <= span[1]:
        raise ValueError(f"span must be (begin, end) with 0 <= begin <= end, got {span}")
    start = time.perf_counter()
    reader = ContainerReader(source, limits, span)
    check_model(reader.header, model)
    cancelled = threading.Event()

    def progress(num_bytes: int) -> None:
        if cancelled.is_set():
            raise CancelledError
        if on_progress is not None:
            on_progress(num_bytes)

    def decode(frame: tuple[FrameHeader, bytes]) -> np.ndarray:
        require_model(reader.header, frame[0], model)
        return decode_frame(*frame, model=model, on_progress=progress)

    count = _workers(workers, model, threads_each=1)
    for (header, _), data in _in_order(decode, reader.frames(), count, cancelled):
        wanted = reader.decoded(header, data)
        if target is not None:
            write_all(target, np.ascontiguousarray(wanted))
    return reader.close(seconds=time.perf_counter() - start)


def compress(
    data: Any, *, model: CodecModel | None = None, options: Options | None = None
) -> bytes:
    """Compress bytes into a container, as `compress_stream`."""
    data, target = memoryview(data).tobytes(), io.BytesIO()
    compress_stream(io.BytesIO(data), target, model=model, options=options, size=len(data))
    return target.getvalue()


def decompress(
    blob: Any, *, model: CodecModel | None = None, limits: Limits | None = None
) -> bytes:
    """Give back what `compress` got, as `decompress_stream`."""
    target = io.BytesIO()
    decompress_stream(io.BytesIO(memoryview(blob).tobytes()), target, model=model, limits=limits)
    return target.getvalue()


def describe(source: Source, *, limits: Limits | None = None) -> Description:
    """Read a container's headers, and check that it is complete; no model is needed.

    Raises:
        NotAContainerError, VersionError, DamagedError, LimitError: As of `decompress_stream`.

    """
    reader = ContainerReader(source, limits or Limits())
    for _ in reader.frames():
        pass
    summary = reader.close(seconds=0.0, decoded=False)
    return Description(
        header=reader.header,
        frames=summary.frames,
        raw_bytes=summary.raw_bytes,
        compressed_bytes=summary.compressed_bytes,
    )


def check_model(header: Header, model: CodecModel | None) -> None:
    """Refuse a model that is not the container's, or that computes otherwise here.

    None passes: perhaps no frame needs one; `require_model` is for those that do.

    Raises:
        WrongModelError: It is another one.
        EnvironmentMismatchError: The same weights predict otherwise on this machine.

    """
    wanted = header.model
    if wanted is None or model is None:
        return
    name = _name(wanted)
    if model.profile != header.profile:
        raise WrongModelError(
            f"this container was made with the profile {header.profile.name.lower()} of {name}, "
            f"got the profile {model.profile.name.lower()}: choose it with --profile"
        )
    if model.fingerprint.hex() != wanted.fingerprint:
        raise WrongModelError(
            f"this container needs {name}, got a {model.kind} with the fingerprint "
            f"{model.fingerprint.hex()}"
        )
    _check_probe(wanted, model)


def require_model(header: Header | None, frame: FrameHeader, model: CodecModel | None) -> None:
    """Refuse a frame that needs a model where none was given.

    Raises:
        WrongModelError: The message names the model.

    """
    if frame.mode not in NEEDS_MODEL or model is not None:
        return
    name = "a model" if header is None or header.model is None else _name(header.model)
    raise WrongModelError(f"this container needs {name}: give its run with --run")


def _name(wanted: ModelRecord) -> str:
    return f"a {wanted.kind} with the fingerprint {wanted.fingerprint}"


def _record(model: CodecModel) -> ModelRecord:
    return ModelRecord(
        fingerprint=model.fingerprint.hex(),
        kind=model.kind,
        probe=model.probe().hex(),
        environment=model.environment,
    )


def _check_probe(wanted: ModelRecord, model: CodecModel) -> None:
    if model.probe().hex() == wanted.probe:
        return
    if model.profile is Profile.EXACT:
        raise EnvironmentMismatchError(
            "the model's integer arithmetic gives other answers here than where this container "
            "was made, which must never happen: please report it, with this machine's type"
        )
    other = {
        name: (wanted.environment.get(name), value)
        for name, value in model.environment.items()
        if wanted.environment.get(name) != value
    }
    changes = ", ".join(f"{name} {was} there, {now} here" for name, (was, now) in other.items())
    raise EnvironmentMismatchError(
        "the model predicts otherwise here than where this container was made "
        f"({changes or 'by the record the same environment'}): float containers can only be read "
        "where they were written; use that machine, or --threads and the versions it had"
    )


def decode_frame(
    header: FrameHeader,
    payload: bytes,
    *,
    model: CodecModel | None,
    on_progress: _Progress,
) -> np.ndarray:
    """Decode one frame, whose checksum is verified before and after; uint8 `[raw_bytes]`.

    Raises:
        DamagedError: Header and payload do not belong together, or other bytes come out.

    """
    where = f"frame {header.number}"
    if not container.frame_is_whole(header, payload):
        raise DamagedError(f"{where} is damaged: its checksum is wrong; `bytelm salvage` can help")
    data = decompress_frame(
        payload,
        mode=header.mode,
        lanes=header.lanes,
        num_bytes=header.raw_bytes,
        model=model,
        on_progress=on_progress,
    )
    if container.digest(data) != header.digest:
        raise DamagedError(
            f"{where} is as it was written, but other bytes come out: this machine, or this "
            "bytelm, computes otherwise than the one that wrote it; please report it"
        )
    if header.mode in (Mode.STORED, Mode.ZSTD):
        on_progress(len(data))
    return data


def _require(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise ValueError(f"{name} must be {least:,} to {most:,}, got {value:,}")


def _nothing(num_bytes: int) -> None:
    """Nobody wants to know of progress."""


def _workers(wanted: int | None, model: CodecModel | None, *, threads_each: int) -> int:
    if model is not None and not model.is_threaded:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return wanted or max(1, min(_MAX_WORKERS, (cores or 1) // threads_each))


def _cut(
    source: Source, frame_bytes: int, writer: ContainerWriter, size: int | None
) -> Iterator[bytes]:
    """The raw bytes of each frame.

    Raises:
        CompressionError: They are not as many as was said.

    """
    total = 0
    while data := read_up_to(source, frame_bytes):
        writer.read(data)
        total += len(data)
        if size is not None and total > size:
            break
        yield data
    if size is not None and total != size:
        raise CompressionError(
            f"the input had {size:,} bytes and now has {'more' if total > size else f'{total:,}'}: "
            "it changed while it was read; compress it again"
        )


def _in_order(
    function: Callable[[_Item], _Result],
    items: Iterator[_Item],
    workers: int,
    cancelled: threading.Event,
) -> Iterator[tuple[_Item, _Result]]:
    """Each item with what `function` makes of it, in order; at most `workers` + 1 are in memory."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[_Item, Future[_Result]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            cancelled.set()
            for _, future in waiting:
                future.cancel()

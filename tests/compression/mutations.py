"""Containers that are damaged, or made to do harm: a seed gives one of them.

`python mutations.py FIRST COUNT` tries those of the seeds FIRST to FIRST + COUNT, tells as JSON
what came of them and what memory and time they took, and fails at the first that breaks a promise.
"""

import io
import json
import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import forging
import zstandard

from bytelm.compression import (
    Limits,
    Options,
    compress_stream,
    decompress,
    decompress_stream,
    describe,
    salvage,
)
from bytelm.errors import CompressionError

FRAME = 1024
LIMITS = Limits(max_output_bytes=1 << 16, max_frame_bytes=1 << 16)
MEMORY_BYTES = 256 << 20
"""What reading any of them may take beside what reading a good one takes."""

SALVAGE_EVERY = 4
"""Salvage and the reading of spans are tried with each fourth."""

_WORDS = [b"lamp", b"harbour", b"nine", b"BLFR", b"the", b"oak", b"\xff\x00", b"BLIX", b"river"]


@dataclass(frozen=True)
class Base:
    """A good container and what is in it."""

    raw: bytes
    blob: bytes


@dataclass(frozen=True)
class Hostile:
    """A container, and which contents would be right."""

    name: str
    blob: bytes
    right: frozenset[bytes]
    """Empty: it must be refused."""

    frames_of: Base | None = None
    """Its whole frames are of this container alone, by their checksums."""


@cache
def bases() -> tuple[Base, ...]:
    """One to four frames, of each mode that needs no model, and several at once."""
    rng = random.Random(11)
    text = b" ".join(rng.choice(_WORDS) for _ in range(900))
    found = []
    for mode in ("stored", "zstd", "stored", "mixer", "auto"):
        for size in (0, 1, 700, FRAME, 2 * FRAME + 300, 3 * FRAME):
            if mode in ("mixer", "auto") and size > FRAME:
                size = FRAME + 100
            raw = text[size : 2 * size]
            target = io.BytesIO()
            options = Options(mode=mode, lanes=1 + size % 7, frame_bytes=FRAME, verify=False)
            known = len(raw) if rng.random() < 0.5 else None
            compress_stream(io.BytesIO(raw), target, options=options, size=known)
            found.append(Base(raw, target.getvalue()))
    return tuple(found)


def hostile(seed: int) -> Hostile:
    """The container of this seed."""
    rng = random.Random(seed)
    names = list(_MAKERS)
    name = names[seed % len(names)]
    made = _MAKERS[name](rng)
    return Hostile(name, made.blob, made.right, made.frames_of)


def _damaged(base: Base, blob: bytes) -> Hostile:
    """Whatever was changed, only the whole content is right; and of its frames the same is true."""
    return Hostile("", blob, frozenset([base.raw] if blob == base.blob else []), base)


def _flip(rng: random.Random) -> Hostile:
    base = rng.choice(bases())
    blob = bytearray(base.blob)
    for _ in range(rng.choice((1, 1, 1, 2, 9))):
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
    return _damaged(base, bytes(blob))


def _change(rng: random.Random) -> Hostile:
    base = rng.choice(bases())
    blob = bytearray(base.blob)
    at, size = rng.randrange(len(blob)), rng.choice((1, 1, 4, 40))
    blob[at : at + size] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return _damaged(base, bytes(blob))


def _truncate(rng: random.Random) -> Hostile:
    base = rng.choice(bases())
    return _damaged(base, base.blob[: rng.randrange(len(base.blob))])


def _behead(rng: random.Random) -> Hostile:
    base = rng.choice(bases())
    return _damaged(base, base.blob[rng.randrange(1, len(base.blob)) :])


def _insert(rng: random.Random) -> Hostile:
    base = rng.choice(bases())
    at = rng.randrange(len(base.blob) + 1)
    piece = rng.choice((b"\0", b"BLFR", b"BLIX", rng.randbytes(rng.randrange(1, 60))))
    return _damaged(base, base.blob[:at] + piece + base.blob[at:])


def _delete(rng: random.Random) -> Hostile:
    base = rng.choice(bases())
    at = rng.randrange(len(base.blob))
    return _damaged(base, base.blob[:at] + base.blob[at + rng.randrange(1, 80) :])


def _garbage_after(rng: random.Random) -> Hostile:
    base = rng.choice(bases())
    piece = rng.choice((b"\0", b"\n", base.blob, forging.MAGIC[::-1], rng.randbytes(30)))
    return _damaged(base, base.blob + piece)


def _as_text(rng: random.Random) -> Hostile:
    """What transfers do that take the file for text."""
    base = rng.choice(bases())
    change = rng.choice(
        (
            lambda blob: blob.replace(b"\r\n", b"\n"),
            lambda blob: blob.replace(b"\n", b"\r\n"),
            lambda blob: bytes(byte & 0x7F for byte in blob),
            lambda blob: blob.decode("latin-1").encode(),
            lambda blob: blob.decode("utf-8", "replace").encode(),
            lambda blob: blob.split(b"\x1a")[0],
            lambda blob: blob.split(b"\0")[0],
        )
    )
    return _damaged(base, change(base.blob))


def _shuffle(rng: random.Random) -> Hostile:
    """Frames twice, missing, or in another order."""
    base = rng.choice([base for base in bases() if len(base.raw) > FRAME])
    begin, *frames, end = forging.cut(base.blob)
    chosen = [rng.choice(frames) for _ in range(rng.randrange(len(frames) + 2))]
    return _damaged(base, b"".join((begin, *chosen, end)))


def _swap(rng: random.Random) -> Hostile:
    """Frames of another container, whole, at the right place."""
    base, other = rng.choice(bases()), rng.choice(bases())
    begin, *frames, end = forging.cut(base.blob)
    others = forging.cut(other.blob)[1:-1]
    mixed = [rng.choice(pair) for pair in zip(frames, others, strict=False)]
    blob = b"".join((begin, *mixed, *frames[len(mixed) :], end))
    # Where the other's bytes are the same, nothing was swapped.
    return Hostile("", blob, frozenset([base.raw]))


def _header_claims(rng: random.Random) -> Hostile:
    """Another header whose checksum is right, before good frames."""
    base = rng.choice(bases())
    _, *rest = forging.cut(base.blob)
    claims = {
        "version": rng.choice((1, 1, 1, 0, 2, 65535)),
        "profile": rng.choice((0, 0, 1, 2, 3, 255)),
        "reserved": rng.choice((0, 0, 0, 1)),
        "frame_bytes": rng.choice((0, 1, 1023, 2048, 1 << 26, (1 << 26) + 1, 2**32 - 1)),
        "raw_bytes": rng.choice((0, 2**60, 2**63, forging.UNKNOWN, len(base.raw) + 1)),
        "record": rng.choice((b"", b"{}", b"[" * 40_000, _random_record(rng))),
    }
    if rng.random() < 0.3:
        claims["record_bytes"] = rng.choice((1, 65536, 65537, 2**31, 2**32 - 1))
    # One whole frame may have another size of frames in its header and mean the same.
    return Hostile("", forging.header(**claims) + b"".join(rest), frozenset([base.raw]))


def _random_record(rng: random.Random) -> bytes:
    def value(depth: int) -> object:
        kind = rng.randrange(7 if depth < 4 else 4)
        if kind < 4:
            return (rng.randbytes(9).hex(), rng.randrange(-(2**70), 2**70), None, 0.5)[kind]
        if kind == 4:
            return [value(depth + 1) for _ in range(3)]
        return {key: value(depth + 1) for key in rng.sample(keys, 3)}

    keys = ["environment", "fingerprint", "kind", "probe", "\x1b[31m"]
    record = {key: value(1) for key in rng.sample(keys, rng.randrange(3, 6))}
    if rng.random() < 0.5:
        record = {"environment": value(2), "fingerprint": "00", "kind": value(3), "probe": "11"}
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _record(rng: random.Random) -> Hostile:
    blob = forging.header(profile=rng.choice((1, 2)), record=_random_record(rng))
    # A record that is well formed names a model that no frame needs: nothing is in it, and nothing
    # comes out.
    return Hostile("", blob + forging.trailer([], b""), frozenset([b""]))


def _frame_claims(rng: random.Random) -> Hostile:
    """One frame whose checksum is right around numbers that nobody wrote."""
    raw = rng.randbytes(rng.randrange(1, 300))
    mode = rng.randrange(6)
    payload = rng.choice((raw, b"", rng.randbytes(rng.randrange(600)), zstandard.compress(raw)))
    framed = forging.frame(
        rng.choice((0, 0, 0, 1, 2**32 - 1)),
        payload,
        mode=mode,
        reserved=rng.choice((0, 0, 0, 0, 1)),
        lanes=rng.choice((0, 1, 1, 2, 100, 256, 257, 65535)),
        raw=raw,
        raw_bytes=rng.choice((0, len(raw), len(raw), 65536, 2**26, 2**32 - 1)),
        payload_bytes=rng.choice((len(payload), len(payload), 0, 2**31, 2**32 - 1)),
    )
    blob = forging.header(frame_bytes=rng.choice((1024, 1 << 16, 1 << 26))) + framed
    blob += forging.trailer([len(payload)], raw)
    return Hostile("", blob, frozenset([raw]))


def _wrong_payload(rng: random.Random) -> Hostile:
    """Payloads that decode to something else, with the digest of what was meant."""
    raw = rng.randbytes(rng.randrange(1, 900))
    payload = rng.choice((rng.randbytes(rng.randrange(200)), b"", b"\xff" * 90))
    mode = rng.choice((forging.MIXER, forging.ZSTD))
    framed = forging.frame(0, payload, mode=mode, lanes=rng.choice((1, 3)), raw=raw)
    return Hostile("", forging.one_frame(raw, framed, len(payload)), frozenset([raw]))


def _zstd_bomb(rng: random.Random) -> Hostile:
    raw = bytes(rng.choice((1000, 65536)))
    packed = rng.choice(
        (
            _bomb(),
            struct.pack("<II", 0x184D2A50 + rng.randrange(16), len(raw)) + bytes(40),
            zstandard.ZstdCompressor(write_content_size=False).compress(raw),
            b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", len(raw)) + rng.randbytes(30),
            b"\x28\xb5\x2f\xfd\xc0\xff" + struct.pack("<Q", len(raw)) + rng.randbytes(30),
        )
    )
    framed = forging.frame(0, packed, mode=forging.ZSTD, raw=raw)
    return Hostile("", forging.one_frame(raw, framed, len(packed)), frozenset([raw]))


@cache
def _bomb() -> bytes:
    """A quarter of a gigabyte of zeros in some kilobytes."""
    packer, pieces = zstandard.ZstdCompressor().compressobj(size=256 << 20), []
    for _ in range(256):
        pieces.append(packer.compress(bytes(1 << 20)))
    return b"".join((*pieces, packer.flush()))


def _index(rng: random.Random) -> Hostile:
    """An index whose checksum is right, and which lists something else."""
    base = rng.choice(bases())
    begin, *frames, _ = forging.cut(base.blob)
    sizes = [len(frame) - 32 for frame in frames]
    change = rng.randrange(4)
    if change == 0:
        sizes.append(rng.choice((0, 2**32 - 1)))
    elif change == 1 and sizes:
        sizes[rng.randrange(len(sizes))] = rng.randrange(2**32)
    elif change == 2:
        sizes = [0] * rng.randrange(2000)
    end = bytearray(
        forging.trailer(sizes, base.raw, raw_bytes=rng.choice((len(base.raw), 0, 2**60)))
    )
    if change == 3:
        end[4:8] = struct.pack("<I", rng.choice((2**32 - 1, 2**28, 1)))
    return Hostile("", begin + b"".join(frames) + bytes(end), frozenset([base.raw]))


def _false_frames(rng: random.Random) -> Hostile:
    """Beginnings of frames without end: searching them must not take its square."""
    size = rng.randrange(1, 400)
    piece = rng.choice((b"BLFR", forging.frame(0, b"x", raw_bytes=1, payload_bytes=60)[:32]))
    return Hostile("", rng.choice((forging.header(), b"")) + piece * size, frozenset())


def _noise(rng: random.Random) -> Hostile:
    begin = rng.choice((b"", forging.MAGIC, forging.header(), b"BLFR"))
    return Hostile("", begin + rng.randbytes(rng.randrange(300)), frozenset())


_MAKERS: dict[str, Callable[[random.Random], Hostile]] = {
    "bits flipped": _flip,
    "bytes changed": _change,
    "cut off": _truncate,
    "begin missing": _behead,
    "bytes put in": _insert,
    "bytes taken out": _delete,
    "garbage after": _garbage_after,
    "taken for text": _as_text,
    "frames shuffled": _shuffle,
    "frames of another": _swap,
    "header forged": _header_claims,
    "model record": _record,
    "frame forged": _frame_claims,
    "wrong payload": _wrong_payload,
    "zstd bomb": _zstd_bomb,
    "index forged": _index,
    "false frames": _false_frames,
    "noise": _noise,
}


def outcome(case: Hostile) -> str:
    """What decompressing says: the error's name, or "right" where the content is what was put in.

    Raises:
        AssertionError: It gave wrong bytes.
        Exception: Any error that is no CompressionError is a broken promise.

    """
    try:
        found = decompress(case.blob, limits=LIMITS)
    except CompressionError as error:
        return type(error).__name__
    assert found in case.right, f"{case.name}: wrong bytes came out as if they were right"
    return "right"


def try_other_readers(case: Hostile, seed: int) -> None:
    """Describe, read a span and salvage: errors with names, and no wrong byte of a known frame."""
    source = io.BytesIO(case.blob)
    begin = seed % 2500
    for reading in (
        lambda: describe(source, limits=LIMITS),
        lambda: decompress_stream(source, None, span=(begin, begin + 700), limits=LIMITS),
        lambda: _try_salvage(case),
    ):
        source.seek(0)
        try:
            reading()
        except CompressionError:
            continue


def _try_salvage(case: Hostile) -> None:
    target = io.BytesIO()
    report = salvage(io.BytesIO(case.blob), target, limits=LIMITS)
    base = case.frames_of
    if base is None or report.header_error is not None:
        return
    for number in report.frames:
        begin = number * FRAME
        size = len(base.raw[begin : begin + FRAME])
        assert target.getvalue()[begin : begin + size] == base.raw[begin : begin + size]


def main(first: int, count: int) -> dict[str, object]:
    """Try many; tell how they ended, and the most time and memory that one took."""
    for base in bases():
        assert decompress(base.blob, limits=LIMITS) == base.raw
    _try_salvage(Hostile("", bases()[-1].blob, frozenset(), bases()[-1]))
    _bomb()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_virtual_bytes() + MEMORY_BYTES, hard))
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for seed in range(first, first + count):
        case = hostile(seed)
        start = time.process_time()
        try:
            outcomes[outcome(case)] += 1
            if seed % SALVAGE_EVERY == 0:
                try_other_readers(case, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}, {case.name}")
            raise
        slowest = max(slowest, time.process_time() - start)
    return {
        "tried": count,
        "outcomes": dict(outcomes),
        "slowest_seconds": slowest,
        "memory_limit_bytes": MEMORY_BYTES,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _virtual_bytes() -> int:
    with open("/proc/self/statm") as stream:  # noqa: PTH123
        return int(stream.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))) + "\n")

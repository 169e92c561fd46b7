"""Two hundred files of every sort: texts of all scripts, code, tables, binaries, edges of sizes."""

import base64
import csv
import io
import json
import marshal
import math
import random
import struct
import sys
import sysconfig
import zlib
from functools import cache
from pathlib import Path

LARGEST_BYTES = 256 << 10
FRAME = 1 << 14
"""Frames of these files where they are to have several."""

SCRIPTS = {
    "latin": (0x61, 0x7A),
    "latin-accents": (0xC0, 0xFF),
    "latin-extended": (0x100, 0x17F),
    "phonetic": (0x250, 0x2AF),
    "greek": (0x391, 0x3C9),
    "cyrillic": (0x410, 0x44F),
    "armenian": (0x531, 0x556),
    "hebrew": (0x5D0, 0x5EA),
    "arabic": (0x620, 0x64A),
    "syriac": (0x710, 0x72F),
    "thaana": (0x780, 0x7A5),
    "devanagari": (0x905, 0x939),
    "bengali": (0x985, 0x9B9),
    "gurmukhi": (0xA05, 0xA39),
    "gujarati": (0xA85, 0xAB9),
    "tamil": (0xB85, 0xBB9),
    "telugu": (0xC05, 0xC39),
    "kannada": (0xC85, 0xCB9),
    "malayalam": (0xD05, 0xD39),
    "sinhala": (0xD85, 0xDC6),
    "thai": (0xE01, 0xE3A),
    "lao": (0xE81, 0xEB9),
    "tibetan": (0xF40, 0xF6C),
    "myanmar": (0x1000, 0x102A),
    "georgian": (0x10D0, 0x10FF),
    "hangul-jamo": (0x1100, 0x11FF),
    "ethiopic": (0x1200, 0x137C),
    "cherokee": (0x13A0, 0x13F4),
    "canadian-syllabics": (0x1401, 0x167F),
    "ogham": (0x1681, 0x169A),
    "runic": (0x16A0, 0x16F0),
    "khmer": (0x1780, 0x17B3),
    "mongolian": (0x1820, 0x1878),
    "braille": (0x2800, 0x28FF),
    "kana": (0x3041, 0x30FF),
    "bopomofo": (0x3105, 0x312F),
    "han": (0x4E00, 0x9FFF),
    "yi": (0xA000, 0xA48C),
    "hangul": (0xAC00, 0xD7A3),
    "linear-b": (0x10000, 0x100FA),
    "gothic": (0x10330, 0x1034A),
    "cuneiform": (0x12000, 0x12399),
    "hieroglyphs": (0x13000, 0x1342E),
    "mathematical": (0x1D400, 0x1D7FF),
    "emoji": (0x1F300, 0x1F64F),
    "han-extension": (0x20000, 0x2A6D6),
    "private": (0xE000, 0xF8FF),
}
"""First and last code point of each."""

_ENGLISH = (
    b"It was the best of times, it was the worst of times, it was the age of wisdom, it was the "
    b"age of foolishness, it was the epoch of belief, it was the epoch of incredulity. "
)


@cache
def corpus() -> dict[str, bytes]:
    """Name -> content, at most `LARGEST_BYTES` each."""
    files = {"empty": b""}
    for make in (_bytes, _runs, _edges, _scripts, _texts, _tables, _arrays, _sources, _binaries):
        files |= make()
    files |= _mixed(list(files.values()))
    return {name: data[:LARGEST_BYTES] for name, data in files.items()}


def _words(rng: random.Random, first: int, last: int, num_words: int) -> str:
    """Text of words that come again, as those of a language do."""
    words = [
        "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(2, 7))) for _ in range(90)
    ]
    return " ".join(words[int(90 * rng.random() ** 3)] for _ in range(num_words)) + "\n"


def _bytes() -> dict[str, bytes]:
    values = [0, 1, 7, 9, 10, 13, 26, 27, 32, 48, 65, 97, 127, 128, 137, 192, 224, 254, 255]
    files = {f"byte-{value:02x}": bytes([value]) for value in values}
    files |= {f"every-byte-{times}": bytes(range(256)) * times for times in (1, 4, 64)}
    return files | {"every-byte-backwards": bytes(range(255, -1, -1)) * 8}


def _runs() -> dict[str, bytes]:
    files = {
        f"nul-{size}": bytes(size) for size in (2, 7, 8, 255, 256, 4096, FRAME + 1, LARGEST_BYTES)
    }
    for pattern in (b"\xff", b"a", b"ab", b"\r\n", b"\0\xff", b"abcdefg", _ENGLISH):
        files[f"period-{pattern[:7].hex()}"] = pattern * (20_000 // len(pattern))
    return files


def _edges() -> dict[str, bytes]:
    """Sizes around those of lanes and frames, of noise and of text."""
    rng = random.Random(1)
    sizes = [2, 3, 15, 16, 17, 255, 257, 511, 1023, 1024, 1025]
    sizes += [FRAME - 1, FRAME, FRAME + 1, 2 * FRAME - 1, 2 * FRAME, 3 * FRAME + 5]
    files = {f"random-{size}": rng.randbytes(size) for size in sizes}
    text = _words(rng, 0x61, 0x7A, 12_000).encode()
    return (
        files | {f"text-{size}": text[:size] for size in sizes} | {"random": rng.randbytes(99_991)}
    )


def _scripts() -> dict[str, bytes]:
    rng = random.Random(2)
    return {
        f"script-{name}": _words(rng, first, last, rng.randint(60, 900)).encode()
        for name, (first, last) in SCRIPTS.items()
    }


def _texts() -> dict[str, bytes]:
    rng = random.Random(3)
    text = "".join(_words(rng, *ends, 200) for ends in SCRIPTS.values())
    english = _words(rng, 0x61, 0x7A, 4000)
    lines = english.replace(" ", "\n", 500)
    return {
        "utf-8-bom": b"\xef\xbb\xbf" + text.encode(),
        "utf-16": text.encode("utf-16"),
        "utf-16-be": english.encode("utf-16-be"),
        "utf-32": english.encode("utf-32"),
        "utf-8-broken": text.encode()[1:20_001:3],
        "utf-8-cut": text.encode()[:9_999],
        "surrogates": "\ud800\udfff".encode("utf-8", "surrogatepass") * 300,
        "line-ends-crlf": lines.replace("\n", "\r\n").encode(),
        "line-ends-cr": lines.replace("\n", "\r").encode(),
        "no-last-line-end": lines.rstrip().encode(),
        "capitals": english.upper().encode(),
        "escape-sequences": b"\x1b[31mred\x1b[0m and \x07bell " * 300,
        "one-long-line": english.replace(" ", "").encode(),
        "log": b"".join(
            b"2026-11-%02d %02d:%02d:%02d host%d kernel: [%d] packet dropped\n"
            % (n // 900 + 1, n // 60 % 24, n % 60, n * 7 % 60, rng.randint(1, 4), n * n)
            for n in range(1500)
        ),
        "base64": base64.encodebytes(rng.randbytes(9000)),
        "hexadecimal": rng.randbytes(9000).hex().encode(),
        "permutations": b"".join(bytes(rng.sample(range(65, 91), 26)) for _ in range(400)),
    }


def _tables() -> dict[str, bytes]:
    rng = random.Random(4)
    rows = [
        {"id": n, "name": rng.choice(["ann", "bo", "cyd"]), "share": rng.random(), "on": n % 3 == 0}
        for n in range(600)
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    items = "".join(f'<item id="{row["id"]}"><name>{row["name"]}</name></item>\n' for row in rows)
    return {
        "table.json": json.dumps(rows, indent=1).encode(),
        "table.jsonl": "\n".join(json.dumps(row) for row in rows).encode(),
        "table.csv": table.getvalue().encode(),
        "table.xml": f"<?xml version='1.0'?>\n<items>\n{items}</items>\n".encode(),
        "table.sql": "".join(
            f"INSERT INTO t VALUES ({row['id']}, '{row['name']}');\n" for row in rows
        ).encode(),
    }


def _arrays() -> dict[str, bytes]:
    rng = random.Random(5)
    wave = [math.sin(n / 20) + 0.1 * rng.random() for n in range(8000)]
    walk = [0]
    for _ in range(8000):
        walk.append(walk[-1] + rng.randint(-9, 9))
    picture = bytes(
        (x * x // 50 + y + rng.randint(0, 3)) % 256 for y in range(120) for x in range(160)
    )
    return {
        "int16-wave": struct.pack("<8000h", *(int(20_000 * value) for value in wave)),
        "float32-wave": struct.pack("<8000f", *wave),
        "float64-wave": struct.pack("<8000d", *wave),
        "int32-counter": struct.pack("<9000I", *range(9000)),
        "int32-counter-be": struct.pack(">9000I", *range(9000)),
        "int64-walk": struct.pack(f"<{len(walk)}q", *walk),
        "picture": picture,
        "records": b"".join(struct.pack("<IHBBd", n, n % 7, 0, 255, n / 3) for n in range(2500)),
        "bits": bytes(rng.choice((0x30, 0x31)) for _ in range(12_000)),
        "sparse": b"".join(bytes(rng.randint(0, 300)) + rng.randbytes(1) for _ in range(150)),
        "dna": bytes(rng.choice(b"ACGT") for _ in range(15_000)),
        "deflated": zlib.compress(_words(rng, 0x61, 0x7A, 9000).encode(), 9),
        "sync-words": b"BLFR" * 900,
        "magic": bytes.fromhex("89424c4d0d0a1a0a") * 300,
    }


def _sources() -> dict[str, bytes]:
    """Forty files of this Python's own library, and some of them compiled."""
    library = Path(sysconfig.get_path("stdlib"))
    found = sorted(path for path in library.glob("*.py") if path.stat().st_size)
    chosen = found[:: max(1, len(found) // 30)][:30]
    files = {f"source-{path.name}": path.read_bytes()[: 48 << 10] for path in chosen}
    compiled = {
        f"compiled-{path.name}c": marshal.dumps(compile(path.read_bytes(), path.name, "exec"))
        for path in chosen[:8]
    }
    return files | compiled


def _binaries() -> dict[str, bytes]:
    """Parts of the interpreter and of its shared libraries."""
    program = Path(sys.executable).resolve().read_bytes()
    files = {
        f"program-{at}": program[at : at + (64 << 10)]
        for at in range(0, min(len(program), 4 << 20), 1 << 20)
    }
    folder = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    for path in sorted(folder.glob("*.so"))[:8]:
        files[f"library-{path.name}"] = path.read_bytes()[: 64 << 10]
    return files


def _mixed(parts: list[bytes]) -> dict[str, bytes]:
    """Pieces of the others, one after another; and their largest sizes."""
    rng = random.Random(6)
    files = {}
    for number in range(14):
        pieces = [rng.choice(parts) for _ in range(rng.randint(2, 9))]
        files[f"mixed-{number}"] = b"".join(
            piece[: rng.choice((10, 300, 4000, 30_000))] for piece in pieces
        )
    files["mixed-large"] = b"".join(rng.sample(parts, len(parts)))
    return files


def stream(num_bytes: int) -> bytes:
    """Text, tables, code, noise and zeros in turn, as many bytes as wanted."""
    rng = random.Random(7)
    sources = [data for data in corpus().values() if len(data) > 1000]
    pieces, size = [], 0
    while size < num_bytes:
        kind = rng.randrange(5)
        if kind == 0:
            piece = rng.randbytes(rng.randint(1, 60_000))
        elif kind == 1:
            first, last = rng.choice(list(SCRIPTS.values()))
            piece = _words(rng, first, last, 3000).encode()
        elif kind == 2:
            piece = bytes([rng.choice((0, 0, 255, 32))]) * rng.randint(1, 90_000)
        else:
            piece = rng.choice(sources)
            piece = piece[rng.randrange(len(piece)) :]
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)[:num_bytes]

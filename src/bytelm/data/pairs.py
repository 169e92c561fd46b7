"""Pairs of an input and its one right answer: CSV files of them, and how they are divided.

A pair is text, and models read its UTF-8 bytes. A file has a header with the columns `input` and
`target`; other columns are ignored. Nothing that is wrong with a row is passed over: an answer that
is missing or cut would be counted as a mistake of the model.
"""

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bytelm.errors import DataError
from bytelm.files import write_aside

COLUMNS = ("input", "target")
"""The columns that are read and written, in the order in which they are written."""

MAX_FILE_BYTES = 1 << 28
"""Largest file that is read: 256 MiB. All rows are held in memory at once."""

_NEEDS_QUOTES = re.compile(r'[",\r\n]')

_FINGERPRINT_HEADER = b"bytelm pairs 1\0"

_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Pair:
    """An input and its target."""

    input: str
    """What the model reads; not empty."""
    target: str
    """What it has to write, character for character; not empty."""


@dataclass(frozen=True)
class PairSplits:
    """Training, validation and test rows without a common input, each in the order of the file."""

    train: tuple[Pair, ...]
    valid: tuple[Pair, ...]
    test: tuple[Pair, ...]


def read_pairs(path: Path, *, max_bytes: int) -> list[Pair]:
    r"""Read the rows of a CSV file; the file is opened once.

    Quoted fields may hold commas, quotes and line ends. Lines end with `\n`, `\r\n` or `\r`.

    Args:
        path: In UTF-8, with or without a byte order mark.
        max_bytes: Longest input and longest target, in bytes of UTF-8.

    Raises:
        DataError: The file cannot be read, is too large, is not UTF-8, lacks a column or has it
            twice, or has no rows; or a row is ragged, empty or too long. The message names the
            line where the row begins.

    """
    text = _decode(path, _read(path))
    rows = _rows(path, text)
    _, header = next(rows, (1, []))
    places = [_place(path, header, column) for column in COLUMNS]
    pairs = []
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: {_fields(len(row))}, but the header has {len(header)}; "
                "put quotes around a field with commas, and leave no line empty"
            )
        fields = [row[place] for place in places]
        for column, field in zip(COLUMNS, fields, strict=True):
            _check_field(f"{path}, line {line}: the {column}", field, max_bytes)
        pairs.append(Pair(*fields))
    if not pairs:
        raise DataError(f"{path} has a header and no rows; expected at least one pair")
    return pairs


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    r"""Write a CSV file that `read_pairs` gives back exactly; lines end with `\n`.

    Raises:
        DataError: The file cannot be written; an older one is untouched.
        ValueError: An input or a target is empty, which no file may hold.

    """
    with write_aside(path) as stream:
        stream.write((",".join(COLUMNS) + "\n").encode())
        for pair in pairs:
            if not (pair.input and pair.target):
                raise ValueError(f"expected an input and a target that are not empty, got {pair}")
            # Not the csv module: what it quotes is not the same in every version of Python.
            stream.write(f"{_quoted(pair.input)},{_quoted(pair.target)}\n".encode())


def fingerprint(pairs: Sequence[Pair]) -> str:
    """Hash the rows in their order: SHA-256 over their number, lengths and contents."""
    digest = hashlib.sha256(_FINGERPRINT_HEADER + len(pairs).to_bytes(8, "little"))
    for pair in pairs:
        for field in (pair.input.encode(), pair.target.encode()):
            digest.update(len(field).to_bytes(8, "little") + field)
    return digest.hexdigest()


def split_pairs(
    pairs: Sequence[Pair], *, valid_fraction: float, test_fraction: float, seed: int
) -> PairSplits:
    """Divide rows at random into training, validation and test; equal inputs stay together.

    Where a row goes does not depend on the order of the rows. The inputs are ordered by a hash of
    the seed and the input; the first ones fill the test, the next ones the validation.

    Args:
        pairs: In any order; it is kept inside each split.
        valid_fraction: Of the rows, >= 0.
        test_fraction: Of the rows, >= 0; both together below 1.
        seed: Decides which rows are held out.

    Raises:
        ValueError: The fractions are not as above.
        DataError: A split of a fraction above 0, or the training split, would be empty.

    """
    train_fraction = 1 - valid_fraction - test_fraction
    if not (valid_fraction >= 0 and test_fraction >= 0 and train_fraction > 0):
        raise ValueError(
            "valid_fraction and test_fraction must be >= 0 and their sum below 1, got "
            f"{valid_fraction} and {test_fraction}"
        )
    counts = Counter(pair.input for pair in pairs)
    fewest = min(counts.values(), default=0)
    room = {"test": test_fraction * len(pairs), "valid": valid_fraction * len(pairs)}
    sides = {"train": set[str](), "valid": set[str](), "test": set[str]()}
    for text in sorted(counts, key=lambda text: _keyed_digest(text, seed)):
        side = _side(room, sides, counts[text], fewest)
        sides[side].add(text)
        if side in room:
            room[side] -= counts[text]
    fractions = {"train": train_fraction, "valid": valid_fraction, "test": test_fraction}
    for side, fraction in fractions.items():
        if fraction > 0 and not sides[side]:
            raise DataError(
                f"{len(pairs)} rows with {len(counts)} different inputs leave none for the {side} "
                f"split, whose share is {fraction:.3g}: give more rows, or another fraction"
            )
    train, valid, test = (
        tuple(pair for pair in pairs if pair.input in sides[side])
        for side in ("train", "valid", "test")
    )
    return PairSplits(train, valid, test)


def shared_inputs(train: Sequence[Pair], test: Sequence[Pair]) -> int:
    """Count the rows of `test` whose input occurs in `train`."""
    known = {pair.input for pair in train}
    return sum(pair.input in known for pair in test)


def _side(room: dict[str, float], sides: dict[str, set[str]], count: int, fewest: int) -> str:
    """Choose the first held-out split with room for the rows of one input.

    They fit when they take the split closer to its fraction than it is without them. A split that
    has nothing yet takes the fewest rows that any input has, however small its fraction.
    """
    for side, left in room.items():
        if left > 0 and (count / 2 <= left or (count == fewest and not sides[side])):
            return side
    return "train"


def _keyed_digest(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; expected a CSV file with the columns "
            f"{' and '.join(COLUMNS)}"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise DataError(
            f"{path} has more than the {MAX_FILE_BYTES:,} bytes that are read; give fewer rows"
        )
    return data


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte {data[error.start]:#04x} at offset {error.start} is not "
            "UTF-8; convert the file to UTF-8, for example with iconv"
        ) from error


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line, counted from 1, where it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: {error}; a quote inside a quoted field is written twice, one "
            "that is never closed makes one field of all that follows, and no field may have more "
            f"than {csv.field_size_limit():,} characters"
        ) from error


def _place(path: Path, header: list[str], column: str) -> int:
    """Return which field of a row a column is."""
    if header.count(column) == 1:
        return header.index(column)
    found = ", ".join(map(repr, header)) or "nothing"
    raise DataError(
        f"{path}, line 1: expected one column '{column}', found {found}; the first line names the "
        f"columns, and {' and '.join(COLUMNS)} are needed"
    )


def _fields(count: int) -> str:
    return f"{count} field{'' if count == 1 else 's'}"


def _check_field(name: str, field: str, max_bytes: int) -> None:
    if not field:
        raise DataError(f"{name} is empty; expected at least one character")
    if (size := len(field.encode())) > max_bytes:
        raise DataError(
            f"{name} has {size:,} bytes, and at most {max_bytes:,} are taken; shorten it, leave "
            "the row out, or give the model a larger max_bytes (--model.max_bytes N)"
        )


def _quoted(field: str) -> str:
    if not _NEEDS_QUOTES.search(field):
        return field
    escaped = field.replace('"', '""')
    return f'"{escaped}"'

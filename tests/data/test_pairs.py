"""Oracles: Python's own csv module, set arithmetic over rows, hand-written files and messages."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data.pairs import (
    Pair,
    fingerprint,
    read_pairs,
    shared_inputs,
    split_pairs,
    write_pairs,
)
from bytelm.errors import DataError

FIELDS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(',"\r\n\0\ufeff ;\t\x85')),
    min_size=1,
    max_size=20,
)
PAIRS = st.lists(st.builds(Pair, FIELDS, FIELDS), min_size=1, max_size=8)
FEW_INPUTS = st.lists(
    st.builds(Pair, st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=1, max_size=30
)
ROWS = tuple(Pair(f"input {number}", f"target {number}") for number in range(2000))


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "pairs.csv"


# --- files -------------------------------------------------------------------------------------


@given(pairs=PAIRS)
def test_what_is_written_is_read_back(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    write_pairs(path, pairs)
    assert read_pairs(path, max_bytes=100) == pairs


@given(pairs=PAIRS)
def test_the_csv_module_reads_the_same(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    write_pairs(path, pairs)
    rows = csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True)
    assert [(row["input"], row["target"]) for row in rows] == [(p.input, p.target) for p in pairs]


@given(pairs=PAIRS, end=st.sampled_from(["\n", "\r\n", "\r"]), mark=st.sampled_from(["", "\ufeff"]))
def test_what_the_csv_module_writes_is_read(pairs, end, mark, tmp_path_factory):
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerow(["number", "target", "input"])
    writer.writerows([number, pair.target, pair.input] for number, pair in enumerate(pairs))
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    path.write_bytes((mark + text.getvalue()).encode())
    assert read_pairs(path, max_bytes=100) == pairs


def test_the_bytes_that_are_written(file):
    write_pairs(file, [Pair("a b", "b a"), Pair('say "x", y', "two\nlines"), Pair("'é", " ❤️")])
    wanted = 'input,target\na b,b a\n"say ""x"", y","two\nlines"\n\'é, ❤️\n'
    assert file.read_bytes() == wanted.encode()


def test_a_file_is_opened_once(file, monkeypatch):
    write_pairs(file, [Pair("a", "b")])
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode: opened.append(path) or real(path, mode))
    assert read_pairs(file, max_bytes=8) == [Pair("a", "b")]
    assert opened == [file]


def test_the_longest_field_is_measured_in_bytes(file):
    write_pairs(file, [Pair("é" * 4, "e" * 8)])
    assert len(read_pairs(file, max_bytes=8)) == 1
    with pytest.raises(DataError, match="line 2: the input has 8 bytes, and at most 7 are taken"):
        read_pairs(file, max_bytes=7)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: expected one column 'input', found nothing"),
        (b"input,output\na,b\n", "line 1: expected one column 'target', found 'input', 'output'"),
        (b"input,target,input\n", "expected one column 'input', found 'input', 'target', 'input'"),
        (b"a,b\n", "expected one column 'input', found 'a', 'b'; the first line names"),
        (b"input,target\n", "a header and no rows; expected at least one pair"),
        (b"input,target\na,b\na,b,c\n", "line 3: 3 fields, but the header has 2; put quotes"),
        (b'input,target\n"a\nb",c\nd\n', "line 4: 1 field, but the header has 2"),
        (b"input,target\na,b\n\nc,d\n", "line 3: 0 fields, .* leave no line empty"),
        (b"input,target\r\na,b\r\n,d\r\n", "line 3: the input is empty"),
        (b"target,input\na,b\n,d\n", "line 3: the target is empty"),
        (b"input,target\na,12345678901\n", "line 2: the target has 11 bytes, and at most 10"),
        (b"input,target\na,b\ncaf\xe9,x\n", "line 3: byte 0xe9 at offset 20 is not UTF-8"),
        ("input,target\na,b\n".encode("utf-16"), "line 1: byte 0xff at offset 0 is not UTF-8"),
        (b'input,target\na,b\n"c,d\ne,f\n', "line 3: unexpected end of data; a quote"),
        (b'input,target\n"a"b,c\n', "line 2: ',' expected after '\"'; a quote"),
        (b"input,target\n" + b"x" * 200_000 + b",y\n", "line 2: field larger than field limit"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(file, data, message):
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"pairs.csv.*{message}"):
        read_pairs(file, max_bytes=10)


def test_a_missing_file_and_a_folder_are_named(file, tmp_path):
    with pytest.raises(DataError, match=r"pairs.csv: No such file.*columns input and target"):
        read_pairs(file, max_bytes=10)
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        read_pairs(tmp_path, max_bytes=10)


def test_a_file_that_is_too_large_is_refused(file, monkeypatch):
    monkeypatch.setattr("bytelm.data.pairs.MAX_FILE_BYTES", 16)
    file.write_bytes(b"input,target\na,b")
    assert len(read_pairs(file, max_bytes=8)) == 1
    file.write_bytes(b"input,target\na,b\n")
    with pytest.raises(DataError, match="more than the 16 bytes that are read"):
        read_pairs(file, max_bytes=8)


def test_an_empty_field_is_not_written(file):
    file.write_bytes(b"older")
    with pytest.raises(ValueError, match="not empty, got Pair"):
        write_pairs(file, [Pair("a", "b"), Pair("a", "")])
    assert file.read_bytes() == b"older"


# --- fingerprints ------------------------------------------------------------------------------


@given(first=PAIRS, second=PAIRS)
def test_fingerprints_are_equal_where_the_rows_are(first, second):
    assert (fingerprint(first) == fingerprint(second)) == (first == second)


def test_a_fingerprint_knows_where_fields_end():
    rows = [[Pair("ab", "c")], [Pair("a", "bc")], [Pair("ab", "c")] * 2, []]
    rows.append([Pair("ab", "c"), Pair("a", "bc")])
    rows.append([Pair("a", "bc"), Pair("ab", "c")])
    assert len({fingerprint(row) for row in rows}) == len(rows)


# --- splits ------------------------------------------------------------------------------------


@given(pairs=FEW_INPUTS, seed=st.integers(0, 99), held_out=st.sampled_from([0.0, 0.1, 0.3, 0.45]))
def test_rows_are_divided_whole_and_inputs_stay_together(pairs, seed, held_out):
    try:
        splits = split_pairs(pairs, valid_fraction=held_out, test_fraction=0.2, seed=seed)
    except DataError:
        # Where no input has few rows a split may get none, which is said.
        assert max(map([pair.input for pair in pairs].count, "abcdefgh")) > 1 or len(pairs) < 3
        return
    parts = (splits.train, splits.valid, splits.test)
    assert sorted(map(repr, pairs)) == sorted(repr(pair) for part in parts for pair in part)
    assert len({pair.input for pair in pairs}) == sum(
        len({p.input for p in part}) for part in parts
    )
    assert [bool(part) for part in parts] == [True, held_out > 0, True]


@given(pairs=st.permutations(ROWS[:60]), seed=st.integers(0, 3))
def test_the_order_of_the_rows_decides_nothing_but_the_order(pairs, seed):
    fractions = {"valid_fraction": 0.2, "test_fraction": 0.1}
    wanted = split_pairs(ROWS[:60], **fractions, seed=seed)
    found = split_pairs(pairs, **fractions, seed=seed)
    for part in ("train", "valid", "test"):
        assert set(getattr(found, part)) == set(getattr(wanted, part))
    assert list(found.train) == [pair for pair in pairs if pair in set(wanted.train)]


def test_fractions_are_of_rows_and_the_seed_chooses():
    chosen = set()
    for seed in range(3):
        splits = split_pairs(ROWS, valid_fraction=0.05, test_fraction=0.1, seed=seed)
        sizes = (len(splits.train), len(splits.valid), len(splits.test))
        assert sizes == (1700, 100, 200)
        chosen.add(splits.test)
    assert len(chosen) == 3


def test_held_out_rows_are_the_same_on_every_machine():
    splits = split_pairs(ROWS[:20], valid_fraction=0.1, test_fraction=0.1, seed=0)
    numbers = [
        [int(pair.input.split()[1]) for pair in part] for part in (splits.valid, splits.test)
    ]
    assert numbers == [[10, 17], [12, 15]]


def test_copies_of_an_input_take_the_room_of_their_rows():
    pairs = [Pair(f"copied {number % 50}", str(number)) for number in range(500)]
    splits = split_pairs(pairs, valid_fraction=0.1, test_fraction=0.2, seed=0)
    assert (len(splits.valid), len(splits.test)) == (50, 100)


def test_a_few_rows_fill_every_split_that_is_asked_for():
    splits = split_pairs(ROWS[:3], valid_fraction=0.01, test_fraction=0.01, seed=0)
    assert [len(splits.train), len(splits.valid), len(splits.test)] == [1, 1, 1]
    alone = split_pairs(ROWS[:1], valid_fraction=0, test_fraction=0, seed=0)
    assert alone.train == ROWS[:1]


@pytest.mark.parametrize(
    ("pairs", "side"),
    [(ROWS[:2], "train"), (ROWS[:1] * 9, "train"), (ROWS[:1], "train"), ((), "train")],
)
def test_a_split_that_would_be_empty_is_an_error(pairs, side):
    with pytest.raises(DataError, match=f"leave none for the {side} split, whose share is 0.9"):
        split_pairs(pairs, valid_fraction=0.05, test_fraction=0.05, seed=0)


@pytest.mark.parametrize(
    ("valid", "test"), [(-0.1, 0.0), (0.5, 0.5), (0.0, 1.0), (float("nan"), 0.0)]
)
def test_wrong_fractions_are_refused(valid, test):
    with pytest.raises(ValueError, match="sum below 1, got"):
        split_pairs(ROWS, valid_fraction=valid, test_fraction=test, seed=0)


def test_shared_inputs_are_counted_by_row():
    train = [Pair("a", "1"), Pair("b", "2")]
    test = [Pair("a", "1"), Pair("a", "9"), Pair("c", "2")]
    assert (shared_inputs(train, test), shared_inputs(test, train)) == (2, 1)
    assert shared_inputs([], test) == 0

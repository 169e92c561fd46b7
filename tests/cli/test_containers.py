"""compress, decompress, test, info, salvage, bench. Oracles: the bytes that went in, exit statuses.

The statuses are those of the errors, of `bytelm compress --help` and of docs/compressing.md.
"""

import contextlib
import dataclasses
import io
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bytelm.cli import main, streams
from bytelm.cli.arguments import byte_size
from bytelm.compression import Header, Mode, ModelRecord, Profile
from bytelm.compression.container import (
    MAGIC,
    FrameHeader,
    Trailer,
    pack_frame,
    pack_header,
    pack_trailer,
)
from bytelm.errors import DataError
from bytelm.evaluation.compressors import COMPRESSOR_NAMES, CompressorResult, Effort
from bytelm.models import definition
from bytelm.training import checkpoints
from conftest import MODELS

NOISE = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
FRAME = 64 << 10

FAST = ["--mode", "stored"]
"""What is tested here is the command line; coding has tests of its own."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory: notes, noise of four frames, and their containers."""
    monkeypatch.chdir(tmp_path)
    Path("notes").write_bytes(b"one two three, " * 40)
    Path("noise").write_bytes(NOISE)
    with contextlib.redirect_stdout(None):
        assert main(["compress", "noise", "--frame", "64K", *FAST]) == 0
    return tmp_path


def names() -> list[str]:
    """What lies in the working directory."""
    return sorted(path.name for path in Path().iterdir())


def started(*argv: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "bytelm", *argv],
        stdin=subprocess.PIPE,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        **options,
    )


def ran(*argv: str, data: bytes = b"", **options) -> tuple[int, bytes, str]:
    with started(*argv, **options) as process:
        out, err = process.communicate(data)
    return process.returncode, out or b"", err.decode()


def save_run(name: str) -> str:
    """A run directory with a model of the zoo; its path."""
    model = MODELS[name](False)
    folder = checkpoints.save(
        Path("runs") / name,
        step=1,
        definition=definition(model),
        model=model.state_dict(),
        optimizer={},
        state={},
    )
    checkpoints.point(Path("runs") / name, "last", folder.name)
    return f"runs/{name}"


# --- files in and out --------------------------------------------------------------------------


def test_files_come_back_and_are_kept(capsys):
    Path("empty").write_bytes(b"")
    Path("one").write_bytes(b"\xff")
    files = ["notes", "empty", "one"]
    before = {name: Path(name).read_bytes() for name in files}
    assert main(["compress", *files]) == 0
    assert "notes.blm: " in capsys.readouterr().out
    assert {name: Path(name).read_bytes() for name in files} == before
    for name in files:
        Path(name).unlink()
    assert main(["decompress", *(f"{name}.blm" for name in files)]) == 0
    assert {name: Path(name).read_bytes() for name in files} == before
    assert main(["test", *(f"{name}.blm" for name in files)]) == 0
    assert "notes.blm: whole, 600 bytes\n" in capsys.readouterr().out


def test_without_files_it_is_a_filter():
    status, packed, said = ran("compress", *FAST, data=b"through a pipe " * 9)
    assert (status, said) == (0, "")
    assert packed.startswith(MAGIC)
    assert ran("decompress", data=packed) == (0, b"through a pipe " * 9, "")
    assert ran("test", "-", data=packed) == (0, b"standard input: whole, 135 bytes\n", "")
    assert b"raw bytes         135" in ran("info", data=packed)[1]


@pytest.mark.parametrize("verb", ["compress", "decompress", "salvage"])
def test_an_output_that_exists_is_replaced_by_force_only(verb, capsys):
    source = "notes" if verb == "compress" else "noise.blm"
    Path("out").write_bytes(b"mine")
    assert main([verb, source, "-o", "out"]) == 1
    assert "out exists already: --force replaces it" in capsys.readouterr().err
    assert Path("out").read_bytes() == b"mine"
    assert main([verb, source, "-o", "out", "--force"]) == 0
    assert Path("out").read_bytes() != b"mine"


def test_a_file_that_came_into_being_meanwhile_is_not_replaced(capsys):
    def race() -> None:
        with streams.writing("out", source="-", force=False) as target:
            target.write(b"other")
            Path("out").write_bytes(b"mine")

    with pytest.raises(DataError, match="out exists already"):
        race()
    assert Path("out").read_bytes() == b"mine"
    assert names() == ["noise", "noise.blm", "notes", "out"]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_the_input_is_never_the_output(force, capsys):
    Path("link").symlink_to("notes")
    assert main(["compress", "notes", "-o", "link", *force]) == 1
    assert "link is the input" in capsys.readouterr().err
    assert Path("notes").read_bytes() == b"one two three, " * 40


def test_a_link_leads_to_the_file_that_is_replaced():
    Path("target").write_bytes(b"old")
    Path("link").symlink_to("target")
    assert main(["decompress", "noise.blm", "-o", "link", "--force"]) == 0
    assert Path("link").is_symlink()
    assert Path("target").read_bytes() == NOISE


def test_devices_and_pipes_are_written_as_they_are():
    assert main(["decompress", "noise.blm", "-o", os.devnull, "--force"]) == 0
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    os.mkfifo("pipe")
    with Path("copy").open("wb") as copy, subprocess.Popen(["cat", "pipe"], stdout=copy):
        assert main(["decompress", "noise.blm", "-o", "pipe"]) == 0
    assert Path("copy").read_bytes() == NOISE
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


def test_a_secret_stays_one():
    Path("notes").chmod(0o600)
    assert main(["compress", "notes", *FAST]) == 0
    assert stat.S_IMODE(Path("notes.blm").stat().st_mode) == 0o600
    Path("notes.blm").chmod(0o640)
    assert main(["decompress", "notes.blm", "-o", "again"]) == 0
    assert stat.S_IMODE(Path("again").stat().st_mode) == 0o640


def test_a_name_of_any_bytes_and_nearly_any_length_will_do(capsys):
    for name in [os.fsdecode(b"\xff\x1b[31m\n"), "x" * 251]:
        Path(name).write_bytes(b"data")
        assert main(["compress", name, *FAST]) == 0
        Path(name).unlink()
        assert main(["decompress", f"{name}.blm"]) == 0
        assert Path(name).read_bytes() == b"data"
    # What a terminal would obey is escaped.
    assert "\x1b" not in capsys.readouterr().out


def test_a_file_of_the_kernel_claims_no_bytes_and_has_some():
    if not Path("/proc/version").exists():
        pytest.skip("no /proc here")
    assert main(["compress", "/proc/version", "-o", "version.blm"]) == 0
    assert main(["decompress", "version.blm"]) == 0
    assert Path("version").read_bytes() == Path("/proc/version").read_bytes()


# --- what cannot be done -----------------------------------------------------------------------


def damaged(name: str) -> bytes:
    """A container with something wrong; `name` says what."""
    whole = Path("noise.blm").read_bytes()
    model = ModelRecord(fingerprint="ab" * 16, kind="recurrent", probe="cd" * 16, environment={})
    match name:
        case "text":
            return b"not a container"
        case "empty":
            return b""
        case "later":
            return whole[:8] + b"\x02\x00" + whole[10:]
        case "needs a model":
            made = Header(profile=Profile.EXACT, frame_bytes=FRAME, raw_bytes=9, model=model)
            frame = FrameHeader(
                number=0,
                mode=Mode.MIXED,
                lanes=1,
                raw_bytes=9,
                payload_bytes=9,
                digest=bytes(8),
                crc=0,
            )
            end = Trailer(payload_bytes=np.array([9], np.uint32), raw_bytes=9, digest=bytes(8))
            framed = pack_frame(frame, bytes(9)) + bytes(9)
            return pack_header(made) + framed + pack_trailer(end)
        case "cut":
            return whole[:-100_000]
        case "cut header":
            return whole[:10]
        case "garbage":
            return whole + b"\n"
        case "changed":
            return whole[:90_000] + bytes([whole[90_000] ^ 1]) + whole[90_001:]
        case "claims":
            made = Header(profile=Profile.NONE, frame_bytes=FRAME, raw_bytes=2**60)
            return pack_header(made) + whole[len(pack_header(made)) :]
    raise AssertionError(name)


BAD = [
    ("text", 3, "this is no .blm container"),
    ("empty", 3, "this is no .blm container: it is empty"),
    ("later", 4, "version 2 of the format"),
    ("needs a model", 5, "a recurrent with the fingerprint " + "ab" * 16),
    ("cut", 7, "cut off"),
    ("cut header", 7, "cut off"),
    ("garbage", 7, "more bytes after the end of the container"),
    ("changed", 7, "frame 1 is damaged"),
    ("claims", 8, f"claims {2**60:,} bytes"),
]


@pytest.mark.parametrize(("what", "status", "said"), BAD, ids=[row[0] for row in BAD])
@pytest.mark.parametrize("verb", ["test", "decompress"])
def test_each_bad_container_has_its_status_and_message(what, status, said, verb, capsys):
    Path("bad.blm").write_bytes(damaged(what))
    assert main([verb, "bad.blm"]) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    # No half file, and nothing left beside it.
    assert names() == ["bad.blm", "noise", "noise.blm", "notes"]


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["compress", "nothing"], 1, "cannot read nothing: No such file or directory"),
        (["compress", "."], 1, ". is a folder: make one file of it first"),
        (["decompress", "."], 1, ". does not end in .blm"),
        (["decompress", ".", "-o", "out"], 1, ". is a folder"),
        (["decompress", "noise.blm", "-o", "."], 1, ". is a folder: name a file"),
        (["decompress", "noise.blm", "-o", "new/"], 1, "new/ is a folder: name a file"),
        (["decompress", "noise.blm", "-o", "no/where"], 1, "cannot write no/where"),
        (["decompress", "noise"], 1, "noise does not end in .blm: name the --output"),
        (["decompress", ".blm"], 1, "does not end in .blm"),
        (["compress", "noise.blm"], 1, "noise.blm is compressed already"),
        (["compress", "notes", "--run", "none"], 1, "none does not exist"),
        (["decompress", "noise.blm", "--max-output", "195K", "-f"], 8, "at most 199,680"),
        (["decompress", "noise.blm", "--max-frame", "1000", "-f"], 8, "at most 1,000"),
        (["compress", "notes", "noise", "-o", "x"], 2, "--output names one file and there are 2"),
        (["compress", "-", "-"], 2, "which can be read only once"),
        (["compress", ""], 2, "an argument is empty"),
        (["compress", "notes", "-o", ""], 2, "an argument is empty"),
        (["compress", "notes", "--mode", "mixed"], 2, "--mode mixed needs a model"),
        (["compress", "--json", "-"], 2, "--json prints on standard output"),
        (["decompress", "--json", "noise.blm", "-o", "-"], 2, "--json prints on standard output"),
        (["salvage", "-", "-o", "x"], 2, "a pipe will not do"),
        (["salvage", "noise.blm", "-o", "-"], 2, "a pipe will not do"),
        (["bench", "compress", "noise", "noise"], 2, "a file is named twice"),
    ],
)
def test_each_mistake_has_its_status_and_message(argv, status, said, capsys):
    assert main(argv) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--frame", "63K"], "expected a size from 64K to 64M, got '63K'"),
        (["--frame", "65M"], "expected a size from 64K to 64M, got '65M'"),
        (["--frame", "1e6"], "expected a size as 65536, 64K, 16M or 2G, got '1e6'"),
        (["--frame", "9" * 5000], "expected a size as 65536"),
        (["--lanes", "257"], "expected a whole number 1 to 256, got '257'"),
        (["--workers", "0"], "expected a whole number 1 to 256, got '0'"),
        (["--mode", "best"], "invalid choice: 'best'"),
    ],
)
def test_settings_out_of_range_are_usage_errors(argv, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["compress", "notes", *argv])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_sizes_have_units():
    for text, size in [("0", 0), ("65536", 65536), ("64K", 65536), ("16m", 1 << 24)]:
        assert byte_size(text) == size


def test_an_input_that_cannot_be_read_is_named(capsys):
    # Its owner may open it and nobody may read its beginning; modes do not bind root.
    path = "/proc/self/mem"
    if not Path(path).exists():
        pytest.skip("no /proc here")
    assert main(["compress", path, "-o", "out"]) == 1
    assert f"cannot read {path}: Input/output error" in capsys.readouterr().err
    assert not Path("out").exists()


def test_of_several_files_each_is_tried_and_the_first_failure_counts(capsys):
    Path("bad.blm").write_bytes(b"text")
    assert main(["test", "bad.blm", "missing.blm", "noise.blm"]) == 3
    captured = capsys.readouterr()
    assert "bad.blm: this is no .blm container" in captured.err
    assert captured.err.count("missing.blm") == 1
    assert captured.out == "noise.blm: whole, 200,000 bytes\n"


def test_the_help_lists_every_status(capsys):
    with pytest.raises(SystemExit):
        main(["decompress", "--help"])
    shown = capsys.readouterr().out
    for _, status, _ in BAD:
        assert f"  {status}  " in shown
    assert shown.count("  bytelm decompress ") >= 2


# --- interrupted -------------------------------------------------------------------------------


def fed(*argv: str, **options) -> subprocess.Popen:
    """A process in the middle of its work: it has read its beginning, and waits for more."""
    process = started(*argv, **options)
    assert process.stdin is not None
    # More than a pipe holds, so that this returns when most of it was read.
    process.stdin.write(bytes(1 << 20))
    process.stdin.flush()
    return process


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 128 + signal.SIGTERM),
        (signal.SIGHUP, 128 + signal.SIGHUP),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_what_ends_it_in_the_middle_leaves_no_file_under_the_final_name(number, status):
    with fed("compress", "-o", "out") as process:
        process.send_signal(number)
        # Closed only now: its end would be the end of a whole input.
        process.communicate()
        assert process.returncode == status
    left = set(names()) - {"noise", "noise.blm", "notes"}
    assert "out" not in left
    # Nobody can tidy up after SIGKILL: what it leaves is hidden and has another name.
    assert all(name.startswith(".out.") for name in left)
    assert not left or number is signal.SIGKILL


def test_a_full_disk_leaves_nothing_and_says_so():
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    status, _, said = ran("compress", "noise", "-o", "out", *FAST, preexec_fn=small_files)
    assert status == 1
    assert said == "bytelm: error: cannot write out: File too large\n"
    assert names() == ["noise", "noise.blm", "notes"]
    if Path("/dev/full").exists():
        with Path("/dev/full").open("wb") as full:
            status, _, said = ran("decompress", "noise.blm", "-o", "-", stdout=full)
        assert status == 1
        assert said == "bytelm: error: cannot write standard output: No space left on device\n"


def test_a_reader_that_goes_away_ends_it_quietly():
    with started("decompress", "noise.blm", "-o", "-") as process:
        assert process.stdout is not None
        assert process.stdout.read(10) == NOISE[:10]
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("number", [0, 1])
def test_streams_that_are_closed_are_named(number):
    argv = ["compress", *FAST] if number == 0 else ["decompress", "noise.blm", "-o", "-"]
    status, _, said = ran(*argv, preexec_fn=lambda: os.close(number))
    assert status == 1
    assert said == f"bytelm: error: standard {'output' if number else 'input'} is closed\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["compress", "notes", "-o", "-"], "a container is no text for a terminal"),
        (["decompress", "noise.blm", "--range", "0:9"], "bytes for a terminal?"),
        (["compress"], "which files?"),
    ],
)
def test_a_terminal_gets_no_binary_and_gives_none(argv, said, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stdout", Terminal())
    assert main(argv) == 2
    assert said in capsys.readouterr().err


# --- ranges ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "span",
    [
        (0, 10),
        (None, 1),
        (FRAME - 5, FRAME + 5),
        (FRAME, 2 * FRAME),
        (70_000, None),
        (-9, None),
        (-200_001, -199_990),
        (150_000, 10**18),
        (5, 5),
        (9, 2),
        (200_000, None),
        (10**18, None),
        (None, None),
    ],
)
def test_a_range_is_the_slice_of_python(span):
    start, end = ("" if number is None else str(number) for number in span)
    argv = ["decompress", "noise.blm", f"--range={start}:{end}", "-o", "out"]
    assert main(argv) == 0
    assert Path("out").read_bytes() == NOISE[slice(*span)]


def test_a_range_goes_to_stdout_unless_named_and_comes_from_pipes():
    packed = Path("noise.blm").read_bytes()
    expected = NOISE[65_000:66_000]
    assert ran("decompress", "noise.blm", "--range", "65000:66000") == (0, expected, "")
    assert ran("decompress", "--range", "65000:66000", data=packed) == (0, expected, "")
    status, _, said = ran("decompress", "--range=-5:", data=packed)
    assert status == 2
    assert "a pipe does not tell how long it is" in said


@pytest.mark.parametrize("text", ["5", "a:b", "1:2:3", "1.5:", "99999999999999999999:"])
def test_what_is_no_range_is_a_usage_error(text, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["decompress", "noise.blm", "--range", text])
    assert caught.value.code == 2
    assert f"expected START:END in bytes, got '{text}'" in capsys.readouterr().err


def test_a_range_needs_only_its_own_frames():
    Path("bad.blm").write_bytes(damaged("changed"))
    assert main(["decompress", "bad.blm", "--range", "140000:150000", "-o", "out"]) == 0
    assert Path("out").read_bytes() == NOISE[140_000:150_000]
    assert main(["decompress", "bad.blm", "--range", "60000:70000", "-o", "out2"]) == 7


# --- info, salvage -----------------------------------------------------------------------------


def test_info_tells_what_is_in_it(capsys):
    assert main(["info", "noise.blm", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["files"]
    assert found["raw_bytes"] == 200_000
    assert found["compressed_bytes"] == Path("noise.blm").stat().st_size
    assert found["bits_per_byte"] == pytest.approx(8 * found["compressed_bytes"] / 200_000)
    assert (found["profile"], found["model"], found["frame_bytes"]) == ("none", None, FRAME)
    assert [frame["raw_bytes"] for frame in found["frames"]] == [FRAME, FRAME, FRAME, 3392]
    assert main(["info", "noise.blm"]) == 0
    assert "4 of 65,536 raw bytes, 4 stored" in capsys.readouterr().out


def test_a_stranger_cannot_write_to_the_terminal(capsys):
    model = ModelRecord(
        fingerprint="\x1b[2J", kind="\x1b]0;owned\x07", probe="", environment={"\x1b": "\x1b"}
    )
    made = Header(profile=Profile.EXACT, frame_bytes=FRAME, raw_bytes=0, model=model)
    Path("bad.blm").write_bytes(pack_header(made))
    for argv in (["test"], ["info"], ["salvage", "-o", "out"]):
        main([*argv, "bad.blm"])
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err


def test_salvage_writes_what_is_whole_and_lists_the_rest(capsys):
    Path("bad.blm").write_bytes(damaged("changed"))
    assert main(["salvage", "bad.blm", "-o", "out", "--json"]) == 7
    found = json.loads(capsys.readouterr().out)
    assert [(gap["begin"], gap["end"]) for gap in found["gaps"]] == [(FRAME, 2 * FRAME)]
    expected = NOISE[:FRAME] + bytes(FRAME) + NOISE[2 * FRAME :]
    assert Path("out").read_bytes() == expected
    assert main(["salvage", "bad.blm", "-o", "out", "--force"]) == 7
    assert f"lost: raw bytes {FRAME:,} to {2 * FRAME:,}" in capsys.readouterr().out
    assert main(["salvage", "noise.blm", "-o", "whole"]) == 0
    assert Path("whole").read_bytes() == NOISE
    assert "nothing is lost" in capsys.readouterr().out


def test_salvage_of_what_holds_nothing_writes_nothing():
    assert main(["salvage", "notes", "-o", "out"]) == 3
    assert not Path("out").exists()


# --- models, JSON, bench -----------------------------------------------------------------------


def test_a_model_takes_part_and_is_needed_again(capsys):
    run, other = save_run("recurrent"), save_run("ngram")
    argv = ["compress", "notes", "--run", run, "--mode", "mixed", "--lanes", "2", "--json"]
    assert main(argv) == 0
    (found,) = json.loads(capsys.readouterr().out)["files"]
    assert (found["raw_bytes"], found["frames"][0]["mode"]) == (600, "mixed")
    assert found["frames"][0]["lanes"] == 2
    assert found["model_bytes"] > 0
    assert main(["test", "notes.blm"]) == 5
    assert main(["test", "notes.blm", "--run", other]) == 5
    assert main(["test", "notes.blm", "--run", run, "--profile", "float"]) == 5
    assert capsys.readouterr().err.count("needs a recurrent with the fingerprint") == 2
    assert main(["decompress", "notes.blm", "--run", run, "-o", "again"]) == 0
    assert Path("again").read_bytes() == Path("notes").read_bytes()


def test_a_float_container_is_refused_elsewhere(capsys):
    run = save_run("byte-gpt")
    Path("notes").write_bytes(b"few bytes")
    assert main(["compress", "notes", "--run", run, "--mode", "model"]) == 0
    assert main(["test", "notes.blm", "--run", run]) == 0
    packed = Path("notes.blm").read_bytes()
    header, _ = json.JSONDecoder().raw_decode(packed[packed.index(b"{") :].decode("latin-1"))
    record = ModelRecord(**header | {"probe": "00" * 16, "environment": {"torch": "0.1"}})
    made = Header(profile=Profile.FLOAT, frame_bytes=16 << 20, raw_bytes=9, model=record)
    whole = Header(
        profile=Profile.FLOAT, frame_bytes=16 << 20, raw_bytes=9, model=ModelRecord(**header)
    )
    Path("notes.blm").write_bytes(pack_header(made) + packed[len(pack_header(whole)) :])
    assert main(["test", "notes.blm", "--run", run]) == 6
    assert "torch 0.1 there" in capsys.readouterr().err


@pytest.mark.slow
def test_bench_measures_us_beside_the_others(capsys):
    argv = ["bench", "compress", "notes", "--run", save_run("recurrent"), "--json"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["files"]["notes"]["compressors"]}
    assert set(rows) == {"bytelm", "bytelm --run", *COMPRESSOR_NAMES}
    assert found["total"]["compressors"] == found["files"]["notes"]["compressors"]
    for row in rows.values():
        assert row["failure"] is None
        assert row["bits_per_byte"] == pytest.approx(8 * row["bytes"] / 600)
        assert row["encode"]["seconds"] > 0
        assert row["decode"]["cpu_seconds"] > 0
        assert (row["model_bytes"] > 0) == (row["name"] == "bytelm --run")


def canned(name: str, size: int, **more) -> CompressorResult:
    effort = Effort(seconds=2.0, cpu_seconds=1.0, peak_bytes=size * 1_000_000)
    return CompressorResult(
        name=name,
        bytes=size,
        bits_per_byte=0.0,
        per_file_bits_per_byte=0.0,
        parameters="settings",
        encode=effort,
        decode=effort,
        **more,
    )


@pytest.fixture
def bench(monkeypatch, capsys):
    """Run `bytelm bench compress` on two files with figures known beforehand."""
    rows = [canned("gzip -9", 90), canned("ppmd", 50, failure="decodes to other bytes")]
    missing = {"bytes": None, "bits_per_byte": None, "encode": None, "decode": None}
    rows.append(dataclasses.replace(rows[0], name="brotli", missing="install it", **missing))

    def ours(name: str, documents, *, run=None, options=None) -> CompressorResult:
        return canned(name, 40 if run is None else 30, model_bytes=0 if run is None else 1000)

    monkeypatch.setattr("bytelm.compression.measurement.measure_container", ours)
    monkeypatch.setattr("bytelm.evaluation.reference_compressors", lambda *_, **__: rows)
    Path("more").write_bytes(b"abc" * 100)

    def run(*argv: str) -> str:
        assert main(["bench", "compress", "notes", "more", "--run", "model", *argv]) == 0
        return capsys.readouterr().out

    return run


def test_bench_adds_up_and_counts_the_model_once_a_table(bench):
    found = json.loads(bench("--json"))
    notes, more = found["files"]["notes"], found["files"]["more"]
    total = {row["name"]: row for row in found["total"]["compressors"]}
    assert (notes["raw_bytes"], more["raw_bytes"], found["total"]["raw_bytes"]) == (600, 300, 900)
    assert total["gzip -9"]["bytes"] == 180
    assert total["gzip -9"]["bits_per_byte"] == pytest.approx(8 * 180 / 900)
    assert total["gzip -9"]["encode"] == {
        "seconds": 4.0,
        "cpu_seconds": 2.0,
        "peak_bytes": 90_000_000,
    }
    assert total["ppmd"]["failure"] == "decodes to other bytes"
    assert total["brotli"]["missing"] == "install it"
    # Two files, one model.
    counted = total["bytelm --run"]["bits_per_byte_with_model"]
    assert counted == pytest.approx(8 * (60 + 1000) / 900)


def test_bench_prints_a_table_a_file_and_one_of_the_sums(bench):
    shown = bench()
    for title in ("notes: 600 bytes", "more: 300 bytes", "all 2 files: 900 bytes"):
        assert title in shown
    assert shown.count("FAILED: decodes to other bytes") == 3
    assert shown.count("not installed: install it") == 3
    (row,) = [line for line in shown.splitlines() if "bytelm --run" in line][2:]
    # Bytes, bits per byte, with the model; then 900 bytes in four seconds, and memory.
    assert row.split()[2:9] == ["60", "0.533", "9.422", "0.00", "0.00", "30", "30"]

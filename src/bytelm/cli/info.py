"""`bytelm info`: what a container's headers say, without decoding it."""

import argparse
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bytelm.cli.arguments import add_json, print_json
from bytelm.cli.containers import (
    STATUSES,
    add_files,
    each,
    inputs,
)
from bytelm.cli.streams import (
    plain,
    reading,
    shown_name,
)

if TYPE_CHECKING:
    from bytelm.compression import Description

_SHOWN_FRAMES = 20

_PROFILES = {
    "none": "none: it needs no model",
    "exact": "exact: it needs the model below, and any machine will do",
    "float": "float: it needs the model below and the same environment, so it is no archive",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_files(parser, "containers")
    add_json(parser)
    parser.epilog = (
        "The headers and the index are checked against each other; whether the frames are whole\n"
        "says `bytelm test`. No model is needed.\n\n"
        f"{STATUSES}\n"
        "examples:\n"
        "  bytelm info notes.txt.blm\n"
        "  bytelm info archive/*.blm --json"
    )


def run(args: argparse.Namespace) -> int:
    """Print what each container says."""
    from bytelm.compression import describe

    files = inputs(args)
    found: list[dict[str, Any]] = []

    def work(path: str) -> None:
        with reading(path) as (source, _):
            description = describe(source)
        found.append(_as_json(path, description))
        if not args.json:
            _print(shown_name(path), description)

    status = each(files, work)
    if args.json:
        print_json({"files": found})
    return status


def _as_json(path: str, description: "Description") -> dict[str, Any]:
    header = description.header
    raw, compressed = description.raw_bytes, description.compressed_bytes
    return {
        "input": path,
        "raw_bytes": raw,
        "compressed_bytes": compressed,
        "bits_per_byte": 8 * compressed / raw if raw else 0.0,
        "profile": header.profile.name.lower(),
        "frame_bytes": header.frame_bytes,
        "model": None if header.model is None else asdict(header.model),
        "frames": [asdict(frame) for frame in description.frames],
    }


def _print(name: str, description: "Description") -> None:
    header, frames = description.header, description.frames
    raw, compressed = description.raw_bytes, description.compressed_bytes
    bits = 8 * compressed / raw if raw else 0.0
    print(plain(name))
    print(f"  raw bytes         {raw:,}")
    print(f"  compressed bytes  {compressed:,} ({bits:.3f} bits per byte)")
    print(f"  profile           {_PROFILES[header.profile.name.lower()]}")
    if header.model is not None:
        print(f"  model             {plain(header.model.kind)}")
        print(f"  fingerprint       {plain(header.model.fingerprint)}")
        for key, value in header.model.environment.items():
            print(f"  {plain(key):<17} {plain(str(value))}")
    modes = Counter(frame.mode for frame in frames)
    counted = "".join(f", {count:,} {mode}" for mode, count in modes.most_common())
    print(f"  frames            {len(frames):,} of {header.frame_bytes:,} raw bytes{counted}")
    if len(frames) > 1:
        _print_frames(description)


def _print_frames(description: "Description") -> None:
    print(f"  {'frame':>9} {'raw offset':>15} {'mode':>7} {'lanes':>5} {'bits/byte':>9}")
    begin = 0
    for number, frame in enumerate(description.frames[:_SHOWN_FRAMES]):
        bits = 8 * frame.compressed_bytes / frame.raw_bytes
        print(f"  {number:>9} {begin:>15,} {frame.mode:>7} {frame.lanes:>5} {bits:>9.3f}")
        begin += frame.raw_bytes
    if len(description.frames) > _SHOWN_FRAMES:
        print(f"  {'...':>9} --json lists all of them")

"""`bytelm generate`: write bytes after a prompt, after many, or in a dialog."""

import argparse
import base64
import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.cli.arguments import (
    add_json,
    byte_count,
    finite_float,
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    print_json,
    seed,
    share,
    some_text,
)
from bytelm.errors import BytelmError, DataError

if TYPE_CHECKING:
    from bytelm.language_model import LanguageModel

_TEMPERATURE = 0.8

_SAMPLING = {
    "temperature": _TEMPERATURE,
    "top_k": None,
    "top_p": None,
    "min_p": None,
    "repetition_penalty": 1.0,
    "repetition_window": 64,
}
"""What beam search has no use for, with the values that hold where a flag is not given."""


class _UsageError(BytelmError):
    """Flags that do not go together, or with this prompt or model."""


@dataclass(frozen=True)
class _Text:
    """One text of the result."""

    prompt: bytes
    text: bytes
    numbers: dict[str, Any]
    """How it was made, for `--json`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory")
    _add_prompts(parser)
    parser.add_argument(
        "--max-new-bytes", type=non_negative_int, default=200, metavar="N", help="default: 200"
    )
    parser.add_argument(
        "--stop",
        type=some_text,
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this text; may be given several times",
    )
    parser.add_argument(
        "--valid-utf8",
        action="store_true",
        help="write valid UTF-8 only; the prompt must be UTF-8 too",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="write the bytes as they are; without it, what is not UTF-8 is shown as U+FFFD",
    )
    add_json(parser)
    _add_sampling(parser.add_argument_group("sampling"))
    _add_search(parser.add_argument_group("beam search, instead of sampling"))
    parser.epilog = (
        "Without a prompt, on a terminal, it opens a document that you and the model write in\n"
        "turns: /help there lists the commands. From a pipe, all of stdin is the prompt.\n\n"
        "Several prompts are written at once, and printed in their order. Text number i has the\n"
        "seed N + i of --seed N, and is the text that --seed N+i writes alone.\n\n"
        "examples:\n"
        "  bytelm generate runs/blt-tiny --prompt 'def main(' --temperature 0.5\n"
        "  bytelm generate runs/blt-tiny --prompt 'def ' --samples 5 --min-p 0.1 --stop '):'\n"
        "  bytelm generate runs/blt-tiny --prompts-file lines.txt --valid-utf8 --json\n"
        "  bytelm generate runs/blt-tiny --prompt 'import ' --beams 8 --n-best 3\n"
        "  bytelm generate runs/blt-tiny --prompt-file start.bin --raw > more.bin"
    )


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="the text to go on from; given several times, one text each",
    )
    prompt.add_argument("--prompt-file", metavar="FILE", help="the bytes to go on from; - is stdin")
    prompt.add_argument(
        "--prompts-file", metavar="FILE", help="one prompt a line, one text each; - is stdin"
    )
    parser.add_argument(
        "--samples", type=positive_int, default=1, metavar="N", help="texts for each prompt"
    )
    parser.add_argument(
        "--rows",
        type=positive_int,
        default=16,
        metavar="N",
        help="texts that are written at once (default: 16)",
    )


def _add_sampling(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--temperature",
        type=non_negative_float,
        metavar="X",
        help="0 always takes the likeliest byte, 1 samples as the model learned "
        f"(default: {_TEMPERATURE})",
    )
    group.add_argument(
        "--top-k", type=byte_count, metavar="N", help="sample among the N likeliest bytes"
    )
    group.add_argument(
        "--top-p",
        type=fraction,
        metavar="P",
        help="sample among the likeliest bytes that together have probability P",
    )
    group.add_argument(
        "--min-p",
        type=share,
        metavar="P",
        help="sample among bytes at least P times as likely as the likeliest",
    )
    group.add_argument(
        "--repetition-penalty",
        type=positive_float,
        metavar="X",
        help="raise the probability of a byte that occurred lately to the power X (1: not at all)",
    )
    group.add_argument(
        "--repetition-window",
        type=positive_int,
        metavar="N",
        help="how many last bytes that looks at (default: 64)",
    )
    group.add_argument("--seed", type=seed, metavar="N", help="repeat a sample")
    group.add_argument(
        "--speculate",
        action="store_true",
        help="draft and check: the same text, sooner where the global transformer is large",
    )


def _add_search(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--beams", type=positive_int, metavar="N", help="texts that are kept at each byte"
    )
    group.add_argument(
        "--n-best", type=positive_int, metavar="N", help="texts that are printed (default: 1)"
    )
    group.add_argument(
        "--length-penalty",
        type=finite_float,
        metavar="X",
        help="compare log-probability / length^X; larger prefers longer texts (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Stream one text, print several, or hold a dialog."""
    import bytelm

    _check(args)
    prompts = _prompts(args)
    model = bytelm.load(args.run)
    if prompts is None:
        return _dialog(model, args)
    if len(prompts) == 1 and args.beams is None and not args.json:
        (prompt,) = prompts
        write(_asked(model.generate, prompt, **_options(args, one=True)), raw=args.raw)
        return 0
    texts = _search(model, prompts, args) if args.beams else _batch(model, prompts, args)
    if args.json:
        print_json({"texts": [_json(text) for text in texts]})
    elif len(texts) == 1:
        write([texts[0].text], raw=args.raw)
    else:
        _print(texts)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other, before anything is loaded."""
    if args.beams is None:
        for name in ("n_best", "length_penalty"):
            if getattr(args, name) is not None:
                raise _UsageError(f"{_flag(name)} is a setting of beam search: add --beams N")
    else:
        given = [name for name in (*_SAMPLING, "seed") if getattr(args, name) is not None]
        given += ["speculate"] * args.speculate + ["samples"] * (args.samples > 1)
        if given:
            raise _UsageError(
                f"--beams searches the likeliest text and {_flag(given[0])} is a setting of "
                "sampling: leave one of them out"
            )
        if (args.n_best or 1) > args.beams:
            raise _UsageError(f"--n-best {args.n_best} needs at least as many --beams")
    several = args.samples > 1 or args.prompts_file is not None or len(args.prompt or ()) > 1
    if args.speculate and several:
        raise _UsageError("--speculate writes one text at a time: give one prompt and one sample")
    if args.raw and (args.json or several or (args.n_best or 1) > 1):
        raise _UsageError(
            "--raw writes the bytes of one text and nothing else: with several texts use --json, "
            "whose `base64` holds every byte"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _prompts(args: argparse.Namespace) -> list[bytes] | None:
    """Return the prompts, each as often as texts are wanted; None where a dialog is."""
    if args.prompt is not None:
        prompts = [os.fsencode(prompt) for prompt in args.prompt]
    elif args.prompts_file is not None:
        prompts = _read(args.prompts_file, "--prompts-file").splitlines()
        if not prompts:
            raise DataError(
                f"--prompts-file {args.prompts_file} is empty: expected a prompt a line"
            )
    elif args.prompt_file is not None:
        prompts = [_read(args.prompt_file, "--prompt-file")]
    elif not sys.stdin.isatty():
        prompts = [sys.stdin.buffer.read()]
    else:
        if args.json or args.beams or args.speculate or args.raw or args.samples > 1:
            raise _UsageError(
                "which text? Give --prompt TEXT, --prompt-file FILE or --prompts-file FILE: the "
                "dialog has no --json, --raw, --beams, --samples or --speculate"
            )
        return None
    return [prompt for prompt in prompts for _ in range(args.samples)]


def _read(path: str, flag: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {flag} {path}: {error.strerror}") from error


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    return {
        name: default if getattr(args, name) is None else getattr(args, name)
        for name, default in _SAMPLING.items()
    }


def _options(args: argparse.Namespace, *, one: bool = False) -> dict[str, Any]:
    """Keywords of `generate` for one text, of `generate_batch` and `beam_search` but for theirs."""
    options: dict[str, Any] = {
        "max_new_bytes": args.max_new_bytes,
        "valid_utf8": args.valid_utf8,
        "stop": [os.fsencode(stop) for stop in args.stop],
    }
    if one:
        options |= {**_sampling(args), "seed": args.seed, "speculate": args.speculate}
    return options


def _asked(ask: Any, *arguments: Any, **options: Any) -> Any:
    """Call the library; what it refuses was asked for on the command line."""
    try:
        return ask(*arguments, **options)
    except ValueError as error:
        raise _UsageError(str(error)) from error


def _batch(
    model: "LanguageModel", prompts: Sequence[bytes], args: argparse.Namespace
) -> list[_Text]:
    """Write all texts, many at once; the seeds are chosen here so that --json can name them."""
    from bytelm.decoding.generation import new_seed
    from bytelm.decoding.sampling import NUM_SEEDS

    first = new_seed() if args.seed is None else args.seed
    seeds = [(first + index) % NUM_SEEDS for index in range(len(prompts))]
    if args.speculate:
        options = _options(args, one=True) | {"seed": seeds[0]}
        texts = [b"".join(_asked(model.generate, prompts[0], **options))]
    else:
        options = {**_options(args), **_sampling(args), "seeds": seeds, "rows": args.rows}
        written = [bytearray() for _ in prompts]
        for index, piece in _asked(model.generate_batch, prompts, **options):
            written[index] += piece
        texts = [bytes(text) for text in written]
    return [
        _Text(prompt, text, {"seed": number})
        for prompt, text, number in zip(prompts, texts, seeds, strict=True)
    ]


def _search(
    model: "LanguageModel", prompts: Sequence[bytes], args: argparse.Namespace
) -> list[_Text]:
    options = {**_options(args), "beams": args.beams, "n_best": args.n_best or 1}
    if args.length_penalty is not None:
        options["length_penalty"] = args.length_penalty
    return [
        _Text(prompt, found.text, {"log_prob_nats": found.log_prob, "score": found.score})
        for prompt in prompts
        for found in _asked(model.beam_search, prompt, **options)
    ]


def _json(text: _Text) -> dict[str, Any]:
    """Return one text of the object that --json prints; `base64` holds every byte of it."""
    return {
        "prompt": text.prompt.decode(errors="replace"),
        "text": text.text.decode(errors="replace"),
        "base64": base64.b64encode(text.text).decode("ascii"),
        "new_bytes": len(text.text),
        **text.numbers,
    }


def _print(texts: Sequence[_Text]) -> None:
    """Print several texts, each after a line that names its prompt, as `head` does."""
    for index, text in enumerate(texts):
        numbers = ", ".join(
            f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in text.numbers.items()
        )
        prompt = ascii(text.prompt.decode(errors="replace"))
        print(("\n" if index else "") + f"==> {prompt}, {numbers} <==")
        write([text.text], raw=False)


def write(pieces: Iterable[bytes], *, raw: bool) -> None:
    """Stream bytes to stdout: as they are, or as text that never splits a character."""
    if raw:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return
    for text in _shown(pieces):
        print(text, end="", flush=True)
    print()


def _shown(pieces: Iterable[bytes]) -> Iterator[str]:
    from bytelm.apps.repl import shown
    from bytelm.decoding.utf8 import decoded

    for text in decoded(pieces):
        # A terminal would obey control characters; a file or a pipe gets them as they are.
        yield shown(text) if sys.stdout.isatty() else text


def _dialog(model: "LanguageModel", args: argparse.Namespace) -> int:
    """Hold the dialog: notes and the input's prompt go to stderr unless stdout is a terminal."""
    from bytelm.apps.repl import Repl
    from bytelm.decoding.generation import Ending
    from bytelm.decoding.sampling import Sampling

    if sys.stdout.isatty():
        # Editing and history of the input line, where Python has them.
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")
    Repl(
        model,
        sampling=Sampling(**_sampling(args), valid_utf8=args.valid_utf8),
        ending=Ending(
            max_new_bytes=args.max_new_bytes,
            stop=tuple(os.fsencode(stop) for stop in args.stop),
        ),
        seed=args.seed,
        read=input if sys.stdout.isatty() else _read_line,
        write=lambda text: print(text, end="", flush=True),
        say=lambda text: print(text, file=sys.stderr),
    ).run()
    return 0


def _read_line(prompt: str) -> str:
    """Read a line as `input` does, with the prompt on stderr: stdout goes elsewhere."""
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")

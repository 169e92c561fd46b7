"""`bytelm chat`: answer inputs with a sequence-to-sequence model, in a dialog or from a pipe."""

import argparse
import base64
import contextlib
import importlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bytelm.cli.arguments import add_json, finite_float, positive_int
from bytelm.errors import BytelmError, DataError

if TYPE_CHECKING:
    from bytelm.apps.chat import ChatModel
    from bytelm.decoding.beam import Beams
    from bytelm.decoding.seq2seq import Transduction


class _UsageError(BytelmError):
    """Flags that do not go together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run, checkpoint or study directory")
    parser.add_argument(
        "--model", choices=["blt", "char"], help="which model of a study directory (default: blt)"
    )
    parser.add_argument("--input", metavar="TEXT", help="answer this text, and end")
    parser.add_argument(
        "--beam-width",
        type=positive_int,
        default=1,
        metavar="N",
        help="texts that are kept at each byte; 1 takes the likeliest byte (default: 1)",
    )
    parser.add_argument(
        "--length-penalty",
        type=finite_float,
        default=1.0,
        metavar="X",
        help="compare log-probability / length^X; larger prefers longer texts (default: 1)",
    )
    parser.add_argument(
        "--n-best",
        type=positive_int,
        default=1,
        metavar="N",
        help="answers of each input, at most the beam width (default: 1)",
    )
    parser.add_argument(
        "--rows",
        type=positive_int,
        default=1,
        metavar="N",
        help="lines of a pipe that are answered together: faster, and no answer comes before "
        "N lines are there (default: 1)",
    )
    add_json(parser)
    parser.epilog = (
        "On a terminal it is a dialog: /help there lists the commands. From a pipe, each line is\n"
        "an input, and each answer is a line, written as soon as it is known; line ends in an\n"
        "answer are shown as symbols. With --n-best N above 1 there are up to N lines for an\n"
        "input, each with its number, its score and the text, separated by tabs. --json writes an\n"
        "object a line, whose `base64` holds every byte. A line that the model cannot read is\n"
        "named on stderr and answered with an empty line, and the exit code is 1.\n\n"
        "examples:\n"
        "  bytelm chat runs/reversal\n"
        "  bytelm chat studies/reversal --model char --beam-width 5 --input 'stressed desserts'\n"
        "  cut -d, -f1 words.csv | bytelm chat studies/reversal --rows 64 > answers.txt"
    )


def run(args: argparse.Namespace) -> int:
    """Answer one text, the lines of a pipe, or hold a dialog."""
    if args.n_best > args.beam_width:
        raise _UsageError(f"--n-best {args.n_best} needs at least as much --beam-width")
    in_terminal = args.input is None and sys.stdin.isatty()
    if in_terminal and args.json:
        raise _UsageError("which text? The dialog has no --json: give --input TEXT, or pipe lines")
    from bytelm.apps.chat import model_folder
    from bytelm.decoding.beam import Beams
    from bytelm.training.loading import load_seq2seq

    model = load_seq2seq(model_folder(Path(args.run), args.model))
    beams = Beams(beams=args.beam_width, n_best=args.n_best, length_penalty=args.length_penalty)
    if in_terminal and sys.stdout.isatty():
        return _dialog(model, beams)
    if args.input is not None:
        inputs = iter([("--input", os.fsencode(args.input))])
    else:
        inputs = _lines(sys.stdin.buffer)
    return _answer(model, inputs, beams, args)


def _lines(stream: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Each line without its end, after its name."""
    for number, line in enumerate(stream, start=1):
        yield f"line {number}", line.removesuffix(b"\n").removesuffix(b"\r")


def _answer(
    model: "ChatModel",
    inputs: Iterator[tuple[str, bytes]],
    beams: "Beams",
    args: argparse.Namespace,
) -> int:
    """Answer inputs as they come; those that the model cannot read are told at once."""
    from bytelm.decoding.seq2seq import transduce

    count = failed = 0
    while batch := list(itertools.islice(inputs, args.rows)):
        problems = [_problem(model, name, data) for name, data in batch]
        readable = [data for (_, data), no in zip(batch, problems, strict=True) if no is None]
        found = iter(transduce(model, readable, beams=beams, rows=args.rows))
        for (_, data), problem in zip(batch, problems, strict=True):
            count += 1
            if problem is not None:
                failed += 1
                print(f"bytelm: {problem}", file=sys.stderr)
            texts = next(found) if problem is None else []
            print(_json(data, texts, problem) if args.json else _text(count, texts, beams))
        sys.stdout.flush()
    if failed:
        raise DataError(f"{failed} of {count} inputs have no answer: the lines above say why")
    return 0


def _problem(model: "ChatModel", name: str, data: bytes) -> str | None:
    """Why the model cannot read an input; None where it can."""
    from bytelm.decoding.seq2seq import check_input

    try:
        check_input(data, model.config.max_bytes, name=name)
    except ValueError as error:
        return str(error)
    return None


def _text(number: int, texts: "list[Transduction]", beams: "Beams") -> str:
    """Return the lines of one input; where it has no answer, an empty one holds its place."""
    from bytelm.apps.chat import one_line
    from bytelm.apps.repl import shown

    lines = [one_line(one.text) for one in texts]
    # A terminal would obey control characters; a file or a pipe gets them as they are.
    lines = [shown(line) if sys.stdout.isatty() else line for line in lines]
    if beams.n_best > 1:
        scored = zip(texts, lines, strict=True)
        lines = [f"{number}\t{one.score:.6f}\t{line}" for one, line in scored]
    return "\n".join(lines)


def _json(data: bytes, texts: "list[Transduction]", problem: str | None) -> str:
    """Return the object of one input, on one line."""
    answers = [
        {
            "text": one.text.decode(errors="replace"),
            "base64": base64.b64encode(one.text).decode("ascii"),
            "log_prob_nats": one.log_prob,
            "score": one.score,
            "ended": one.ended,
        }
        for one in texts
    ]
    record = {"input": data.decode(errors="replace"), "answers": answers, "error": problem}
    return json.dumps(record, allow_nan=False)


def _dialog(model: "ChatModel", beams: "Beams") -> int:
    from bytelm.apps.chat import Chat

    # Editing and history of the input line, where Python has them.
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")
    Chat(
        model,
        beams=beams,
        read=input,
        write=lambda text: print(text, end="", flush=True),
        say=lambda text: print(text, file=sys.stderr),
    ).run()
    return 0

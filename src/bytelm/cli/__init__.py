"""The command line: one file a verb, with `add_arguments(parser)` and `run(args) -> exit code`.

Results go to stdout, progress and logs to stderr. Exit codes: 0 done, 1 an error that is explained
on stderr, 2 a command line that cannot be read, 3 to 8 what is wrong with a container (`errors`),
130 Ctrl-C, 141 the reader of a pipe went away.
Only the verb that runs is imported, and it imports torch when it runs, so that help is instant.
"""

import argparse
import contextlib
import difflib
import importlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence

from bytelm.errors import BytelmError

VERBS = {
    "demo": "train, patch, evaluate and generate on real text here; ends with a report to open",
    "train": "train the model of a recipe; the same command again resumes it",
    "calibrate": "find the entropy threshold that gives a wanted mean patch size",
    "patch": "show where a file is cut into patches, and why",
    "evaluate": "measure bits per byte beside xz, zstd and ppmd on the same bytes",
    "generate": "write bytes after a prompt, streamed or in a dialog",
    "chat": "answer inputs with a sequence-to-sequence model, from a pipe or in a dialog",
    "task": "write training and test pairs of a made-up task with exact answers",
    "study": "run the whole study of a plan: train, measure, test, draw, report; resumes",
    "report": "write a study's report and figures again from its saved results",
    "compress": "make files smaller, exactly, with no model or with one of yours",
    "decompress": "give back the files that compress read, or a range of one",
    "test": "decode containers and check every byte, without writing any",
    "info": "print what a container's headers say, without decoding it",
    "salvage": "write what is whole in a damaged container",
    "bench": "measure the codec beside gzip, bzip2, xz, zstd, brotli and ppmd on your files",
    "import": "read a directory of transformers into a run",
    "export": "write a run as a directory that transformers loads",
    "config": "print every setting of a recipe with its meaning",
    "cost": "count parameters, FLOPs and memory of a recipe; nothing is allocated",
}

EXTRAS = {
    "matplotlib": "report",
    "jinja2": "report",
    "tensorboard": "report",
    "numba": "codec",
    "optuna": "search",
    "brotli": "compressors",
    "pyppmd": "compressors",
    "transformers": "hub",
    "tokenizers": "hub",
    "starlette": "web",
    "uvicorn": "web",
}
"""Optional package to the extra of this package that installs it."""

_SETTING = re.compile(r"--[A-Za-z_][\w-]*(\.[\w.-]*(=.*)?|=none)", re.DOTALL)
"""`--table.key`, `--table.key=value`, and `--table=none`, which leaves an optional table out."""


class _Parser(argparse.ArgumentParser):
    """A parser that names the nearest verb or flag when it does not know one."""

    def suggest(self, message: str, word: str, known: Sequence[str]) -> None:
        close = difflib.get_close_matches(word, known, n=1)
        self.error(f"{message} '{word}'" + (f"; did you mean '{close[0]}'?" if close else ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: The words after the program's name; those of this process unless given.

    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be UTF-8, and a terminal need not know every character.
        sys.stdout.reconfigure(errors="backslashreplace")
    with _logging_to_stderr():
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        except BytelmError as error:
            return _fail(str(error), status=error.exit_status)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in EXTRAS:
                raise
            install = f"pip install 'bytelm[{EXTRAS[package]}]'"
            return _fail(f"this needs the package '{package}', which is missing: {install}")
        except KeyboardInterrupt:
            print("bytelm: interrupted", file=sys.stderr)
            return 130
        except MemoryError as error:
            return _fail(f"not enough memory: {error}")
        except BrokenPipeError:
            # Python flushes stdout once more at exit; that must not fail again.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except OSError as error:
            return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(message: str, *, status: int = 1) -> int:
    print(f"bytelm: error: {message}", file=sys.stderr)
    return status


def _run(argv: list[str]) -> int:
    if not argv or argv[0] not in VERBS:
        return _front_page(argv)
    verb, *words = argv
    # Idle threads of a parallel region spin for long by default: beside any other process on the
    # same cores that makes training up to eight times slower (docs/LOG.md). Read by libgomp when
    # torch is loaded; a user's own setting stands.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    module = importlib.import_module(f"bytelm.cli.{verb}")
    parser = _Parser(
        prog=f"bytelm {verb}",
        description=f"{VERBS[verb][0].upper()}{VERBS[verb][1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    code = module.run(_parse(parser, words))
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _parse(parser: _Parser, words: list[str]) -> argparse.Namespace:
    """Read a verb's own flags; where it takes a recipe, leave the rest in `args.settings`."""
    takes_settings = parser.get_default("settings") is not None
    settings: list[str] = []
    own: list[str] = []
    while words:
        word = words.pop(0)
        if word.startswith("--") and words[:1] == ["none"]:
            word = f"{word}={words.pop(0)}"
        if not (takes_settings and _SETTING.fullmatch(word)):
            own.append(word)
            continue
        settings.append(word)
        takes_value = "=" not in word and not word.startswith("--no-")
        if takes_value and words and not words[0].startswith("--"):
            settings.append(words.pop(0))
    args, unknown = parser.parse_known_args(own)
    if unknown:
        flags = [option for action in parser._actions for option in action.option_strings]
        parser.suggest("unknown argument", unknown[0].partition("=")[0], flags)
    if takes_settings:
        args.settings = settings
    return args


def _front_page(argv: list[str]) -> int:
    verbs = "\n".join(f"  {verb:<10} {summary}" for verb, summary in VERBS.items())
    parser = _Parser(
        prog="bytelm",
        description="Language models that read raw bytes: train them, see their patches, use them.",
        epilog=f"verbs:\n{verbs}\n\n`bytelm VERB --help` shows a verb's flags and examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="bytelm VERB ...",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    if argv and not argv[0].startswith("-"):
        parser.suggest("unknown verb", argv[0], list(VERBS))
    if parser.parse_args(argv).version:
        from importlib.metadata import version

        print(f"bytelm {version('bytelm')}")
        return 0
    parser.print_help(sys.stdout if argv else sys.stderr)
    return 0 if argv else 2


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Send the package's log to stderr while a verb runs, and leave no handler behind."""
    logger = logging.getLogger("bytelm")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

"""`bytelm calibrate`: find the entropy threshold that gives a wanted mean patch size."""

import argparse
import math
import sys
from typing import TYPE_CHECKING

from bytelm.cli.arguments import add_json, patch_bytes, positive_int, print_json
from bytelm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from bytelm.patching import Entropy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="held-back text: files and folders; - is stdin"
    )
    parser.add_argument(
        "--entropy", required=True, metavar="RUN", help="the run of the entropy model"
    )
    parser.add_argument(
        "--mean-patch-bytes",
        type=patch_bytes,
        default=4.5,
        metavar="X",
        help="wanted bytes per patch (default: 4.5)",
    )
    parser.add_argument(
        "--relative",
        action="store_true",
        help="find the threshold of the rise since the byte before, not of the entropy itself",
    )
    parser.add_argument(
        "--min-patch-bytes",
        type=positive_int,
        default=1,
        metavar="N",
        help="no shorter patches (default: 1)",
    )
    parser.add_argument(
        "--max-patch-bytes",
        type=positive_int,
        metavar="N",
        help="no longer patches (default: no limit)",
    )
    add_json(parser)
    parser.epilog = (
        "Use text that the entropy model was not trained on; what it knows surprises it less.\n\n"
        "examples:\n"
        "  bytelm calibrate ~/notes/held-out --entropy runs/entropy\n"
        "  bytelm calibrate src --entropy runs/entropy --mean-patch-bytes 6 --json\n"
        "  bytelm calibrate src --entropy runs/entropy --relative --max-patch-bytes 16"
    )


def run(args: argparse.Namespace) -> int:
    """Print the threshold and the patch size of each file."""
    import bytelm
    from bytelm.data import build_corpus
    from bytelm.patching.calibrate import calibrate_threshold

    patcher = _patcher(args)
    model = bytelm.load(args.entropy)
    corpus = build_corpus(args.paths)
    if not corpus.num_bytes:
        raise DataError(f"no bytes in {', '.join(args.paths)}; calibration needs held-out text")
    found = calibrate_threshold(
        [model.entropies(document.tobytes()) for document in corpus],
        mean_patch_bytes=args.mean_patch_bytes,
        patcher=patcher,
        names=corpus.names,
    )
    files = dict(zip(corpus.names, map(float, found.per_document), strict=True))
    bits = found.threshold / math.log(2)
    name = "relative_threshold" if args.relative else "threshold"
    for warning in found.warnings:
        print(f"bytelm: warning: {warning}", file=sys.stderr)
    if args.json:
        print_json(
            {
                "rule": name,
                "threshold_nats": found.threshold,
                "threshold_bits": bits,
                "mean_patch_bytes": found.mean_patch_bytes,
                "mean_patch_bytes_per_file": files,
                "warnings": list(found.warnings),
            }
        )
        return 0
    for file, size in files.items():
        print(f"{size:8.2f} bytes per patch  {file}")
    print(f"{found.mean_patch_bytes:8.2f} bytes per patch  over all")
    print(f"{name} {found.threshold:.4f} nats ({bits:.4f} bits)")
    return 0


def _patcher(args: argparse.Namespace) -> "Entropy":
    """Return the rule with its limits; calibration replaces the threshold."""
    from bytelm.patching import Entropy

    try:
        return Entropy(
            threshold=None if args.relative else 1.0,
            relative_threshold=1.0 if args.relative else None,
            min_patch_bytes=args.min_patch_bytes,
            max_patch_bytes=args.max_patch_bytes,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error

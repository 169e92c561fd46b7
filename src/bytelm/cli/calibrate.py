"""`bytelm calibrate`: find the entropy threshold that gives a wanted mean patch size."""

import argparse
import math
import sys

from bytelm.cli.arguments import add_json, patch_bytes, print_json


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
    add_json(parser)
    parser.epilog = (
        "Use text that the entropy model was not trained on; what it knows surprises it less.\n\n"
        "examples:\n"
        "  bytelm calibrate ~/notes/held-out --entropy runs/entropy\n"
        "  bytelm calibrate src --entropy runs/entropy --mean-patch-bytes 6 --json"
    )


def run(args: argparse.Namespace) -> int:
    """Print the threshold and the patch size of each file."""
    import bytelm
    from bytelm.data import build_corpus
    from bytelm.errors import DataError
    from bytelm.patching import Entropy
    from bytelm.patching.calibrate import calibrate_threshold

    model = bytelm.load(args.entropy)
    corpus = build_corpus(args.paths)
    if not corpus.num_bytes:
        raise DataError(f"no bytes in {', '.join(args.paths)}; calibration needs held-out text")
    found = calibrate_threshold(
        [model.entropies(document.tobytes()) for document in corpus],
        mean_patch_bytes=args.mean_patch_bytes,
        # Any threshold: calibration replaces it.
        patcher=Entropy(threshold=1.0),
    )
    files = dict(zip(corpus.names, map(float, found.per_document), strict=True))
    bits = found.threshold / math.log(2)
    for warning in found.warnings:
        print(f"bytelm: warning: {warning}", file=sys.stderr)
    if args.json:
        print_json(
            {
                "threshold_nats": found.threshold,
                "threshold_bits": bits,
                "mean_patch_bytes": found.mean_patch_bytes,
                "mean_patch_bytes_per_file": files,
                "warnings": list(found.warnings),
            }
        )
        return 0
    for name, size in files.items():
        print(f"{size:8.2f} bytes per patch  {name}")
    print(f"{found.mean_patch_bytes:8.2f} bytes per patch  over all")
    print(f"threshold {found.threshold:.4f} nats ({bits:.4f} bits)")
    return 0

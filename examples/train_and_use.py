"""Train a small model on files of your own, then ask it things.

python examples/train_and_use.py FOLDER
"""

import argparse
from itertools import pairwise
from pathlib import Path

import bytelm
from bytelm.config import load
from bytelm.training.run import RunConfig, train


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/example"))
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()

    settings = {"data.paths": (str(args.folder),), "training.steps": args.steps}
    train(load(RunConfig, "blt-tiny", settings), args.out)

    model = bytelm.load(args.out)
    text = b"The first sentence of something new."
    print(f"{model.bits_per_byte(text):.3f} bits per byte")

    cuts = [*model.patch_starts(text).nonzero()[0], len(text)]
    print("patches:", [text[start:end] for start, end in pairwise(cuts)])

    session = model.session(rows=2)
    session.push([b"The ", b"A "])
    for row, log_probs in enumerate(session.log_probs()):
        print(f"row {row}: the likeliest next byte is {bytes([log_probs.argmax()])!r}")

    print(b"".join(model.generate(b"The ", max_new_bytes=80)).decode(errors="replace"))


if __name__ == "__main__":
    main()

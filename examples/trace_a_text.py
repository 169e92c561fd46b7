"""Show what a Byte Latent Transformer does for each byte that it reads.

python examples/trace_a_text.py RUN "The cat sat"
"""

import argparse
import math
from collections.abc import Iterator

import bytelm
from bytelm.models import BLT


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("text")
    args = parser.parse_args()
    model = bytelm.load(args.run)
    if not isinstance(model.model, BLT):
        parser.error(f"{args.run} holds a model of kind {model.kind}, expected a blt")
    for line in trace(model, args.text.encode()):
        print(line)


def trace(model: bytelm.LanguageModel, text: bytes) -> Iterator[str]:
    """A table in Markdown, a row for each id that is read."""
    yield "| read | entropy of the next | patch closed | global | decoded with | cost of next |"
    yield "|---|---|---|---|---|---|"
    session = model.session()
    read, patch, closed = "BOS", b"", 0
    for at in range(len(text) + 1):
        entropy, starts = session.entropies()[0], session.starts()[0]
        closes = (f"`{show(patch)}`" if patch else "BOS alone") if starts else ""
        closed += int(starts)
        cost = ""
        if at < len(text):
            bits = -session.log_probs()[0][text[at]] / math.log(2)
            cost = f"`{show(text[at : at + 1])}` {bits:.2f} bits"
        # A byte is written from the last patch that is closed; patch 0 is BOS.
        yield (
            f"| `{read}` | {entropy:.3f} nats | {closes} | "
            f"{f'on patch {closed - 1}' if starts else ''} | patch {closed - 1} | {cost} |"
        )
        if at < len(text):
            patch = b"" if starts else patch
            read, patch = show(text[at : at + 1]), patch + text[at : at + 1]
            session.push([text[at : at + 1]])


def show(data: bytes) -> str:
    """Bytes as text, where they are."""
    return data.decode("latin-1").replace(" ", "␣").replace("\n", "⏎").replace("|", "¦")


if __name__ == "__main__":
    main()

"""Kill a comparison with a search at random moments, go on, compare with one that was never killed.

`python kill_comparison.py FOLDER KILLS SEED`; exits non-zero with the first difference.
Processes are forked from one that has torch loaded and has not computed anything.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from comparison_plans import FAILING, tuned_plan, write_rows

from bytelm.experiments import run_plan
from bytelm.experiments.comparison import ComparisonPlan, ledger
from bytelm.experiments.comparison.space import SearchConfig

assert ledger  # Optuna is loaded before the first fork.


def start(plan: ComparisonPlan, out: Path) -> int:
    """Run the study in a new process; its id."""
    if child := os.fork():
        return child
    record = run_plan(plan, out)
    os._exit(len(record.missing))


def finish(child: int) -> int:
    """Wait for a process; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(out: Path) -> dict[str, object]:
    """What must not depend on interruptions: tables, words, predictions, weights, figures."""
    results = out / "results"
    record = json.loads((results / "comprehensive_results.json").read_text())
    del record["timing"], record["environment"]
    found: dict[str, object] = {
        "record": record,
        "words": (results / "experimental_report.txt").read_text().partition("\nSpeed\n")[0],
    }
    for file in (out / "checkpoints").glob("*.json"):
        history = json.loads(file.read_text())
        del history["timing"], history["commit"]
        found[file.name] = history
    alike = [*out.rglob("*.safetensors"), *results.glob("*.svg"), *results.glob("*.png")]
    alike += [*(out / "predictions").iterdir(), *results.glob("hyper*.json")]
    alike.append(results / "summary_report.txt")
    return found | {str(file.relative_to(out)): file.read_bytes() for file in alike}


def main(folder: Path, kills: int, seed: int) -> None:
    """Run the comparison of the comparison."""
    search = SearchConfig(trials=3, epochs=1, space=(FAILING,))
    plan = replace(tuned_plan(write_rows(folder)), search=search)
    straight, killed = folder / "straight", folder / "killed"
    begun = time.monotonic()
    assert finish(start(plan, straight)) == 0
    whole = time.monotonic() - begun

    generator = random.Random(seed)
    died = 0
    for _ in range(kills):
        child = start(plan, killed)
        time.sleep(generator.uniform(0.0, 2 * whole / kills))
        os.kill(child, signal.SIGKILL)
        died += finish(child) == -signal.SIGKILL
    assert finish(start(plan, killed)) == 0

    expected, got = content(straight), content(killed)
    assert got.keys() == expected.keys(), sorted(got.keys() ^ expected.keys())
    for name in expected:
        assert got[name] == expected[name], f"{name} differs"
    sys.stdout.write(f"identical after {died} kills\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""A study of a few milliseconds, for tests: sums of keyed numbers, one stage resumable in itself.

Its values are known in closed form, and each call of a stage leaves a line in `calls`.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

from bytelm.experiments import Outcome, Record, Stage, Work
from bytelm.experiments.document import Document, Paragraph, Section, Table
from bytelm.experiments.study import environment_section, missing_section, run_study

SEEDS = (0, 1)
LINES = 5


@dataclass
class Toy:
    """The study, and what was called."""

    count: int = 4
    failing: frozenset[str] = frozenset()
    calls: list[str] = field(default_factory=list)

    def stages(self) -> list[Stage]:
        """Numbers for each seed, a file of them written line by line, and their sum."""
        found = []
        for seed in SEEDS:
            numbers = Stage(
                name=f"numbers seed {seed}",
                task="numbers",
                version=1,
                settings={"seed": seed, "count": self.count},
                run=self._numbers,
            )
            written = Stage(
                name=f"file seed {seed}",
                task="file",
                version=1,
                settings={"lines": LINES},
                needs={"source": numbers.name},
                run=self._file,
            )
            found += [numbers, written]
        needs = {f"part {seed}": f"file seed {seed}" for seed in SEEDS}
        last = Stage(name="total", task="total", version=1, settings={}, needs=needs, run=self._sum)
        return [*found, last]

    def run(self, out: Path) -> Record:
        """Run it."""
        return run_study(
            out,
            plan={"kind": "toy", "count": self.count},
            data={"bytes": 0},
            environment={"machine": "any"},
            stages=self.stages(),
            document=document,
        )

    def _numbers(self, work: Work) -> Outcome:
        self._called(f"numbers {work.settings['seed']}")
        generator = random.Random(work.settings["seed"])
        values = [generator.randrange(1000) for _ in range(work.settings["count"])]
        return Outcome(values={"numbers": values}, timing={"luck": random.random()})

    def _file(self, work: Work) -> Outcome:
        """Write lines one by one, going on where a killed start stopped."""
        self._called("file")
        work.folder.mkdir(parents=True, exist_ok=True)
        file = work.folder / "lines.txt"
        there = file.read_text().splitlines() if file.exists() else []
        source = work.inputs["source"]["numbers"]
        for line in range(len(there), work.settings["lines"]):
            there.append(str(sum(source) + line))
            aside = file.with_suffix(".part")
            aside.write_text("\n".join(there) + "\n")
            aside.replace(file)
        return Outcome(values={"sum": sum(map(int, there)), "file": file.name})

    def _sum(self, work: Work) -> Outcome:
        self._called("total")
        return Outcome(values={"total": sum(part["sum"] for part in work.inputs.values())})

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise ValueError(f"{name} was made to fail")


def expected_total(count: int = 4) -> int:
    """What the last stage must say, computed another way."""
    total = 0
    for seed in SEEDS:
        generator = random.Random(seed)
        numbers = [generator.randrange(1000) for _ in range(count)]
        total += LINES * sum(numbers) + LINES * (LINES - 1) // 2
    return total


def document(record: Record) -> Document:
    """A report with a table of every value."""
    rows = tuple((stage.name, str(stage.values)) for stage in record.stages)
    sections = (
        *missing_section(record),
        Section(title="Values", blocks=(Table(header=("stage", "values"), rows=rows),)),
        Section(title="End", blocks=(Paragraph(text="That is all."),)),
        environment_section(record),
    )
    return Document(title="A toy", lead="Nothing is learned here.", sections=sections)

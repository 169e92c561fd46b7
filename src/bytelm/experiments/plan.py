"""Plans: what a study varies and measures, as TOML; found, run, and reported on by their kind.

`plans/NAME.toml` is a plan at its full scale. `plans/NAME-quick.toml`, which extends it, is the
same plan in minutes, and `plans/NAME-tune.toml` the plan after a search of its settings. A study
of the same kind with other settings is another file, not other code.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bytelm import config
from bytelm.errors import ConfigError
from bytelm.experiments import comparison, compression, results
from bytelm.experiments.comparison import ComparisonPlan
from bytelm.experiments.compression import CompressionPlan
from bytelm.experiments.document import Document
from bytelm.experiments.results import Record
from bytelm.experiments.store import RESULTS
from bytelm.experiments.study import Beside, run_study, write_report
from bytelm.training import environment

Plan = CompressionPlan | ComparisonPlan
"""Every kind of plan; `kind` in the file tells them apart."""


def find_plan(name: str | Path, *, scale: str = "full") -> Path:
    """Return the file of a plan at a scale.

    Args:
        name: `my/plan.toml`, the `plan.json` of a study, or the name of a plan that ships with the
            package.
        scale: `full`, or another for which there is a file `NAME-SCALE.toml` beside it.

    Raises:
        ConfigError: There is none; the message lists what is there.

    """
    path = Path(name)
    if path.suffix not in (".toml", ".json"):
        path = path.with_name(f"{path.name}.toml")
    if not path.is_file() and path.parent in (Path(), Path("plans")):
        path = _plans() / path.name
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in _plans().glob("*.toml")))
        raise ConfigError(f"no plan {name}; a path, or one of the plans: {known}")
    if scale == "full":
        return path
    scaled = path.with_name(f"{path.stem}-{scale}{path.suffix}")
    if not scaled.is_file():
        raise ConfigError(
            f"{path} has no scale {scale!r}: there is no file {scaled}; write one that extends it"
        )
    return scaled


def _plans() -> Path:
    """Return the folder of shipped plans: inside the package, or beside `src` in a clone."""
    package = Path(__file__).parents[1]
    inside = package / "plans"
    return inside if inside.is_dir() else package.parents[1] / "plans"


def run_plan(plan: Plan, out: Path) -> Record:
    """Run, or go on running, the study of a plan, and write its report.

    Args:
        plan: What to do.
        out: The study's directory. Stages that it holds already, of this plan or an earlier one,
            are not done again where all they depend on is the same.

    Returns:
        The record; `missing` tells what failed.

    Raises:
        BytelmError: A recipe, the data or the directory cannot be used. A stage that fails is no
            error: it is in the record.

    """
    plan = plan.resolved()
    tables = config.to_dict(plan)
    keep = None
    match plan:
        case CompressionPlan():
            test = compression.HeldOut(plan)
            stages, data = compression.list_stages(plan, test), test.describe()
        case ComparisonPlan():
            rows = comparison.Rows(plan)
            stages, data = comparison.list_stages(plan, rows), rows.describe()
            tables = plan.for_record()
            keep = partial(comparison.keep_best, out=out)
    return run_study(
        out,
        plan=tables,
        data=data,
        environment=environment.describe(environment.resolve_device(plan.hardware.device)),
        stages=stages,
        document=_document,
        files=_files,
        keep=keep,
    )


def rebuild(out: Path) -> list[Path]:
    """Write the report and the figures of a study again, from its record alone.

    Returns:
        The files of the report.

    Raises:
        BytelmError: There is no study, or its record cannot be read or the report not be written.

    """
    record = results.read(out)
    if record.plan["kind"] == ComparisonPlan.kind:
        comparison.check(record, where=out / RESULTS / results.FILE)
    return write_report(out, _document(record), _files(record))


def _document(record: Record) -> Document:
    """Make the report of a record by the kind of its plan."""
    kinds: dict[str, Callable[[Record], Document]] = {
        CompressionPlan.kind: compression.document,
        ComparisonPlan.kind: comparison.document,
    }
    kind = record.plan.get("kind")
    if kind not in kinds:
        raise ConfigError(
            f"the study is of kind {kind!r}; this bytelm reports on: {', '.join(kinds)}"
        )
    return kinds[kind](record)


def _files(record: Record) -> Beside | None:
    """Make what stands beside the report of a record."""
    if record.plan.get("kind") != ComparisonPlan.kind:
        return None
    return Beside(comparison.files(record), comparison.NAMES)

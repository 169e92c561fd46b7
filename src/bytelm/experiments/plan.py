"""Plans: what a study varies and measures, as TOML; found, run, and reported on by their kind.

`plans/NAME.toml` is a plan at its full scale and `plans/NAME-quick.toml`, which extends it, the
same plan in minutes. A study of the same kind with other settings is another file, not other code.
"""

from pathlib import Path

from bytelm import config
from bytelm.errors import ConfigError
from bytelm.experiments import compression, results
from bytelm.experiments.compression import CompressionPlan
from bytelm.experiments.document import Document
from bytelm.experiments.results import Record
from bytelm.experiments.study import run_study, write_report
from bytelm.training import environment

Plan = CompressionPlan
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
    match plan:
        case CompressionPlan():
            test = compression.HeldOut(plan)
            stages, data = compression.list_stages(plan, test), test.describe()
    return run_study(
        out,
        plan=config.to_dict(plan),
        data=data,
        environment=environment.describe(environment.resolve_device(plan.hardware.device)),
        stages=stages,
        document=_document,
    )


def rebuild(out: Path) -> list[Path]:
    """Write the report and the figures of a study again, from its record alone.

    Returns:
        The files of the report.

    Raises:
        BytelmError: There is no study, or its record cannot be read or the report not be written.

    """
    return write_report(out, _document(results.read(out)))


def _document(record: Record) -> Document:
    """Make the report of a record by the kind of its plan."""
    kinds = {CompressionPlan.kind: compression.document}
    kind = record.plan.get("kind")
    if kind not in kinds:
        raise ConfigError(
            f"the study is of kind {kind!r}; this bytelm reports on: {', '.join(kinds)}"
        )
    return kinds[kind](record)

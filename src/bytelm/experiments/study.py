"""A study from start to report: its directory, its stages, and what is written at the end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bytelm.experiments import results
from bytelm.experiments.document import (
    Block,
    Document,
    Paragraph,
    Section,
    Table,
    as_html,
    as_markdown,
    as_text,
)
from bytelm.experiments.plots import draw
from bytelm.experiments.results import Record
from bytelm.experiments.runner import Stage, StageResult, run_stages
from bytelm.experiments.store import PLAN, RESULTS, Store, make_folder
from bytelm.training.run_directory import locked, write_file, write_json

REPORT = "experimental_report"

MakeDocument = Callable[[Record], Document]


def run_study(
    out: Path,
    *,
    plan: dict[str, Any],
    data: dict[str, Any],
    environment: dict[str, Any],
    stages: Sequence[Stage],
    document: MakeDocument,
) -> Record:
    """Run, or go on running, a study and write its report, whatever failed.

    Args:
        out: The study's directory; made if needed.
        plan: Resolved, as tables: what is recorded.
        data: What the data are, JSON-able.
        environment: Versions and hardware, JSON-able.
        stages: In order, each after those it needs.
        document: Makes the report of a record, complete or not.

    Returns:
        The record; `missing` tells what failed.

    Raises:
        RunError: Another process runs there, or the directory holds something else or cannot be
            written.

    """
    with locked(out, marker=PLAN, what="study"):
        write_json(out / PLAN, plan)

        def record(stage_results: Sequence[StageResult]) -> Record:
            return Record(
                plan=plan, data=data, stages=tuple(stage_results), environment=environment
            )

        finished = record(
            run_stages(stages, Store(out), on_change=lambda now: results.write(out, record(now)))
        )
        write_report(out, document(finished))
    return finished


def write_report(out: Path, document: Document) -> list[Path]:
    """Write a report in its three forms, and its figures.

    Returns:
        The files of the report: text, Markdown, HTML.

    Raises:
        RunError: One cannot be written.

    """
    folder = out / RESULTS
    make_folder(folder)
    drawings = draw(document.figures(), folder)
    forms = {
        "txt": as_text(document),
        "md": as_markdown(document),
        "html": as_html(document, drawings),
    }
    for ending, text in forms.items():
        write_file(folder / f"{REPORT}.{ending}", text.encode())
    return [folder / f"{REPORT}.{ending}" for ending in forms]


def missing_section(record: Record) -> list[Section]:
    """What has no result, and why; no section where everything has one."""
    if not record.missing:
        return []
    rows = tuple((stage.name, stage.state, stage.error or "") for stage in record.missing)
    blocks: tuple[Block, ...] = (
        Paragraph(
            text=f"{len(rows)} of {len(record.stages)} stages have no result; what is said below "
            "is said without them. The same command again does them.",
            is_warning=True,
        ),
        Table(header=("stage", "state", "reason"), rows=rows),
    )
    return [Section(title="Not measured", blocks=blocks)]


def environment_section(record: Record) -> Section:
    """Where the last start ran, and how long the stages took."""
    rows = [
        (name, str(value)) for name, value in _flat(record.environment).items() if value is not None
    ]
    seconds = sum((stage.timing or {}).get("stage_seconds", 0.0) for stage in record.stages)
    rows.append(("seconds of all stages", f"{seconds:.0f}"))
    return Section(
        title="Where it ran", blocks=(Table(header=("", ""), rows=tuple(rows)),), varies=True
    )


def _flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tables.items():
        flat |= (
            _flat(value, f"{prefix}{key} ") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat

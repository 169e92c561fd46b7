"""A study from start to report: its directory, its stages, and what is written at the end."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bytelm.errors import RunError
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


@dataclass(frozen=True)
class Beside:
    """What a kind of study leaves beside its report."""

    files: Mapping[str, bytes]
    """Content by path in the study's directory."""

    names: re.Pattern[str]
    """Every path that this kind of study gives a file or a figure, two parts long: those of an
    earlier record are known by it, and removed."""


MakeFiles = Callable[[Record], Beside | None]


def run_study(
    out: Path,
    *,
    plan: dict[str, Any],
    data: dict[str, Any],
    environment: dict[str, Any],
    stages: Sequence[Stage],
    document: MakeDocument,
    files: MakeFiles | None = None,
    keep: Callable[[Record], None] | None = None,
) -> Record:
    """Run, or go on running, a study and write its report, whatever failed.

    Args:
        out: The study's directory; made if needed.
        plan: Resolved, as tables: what is recorded.
        data: What the data are, JSON-able.
        environment: Versions and hardware, JSON-able.
        stages: In order, each after those it needs.
        document: Makes the report of a record, complete or not.
        files: Makes what is written beside the report; None: nothing is.
        keep: Called with the record when all is written, to put what the stages made where people
            look for it.

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
        write_report(out, document(finished), None if files is None else files(finished))
        if keep is not None:
            keep(finished)
    return finished


def write_report(out: Path, document: Document, beside: Beside | None = None) -> list[Path]:
    """Write a report in its three forms, its figures, and the files beside it.

    Args:
        out: The study's directory. What a report of an earlier record left there, and this one
            has not, is removed.
        document: The report.
        beside: The files beside it; None: there are none.

    Returns:
        The files of the report: text, Markdown, HTML.

    Raises:
        RunError: One cannot be written, or would not be in the directory; in this case nothing is
            written.

    """
    folder = out / RESULTS
    files = {} if beside is None else beside.files
    figures = [f"{RESULTS}/{each.name}" for each in document.figures()]
    for name in (*files, *figures):
        _require_inside(out, name)
    make_folder(folder)
    drawings = draw(document.figures(), folder)
    forms = {
        "txt": as_text(document),
        "md": as_markdown(document),
        "html": as_html(document, drawings),
    }
    for ending, text in forms.items():
        write_file(folder / f"{REPORT}.{ending}", text.encode())
    for name, content in files.items():
        make_folder((out / name).parent)
        write_file(out / name, content)
    if beside is not None:
        drawn = {f"{name}.{ending}" for name in figures for ending in ("png", "svg")}
        _remove_old(out, beside.names, kept=drawn | files.keys())
    return [folder / f"{REPORT}.{ending}" for ending in forms]


def _require_inside(out: Path, name: str) -> None:
    """Refuse a name that leads out of the study's directory, whatever system reads it."""
    path = PurePosixPath(name)
    is_plain = not (path.is_absolute() or ".." in path.parts or set(name) & set("\\:\0"))
    if not (is_plain and _is_inside(out, out / path)):
        raise RunError(
            f"the report would write {name!r}, which is not in {out}; expected a path in it: no "
            "'..', no root, no link that leads out"
        )


def _is_inside(out: Path, file: Path) -> bool:
    return file.parent.resolve().is_relative_to(out.resolve())


def _remove_old(out: Path, names: re.Pattern[str], *, kept: Collection[str]) -> None:
    for file in sorted(out.glob("*/*")):
        name = file.relative_to(out).as_posix()
        if name in kept or not names.fullmatch(name):
            continue
        if file.is_file() and _is_inside(out, file):
            try:
                file.unlink()
            except OSError as error:
                raise RunError(
                    f"{file}, of an earlier record, cannot be removed: {error.strerror}"
                ) from error


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

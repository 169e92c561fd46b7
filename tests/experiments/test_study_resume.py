"""A study killed anywhere ends as one that was not. Oracle: the study that was never killed."""

import json
import os
import signal
from pathlib import Path

import pytest
from toy_study import Toy, document, expected_total

from bytelm.errors import CheckpointError, RunError
from bytelm.experiments import results
from bytelm.experiments.document import Document, as_text
from bytelm.experiments.study import write_report
from bytelm.training import run_directory


def stable(out: Path) -> dict[str, object]:
    """What must not depend on interruptions: the record without timing, and the report's words."""
    record = json.loads((out / "results" / results.FILE).read_text())
    for name in ("timing", "environment"):
        del record[name]
    whole = document(results.read(out))
    sections = tuple(section for section in whole.sections if not section.varies)
    words = as_text(Document(title=whole.title, lead=whole.lead, sections=sections))
    written = (out / "results" / "experimental_report.txt").read_text()
    assert written.startswith(words.removesuffix("\n"))
    return {"record": record, "words": words}


def run_and_die_at(move: int, out: Path, *, before: bool) -> bool:
    """Run in a process that dies at its n-th rename, before or after it; whether it came so far.

    Every file of a study gets its name by a rename, so these are all the moments that differ.
    """
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL)
        return status != 0
    moves, rename = iter(range(1, 1 << 20)), Path.replace

    def replace(self, target):
        due = next(moves) == move
        if due and before:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(self, target)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)

    Path.replace = replace
    Toy().run(out)
    os._exit(0)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_write_it_ends_with_the_same_tables(tmp_path, before):
    Toy().run(tmp_path / "straight")
    expected = stable(tmp_path / "straight")
    move = 1
    while run_and_die_at(move, tmp_path / f"killed{move}", before=before):
        Toy().run(tmp_path / f"killed{move}")
        assert stable(tmp_path / f"killed{move}") == expected, f"killed at write {move}"
        move += 1
    # A plan, five results, ten lines, three forms of the report, and a record around each stage.
    assert move > 20


def test_killed_again_and_again_it_ends_with_the_same_tables(tmp_path):
    Toy().run(tmp_path / "straight")
    kills = 0
    # A study that has nothing left to do writes five files: the sixth is one step of progress.
    while run_and_die_at(6, tmp_path / "killed", before=False):
        kills += 1
        assert kills < 50
    assert kills >= 4
    assert stable(tmp_path / "killed") == stable(tmp_path / "straight")


def test_two_at_once_are_refused(tmp_path):
    with (
        run_directory.locked(tmp_path / "toy", marker="plan.json", what="study"),
        pytest.raises(RunError, match=f"in use by process {os.getpid()}"),
    ):
        Toy().run(tmp_path / "toy")


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match=r"holds no study \('letter.txt' is in it\)"):
        Toy().run(tmp_path)


# --- the record --------------------------------------------------------------------------------


def test_the_record_comes_back_and_the_report_is_made_of_it_alone(tmp_path):
    record = Toy().run(tmp_path / "toy")
    assert results.read(tmp_path / "toy") == record
    assert record.values("total") == {"total": expected_total()}
    report = tmp_path / "toy" / "results" / "experimental_report.md"
    written = report.read_bytes()
    report.unlink()
    files = write_report(tmp_path / "toy", document(results.read(tmp_path / "toy")))
    assert [file.suffix for file in files] == [".txt", ".md", ".html"]
    assert report.read_bytes() == written


def test_a_record_that_is_none_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no study"):
        results.read(tmp_path)
    Toy().run(tmp_path / "toy")
    file = tmp_path / "toy" / "results" / results.FILE
    tables = json.loads(file.read_text())
    file.write_text(json.dumps({**tables, "version": 2}))
    with pytest.raises(RunError, match="has version 2, this bytelm reads 1"):
        results.read(tmp_path / "toy")
    for name in tables:
        for wrong in (None, 1, [], "text", {"a": 1}, [{"name": "x"}]):
            if name == "version" or (name in ("plan", "data", "environment") and wrong == {"a": 1}):
                continue
            if (name, wrong) == ("stages", []):
                continue
            file.write_text(json.dumps({**tables, name: wrong}))
            with pytest.raises(CheckpointError, match="is not what bytelm writes there"):
                results.read(tmp_path / "toy")
    file.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        results.read(tmp_path / "toy")

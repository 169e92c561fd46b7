"""Oracles: the toy study's closed form; the list of calls that a start had to make."""

import json
from dataclasses import replace

import pytest
from toy_study import Toy, expected_total

from bytelm.errors import CheckpointError, DataError
from bytelm.experiments.runner import FAILURES, Outcome, Stage, run_stages, stage_keys
from bytelm.experiments.store import Store


def stage(name, *, settings=None, version=1, task="task", needs=None, run=None):
    return Stage(
        name=name,
        task=task,
        version=version,
        settings=settings or {},
        needs=needs or {},
        run=run or (lambda _: Outcome(values={})),
    )


def run(stages, folder):
    return run_stages(stages, Store(folder), on_change=lambda _: None)


# --- keys --------------------------------------------------------------------------------------


def test_a_key_is_that_of_all_that_decides_the_values():
    base = stage("a", settings={"x": 1, "y": [2.5, None, "z"]})
    others = [
        replace(base, settings={**base.settings, "x": 2}),
        replace(base, settings={**base.settings, "new": None}),
        replace(base, version=2),
        replace(base, task="other"),
    ]
    keys = [stage_keys([one])["a"] for one in (base, *others)]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)


def test_a_key_follows_what_is_needed_and_the_role_it_plays():
    def last_key(settings, role):
        first = stage("a", settings=settings)
        return stage_keys([first, stage("b", needs={role: "a"})])["b"]

    assert last_key({"x": 1}, "model") == last_key({"x": 1}, "model")
    assert last_key({"x": 1}, "model") != last_key({"x": 2}, "model")
    assert last_key({"x": 1}, "model") != last_key({"x": 1}, "data")


def test_names_and_the_order_of_settings_do_not_matter():
    one = stage("a", settings={"x": 1, "y": 2})
    other = stage("another name", settings={"y": 2, "x": 1})
    assert stage_keys([one])["a"] == stage_keys([other])["another name"]


def test_stages_that_make_no_order_are_refused():
    with pytest.raises(ValueError, match="two stages are called 'a'"):
        stage_keys([stage("a"), stage("a")])
    with pytest.raises(ValueError, match="'a' needs 'b' as its model, which does not come before"):
        stage_keys([stage("a", needs={"model": "b"}), stage("b")])


# --- running -----------------------------------------------------------------------------------


def test_values_are_handed_on_and_nothing_is_done_twice(tmp_path):
    toy = Toy()
    record = toy.run(tmp_path / "toy")
    assert record.values("total") == {"total": expected_total()}
    assert toy.calls == ["numbers 0", "file", "numbers 1", "file", "total"]
    again = Toy()
    assert again.run(tmp_path / "toy") == record
    assert again.calls == []


def test_another_setting_makes_again_only_what_depends_on_it(tmp_path):
    store, calls = tmp_path / "toy", []

    def stages(x):
        def task(name, values):
            def run(work):
                calls.append(name)
                return Outcome(values={**values, **work.inputs.get("in", {})})

            return run

        return [
            stage("a", settings={"x": x}, task="a", run=task("a", {"x": x})),
            stage("b", settings={"y": 0}, task="b", run=task("b", {"y": 0})),
            stage("c", task="c", needs={"in": "a"}, run=task("c", {})),
        ]

    assert run(stages(1), store)[2].values == {"x": 1}
    calls.clear()
    assert run(stages(2), store)[2].values == {"x": 2}
    assert calls == ["a", "c"]
    calls.clear()
    # The first setting's results are still there and are its own.
    assert run(stages(1), store)[2].values == {"x": 1}
    assert calls == []


def test_stages_of_one_key_are_one_stage(tmp_path):
    calls = []

    def task(work):
        calls.append(work.settings)
        return Outcome(values={"n": len(calls)})

    found = run([stage("a", run=task), stage("b", run=task)], tmp_path)
    assert [result.values for result in found] == [{"n": 1}, {"n": 1}]


def test_what_a_stage_is_given_is_the_same_before_and_after_a_restart(tmp_path):
    """Values take a trip through JSON before the next stage sees them: no tuple, no int key."""
    seen = []

    def last(work):
        seen.append(work.inputs["in"])
        if len(seen) == 1:
            raise DataError("once")
        return Outcome(values={})

    first = stage("a", run=lambda _: Outcome(values={"pair": (1, 2), "by": {3: 4}}))
    stages = [first, stage("b", task="b", needs={"in": "a"}, run=last)]
    run(stages, tmp_path)
    run(stages, tmp_path)
    assert seen == [{"pair": [1, 2], "by": {"3": 4}}] * 2


def test_timing_is_kept_and_handed_to_nobody(tmp_path):
    record = Toy().run(tmp_path / "toy")
    assert record.timing("numbers seed 0")["luck"] >= 0
    assert record.timing("numbers seed 0")["stage_seconds"] >= 0
    assert record.values("numbers seed 0").keys() == {"numbers"}


# --- failing -----------------------------------------------------------------------------------


def test_a_failed_stage_is_recorded_and_what_can_do_without_it_is_done(tmp_path):
    toy = Toy(failing=frozenset({"numbers 0"}))
    record = toy.run(tmp_path / "toy")
    states = {result.name: result.state for result in record.stages}
    assert states == {
        "numbers seed 0": "failed",
        "file seed 0": "skipped",
        "numbers seed 1": "done",
        "file seed 1": "done",
        "total": "skipped",
    }
    errors = [result.error for result in record.missing]
    assert errors[0] == "ValueError: numbers 0 was made to fail"
    assert errors[1] == "needs numbers seed 0, which has no result"
    report = (tmp_path / "toy" / "results" / "experimental_report.txt").read_text()
    assert "3 of 5 stages have no result" in report
    assert "numbers 0 was made to fail" in report


def test_what_failed_is_tried_again_and_ends_as_if_it_never_had(tmp_path):
    straight = Toy().run(tmp_path / "straight")
    Toy(failing=frozenset({"file"})).run(tmp_path / "toy")
    healed = Toy()
    record = healed.run(tmp_path / "toy")
    assert healed.calls == ["file", "file", "total"]
    assert [result.values for result in record.stages] == [s.values for s in straight.stages]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_fails_its_stage(tmp_path, value):
    (result,) = run([stage("a", run=lambda _: Outcome(values={"x": value}))], tmp_path)
    assert result.state == "failed"
    assert "not JSON compliant" in result.error


def test_a_mistake_in_the_program_is_no_failed_stage(tmp_path):
    assert not issubclass(TypeError, FAILURES)

    def wrong(_):
        raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        run([stage("a", run=wrong)], tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"values": 1, "timing": {}}'])
def test_a_damaged_result_is_named_and_removing_it_heals(tmp_path, content):
    record = Toy().run(tmp_path / "toy")
    file = tmp_path / "toy" / "stages" / f"total-{record.stages[-1].key}.json"
    whole = json.loads(file.read_text())
    file.write_text(content)
    with pytest.raises(CheckpointError, match=f"{file.name}.*remove it"):
        Toy().run(tmp_path / "toy")
    file.unlink()
    Toy().run(tmp_path / "toy")
    assert json.loads(file.read_text())["values"] == whole["values"]

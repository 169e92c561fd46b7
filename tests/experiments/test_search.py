"""The search. Oracles: a search that was never killed, enumeration, brute force, two at once."""

import itertools
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm import config
from bytelm.errors import BytelmError, CheckpointError, ConfigError, RunError
from bytelm.experiments.comparison import search as searching
from bytelm.experiments.comparison.ledger import Ledger
from bytelm.experiments.comparison.search import Place, Score, Trial, best_of, search
from bytelm.experiments.comparison.space import Dimension, SearchConfig, size_of, without_password

LR = Dimension(key="optim.lr", low=1e-4, high=1e-1, log=True)
ROWS = Dimension(key="training.batch_rows", values=(8, 16, 32, 64))
MATRICES = Dimension(key="optim.matrices", values=("muon", "adamw"))
WARMUP = Dimension(key="schedule.warmup_steps", low=0, high=9)
SPACE = (LR, ROWS, MATRICES, WARMUP)
TRIALS = 7
"""Of the searches that are killed: the last ones are not drawn blindly any more."""


def bowl(params) -> Score:
    """Least at lr = 0.01 and 32 rows; the rest is noise that depends on the point alone."""
    value = abs(params.get("optim.lr", 0) - 0.01) + abs(params["training.batch_rows"] - 32) / 100
    noise = len(json.dumps(params, sort_keys=True)) / 1000
    return Score(value=value + noise, details={"parameters": params["training.batch_rows"]})


def here(folder: Path, *, owner: str = "me", name: str = "one") -> Place:
    return Place(storage=folder / "trials.jsonl", name=name, owner=owner)


def run(folder: Path, objective=bowl, *, space=SPACE, trials: int = 9, **place) -> list[Trial]:
    return search(space, objective, trials=trials, seed=3, place=here(folder, **place))


def timeless(trials: list[Trial]) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in trials]


# --- what is tried -----------------------------------------------------------------------------


def test_the_budget_is_spent_on_points_of_the_space_that_all_differ(tmp_path):
    trials = run(tmp_path)
    assert [trial.index for trial in trials] == list(range(9))
    assert len({json.dumps(trial.params) for trial in trials}) == 9
    for trial in trials:
        assert trial.params.keys() == {dimension.key for dimension in SPACE}
        assert 1e-4 <= trial.params["optim.lr"] <= 1e-1
        for dimension in SPACE[1:]:
            value = trial.params[dimension.key]
            assert value in dimension.points
            assert type(value) is type(dimension.points[0])
        score = bowl(trial.params)
        assert (trial.value, trial.details) == (score.value, score.details)


def test_the_best_is_the_lowest_and_the_earlier_of_two(tmp_path):
    trials = run(tmp_path)
    assert best_of(trials).value == min(trial.value for trial in trials)
    same = [replace(trial, value=1.0) for trial in trials]
    assert best_of(same) == same[0]
    assert best_of([replace(trial, value=None) for trial in trials]) is None


def test_a_space_no_larger_than_the_budget_is_tried_whole(tmp_path):
    """Oracle: the product of the values."""
    space = (ROWS, MATRICES)
    trials = run(tmp_path, space=space, trials=20)
    assert [tuple(trial.params.values()) for trial in trials] == list(
        itertools.product(ROWS.values, MATRICES.values)
    )


def test_a_space_a_little_larger_than_the_budget_is_never_tried_twice(tmp_path):
    trials = run(tmp_path, space=(ROWS, MATRICES), trials=7)
    assert len({tuple(trial.params.values()) for trial in trials}) == 7


def test_what_is_tried_depends_on_the_seed_and_on_what_was_found(tmp_path):
    first = run(tmp_path / "a")
    assert timeless(run(tmp_path / "b")) == timeless(first)
    other = search(SPACE, bowl, trials=9, seed=4, place=here(tmp_path / "c"))
    assert [t.params for t in other] != [t.params for t in first]
    steep = run(tmp_path / "d", lambda params: Score(value=-params["schedule.warmup_steps"]))
    assert [t.params for t in steep[:5]] == [t.params for t in first[:5]]
    assert [t.params for t in steep] != [t.params for t in first]


def test_two_searches_in_one_storage_know_nothing_of_each_other(tmp_path):
    first = run(tmp_path, name="one")
    assert timeless(run(tmp_path, name="two")) == timeless(first)


def test_it_finds_more_than_chance(tmp_path):
    """Oracle: as many points drawn blindly, over three seeds, all of them fixed."""
    space = (Dimension(key="x", low=-4.0, high=4.0), Dimension(key="y", low=-4.0, high=4.0))

    def hill(params) -> Score:
        return Score(value=(params["x"] - 1) ** 2 + (params["y"] + 1) ** 2)

    def best(seed: int, objective) -> float:
        place = here(tmp_path, name=f"{objective.__name__}{seed}")
        trials = search(space, objective, trials=20, seed=seed, place=place)
        return min(hill(trial.params).value for trial in trials)

    def blind(params) -> Score:
        return Score(value=0.0)

    led = sorted(best(seed, hill) for seed in range(3))
    assert led[1] < sorted(best(seed, blind) for seed in range(3))[1]


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RunError("the loss is not a number"), "RunError: the loss is not a number"),
        (MemoryError("8 GiB"), "MemoryError: 8 GiB"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory"),
            "RuntimeError: DefaultCPUAllocator: not enough memory",
        ),
        (ConfigError("no such size"), "ConfigError: no such size"),
        (OverflowError("too large"), "OverflowError: too large"),
        (None, "ValueError: the score is nan, expected a finite number"),
    ],
)
def test_a_trial_that_fails_counts_and_is_passed_over(tmp_path, error, said):
    calls = []

    def objective(params) -> Score:
        calls.append(params)
        if len(calls) == 3 and error is not None:
            raise error
        return Score(value=float("nan")) if len(calls) == 3 else bowl(params)

    trials = run(tmp_path, objective)
    assert len(calls) == len(trials) == 9
    assert [trial.index for trial in trials if trial.error] == [2]
    assert (trials[2].value, trials[2].error, trials[2].details) == (None, said, {})
    assert timeless(run(tmp_path, objective)) == timeless(trials)
    assert len(calls) == 9


def test_all_may_fail_and_are_tried_again(tmp_path, caplog):
    """Oracle: the search that never failed; the failures of two earlier ones are no part of it."""

    def objective(params) -> Score:
        raise ValueError("no")

    for _ in range(2):
        trials = run(tmp_path, objective)
        assert [trial.error for trial in trials] == ["ValueError: no"] * 9
        assert best_of(trials) is None
    assert caplog.text.count("all 9 trials of the search have failed: they are tried again") == 1
    expected = timeless(run(tmp_path / "straight"))
    assert timeless(run(tmp_path)) == expected
    # Nor does anything fail from now on.
    assert timeless(run(tmp_path, objective)) == expected


def caused(error: BytelmError, cause: BaseException) -> BytelmError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        ImportError("no tensorboard"),
        caused(RunError("not written"), OSError(28, "No space left on device")),
        caused(RunError("the package is missing"), ImportError("no tensorboard")),
        caused(RunError("outer"), caused(RunError("inner"), OSError(5, "I/O error"))),
        CheckpointError("the checkpoint was changed since it was written"),
        RuntimeError("CUDA error: unspecified launch failure"),
    ],
    ids=str,
)
def test_what_is_no_matter_of_the_settings_ends_no_trial(tmp_path, error):
    """Oracle: the search that was never interrupted."""
    calls = []

    def objective(params) -> Score:
        calls.append(params)
        if len(calls) == 3:
            raise error
        return bowl(params)

    with pytest.raises(type(error)) as raised:
        run(tmp_path, objective)
    assert raised.value is error
    assert timeless(run(tmp_path, objective)) == timeless(run(tmp_path / "straight"))
    # The trial was taken up again, and no other.
    assert len(calls) == 10
    assert calls[2] == calls[3]


def test_a_mistake_in_the_program_is_no_failed_trial(tmp_path):
    def objective(params) -> Score:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        run(tmp_path, objective)


# --- killed ------------------------------------------------------------------------------------


def run_and_die_at(moment: int, folder: Path, *, call: str) -> bool:
    """Search in a process that kills itself at its n-th call of a system function."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL)
        return status != 0
    module, name = call.split(".")
    moments, real = iter(range(1, 1 << 20)), getattr(sys.modules[module], name)

    def die(*arguments):
        if next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    setattr(sys.modules[module], name, die)
    run(folder, remembering(folder), trials=TRIALS)
    os._exit(0)


def remembering(folder: Path) -> Callable[..., Score]:
    """An objective that leaves a line for each call."""

    def objective(params) -> Score:
        with (folder / "calls.txt").open("a") as file:
            file.write(json.dumps(params) + "\n")
        return bowl(params)

    return objective


@pytest.mark.parametrize("call", ["fcntl.flock", "os.fsync"], ids=["before", "after"])
def test_killed_at_every_write_it_ends_as_the_one_that_was_not(tmp_path, call):
    expected = timeless(run(tmp_path / "straight", trials=TRIALS))
    moment, folder = 1, tmp_path / "killed1"
    folder.mkdir()
    while run_and_die_at(moment, folder, call=call):
        assert timeless(run(folder, remembering(folder), trials=TRIALS)) == expected, (
            f"killed at {moment}"
        )
        calls = (folder / "calls.txt").read_text().splitlines()
        assert list(map(json.loads, dict.fromkeys(calls))) == [t.params for t in expected]
        # A trial that was killed is taken up again, and no other.
        assert len(calls) - TRIALS == (len(set(calls)) < len(calls))
        moment += 1
        folder = tmp_path / f"killed{moment}"
        folder.mkdir()
    # The search, and of each trial its begin, its outcome and its end.
    assert moment == 1 + 1 + 3 * TRIALS


def test_killed_again_and_again_it_ends_as_the_one_that_was_not(tmp_path):
    expected = timeless(run(tmp_path / "straight", trials=TRIALS))
    folder = tmp_path / "killed"
    folder.mkdir()
    kills = 0
    while run_and_die_at(4, folder, call="os.fsync"):
        kills += 1
        assert kills < 40
    assert kills >= TRIALS - 1
    assert timeless(run(folder, trials=TRIALS)) == expected


@settings(max_examples=15)
@given(cut=st.integers(1, 400))
def test_a_journal_that_ends_in_half_a_line_goes_on(tmp_path_factory, cut):
    """Oracle: the whole search. What is cut off was never told, so it is done again."""
    folder = tmp_path_factory.mktemp("cut")
    space = (ROWS,)
    expected = timeless(run(folder, space=space, trials=4))
    journal = folder / "trials.jsonl"
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert timeless(run(folder, space=space, trials=4)) == expected
    for line in journal.read_bytes().splitlines():
        json.loads(line)


# --- several machines --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "database"])
def test_two_at_once_share_the_budget_and_never_a_point(tmp_path, kind):
    storage = tmp_path / "shared.jsonl" if kind == "file" else f"sqlite:///{tmp_path}/shared.db"
    # The tables are made first, as an administrator would.
    search((ROWS,), bowl, trials=1, seed=0, place=Place(storage=storage, name="x", owner="x"))
    begun = threading.Barrier(2)
    calls: dict[str, list] = {"a": [], "b": []}
    found: dict[str, list[Trial]] = {}

    def work(owner: str) -> None:
        def objective(params) -> Score:
            if not calls[owner]:
                begun.wait(timeout=60)
            calls[owner].append(params)
            return bowl(params)

        place = Place(storage=storage, name="one", owner=owner)
        found[owner] = search(SPACE, objective, trials=9, seed=3, place=place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "POLL_SECONDS", 0.01)
        threads = [threading.Thread(target=work, args=(owner,)) for owner in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found["a"] == found["b"]
    assert len(found["a"]) == 9
    assert len(calls["a"]) + len(calls["b"]) == 9
    assert calls["a"]
    assert calls["b"]
    tried = [json.dumps(params) for params in calls["a"] + calls["b"]]
    assert sorted(tried) == sorted(json.dumps(trial.params) for trial in found["a"])
    assert len(set(tried)) == 9


def test_of_two_that_begin_the_same_the_first_stays(tmp_path):
    first = Ledger(tmp_path / "t", name="one", owner="a")
    second = Ledger(tmp_path / "t", name="one", owner="b")
    for ledger in (first, second):
        ledger.add({"training.batch_rows": 8}, (ROWS,), budget=2)
    second.add({"training.batch_rows": 16}, (ROWS,), budget=2)
    second.add({"training.batch_rows": 32}, (ROWS,), budget=2)
    assert [(e.owner, *e.params.values()) for e in first.entries()] == [("a", 8), ("b", 16)]


def test_the_trials_of_others_are_waited_for(tmp_path, monkeypatch, caplog):
    other = Ledger(tmp_path / "trials.jsonl", name="one", owner="other")
    other.add({"training.batch_rows": 8}, (ROWS,), budget=4)
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        (entry,) = [entry for entry in other.entries() if entry.owner == "other"]
        if len(waits) == 3:
            other.complete(entry, value=0.5, details={"parameters": 7}, seconds=1.0)

    monkeypatch.setattr(searching.time, "sleep", wait)
    with caplog.at_level(logging.INFO, "bytelm"):
        trials = run(tmp_path, space=(ROWS,), trials=4)
    assert waits == [searching.POLL_SECONDS] * 3
    assert caplog.text.count("waiting for 1 trials of other machines") == 1
    assert (trials[0].value, trials[0].details) == (0.5, {"parameters": 7})


def test_a_trial_without_a_sign_of_life_is_done_by_another(tmp_path, monkeypatch):
    """The clock is the test's: it beats once, and is then silent for as long as it takes."""
    other = Ledger(tmp_path / "trials.jsonl", name="one", owner="other")
    other.add({"training.batch_rows": 8}, (ROWS,), budget=4)
    (dead,) = other.entries()
    now, beaten = [0.0], []

    def wait(seconds: float) -> None:
        now[0] += 100.0
        if now[0] == 300.0:
            other.beat(dead, 1)
            beaten.append(now[0])

    monkeypatch.setattr(searching.time, "sleep", wait)
    monkeypatch.setattr(searching.time, "monotonic", lambda: now[0])
    trials = run(tmp_path, space=(ROWS,), trials=4)
    assert beaten == [300.0]
    assert now[0] == 300.0 + searching.STALE_SECONDS
    assert sorted(trial.params["training.batch_rows"] for trial in trials) == [8, 16, 32, 64]
    # It was not dead, but its place is taken.
    other.complete(dead, value=0.0, details={}, seconds=0.0)
    assert timeless(run(tmp_path, space=(ROWS,), trials=4)) == timeless(trials)


def test_a_trial_that_runs_shows_life(tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "NEWS_SECONDS", 0.0)
    reader = Ledger(tmp_path / "trials.jsonl", name="one", owner="reader")

    def objective(params) -> Score:
        # Ends as soon as a sign is there; the test's timeout ends it otherwise.
        while not any(entry.beats for entry in reader.entries()):
            pass
        return bowl(params)

    assert len(run(tmp_path, objective, space=(ROWS,), trials=1)) == 1


# --- the storage -------------------------------------------------------------------------------


def test_a_database_holds_the_same_search_as_a_file(tmp_path):
    place = Place(storage=f"sqlite:///{tmp_path}/trials.db", name="one", owner="me")
    trials = search(SPACE, bowl, trials=9, seed=3, place=place)
    assert timeless(trials) == timeless(run(tmp_path))


@pytest.mark.parametrize(
    ("storage", "error", "said"),
    [
        ("nosuchdb://u:secret@host/x", RunError, r"nosuchdb://u:\*\*\*@host/x does not work"),
        (
            "postgresql://u:secret@host/x",
            ConfigError,
            "needs a package that is missing .No module named 'psycopg",
        ),
        ("sqlite:////no/such/folder/x.db", RunError, "does not work as a storage of trials"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named_without_its_password(storage, error, said):
    with pytest.raises(error, match=said) as raised:
        search((ROWS,), bowl, trials=1, seed=0, place=Place(storage=storage, name="x", owner="x"))
    assert "secret" not in str(raised.value)


def test_a_journal_that_is_none_is_named(tmp_path):
    (tmp_path / "trials.jsonl").write_text("dear diary\n")
    with pytest.raises(RunError, match=r"trials\.jsonl does not work as a storage of trials"):
        run(tmp_path)
    (tmp_path / "folder" / "trials.jsonl").mkdir(parents=True)
    with pytest.raises(RunError, match="cannot be used: Is a directory"):
        run(tmp_path / "folder")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p@ss@h:1/d", "postgresql://u:***@h:1/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("sqlite:///a:b.db", "sqlite:///a:b.db"),
        ("/a:b@c", "/a:b@c"),
    ],
)
def test_a_password_is_not_shown(address, expected):
    assert without_password(address) == expected


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "bytelm.experiments.comparison.ledger")
    monkeypatch.delattr("bytelm.experiments.comparison.ledger")
    with pytest.raises(ConfigError, match=r"'optuna', which is missing: pip install 'bytelm\[sea"):
        run(tmp_path)


def test_the_library_writes_nothing_of_its_own(tmp_path, capfd):
    handlers = list(logging.getLogger("optuna").handlers)
    run(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("optuna").handlers == handlers


# --- the space ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"key": "a"}, "expected `values`, or `low` and `high`"),
        ({"key": "a", "low": 1}, "expected `values`, or `low` and `high`"),
        ({"key": "a", "values": [1], "low": 1, "high": 2}, "expected `values`, or `low`"),
        ({"key": "a", "values": [1, 1]}, "values must be different"),
        ({"key": "a", "low": 2, "high": 1}, "low must be below high"),
        ({"key": "a", "low": 0.0, "high": 1.0, "log": True}, "above 0 where log is true"),
        ({"key": "a", "low": 0.0, "high": float("inf")}, "both finite"),
        ({"key": "a", "low": float("nan"), "high": 1.0}, "low must be below high"),
        ({"key": "a", "valeus": [1]}, "did you mean 'values'"),
    ],
)
def test_a_dimension_that_cannot_be_is_refused(table, said):
    with pytest.raises(ConfigError, match=said):
        config.from_dict(Dimension, table)


def test_values_keep_their_types():
    table = {"key": "a", "values": [True, 1, 1.5, "x"]}
    dimension = config.from_dict(Dimension, table)
    assert dimension.values == (True, 1, 1.5, "x")
    assert [type(value) for value in dimension.values] == [bool, int, float, str]
    assert dimension.described() == [True, 1, 1.5, "x"]
    assert LR.described() == {"low": 1e-4, "high": 1e-1, "log": True}


def test_points_are_counted():
    assert size_of((ROWS, MATRICES, WARMUP)) == 4 * 2 * 10
    assert size_of(SPACE) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 0}, "trials must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"space": ()}, "at least one"),
        ({"space": (ROWS, ROWS)}, "different keys"),
    ],
)
def test_a_search_out_of_range_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(SearchConfig(space=(ROWS,)), **changes)

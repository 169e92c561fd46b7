"""What a report says. Oracle: made-up results, whose order is known, read back from Markdown."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compression_plan import small_plan

from bytelm import config
from bytelm.errors import ConfigError
from bytelm.experiments import plan as plans
from bytelm.experiments import results
from bytelm.experiments.compression import document
from bytelm.experiments.compression.findings import Sample, change, relation, sample
from bytelm.experiments.compression.plan import PatchRule
from bytelm.experiments.document import as_html, as_markdown, as_text
from bytelm.experiments.results import Record
from bytelm.experiments.runner import StageResult
from bytelm.experiments.study import write_report

CLASSICS = {"xz -9e": 2.5, "ppmd -o6": 2.0, "gzip -9": 3.0}
BLOCKS = 40


def made_up(*, seeds: int = 1, model: float = 1.8, gap: float = 0.1) -> Record:
    """A finished study: the mixer at 1.9, model + mixer at `model`, two patch rules `gap` apart."""
    plan = small_plan(Path("/data"), seeds=seeds)
    rules = (*plan.patches.rules, PatchRule(name="static", settings=("patching.kind=static",)))
    plan = replace(plan, patches=replace(plan.patches, rules=rules))
    stages: list[StageResult] = []

    def add(name: str, values: dict, timing: dict | None = None) -> None:
        stages.append(
            StageResult(
                name=name,
                task=name.split()[0],
                key=f"{len(stages):032x}",
                state="done",
                values=values,
                timing={**(timing or {}), "stage_seconds": 1.0},
            )
        )

    effort = {"seconds": 2.0, "cpu_seconds": 2.0, "peak_bytes": 3_000_000}
    ways = {"encode": effort, "decode": effort}
    classic = {
        name: {"compressed_bytes": 1, "bits_per_byte": bits, "parameters": "", "problem": None}
        for name, bits in CLASSICS.items()
    }
    broken = {"compressed_bytes": 1, "bits_per_byte": 0.1, "parameters": ""}
    classic["wrong -1"] = {**broken, "problem": "decodes to other bytes"}
    add("classics", classic, dict.fromkeys(CLASSICS, ways))
    for lanes in plan.lanes:
        add(f"mixer lanes {lanes}", _coded(1.9 + 0.01 * lanes, 0))
    for mode in ("mixer", "model", "mixed"):
        add(f"speed {mode}", {"compressed_bytes": 1}, ways)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 50, BLOCKS)
    for seed in range(seeds):
        for index, arm in enumerate(plan.arms()):
            add(f"train {arm} seed {seed}", _trained(index))
            add(f"score {arm} seed {seed}", _scored(2.2 + seed / 100, noise))
            for lanes in plan.lanes if arm == "base" else (1,):
                cost = 0.001 * lanes + 0.02 * index + seed / 1000
                add(f"model {arm} seed {seed} lanes {lanes}", _coded(2.3 + cost, 500_000))
                add(f"mixed {arm} seed {seed} lanes {lanes}", _coded(model + cost, 500_000))
        for index, rule in enumerate(rules):
            add(f"train {rule.name} seed {seed}", _trained(7))
            jitter = noise + rng.normal(0, 20, BLOCKS)
            add(f"score {rule.name} seed {seed}", _scored(2.4 + gap * index, jitter))
            add(f"float codec {rule.name} seed {seed}", _coded(2.5, 0, expected=2.499))
    data = {
        "bytes": {"train": 900, "valid": 50, "test": 50},
        "compressed": 1_000_000,
        "corpus": "ab" * 32,
        "overlap": {"valid": 0.0, "test": 0.25, "duplicates": []},
    }
    return Record(
        plan=config.to_dict(plan), data=data, stages=tuple(stages), environment={"device": "cpu"}
    )


def _coded(bits: float, model_bytes: int, expected: float | None = None) -> dict:
    return {
        "raw_bytes": 1_000_000,
        "compressed_bytes": round(bits * 125_000),
        "bits_per_byte": bits,
        "payload_bits_per_byte": bits - 0.001,
        "expected_bits_per_byte": expected,
        "model_bytes": model_bytes,
        "modes": ["mixed"],
    }


def _trained(index: int) -> dict:
    return {
        "steps": 5,
        "best_valid_bpb": 2.0,
        "bytes_seen": 100 + index,
        "parameters": 1000 * index,
    }


def _scored(bits: float, noise: np.ndarray) -> dict:
    return {
        "bits_per_byte": bits,
        "bytes_scored": 4096 * BLOCKS,
        "mean_patch_bytes": 5.5,
        "flops_per_byte": 1.25e6,
        "block_bits": (bits * 4096 + noise).tolist(),
        "block_bytes": [4096] * BLOCKS,
    }


def tables(markdown: str) -> dict[str, list[dict[str, str]]]:
    """Section title to its rows, each as heading to cell."""
    found: dict[str, list[dict[str, str]]] = {}
    for section in re.split(r"^## ", markdown, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        found[title] = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]] if cells else []
    return found


def findings(record: Record) -> str:
    return as_text(document(record)).partition("Configuration\n")[0].replace("\n  ", " ")


# --- every figure stands where its heading says ------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
def test_every_cell_is_the_value_of_its_row_and_heading(seeds):
    record = made_up(seeds=seeds)
    found = tables(as_markdown(document(record)))

    def mean(stage: str, key: str) -> float:
        return float(np.mean([record.values(stage.format(seed))[key] for seed in range(seeds)]))

    def shown(cell: str) -> float:
        return float(cell.partition(" ")[0].replace(",", ""))

    modes = {
        "model + mixer": "mixed {} seed {{}} lanes {}",
        "model alone": "model {} seed {{}} lanes {}",
    }
    for row in found["Size"]:
        arm = f"size dim={row['model.dim']}"
        for name, stage in modes.items():
            assert shown(row[name]) == pytest.approx(
                mean(stage.format(arm, 1), "bits_per_byte"), abs=1e-4
            )
        assert shown(row["parameters"]) == mean(f"train {arm} seed {{}}", "parameters")
        assert shown(row["bytes learned from"]) == mean(f"train {arm} seed {{}}", "bytes_seen")
        assert shown(row["bytes of the integer model"]) == 500_000
    for row in found["Lanes"]:
        lanes = row["lanes"]
        for name, stage in modes.items():
            assert shown(row[name]) == pytest.approx(
                mean(stage.format("base", lanes), "bits_per_byte"), abs=1e-4
            )
        mixer = record.values(f"mixer lanes {lanes}")["bits_per_byte"]
        assert shown(row["mixer alone"]) == pytest.approx(mixer, abs=1e-4)
    for row in found["Floats and integers"]:
        exact = mean(f"model {row['model']} seed {{}} lanes 1", "payload_bits_per_byte")
        as_trained = mean(f"score {row['model']} seed {{}}", "bits_per_byte")
        assert shown(row["integers, coded"]) == pytest.approx(exact, abs=1e-4)
        assert shown(row["float"]) == pytest.approx(as_trained, abs=1e-4)
        assert shown(row["cost"]) == pytest.approx(exact - as_trained, abs=1e-4)
    for row in found["Patch rule"]:
        assert shown(row["bits per byte"]) == mean(
            f"score {row['patches']} seed {{}}", "bits_per_byte"
        )
        assert (row["bytes per patch"], row["MFLOP per byte"]) == ("5.50", "1.250")
        assert (shown(row["codec: promised"]), shown(row["codec: written"])) == (2.499, 2.499)
    for row in found["Speed"]:
        assert row["encode, KB/s"] == "500"
        assert row["MB"] == "3"


def test_the_comparison_is_in_order_and_counts_the_model_where_it_says_so():
    rows = tables(as_markdown(document(made_up())))["Against the classical compressors"]
    bits = [float(row["bits per byte"].split()[0]) for row in rows]
    assert bits == sorted(bits)
    by_name = {row[""]: row for row in rows}
    assert by_name.keys() == {"model + mixer", "mixer alone", "model alone", *CLASSICS}
    assert float(by_name["model + mixer"]["with the model's own bytes"]) == pytest.approx(
        1.801 + 8 * 0.5, abs=1e-3
    )
    assert by_name["xz -9e"]["with the model's own bytes"] == ""
    assert by_name["xz -9e"]["against the best classical"] == "+25.0 %"


def test_a_compressor_that_does_not_decode_is_named_and_no_rival():
    text = as_text(document(made_up()))
    assert "wrong -1: decodes to other bytes" in text
    assert "(ppmd -o6, 2.0000)" in text


# --- what is concluded -------------------------------------------------------------------------


def test_it_says_by_how_much_the_model_is_better():
    said = findings(made_up(model=1.699))
    assert "Model and mixer together: 1.7000 bits per byte, 15.0 % below the best classical" in said
    assert "Model and mixer are 11.0 % below the mixer alone. It has 500,000 bytes" in said
    assert "Each training was done once" in said


def test_it_says_so_when_the_model_loses():
    said = findings(made_up(model=2.2))
    assert "Model and mixer together: 2.2010 bits per byte, 10.1 % above the best classical" in said
    assert "The model does not pay here: model and mixer are 15.2 % above the mixer alone." in said


def test_it_says_so_when_nothing_is_shown():
    said = findings(made_up(model=1.909))
    assert "model and mixer are not shown to differ from the mixer alone" in said


def test_seeds_that_overlap_show_no_difference():
    """The mixer is at 1.91, the model's three seeds at 1.909, 1.910 and 1.911."""
    said = findings(made_up(seeds=3, model=1.908))
    assert "not shown to differ from the mixer alone" in said
    assert "1.9100 (1.9090 to 1.9110)" in said
    assert "Each training was done once" not in said


def test_patch_rules_are_told_apart_only_where_the_test_does():
    assert "Patches: 'spaces' needs fewer bits than 'static'" in findings(made_up(gap=0.1))
    assert "Patches: 'static' needs fewer bits than 'spaces'" in findings(made_up(gap=-0.1))
    assert "Patches: no difference shown between" in findings(made_up(gap=0.0))


def test_patch_rules_that_the_test_tells_apart_by_next_to_nothing_are_not_told_apart():
    """With the same noise in both the paired test is sure of 0.002 bits; 0.1 % is 0.0024."""
    record = made_up(gap=0.002)
    noise = np.random.default_rng(1).normal(0, 1, BLOCKS)
    scores = {
        f"score {name} seed 0": 2.4 + 0.002 * i for i, name in enumerate(("spaces", "static"))
    }
    stages = tuple(
        replace(stage, values=_scored(scores[stage.name], noise)) if stage.name in scores else stage
        for stage in record.stages
    )
    said = findings(replace(record, stages=stages))
    assert re.search(
        r"no difference shown between 'spaces' and 'static' \(-0.0020.*p = 0.0005", said
    )


def test_promises_lanes_and_integers_are_told():
    said = findings(made_up())
    assert "written is within 0.00 % of the models' own bits per byte (2 models" in said
    assert "4 lanes instead of 1, the mixer alone: +1.6 %." in said
    assert "Integers instead of floats cost +0.1000 bits per byte" in said


def test_test_bytes_that_were_learned_are_a_warning():
    assert "WARNING: 25 % of the test bytes occur in the training data" in as_text(
        document(made_up())
    )


def test_relations_by_hand():
    assert relation(Sample((1.0,)), Sample((1.0005,))) == "not shown to differ from"
    assert relation(Sample((2.0,)), Sample((1.0,))) == "100.0 % above"
    assert relation(Sample((1.0, 1.2)), Sample((1.3, 1.4))) == "18.5 % below"
    assert change(Sample((2.0,)), Sample((1.0,))) == "-50.0 %"
    assert change(Sample((1.0,)), Sample((1.5,))) == "+50.0 %"
    assert change(Sample((1.0,)), Sample((1.0,))) == "no difference shown"
    assert sample([None, None]) is None
    assert str(sample([1.0, None, 2.0])) == "1.5000 (1.0000 to 2.0000)"


# --- partial results ---------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.data())
def test_whatever_is_missing_a_report_is_made_and_says_what(data):
    record = made_up(seeds=2)
    names = [stage.name for stage in record.stages]
    gone = data.draw(st.sets(st.sampled_from(names)) | st.just(set(names)))
    partial = replace(
        record,
        stages=tuple(
            replace(stage, state="failed", values=None, timing=None, error=f"<no {stage.name}>")
            if stage.name in gone
            else stage
            for stage in record.stages
        ),
    )
    made = document(partial)
    text, page = as_text(made), as_html(made, {})
    for name in gone:
        assert f"<no {name}>" in text
        assert f"&lt;no {name}&gt;" in page
    assert ("have no result" in text) == bool(gone)
    assert ("Nothing was measured." in text) == (gone == set(names))


def test_rebuilding_needs_nothing_but_the_record(tmp_path):
    results.write(tmp_path, made_up())
    files = plans.rebuild(tmp_path)
    assert [file.read_text()[:1] for file in files] == ["T", "#", "<"]
    drawn = {file.stem for file in (tmp_path / "results").glob("*.svg")}
    assert drawn == {"compressors", "lanes", "sweep_size", "patch_rules"}
    assert {file.stem for file in (tmp_path / "results").glob("*.png")} == drawn
    again = {file: file.read_bytes() for file in (tmp_path / "results").iterdir()}
    plans.rebuild(tmp_path)
    assert {file: file.read_bytes() for file in (tmp_path / "results").iterdir()} == again


def test_a_study_of_another_kind_is_refused(tmp_path):
    record = made_up()
    results.write(tmp_path, replace(record, plan={**record.plan, "kind": "telepathy"}))
    with pytest.raises(ConfigError, match="is of kind 'telepathy'; this bytelm reports on: compre"):
        plans.rebuild(tmp_path)
    assert write_report(tmp_path, document(record))

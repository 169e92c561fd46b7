"""The demo on small files. Oracles: the law of scored bytes, and its own results file."""

import json
from pathlib import Path

import pytest

from bytelm.apps.demo import run_demo


def test_demo_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYTELM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "files"
    folder.mkdir()
    for index in range(30):
        text = f"# file {index}\n" + "def main():\n    return 'the cat sat on the mat'\n" * 30
        (folder / f"{index}.py").write_text(text)
    settings = {"training.steps": 2, "model.num_buckets": 64, "hardware.threads": 1}
    lines: list[str] = []
    out = tmp_path / "demo"
    result = run_demo([folder], out=out, settings=settings, say=lines.append)

    assert set(result.models) == {"BLT", "its entropy model", "byte GPT"}
    scored = {found.bytes_scored for found in result.models.values()}
    assert len(scored) == 1
    assert result.models["BLT"].mean_patch_bytes > 1
    assert abs(result.parameters["BLT"] / result.parameters["byte GPT"] - 1) < 0.01
    stored = json.loads((out / "results.json").read_text())
    for name, found in result.models.items():
        assert stored["models"][name]["bits_per_byte"] == found.bits_per_byte
    page = result.report.read_text()
    assert "BLT" in page

    again = run_demo([folder], out=out, settings=settings, say=lines.append)
    assert again.models["BLT"].bits_per_byte == result.models["BLT"].bits_per_byte

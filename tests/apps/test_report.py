"""Oracles: numbers given are the numbers shown; hostile input stays text; nothing is loaded."""

import json
import re

import numpy as np
import pytest
from closed_form import AfterE

from bytelm.apps import report
from bytelm.apps.render import patch_view
from bytelm.evaluation import evaluate, reference_compressors

HOSTILE = "</script><script>alert(1)</script>\"'&"


def _run(path, *, steps: int):
    path.mkdir()
    rows = [
        {
            "step": step,
            "bytes_seen": 1000 * step,
            "train_bpb": 8 / step**0.3,
            "valid_bpb": 8 / step**0.3 if step % 50 == 0 else None,
        }
        for step in range(1, steps + 1)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (path / "metrics.jsonl").write_text(lines + '{"step": ')
    return path


@pytest.fixture
def page(tmp_path):
    documents = [np.frombuffer(b"the green tree sees the bee " * 20, dtype=np.uint8)]
    compressors = reference_compressors(documents)
    evaluation = evaluate(AfterE(), [(HOSTILE, documents[0])], flops_per_byte=2.5e6)
    scores = [report.model_score(HOSTILE, evaluation)]
    scores += [report.compressor_score(result) for result in compressors]
    view = patch_view(AfterE(), HOSTILE.encode(), name=HOSTILE)
    path = tmp_path / "made" / "report.html"
    report.write_report(
        path,
        title=HOSTILE,
        subtitle=HOSTILE,
        sections=[
            report.comparison_section(scores, note=HOSTILE, warnings=[HOSTILE]),
            report.curves_section({HOSTILE: _run(tmp_path / "run", steps=400)}),
            report.patch_section(view),
            report.samples_section(
                [report.Sample(label=HOSTILE, prompt=b"def ", text=HOSTILE.encode() + b"\xff\x00")]
            ),
            report.settings_section({HOSTILE: HOSTILE}, commands=[HOSTILE]),
        ],
    )
    return evaluation, compressors, path.read_text("utf-8")


def test_the_figures_are_those_of_the_results(page):
    evaluation, compressors, text = page
    assert f"{evaluation.bits_per_byte:.3f}</td>" in text
    assert "2.50 MFLOP per byte" in text
    for result in compressors:
        assert f"{result.bits_per_byte:.3f}</td>" in text


def test_hostile_text_stays_text_and_nothing_is_loaded(page):
    _, _, text = page
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    assert text.count('<script type="application/json">') == 1
    assert not re.search(r"\b(?:src|href)=|https?://|@import|url\(", text)
    assert "default-src 'none'" in text


def test_best_comes_first_and_missing_comes_last():
    scores = [
        report.Score(name="gone", bits_per_byte=None, detail="not installed"),
        report.Score(name="worse", bits_per_byte=3.0),
        report.Score(name="better", bits_per_byte=2.0, is_model=True, interval=(1.9, 2.1)),
    ]
    body = report.comparison_section(scores).body
    assert body.index("better") < body.index("worse") < body.index("gone")
    assert "95 % interval 1.900 to 2.100" in body


def test_bars_are_proportional():
    scores = [report.Score(name="a", bits_per_byte=1.0), report.Score(name="b", bits_per_byte=4.0)]
    body = report.comparison_section(scores).body
    first, second = map(float, re.findall(r'class="fill"[^>]*? width="([\d.]+)"', body))
    assert second == pytest.approx(4 * first, rel=0.01)


def test_curves_of_a_long_run_are_thinned_and_a_new_run_is_no_error(tmp_path):
    section = report.curves_section({"long": _run(tmp_path / "long", steps=3000)})
    points = re.search(r'points="([^"]*)"', section.body).group(1).split()
    assert len(points) <= 300
    measured = 8 / np.arange(50, 3001, 50) ** 0.3
    # What is above 2.5 times the low end of the range is the fall from 8 bits, not shown.
    low = 0.95 * measured.min()
    assert section.body.count("<circle") == (measured < 2.5 * low).sum() == 57
    (tmp_path / "new").mkdir()
    assert "No measurements" in report.curves_section({"new": tmp_path / "new"}).body


def test_one_measurement_makes_a_chart(tmp_path):
    assert "<polyline" in report.curves_section({"one": _run(tmp_path / "one", steps=1)}).body

"""The gates of a finished verification, from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.config import Config, Gate, Quantize, Verify
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.report.results import draw_results, read_results
from dlx_deploy.stages import verify
from dlx_deploy.stages.support.results import Accuracy, Latencies, Pairing, Row, Timing
from dlx_deploy.stages.verify import judge, notes

from ..devices.fake import FakeDevice


def outputs(folder: Path, b: int = 2, c: int = 1, n: int = 1000, **timing: Any) -> dict[str, Path]:
    """A verification of two models in which ``quantized`` is shipped."""
    top1 = timing.pop("top1", 0.98)
    largest = timing.pop("largest_class", 0)

    def row(model: str, b: int, c: int) -> Row:
        return Row(model=model, top1=top1 - (b - c) / n, b=b, c=c, size_bytes=3000, macs=10, parameters=20)

    rows = (row("teacher", 0, 0), row("quantized", b, c))
    accuracy = Accuracy(schema=1, judge="exact-qdq", n=n, shipped="quantized", rows=rows, largest_class=largest)
    kind = timing.pop("kind", "measured")
    rows = tuple(
        Timing(model=m, **{"p50_ms": 1.0, "p90_ms": 1.2, "p90_upper_ms": 1.3, **timing})
        for m in ("teacher", "quantized")
    )
    latencies = Latencies(schema=1, kind=kind, where="a board", rows=rows)
    for name, value in (("accuracy.json", accuracy), ("latency.json", latencies)):
        (folder / name).write_bytes(canonical_json(value))
    return {name: folder / name for name in ("accuracy.json", "latency.json")}


@pytest.mark.parametrize(
    ("b", "c", "verdict", "text"),
    [
        (2, 1, "pass", "at most"),
        (90, 10, "fail", "to improve: train and distill longer, prune less, or raise gate.max_drop"),
        (25, 10, "undecided", "samples would decide"),
    ],
)
def test_accuracy(tmp_path: Path, b: int, c: int, verdict: str, text: str) -> None:
    (result,) = judge(Gate(max_drop=0.02), outputs(tmp_path, b, c), {})
    assert (result.gate, result.verdict) == ("accuracy", verdict)
    assert text in result.text
    assert result.value == pytest.approx((b - c) / 1000)


@pytest.mark.parametrize(
    ("limit_ms", "timing", "verdict"),
    [
        (2.0, {}, "pass"),
        (1.25, {}, "undecided"),  # p90 is under the budget, its bound is not
        (1.0, {}, "fail"),
        (9.0, {"kind": "estimate (roofline, not measured)"}, "pending"),
        (0.001, {"kind": "estimate (roofline, not measured)"}, "pending"),  # an estimate never fails a gate either
        (1.0, {"p90_lower_ms": 1.1}, "fail"),
        (1.0, {"p90_lower_ms": 0.9}, "undecided"),  # p90 is above the budget, and not for certain
        (9.0, {"p90_upper_ms": None, "p90_lower_ms": 0.0}, "undecided"),  # measured, and not shown
        (9.0, {"p90_upper_ms": 9.1, "by_slowest": True}, "undecided"),
        (9.0, {"p90_upper_ms": 8.9, "by_slowest": True}, "pass"),
    ],
)
def test_latency(tmp_path: Path, limit_ms: float, timing: dict[str, Any], verdict: str) -> None:
    results = judge(Gate(max_latency_p90_ms=limit_ms), outputs(tmp_path, **timing), {})
    assert [(r.gate, r.verdict) for r in results] == [("accuracy", "pass"), ("latency", verdict)]
    if verdict == "pending":
        assert "dlx-deploy bench PACKAGE --max-p90-ms" in results[1].text
    assert ("to decide: raise verify.rounds" in results[1].text) is (verdict == "undecided")
    assert ("a multiple of the slowest, as the timings come in bursts" in results[1].text) is ("by_slowest" in timing)
    assert ("when the machine is quieter" in results[1].text) is ("by_slowest" in timing and verdict == "undecided")


@pytest.mark.parametrize(
    ("shipped", "lower", "upper", "said"),
    [
        ("quantized", 0.98, 1.04, "compile chose INT8 by its timings, and by those here INT8 is slower"),
        ("quantized", 1.0, 1.1, ""),
        ("pruned", 1.06, 1.2, "compile chose FP32 by its timings, and by those here INT8 is faster"),
        ("pruned", 1.0, 1.2, ""),
        ("pruned", None, None, ""),
    ],
)
def test_timings_that_contradict_the_choice_are_said(
    tmp_path: Path, shipped: str, lower: float | None, upper: float | None, said: str
) -> None:
    rows = tuple(Row(model=m, top1=1, b=0, c=0, size_bytes=1, macs=1, parameters=1) for m in ("pruned", "quantized"))
    accuracy = Accuracy(schema=1, judge="native", n=10, shipped=shipped, rows=rows)
    speed = Pairing(against="pruned", ratio=1.0, lower=lower, upper=upper)
    latencies = Latencies(schema=1, kind="measured", where="here", rows=(), int8_speedup=speed)
    found = {name: tmp_path / name for name in ("accuracy.json", "latency.json")}
    for path, value in zip(found.values(), (accuracy, latencies), strict=True):
        path.write_bytes(canonical_json(value))
    said_of_it = notes(Config(), found, {})
    assert len(said_of_it) == bool(said)
    assert said in "".join(said_of_it)
    assert not notes(Config(quantize=Quantize(precision="int8")), found, {})


def test_what_is_timed_here_is_kept_with_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """p90 is the 90th percentile, its bounds go along, and INT8 is paired with the network that it was made from."""
    ms = np.random.default_rng(0).permutation(np.arange(1, 101))
    timed = {"teacher": 9 * ms, "pruned": 3 * ms, "quantized": 2 * ms}

    class Data:
        def samples(self, name: str) -> Any:
            assert name == "test"
            return [None]

    device = FakeDevice(ms=timed, rounds=100)
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: Data())
    models = {name: tmp_path / name for name in timed}
    for name, path in models.items():
        path.write_text(name)
    found = verify._measured(Job(Verify(), {"data": tmp_path}, tmp_path), models, device)
    row = next(r for r in found.rows if r.model == "quantized")
    assert (found.kind, found.where, row.p50_ms, row.p90_ms) == ("measured", "a board (a CPU)", 100, 180)
    assert (row.p90_lower_ms, row.p90_upper_ms, row.by_slowest) == (168, 192, False)
    assert found.int8_speedup is not None
    assert (found.int8_speedup.against, found.int8_speedup.ratio) == ("pruned", pytest.approx(1.5))
    assert found.int8_speedup.lower == pytest.approx(1.5)
    models["quantized"].write_text("pruned")  # the quantize stage kept FP32
    assert verify._measured(Job(Verify(), {"data": tmp_path}, tmp_path), models, device).int8_speedup is None


def test_a_student_at_chance_level_is_said(tmp_path: Path) -> None:
    found = outputs(tmp_path, 850, 0, largest_class=200)
    assert judge(Gate(max_drop=0.9), found, {})[0].verdict == "pass"
    (note,) = notes(Config(gate=Gate(max_drop=0.9)), found, {})
    assert "quantized, which the gate lets into the package if it passes, is right on 13.00 % of 1000" in note
    assert "set gate.min_accuracy, or lower gate.max_drop" in note
    assert not notes(Config(gate=Gate(allow_chance=True)), found, {})
    assert not notes(Config(), outputs(tmp_path, 5, 0, largest_class=200), {})


def test_no_latency_budget_no_latency_gate(tmp_path: Path) -> None:
    assert [r.gate for r in judge(Gate(), outputs(tmp_path), {})] == ["accuracy"]


@pytest.mark.parametrize(
    ("floor", "verdict", "text"),
    [
        (0.96, "pass", "quantized: accuracy 97.90 %"),
        (0.975, "undecided", "samples would decide"),
        (0.99, "fail", "train a better teacher, compress less, or lower gate.min_accuracy"),
    ],
)
def test_a_floor_is_held_against_what_is_shipped(tmp_path: Path, floor: float, verdict: str, text: str) -> None:
    _, result = judge(Gate(min_accuracy=floor), outputs(tmp_path, largest_class=900), {})
    assert (result.gate, result.metric, result.verdict, result.limit) == ("min_accuracy", "top1", verdict, floor)
    assert result.value == pytest.approx(0.979)
    assert result.bound is not None
    assert (result.bound >= floor) is (verdict == "pass")
    assert text in result.text


def test_a_floor_that_the_largest_class_clears_says_so(tmp_path: Path) -> None:
    _, result = judge(Gate(min_accuracy=0.4), outputs(tmp_path, largest_class=450), {})
    assert result.verdict == "pass"
    assert "always answering the largest class would be right on 45.00 %, so this floor shows little" in result.text


@pytest.mark.parametrize(
    ("top1", "largest", "verdict"),
    [
        (0.082, 102, "fail"),  # worse than the largest class
        (0.12, 102, "pass"),  # the bound is 10.3 %
        (0.118, 102, "fail"),  # better, and not clearly: its bound is 10.15 %
        (0.98, 980, "fail"),  # good, and no better than one answer for all
        (1.0, 1000, "fail"),  # a test split of one class shows nothing
    ],
)
def test_a_teacher_must_be_better_than_the_largest_class(
    tmp_path: Path, top1: float, largest: int, verdict: str
) -> None:
    found = outputs(tmp_path, 0, 0, top1=top1, largest_class=largest)
    _, result = judge(Gate(), found, {})
    assert (result.gate, result.metric, result.verdict) == ("chance", "teacher_top1", verdict)
    assert (result.value, result.limit) == (pytest.approx(top1), largest / 1000)
    if verdict == "fail":
        assert "not clearly better than always answering the largest class" in result.text
        assert "train the teacher until it is, or set gate.allow_chance = true" in result.text
    assert ("test samples could show it" in result.text) is (top1 == 0.118)
    assert [r.gate for r in judge(Gate(allow_chance=True), found, {})] == ["accuracy"]


def test_the_table_says_that_nothing_is_shipped(tmp_path: Path) -> None:
    results = read_results("board", outputs(tmp_path), Gate(), packaged=False)
    assert [(row.model, row.candidate, row.shipped) for row in results.rows] == [
        ("teacher", False, False),
        ("quantized", True, False),
    ]
    assert "→ was chosen, and is not shipped." in draw_results(results)
    assert "→ is shipped." in draw_results(read_results("board", outputs(tmp_path), Gate()))


def test_the_table(tmp_path: Path) -> None:
    measured = draw_results(read_results("board", outputs(tmp_path, 5, 2), Gate()))
    assert "→ quantized  97.70 %  0.30" in measured
    assert "1.20 ms" in measured
    assert "pending" not in measured
    kind = "estimate (roofline, not measured)"
    estimated = draw_results(
        read_results("board", outputs(tmp_path, 5, 2, kind=kind, p90_ms=None, low_ms=0.5, high_ms=1.5), Gate())
    )
    assert "~1.00 ms" in estimated
    assert f"Latency at batch 1: {kind}, a board." in estimated
    assert "pending until the board measures it" in estimated

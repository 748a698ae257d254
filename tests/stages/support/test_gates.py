"""The gates of a finished verification, from its files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dlx_deploy.config import Config, Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.runtime.statistics.groups import Group
from dlx_deploy.runtime.timing.state import MachineState, Snapshot
from dlx_deploy.stages import verify
from dlx_deploy.stages.support.gates import judge_latency
from dlx_deploy.stages.support.results import Latencies, Timing, read_latencies

from .verifications import outputs


def judge(budgets: Gate, files: Mapping[str, Path]) -> Sequence[GateResult]:
    return verify.judge(Config(gate=budgets), files, {})


@pytest.mark.parametrize(
    ("b", "c", "verdict", "text"),
    [
        (2, 1, "pass", "at most"),
        (90, 10, "fail", "to improve: train and distill longer, prune less, or raise gate.max_drop"),
        (25, 10, "undecided", "samples would decide"),
    ],
)
def test_accuracy(tmp_path: Path, b: int, c: int, verdict: str, text: str) -> None:
    (result,) = judge(Gate(max_drop=0.02), outputs(tmp_path, b, c))
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
    results = judge(Gate(max_latency_p90_ms=limit_ms), outputs(tmp_path, **timing))
    assert [(r.gate, r.verdict) for r in results] == [("accuracy", "pass"), ("latency", verdict)]
    if verdict == "pending":
        assert "dlx-deploy bench PACKAGE --max-p90-ms" in results[1].text
    assert ("to decide: raise verify.rounds" in results[1].text) is (verdict == "undecided")
    assert ("a multiple of the slowest, as the timings come in bursts" in results[1].text) is ("by_slowest" in timing)
    assert ("when the machine is quieter" in results[1].text) is ("by_slowest" in timing and verdict == "undecided")


@pytest.mark.parametrize(
    ("key", "limit_ms", "verdict"),
    [
        ("max_latency_p50_ms", 1.0, "pass"),
        ("max_latency_p99_ms", 1.4, "fail"),
        ("max_latency_p99_ms", 9.0, "undecided"),
    ],
)
def test_every_percentile_has_its_budget(tmp_path: Path, key: str, limit_ms: float, verdict: str) -> None:
    _, result = judge(Gate(**{key: limit_ms}), outputs(tmp_path))
    assert (result.metric, result.verdict) == (key.replace("max_", ""), verdict)


@pytest.mark.parametrize(
    ("limit_ms", "verdict"), [(3.95, "pass"), (3.8, "undecided"), (0.5, "undecided"), (0.3, "fail")]
)
def test_a_noisy_machine_decides_only_what_is_far_off(tmp_path: Path, limit_ms: float, verdict: str) -> None:
    """The bounds of p90, 1.2 and 1.3 ms, count three times as far away."""
    files = outputs(tmp_path)
    quiet = Snapshot(None, None, None, (), {}, {}, None)
    state = MachineState(quiet, quiet, 9.0, 2, 0.6, 0.0, None, None, None, ("others used 60 % of its cores",))
    seen = msgspec.structs.replace(read_latencies(files), state=state)
    files["latency.json"].write_bytes(msgspec.json.encode(seen))
    _, result = judge(Gate(max_latency_p90_ms=limit_ms), files)
    assert result.verdict == verdict
    assert "3 times as far as at 95 % confidence, as the machine was noisy: others used 60 %" in result.text
    assert ("to decide: build when the machine is quieter" in result.text) is (verdict == "undecided")


def test_no_latency_budget_no_latency_gate(tmp_path: Path) -> None:
    assert [r.gate for r in judge(Gate(), outputs(tmp_path))] == ["accuracy"]


@pytest.mark.parametrize(
    ("floor", "verdict", "text"),
    [
        (0.96, "pass", "quantized: accuracy 97.90 %"),
        (0.975, "undecided", "samples would decide"),
        (0.99, "fail", "train a better teacher, compress less, or lower gate.min_accuracy"),
    ],
)
def test_a_floor_is_held_against_what_is_shipped(tmp_path: Path, floor: float, verdict: str, text: str) -> None:
    _, result = judge(Gate(min_accuracy=floor), outputs(tmp_path, largest_class=900))
    assert (result.gate, result.metric, result.verdict, result.limit) == ("min_accuracy", "top1", verdict, floor)
    assert result.value == pytest.approx(0.979)
    assert result.bound is not None
    assert (result.bound >= floor) is (verdict == "pass")
    assert text in result.text


def test_a_floor_that_the_largest_class_clears_says_so(tmp_path: Path) -> None:
    _, result = judge(Gate(min_accuracy=0.4), outputs(tmp_path, largest_class=450))
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
    files = outputs(tmp_path, 0, 0, top1=top1, largest_class=largest)
    _, result = judge(Gate(), files)
    assert (result.gate, result.metric, result.verdict) == ("chance", "teacher_top1", verdict)
    assert (result.value, result.limit) == (pytest.approx(top1), largest / 1000)
    if verdict == "fail":
        assert "not clearly better than always answering the largest class" in result.text
        assert "train the teacher until it is, or set gate.allow_chance = true" in result.text
    assert ("test samples could show it" in result.text) is (top1 == 0.118)
    assert [r.gate for r in judge(Gate(allow_chance=True), files)] == ["accuracy"]


@pytest.mark.parametrize(
    ("limit", "verdict", "text"),
    [
        (0.06, "pass", "40 of 1000 answers changed (4.00 %): 5 from right to wrong, 2 from wrong to right"),
        (0.045, "undecided", "samples would decide"),
        (0.02, "fail", "distill longer, compress less, or raise gate.max_flips"),
    ],
)
def test_changed_answers_may_have_a_budget(tmp_path: Path, limit: float, verdict: str, text: str) -> None:
    _, result = judge(Gate(max_flips=limit), outputs(tmp_path, 5, 2, changed=40))
    assert (result.gate, result.metric, result.verdict, result.limit) == ("flips", "changed_answers", verdict, limit)
    assert result.value == pytest.approx(0.04)
    assert text in result.text


def test_changed_answers_that_nobody_counted_are_undecided(tmp_path: Path) -> None:
    _, result = judge(Gate(max_flips=0.5), outputs(tmp_path))
    assert (result.verdict, result.value, result.bound) == ("undecided", None, None)
    assert "it is not known how many changed; set gate.max_flips = 0" in result.text


@pytest.mark.parametrize(
    ("lost", "limit", "verdict", "text"),
    [
        (1, 0.05, "pass", "quantized: all 2 classes keep to their budgets at 0.95 confidence; the nearest: 'b'"),
        (15, 0.05, "undecided", "more would decide"),
        (
            60,
            0.05,
            "fail",
            "1 of 2 classes drop too far at 0.95 confidence (Holm, over 2): 'b' 15.00 points (60 lost",
        ),
    ],
)
def test_each_class_may_have_a_budget(tmp_path: Path, lost: int, limit: float, verdict: str, text: str) -> None:
    classes = (Group("a", 600, 590, 590, 0, 0), Group("b", 400, 390, 390 - lost, lost, 0))
    _, result = judge(Gate(max_class_drop=limit), outputs(tmp_path, classes=classes))
    assert (result.gate, result.metric, result.verdict) == ("class_drop", "class_top1_drop", verdict)
    assert text in result.text
    assert result.value == lost / 400
    assert ("more samples of these classes, compress less, or raise" in result.text) is (verdict != "pass")


def test_classes_that_nobody_counted_are_undecided(tmp_path: Path) -> None:
    _, result = judge(Gate(max_class_drop=0.5), outputs(tmp_path))
    assert (result.verdict, result.value) == ("undecided", None)
    assert "keeps no answers by class, so their drops are not known; set gate.max_class_drop = 0" in result.text


def test_a_pending_verdict_says_what_the_roofline_does_and_its_error() -> None:
    """An estimate far within the budget passes nothing."""
    guess = Timing(model="student", p50_ms=0.2, low_ms=0.1, high_ms=0.3)
    latencies = Latencies(kind="estimate (roofline, not measured)", where="a board", rows=(guess,))
    result = judge_latency(90, 1000.0, latencies, "student")
    assert (result.verdict, result.value, result.bound) == ("pending", None, None)
    assert result.text.endswith(
        "By the roofline 0.2 ms, 0.1 to 0.3 (the profiles' mean error on published latencies is 16 %), which decides "
        "nothing"
    )

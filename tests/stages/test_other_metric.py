"""A task whose metric is no mean over samples, from the models' outputs to the table: nothing on the way knows it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from dlx_deploy.config import Config, Gate
from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Job, Metrics
from dlx_deploy.report.results import read_results
from dlx_deploy.report.view import to_json
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.tasks import arrays
from dlx_deploy.stages import evaluate
from dlx_deploy.stages.evaluate import EvaluateParams
from dlx_deploy.stages.support.results import Latencies, Timing
from dlx_deploy.stages.verify import STAGE, VerifyParams, judge, notes
from dlx_deploy.targets import load_target
from dlx_deploy.tasks.verification import Accuracy, Drop, Evidence, Row

from ..runtime.tasks.made_up import Values, measuring, network

SIZES = {"m": 1, "km": 2}
COUNT = 150


@dataclass(frozen=True)
class ByMedian:
    """Score: 1 less the median error. Evidence: drops of resampled medians, in order. Facts: the largest truth."""

    name: str = "median_error"
    title: str = "1 - median"
    target: str = "truth"

    def check(self, budgets: Gate) -> None:
        """Nothing is refused."""

    def score(self, statistic: Arrays) -> float:
        return max(0.0, 1 - float(np.median(statistic["error"])))

    def evidence(self, teacher: Arrays, model: Arrays) -> Evidence:
        rows = np.random.default_rng(0).integers(0, COUNT, (200, COUNT))
        ours, theirs = (np.median(each["error"][rows, 0], axis=1) for each in (teacher, model))
        return {"drops": tuple(np.sort(theirs - ours).tolist()), "resamples": len(rows)}

    def facts(self, targets: Arrays) -> dict[str, float]:
        return {"largest_truth": float(targets[self.target].max())}

    def judge(self, budgets: Gate, accuracy: Accuracy) -> list[GateResult]:
        drop = self.drop(accuracy.row(accuracy.shipped), accuracy, budgets.confidence)
        return [
            GateResult(
                gate="accuracy",
                metric=f"{accuracy.metric}_drop",
                value=drop.value,
                bound=drop.upper,
                limit=budgets.max_drop,
                verdict="pass" if drop.upper <= budgets.max_drop else "fail",
                text=f"values up to {accuracy.facts['largest_truth']:g}",
            )
        ]

    def drop(self, row: Row, accuracy: Accuracy, confidence: float) -> Drop:
        drops = row.evidence["drops"]
        assert isinstance(drops, tuple)
        return Drop(accuracy.row("teacher").score - row.score, drops[math.ceil(confidence * len(drops)) - 1])

    def split_notes(self, budgets: Gate, count: int, metrics: Metrics) -> list[str]:
        return []

    def teacher_notes(self, budgets: Gate, metrics: Metrics) -> list[str]:
        return []

    def shipped_notes(self, budgets: Gate, accuracy: Accuracy) -> list[str]:
        return [f"{accuracy.shipped} was judged by its median"]


@dataclass(frozen=True)
class Reluctant(Values):
    """Answers that cannot be judged."""

    def statistic(self, outputs: Any, targets: Any) -> Any:
        raise PackageError("values are no numbers")


def split() -> tuple[Samples, np.ndarray]:
    """Series of 2 to 9 numbers in one of two units, and what their scaled means are, but for some noise."""
    rng = np.random.default_rng(7)
    lengths = rng.integers(2, 10, COUNT)
    series = np.where(np.arange(9) < lengths[:, None], rng.uniform(1, 2, (COUNT, 9)), 0).astype(np.float32)
    size = rng.integers(1, 3, (COUNT, 1)).astype(np.int32)
    truth = series.sum(axis=1, keepdims=True) / lengths[:, None] * size + rng.normal(0, 0.05, (COUNT, 1))
    return Samples({"series": series, "size": size}, {"series": 0}), truth.astype(np.float32)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The task of the stages and of the report, and its data."""
    samples, truth = split()
    task = SimpleNamespace(
        answers=SimpleNamespace(comparison=ByMedian()), device=lambda data, golden, dims: measuring(SIZES)
    )
    data = SimpleNamespace(samples={"test": samples}.__getitem__, targets={"test": truth}.__getitem__)
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: data)
    for asker in ("evaluate.task_of", "verify.task_of", "verify.task_for"):
        monkeypatch.setattr(f"dlx_deploy.stages.{asker}", lambda data: task)
    monkeypatch.setattr("dlx_deploy.report.results.task_for", lambda data: task)
    return task


def verified(folder: Path) -> tuple[dict[str, Path], Metrics]:
    (folder / "teacher").write_bytes(network())
    (folder / "off").write_bytes(network(off=0.1))
    params, target = VerifyParams(candidates=("teacher", "off")), load_target("cpu-x86_64").profile
    inputs = {"teacher": folder / "teacher", "off": folder / "off", "shipped": folder / "off", "data": folder}
    for name in params.candidates:
        out = folder / f"evaluated-{name}"
        out.mkdir(exist_ok=True)
        given = {"model": folder / name, "data": folder}
        evaluate.STAGE.run(
            Job(EvaluateParams(answers=name == "teacher", parity_samples=0), given, out, target, threads=1)
        )
        inputs[out.name] = out / "statistic.npz"
    (folder / "out").mkdir(exist_ok=True)
    metrics = STAGE.run(Job(params, inputs, folder / "out", target, threads=1))
    timings = tuple(Timing(model=name, p50_ms=1.0) for name in params.candidates)
    latencies = Latencies(schema=1, kind="measured", where="here", rows=timings)
    (folder / "out" / "latency.json").write_bytes(canonical_json(latencies))
    outputs = {name: folder / "out" / name for name in STAGE.outputs}
    return {**outputs, "teacher.npz": folder / "evaluated-teacher" / "teacher.npz"}, metrics


def test_outputs_become_a_verdict_and_a_table(measured: SimpleNamespace, tmp_path: Path) -> None:
    _, truth = split()
    outputs, metrics = verified(tmp_path)
    accuracy = msgspec.json.decode(outputs["accuracy.json"].read_bytes(), type=Accuracy)
    assert (accuracy.metric, accuracy.n, accuracy.facts) == (
        "median_error",
        COUNT,
        {"largest_truth": pytest.approx(truth.max())},
    )
    drops = accuracy.row("off").evidence["drops"]
    assert isinstance(drops, tuple)
    assert len(drops) == accuracy.row("off").evidence["resamples"] == 200
    assert accuracy.row("teacher").evidence["drops"] == (0.0,) * 200
    assert metrics["shipped_median_error"] == metrics["off_median_error"] == accuracy.row("off").score
    columns = np.load(outputs["teacher.npz"])
    np.testing.assert_array_equal(columns["truth"], truth)
    assert accuracy.row("teacher").score == pytest.approx(1 - np.median(np.abs(columns["teacher"] - truth)))
    assert 0.04 < metrics["teacher_median_error"] - metrics["off_median_error"] < 0.1

    wide, tight = (Config(gate=Gate(max_drop=limit)) for limit in (0.1, 0.01))
    ((passed,), (missed,)) = (judge(config, outputs, {}) for config in (wide, tight))
    assert passed.value is not None
    assert (passed.verdict, missed.verdict, passed.metric) == ("pass", "fail", "median_error_drop")
    assert notes(wide, outputs, {}) == ["off was judged by its median"]
    results = read_results("board", outputs, wide)
    heads, _, _, off, reading, _ = results.text.splitlines()
    assert heads.split()[:5] == ["model", "1", "-", "median", "drop"]
    assert off.split()[:5] == ["→", "off", f"{100 * accuracy.row('off').score:.2f}", "%", f"{100 * passed.value:.2f}"]
    assert reading.startswith("→ is shipped. 1 - median on 150 test samples, ")
    shown = json.loads(to_json(results.data))
    assert (shown["metric"], shown["rows"][1]["score"]) == ("median_error", accuracy.row("off").score)
    assert shown["rows"][1]["drop_upper"] == passed.bound == sorted(drops)[189]


def test_outputs_that_would_fill_the_memory_are_dropped_block_by_block(
    measured: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = verified(tmp_path)[0]["accuracy.json"].read_bytes()
    rows: list[int] = []
    statistic = Values.statistic

    def counted(self: Values, outputs: Any, targets: Any) -> Any:
        rows.append(len(targets["truth"]))
        return statistic(self, outputs, targets)

    monkeypatch.setattr(Values, "statistic", counted)
    task = measuring(SIZES)
    row_bytes = sum(tensor.row_bytes for tensor in (*task.inputs.tensors, *task.outputs.tensors))
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 40 * row_bytes)
    assert verified(tmp_path)[0]["accuracy.json"].read_bytes() == whole
    assert rows == 2 * [40, 40, 40, 30]


def test_answers_that_cannot_be_judged_are_named(measured: SimpleNamespace, tmp_path: Path) -> None:
    measured.device = lambda data, golden, dims: replace(measuring(SIZES), outputs=Reluctant())
    with pytest.raises(
        StageFailed,
        match=r"^the model's answers to test samples 0 to 63 cannot be judged \(values are no numbers\); .*'fp32'",
    ):
        verified(tmp_path)

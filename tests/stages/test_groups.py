"""Samples that come in groups: from a column of a list to the statistic, the package's table, and the gates."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto

from dlx_deploy.config import Gate
from dlx_deploy.graph.samples import Arrays
from dlx_deploy.nn.data.dataset import Dataset
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.evaluate import STAGE, EvaluateParams
from dlx_deploy.stages.support.regression import judge_regression
from dlx_deploy.targets import load_target
from dlx_deploy.tasks.class_metrics import CLASS_METRICS
from dlx_deploy.tasks.mask_gates import MeanIouComparison
from dlx_deploy.tasks.paired import Paired
from dlx_deploy.tasks.verification import Accuracy, Baseline, Comparison, Row

from ..datasets import held_images
from ..nn.data.layouts import prepared
from .support.verifications import brightness
from .test_slices import listed, pixels_of

TOP1 = Paired("top1", "top-1", "label")
CLASSES = ("a", "b")


def test_each_judged_sample_keeps_its_group(tmp_path: Path) -> None:
    """Numbered as they come: the numbers say nothing of names."""
    given = listed(tmp_path, group=[f"patient {i // 2}" for i in range(24)])
    data, _ = prepared(tmp_path / "out", given)
    groups = data.groups("test")
    assert groups is not None
    of = {pixels_of(tmp_path / f"{i}.png"): i // 2 for i in range(24)}
    named = [of[image.tobytes()] for image in data.samples("test").arrays["images"]]
    assert len(set(named)) == len(set(zip(named, groups.tolist(), strict=True))) == 4
    assert list(dict.fromkeys(groups.tolist())) == [0, 1, 2, 3]
    assert data.groups("train") is None


def test_samples_that_are_each_of_a_group_of_their_own_are_as_without_groups(tmp_path: Path) -> None:
    alone = prepared(tmp_path / "a", listed(tmp_path, group=[str(i) for i in range(24)]))[0]
    assert alone.groups("test") is None
    assert not list((tmp_path / "a").glob("*.groups.npy"))


def test_what_is_kept_of_each_model_says_the_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = np.array([0, 1, 1, 2, 1, 6], np.uint8), np.array([0, 1, 1, 1, 1, 1], np.int64)
    groups = np.array([0, 0, 1, 1, 2, 2], np.int64)
    held = held_images(pixels.reshape(-1, 1, 1, 1), labels, "test")
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: held)
    monkeypatch.setattr(Dataset, "groups", lambda self, name: groups if name == "test" else None)
    (tmp_path / "model").write_bytes(brightness(TensorProto.FLOAT))
    (tmp_path / "out").mkdir()
    inputs = {"model": tmp_path / "model", "data": tmp_path}
    params = EvaluateParams(answers=True, parity_samples=0)
    STAGE.run(Job(params, inputs, tmp_path / "out", load_target("jetson").profile, threads=1))
    for name in ("statistic", "teacher"):
        assert np.load(tmp_path / "out" / f"{name}.npz")["group"].tolist() == groups.tolist()


def statistic(right: np.ndarray, grouped: bool = True) -> Arrays:
    """Of 600 samples of two classes, ten of a group; who is wrong says the other class."""
    label = np.arange(600, dtype=np.int32) % 2
    own = {"right": right, "answer": np.where(right, label, 1 - label).astype(np.int32), "label": label}
    return {**own, "group": np.arange(600) // 10} if grouped else own


def judged(comparison: Comparison, teacher: Arrays, model: Arrays) -> Accuracy:
    rows = [
        Row(
            model=name,
            score=comparison.score(of),
            evidence=comparison.evidence(teacher, of),
            size_bytes=1,
            macs=1,
            parameters=1,
        )
        for name, of in (("teacher", teacher), ("quantized", model))
    ]
    kept = Accuracy(
        metric=comparison.name,
        title=comparison.title,
        judge="native",
        n=600,
        shipped="quantized",
        rows=tuple(rows),
        facts={"largest_class": 0.5, "constant": 0.5},
    )
    return msgspec.json.decode(msgspec.json.encode(kept), type=Accuracy)  # as a warm build reads it


def wrong(rows: np.ndarray) -> np.ndarray:
    right = np.ones(600, np.bool_)
    right[rows] = False
    return right


def test_every_gate_of_right_and_wrong_answers_draws_whole_groups() -> None:
    """One group of ten is lost: by samples it is 2.9 points at most, by groups far more."""
    right = np.ones(600, np.bool_), wrong(np.arange(10))
    teacher, model = (statistic(one) for one in right)
    columns = {"light": ["day", "night"] * 300}
    accuracy = msgspec.structs.replace(
        judged(TOP1, teacher, model),
        classes=TOP1.by_class(teacher, model, CLASSES),
        class_bounds=TOP1.class_bounds(teacher, model, 2),
        slices=TOP1.by_slice(teacher, model, columns),
        slice_bounds=TOP1.slice_bounds(teacher, model, columns),
    )
    asked = Gate(max_drop=0.03, min_accuracy=0.9, max_flips=0.03, max_class_drop=0.03, max_slice_drop=0.03)
    by_groups = {result.gate: result for result in TOP1.judge(asked, accuracy)}
    plain = judged(TOP1, *(statistic(one, grouped=False) for one in right))
    plain = msgspec.structs.replace(plain, classes=accuracy.classes, slices=accuracy.slices)
    by_samples = {result.gate: result for result in TOP1.judge(asked, plain)}
    assert {name: result.verdict for name, result in by_groups.items()} == {
        "accuracy": "undecided",
        "min_accuracy": "pass",
        "flips": "undecided",
        "class_drop": "undecided",
        "slice_drop": "undecided",
    }
    assert {by_samples[name].verdict for name in ("accuracy", "flips")} == {"pass"}
    for name, result in by_groups.items():
        assert result.bound is not None
        assert by_samples[name].bound is not None
        assert abs(result.bound - (result.value or 0)) > abs(by_samples[name].bound - (result.value or 0)), name
    assert "on 60 groups" in by_groups["accuracy"].text
    assert "groups would decide" in by_groups["accuracy"].text
    assert TOP1.drop(accuracy.row("quantized"), accuracy, 0.95).upper == by_groups["accuracy"].bound


def test_a_teacher_is_better_than_chance_by_groups_and_a_release_is_held_so_too() -> None:
    """330 of 600 right are clearly over a half by samples, and not by 60 groups that are right or wrong as one."""
    right = np.repeat(np.arange(60) < 33, 10)
    by_samples, by_groups = (judged(TOP1, statistic(right, g), statistic(right, g)) for g in (False, True))
    budget = Gate(max_drop=0.2)
    assert [TOP1.judge(budget, seen)[1].verdict for seen in (by_samples, by_groups)] == ["pass", "fail"]
    base = Baseline(
        name="x", version="1", target="cpu", digest="0", score=0.55, evidence=by_groups.row("quantized").evidence
    )
    (regression,) = judge_regression(TOP1, budget, msgspec.structs.replace(by_groups, baseline=base))
    assert "on 60 groups" in regression.text


@pytest.mark.parametrize("name", ["macro_f1", "balanced_accuracy"])
def test_other_metrics_of_classes_draw_whole_groups(name: str) -> None:
    comparison, right = CLASS_METRICS[name], (np.ones(600, np.bool_), wrong(np.arange(10)))
    bounds = [
        comparison.judge(Gate(max_drop=0.03), judged(comparison, *(statistic(one, grouped) for one in right)))[0]
        for grouped in (False, True)
    ]
    assert [result.verdict for result in bounds] == ["pass", "undecided"]
    assert "on 60 groups" in bounds[1].text


def test_masks_draw_whole_groups() -> None:
    counts = np.tile(np.array([[50, 0, 0], [50, 0, 0]], np.int64), (600, 1, 1))
    worse = counts.copy()
    worse[:10] = [[0, 50, 50], [0, 50, 50]]
    comparison, groups = MeanIouComparison(), {"group": np.arange(600) // 10}
    bounds = [
        comparison.judge(Gate(max_drop=0.08), judged(comparison, {"counts": counts, **of}, {"counts": worse, **of}))[0]
        for of in ({}, groups)
    ]
    assert [result.verdict for result in bounds] == ["pass", "undecided"]
    assert "on 60 groups" in bounds[1].text

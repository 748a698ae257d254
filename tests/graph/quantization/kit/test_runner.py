"""A step is kept where inputs that it has not seen get better answers, and nowhere else."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.graph.model import load
from dlx_deploy.graph.quantization.kit import first_ranges, runner
from dlx_deploy.graph.quantization.kit import state as kit_state
from dlx_deploy.graph.quantization.kit.decisions import Decisions, decisions_bytes
from dlx_deploy.graph.quantization.kit.judge import Score
from dlx_deploy.graph.quantization.kit.runner import Improvement, improve
from dlx_deploy.graph.quantization.kit.state import Setting, State, Step
from dlx_deploy.graph.quantization.plan import QuantizationPlan
from dlx_deploy.graph.quantization.quantize import QuantizationReport, QuantizationRequest
from dlx_deploy.graph.quantization.scheme import TENSORRT
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import silent

from ....arrays import quantize_model, samples
from ....onnx_fixtures import digits, exported, images, residual_net
from .states import started


def scaled(by: float) -> Step:
    """All scales of activations times ``by``."""

    def propose(state: State, setting: Setting, progress: Any) -> State:
        tensors = {
            name: msgspec.structs.replace(t, scale=(t.scale or 0) * by) for name, t in state.plan.tensors.items()
        }
        return replace(state, plan=msgspec.structs.replace(state.plan, tensors=tensors))

    return Step(f"times {by}", propose)


NOTHING = Step("nothing", lambda state, setting, progress: None)


def run(*steps: Step, count: int = 40) -> Improvement:
    setting, state = started(load(exported()), TENSORRT, digits()[0][:40])
    return improve(state, setting, steps, samples(digits()[0][:count]), True, silent)


def test_what_makes_answers_worse_is_dropped_and_what_makes_them_better_kept() -> None:
    worse, back, nothing = run(scaled(8), scaled(1), NOTHING).decisions.steps
    assert worse.sqnr_db_after is not None
    assert worse.sqnr_db_after < worse.sqnr_db_before - 3
    assert (worse.kept, worse.why) == (False, "rule: at least 0.05 dB more")
    assert back.sqnr_db_after == back.sqnr_db_before == worse.sqnr_db_before  # that is, of the state before the first
    assert not back.kept
    assert (nothing.kept, nothing.sqnr_db_after, nothing.why) == (False, None, "nothing to change")

    setting, state = started(load(exported()), TENSORRT, digits()[0][:40])
    bad = scaled(8).propose(state, setting, silent)
    assert bad is not None
    found = improve(bad, setting, [scaled(1 / 8)], samples(digits()[0][:40]), True, silent)
    assert found.decisions.steps[0].kept
    assert found.state.plan == state.plan
    assert list(found.seconds) == ["times 0.125"]


def test_steps_see_every_other_input_and_are_judged_by_the_rest() -> None:
    seen: list[np.ndarray[Any, Any]] = []

    def look(state: State, setting: Setting, progress: Any) -> None:
        seen.extend(setting.fitted.arrays.values())

    decisions = run(Step("look", look), count=17).decisions
    assert (decisions.fitted, decisions.held) == (9, 8)
    assert np.array_equal(seen[0], digits()[0][:17:2])


def test_too_few_inputs_to_halve_are_said_and_nothing_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    found = run(scaled(8), count=15)
    assert found.decisions == Decisions(note="15 calibration inputs; rule: at least 16, half to judge by")
    assert "quantize.effort: nothing is improved: 15 calibration inputs" in caplog.text


def test_inputs_that_all_get_one_answer_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    pictures, labels, _, _ = digits()
    zeros = pictures[labels == 0][:16]
    setting, state = started(load(exported()), TENSORRT, zeros)
    with caplog.at_level(logging.WARNING):
        found = improve(state, setting, [NOTHING], samples(zeros), True, silent)
    assert found.decisions.note.startswith("all 8 inputs that are held out get the same answer")
    assert "give calibration inputs of every class" in caplog.text


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (Score(10.04, 0.9, 1000), "rule: at least 0.05 dB more"),
        (Score(10.06, 0.895, 1000), ""),
        (Score(15.0, 0.85, 1000), "5.0% of the decisions are lost; rule: at most 3.2%"),
        (Score(15.0, 0.87, 1000), ""),  # so many are lost by chance
        (Score(15.0, 0.88, 100_000), "2.0% of the decisions are lost; rule: at most 1.0%"),
        (Score(15.0, None), ""),
    ],
)
def test_the_rule(after: Score, why: str) -> None:
    before = Score(10.0, 0.9 if after.agreement is not None else None, after.decisions)
    decision = runner._decide("x", before, after)
    assert (decision.why, decision.kept) == (why, not why)


def quantized(tmp_path: Path, count: int = 64, name: str = "q.onnx", **request: Any) -> QuantizationReport:
    source = tmp_path / "net.onnx"
    source.write_bytes(exported())
    return quantize_model(source, tmp_path / name, digits()[0][:count], QuantizationRequest(**request))


@pytest.mark.parametrize("effort", ["balanced", "best"])
@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_more_effort_is_never_further_away_on_held_out_inputs(effort: str, style: str, tmp_path: Path) -> None:
    report = quantized(tmp_path, style=style, effort=effort)
    steps = report.decisions.steps
    assert report.decisions.effort == effort
    assert any(step.kept for step in steps)
    for step, following in itertools.pairwise(steps):
        assert following.sqnr_db_before == (step.sqnr_db_after if step.kept else step.sqnr_db_before)
    again = quantized(tmp_path, name="again.onnx", style=style, effort=effort)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "q.onnx").read_bytes()
    assert decisions_bytes(again.decisions) == decisions_bytes(report.decisions)


def test_too_few_inputs_give_the_bytes_of_fast(tmp_path: Path) -> None:
    quantized(tmp_path, 15, "fast.onnx", style="cpu")
    report = quantized(tmp_path, 15, "best.onnx", style="cpu", effort="best")
    assert (tmp_path / "fast.onnx").read_bytes() == (tmp_path / "best.onnx").read_bytes()
    assert report.decisions.note
    assert report.decisions.effort == "best"


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_a_plan_that_was_given_is_obeyed_and_the_rest_of_it_improved(style: str, tmp_path: Path) -> None:
    first = quantized(tmp_path, style=style, effort="best")
    again = quantized(tmp_path, name="again.onnx", style=style, effort="best", given=first.plan)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "q.onnx").read_bytes()
    assert again.plan == first.plan
    tensor = next(name for name, entry in first.plan.tensors.items() if entry.scale)
    part = QuantizationPlan(schema=1, tensors={tensor: msgspec.structs.replace(first.plan.tensors[tensor], scale=0.5)})
    partly = quantized(tmp_path, style=style, effort="best", given=part)
    assert partly.plan.tensors[tensor].scale == 0.5


def test_a_calibration_that_was_chosen_is_weighed_against_the_plain_one(tmp_path: Path) -> None:
    report = quantized(tmp_path, style="cpu", method="entropy", effort="balanced")
    assert [step.step for step in report.decisions.steps][:2] == ["ranges by minmax", "ranges by mse"]


def test_one_pass_gives_the_ranges_that_balanced_weighs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    usual = first_ranges.collect_ranges

    def counted(model: Any, inputs: Samples, *rest: Any, **named: Any) -> Any:
        passes.append(len(inputs))
        return usual(model, inputs, *rest, **named)

    monkeypatch.setattr(first_ranges, "collect_ranges", counted)
    monkeypatch.setattr(kit_state, "collect_ranges", counted)
    report = quantized(tmp_path, 40, style="cpu", effort="balanced")
    assert passes == [40]
    assert report.decisions.steps[0].step == "ranges by mse"
    assert report.decisions.steps[0].sqnr_db_after is not None
    assert all({*bounds} == {"minmax", "mse"} for bounds in report.ranges.tensors.values())
    quantized(tmp_path, 40, style="cpu", effort="balanced", method="percentile")
    assert passes == [40, 40, 20]  # every method tells the ends of what it sees


def test_dynamic_activations_say_that_there_is_nothing_to_improve(tmp_path: Path) -> None:
    from ....onnx_fixtures import token_net

    (tmp_path / "t.onnx").write_bytes(token_net().SerializeToString())
    request = QuantizationRequest("cpu", dynamic=True, effort="best")
    tokens = np.ones((4, 6), np.int32)
    report = quantize_model(tmp_path / "t.onnx", tmp_path / "q.onnx", tokens, request, pad_id=0)
    assert report.decisions == Decisions(effort="best", note="dynamic activations have no scales to improve")


def test_answers_in_integers_are_not_compared() -> None:
    model = residual_net()
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["class"], axis=1, name="class/ArgMax"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("class", TensorProto.INT64, ["batch", 1]))
    setting, state = started(model, TENSORRT, images(16))
    found = improve(state, setting, [scaled(8)], samples(images(16)), True, silent)
    assert found.decisions == Decisions(note="the network answers in integers, which are not near or far")
    assert found.state is state


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    (tmp_path / "b.onnx").write_bytes(residual_net(batch=4).SerializeToString())
    request = QuantizationRequest("cpu", effort="best")
    report = quantize_model(tmp_path / "b.onnx", tmp_path / "q.onnx", images(22), request)
    assert (report.decisions.fitted, report.decisions.held) == (11, 11)
    weights = {t.name: numpy_helper.to_array(t) for t in load(tmp_path / "q.onnx").graph.initializer}
    assert all(np.isfinite(array).all() for array in weights.values())

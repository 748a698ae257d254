"""What verify says of the budgets of the machine that it runs on."""

from __future__ import annotations

import copy
import json
import platform
from dataclasses import replace
from typing import Any

import pytest

from dlx_deploy.runtime.commands import resources
from dlx_deploy.runtime.commands.proof import take_proof
from dlx_deploy.runtime.device_budgets import DeviceBudgets
from dlx_deploy.runtime.errors import BudgetMissed, SelfTestFailed, Undecided
from dlx_deploy.runtime.power.sensors import Sensors
from dlx_deploy.runtime.predictor import Predictor


@pytest.fixture
def limited(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``limited(target)``: a predictor whose package has a budget of memory that nothing meets."""
    monkeypatch.setattr(resources, "find_sensors", Sensors)

    def make(**target: str) -> Predictor:
        package = predictor.package
        meta = {**package.meta, "target": {**package.meta["target"], **target}}
        limited = copy.copy(predictor)
        limited.package = replace(package, meta=meta, device_budgets=DeviceBudgets(max_memory_mib=1.0))
        return limited

    return make


def test_the_machine_that_fits_judges_its_budgets(limited: Any) -> None:
    proof = take_proof(limited(arch=platform.machine()), None, True)
    assert [(one.metric, one.verdict, one.limit) for one in proof.budgets] == [("peak_memory_mib", "fail", 1.0)]
    assert (proof.accuracy, proof.why, type(proof.fault)) == ("pass", "", BudgetMissed)
    seen = json.loads(json.dumps(proof.to_dict()))
    assert (seen["schema"], seen["arch"], seen["own_budgets"]) == (1, platform.machine(), True)
    assert seen["machine"]["numpy"]
    assert seen["budgets"][0]["bound"] > 1


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"arch": "mips"}, "and cpu-x86_64 is mips: run verify on that board"),
        ({"kind": "tensorrt"}, "onnxruntime-cpu runs the model here, and not a GPU as on cpu-x86_64"),
    ],
)
def test_another_machine_decides_nothing(limited: Any, target: dict[str, str], words: str) -> None:
    proof = take_proof(limited(**target), None, True)
    assert (proof.budgets, proof.fault) == ((), None)
    assert words in proof.why
    assert proof.lines() == (f"budgets are not judged: {proof.why}",)


@pytest.mark.parametrize(
    ("fault", "verdict"), [(BudgetMissed("x"), "fail"), (Undecided("x"), "undecided"), (SelfTestFailed("x"), "fail")]
)
def test_answers_that_do_not_pass_are_not_timed(limited: Any, fault: Any, verdict: str) -> None:
    proof = take_proof(limited(), fault, True)
    assert (proof.accuracy, proof.budgets) == (verdict, ())

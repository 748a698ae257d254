"""One candidate on the test split: in which arithmetic, what is kept of it, and who shares it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from dlx_deploy.config import Config
from dlx_deploy.pipeline.key import key_document, key_of
from dlx_deploy.pipeline.stage import Job, Metrics, Output
from dlx_deploy.stages.evaluate import STAGE, EvaluateParams
from dlx_deploy.stages.order import steps_for
from dlx_deploy.targets import load_target

from ..datasets import held_images
from .support.verifications import brightness

PIXELS = np.array([0, 1, 1, 2, 1, 6], np.uint8)
LABELS = np.array([0, 1, 1, 1, 1, 1], np.int64)


@pytest.fixture(autouse=True)
def six_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dlx_deploy.nn.data.dataset.open_data", lambda path: held_images(PIXELS.reshape(-1, 1, 1, 1), LABELS, "test")
    )


def evaluated(folder: Path, kind: int, target: str = "jetson", answers: bool = False) -> Metrics:
    (folder / "model").write_bytes(brightness(kind))
    inputs = {"model": folder / "model", "data": folder}
    (folder / "out").mkdir()
    return STAGE.run(
        Job(EvaluateParams(answers=answers), inputs, folder / "out", load_target(target).profile, threads=1)
    )


def test_a_tensorrt_target_is_judged_in_exact_arithmetic(tmp_path: Path) -> None:
    assert evaluated(tmp_path, TensorProto.FLOAT16) == {"top1": 0.5, "test_samples": 6.0}  # every pixel of 1 is lost
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["statistic.npz"]
    kept = np.load(tmp_path / "out" / "statistic.npz")
    assert kept["right"].tolist() == (PIXELS != 1).tolist()


def test_the_answers_of_the_teacher_are_kept(tmp_path: Path) -> None:
    assert evaluated(tmp_path, TensorProto.FLOAT, answers=True)["top1"] == 1.0
    assert np.load(tmp_path / "out" / "teacher.npz")["teacher"].tolist() == LABELS.tolist()


def keys(target: str, host: str, model: str = "a") -> dict[str, str]:
    """Step → key, of what is evaluated for ``target`` on ``host``, if every candidate has the same bytes."""
    profile = load_target(target).profile
    return {
        step.name: key_of(
            key_document(step.stage, step.params, {"model": model, "data": "d"}, profile, step.seed, {"cpu": host})
        )
        for step in steps_for(Config(), profile)
        if step.stage.name == "evaluate"
    }


def test_boards_that_judge_alike_share_what_the_same_bytes_give() -> None:
    nano = keys("jetson-orin-nano-8gb", "here")
    assert list(nano) == ["evaluate-teacher", "evaluate-student", "evaluate-pruned", "evaluate-quantized"]
    assert nano == keys("jetson-agx-orin-64gb", "there") == keys("jetson-orin-nx-16gb", "here")
    assert nano["evaluate-pruned"] == nano["evaluate-quantized"] != nano["evaluate-teacher"]  # its answers are kept
    assert not set(nano.values()) & set(keys("jetson", "here", model="b").values())


def test_kernels_of_a_cpu_are_its_own() -> None:
    here = keys("cpu-x86_64", "here")
    assert here == keys("cpu-x86_64", "here")
    assert not set(here.values()) & {*keys("cpu-x86_64", "there").values(), *keys("jetson", "here").values()}


def test_the_package_gets_the_answers_of_the_teacher() -> None:
    steps = {step.name: step for step in steps_for(Config(), load_target("jetson").profile)}
    assert steps["package"].inputs["teacher"] == Output("evaluate-teacher", "teacher.npz")
    assert [name for name, step in steps.items() if "teacher.npz" in step.stage.outputs] == ["evaluate-teacher"]

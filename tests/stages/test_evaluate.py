"""One candidate on the test split: in which arithmetic, what is kept of it, and who shares it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from dlx_deploy.config import Config, load_config
from dlx_deploy.graph.execution import evaluation
from dlx_deploy.pipeline.key import key_document, key_of
from dlx_deploy.pipeline.stage import Job, Metrics, Output
from dlx_deploy.runtime.tasks.arrays import digests_of
from dlx_deploy.stages.evaluate import STAGE, EvaluateParams
from dlx_deploy.stages.order import steps_for
from dlx_deploy.targets import load_target

from ..arrays import run_onnx
from ..datasets import held_images
from .support.verifications import brightness

PIXELS = np.array([0, 1, 1, 2, 1, 6], np.uint8)
LABELS = np.array([0, 1, 1, 1, 1, 1], np.int64)


@pytest.fixture(autouse=True)
def six_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dlx_deploy.nn.data.dataset.open_data", lambda path: held_images(PIXELS.reshape(-1, 1, 1, 1), LABELS, "test")
    )


def evaluated(
    folder: Path, kind: int, target: str = "jetson", answers: bool = False, parity_samples: int = 0, threads: int = 1
) -> Metrics:
    (folder / "model").write_bytes(brightness(kind))
    inputs = {"model": folder / "model", "data": folder}
    (folder / "out").mkdir()
    params = EvaluateParams(answers=answers, parity_samples=parity_samples)
    return STAGE.run(Job(params, inputs, folder / "out", load_target(target).profile, threads=threads))


def test_a_tensorrt_target_is_judged_in_exact_arithmetic(tmp_path: Path) -> None:
    assert evaluated(tmp_path, TensorProto.FLOAT16) == {"top1": 0.5, "test_samples": 6.0}  # every pixel of 1 is lost
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["statistic.npz"]
    kept = np.load(tmp_path / "out" / "statistic.npz")
    assert kept["right"].tolist() == (PIXELS != 1).tolist()


def test_the_answers_of_the_teacher_are_kept(tmp_path: Path) -> None:
    assert evaluated(tmp_path, TensorProto.FLOAT, answers=True)["top1"] == 1.0
    assert np.load(tmp_path / "out" / "teacher.npz")["teacher"].tolist() == LABELS.tolist()


def test_answers_to_some_samples_are_kept_evenly_over_the_split(tmp_path: Path) -> None:
    evaluated(tmp_path, TensorProto.FLOAT, parity_samples=3)
    kept = np.load(tmp_path / "out" / "parity.npz")
    images = PIXELS.reshape(-1, 1, 1, 1)[[0, 2, 4]]
    np.testing.assert_array_equal(kept["digests"], digests_of(images))
    np.testing.assert_array_equal(
        kept["answers/logits"], run_onnx(brightness(TensorProto.FLOAT), images, exact_qdq=True)
    )
    np.testing.assert_array_equal(kept["decisions"][:, 0], LABELS[[0, 2, 4]])


@pytest.mark.parametrize("batch", [2, 64])
def test_what_is_kept_is_the_same_for_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """A batch without a chosen sample among them."""
    monkeypatch.setattr(evaluation, "BATCH", batch)
    sessions, opened = evaluation.open_session, []

    def open_session(model: bytes, exact: bool, threads: int, fused: bool) -> Any:
        opened.append(threads)
        return sessions(model, exact, threads, fused=fused)

    monkeypatch.setattr(evaluation, "open_session", open_session)
    files = {}
    for threads in (1, 3):
        folder = tmp_path / str(threads)
        folder.mkdir()
        evaluated(folder, TensorProto.FLOAT, answers=True, parity_samples=2, threads=threads)
        files[threads] = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    assert set(files[1]) == {"parity.npz", "statistic.npz", "teacher.npz"}
    assert {name: _arrays(data) for name, data in files[1].items()} == {
        name: _arrays(data) for name, data in files[3].items()
    }
    assert opened == [1, 1]


def _arrays(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data)) as arrays:
        return {name: arrays[name].tolist() for name in arrays}


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


def test_the_package_gets_the_answers_of_every_candidate_that_may_be_shipped() -> None:
    steps = {step.name: step for step in steps_for(Config(), load_target("jetson").profile)}
    given = {name: source for name, source in steps["package"].inputs.items() if name.startswith("answered-")}
    names = ("pruned", "quantized", "student", "teacher")
    assert given == {f"answered-{name}": Output(f"evaluate-{name}", "parity.npz") for name in names}
    none = load_config(None, ["package.parity_samples=0"])
    steps = {step.name: step for step in steps_for(none, load_target("jetson").profile)}
    assert steps["evaluate-quantized"].stage.outputs == ("statistic.npz",)
    assert not any(name.startswith("answered-") for name in steps["package"].inputs)

"""What is compared with the teacher and how: in which arithmetic, by which timings, and what is said of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto

from dlx_deploy.config import Config, Gate, Quantize
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job, Offers, Output
from dlx_deploy.report.results import read_results
from dlx_deploy.stages import verify
from dlx_deploy.stages.support.results import Latencies, Pairing
from dlx_deploy.stages.verify import STAGE, VerifyParams, judge, notes
from dlx_deploy.targets import load_target
from dlx_deploy.tasks.verification import Accuracy, Row

from ..datasets import held_images
from ..devices.fake import FakeDevice
from .support.verifications import brightness, outputs

PIXELS = np.array([0, 1, 1, 2, 1, 6], np.uint8)
LABELS = np.array([0, 1, 1, 1, 1, 1], np.int64)


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
    same, size = {"b": 0, "c": 0}, {"size_bytes": 1, "macs": 1, "parameters": 1}
    rows = tuple(Row(model=m, score=1, evidence=same, **size) for m in ("pruned", "quantized"))
    accuracy = Accuracy(metric="top1", title="top-1", judge="native", n=10, shipped=shipped, rows=rows)
    speed = Pairing(against="pruned", ratio=1.0, lower=lower, upper=upper)
    latencies = Latencies(schema=1, kind="measured", where="here", rows=(), int8_speedup=speed)
    files = {name: tmp_path / name for name in ("accuracy.json", "latency.json")}
    for path, value in zip(files.values(), (accuracy, latencies), strict=True):
        path.write_bytes(canonical_json(value))
    said_of_it = notes(Config(), files, {})
    assert len(said_of_it) == bool(said)
    assert said in "".join(said_of_it)
    assert not notes(Config(quantize=Quantize(precision="int8")), files, {})


def test_what_is_timed_here_is_kept_with_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """p90 is the 90th percentile, its bounds go along, and INT8 is paired with the network that it was made from."""
    ms = np.random.default_rng(0).permutation(np.arange(1, 101))
    timed = {"teacher": 9 * ms, "pruned": 3 * ms, "quantized": 2 * ms}

    device = FakeDevice(ms=timed, rounds=100)
    monkeypatch.setattr(
        "dlx_deploy.nn.data.dataset.open_data", lambda path: held_images(np.zeros((4, 8, 8, 1), np.uint8), only="test")
    )
    models = {name: tmp_path / name for name in timed}
    for name, path in models.items():
        path.write_text(name)
    job = Job(VerifyParams(candidates=tuple(models)), {"data": tmp_path}, tmp_path)
    latency = verify._measured(job, models, device)
    row = next(r for r in latency.rows if r.model == "quantized")
    assert (latency.kind, latency.where, row.p50_ms, row.p90_ms) == ("measured", "a board (a CPU)", 100, 180)
    assert (row.p90_lower_ms, row.p90_upper_ms, row.by_slowest) == (168, 192, False)
    assert latency.int8_speedup is not None
    assert (latency.int8_speedup.against, latency.int8_speedup.ratio) == ("pruned", pytest.approx(1.5))
    assert latency.int8_speedup.lower == pytest.approx(1.5)
    models["quantized"].write_text("pruned")  # the quantize stage kept FP32
    assert (
        verify._measured(
            Job(VerifyParams(candidates=tuple(models)), {"data": tmp_path}, tmp_path), models, device
        ).int8_speedup
        is None
    )


def test_a_student_at_chance_level_is_said(tmp_path: Path) -> None:
    files = outputs(tmp_path, 850, 0, largest_class=200)
    assert judge(Config(gate=Gate(max_drop=0.9)), files, {})[0].verdict == "pass"
    (note,) = notes(Config(gate=Gate(max_drop=0.9)), files, {})
    assert "quantized, which the gate lets into the package if it passes, is right on 13.00 % of 1000" in note
    assert "set gate.min_accuracy, or lower gate.max_drop" in note
    assert not notes(Config(gate=Gate(allow_chance=True)), files, {})
    assert not notes(Config(), outputs(tmp_path, 5, 0, largest_class=200), {})


def test_candidates_are_joined_under_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dlx_deploy.nn.data.dataset.open_data", lambda path: held_images(PIXELS.reshape(-1, 1, 1, 1), LABELS, "test")
    )
    (tmp_path / "teacher").write_bytes(brightness(TensorProto.FLOAT))
    (tmp_path / "quantized").write_bytes(brightness(TensorProto.FLOAT16))
    shutil.copyfile(tmp_path / "teacher", tmp_path / "thinned")  # of a stage that this one does not know
    shutil.copyfile(tmp_path / "quantized", tmp_path / "shipped")
    (tmp_path / "out").mkdir()
    params = VerifyParams(candidates=("teacher", "thinned", "quantized"))
    inputs = {name: tmp_path / name for name in (*params.candidates, "shipped")} | {"data": tmp_path}
    for name in params.candidates:
        inputs[f"evaluated-{name}"] = tmp_path / f"{name}.npz"
        np.savez(inputs[f"evaluated-{name}"], right=((name == "quantized") < PIXELS) == LABELS)
    STAGE.run(Job(params, inputs, tmp_path / "out", load_target("jetson").profile, threads=1))
    accuracy = msgspec.json.decode((tmp_path / "out" / "accuracy.json").read_bytes(), type=Accuracy)
    assert (accuracy.judge, accuracy.shipped) == ("exact-qdq", "quantized")
    assert [row.model for row in accuracy.rows] == ["teacher", "thinned", "quantized"]
    assert (accuracy.schema, accuracy.metric, accuracy.n) == (2, "top1", 6)
    assert accuracy.facts == {"largest_class": 5 / 6}
    assert (accuracy.row("thinned").evidence, accuracy.row("thinned").score) == ({"b": 0, "c": 0}, 1.0)
    row = accuracy.row("quantized")
    assert (row.evidence, row.score) == ({"b": 3, "c": 0}, 0.5)  # every pixel of 1
    assert accuracy.row("teacher").score == 1.0


def test_a_candidate_that_comes_too_late_is_refused() -> None:
    offers = Offers(candidates={"teacher": Output("a", "m"), "late": Output("b", "m")})
    offers = offers.and_of(Offers(outputs={"evaluated-teacher": Output("c", "s")}))
    with pytest.raises(ConfigError, match=r"the candidate late is made behind the stage evaluate; rule: .*'after'"):
        verify.bind(Config(), load_target("jetson").profile, offers)


def test_a_control_is_held_against_the_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dlx_deploy.nn.data.dataset.open_data", lambda path: held_images(PIXELS.reshape(-1, 1, 1, 1), LABELS, "test")
    )
    params = VerifyParams(candidates=("teacher", "control", "student", "quantized"))
    inputs = {name: tmp_path / name for name in (*params.candidates, "shipped")} | {"data": tmp_path}
    for i, name in enumerate((*params.candidates, "shipped")):
        inputs[name].write_bytes(brightness(TensorProto.FLOAT if name != "student" else TensorProto.FLOAT16))
        if name != "shipped":
            inputs[f"evaluated-{name}"] = tmp_path / f"{name}.npz"
            np.savez(inputs[f"evaluated-{name}"], right=np.arange(6) >= (0, 3, 2, 2)[i])
    (tmp_path / "out").mkdir()
    STAGE.run(Job(params, inputs, tmp_path / "out", load_target("jetson").profile, threads=1))
    files = {name: tmp_path / "out" / name for name in ("accuracy.json", "latency.json")}
    said = notes(Config(), files, {})
    assert any("distillation is not shown to help: the student is +16.67 points beside the control" in s for s in said)
    assert (
        "Distillation: student 66.67 %, control (the same network, trained without a teacher) 50.00 %: +16.67 points, "
        in read_results("board", files, Config()).text
    )

"""The package that was released before, on the test split: in which arithmetic, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from dlx_deploy.config import Config, Gate, load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job, Metrics, Output
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference, open_package
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.stages import verify
from dlx_deploy.stages.baseline import STAGE, BaselineParams
from dlx_deploy.stages.order import steps_for
from dlx_deploy.stages.support.regression import Released, baseline_of
from dlx_deploy.targets import load_target
from dlx_deploy.tasks.paired import Paired

from ..datasets import held_images
from .support.verifications import brightness, outputs

PIXELS = np.array([0, 1, 1, 2, 1, 6], np.uint8)
LABELS = np.array([0, 1, 1, 1, 1, 1], np.int64)
METADATA: dict[str, Any] = {
    "name": "pixels",
    "version": "1.0.0",
    "target": {"name": "jetson", "kind": "tensorrt", "title": "Jetson"},
    "preprocessing": {"height": 1, "width": 1, "channels": 1, "resize": "bilinear", "mean": [0.4], "std": [0.2]},
    "precision": {"plan": "fp32", "style": "cpu", "layers": {}},
    "execution": {"exact_qdq": True},
    "recipe": {},
    "budgets": {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 0},
    "accuracy": {},
}
DATA = held_images(PIXELS.reshape(-1, 1, 1, 1), LABELS, "test")


@pytest.fixture(autouse=True)
def six_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: DATA)


def released(path: Path, labels: tuple[str, ...] = (), exact: bool = True, kind: int = TensorProto.FLOAT16) -> Path:
    """A package of a network that takes a pixel of 1 for black where it computes in half precision."""
    task = image_classification(Framing(1, 1, 1), labels or DATA.classes)
    images = PIXELS.reshape(-1, 1, 1, 1)
    metadata = {**METADATA, "execution": {"exact_qdq": exact}}
    contents = PackageContents(
        task=task,
        metadata=metadata,
        model=brightness(kind),
        golden_inputs={"images": images[:1]},
        golden_outputs={"logits": np.array([[0.5, 0]], np.float32)},
        tolerances={"logits": Tolerance(1e-3, 0)},
        reference=make_reference(task, {"images": images}, {"label": LABELS, "teacher": LABELS}),
        manifest=b"{}\n",
        model_card="# pixels\n",
    )
    write_archive(path, assemble(contents))
    return path


def evaluated(folder: Path, given: Path, target: str = "jetson") -> Metrics:
    (folder / "out").mkdir()
    inputs = {"package": given, "data": folder}
    profile = load_target(target).profile
    return STAGE.run(Job(BaselineParams(), inputs, folder / "out", profile, checkpoints=folder / "kept"))


def test_the_last_release_answers_the_test_split(tmp_path: Path) -> None:
    given = released(tmp_path / "old.dlx")
    assert evaluated(tmp_path, given) == {"baseline_top1": 0.5, "test_samples": 6.0}
    kept = np.load(tmp_path / "out" / "statistic.npz")
    assert kept["right"].tolist() == (PIXELS != 1).tolist()
    said = json.loads((tmp_path / "out" / "baseline.json").read_text())
    assert (said["name"], said["version"], said["target"]) == ("pixels", "1.0.0", "jetson")
    assert said["digest"] == open_package(given).digest


@pytest.mark.parametrize(
    ("given", "target", "text"),
    [
        ({"labels": ("b", "a")}, "jetson", r"pixels 1\.0\.0 for jetson: its labels is \['b', 'a'\], here it is "),
        (
            {"exact": False},
            "jetson",
            r"judged with a CPU's own kernels, and jetson-orin-nano-8gb in exact",
        ),
        ({}, "cpu-x86_64", r"judged in exact Q/DQ arithmetic, and cpu-x86_64 with a CPU's own kernels; name one for"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, given: Any, target: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        evaluated(tmp_path, released(tmp_path / "old.dlx", **given), target)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.dlx").write_bytes(b"no zip")
    with pytest.raises(ConfigError, match=r"gate\.baseline: .*name a package \(\.dlx\) that was released before"):
        evaluated(tmp_path, tmp_path / "old.dlx")


def test_a_baseline_is_a_step_before_anything_is_trained() -> None:
    profile = load_target("jetson").profile
    assert "baseline" not in [step.name for step in steps_for(Config(), profile)]
    steps = {step.name: step for step in steps_for(Config(gate=Gate(baseline="old/{target}.dlx")), profile)}
    assert list(steps)[:3] == ["data", "baseline", "teacher"]
    assert steps["baseline"].inputs["package"] == Path(f"old/{profile.name}.dlx")
    assert steps["verify"].inputs["baseline"] == Output("baseline", "baseline.json")
    assert "old/" not in canonical_json(steps["package"].params).decode()


def test_a_baseline_lies_where_the_file_that_names_it_says(tmp_path: Path) -> None:
    (tmp_path / "deploy.toml").write_text('[gate]\nbaseline = "old.dlx"\nmax_regression = 0.01\n')
    gate = load_config(tmp_path / "deploy.toml").gate
    assert (gate.baseline, gate.max_regression) == (str(tmp_path / "old.dlx"), 0.01)
    with pytest.raises(ConfigError, match=r"gate\.max_regression is 'min'"):
        load_config(None, ["gate.max_regression=min"])


@pytest.mark.parametrize(
    ("lost", "gained", "limit", "verdict", "text"),
    [
        (2, 30, "max_drop", "pass", "accuracy drop -2.80 points on 1000 samples"),
        (60, 2, "max_drop", "fail", "raise gate.max_regression"),
        (20, 2, 0.02, "undecided", "samples would"),
        (20, 2, 0.1, "pass", "40 of 1000 answers changed (4.00 %): "),
    ],
)
def test_a_regression_is_a_gate(tmp_path: Path, lost: int, gained: int, limit: Any, verdict: str, text: str) -> None:
    """The teacher sees no drop: it has sunk with the package."""
    rng = np.zeros(1000, bool)
    old, new = ~rng, ~rng
    new[:lost], old[lost : lost + gained] = False, False
    answer = np.arange(1000, dtype=np.int32)
    other = answer.copy()
    other[:40] += 1
    statistics = {"released": {"right": old, "answer": other}}
    (tmp_path / "baseline.json").write_bytes(
        canonical_json(Released(name="pixels", version="1.0.0", target="jetson", digest="d" * 64))
    )
    base = baseline_of(
        Paired("top1", "top-1", "label"),
        {"baseline": tmp_path / "baseline.json"},
        statistics,
        {"right": new, "answer": answer},
        judged=False,
    )
    files = outputs(tmp_path, 0, 0, baseline=base)
    drop, result = verify.judge(Config(gate=Gate(max_regression=limit)), files, {})
    assert drop.verdict == "pass"
    assert (result.gate, result.metric, result.verdict) == ("regression", "top1_regression", verdict)
    assert result.value == pytest.approx((lost - gained) / 1000)
    assert "against the last release, pixels 1.0.0 for jetson" in result.text
    assert text in result.text

"""A temperature for probabilities of what is shipped: fitted on validation, judged on the test split, not packaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto

from dlx_deploy.config import load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Job, Output
from dlx_deploy.stages.calibrate import STAGE, Calibration, notes
from dlx_deploy.stages.order import steps_for
from dlx_deploy.stages.support.training import NoParams
from dlx_deploy.targets import load_target

from ..datasets import held_images
from .support.planning import planned
from .support.verifications import brightness

# Images that are not black have the logits (0.5, pixel), black ones (0.5, 0).
PIXELS = np.array([0] * 20 + [1] * 20, np.uint8).reshape(-1, 1, 1, 1)
RIGHT = (PIXELS > 0).reshape(-1).astype(np.int64)
PROFILE = load_target("jetson").profile


class Splits:
    """A data set of two splits."""

    def __init__(self, **labels: np.ndarray) -> None:
        self.held = {name: held_images(PIXELS[: len(of)], of, name) for name, of in labels.items()}
        self.splits = {name: len(of) for name, of in labels.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(next(iter(self.held.values())), name)

    def samples(self, name: str) -> Any:
        return self.held[name].samples(name)

    def targets(self, name: str) -> Any:
        return self.held[name].targets(name)


def calibrated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, **labels: np.ndarray
) -> tuple[dict[str, float], Calibration]:
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: Splits(**labels))
    (folder / "model").write_bytes(brightness(TensorProto.FLOAT))
    (folder / "out").mkdir()
    job = Job(NoParams(), {"model": folder / "model", "data": folder}, folder / "out", PROFILE, threads=1)
    metrics = STAGE.run(job)
    return metrics, msgspec.json.decode((folder / "out" / "calibration.json").read_bytes(), type=Calibration)


def mistaken(count: int) -> np.ndarray:
    """Labels of which so many of each class are not what the network says."""
    labels = RIGHT.copy()
    labels[:count] = 1
    labels[20 : 20 + count] = 0
    return labels


def test_the_temperature_is_that_of_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, kept = calibrated(tmp_path, monkeypatch, validation=mistaken(8), test=mistaken(6))
    # 24 of 40 are right, by a margin of half a logit: sigmoid(0.5 / T) is 0.6.
    assert kept.temperature == pytest.approx(0.5 / np.log(0.6 / 0.4), rel=1e-4)
    assert metrics["temperature"] == kept.temperature
    # Of the test 28 are, so that the calibrated confidence is a tenth too low; as it is 1 / (1 + exp(-0.5)).
    assert metrics["ece_calibrated"] == pytest.approx(0.1, abs=1e-5)
    assert metrics["ece"] == pytest.approx(0.7 - 1 / (1 + np.exp(-0.5)), abs=1e-5)
    (said,) = notes({}, metrics)
    assert "probabilities of what is shipped are 7.75 % off on average (expected calibration error on 40 test" in said
    assert (
        "and 10.00 % if logits are divided by 1.23, which 40 validation samples gave; this does not help; the package's"
        in said
    )
    better = {**metrics, "ece_calibrated": 0.01}
    assert "samples gave; the package's are as they are" in notes({}, better)[0]


def test_where_validation_gives_none_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, kept = calibrated(tmp_path, monkeypatch, validation=RIGHT, test=mistaken(6))
    assert kept.temperature is None
    assert metrics == {"validation_samples": 40.0, "test_samples": 40.0}
    assert notes({}, metrics) == [
        "no temperature can be fitted on 40 validation samples: every answer is right, or hardly one"
    ]


def test_without_validation_samples_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"verify\.calibration is true, and there are no validation samples"):
        calibrated(tmp_path, monkeypatch, test=RIGHT)


def test_it_is_a_step_where_it_is_asked_for_and_no_other_step_changes(tmp_path: Path) -> None:
    plain = {step.name: step for step in steps_for(load_config(None), PROFILE)}
    asked = {step.name: step for step in steps_for(load_config(None, ["verify.calibration=true"]), PROFILE)}
    assert asked.keys() - plain.keys() == {"calibrate"}
    assert asked["calibrate"].inputs["model"] == Output("compile", "model.onnx")
    assert asked["verify"].params == plain["verify"].params
    masks = ["data.kind=scenes", "teacher.model=unet", "distill.model=unet", "prune.enabled=false"]
    with pytest.raises(ConfigError, match=r"calibrate: .*probabilities of classes, and semantic-segmentation has none"):
        planned(tmp_path, *masks, "verify.calibration=true")

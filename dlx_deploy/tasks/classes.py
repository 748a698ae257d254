"""Classes as what networks answer: one of several, by logits [N, classes]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx_deploy.config import DKD, HINTON, METHODS
from dlx_deploy.errors import ConfigError
from dlx_deploy.tasks.paired import Paired

if TYPE_CHECKING:
    import numpy.typing as npt

    from dlx_deploy.config import Distill, Prune, Qat, Teacher, Training
    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.models.inputs import InputSpec
    from dlx_deploy.nn.models.outputs import Outputs
    from dlx_deploy.nn.training.hooks import Metric
    from dlx_deploy.nn.training.losses import Blend, LossFn
    from dlx_deploy.runtime.tasks.task import Outputs as DeviceOutputs
    from dlx_deploy.tasks.calibration import Calibrated
    from dlx_deploy.tasks.neighbours import Served
    from dlx_deploy.tasks.task import Calibration
    from dlx_deploy.tasks.told import Told
    from dlx_deploy.tasks.verification import Comparison

__all__ = ["Classes"]


@dataclass(frozen=True)
class Classes:
    """The one output ``logits``, float32[N, classes]; targets are labels int64[N]."""

    gives: str = "classes"
    keys: frozenset[str] = frozenset()
    losses: tuple[str, ...] = ("cross-entropy",)
    distillations: tuple[str, ...] = METHODS
    small: bool = True
    draws_groups: bool = True

    def outputs(self, spec: InputSpec, classes: int) -> Outputs:
        """A logit for each class."""
        from dlx_deploy.runtime.tasks.classes import LOGITS

        return {LOGITS: (classes,)}

    @property
    def comparison(self) -> Comparison:
        """Right or wrong, by the largest logit."""
        return Paired(name="top1", title="top-1", target="label")

    @property
    def metrics(self) -> Mapping[str, Comparison]:
        """Those that are no mean over samples."""
        from dlx_deploy.tasks.class_metrics import CLASS_METRICS

        return CLASS_METRICS

    def by_function(self, function: str, file: Path, name: str) -> Comparison:
        """By labels and logits."""
        from dlx_deploy.tasks.user_classes import ClassesByFunction

        return ClassesByFunction(name=f"{name}:{function}", title=function, file=file)

    @property
    def metric(self) -> Metric:
        """The share of samples whose largest logit is at their label."""
        from dlx_deploy.nn.training.classes import TOP1

        return TOP1

    @property
    def calibration(self) -> Calibration:
        """The temperature of Guo et al. 2017."""
        return _calibrated

    def check_training(self, name: str, section: Training) -> None:
        """Nothing: every option is for classes."""

    def supervised(self, section: Teacher, data: Dataset) -> LossFn:
        """Cross entropy, smoothed as the section says."""
        from dlx_deploy.nn.training.classes import supervised

        return supervised(section.label_smoothing)

    def blend(self, section: Distill | Prune | Qat, data: Dataset) -> Blend:
        """By the section's method.

        Raises:
            ConfigError: decoupled distillation of fewer classes than two.
        """
        from dlx_deploy.nn.training.classes import class_blend
        from dlx_deploy.nn.training.distillation import Distillation

        if section.method == DKD and len(data.classes) < 2:
            raise ConfigError(
                f"{type(section).__name__.lower()}.method is {DKD!r}, and the data have {len(data.classes)} class; it "
                f"compares the classes that are not the target: set {HINTON!r}"
            )
        return class_blend(Distillation.of(section))

    def told(self, outputs: Arrays, targets: Arrays, device: DeviceOutputs) -> Told:
        """The class of each sample, and how sure of it a model is."""
        from dlx_deploy.tasks.told import told_classes

        return told_classes(outputs, targets, device)

    def served(self, device: DeviceOutputs) -> Served:
        """One class of several, whichever is best: DeepStream's threshold is 0."""
        from dlx_deploy.runtime.tasks.classes import Classes as DeviceClasses
        from dlx_deploy.tasks.neighbours import Served

        assert isinstance(device, DeviceClasses)
        return Served(device.labels, True, {"network-type": "1", "classifier-threshold": "0.0"})

    def golden(self, outputs: Arrays, share: float, count: int) -> npt.NDArray[Any]:
        """Rows whose best class leads clearly."""
        import numpy as np

        from dlx_deploy.runtime.tasks.classes import LOGITS
        from dlx_deploy.tasks.classification import clear_rows

        logits = outputs[LOGITS]
        return clear_rows(logits, share * float(np.abs(logits).max()), count)


def _calibrated(
    validation: tuple[Arrays, npt.NDArray[Any]], test: tuple[Arrays, npt.NDArray[Any]], /
) -> Calibrated | None:
    from dlx_deploy.runtime.tasks.classes import LOGITS
    from dlx_deploy.tasks.calibration import calibrated

    both = [(outputs[LOGITS], targets) for outputs, targets in (validation, test)]
    return calibrated(both[0], both[1])

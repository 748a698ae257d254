"""Masks as what networks answer: a class for each pixel, by logits [N, classes, H, W]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import HINTON
from dlx_deploy.errors import ConfigError
from dlx_deploy.tasks.mask_gates import MeanIouComparison

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dlx_deploy.config import Distill, Prune, Qat, Teacher, Training
    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.models.inputs import InputSpec
    from dlx_deploy.nn.models.outputs import Outputs
    from dlx_deploy.nn.training.hooks import Metric
    from dlx_deploy.nn.training.losses import Blend, LossFn
    from dlx_deploy.runtime.tasks.task import Outputs as DeviceOutputs
    from dlx_deploy.tasks.neighbours import Served
    from dlx_deploy.tasks.told import Told
    from dlx_deploy.tasks.verification import Comparison

__all__ = ["Masks"]

_WITH_DICE = "cross-entropy+dice"
_GOLDEN_BYTES = 8 << 20
"""Of golden logits in a package, at most, but for one image's."""


@dataclass(frozen=True)
class Masks:
    """The one output ``logits``, float32[N, classes, H, W]; targets are masks uint8[N, H, W], 255 where ignored."""

    gives: str = "masks"
    keys: frozenset[str] = frozenset({"ignore_index"})
    losses: tuple[str, ...] = ("cross-entropy", _WITH_DICE)
    distillations: tuple[str, ...] = (HINTON,)
    small: bool = False
    draws_groups: bool = True
    calibration: None = None

    def outputs(self, spec: InputSpec, classes: int) -> Outputs:
        """A logit of each class for each pixel of the image."""
        from dlx_deploy.nn.models.inputs import ImageInput
        from dlx_deploy.runtime.tasks.classes import LOGITS

        assert isinstance(spec, ImageInput)
        return {LOGITS: (classes, spec.height, spec.width)}

    @property
    def comparison(self) -> Comparison:
        """Mean intersection over union."""
        return MeanIouComparison()

    def by_function(self, function: str, file: Path, name: str) -> Comparison:
        """By confusions of each image."""
        from dlx_deploy.tasks.user_masks import MasksByFunction

        return MasksByFunction(name=f"{name}:{function}", title=function, file=file)

    @property
    def metric(self) -> Metric:
        """Mean intersection over union."""
        from dlx_deploy.nn.training.dense import MeanIou

        return MeanIou()

    def check_training(self, name: str, section: Training) -> None:
        """Only augmentation that moves a mask with its image."""
        for key in ("mixup", "cutmix", "rand_augment"):
            if value := getattr(section, key):
                raise ConfigError(
                    f"{name}.{key} is {value}; it changes images and leaves their masks as they are: set 0, and "
                    "shift_px or flip, which move both"
                )

    def supervised(self, section: Teacher, data: Dataset) -> LossFn:
        """Cross entropy of each pixel, smoothed as the section says; Dice where it asks for it."""
        from dlx_deploy.nn.training.dense import supervised_pixels

        return supervised_pixels(section.label_smoothing, section.loss == _WITH_DICE)

    def blend(self, section: Distill | Prune | Qat, data: Dataset) -> Blend:
        """Hinton et al. 2015, for each pixel."""
        from dlx_deploy.nn.training.dense import pixel_blend
        from dlx_deploy.nn.training.distillation import Distillation

        return pixel_blend(Distillation.of(section), section.loss == _WITH_DICE)

    def told(self, outputs: Arrays, targets: Arrays, device: DeviceOutputs) -> Told:
        """How much of each mask is right, and how sure of its pixels a model is."""
        from dlx_deploy.tasks.told import told_masks

        return told_masks(outputs, targets, device)

    def served(self, device: DeviceOutputs) -> Served:
        """The best class of each pixel, however sure: DeepStream's threshold is 0."""
        from dlx_deploy.runtime.tasks.masks import Masks as DeviceMasks
        from dlx_deploy.tasks.neighbours import Served

        assert isinstance(device, DeviceMasks)
        how = {"network-type": "2", "segmentation-threshold": "0.0", "segmentation-output-order": "0"}
        return Served(device.labels, False, how)

    def golden(self, outputs: Arrays, share: float, count: int) -> npt.NDArray[np.int64]:
        """The first ones, as many as are small enough to be packed: a self-test asks for close logits alone."""
        import numpy as np

        from dlx_deploy.runtime.tasks.classes import LOGITS

        logits = outputs[LOGITS]
        return np.arange(min(count, len(logits), max(_GOLDEN_BYTES // logits[0].nbytes, 1)))

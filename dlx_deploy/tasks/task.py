"""What a task is where packages are built: a record of two parts, what networks read and what they answer.

A part knows only its own: a segmentation of images shares ``Images`` with their classification. Everything outside this
room, the device's own ``runtime/tasks`` and the model registry works on named arrays and asks these two. No module here
imports a heavy library at its top: a plan asks a task too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dlx_deploy.config import HINTON, Data, Distill, Export, Prune, Qat, Taught, Teacher, Training
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Source
from dlx_deploy.progress import Progress
from dlx_deploy.targets import Profile

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.data.prepare import DataSource
    from dlx_deploy.nn.data.survey.findings import Surveyed
    from dlx_deploy.nn.export.spec import Spec
    from dlx_deploy.nn.models.families import Reads
    from dlx_deploy.nn.models.inputs import InputSpec
    from dlx_deploy.nn.models.outputs import Outputs
    from dlx_deploy.nn.pruning.channels import PruneReport
    from dlx_deploy.nn.pruning.order import Order
    from dlx_deploy.nn.training.batches import Feed
    from dlx_deploy.nn.training.hooks import Metric
    from dlx_deploy.nn.training.losses import Blend, LossFn
    from dlx_deploy.nn.training.views import Views
    from dlx_deploy.runtime.tasks.task import Task as DeviceTask
    from dlx_deploy.tasks.calibration import Calibrated
    from dlx_deploy.tasks.verification import Comparison

__all__ = ["Answers", "Calibration", "Inputs", "Task"]


class Calibration(Protocol):
    """Of answers that are probabilities."""

    def __call__(
        self, validation: tuple[Arrays, npt.NDArray[Any]], test: tuple[Arrays, npt.NDArray[Any]], /
    ) -> Calibrated | None:
        """Of outputs by name and targets of both splits; ``None`` where validation gives no temperature."""
        ...


class Inputs(Protocol):
    """What networks read, and all that follows from it."""

    @property
    def noun(self) -> str:
        """What samples are, in the plural, as in ``images``; ``noun[:-1]`` is one."""
        ...

    @property
    def reads(self) -> Reads:
        """What the model registry calls it."""
        ...

    @property
    def keys(self) -> frozenset[str]:
        """The keys of ``[data]`` that say something of these inputs: they are refused with other tasks."""
        ...

    @property
    def libraries(self) -> tuple[str, ...]:
        """The distributions that read them, beside numpy: their versions are in the key of such data."""
        ...

    @property
    def seen_in_calibration(self) -> bool:
        """Whether INT8 on a CPU wants the ranges of activations from calibration; else from each input as it comes."""
        ...

    def check(self, data: Data) -> None:
        """Refuses sizes that are missing and values that do not fit each other; in milliseconds.

        Raises:
            ConfigError: names the key.
        """
        ...

    def check_training(self, name: str, section: Training) -> None:
        """Refuses what a section that trains cannot do with these inputs.

        Raises:
            ConfigError: names the key.
        """
        ...

    def check_samples(self, name: str, section: Training, count: int) -> None:
        """Refuses to train on a split of ``count`` samples what takes more.

        Raises:
            DataError: names the section and the key.
        """
        ...

    def check_export(self, export: Export, kind: str) -> None:
        """Refuses keys of ``[export]`` that belong to other inputs than those of the data's ``kind``.

        Raises:
            ConfigError: names the key.
        """
        ...

    def exported(self, export: Export, profile: Profile) -> Export:
        """``[export]`` with what is left to us decided for the target."""
        ...

    def views(self, section: Training) -> Views | None:
        """The ways in which training shows a stored sample to a network; ``None``: they cannot be counted."""
        ...

    def expected(self, data: Data) -> InputSpec:
        """What a network will read, as far as the configuration says."""
        ...

    def spec(self, data: Dataset) -> InputSpec:
        """What a network for ``data`` reads."""
        ...

    def trains_alone(self, data: Dataset) -> bool:
        """Whether one thread trains faster than several, which wait for each other more than they compute."""
        ...

    def feed(self, data: Dataset) -> Feed:
        """How stored rows become what a network reads."""
        ...

    def pruned(self, model: nn.Module, spec: InputSpec, order: Order) -> tuple[nn.Module, PruneReport]:
        """``model`` without what it needs least.

        Raises:
            StageFailed: so much cannot be removed.
        """
        ...

    def settle(self, model: nn.Module, data: Dataset) -> None:
        """Bring statistics that a pruned ``model`` keeps of its inputs up to date."""
        ...

    def export_spec(self, spec: InputSpec, export: Export, opset: int, data: Dataset | None, outputs: Outputs) -> Spec:
        """What the exported graph looks like from outside; without ``data`` what is measured on them is made up."""
        ...

    def preprocessing(self, data: Dataset) -> dict[str, Any]:
        """What is done to an input before and in the graph, for ``package.json``."""
        ...


class Answers(Protocol):
    """What networks answer, and how good that is."""

    @property
    def gives(self) -> str:
        """What the model registry calls it, as in ``classes``."""
        ...

    def outputs(self, spec: InputSpec, classes: int) -> Outputs:
        """The outputs of a network that reads ``spec`` and tells ``classes`` apart, by name; float32 in a package."""
        ...

    @property
    def comparison(self) -> Comparison:
        """What of a test split a model is judged by, beside its teacher."""
        ...

    @property
    def metric(self) -> Metric:
        """Of a validation split."""
        ...

    @property
    def keys(self) -> frozenset[str]:
        """The keys of ``[data]`` that say something of these answers: they are refused with other tasks."""
        ...

    @property
    def losses(self) -> tuple[str, ...]:
        """The values of a training section's ``loss``, the usual one first."""
        ...

    @property
    def distillations(self) -> tuple[str, ...]:
        """The values of ``distill.method`` that ``blend`` knows; empty where answers are no classes."""
        ...

    @property
    def small(self) -> bool:
        """Whether a teacher's answers to a whole training split can be kept, to learn from in each epoch."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """What is said of probabilities; ``None`` where answers are none."""
        ...

    def check_training(self, name: str, section: Training) -> None:
        """Refuses what a section that trains cannot do with these answers.

        Raises:
            ConfigError: names the key.
        """
        ...

    def supervised(self, section: Teacher, data: Dataset) -> LossFn:
        """What the network to learn from minimises."""
        ...

    def blend(self, section: Distill | Prune | Qat, data: Dataset) -> Blend:
        """What a student minimises: a part from the targets, and one from its teacher's outputs."""
        ...

    def golden(self, outputs: Arrays, share: float, count: int) -> npt.NDArray[Any]:
        """``count`` rows whose answer no difference of up to ``share`` of the largest value can turn: int64[n]."""
        ...


@dataclass(frozen=True)
class Task:
    """``kinds``: the values of ``data.kind`` that it takes, each with what it is where the user gives no path, else "".

    ``files``: the user's files that enter as inputs, by name (``tokenizer``, any other is ``data.path``).
    ``source``: the labelled samples, before they are split.
    ``classes``: how many there are, where that is known without reading the data. ``device``: the package's half, for
    the golden ones among the test samples, given by their rows, and a model's own input dimensions by name.
    ``statement``: what a model card says first. ``libraries``: by the values of ``data.kind``, the distributions that
    such data come from, beside ``Inputs.libraries``. ``survey``: what there is to know of the user's files, with the
    seed of the draw; without it only samples are counted.
    """

    name: str
    kinds: Mapping[str, str]
    inputs: Inputs
    answers: Answers
    files: Callable[[Data], dict[str, Source]]
    source: Callable[[Data, Progress], DataSource]
    classes: Callable[[Data], int | None]
    device: Callable[[Dataset, Sequence[int], Mapping[str, Sequence[int | None]]], DeviceTask]
    statement: str
    libraries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    survey: Callable[[Data, int, Progress], Surveyed] | None = None

    @property
    def keys(self) -> frozenset[str]:
        """The keys of ``[data]`` that it has beside those of every task."""
        return self.inputs.keys | self.answers.keys

    def tools(self, data: Data) -> tuple[str, ...]:
        """The distributions whose versions decide what such ``data`` are once they are prepared."""
        return ("numpy", *self.inputs.libraries, *self.libraries.get(data.kind, ()))

    def check_training(self, name: str, section: Training) -> None:
        """Refuses what the section ``name`` cannot do with these inputs and answers.

        Raises:
            ConfigError: names the key.
        """
        if section.loss not in ("", *self.answers.losses):
            raise ConfigError(
                f"{name}.loss is {section.loss!r}; {self.name} has: {', '.join(map(repr, self.answers.losses))}"
            )
        if isinstance(section, Taught):
            self._check_method(name, section)
        self.inputs.check_training(name, section)
        self.answers.check_training(name, section)

    def _check_method(self, name: str, section: Taught) -> None:
        known = self.answers.distillations
        if section.method != HINTON and section.method not in known:
            has = ", ".join(map(repr, known)) or f"{HINTON!r} alone, which is its own loss"
            raise ConfigError(f"{name}.method is {section.method!r}; {self.name} has: {has}")
        if isinstance(section, Distill) and section.teachers and not known:
            raise ConfigError(
                f"{name}.teachers has {len(section.teachers)}, whose probabilities are averaged; {self.name} has "
                "answers that are none: leave it out"
            )
        if section.standardize and not known:
            raise ConfigError(f"{name}.standardize is true; it is for logits of classes, which {self.name} has not")

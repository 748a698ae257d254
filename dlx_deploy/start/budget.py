"""What training takes on this machine, and how many epochs the time there is allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlx_deploy.config import Data, Teacher
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.pairs import Choice, Pair
from dlx_deploy.stages.support.sizes import network_cost
from dlx_deploy.start.wish import Machine
from dlx_deploy.tasks import task_for

if TYPE_CHECKING:
    from dlx_deploy.nn.training.parts import Cost

__all__ = ["Budget", "Epochs", "read_machine"]

_TRAINING_SHARE = 0.8
"""Of the time; the rest is for data, export, calibration and verification."""
_PASSES = 3
"""A forward and a backward pass, in forward passes."""
_BATCH = 16
_MOST_STEPS, _MOST, _USUAL = 6000, 100, 30
"""Epochs: no more than so many optimizer steps, unless that is fewer than usual; never more than ``_MOST``."""
_BATCH_SIZE = 64
_ENOUGH = 12
"""Epochs in which networks of this size learn something of a data set of their own."""


@dataclass(frozen=True)
class Epochs:
    """``teacher`` and ``distill`` get as many, ``prune`` half. ``seconds``: what they are estimated to take."""

    training: int
    pruning: int
    seconds: float
    capped: bool


@dataclass(frozen=True)
class Budget:
    """``samples`` of training in ``minutes``. ``per_mac``: seconds of a multiply-accumulate in training, once timed."""

    data: Data
    classes: int
    samples: int
    minutes: float
    per_mac: float = 0.0

    def timed(self, network: Choice) -> Budget:
        """The budget of a machine that has trained ``network`` for a moment."""
        from dlx_deploy.nn.models.registry import build_model, expected_of
        from dlx_deploy.nn.training.speed import seconds_per_sample

        given, spec = expected_of(network.model, network.arguments, task_for(self.data).inputs.expected(self.data))
        model = build_model(network.model, given, self.classes, spec)
        taken = seconds_per_sample(model, spec, min(_BATCH, max(self.samples, 2)))
        return replace(self, per_mac=taken / (_PASSES * max(self.macs(network), 1)))

    def of(self, data: Data, speed_of: Budget | None = None) -> Budget:
        """The budget for ``data`` of another size, on the machine that ``speed_of`` has timed."""
        return replace(self, data=data, per_mac=(speed_of or self).per_mac)

    def macs(self, network: Choice) -> int:
        """The multiply-accumulates of one sample; the parameters where nothing counts them.

        Raises:
            ConfigError: as ``cost``.
        """
        cost = self.cost(network)
        return cost.macs or cost.parameters

    def cost(self, network: Choice) -> Cost:
        """What ``network`` costs for these data.

        Raises:
            ConfigError: there is no such network for these data.
        """
        section = Teacher(model=network.model, arguments=dict(network.arguments))
        cost = network_cost(section, self.data, self.classes)
        if cost is None:
            from dlx_deploy.stages.support.rehearsal import built_network

            built_network(section, self.data)  # says why
            raise ConfigError(f"model {network.model!r} cannot be built for these data")
        return cost

    def epochs(self, teacher: Choice, student: Choice | None, frozen: bool = False) -> Epochs:
        """As many as the time allows; ``frozen``: the teacher is not trained."""
        large = self.macs(teacher) * self.per_mac * self.samples  # seconds of a forward pass over all samples
        small = self.macs(student or teacher) * self.per_mac * self.samples
        each = (0 if frozen else _PASSES * large) + (_PASSES * small + large if student else 0)
        each += 0.5 * (_PASSES * small + large)
        allowed = 60 * self.minutes * _TRAINING_SHARE / max(each, 1e-9)
        steps = max(self.samples // _BATCH_SIZE, 1)
        most = min(_MOST, max(_USUAL, _MOST_STEPS // steps))
        epochs = max(1, min(int(allowed), most))
        pruning = max(1, epochs // 2)
        return Epochs(epochs, pruning, epochs * each, allowed > most)

    def suffices(self, pair: Pair) -> bool:
        """Whether both networks get enough epochs to learn something."""
        return self.epochs(pair.teacher, pair.student).training >= _ENOUGH


def read_machine() -> Machine:
    """The machine that will train: this one."""
    import torch

    from dlx_deploy.runtime.machine import available_cores
    from dlx_deploy.targets.host import read_host

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return Machine(read_host().cpu_model, available_cores(), gpu)

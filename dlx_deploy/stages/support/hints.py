"""The layers of ``distill.hints``: whether they can be compared, and the training that does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx_deploy.config import Config, Distill
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.nn.models.families import is_user
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.support.rehearsal import built_network
from dlx_deploy.stages.support.training import other_teachers
from dlx_deploy.tasks import task_for, task_of

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.training.hints import HintPlan
    from dlx_deploy.nn.training.hooks import Hooks
    from dlx_deploy.nn.training.losses import LossFn

__all__ = ["hinting", "rehearse_hints"]


def rehearse_hints(config: Config) -> None:
    """Both networks have the layers of ``distill.hints``, and these can be compared.

    Raises:
        ConfigError: they do not, or cannot.
    """
    import torch

    section, data = config.distill, config.data
    users = any(map(is_user, (section.model, config.teacher.model)))
    if not section.hints or (users and task_for(data).classes(data) is None):
        return

    def check() -> None:
        student, spec = built_network(section, data)
        teacher, _ = built_network(config.teacher, data)
        _plan(section).check(student, teacher, spec)

    try:
        with torch.device("meta"):  # which knows less than a real one: only its yes counts
            check()
    except (ConfigError, StageFailed, RuntimeError, NotImplementedError, TypeError, ValueError):
        check()


def hinting(job: Job[Distill], data: Dataset, student: nn.Module) -> tuple[LossFn, Hooks]:
    """The loss of a student whose layers are held to its teacher's, and the hooks that train what compares them.

    Raises:
        ConfigError: as ``rehearse_hints``.
    """
    from dlx_deploy.nn.training.hints import Hinted
    from dlx_deploy.nn.training.hooks import Hooks
    from dlx_deploy.nn.weights.network import load_model

    task, plan = task_of(data), _plan(job.params)
    spec = task.inputs.spec(data)
    teacher, _ = load_model(job.inputs["teacher"])
    hinted = Hinted(student, plan, plan.check(student, teacher, spec), job.seed)
    loss = hinted.loss(teacher, task.answers.blend(job.params, data), spec, other_teachers(job))
    return loss, Hooks(metric=task.answers.metric, prepare=lambda _: hinted)


def _plan(section: Distill) -> HintPlan:
    from dlx_deploy.nn.training.hints import Hint, HintPlan

    return HintPlan(tuple(map(Hint.of, section.hints)), section.hint_method, section.hint_weight)

"""How large networks are before anything is trained: a student that is not smaller than its teacher is a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx_deploy.config import Config, Data, Distill, Teacher
from dlx_deploy.errors import DlxError
from dlx_deploy.nn.models.families import is_user
from dlx_deploy.tasks import task_for

if TYPE_CHECKING:
    from dlx_deploy.nn.training.parts import Cost

__all__ = ["larger_student", "network_cost"]

_SOME_CLASSES = 10
"""Where the data will say how many there are."""


def larger_student(config: Config) -> str:
    """What to say of a student that takes as many operations as its teacher, or has more parameters; else nothing.

    As many parameters are well for one that is asked once where its teacher averages over views; where operations
    cannot be counted they are not.
    """
    student, teacher = network_cost(config.distill, config.data), network_cost(config.teacher, config.data)
    if student is None or teacher is None:
        return ""
    if student.macs is None or teacher.macs is None:
        if student.parameters < teacher.parameters:
            return ""
    elif student.macs < teacher.macs and student.parameters <= teacher.parameters:
        return ""
    return (
        f"the student is not smaller than its teacher: {config.distill.model} has {_words(student)}, "
        f"{config.teacher.model} {_words(teacher)}; set distill.model and distill.arguments to a smaller network, or "
        "distill.enabled = false to ship the teacher itself"
    )


def network_cost(section: Teacher | Distill, data: Data, classes: int = 0) -> Cost | None:
    """What the section's network costs for such data; ``None`` where that is not known before the data are there.

    ``classes``: how many there are; 0: as many as the configuration says.
    """
    from dlx_deploy.nn.models.registry import expected_of
    from dlx_deploy.nn.training.parts import cost_of, network_of

    classes = classes or task_for(data).classes(data) or 0
    if is_user(section.model) and not classes:
        return None
    try:
        arguments, spec = expected_of(section.model, section.arguments, task_for(data).inputs.expected(data))
        return cost_of(network_of(section.model, arguments, classes or _SOME_CLASSES, spec), spec)
    except DlxError:
        return None  # whoever builds it says why


def _words(cost: Cost) -> str:
    macs = "" if cost.macs is None else f" and {cost.macs / 1e6:.3g} M multiply-accumulates"
    return f"{cost.parameters / 1e6:.3g} M parameters{macs}"

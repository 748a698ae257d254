"""What a student's layers are held to beside its answers: those of its teacher, by name.

Features are taken with forward hooks that live as long as one pass, so nothing of them stays in a network. What a
student's layer is compared through (a projector) learns with the student, in a wrapper that training alone sees.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlx_deploy.config import ATTENTION, PROJECTOR, RELATION
from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import InputSpec
from dlx_deploy.nn.models.outputs import Answer, floats
from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.losses import Blend, LossFn, together

__all__ = ["Hint", "HintPlan", "Hinted", "attention_transfer", "projected", "relation_transfer"]

_NAMED = 24
"""Layers that a message lists."""


@dataclass(frozen=True)
class Hint:
    """A layer of the student, by its name in ``named_modules``, and the one of the teacher that it is held to."""

    student: str
    teacher: str

    @classmethod
    def of(cls, text: str) -> Hint:
        """``NAME``, which both have, or ``STUDENT=TEACHER``."""
        student, _, teacher = text.partition("=")
        return cls(student.strip(), (teacher or student).strip())


@dataclass(frozen=True)
class HintPlan:
    """``method``: how features are compared; ``weight``: what the mean over hints counts beside the blend."""

    hints: tuple[Hint, ...]
    method: str
    weight: float

    def check(self, student: nn.Module, teacher: nn.Module, spec: InputSpec) -> list[tuple[Tensor, Tensor]]:
        """The features of both for two samples, if they can be compared.

        Raises:
            ConfigError: a layer is not there, gives no tensor, or one that cannot be held against the other's.
        """
        given: list[dict[str, Tensor]] = []
        for model, role in ((student, "student"), (teacher, "teacher")):
            names = [getattr(hint, role) for hint in self.hints]
            _refuse_missing(model, names, role)
            device = next((p.device for p in model.parameters()), torch.device("cpu"))
            training = model.training
            with torch.no_grad(), features_of(model.eval(), names) as found:
                model(spec.example(2).to(device))
            model.train(training)
            if empty := [name for name in names if name not in found]:
                raise ConfigError(
                    f"distill.hints: the {role}'s layer {empty[0]!r} gives no tensor of features, or is not used; "
                    "rule: a layer that gives float[N, channels, ...] or float[N, length, width]"
                )
            given.append(found)
        pairs = [(given[0][hint.student], given[1][hint.teacher]) for hint in self.hints]
        for hint, (ours, theirs) in zip(self.hints, pairs, strict=True):
            _refuse_shapes(hint, self.method, ours.shape, theirs.shape)
        return pairs


class Hinted(nn.Module):
    """``student`` as it is trained under hints: the same answers, and what its layers gave is kept until the loss.

    ``pairs`` are the plan's features of both, by whose shapes the projectors are made, drawn from ``seed``.
    """

    def __init__(self, student: nn.Module, plan: HintPlan, pairs: Sequence[tuple[Tensor, Tensor]], seed: int) -> None:
        super().__init__()
        self.student = student
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            shapes = [(ours.shape, theirs.shape) for ours, theirs in pairs]
            layers = [_projector(*s) if plan.method == PROJECTOR else nn.Identity() for s in shapes]
        self.projectors = nn.ModuleList(layers)
        self.plan, self.kept = plan, _Kept()

    def forward(self, inputs: Tensor) -> Answer:
        """What the student answers."""
        if not self.training:
            return self.student(inputs)
        with features_of(self.student, [hint.student for hint in self.plan.hints]) as found:
            answer = self.student(inputs)
        given = [found[hint.student] for hint in self.plan.hints]
        self.kept.features = [layer(x) for layer, x in zip(self.projectors, given, strict=True)]
        return answer

    def loss(self, teacher: nn.Module, blend: Blend, spec: InputSpec, others: Sequence[nn.Module] = ()) -> LossFn:
        """A loss for ``train``: ``blend`` with the live ``teacher``, and the plan's weight times the hints' mean.

        ``others`` say what they say of the answer; the layers are those of ``teacher``.
        """
        for one in (teacher, *others):
            one.eval().to(memory_format=torch.channels_last)
        compare, names = _COMPARED[self.plan.method], [hint.teacher for hint in self.plan.hints]

        def loss(answer: Answer, batch: Batch) -> Tensor:
            with torch.no_grad(), features_of(teacher.to(batch.inputs.device), names) as theirs:
                said = [floats(one.to(batch.inputs.device)(batch.inputs)) for one in (teacher, *others)]
            ours, self.kept.features = self.kept.features, []
            real = spec.real(batch.inputs)
            parts = [compare(x.float(), theirs[name].float(), real) for x, name in zip(ours, names, strict=True)]
            return blend(answer, together(said), batch) + self.plan.weight * torch.stack(parts).mean(dim=0)

        return loss


class _Kept:
    """Features between a forward pass and its loss: of no kind that is kept with a network."""

    def __init__(self) -> None:
        self.features: list[Tensor] = []


@contextlib.contextmanager
def features_of(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What the modules ``names`` give while the context lasts, the last time they are called; of several, the first."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            parts = output.values() if isinstance(output, Mapping) else output
            tensors = [parts] if isinstance(parts, Tensor) else [p for p in parts or () if isinstance(p, Tensor)]
            if tensors and tensors[0].is_floating_point() and tensors[0].ndim > 1:
                found[name] = tensors[0]

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def projected(ours: Tensor, theirs: Tensor, real: Tensor | None) -> Tensor:
    """float32[N]: the mean squared difference of features of one shape (Romero et al. 2015, "FitNets").

    ``ours`` went through the projector. ``real``: bool[N, L], which positions of features [N, L, width] count;
    ``None``: all.
    """
    squared = (ours - theirs) ** 2
    if real is not None and squared.ndim == 3 and squared.shape[1] == real.shape[1]:
        return _over(squared.mean(dim=2), real)
    return squared.flatten(1).mean(dim=1)


def attention_transfer(ours: Tensor, theirs: Tensor, real: Tensor | None) -> Tensor:
    """float32[N], 0 to 2: the squared distance of both's attention maps (Zagoruyko and Komodakis 2017).

    A map is the sum of the squares over channels, of features [N, C, H, W] or [N, L, width], as a vector of length 1
    over the positions; the numbers of channels may differ.
    """
    maps = [x.pow(2).sum(dim=1 if x.ndim == 4 else 2).flatten(1) for x in (ours, theirs)]
    if real is not None and maps[0].shape == real.shape:
        maps = [x * real for x in maps]
    mine, their = (F.normalize(x, dim=1, eps=1e-6) for x in maps)
    return (mine - their).pow(2).sum(dim=1)


def relation_transfer(ours: Tensor, theirs: Tensor, real: Tensor | None) -> Tensor:
    """float32[N]: KL of how much each token attends to each other (Wang et al. 2021, "MiniLMv2", one relation head).

    Of features float[N, L, width], queries, keys or values as a rule: softmax of the dot products by the root of the
    width, a mean over the tokens that are real. Heads and widths may differ.
    """
    logits = [x @ x.transpose(1, 2) / math.sqrt(x.shape[2]) for x in (ours, theirs)]
    here = torch.ones(ours.shape[:2], dtype=torch.bool, device=ours.device)
    if real is not None and here.shape == real.shape:
        here = real
    mine, their = (F.log_softmax(x.masked_fill(~here[:, None], -1e4), dim=2) for x in logits)
    return _over(F.kl_div(mine, their, reduction="none", log_target=True).sum(dim=2), here)


_COMPARED = {PROJECTOR: projected, ATTENTION: attention_transfer, RELATION: relation_transfer}


def _over(values: Tensor, real: Tensor) -> Tensor:
    """float32[N]: the mean of ``values`` [N, L] over what is ``real``."""
    return torch.where(real, values, 0).sum(dim=1) / real.sum(dim=1).clamp(min=1)


def _projector(ours: Sequence[int], theirs: Sequence[int]) -> nn.Module:
    if len(ours) == 4:
        return nn.Conv2d(ours[1], theirs[1], 1, bias=False)
    return nn.Linear(ours[-1], theirs[-1], bias=False)


def _refuse_missing(model: nn.Module, names: Sequence[str], role: str) -> None:
    known = [name for name, _ in model.named_modules() if name]
    for name in names:
        if name not in known:
            few = (
                known
                if len(known) <= _NAMED
                else [n for n in known if n.count(".") == min(name.count("."), 1)][:_NAMED]
            )
            hint = nearest(name, known)
            hint = hint if hint.startswith("nearest") else nearest(name, few)
            raise ConfigError(f"distill.hints: {name!r} is no layer of the {role}; {hint}")


def _refuse_shapes(hint: Hint, method: str, ours: Sequence[int], theirs: Sequence[int]) -> None:
    def positions(shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape[2:] if len(shape) == 4 else shape[1:-1])

    both = f"the student's {hint.student!r} gives {list(ours)}, the teacher's {hint.teacher!r} {list(theirs)}"
    seen = f"distill.hints: {both}"
    if len(ours) != len(theirs) or positions(ours) != positions(theirs):
        raise ConfigError(
            f"{seen} for two samples; rule: as many positions (height and width, or length), whatever the channels: "
            "name layers of the same resolution"
        )
    least = {RELATION: (3,), ATTENTION: (3, 4)}.get(method, (2, 3, 4))
    if len(ours) not in least:
        takes = {3: "[N, length, width]", 4: "[N, channels, height, width]", 2: "[N, width]"}
        allowed = " or ".join(takes[n] for n in least)
        raise ConfigError(f"{seen}; rule: {allowed} with distill.hint_method = {method!r}")

"""From data, a machine and minutes to a configuration: what was seen, what was chosen, and why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from dlx_deploy.config import GRAPHS, Data
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.data.kinds import has_training, kind_of, may_judge_only
from dlx_deploy.nn.data.overview import Overview, overview
from dlx_deploy.nn.models.pairs import Choice, Pair
from dlx_deploy.start.budget import Budget, Epochs, read_machine
from dlx_deploy.start.checkpoint import Given, anchored, given_network
from dlx_deploy.start.networks import LARGEST, Networks, choose_pair, natural_side, sized, smaller_than
from dlx_deploy.start.splits import choose_splits
from dlx_deploy.start.wish import Choices, Machine, Wish
from dlx_deploy.tasks import Task, find_task, task_for

__all__ = ["Start", "start"]

_BATCH = 64
_SOME_CLASSES = 2
"""Where only the data themselves will say."""
_UNNAMED = "model"


class Start(msgspec.Struct, frozen=True):
    """``values`` and ``reasons``: as ``config.template.render`` takes them. ``epochs``: ``None`` if nothing trains."""

    seen: Overview
    machine: Machine
    values: dict[str, object]
    reasons: dict[str, str]
    notes: tuple[str, ...]
    seconds: float


def start(wish: Wish) -> Start:
    """A configuration for ``wish.data`` on this machine.

    Raises:
        DataError: the data cannot be used. ConfigError: the task, the model or the checkpoint do not fit them.
    """
    kind = _kind(wish)
    task = task_for(Data(kind=kind))
    seen, given = _looked_at(wish, Data(kind=kind, path=str(wish.data)))
    basics = _basics(wish, kind, seen) | choose_splits(seen, task, finished=given is not None and given.finished)
    data = Data(kind=kind, path=str(wish.data), channels=_channels(seen))
    fraction = basics.values.get("data.test_fraction", data.test_fraction)
    assert isinstance(fraction, float), fraction
    samples = seen.count("train", replace(data, test_fraction=fraction))
    budget = Budget(data, len(seen.classes) or _SOME_CLASSES, samples, wish.minutes)
    networks, epochs = _networks(wish, given, seen, task, budget)
    choices = basics | networks
    seconds = epochs.seconds if epochs else 0.0
    return Start(seen, read_machine(), dict(choices.values), dict(choices.reasons), choices.notes, seconds)


def _looked_at(wish: Wish, data: Data) -> tuple[Overview, Given | None]:
    """What the data are, as they are used: all to judge by where a finished network is given and nothing trains."""
    if not has_training(data):
        data = replace(data, use="evaluation")
    seen = overview(data)
    given = given_network(wish, seen)
    if given is not None and given.finished and may_judge_only(data):
        return overview(replace(data, use="evaluation")), given
    if data.use == "evaluation":
        raise ConfigError(
            f"{wish.data}: has no images to train on; give a network that tells its {len(seen.classes)} classes apart "
            "already by --checkpoint, or add a train folder"
        )
    return seen, given


def _kind(wish: Wish) -> str:
    kind = wish.kind or kind_of(wish.data)
    if wish.task and kind not in find_task(wish.task).kinds:
        known = ", ".join(map(repr, find_task(wish.task).kinds))
        raise ConfigError(f"--task {wish.task!r} takes data of kind {known}, and {wish.data} looks like {kind!r}")
    return kind


def _basics(wish: Wish, kind: str, seen: Overview) -> Choices:
    values: dict[str, object] = {
        "name": re.sub(r"[^A-Za-z0-9._+-]+", "-", wish.data.resolve().stem).strip("-._+")[:80] or _UNNAMED,
        "data.kind": kind,
        "data.path": anchored(wish.data, wish.file),
    }
    reasons: dict[str, str] = {}
    if wish.targets:
        values["targets"] = [anchored(Path(t), wish.file) if t.endswith(".toml") else t for t in wish.targets]
    if seen.height:
        values["data.channels"] = _channels(seen)
        reasons["data.channels"] = f"{'every' if seen.channels == 1 else 'not every'} image looked at is grey"
    return Choices(values, reasons)


def _channels(seen: Overview) -> Literal[0, 1, 3]:
    return 1 if seen.channels == 1 else 3 if seen.height else 0


def _networks(
    wish: Wish, given: Given | None, seen: Overview, task: Task, budget: Budget
) -> tuple[Choices, Epochs | None]:
    """The networks, their sizes and epochs; no epochs where nothing trains."""
    if given is not None:
        return _with_teacher(given.network, given, seen, task, budget, wish)
    if wish.model:
        return _with_teacher(Choice(wish.model), None, seen, task, budget, wish)
    wish.say("timing this machine, a few steps of training")
    found, budget = choose_pair(seen, task, budget)
    return _trained(found, budget)


def _with_teacher(
    teacher: Choice, given: Given | None, seen: Overview, task: Task, budget: Budget, wish: Wish
) -> tuple[Choices, Epochs | None]:
    """A network that is named: the images are as large as it asks for, the student is smaller, if one is known."""
    proven = given.side if given else 0
    side = proven or natural_side(seen)
    size = _read_by(given, side, "the network has positions for this size" if proven else _OWN_SIZE)
    budget = budget.of(replace(sized(budget.data, side), channels=_read_channels(given, budget.data)))
    own = {"teacher.model": _model(teacher.model, wish), "teacher.arguments": dict(teacher.arguments)}
    if given is not None and given.finished:
        return size | Choices(own) | given.choices, None
    wish.say("timing this machine, a few steps of training")
    student = smaller_than(teacher, task, budget, side)
    found = Networks(Pair(teacher, student or teacher), side, size.reasons.get("data.height", ""))
    chosen, epochs = _trained(found, budget.timed(teacher), alone=student is None)
    return chosen | Choices(own) | (given.choices if given else Choices()), epochs


_OWN_SIZE = f"the images' own size, at most {LARGEST}"


def _read_by(given: Given | None, side: int, why: str) -> Choices:
    """What is to be said of the images that the network reads."""
    if not side:
        return Choices()
    size = Choices({"data.height": side}, {"data.height": why})
    if given is None or _read_channels(given, Data()) == 0:
        return size
    return size | Choices({"data.channels": given.channels}, {"data.channels": "as the checkpoint reads images"})


def _read_channels(given: Given | None, data: Data) -> Literal[0, 1, 3]:
    """Of the images that the network reads: as its checkpoint shows, else as ``data`` says."""
    return 1 if given and given.channels == 1 else 3 if given and given.channels == 3 else data.channels


def _model(name: str, wish: Wish) -> str:
    from dlx_deploy.nn.models.families import is_user

    if name.lower().endswith(GRAPHS):
        return anchored(Path(name), wish.file)
    if not is_user(name):
        return name
    path, _, function = name.rpartition(":")
    return f"{anchored(Path(path), wish.file)}:{function}"


def _trained(found: Networks, budget: Budget, *, alone: bool = False) -> tuple[Choices, Epochs]:
    """Both networks with the epochs that the time allows; ``alone``: no student, the teacher itself is shipped."""
    pair = found.pair
    epochs = budget.epochs(pair.teacher, None if alone else pair.student)
    values: dict[str, object] = {
        **{f"training.{key}": value for key, value in pair.training.items()},
        "teacher.model": pair.teacher.model,
        "teacher.arguments": dict(pair.teacher.arguments),
        "teacher.epochs": epochs.training,
        "prune.epochs": epochs.pruning,
    }
    about = f"{_millions(budget.cost(pair.teacher).parameters)} parameters, {_millions(budget.macs(pair.teacher))} MACs"
    reasons = {"teacher.model": about}
    if found.side:
        values["data.height"] = found.side
        reasons["data.height"] = found.why
    if alone:
        values["distill.enabled"] = False
        reasons["distill.enabled"] = "no clearly smaller network is known: the teacher itself is pruned and quantized"
    else:
        student = budget.cost(pair.student)
        values |= {"distill.model": pair.student.model, "distill.arguments": dict(pair.student.arguments)}
        values["distill.epochs"] = epochs.training
        reasons["distill.model"] = (
            f"{_millions(student.parameters)} parameters, {_millions(budget.macs(pair.student))} MACs: "
            f"{student.parameters / budget.cost(pair.teacher).parameters:.0%} and "
            f"{budget.macs(pair.student) / budget.macs(pair.teacher):.0%} of the teacher's"
        )
    if budget.samples < 4 * _BATCH:
        values["training.batch_size"] = max(2, budget.samples // 4)
        reasons["training.batch_size"] = f"of {budget.samples} training samples"
    reasons["teacher.epochs"] = (
        f"all training is estimated to take {epochs.seconds / 60:.3g} minutes here, of {budget.minutes:g}"
    )
    short = f"the time suffices for {epochs.training} epochs only; more is learned with a larger --minutes"
    return Choices(values, reasons, (short,) if epochs.training < _FEW and not epochs.capped else ()), epochs


_FEW = 5


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} M"

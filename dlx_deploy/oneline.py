"""A network and its data named on the command line: the configuration that these mean, key by key, with reasons.

Without a configuration file the network is a finished one: it is quantized, and nothing is trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dlx_deploy.building import DEFAULT_CONFIG, find_config
from dlx_deploy.config import Config, load_config
from dlx_deploy.config.loading import written_values
from dlx_deploy.config.template import render, toml_value
from dlx_deploy.config.training import GRAPHS
from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.foreign.shape import picture_in, reads_texts
from dlx_deploy.nn.models.families import is_user
from dlx_deploy.nn.models.names import check_collection, check_known
from dlx_deploy.tasks import task_for

__all__ = ["NORMALISATIONS", "Assumption", "Brought", "Meant", "check_normalised", "configured", "written"]

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0..1": ((0.0,), (1.0,)),
    "-1..1": ((0.5,), (0.5,)),
    "0..255": ((0.0,), (1 / 255,)),
    "measured": ((), ()),
}
"""What networks read of pixels: name → mean and standard deviation on the 0..1 scale, for each channel or for all."""
_SIZE = re.compile(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?")
_CHANNELS = 3
_OFF = (("distill.enabled", False), ("prune.enabled", False))


@dataclass(frozen=True)
class Brought:
    """What the command line says of a network and its data; empty where it says nothing.

    ``size``: pixels, "224" or "HEIGHTxWIDTH". ``normalisation``: a key of ``NORMALISATIONS``.
    """

    model: str = ""
    checkpoint: Path | None = None
    pretrained: bool = False
    data: Path | None = None
    size: str = ""
    normalisation: str = ""

    @property
    def is_graph(self) -> bool:
        """Whether the network is a file that holds it whole."""
        return self.model.lower().endswith(GRAPHS)


class Assumption(NamedTuple):
    """``key`` of a configuration, the value that it has, and why; no reason where the user said it."""

    key: str
    value: object
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.key} = {toml_value(self.value)}"


@dataclass(frozen=True)
class Meant:
    """A configuration, and what it was made of: ``assumed`` first, then the user's own ``overrides``."""

    config: Config
    assumed: tuple[Assumption, ...]
    overrides: tuple[str, ...]
    alone: bool
    """Whether there was no file."""

    @property
    def lines(self) -> list[str]:
        """What was assumed without being asked, for people."""
        return [f"assumed: {one} ({one.reason})" for one in self.assumed if one.reason]


def configured(
    file: Path | None, brought: Brought, overrides: Sequence[str], targets: Sequence[str], quantize: bool = False
) -> Meant:
    """The configuration that a command means: ``file``'s, where ``brought`` comes before it and ``overrides`` last.

    With a network and without a file, that of a finished network. ``quantize``: nothing is trained, whatever it says.

    Raises:
        ConfigError: something that must be said is not, or is no such thing.
    """
    named = DEFAULT_CONFIG.is_file() or any(text.startswith("teacher.model") for text in overrides)
    unnamed = bool(brought.checkpoint) and not named
    alone = file is None and bool(brought.model or quantize or unnamed)
    if alone:
        _require(brought)
    assumed = _said(brought)
    if alone:
        assumed = [*_of_alone(brought, targets), *assumed, *_untrained()]
    elif quantize:
        assumed += _untrained()
    given = [f"{one.key}={toml_value(one.value)}" for one in assumed]
    config = load_config(None, [*given, *overrides]) if alone else find_config(file, [*given, *overrides])
    return Meant(config, tuple(assumed), tuple(overrides), alone)


def check_normalised(config: Config, brought: Brought) -> None:
    """Nothing, if it is known which normalisation a finished network was trained with; call it once weights were asked.

    Raises:
        ConfigError: it is not: those of these images would be measured, which are others.
    """
    open_yet = "mean" in task_for(config.data).inputs.keys and not (config.data.mean and config.data.std)
    ours = config.teacher.checkpoint and Path(config.teacher.checkpoint).with_name("architecture.json").is_file()
    if open_yet and not ours and brought.normalisation != "measured":
        raise ConfigError(
            f"{brought.model}: nobody says which normalisation it was trained with; give it by --normalization "
            f"{' | '.join(NORMALISATIONS)} (measured: that of these images), or as data.mean and data.std by --set"
        )


def written(meant: Meant, path: Path) -> str:
    """The text of the configuration file at ``path`` that means the same.

    Raises:
        ConfigError: it was made of a file, of which it is but a part.
    """
    if not meant.alone:
        raise ConfigError(
            "--write-config: writes what --model and --data mean without --config; a whole one is written by init"
        )
    given = [f"{one.key}={toml_value(one.value)}" for one in meant.assumed]
    values = written_values([*given, *meant.overrides], path.parent.resolve())
    return render(values, {one.key: one.reason for one in meant.assumed if one.reason})


def _require(brought: Brought) -> None:
    """What a finished network cannot be quantized without.

    Raises:
        ConfigError: names the option.
    """
    if brought.checkpoint is not None and not brought.checkpoint.is_file():
        raise ConfigError(f"--checkpoint {brought.checkpoint}: there is no such file; correct the path")
    if not brought.model:
        raise ConfigError(f"--model is missing; without a configuration file (-c) give {_network(brought.checkpoint)}")
    if not brought.is_graph:
        check_known("--model", brought.model)
    if not brought.data:
        raise ConfigError(
            "--data is missing; without a configuration file (-c) give a folder or list of images, by which ranges are "
            "measured and the package is judged"
        )
    finished = brought.is_graph or is_user(brought.model) or brought.checkpoint or brought.pretrained
    if not finished:
        check_collection(brought.model)
        raise ConfigError(
            f"--model {brought.model} has no weights; give --checkpoint FILE or --pretrained. To train it, write a "
            f"configuration: dlx-deploy init --data {brought.data}"
        )
    if is_user(brought.model) and not brought.size:
        raise ConfigError(
            f"--model {brought.model} does not say how large its images are; give --size, e.g. --size 224"
        )


def _network(checkpoint: Path | None) -> str:
    """What to give as the network: where there are weights, the name of what they are likely of."""
    if checkpoint is None:
        return "the network: a name, timm:NAME, FILE.py:FUNCTION, FILE.onnx or FILE.pt2"
    from dlx_deploy.nn.weights.offer import offered

    return offered(checkpoint)


def _said(brought: Brought) -> list[Assumption]:
    """The keys that the options set."""
    found = []
    if brought.model:
        found += [Assumption("teacher.model", brought.model), Assumption("teacher.arguments", {})]
    if brought.checkpoint:
        found.append(Assumption("teacher.checkpoint", str(brought.checkpoint)))
    if brought.pretrained:
        found.append(Assumption("teacher.pretrained", "DEFAULT"))
    if brought.data:
        found += _data(brought.data)
    if brought.size:
        found += _size(brought.size)
    if brought.normalisation:
        found += _normalised(brought)
    return found


def _data(path: Path) -> list[Assumption]:
    from dlx_deploy.nn.data.kinds import kind_of

    kind = Assumption("data.kind", kind_of(path), f"what {path} looks like")
    names = path / "classes.txt"
    found = [kind, Assumption("data.path", str(path))]
    if kind.value == "imagefolder" and names.is_file():
        found.append(Assumption("data.classes", str(names), "the classes in the order of that file"))
    return found


def _size(text: str) -> list[Assumption]:
    size = _SIZE.fullmatch(text)
    if size is None:
        raise ConfigError(f"--size {text!r}: must be pixels, for instance 224, or HEIGHTxWIDTH, for instance 192x256")
    return [Assumption("data.height", int(size[1])), Assumption("data.width", int(size[2] or size[1]))]


def _normalised(brought: Brought) -> list[Assumption]:
    name = brought.normalisation
    if name not in NORMALISATIONS:
        raise ConfigError(f"--normalization {name!r}: must be one of {', '.join(NORMALISATIONS)}")
    mean, std = NORMALISATIONS[name]
    if not mean:
        return []
    channels = _CHANNELS if len(mean) == _CHANNELS else _channels(brought)
    mean, std = (values if len(values) == channels else values * channels for values in (mean, std))
    return [Assumption("data.mean", list(mean)), Assumption("data.std", list(std))]


def _channels(brought: Brought) -> int:
    shape = _shape(brought.model) if brought.is_graph else None
    return shape[2] if shape else _CHANNELS


def _of_alone(brought: Brought, targets: Sequence[str]) -> list[Assumption]:
    """What a configuration has that the options do not set; a shape is below ``--size``, which comes after."""
    found = [Assumption("name", _name(brought.model), "from the model's")]
    if targets:
        found.append(Assumption("targets", list(targets)))
    if brought.is_graph and reads_texts(Path(brought.model)):
        return found
    shape = _shape(brought.model) if brought.is_graph else None
    if shape:
        reason = "what the model's input says"
        keys = ("data.channels",) if brought.size else ("data.height", "data.width", "data.channels")
        values = dict(zip(("data.height", "data.width", "data.channels"), shape, strict=True))
        found += [Assumption(key, values[key], reason) for key in keys]
    elif brought.is_graph and not brought.size:
        raise ConfigError(f"--model {brought.model} takes images of any size; give --size, e.g. --size 224")
    return found


def _shape(model: str) -> tuple[int, int, int] | None:
    """Height, width and channels of the images that a finished graph reads, if its file says them."""
    picture = picture_in(Path(model))
    return (picture.height, picture.width, picture.channels) if picture else None


def _untrained() -> list[Assumption]:
    reason = "the network is finished"
    return [Assumption("teacher.epochs", 0, reason), *(Assumption(key, value, reason) for key, value in _OFF)]


def _name(model: str) -> str:
    """A package's name, of the characters that it may have."""
    last = re.split(r"[/\\]", model.partition(".py:")[0].removeprefix("timm:").removeprefix("hf:").rstrip("/"))[-1]
    stem = Path(last).stem if last.lower().endswith(GRAPHS) else last
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", stem).lstrip("._+-")[:80] or "model"

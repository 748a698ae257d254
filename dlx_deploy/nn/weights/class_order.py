"""A finished classifier numbers its outputs in an order of its own: read it, and bring its head into the data's order.

Without it a network that is used as it is answers "dog" where it means "cat", at full accuracy in its own order.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import InputSpec
from dlx_deploy.nn.models.outputs import tensors_of
from dlx_deploy.nn.weights.checkpoint_file import read_torch
from dlx_deploy.nn.weights.class_match import few, order_of

__all__ = ["class_names", "keep_class_order", "named_by_config", "reorder_head"]

log = logging.getLogger(__name__)

_NUMBERS = ("class_to_idx", "label2id", "label_to_id")
"""Where containers keep name → number …"""
_NAMES = ("idx_to_class", "id2label", "classes", "class_names", "label_names", "labels", "categories")
"""… and number → name, as a table or a list."""
_INSIDE = ("meta", "metadata", "config", "hyper_parameters", "hparams", "args", "opt")
_HEADS = 4
"""No network gives one output as the sum of more layers than that."""
_MEANINGLESS = re.compile(r"LABEL_[0-9]+")
"""What Hugging Face writes where nobody named the classes."""


def keep_class_order(
    model: nn.Module, spec: InputSpec, names: Sequence[str] | None, classes: Sequence[str], where: str
) -> None:
    """Bring the outputs of ``model``, whose classes are ``names`` in its own order, into the order of ``classes``.

    Raises:
        ConfigError: the two name different classes, or no layer holds one row for each output.
    """
    if names is None:
        log.warning(
            "%s names no classes: its outputs are taken in the order of the data's, %s; the key classes says another",
            where,
            few(classes),
        )
        return
    order = order_of(names, classes, where)
    if order != sorted(order):
        reorder_head(model, spec, order, where)
        log.warning("%s has its classes in the order %s: its outputs are put in that of the data", where, few(names))


def reorder_head(model: nn.Module, spec: InputSpec, order: Sequence[int], where: str) -> None:
    """Permute the rows of the layer that gives the outputs, and prove it: output i is then the old output order[i].

    Classes are on axis 1 of an output, [N, classes, ...]. Where several layers give it together (as the sum of two
    heads), it is the last few of as many rows.

    Raises:
        ConfigError: no layer has one row for each output.
    """
    training = model.training
    model.eval()
    example = _example(spec)
    layers = [m for m in model.modules() if _rows(m) == len(order)][::-1]
    together = [layers[:count] for count in range(2, min(len(layers), _HEADS) + 1)]
    with torch.no_grad():
        wanted = [_reordered(output, order) for output in tensors_of(model(example))]
        for chosen in [*([layer] for layer in layers), *together]:
            for layer in chosen:
                _permute(layer, order)
            if all(map(_close, tensors_of(model(example)), wanted)):
                model.train(training)
                return
            for layer in chosen:
                _permute(layer, [list(order).index(i) for i in range(len(order))])
    raise ConfigError(
        f"{where} has its classes in another order than the data, and no linear layer gives its outputs; name the "
        "class folders or labels so that their order is that of the outputs"
    )


def class_names(path: Path | None) -> list[str] | None:
    """The names of the outputs that the checkpoint ``path`` holds beside its weights, in their order, if it does.

    ``path`` may be the ``config.json`` that lies beside a checkpoint.
    """
    if path is None:
        return None
    if path.suffix.lower() == ".json":
        table = _parsed(path.read_text(encoding="utf-8", errors="replace"))
        return _named(table) if isinstance(table, Mapping) else None
    if path.suffix.lower() == ".safetensors":
        try:
            with safe_open(path, framework="pt") as f:
                return _named({key: _parsed(value) for key, value in (f.metadata() or {}).items()})
        except (OSError, SafetensorError):
            return None
    try:
        content = read_torch(path)
    except ConfigError:
        return None  # whoever reads the weights says what is wrong
    return _named(content) if isinstance(content, Mapping) else None


def named_by_config(arguments: Mapping[str, object]) -> list[str] | None:
    """The names of the outputs in a Hugging Face configuration (``arguments["config"]``), if it has real ones."""
    config = arguments.get("config")
    return _named(config) if isinstance(config, Mapping) else None


def _named(table: Mapping[object, object]) -> list[str] | None:
    """The names in ``table`` or in its settings, which have attributes where ``read_torch`` stands in for a class."""
    inner = [held for key in _INSIDE if isinstance(held := table.get(key), Mapping)]
    for part in (table, *({**held, **getattr(held, "__dict__", {})} for held in inner)):
        for key in (*_NAMES, *_NUMBERS):
            names = _in_order(part.get(key), by_name=key in _NUMBERS)
            if names and not all(_MEANINGLESS.fullmatch(name) for name in names):
                return names
    return None


def _in_order(value: object, *, by_name: bool) -> list[str] | None:
    """Names in the order of their numbers: from a list, a table by number or one by name."""
    if isinstance(value, Mapping):
        pairs = value.items() if by_name else ((name, number) for number, name in value.items())
        try:
            numbered = {int(number): name for name, number in pairs}
        except (TypeError, ValueError):
            return None
        value = [numbered[i] for i in sorted(numbered)] if sorted(numbered) == list(range(len(value))) else None
    if not isinstance(value, list | tuple) or not value or not all(isinstance(name, str) for name in value):
        return None
    return [str(name) for name in value] if len(set(value)) == len(value) else None


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _reordered(output: Tensor, order: Sequence[int]) -> Tensor:
    """``output`` with its classes in ``order``; as it is if axis 1 is something else."""
    return output[:, list(order)] if output.ndim > 1 and output.shape[1] == len(order) else output


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _example(spec: InputSpec) -> Tensor:
    example = spec.example(2)
    # Of zeros a network without biases makes zeros, which are the same in every order.
    if not example.is_floating_point():
        return example
    return torch.rand(example.shape, generator=torch.Generator().manual_seed(0))


def _rows(module: nn.Module) -> int:
    weight = getattr(module, "weight", None)
    return len(weight) if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(weight, Tensor) else 0


def _permute(layer: nn.Module, order: Sequence[int]) -> None:
    for name in ("weight", "bias"):
        tensor = getattr(layer, name, None)
        if isinstance(tensor, Tensor):
            tensor.copy_(tensor[list(order)].clone())

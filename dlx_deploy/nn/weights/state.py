"""All that training changes in a network as tensors by name: its state dict, and what no state dict holds.

``body.weight`` is a tensor of the state dict; ``body._extra_state.json`` extra state that is no tensor, as JSON text in
uint8; ``~body.matrix`` and ``~=body.temperature`` a tensor and a plain value outside the state dict (``outside.py``)
that are not what the constructor made them.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.weights.outside import Plain, Snapshot, changes, describe, leaves, set_leaf

__all__ = [
    "Versions",
    "check_outside",
    "is_extra",
    "is_json",
    "is_outside",
    "load_versioned",
    "module_versions",
    "outside_state",
    "packed",
    "set_outside",
    "set_packed",
]

Versions = Mapping[str, int]
"""Module name → the version of its part of a state dict."""


class _StateDict(OrderedDict[str, object]):
    """A state dict as torch makes it, which carries what it was written by."""

    _metadata: OrderedDict[str, dict[str, int]]


_EXTRA, _JSON = "_extra_state", ".json"
_TENSOR, _PLAIN = "~", "~="


def is_extra(name: str) -> bool:
    """Whether the entry of a state dict is a module's own (``get_extra_state``), which may be no tensor."""
    return name.rpartition(".")[2] == _EXTRA


def is_outside(name: str) -> bool:
    """Whether ``name`` is that of something outside the state dict."""
    return name.startswith(_TENSOR)


def is_json(name: str) -> bool:
    """Whether ``name`` is that of extra state as JSON, which has any length."""
    return name.endswith(f"{_EXTRA}{_JSON}")


def packed(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of ``model`` as tensors alone, which are not copied.

    Raises:
        ConfigError: extra state that is neither a tensor nor JSON.
    """
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            state[name] = value
        else:
            state[name + _JSON] = _as_json(value, name)
    return state


def set_packed(model: nn.Module, tensors: Mapping[str, Tensor], versions: Versions | None = None) -> None:
    """Set the state dict of ``model`` from what ``packed`` gave; what is outside of it is left as it is."""
    state: dict[str, object] = {}
    for name, tensor in tensors.items():
        if is_json(name):
            state[name.removesuffix(_JSON)] = _from_json(tensor)
        elif not name.startswith(_TENSOR):
            state[name] = tensor
    load_versioned(model, state, versions or {})


def module_versions(model: nn.Module) -> dict[str, int]:
    """The version of every module of ``model``: torch reads its part of a state dict by it."""
    metadata: Mapping[str, Mapping[str, object]] = getattr(model.state_dict(), "_metadata", {})
    return {name: version for name, of in metadata.items() if isinstance(version := of.get("version"), int)}


def load_versioned(model: nn.Module, state: Mapping[str, object], versions: Versions) -> None:
    """``model.load_state_dict`` of a state dict that modules of ``versions`` wrote; others had those of ``model``."""
    marked = _StateDict(state)
    known = {**module_versions(model), **versions}
    marked._metadata = OrderedDict((name, {"version": version}) for name, version in known.items())
    model.load_state_dict(marked, strict=True)


def outside_state(model: nn.Module, start: Snapshot) -> tuple[dict[str, Tensor], list[str]]:
    """What is outside the state dict and not as in ``start``, as tensors, and the names of what cannot be put there."""
    changed, lost = changes(leaves(model), start)
    tensors = {n: value if isinstance(value, Tensor) else _as_json(value, n) for n, value in changed.items()}
    return {_outside_name(name, changed[name]): tensor for name, tensor in tensors.items()}, lost


def set_outside(model: nn.Module, tensors: Mapping[str, Tensor], start: Snapshot) -> None:
    """Set what is outside the state dict as ``tensors`` have it, which may hold more, and all else as in ``start``.

    Raises:
        ConfigError: something is not there or cannot be set.
    """
    wanted: dict[str, Tensor | Plain] = {}
    for name, tensor in tensors.items():
        if name.startswith(_PLAIN):
            wanted[name.removeprefix(_PLAIN)] = _from_json(tensor)
        elif name.startswith(_TENSOR):
            wanted[name.removeprefix(_TENSOR)] = tensor
    now = leaves(model)
    back, _ = changes(now, start)  # what must be as it was, unless it is wanted
    for name, value in {**{name: start[name] for name in back}, **wanted}.items():
        set_leaf(name, now.get(name), value)


def check_outside(tensors: Mapping[str, Tensor], start: Snapshot) -> None:
    """Nothing, if all that ``tensors`` have outside a state dict has a place in ``start``.

    Raises:
        ValueError: it has none, or one of another shape or type.
    """
    for name, tensor in tensors.items():
        plain = name.startswith(_PLAIN)
        if not plain and not is_outside(name):
            continue
        there = start.get(name.removeprefix(_PLAIN if plain else _TENSOR), tensor if plain else None)
        fits = not isinstance(there, Tensor) if plain else isinstance(there, Tensor) and there.shape == tensor.shape
        if not fits:
            raise ValueError(f"{name} is {describe(tensor)}; rule: {describe(there)}")


def _outside_name(name: str, value: object) -> str:
    return (_TENSOR if isinstance(value, Tensor) else _PLAIN) + name


def _as_json(value: object, name: str) -> Tensor:
    """``value`` as JSON text, uint8[bytes].

    Raises:
        ConfigError: it would be another one when it is read.
    """
    try:
        text = json.dumps(value)
        again = json.loads(text)
        same = again == value or repr(again) == repr(value)  # NaN equals nothing
    except (TypeError, ValueError):
        same, text = False, ""
    if not same:
        raise ConfigError(
            f"the model's {name} is {value!r:.60}; extra state must be a tensor or what JSON can hold (None, numbers, "
            "texts, lists, dicts with texts as keys): change get_extra_state"
        )
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _from_json(tensor: Tensor) -> Plain:
    value: Plain = json.loads(bytes(tensor.tolist()).decode())
    return value

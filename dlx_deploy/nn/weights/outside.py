"""What a network computes with that no state dict holds: every tensor, array and plain value on its modules.

Non-persistent buffers, attributes, what lies in lists, dicts and dataclasses, modules that are not registered, and of a
user's own file the closures, class attributes and globals. Such leaves are made by the constructor; where they were
drawn at random, or set while training, a network that is built again has others.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Callable, Iterator, Mapping
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.user import MODULE_PREFIX
from dlx_deploy.runtime.untyped import Array

__all__ = ["Leaf", "Plain", "Snapshot", "changes", "describe", "leaves", "set_leaf", "snapshot"]

Plain = bool | int | float | str | None
_PLAIN = (bool, int, float, str, type(None))
Put = Callable[[object], None]
"""Sets a value where one was read."""
_INTERNAL = frozenset(vars(nn.Module())) | {"_is_accelerate_prepared", "_is_hf_initialized"}
"""What torch, Accelerate and transformers put on every module for themselves: no answer comes of it."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A tensor, array or plain value; ``owner`` is the module that it belongs to, ``put`` sets a plain value."""

    value: Tensor | Array | Plain
    owner: str
    put: Put | None


Snapshot = Mapping[str, Tensor | Plain]
"""Leaves by name as they were at one time: tensors are copies on the CPU, arrays tensors."""


def leaves(model: nn.Module) -> dict[str, Leaf]:
    """Every leaf outside the state dict of ``model`` by its name, as ``body.tables[0]`` or ``body.options['scale']``.

    What shares memory with the state dict is left out: it changes with it.
    """
    return dict(_Walk(model).all())


def snapshot(model: nn.Module) -> Snapshot:
    """The leaves of ``model`` as they are now."""
    return {name: _kept(leaf.value) for name, leaf in leaves(model).items()}


def changes(now: Mapping[str, Leaf], start: Snapshot) -> tuple[dict[str, Tensor | Plain], list[str]]:
    """Name → value of the leaves that are not as in ``start`` and can be set there, and the names of the other ones.

    Tensors are copies. A leaf cannot be set where it is of another shape or type in ``start``, or missing. Such a
    module's plain values are not set either: they may say that a cache is filled.
    """
    changed = {
        name: _kept(leaf.value) for name, leaf in now.items() if name not in start or _differs(leaf, start[name])
    }
    lost = {name for name, value in changed.items() if not (name in start and _alike(value, start[name]))}
    lost |= {name for name in start if name not in now}
    owners = {now[name].owner for name in lost if name in now}
    lost |= {name for name, value in changed.items() if not isinstance(value, Tensor) and now[name].owner in owners}
    return {name: value for name, value in changed.items() if name not in lost}, sorted(lost)


def set_leaf(name: str, leaf: Leaf | None, value: Tensor | Plain) -> None:
    """Give ``leaf`` another value; a tensor or an array gets it in place, whoever holds it.

    Raises:
        ConfigError: there is no such leaf, or it cannot be set.
    """
    try:
        if leaf is None:
            raise TypeError("it is not there")
        if isinstance(leaf.value, Tensor):
            with torch.no_grad():
                leaf.value.copy_(_tensor(value))
        elif isinstance(leaf.value, np.ndarray):
            leaf.value[...] = _tensor(value).numpy()
        elif leaf.put is None:
            raise TypeError("its holder cannot be changed")
        else:
            leaf.put(value)
    except (TypeError, ValueError, RuntimeError, AttributeError) as e:
        raise ConfigError(f"the network's {name} cannot be set to {describe(value)}: {e}; {REMEDY}") from e


REMEDY = "register it with register_buffer, or make it in __init__ from the arguments alone"
"""What to do about state that is lost."""


def describe(value: object) -> str:
    """A value in few words."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return repr(value)[:60]


class _Walk:
    """One pass over a network; ``_seen`` keeps it from going round in circles."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = {id(module) for module in model.modules()}
        self._memory = {_memory(t) for t in model.state_dict(keep_vars=True).values() if isinstance(t, Tensor)} - {0}
        self._seen: set[int] = set()
        self._owner = ""

    def all(self) -> Iterator[tuple[str, Leaf]]:
        for name, module in self._model.named_modules():
            self._owner = name
            yield from self._module(module, f"{name}." if name else "")
        for kind in dict.fromkeys(type(module) for module in self._model.modules()):
            if kind.__module__.startswith(MODULE_PREFIX):
                self._owner = kind.__name__
                yield from self._class(kind)

    def _module(self, module: nn.Module, prefix: str) -> Iterator[tuple[str, Leaf]]:
        for name in sorted(module._non_persistent_buffers_set):
            yield from self._value(module._buffers.get(name), prefix + name, functools.partial(setattr, module, name))
        for name, value in list(vars(module).items()):
            if name not in _INTERNAL:
                yield from self._value(value, prefix + name, functools.partial(setattr, module, name))
        for kind in ("_forward_pre_hooks", "_forward_hooks"):  # their keys count on through the process
            for i, hook in enumerate(getattr(module, kind).values()):
                yield from self._value(hook, f"{prefix}{kind}[{i}]", None)

    def _class(self, kind: type) -> Iterator[tuple[str, Leaf]]:
        for name, value in vars(kind).items():
            if not name.startswith("__") and not isinstance(value, types.FunctionType):
                yield from self._value(value, f"{kind.__name__}.{name}", functools.partial(setattr, kind, name))
        functions = [value for value in vars(kind).values() if isinstance(value, types.FunctionType)]
        around = functions[0].__globals__ if functions else {}
        for name, value in list(around.items()):
            if not name.startswith("__"):
                yield from self._value(value, f"(global) {name}", functools.partial(around.__setitem__, name))

    def _value(self, value: object, name: str, put: Put | None) -> Iterator[tuple[str, Leaf]]:
        if _is_plain(value):
            yield name, Leaf(value, self._owner, put)
        elif isinstance(value, np.generic) and isinstance(value.item(), _PLAIN):
            yield name, Leaf(value.item(), self._owner, None if put is None else _putting(type(value), put))
        elif id(value) not in self._seen:
            self._seen.add(id(value))
            if isinstance(value, Tensor):
                if _memory(value) not in self._memory and value.grad_fn is None:
                    yield name, Leaf(value.detach(), self._owner, None)
            elif isinstance(value, np.ndarray):
                if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:  # what torch has too
                    yield name, Leaf(value, self._owner, None)
            else:
                yield from self._inside(value, name)

    def _inside(self, value: object, name: str) -> Iterator[tuple[str, Leaf]]:
        if isinstance(value, nn.Module):
            if id(value) not in self._modules:  # in a list: torch knows nothing of it
                yield from self._unregistered(value, f"{name}.")
        elif isinstance(value, dict):
            for key, item in list(value.items()):
                yield from self._value(item, f"{name}[{key!r}]", functools.partial(value.__setitem__, key))
        elif isinstance(value, list | tuple):
            for i, item in enumerate(value):
                put = functools.partial(value.__setitem__, i) if isinstance(value, list) else None
                yield from self._value(item, f"{name}[{i}]", put)
        elif isinstance(value, functools.partial):
            for key, item in [*enumerate(value.args), *value.keywords.items()]:
                yield from self._value(item, f"{name}({key})", None)
        elif isinstance(value, types.FunctionType | types.MethodType):
            yield from self._function(value, name)
        elif not isinstance(value, type) and (dataclasses.is_dataclass(value) or _is_plain_object(value)):
            for key, item in list(getattr(value, "__dict__", {}).items()):
                yield from self._value(item, f"{name}.{key}", functools.partial(setattr, value, key))

    def _unregistered(self, module: nn.Module, prefix: str) -> Iterator[tuple[str, Leaf]]:
        for name, tensor in module.state_dict(keep_vars=True).items():
            yield from self._value(tensor, prefix + name, None)
        for name, inner in module.named_modules():
            yield from self._module(inner, f"{prefix}{name}." if name else prefix)

    def _function(self, value: types.FunctionType | types.MethodType, name: str) -> Iterator[tuple[str, Leaf]]:
        function = value.__func__ if isinstance(value, types.MethodType) else value
        if isinstance(function, types.FunctionType) and str(function.__module__).startswith(MODULE_PREFIX):
            for i, cell in enumerate(function.__closure__ or ()):
                put = functools.partial(setattr, cell, "cell_contents")
                yield from self._value(cell.cell_contents, f"{name}.{function.__code__.co_freevars[i]}", put)


def _putting(kind: Callable[[object], object], put: Put) -> Put:
    return lambda value: put(kind(value))


def _is_plain(value: object) -> TypeGuard[Plain]:
    return type(value) in _PLAIN  # an IntEnum is more than its number


def _is_plain_object(value: object) -> bool:
    kind = type(value)
    return kind is types.SimpleNamespace or kind.__module__.startswith(MODULE_PREFIX)


def _memory(tensor: Tensor) -> int:
    """The address of what ``tensor`` is a view of; 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError, ValueError):  # lazy, sparse, or of another kind without storage
        return 0


def _kept(value: Tensor | Array | Plain) -> Tensor | Plain:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor), value
    return value


def _alike(a: Tensor | Plain, b: Tensor | Plain) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype
    return not isinstance(a, Tensor) and not isinstance(b, Tensor)


def _differs(leaf: Leaf, start: Tensor | Plain) -> bool:
    value = leaf.value
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value))
    if isinstance(value, Tensor) and isinstance(start, Tensor):
        value = value.cpu()
        return not _alike(value, start) or not _same(value, start)
    if isinstance(value, float) and isinstance(start, float) and math.isnan(value) and math.isnan(start):
        return False
    return type(value) is not type(start) or value != start


def _same(a: Tensor, b: Tensor) -> bool:
    if torch.equal(a, b):
        return True
    inexact = a.is_floating_point() or a.is_complex()
    return inexact and torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())

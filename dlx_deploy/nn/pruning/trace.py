"""Which channel of which layer is at each place of each tensor: a network is run once and its channels are followed.

Every output channel of a convolution or linear layer gets a number, its *label*. A tensor carries labels as an integer
array with one axis per axis of the tensor: of its size where labels change along it, else 1. ``operations`` says
what each operation does to them. Where an operation is not known to keep channels apart, all labels that reach it are
fixed: their layers are left as they are. So what is not understood is never pruned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.pruning.cuts import Cut
from dlx_deploy.nn.weights.attention import AveragedHeads, operation_by_operation
from dlx_deploy.progress import Progress, silent

__all__ = [
    "NO_CHANNEL",
    "Arguments",
    "Labels",
    "Layer",
    "Operation",
    "Rule",
    "Trace",
    "trace_channels",
    "varying",
]

Labels = NDArray[np.int64]
NO_CHANNEL = -1
"""The label of a place that holds no layer's channel (an image, a constant): it stays, with all that is tied to it."""
Arguments = Mapping[str, Any]
"""The arguments of an operation by the names of its schema, which says what each is: a tensor, a number, a list, …"""


class _Named(Protocol):
    __name__: str


class Operation(Protocol):
    """An operation of torch's lowest level, an ``OpOverload``."""

    _schema: torch._C.FunctionSchema

    @property
    def overloadpacket(self) -> _Named:
        """All operations of its name."""

    @property
    def tags(self) -> Sequence[torch.Tag]:
        """What torch says of it: that it is pointwise, for one."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Its result: a tensor, several, or a number."""


@dataclass(frozen=True)
class Fixed:
    """Labels that must stay, or go together, and why."""

    labels: Labels
    why: str


@dataclass
class Layer:
    """A convolution, linear layer or batch normalisation as the run used it; ``name`` is its module's."""

    name: str
    module: nn.Module
    outputs: Labels | None  # int64[C_out]; a batch normalisation makes no channels
    inputs: list[Labels] = field(default_factory=list)  # int64[C_in] each, one per use
    rows: int = 0  # how often the weights were applied, in all uses and for the whole batch


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows labels through every operation that runs inside it.

    ``ties`` holds pairs of equally long arrays: labels at the same place go together or not at all. ``sums`` holds
    labels that a sum of computed tensors ties, ``fixed`` those that must stay, ``mixed`` those that only go together.
    ``cuts`` holds views that cut channels into parts; ``products`` labels of products of two computed matrices, and
    the multiply-accumulates of each, for the whole batch.
    """

    def __init__(self, model: nn.Module, rules: Rules, seconds: float, progress: Progress = silent) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: dict[str, Layer] = {}
        self.ties: list[tuple[Labels, Labels]] = []
        self.sums: list[Labels] = []
        self.fixed: list[Fixed] = []
        self.mixed: list[Fixed] = []
        self.cuts: list[Cut] = []
        self.products: list[tuple[Labels, int]] = []
        self.stays: dict[str, str] = {}  # modules that must keep their size, and why
        self.labels = 0  # how many were given out
        self._rules, self._seconds, self._began = rules, seconds, time.monotonic()
        self._modules = dict(model.named_modules())
        self._owners = _owners(self._modules)
        self._known: MutableMapping[Tensor, Labels] = WeakIdKeyDictionary()  # tensor → its labels
        self._turned: MutableMapping[Tensor, Tensor] = WeakIdKeyDictionary()  # a transposed weight → the weight
        self._inside: list[str] = []
        self._progress, self._entered = progress, set[str]()
        self._inmost = {name for name, module in self._modules.items() if not any(module.children())}

    def __torch_dispatch__(
        self, func: Operation, types: object, args: tuple[object, ...] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        if time.monotonic() - self._began > self._seconds:
            raise StageFailed(
                f"prune: the network's channels were not followed to the end within prune.trace_seconds = "
                f"{self._seconds:g}; the run had come to {self.place}: raise prune.trace_seconds, or set "
                "prune.enabled = false to ship the network as it is"
            )
        out = func(*args, **(kwargs or {}))
        if not self._unread:
            self._follow(func, args, kwargs or {}, out)
        return out

    @property
    def _unread(self) -> bool:
        """Whether what runs seldom has a reader: its result has no labels, and the oracle objects where it has one."""
        return bool(self._inside) and isinstance(self._modules[self._inside[-1]], AveragedHeads)

    @property
    def place(self) -> str:
        """The module that runs, for messages."""
        return repr(self._inside[-1]) if self._inside and self._inside[-1] else "the network itself"

    def of(self, tensor: object) -> Labels | None:
        """The labels of ``tensor``; ``None``: it has none."""
        return self._known.get(tensor) if isinstance(tensor, Tensor) else None

    def give(self, tensor: Tensor, labels: Labels | None) -> None:
        """``tensor`` carries ``labels`` from now on."""
        if labels is None or not varying(labels):
            if labels is not None:
                self.fix(labels, "all channels become one")
            self._known.pop(tensor, None)
        else:
            self._known[tensor] = labels

    def tie(self, one: Labels, other: Labels) -> None:
        """Channels at the same place of both stay or go together."""
        one, other = np.broadcast_arrays(one, other)
        differ = one != other
        if differ.any():
            self.ties.append((one[differ], other[differ]))

    def mix(self, labels: Labels, one: Labels, func: Operation) -> None:
        """``func`` mixes ``labels`` with ``one`` of them: they stay or go together."""
        self.tie(labels, one)
        self.mixed.append(self._fixed_here(labels, func.overloadpacket.__name__))

    def cut(self, labels: Labels, axes: Sequence[int]) -> None:
        """A view cut channels along ``axes`` of ``labels``."""
        last = np.moveaxis(labels, axes, range(-len(axes), 0))
        self.cuts.append(Cut(self._inside[-1] if self._inside else "", last, len(axes)))

    def fix(self, labels: Labels, why: str) -> None:
        """These channels must stay."""
        self.fixed.append(self._fixed_here(labels, why))

    def _fixed_here(self, labels: Labels, why: str) -> Fixed:
        return Fixed(np.unique(labels), f"{why} in {self.place}")

    def turn(self, weight: Tensor, turned: Tensor) -> bool:
        """Note that ``turned`` is ``weight`` of a layer, transposed; whether it was one."""
        owner = self._owners.get(id(weight))
        if owner is None or owner[1] != "weight":
            return False
        self._turned[turned] = weight
        return True

    def layer(self, kind: type[nn.Module], roles: Arguments) -> Layer | None:
        """The one layer of ``kind`` that has ``roles`` (attribute → tensor or None); ``None``: there is none."""
        tensors = {role: self._turned.get(t, t) for role, t in roles.items() if isinstance(t, Tensor)}
        owners = {role: self._owners.get(id(t)) for role, t in tensors.items()}
        if not owners or any(o is None or o[1] != role for role, o in owners.items()):
            return None
        names = {o[0] for o in owners.values() if o is not None}
        name = names.pop()
        module = self._modules.get(name)
        if names or module is None or not isinstance(module, kind):
            return None
        if name not in self.layers:
            count = _width(module)
            fresh = np.arange(self.labels, self.labels + count, dtype=np.int64)
            self.layers[name] = Layer(name, module, fresh if count else None)
            self.labels += count
        return self.layers[name]

    def keep_layers_of(self, tensors: Sequence[Tensor], why: str) -> None:
        """The layers whose parameters or buffers are among ``tensors`` must keep their size."""
        for tensor in tensors:
            owner = self._owners.get(id(self._turned.get(tensor, tensor)))
            if owner is not None:
                self.stays[owner[0]] = f"{why} in {self.place}"

    def stop(self, func: Operation, tensors: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        """``func`` is not known to keep channels apart: all that reaches it stays as it is."""
        why = func.overloadpacket.__name__
        for tensor in tensors:
            labels = self.of(tensor)
            if labels is not None:
                self.fix(labels, why)
        self.keep_layers_of(tensors, why)
        for tensor in out:
            self.give(tensor, None)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """While it lasts, modules say when they run, so that a message can name them."""
        names = {id(module): name for name, module in self._modules.items()}

        def enter(module: nn.Module, _: object) -> None:
            name = names[id(module)]
            self._inside.append(name)
            if name in self._inmost and name not in self._entered:  # each counts once: how often it runs nobody knows
                self._entered.add(name)
                self._progress(len(self._entered), len(self._inmost), "following the network")

        def leave(*_: object) -> None:
            self._inside.pop()

        hooks = [module.register_forward_pre_hook(enter) for module in self._modules.values()]
        hooks += [module.register_forward_hook(leave) for module in self._modules.values()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _follow(self, func: Operation, args: tuple[object, ...], kwargs: Mapping[str, object], out: object) -> None:
        tensors = _tensors((args, kwargs))
        if not any(t in self._known or t in self._turned or id(t) in self._owners for t in tensors):
            return
        rule, results = self._rules(func), _tensors(out)
        if rule is None or not rule(self, func, _bound(func, args, kwargs), results):
            self.stop(func, tensors, results)


Rule = Callable[[Trace, Operation, Arguments, Sequence[Tensor]], bool]
"""What an operation (its arguments, its results) does to labels; False: not known to keep channels apart."""
Rules = Callable[[Operation], Rule | None]
"""An operation's rule, if there is one."""


def varying(labels: Labels) -> tuple[int, ...]:
    """The axes along which ``labels`` change."""
    return tuple(axis for axis, size in enumerate(labels.shape) if size > 1)


def trace_channels(
    model: nn.Module, example: Tensor, rules: Rules, seconds: float, progress: Progress = silent
) -> Trace:
    """What became of every channel while ``model``, in evaluation mode, read ``example``; its outputs are fixed.

    Raises:
        StageFailed: the network does not run, gives something that holds no tensors, or takes longer than ``seconds``.
    """
    trace = Trace(model, rules, seconds, progress)
    try:
        with torch.no_grad(), operation_by_operation(), trace.inside(), trace:
            out = model(example)
    except StageFailed:
        raise
    except Exception as e:  # a user's network may fail in any way
        raise StageFailed(
            f"prune: the network does not run on a batch of shape {list(example.shape)} ({type(e).__name__}: {e}), so "
            "its channels cannot be followed; set prune.enabled = false to ship it as it is"
        ) from e
    _fix_outputs(trace, out)
    return trace


def _fix_outputs(trace: Trace, out: object) -> None:
    leaves = [leaf for leaf in tree_leaves(out) if leaf is not None]
    strange = [leaf for leaf in leaves if not isinstance(leaf, Tensor | int | float)]
    if strange or not any(isinstance(leaf, Tensor) for leaf in leaves):
        raise StageFailed(
            f"prune: the network gives {type(strange[0] if strange else out).__name__}; what can be compared before "
            "and after pruning is a tensor, or tuples, lists and dicts of tensors: return one of these, or set "
            "prune.enabled = false"
        )
    for leaf in leaves:
        labels = trace.of(leaf)
        if labels is not None:
            trace.fixed.append(Fixed(labels.ravel(), "they are the network's outputs"))


def _owners(modules: Mapping[str, nn.Module]) -> dict[int, tuple[str, str]]:
    """The module and the attribute of every parameter and buffer, by its identity; shared ones belong to nobody."""
    owners: dict[int, tuple[str, str]] = {}
    for name, module in modules.items():
        own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        for role, tensor in own.items():
            owners[id(tensor)] = ("\0", role) if id(tensor) in owners else (name, role)
    return owners


def _width(module: nn.Module) -> int:
    """How many channels of its own ``module`` makes."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return module.out_channels
    return module.out_features if isinstance(module, nn.Linear) else 0


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bound(func: Operation, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Arguments:
    """The arguments of ``func`` by the names of its schema, defaults included."""
    schema = func._schema.arguments
    values = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return {**values, **{a.name: value for a, value in zip(schema, args, strict=False)}, **kwargs}

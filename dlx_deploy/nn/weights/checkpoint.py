"""Checkpoints that others wrote: what lies in the file, and how its names become those of a network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.weights.checkpoint_file import State, read_checkpoint
from dlx_deploy.nn.weights.state import load_versioned

__all__ = ["State", "fitted", "load_into", "read_checkpoint", "refuse_other_names"]

log = logging.getLogger(__name__)

_WRAPPED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put into names, at any depth."""
_COUNTERS = ("total_ops", "total_params", "n_averaged")
"""What thop and weight averaging leave beside the weights."""
_LEFTOVERS = (
    *("criterion", "loss", "loss_fn", "loss_func", "losses", "metrics", "train_metrics", "val_metrics"),
    "aux_classifier",  # torchvision's second head, for training alone
)
"""Modules of training: what is under them is left out, if the network has no such module."""
_AVERAGED = ("ema", "swa", "averaged")
_SHOWN = 5


def load_into(model: nn.Module, state: Mapping[str, object], path: Path, new_head: bool = False) -> None:
    """Set every parameter and buffer of ``model`` from ``state``, whose names are fitted first; ``path`` is for errors.

    ``new_head``: the caller keeps the last layer as it is.

    Raises:
        ConfigError: names the first tensors that are missing, left over, of another shape or kind, or not finite.
    """
    own = model.state_dict()
    state = fitted(own, state, path)
    # Older checkpoints lack this counter, which no forward pass reads.
    given = {**{k: v for k, v in own.items() if k.endswith("num_batches_tracked")}, **state}
    refuse_other_names(own, given, path, lambda: _diagnosis(own, given, new_head))
    _refuse_broken(own, state, path)
    load_versioned(model, given, state.versions)


def fitted(own: Collection[str], state: Mapping[str, object], path: Path) -> State:
    """``state`` under the names of ``own``: without what wrappers put before or into them, and without leftovers.

    What is left out, and which of several networks in one state dict is taken, is said in a warning.

    Raises:
        ConfigError: two networks in it fit alike.
    """
    plain = _unwrapped(State.of(state), own, path)
    prefix, inner = _prefix(own, plain, path), ""
    if prefix:
        fit = plain.inside(prefix)
        left_out = [name for name in plain if not name.startswith(prefix)]
    else:
        left_out = [name for name in plain if name not in own and name.partition(".")[0] in _LEFTOVERS]
        fit = plain.without(left_out)
        inner = _inner(own, fit)
    fit = fit.without([name for name in fit if name not in own and _is_counter(name)])
    said = [name for name in left_out if not _is_counter(name)]
    if said:
        log.warning("%s: %d of %d tensors left out: %s", path, len(said), len(plain), _first(said))
    return fit.under(inner) if inner else fit


def refuse_other_names(
    own: Mapping[str, object], state: Mapping[str, object], path: Path, remedy: Callable[[], str] | None = None
) -> None:
    """Nothing, if ``state`` has the names and the shapes of ``own``.

    Raises:
        ConfigError: it does not: the first that are missing, left over or of another shape, how many, and ``remedy``.
    """
    missing = [k for k in own if k not in state]
    surplus = [k for k in state if k not in own]
    shaped = [k for k in own if k in state and _shape(state[k]) != _shape(own[k])]
    wrong = [f"{k} is missing" for k in missing]
    wrong += [f"{k} {_shape(state[k])} is not in the model" for k in surplus]
    wrong += [f"{k} is {_shape(state[k])} in the checkpoint and {_shape(own[k])} in the model" for k in shaped]
    if not wrong:
        return
    counts = ((len(missing), "missing"), (len(surplus), "not in the model"), (len(shaped), "of another shape"))
    said = ", ".join(f"{count} {what}" for count, what in counts if count)
    advice = remedy() if remedy else "check model, arguments and the number of classes"
    raise ConfigError(
        f"{path}: does not fit the model: {_first(wrong, '; ')} ({said}, of {len(own)} tensors); {advice}"
    )


def _diagnosis(own: Mapping[str, object], given: Mapping[str, object], new_head: bool) -> str:
    from dlx_deploy.nn.models.recognition.diagnosis import diagnosis  # imports the networks that it compares with

    return diagnosis(_shapes(own), _shapes(given), new_head)


def _shapes(state: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}


def _refuse_broken(own: Mapping[str, object], state: Mapping[str, object], path: Path) -> None:
    for name, tensor in state.items():
        mine = own[name]
        if not (isinstance(tensor, Tensor) and isinstance(mine, Tensor) and mine.is_floating_point()):
            continue
        if tensor.is_quantized or not tensor.is_floating_point():
            raise ConfigError(
                f"{path}: {name} is {_kind(tensor)} and {_kind(mine)} in the model; a checkpoint must hold the weights "
                "as they were before quantization"
            )
        if not bool(tensor.isfinite().all()) and bool(mine.isfinite().all()):
            raise ConfigError(
                f"{path}: {name} has {int((~tensor.isfinite()).sum())} of {tensor.numel()} values that are NaN or "
                "infinite; its training diverged: take an earlier checkpoint"
            )


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def _unwrapped(state: State, own: Collection[str], path: Path) -> State:
    def plain(name: str) -> str:
        for token in _WRAPPED:
            name = name.replace(token, "")
        return name

    if not any(token in name and name not in own for name in state for token in _WRAPPED):
        return state
    renamed = {plain(name): value for name, value in state.items()}
    if len(renamed) < len(state):
        raise ConfigError(f"{path}: has names both with and without {', '.join(_WRAPPED)}; save it anew")
    return State(renamed, {plain(f"{name}.")[:-1]: version for name, version in state.versions.items()})


def _prefix(own: Collection[str], state: Mapping[str, object], path: Path) -> str:
    """What stands before the names of the network in ``state``; empty where nothing does."""
    prefixes = _prefixes(own, state)
    averaged = [p for p in prefixes if any(word in p.lower() for word in _AVERAGED)]
    if len(prefixes) > 1 and len(averaged) != 1:
        raise ConfigError(
            f"{path}: holds {len(prefixes)} networks that fit, under {_first(prefixes)}; set teacher.checkpoint_key to "
            "one, without its last dot"
        )
    if len(prefixes) > 1:
        log.warning("%s: holds networks under %s; took %s (checkpoint_key)", path, _first(prefixes), averaged[0])
    return next(iter(averaged if len(prefixes) > 1 else prefixes), "")


def _inner(own: Collection[str], state: Mapping[str, object]) -> str:
    """What stands before the names of ``state`` in the network, which wraps the one that was saved."""
    prefixes = _prefixes(state, own)
    return prefixes[0] if len(prefixes) == 1 else ""


def _prefixes(names: Collection[str], within: Collection[str]) -> list[str]:
    """The prefixes under which most of ``names`` are ``within``, if that is half of them and more than bare ones."""
    ends: dict[str, list[str]] = {}  # last part → names
    for name in names:
        if not name.endswith("num_batches_tracked"):
            ends.setdefault(name.rpartition(".")[2], []).append(name)
    counts: dict[str, int] = {}
    for long in within:
        for name in ends.get(long.rpartition(".")[2], []):
            if long.endswith(f".{name}"):
                prefix = long.removesuffix(name)
                counts[prefix] = counts.get(prefix, 0) + 1
    known = set(within)
    most = max(counts.values(), default=0)
    total = sum(len(group) for group in ends.values())
    if 2 * most < total or most <= sum(name in known for group in ends.values() for name in group):
        return []
    return [prefix for prefix, count in counts.items() if count == most]


def _first(items: Collection[str], between: str = ", ") -> str:
    shown = list(items)[:_SHOWN]
    return between.join(shown) + (f"{between}and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def _shape(value: object) -> object:
    return list(value.shape) if isinstance(value, Tensor) else "extra state"


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

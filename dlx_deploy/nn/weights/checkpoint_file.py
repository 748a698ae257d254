"""What lies in a checkpoint's file: safetensors, or a torch file read without executing it."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.weights.state import is_extra
from dlx_deploy.nn.weights.suffixes import CHECKPOINTS, TORCH

__all__ = ["State", "read_checkpoint", "read_content", "read_torch", "state_in"]

log = logging.getLogger(__name__)

_AVERAGED = (
    "ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_model_state_dict",
    "module_ema", "params_ema", "swa_model", "swa_state_dict", "averaged_model", "averaged",
)  # fmt: skip
_PLAIN = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "net_state_dict", "module", "weights",
    "params",
)  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 5
_DEEPEST = 4
"""Wrappers within wrappers."""

_INERT_NAMES = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|collections\.(defaultdict|deque)|pathlib\.[\w.]*Path|"
    r"datetime\.\w+|uuid\.UUID|enum\.\w+|typing\.\w+|(numpy|omegaconf|yacs|ml_collections|easydict|addict)\.[\w.]+|"
    r"(lightning|pytorch_lightning|lightning_fabric|lightning_utilities)\.[\w.]+|torch\.optim\.[\w.]+|"
    r"transformers\.(training_args|trainer_utils)\.[\w.]+|(builtins\.)?(int|float|bool|str|list|dict|set|tuple|complex)"
)
"""Classes whose objects lie beside the weights: settings, paths, scores. Nothing of theirs is imported or run."""


class _Inert:
    """Stands for an object of a class of ``_INERT_NAMES``: takes what it is given and does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _InertList(list[object]):
    """Stands for one that is appended to."""

    def __init__(self, *_: object) -> None:
        super().__init__()


class _InertDict:
    """Stands for one that has items or attributes: torch fills these types alone."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


def _stand_in(name: str) -> tuple[type, str]:
    if name == "collections.deque":
        return _InertList, name
    return _Inert if name.startswith("numpy.") else _InertDict, name


class State(dict[str, object]):
    """Name → tensor, or a module's extra state; ``versions`` of the modules that wrote it, as far as is known."""

    def __init__(self, items: Mapping[str, object] | Iterable[tuple[str, object]], versions: Mapping[str, int]) -> None:
        super().__init__(items)
        self.versions = dict(versions)

    @classmethod
    def of(cls, state: Mapping[str, object]) -> State:
        """``state`` with the versions that torch left on it."""
        if isinstance(state, State):
            return state
        metadata = getattr(state, "_metadata", None)
        metadata = metadata if isinstance(metadata, Mapping) else {}
        versions = {
            n: of.get("version") for n, of in metadata.items() if isinstance(n, str) and isinstance(of, Mapping)
        }
        return cls(state, {name: version for name, version in versions.items() if isinstance(version, int)})

    def without(self, names: Iterable[str]) -> State:
        """All but ``names``."""
        left_out = set(names)
        return State({k: v for k, v in self.items() if k not in left_out}, self.versions)

    def inside(self, prefix: str) -> State:
        """What stands under ``prefix``, which ends in a dot, without it."""
        named = {k.removeprefix(prefix): v for k, v in self.items() if k.startswith(prefix)}
        under = {f"{k}.".removeprefix(prefix)[:-1]: v for k, v in self.versions.items() if f"{k}.".startswith(prefix)}
        return State(named, under)

    def under(self, prefix: str) -> State:
        """All with ``prefix``, which ends in a dot, before it."""
        named = {prefix + k: v for k, v in self.items()}
        return State(named, {f"{prefix}{k}".removesuffix("."): v for k, v in self.versions.items()})


def read_checkpoint(path: Path, key: str = "") -> State:
    """The tensors in ``path`` by parameter name, on the CPU, wrappers and prefixes taken off.

    ``.safetensors``, or a torch file read with ``weights_only=True``. Unwrapped: a dict that holds the state dict under
    ``state_dict``, ``model``, …; names that all begin with ``module.`` or ``_orig_mod.``. ``key`` says which of several
    state dicts is meant, or with what its names begin; without it averaged weights come first, which is said.

    Raises:
        ConfigError: the file cannot be read, would need code to be executed, or holds no state dict, or several.
    """
    return state_in(read_content(path), key, path)


def read_content(path: Path) -> object:
    """All that the checkpoint ``path`` holds, on the CPU.

    Raises:
        ConfigError: the file cannot be read, is of no such format, or would need code to be executed.
    """
    suffix = path.suffix.lower()
    if suffix not in CHECKPOINTS:
        raise ConfigError(
            f"{path}: suffix {path.suffix!r} is no checkpoint's; must be .safetensors or {', '.join(TORCH)}"
        )
    return _read_safetensors(path) if suffix == ".safetensors" else read_torch(path)


def state_in(content: object, key: str, path: Path) -> State:
    """The state dict in what ``read_content`` gave, as ``read_checkpoint`` says.

    Raises:
        ConfigError: there is none, or several.
    """
    state = _state(content, key, path)
    while prefix := next((p for p in _PREFIXES if state and all(k.startswith(p) for k in state)), ""):
        state = state.inside(prefix)
    return state


def _state(content: object, key: str, path: Path) -> State:
    if key and isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
        content, key = content[key], ""
    for _ in range(_DEEPEST):
        if not (isinstance(content, Mapping) and (inner := _networks(content))):
            break
        content = content[_choice(inner, path)]
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise ConfigError(
            f"{path}: holds {_describe(content)}; it must hold a state dict (name → tensor), "
            f"plain or under one of: {', '.join((*_PLAIN, *_AVERAGED))}"
        )
    others = [k for k, v in content.items() if not isinstance(k, str) or not (isinstance(v, Tensor) or is_extra(k))]
    if others:
        log.warning("%s: left out what is no tensor: %s", path, ", ".join(map(str, others[:_SHOWN])))
    state = State.of(content).without(others)
    if key and not (state := state.inside(f"{key}.")):
        raise ConfigError(
            f"{path}: teacher.checkpoint_key is {key!r}; it must be a key of the file or what names begin with, which "
            f"is one of: {', '.join(sorted({str(k).partition('.')[0] for k in content})[:_SHOWN])}"
        )
    return state


def _networks(content: Mapping[object, object]) -> list[str]:
    """The keys under which a state dict lies."""
    keys = [k for k, v in content.items() if isinstance(k, str) and not is_extra(k) and _holds(v, _DEEPEST)]
    known = [k for k in (*_AVERAGED, *_PLAIN) if k in keys]
    return known or keys


def _holds(value: object, depth: int) -> bool:
    if not isinstance(value, Mapping) or not value or not depth:
        return False
    if any(isinstance(v, Tensor) for v in value.values()):
        return all(isinstance(k, str) and (isinstance(v, Tensor) or is_extra(k)) for k, v in value.items())
    return any(_holds(value.get(key), depth - 1) for key in (*_AVERAGED, *_PLAIN))


def _choice(keys: list[str], path: Path) -> str:
    if len(keys) > 1:
        if keys[0] not in (*_AVERAGED, *_PLAIN):
            raise ConfigError(
                f"{path}: holds several state dicts: {', '.join(keys[:_SHOWN])}; set teacher.checkpoint_key to one of "
                "them"
            )
        log.warning("%s: holds state dicts under %s; took %s (checkpoint_key)", path, ", ".join(keys), keys[0])
    return keys[0]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror or e})") from e
    except safetensors.SafetensorError as e:
        raise ConfigError(f"{path}: no valid safetensors file ({e}); it may be cut short") from e


def read_torch(path: Path) -> object:
    """All that the torch file ``path`` holds, on the CPU; settings and scores beside the weights as stand-ins.

    Raises:
        ConfigError: it cannot be read, or its pickle asks for anything that would be executed.
    """
    inert: list[str] = []
    while True:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals([_stand_in(n) for n in inert]):
                warnings.simplefilter("ignore")  # of TorchScript: refused below
                return torch.load(path, map_location="cpu", weights_only=True)
        except OSError as e:
            raise ConfigError(f"{path}: cannot be read ({e.strerror or e})") from e
        except pickle.UnpicklingError as e:
            refused = re.search(r"GLOBAL (\S+)", str(e))
            if refused is None:
                raise ConfigError(f"{path}: no valid torch checkpoint ({_unpickling(e)})") from e
            name = refused[1] if "." in refused[1] else f"builtins.{refused[1]}"
            if name in inert or not _INERT_NAMES.fullmatch(name):
                raise ConfigError(
                    f"{path}: its pickle asks for {refused[1]}, which would execute code and is refused; re-save the "
                    "weights alone, as safetensors.torch.save_file(model.state_dict(), 'model.safetensors') "
                    "or torch.save(model.state_dict(), 'model.pt')"
                ) from e
            inert.append(name)
        except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as e:
            if "TorchScript" in str(e):
                raise ConfigError(
                    f"{path}: is a TorchScript archive, a program with its weights; save them alone, as "
                    "torch.save(torch.jit.load(FILE).state_dict(), 'model.pt')"
                ) from e
            raise ConfigError(f"{path}: no valid torch checkpoint ({_first_line(e)}); it may be cut short") from e


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dict with keys {[str(k) for k in content][:_SHOWN]}"
    return f"a {type(content).__name__}"


def _unpickling(error: Exception) -> str:
    """What torch says after its advice to execute the file."""
    said = re.search(r"WeightsUnpickler error:\s*(.*)", str(error))
    return said[1] if said else type(error).__name__


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

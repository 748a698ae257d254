"""Checkpoints that others wrote: safetensors, or torch files read without executing them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError

__all__ = ["load_into", "read_checkpoint"]

_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt")
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "ema", "state_dict_ema")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 5


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors in ``path`` by parameter name, on the CPU, wrappers and prefixes taken off.

    ``.safetensors``, or a torch file read with ``weights_only=True``. Unwrapped: a dict that holds the state dict under
    ``state_dict``, ``model``, …; names that all begin with ``module.`` or ``_orig_mod.``.

    Raises:
        ConfigError: the file cannot be read, would need code to be executed, or holds no state dict.
    """
    if path.suffix == ".safetensors":
        return _plain(_read_safetensors(path))
    if path.suffix not in _TORCH_SUFFIXES:
        raise ConfigError(
            f"{path}: suffix {path.suffix!r} is no checkpoint's; must be .safetensors or {', '.join(_TORCH_SUFFIXES)}"
        )
    found = _unwrap(_read_torch(path))
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise ConfigError(
            f"{path}: holds {_describe(found)}; it must hold a state dict (name → tensor), "
            f"plain or under one of: {', '.join(_WRAPPERS)}"
        )
    return _plain({str(k): v for k, v in found.items()})


def load_into(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Set every parameter and buffer of ``model`` from ``state``; ``path`` is named in errors.

    Raises:
        ConfigError: names the first tensors that are missing, left over, or of another shape.
    """
    own = model.state_dict()
    # Older checkpoints lack this counter, which no forward pass reads.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [f"{k} is missing" for k in missing]
    wrong += [f"{k} {list(state[k].shape)} is not in the model" for k in state if k not in own]
    wrong += [
        f"{k} is {list(state[k].shape)} in the checkpoint and {list(own[k].shape)} in the model"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ConfigError(
            f"{path}: does not fit the model: {'; '.join(wrong[:_SHOWN])}{more} ({len(wrong)} of {len(own)} tensors); "
            "check model, arguments and the number of classes"
        )
    model.load_state_dict({**own, **state}, strict=True)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror or e})") from e
    except safetensors.SafetensorError as e:
        raise ConfigError(f"{path}: no valid safetensors file ({e}); it may be cut short") from e


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror or e})") from e
    except pickle.UnpicklingError as e:
        refused = re.search(r"GLOBAL (\S+)", str(e))
        if refused is None:
            raise ConfigError(f"{path}: no valid torch checkpoint ({_first_line(e)})") from e
        raise ConfigError(
            f"{path}: its pickle asks for {refused[1]}, which would execute code and is refused; re-save the weights "
            "alone, as safetensors.torch.save_file(model.state_dict(), 'model.safetensors') "
            "or torch.save(model.state_dict(), 'model.pt')"
        ) from e
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as e:
        raise ConfigError(f"{path}: no valid torch checkpoint ({_first_line(e)}); it may be cut short") from e


def _unwrap(found: Any) -> Any:
    while isinstance(found, Mapping) and not any(isinstance(v, Tensor) for v in found.values()):
        inner = next((found[k] for k in _WRAPPERS if isinstance(found.get(k), Mapping)), None)
        if inner is None:
            break
        found = inner
    return found


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = dict(state)
    while prefix := next((p for p in _PREFIXES if names and all(k.startswith(p) for k in names)), ""):
        names = {k[len(prefix) :]: v for k, v in names.items()}
    return names


def _describe(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"a dict with keys {[str(k) for k in found][:_SHOWN]}"
    return f"a {type(found).__name__}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

"""A network from a function in a user's own file: ``path/to/file.py:function``."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import ImageInput, InputSpec
from dlx_deploy.nn.user_code import executed, found_beside

__all__ = ["MODULE_PREFIX", "build_user", "called", "source_path"]

MODULE_PREFIX = "dlx_user_model_"
"""What the names of the modules that users' files become begin with."""


def source_path(model: str) -> Path:
    """The file of ``path/to/file.py:function``."""
    return Path(model.rpartition(":")[0])


def build_user(model: str, arguments: Mapping[str, Any], classes: int, spec: InputSpec) -> nn.Module:
    """What the function gives for ``num_classes``, ``arguments``, and those of these that it names.

    ``in_channels`` for images; ``vocabulary``, ``max_length`` and ``pad_id`` for texts.

    The file is executed; it must not import its neighbours, since it travels alone.

    Raises:
        ConfigError: no such file or function, one that raises, or a result that is no ``torch.nn.Module``.
    """
    path, name = source_path(model), model.rpartition(":")[2]
    module = _execute(path)
    function = getattr(module, name, None)
    if not callable(function):
        own = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        hint = nearest(name, own) if own else "the file defines no function"
        raise ConfigError(f"{path}: no function {name!r}; {hint}")
    return called(function, f"{path}: {name}", arguments, classes, spec)


def called(
    function: Callable[..., object], where: str, arguments: Mapping[str, Any], classes: int, spec: InputSpec
) -> nn.Module:
    """What a ``function`` of others gives for what it names of the data, and for ``arguments``.

    ``where``: the function, for errors.

    Raises:
        ConfigError: it raises, or gives no ``torch.nn.Module``.
    """
    given: dict[str, Any] = {"num_classes": classes}
    if isinstance(spec, ImageInput):
        offered = {"in_channels": spec.channels}
    else:
        offered = {"vocabulary": spec.vocabulary, "max_length": spec.max_length, "pad_id": spec.pad_id}
    names = inspect.signature(function).parameters
    given |= {name: value for name, value in offered.items() if name in names}
    try:
        result = function(**{**given, **arguments})
    except Exception as e:  # a user's function may raise anything
        raise ConfigError(f"{where}(**{ {**given, **arguments} }) raised {type(e).__name__}: {e}") from e
    if not isinstance(result, nn.Module):
        raise ConfigError(f"{where}() gave a {type(result).__name__}; it must give a torch.nn.Module")
    return result


def _execute(path: Path) -> types.ModuleType:
    """The file as a module.

    Raises:
        ConfigError: it cannot be read, imports its neighbours, or fails.
    """
    try:
        source = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); a model is a name or FILE.py:FUNCTION") from e
    if beside := found_beside(path):
        raise ConfigError(
            f"{path}: imports {beside[0]}, which lies beside it; a network's file travels alone with its weights: "
            "write what it needs into that file, or install it as a package of its own"
        )
    try:
        return executed(path, {path.name: source}, MODULE_PREFIX)
    except Exception as e:  # a user's file may raise anything
        raise ConfigError(f"{path}: cannot be executed: {type(e).__name__}: {e}") from e

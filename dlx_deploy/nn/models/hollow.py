"""Networks without memory: names and shapes of all tensors in milliseconds, however large the network is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import InputSpec
from dlx_deploy.nn.models.recognition.sketch import Shapes
from dlx_deploy.nn.models.registry import build_model

__all__ = ["hollow_model", "shapes_of"]


def hollow_model(model: str, arguments: Mapping[str, Any], classes: int, spec: InputSpec) -> nn.Module:
    """The network that ``build_model`` gives, its parameters on the meta device; torch's generator is left as it was.

    Raises:
        ConfigError: as ``build_model``, or the network's constructor computes with its weights.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_model(model, arguments, classes, spec)
        except (ConfigError, RuntimeError, NotImplementedError):
            pass  # a constructor that reads numbers back from a tensor, as that of a RegNet
        try:
            with _WeightsAlone():
                return build_model(model, arguments, classes, spec)
        except (RuntimeError, NotImplementedError) as e:
            raise ConfigError(f"model {model!r} cannot be built without its weights: {e}") from e


def shapes_of(model: nn.Module) -> Shapes:
    """The shapes of the tensors of its state dict."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}


_ALLOCATING: tuple[Callable[..., torch.Tensor], ...] = (torch.empty, torch.zeros, torch.ones, torch.randn, torch.rand)


class _WeightsAlone(TorchFunctionMode):
    """What layers allocate is on the meta device; what constructors compute with (``arange``, …) is not."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in _ALLOCATING:
            given["device"] = "meta"
        return func(*args, **given)

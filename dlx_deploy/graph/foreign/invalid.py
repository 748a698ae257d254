"""Whether a model that could not be used is valid ONNX at all: asked once something failed, for a better reason."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.words import said

__all__ = ["refuse_invalid"]

_CHECKED_BYTES = 1 << 31
"""onnx's checker takes no model in memory that is larger: protobuf's limit."""


def refuse_invalid(model: ModelProto, name: str) -> None:
    """Nothing, if onnx's checker finds no fault with ``model``, or cannot be asked.

    Not asked first: it may refuse what every runtime computes, and takes as long as the model is large.

    Raises:
        ConfigError: it finds one: an operator that the opset has not, an input that nothing gives, a name given twice.
    """
    if model.ByteSize() >= _CHECKED_BYTES:
        return
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as e:
        raise ConfigError(f"{name} is no valid ONNX model: {said(e).rstrip('.')}; export it again") from e
    except UnicodeDecodeError as e:  # of what it says, which quotes the model
        raise ConfigError(f"{name} is no valid ONNX model: a name in it is no UTF-8; copy or export it again") from e

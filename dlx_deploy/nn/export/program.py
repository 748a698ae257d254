"""A torch.export program as ONNX, and what it answers itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.foreign.program import program_facts
from dlx_deploy.graph.model import load

__all__ = ["Program", "read_program"]


@dataclass(frozen=True)
class Program:
    """``model``: the graph that torch's exporter makes of it.

    ``ask``: the program itself: which of its outputs, and its input, float32 → that output for each row.
    """

    model: ModelProto
    ask: Callable[[int, NDArray[np.float32]], NDArray[np.float32]]


def read_program(path: Path) -> Program:
    """The program in ``path``.

    Raises:
        ConfigError: it cannot be used, or this torch cannot load it. StageFailed: torch cannot export it.
    """
    facts = program_facts(path)
    try:
        program = torch.export.load(path)
        asked = program.module(check_guards=False)  # guards are Python in the file
    except Exception as e:  # of another torch: whatever its reader stumbles over
        raise ConfigError(
            f"{path}: torch {torch.__version__} cannot load it, and torch {facts.torch} wrote it ({_first(e)}); export "
            "it again with this one, or give it as ONNX: torch.onnx.export(..., dynamo=True)"
        ) from e
    try:
        exported = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False)
    except torch.onnx.OnnxExporterError as e:
        raise StageFailed(f"{path}: torch cannot export it as ONNX: {str(e).strip()}") from e
    if exported is None:
        raise StageFailed("torch exported nothing; this torch has no dynamo exporter")

    def ask(output: int, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            answers = asked(torch.from_numpy(images))
        tensors = torch.utils._pytree.tree_leaves(answers)
        return np.asarray(tensors[output].detach().cpu().numpy())

    return Program(load(exported.model_proto), ask)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

"""What a drift watch knows of each sample: a few numbers that the two parts of a task make of arrays.

A part may have a method ``features``: arrays in, arrays by name out, with a value for each sample; floats are
magnitudes, whole numbers are classes, 0 and up. They must be cheap: a device computes them beside every answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Tuple

import numpy as np

from .arrays import Arrays, count_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .task import Inputs, Outputs, Task

__all__ = ["GRID", "INPUT", "features_of", "grid_steps", "input_features", "output_features"]

INPUT, OUTPUT = "input_", "output_"
GRID = 32
"""Of an image so many rows and columns are looked at, evenly over it: a mean needs no more, and a frame has millions
of pixels."""


def features_of(task: Task, feeds: Arrays, outputs: Arrays) -> Dict[str, NDArray[np.float32]]:
    """What both parts of ``task`` say of samples, a value for each; nothing of a part that says nothing."""
    return {**input_features(task.inputs, feeds), **output_features(task.outputs, outputs)}


def input_features(inputs: Inputs, feeds: Arrays) -> Dict[str, NDArray[np.float32]]:
    """What is said of what the network reads; the names begin with ``input_``."""
    return _said(inputs, feeds, INPUT)


def output_features(outputs: Outputs, answers: Arrays) -> Dict[str, NDArray[np.float32]]:
    """What is said of what it answers; the names begin with ``output_``."""
    return _said(outputs, answers, OUTPUT)


def _said(part: object, arrays: Arrays, prefix: str) -> Dict[str, NDArray[np.float32]]:
    method = getattr(part, "features", None)  # tasks of other packages may be older than it
    if method is None:
        return {}
    count, said = count_of(arrays), {}
    for name, values in method(arrays).items():
        if values.shape != (count,):
            raise ValueError(f"feature {name!r} is {list(values.shape)} for {count} samples; must be [{count}]")
        said[prefix + name] = values
    return said


def grid_steps(height: int, width: int) -> Tuple[int, int]:
    """Each so many rows and columns are looked at."""
    return -(-height // GRID), -(-width // GRID)

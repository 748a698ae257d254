"""Packages of schema 1, which have one input and one output, as if they were of schema 2.

schema 1                      schema 2
input: {…}                    inputs: [{…}]
golden.images, golden.texts   golden.count
golden.atol, .rtol, …         golden.tolerances.logits.atol, …
golden/inputs.npy             golden/NAME.npy, NAME the input's
reference.npy                 reference/digest.npy, reference/label.npy, reference/teacher.npy
"""

from __future__ import annotations

from typing import Dict, Mapping, Tuple

import numpy as np

from ..tasks.arrays import Tensor
from ..untyped import Array, JsonTable
from .fields import Fields
from .members import DIGEST, ArrayLayout

__all__ = ["LAYOUT", "upgraded"]

OUTPUT = "logits"
REFERENCE = "reference.npy"
COUNTS = ("images", "texts")  # how it calls the number of golden samples
MOST = np.iinfo(np.int64).max


def upgraded(meta: JsonTable, origin: str, files: Mapping[str, bytes]) -> Fields:
    """The fields of ``package.json`` by their places in schema 2; messages name them by those in the file."""
    golden = meta.get("golden")
    table: Dict[str, object] = golden if isinstance(golden, dict) else {}
    count = next((name for name in COUNTS if name in table), COUNTS[0])
    view = {**meta, "inputs": [meta.get("input")]}
    view["golden"] = {"count": table.get(count), "tolerances": {OUTPUT: table}}
    renamed = {
        "inputs.0": "input",
        "outputs.0": "outputs",
        "golden.count": f"golden.{count}",
        f"golden.tolerances.{OUTPUT}": "golden",
    }
    return Fields(view, origin, files, renamed)


def _member(name: str) -> str:
    return f"golden/{OUTPUT}.npy" if name == OUTPUT else "golden/inputs.npy"


def _read_columns(field: Fields, tensors: Tuple[Tensor, ...]) -> Dict[str, Array]:
    """The digest, and the numbers of two classes, as the columns of these ``tensors``."""
    table = field.array(REFERENCE, Tensor("reference", "uint64", (1 + len(tensors),)))
    numbers = np.minimum(table[:, 1:], np.uint64(MOST)).astype(np.int64)
    return {DIGEST: table[:, 0], **{tensor.name: numbers[:, i] for i, tensor in enumerate(tensors)}}


LAYOUT = ArrayLayout(_member, lambda name: REFERENCE, _read_columns)

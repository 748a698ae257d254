"""Unpacks a package of image classification for a device without Python.

    python unpack.py X.dlx FOLDER

Needs Python 3.9 or newer and numpy, on any machine. Every digest is checked: by an installed dlx-deploy, which runs no
code of the package, or else by the runtime inside the package. ``FOLDER`` then holds ``model.onnx``, the graph that
gives the proven answers (docs/tensor-contract.md), ``contract.txt``, a word and its values a line, and the golden
inputs and outputs as bare numbers, little-endian.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def contract_lines(package: Any, exact: bool) -> list[str]:
    """What ``main.cpp`` reads: the shapes, how a picture becomes the input, how far golden logits may be off."""
    framing, (name, golden) = package.task.inputs.framing, next(iter(package.golden_outputs.items()))
    tolerance = package.tolerances[name].on(exact)
    label = package.task.outputs.labels
    offset = getattr(framing, "crop_offset", "round")  # the runtime of an older package knows no other
    rows: list[list[object]] = [
        ["contract", 1 if offset == "round" else 2],
        ["batch", package.batch or 0],  # 0: any
        ["size", *framing.shape],
        ["classes", len(label)],
        ["exact", int(exact)],
        ["resize", framing.resize],
        ["box", *framing.target],
        ["crop_offset", offset],
        ["interpolation", framing.interpolation],
        ["fill", *(framing.fill * framing.channels)[: framing.channels]],
        ["color_order", framing.color_order],
        ["golden", len(golden)],
        ["tolerance", repr(tolerance.atol), repr(tolerance.rtol)],
        *(["label", " ".join(text.split())] for text in label),
    ]
    return [" ".join(map(str, row)) for row in rows]


def main(path: str, folder: str) -> None:
    """Writes the files; ends the program if the package is of another task."""
    runtime = "dlx_deploy.runtime" if find_spec("dlx_deploy") else "dlx_runtime"
    sys.path.insert(0, path)
    package = import_module(f"{runtime}.package.contents").open_package(path)
    if package.task.name != "image-classification":
        sys.exit(f"error: {path} is of {package.task.name}; main.cpp reads image-classification: see the contract")
    exact = package.exact_qdq
    (images,), (logits,) = package.golden_inputs.values(), package.golden_outputs.values()
    model = import_module(f"{runtime}.backends.exact").exact_model(package.model) if exact else package.model
    files = {
        "model.onnx": model,
        "contract.txt": ("\n".join(contract_lines(package, exact)) + "\n").encode("utf-8"),
        "golden.images": images.astype("u1").tobytes(),
        "golden.logits": logits.astype("<f4").tobytes(),
    }
    os.makedirs(folder, exist_ok=True)
    for name, content in files.items():
        with open(os.path.join(folder, name), "xb") as out:
            out.write(content)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python unpack.py X.dlx FOLDER")
    main(*sys.argv[1:])

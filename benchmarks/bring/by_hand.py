"""The steps of one line, written by hand in one process; ``one_line.py`` runs it and compares.

    python by_hand.py '{"network": "timm:NAME", "weights": "x.safetensors", "side": 64, "classes": 4}'

What who knows the libraries would do: read the pictures, build the network and load its weights, export ONNX with the
normalisation in front, quantize (by the same functions of ``dlx_deploy.graph``), evaluate and time both graphs. No
store, no keys, no manifest, no package, and nothing is checked.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from PIL import Image

from dlx_deploy.graph.quantization.quantize import QuantizationRequest, quantize_model
from dlx_deploy.graph.samples import Samples

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPSET, BATCH, WARMUP, ROUNDS = 20, 64, 20, 100
PER_CHANNEL = 13
"""The first opset whose QuantizeLinear takes a scale for each channel."""


def read(split: str, side: int) -> tuple[Any, Any]:
    """Pixels uint8[N, side, side, 3] and labels int64[N] of a split."""
    files = sorted(Path("pictures", split).glob("*/*.png"))
    names = sorted({path.parent.name for path in files})
    images = [
        np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)) for path in files
    ]
    return np.stack(images), np.array([names.index(path.parent.name) for path in files])


def export(asked: dict[str, Any]) -> Path:
    """A float32 ONNX of the network."""
    network = asked["network"]
    if network.endswith(".onnx"):
        return Path(network)
    import torch

    out, example = Path("by-hand.onnx"), (torch.zeros(2, 3, asked["side"], asked["side"]),)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    if network.endswith(".pt2"):
        torch.onnx.export(torch.export.load(network), (), out, dynamo=True, opset_version=OPSET)
        return out
    torch.onnx.export(build(asked), example, out, dynamo=True, dynamic_shapes=dynamic, opset_version=OPSET)
    return out


def with_first_node(source: Path) -> Path:
    """The graph with a node before its first, as ranges are those of what nodes compute."""
    model, out = onnx.load(source), Path("by-hand-first.onnx")
    if max(one.version for one in model.opset_import if not one.domain) < PER_CHANNEL:
        model = onnx.version_converter.convert_version(model, OPSET)
    stored = {tensor.name for tensor in model.graph.initializer}
    name = next(value.name for value in model.graph.input if value.name not in stored)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
        node.input[:] = [f"{name}_read" if one == name else one for one in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Identity", [name], [f"{name}_read"], "read"))
    onnx.save(model, out)
    return out


def build(asked: dict[str, Any]) -> Any:
    """The network with its weights."""
    network, classes = asked["network"], asked["classes"]
    from safetensors.torch import load_file

    if network.startswith("timm:"):
        import timm

        made = timm.create_model(network.removeprefix("timm:"), num_classes=classes)
    elif network.endswith(".py"):
        names: dict[str, Any] = {}
        exec(Path(network).read_text(), names)
        made = names["make"](classes)
    else:
        import torchvision

        made = torchvision.models.get_model(network, num_classes=classes)
    made.load_state_dict(load_file(asked["weights"]))
    return made.eval()


def main() -> None:
    asked = json.loads(sys.argv[1])
    splits = {split: read(split, asked["side"]) for split in ("test", "calibration")}
    float32, int8 = with_first_node(export(asked)), Path("by-hand-int8.onnx")
    session = onnxruntime.InferenceSession(float32)
    name = session.get_inputs()[0].name

    def fed(images: Any) -> Any:
        scaled = (images.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        return np.ascontiguousarray(scaled if asked.get("nhwc") else scaled.transpose(0, 3, 1, 2))

    quantize_model(float32, int8, Samples({name: fed(splits["calibration"][0])}), QuantizationRequest(style="cpu"))
    sessions = {"float32": session, "int8": onnxruntime.InferenceSession(int8)}
    images, labels = splits["test"]
    for kind, one in sessions.items():
        batches = [fed(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        answers = np.concatenate([one.run(None, {name: batch})[0] for batch in batches])
        print(kind, "top1", (answers.reshape(len(answers), -1).argmax(1) == labels).mean())
    single = fed(images[:1])
    timings: dict[str, list[float]] = {kind: [] for kind in sessions}
    for round_ in range(WARMUP + ROUNDS):
        for kind, one in sessions.items():
            began = time.perf_counter()
            one.run(None, {name: single})
            if round_ >= WARMUP:
                timings[kind].append(time.perf_counter() - began)
    print({kind: f"{1e3 * float(np.median(values)):.3f} ms" for kind, values in timings.items()})


if __name__ == "__main__":
    main()

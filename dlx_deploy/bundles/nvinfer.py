"""The words of nvinfer's configuration: how frames are scaled, in which precision, and what it cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx_deploy.runtime.tasks.framing import BGR, BILINEAR, CROP, LETTERBOX

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.contents import Package
    from dlx_deploy.runtime.tasks.framing import Framing

__all__ = [
    "CONFIG",
    "LABELS",
    "MODEL",
    "differences",
    "engine_file",
    "frame_keys",
    "network_mode",
    "readme",
]

CONFIG, LABELS, MODEL = "config_infer_primary.txt", "labels.txt", "model.onnx"
_FP32, _INT8, _FP16 = 0, 1, 2
_MODES = {_FP32: "fp32", _INT8: "int8", _FP16: "fp16"}
"""``network-mode``, and how nvinfer calls it in the names of engines."""
_RGB, _BGR, _GRAY = "0", "1", "2"
_NEAREST, _BILINEAR = "0", "1"


def frame_keys(framing: Framing) -> dict[str, str]:
    """How a frame becomes planes: unscaled, as normalisation is in the graph."""
    color = _GRAY if framing.channels == 1 else _BGR if framing.color_order == BGR else _RGB
    boxed = framing.resize == LETTERBOX
    return {
        "gpu-id": "0",
        "net-scale-factor": "1.0",
        "offsets": ";".join(["0.0"] * framing.channels),
        "model-color-format": color,
        "infer-dims": f"{framing.channels};{framing.height};{framing.width}",
        "maintain-aspect-ratio": "1" if boxed else "0",
        "symmetric-padding": "1" if boxed else "0",
        "scaling-filter": _NEAREST if framing.interpolation == "nearest" else _BILINEAR,
    }


def network_mode(package: Package) -> int:
    """The precision that nvinfer builds an engine with."""
    recipe = package.meta["recipe"]
    widths = (recipe.get("precision"), recipe.get("elsewhere"))
    return _INT8 if "int8" in widths else _FP16 if "fp16" in widths else _FP32


def engine_file(package: Package) -> str:
    """As nvinfer itself names the engine that it builds."""
    return f"{MODEL}_b{package.batch or 1}_gpu0_{_MODES[network_mode(package)]}.engine"


def differences(package: Package, framing: Framing) -> tuple[str, ...]:
    """What nvinfer does to a picture otherwise than the package, and what it cannot build: a sentence each."""
    size = f"{framing.width} x {framing.height}"
    notes = []
    if framing.resize == CROP or framing.box:
        box = f"{framing.target[1]} x {framing.target[0]}"
        notes.append(
            f"the package resizes a picture by the rule {framing.resize} to {box} and keeps the middle {size}; nvinfer "
            f"cannot crop and shows the network the whole frame, so its accuracy is another: crop before it "
            "(nvvideoconvert src-crop, or nvdspreprocess)"
        )
    if framing.resize == LETTERBOX and any(framing.fill):
        notes.append(f"the package pads with {list(framing.fill)}; nvinfer pads with black")
    if framing.interpolation != BILINEAR and framing.interpolation != "nearest":
        notes.append(f"the package resizes by {framing.interpolation}; nvinfer is set to bilinear")
    notes.append(
        "the package's filters average when a picture shrinks (antialiasing) and nvinfer's do not, so its answers on "
        f"large frames differ: measure them, or bring frames near {size} first"
    )
    notes.append(
        "the package turns pictures upright by their EXIF orientation; decoders of GStreamer do not: put videoflip "
        "video-direction=auto behind one that reads photographs"
    )
    if network_mode(package) == _INT8:
        notes.append(
            "nvinfer builds no INT8 engine of a graph that brings its own scales (it asks for a calibration file): "
            "build it once on the board with trtexec, as README.md says"
        )
    if package.target and package.meta["target"].get("kind") == "cpu":
        notes.append(f"the package was built and judged for {package.target}, which has no TensorRT")
    return tuple(notes)


def readme(package: Package, framing: Framing, name: str, notes: tuple[str, ...]) -> str:
    """What to type, and what to know, for people."""
    told = "".join(f"- {note}\n" for note in notes)
    return (
        f"# {name}: a configuration of DeepStream's nvinfer\n\n"
        f"Made of the package {package.name} {package.version} ({package.task.name}, for {package.target}), digest "
        f"`{package.digest}`.\n\n"
        f"    {_trtexec(package, framing)}\n"
        f"    gst-launch-1.0 … ! nvstreammux … ! nvinfer config-file-path={CONFIG} ! …\n\n"
        f"`{MODEL}` is the package's graph with another border: float32 planes in, 0..255, not normalised (that is\n"
        "in the graph), and probabilities out. On the package's golden inputs it answered as the package's own.\n\n"
        f"{told}\n"
        "DeepStream does not check what the package's own runtime checks: known faults of the TensorRT at hand\n"
        "(`dlx-deploy hazards`), the self-test, the budgets. Hold its answers against `python X.dlx predict` first.\n"
    )


def _trtexec(package: Package, framing: Framing) -> str:
    """The command that builds the engine where the configuration looks for it."""
    engine = package.meta["recipe"].get("engine")
    strongly = isinstance(engine, dict) and engine.get("strongly_typed") is True
    flags = {_FP32: "", _FP16: " --fp16", _INT8: " --int8 --fp16"}[network_mode(package)]
    sizes = f"planes:{package.batch or 1}x{framing.channels}x{framing.height}x{framing.width}"
    shapes = "" if package.batch else f" --minShapes={sizes} --optShapes={sizes} --maxShapes={sizes}"
    typed = " --stronglyTyped" if strongly else flags
    return f"trtexec --onnx={MODEL}{typed}{shapes} --saveEngine={engine_file(package)}"

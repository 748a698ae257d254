"""Whether an ONNX model that others wrote can be the teacher, by what its file says; no onnx, in milliseconds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.foreign.tokens import reads_tokens, token_ends
from dlx_deploy.graph.foreign.wire import (
    BFLOAT16,
    DOUBLE,
    FLOAT,
    FLOAT16,
    UINT8,
    OnnxFacts,
    Value,
    facts_in,
    read_facts,
)

__all__ = [
    "Layout",
    "Picture",
    "chosen_output",
    "external_files",
    "layout_of",
    "picture_of",
    "refuse_inputs",
    "refuse_unusable",
    "usable_facts",
]

OLDEST, NEWEST = 7, 26
"""The opsets that onnx's converter starts from, and the newest that the tested onnx knows."""
NEWEST_IR = 14
"""The newest version of the file's format that the tested onnx and ONNX Runtime read."""
MAX_SIDE = 1 << 14
"""Of an image, in pixels: no classifier reads more, and one image of it takes 3 GiB as float32."""
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_QUANTIZED = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
    *("ConvInteger", "MatMulInteger", "MatMulNBits", "QLinearAdd", "QGemm", "QAttention", "DynamicQuantizeMatMul"),
}
"""Of ONNX, and of ONNX Runtime's own domain."""
_HALF = {FLOAT16: "float16", BFLOAT16: "bfloat16"}
_REMEDIES = {
    DOUBLE: "cast inside the model",
    UINT8: "export it without its own preprocessing of bytes, which is put before it here (data.mean, data.std)",
}
"""Of an input of another type."""
_FLOAT32 = "give the float32 model that it was made from: precision is chosen here, layer by layer, and measured"
_SHOWN = 5
_CHANNELS = (1, 3)

Layout = Literal["NCHW", "NHWC"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """The size of the images that the configuration describes."""

    height: int
    width: int
    channels: int


def usable_facts(path: Path, content: bytes | None = None, texts: bool = False) -> OnnxFacts:
    """What the model in ``path`` says of itself, if it can be used; ``content``: what it became, in its place.

    ``texts``: whether it must read these, else images.

    Raises:
        ConfigError: it cannot; as ``refuse_unusable``.
    """
    facts = read_facts(path) if content is None else facts_in(content, path)
    refuse_unusable(facts, path, texts)
    return facts


def refuse_unusable(facts: OnnxFacts, path: Path, texts: bool = False) -> None:
    """Nothing, if the model is plain float32 ONNX that reads one batch of images, or of ``texts``.

    Raises:
        ConfigError: operators of other domains, half precision, quantized already, an opset that cannot be converted,
            or other inputs; each with its remedy.
    """
    quantized = sorted({name for _, name in facts.operators} & _QUANTIZED)
    if quantized:
        raise ConfigError(f"{path}: is quantized already ({_few(quantized)}); {_FLOAT32}")
    foreign = [
        f"{domain}.{name}" for domain, name in facts.operators if domain and (domain, name) not in facts.functions
    ]
    if foreign:
        raise ConfigError(
            f"{path}: has custom operators: {_few(sorted(foreign))}; rule: those of ONNX's own domain alone, which "
            "every runtime has; export it without fused or custom operators (of ONNX Runtime's optimizer, for instance)"
        )
    kinds = {*facts.weights, *(value.type for value in (*facts.inputs, *facts.outputs))}
    if half := [name for kind, name in _HALF.items() if kind in kinds]:
        raise ConfigError(f"{path}: is in {half[0]}; {_FLOAT32}")
    if not OLDEST <= facts.opset <= NEWEST:
        raise ConfigError(f"{path}: is of opset {facts.opset}; rule: {OLDEST} to {NEWEST}; export it with another")
    if facts.ir > NEWEST_IR:
        raise ConfigError(
            f"{path}: is of ONNX's file format {facts.ir} (ir_version); rule: at most {NEWEST_IR}, which the tested "
            "ONNX Runtime reads; export it with an older onnx"
        )
    if drawn := sorted({name for domain, name in facts.operators if not domain} & set(_RANDOM)):
        raise ConfigError(
            f"{path}: draws random numbers ({_few(drawn)}), so that no answer is the same twice; export it for "
            "inference: .eval() in PyTorch, training=False in Keras"
        )
    if texts:
        token_ends(facts.inputs, path)
    else:
        refuse_inputs(facts.inputs, path)


def refuse_inputs(inputs: Sequence[Value], path: Path) -> None:
    """Nothing, if ``inputs`` are one batch of float32 images.

    Raises:
        ConfigError: they are not.
    """
    if reads_tokens(inputs):
        raise ConfigError(
            f"{path}: reads {_few([str(value) for value in inputs])}, tokens of texts, and the data are images; give "
            "data of texts (data.kind 'text'), or a network for images"
        )
    if not inputs:
        raise ConfigError(f"{path}: has no input; rule: one, of images; export it with the images as its input")
    if len(inputs) != 1:
        raise ConfigError(
            f"{path}: has {len(inputs)} inputs ({_few([str(value) for value in inputs])}); rule: one, of images; "
            "export it with the others as constants"
        )
    (images,) = inputs
    if images.type != FLOAT or images.dims is None or len(images.dims) != 4:
        remedy = _REMEDIES.get(images.type, "export it so")
        raise ConfigError(
            f"{path}: reads {images}; rule: images, float32[N, channels, height, width] or float32[N, height, width, "
            f"channels]; {remedy}"
        )
    if largest := [size for size in images.dims[1:] if size and size > MAX_SIDE]:
        raise ConfigError(f"{path}: reads {images}, a side of {largest[0]}; rule: at most {MAX_SIDE} pixels a side")


def external_files(path: Path) -> list[str]:
    """The names of the files beside ``path`` that hold its weights, relative to its folder, sorted.

    Raises:
        ConfigError: one is missing, or lies elsewhere; or as ``read_facts``.
    """
    names = sorted(read_facts(path).external)
    for name in names:
        parts = PurePosixPath(name).parts
        target = path.parent / name
        if not name or "\\" in name or PurePosixPath(name).is_absolute() or ".." in parts:
            raise ConfigError(f"{path}: its weights lie in {name!r}; rule: a file in the model's own folder")
        if any((path.parent / PurePosixPath(*parts[:n])).is_symlink() for n in range(1, len(parts) + 1)):
            raise ConfigError(f"{path}: its weights lie behind the link {name!r}; rule: a plain file; copy it there")
        if not target.is_file():
            raise ConfigError(
                f"{path}: its weights lie in {name!r}, which is not beside it; copy both, or export it in one file"
            )
    return names


def layout_of(value: Value, picture: Picture, path: Path) -> Layout:
    """Where the channels of the model's images are.

    Raises:
        ConfigError: it takes images of another size, or of other channels.
    """
    assert value.dims is not None
    wanted: Mapping[Layout, tuple[int, int, int]] = {
        "NCHW": (picture.channels, picture.height, picture.width),
        "NHWC": (picture.height, picture.width, picture.channels),
    }
    fitting = [name for name, sizes in wanted.items() if _fits(value.dims[1:], sizes)]
    if not fitting:
        raise ConfigError(
            f"{path}: reads {value}, and the images are {picture.height} x {picture.width} of {picture.channels} "
            "channels; set data.height, data.width and data.channels to what it reads"
        )
    if len(fitting) > 1 and value.dims[1] is None and value.dims[3] is not None:
        fitting.reverse()  # [N, any, any, 3]: the one that is said is the channels'
    if len(fitting) > 1 and value.dims[1] == value.dims[3]:
        log.warning("%s reads %s, which does not say where its channels are; taken as %s", path.name, value, fitting[0])
    return fitting[0]


def picture_of(inputs: Sequence[Value]) -> Picture | None:
    """The images that a model with ``inputs`` reads, by their shape; ``None`` where that leaves their size open."""
    dims = inputs[0].dims if len(inputs) == 1 else None
    if dims is None or len(dims) != 4:
        return None
    channels, height, width = dims[1:] if dims[1] in _CHANNELS else (dims[3], dims[1], dims[2])
    return Picture(height, width, channels) if height and width and channels in _CHANNELS else None


def chosen_output(outputs: Sequence[Value], asked: str, dims: Sequence[int | None], path: Path) -> Value:
    """The output that answers ``dims`` for each image: the one called ``asked``, or the first that fits.

    What is of size 1 behind the classes, as a pooled [N, classes, 1, 1], does not count.

    Raises:
        ConfigError: there is none of that name, or none that fits.
    """
    named = [value for value in outputs if value.name == asked]
    if asked and not named:
        names = ", ".join(repr(value.name) for value in outputs)
        raise ConfigError(f"teacher.output is {asked!r}, and {path} has no such output; it has: {names}")
    fitting = [value for value in named or outputs if _answers(value, dims)]
    if not fitting:
        said = ", ".join(["N", *("any" if d is None else str(d) for d in dims)])
        raise ConfigError(
            f"{path}: gives {_few([str(value) for value in named or outputs])}, and the data ask for float32[{said}]; "
            "a network must tell as many classes apart as the data have"
        )
    if len(outputs) > 1:
        others = ", ".join(value.name for value in outputs if value is not fitting[0])
        log.warning("%s: %r is what it answers (teacher.output); left out: %s", path.name, fitting[0].name, others)
    return fitting[0]


def _answers(value: Value, dims: Sequence[int | None]) -> bool:
    if value.type != FLOAT:
        return False
    if value.dims is None:
        return True
    own = list(value.dims[1:])
    while len(own) > len(dims) and own[-1] == 1:
        own.pop()
    return _fits(own, dims)


def _fits(seen: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    return len(seen) == len(wanted) and all(None in (a, b) or a == b for a, b in zip(seen, wanted, strict=True))


def _few(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")

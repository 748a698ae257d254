"""Whether a plan that was given fits the graph, the scheme and the rest of the configuration.

Every message begins with the line of the plan that does not.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator

import numpy as np
from onnx import ModelProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index
from dlx_deploy.graph.passes.seams import seams
from dlx_deploy.graph.quantization.fit_weights import check_bits, check_blocks
from dlx_deploy.graph.quantization.layers import layer_precision, quantizable, weight_axis
from dlx_deploy.graph.quantization.placement import Pair, Placement
from dlx_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan, TensorPlan
from dlx_deploy.graph.quantization.planning import LARGEST_BIAS, bias_of, integer_limits
from dlx_deploy.graph.quantization.scheme import Scheme

__all__ = ["check_bias", "check_divided", "check_layers", "check_names", "check_scheme", "check_tensors"]

Complaint = tuple[str, str]
"""What is wrong, and the rule."""


def check_scheme(given: QuantizationPlan, scheme: str) -> None:
    """Nothing, if the numbers of ``given`` are for ``scheme`` (empty: nothing is written in int8).

    Raises:
        ConfigError: they are for another.
    """
    if given.scheme and scheme and given.scheme != scheme:
        raise ConfigError(
            f"quantize.plan: scheme is {given.scheme!r}, and this target's is {scheme!r}; rule: scales are for one "
            "scheme; start from the plan.json of a build for this target, or leave out scheme and scales"
        )


def check_names(model: ModelProto, given: QuantizationPlan) -> None:
    """Nothing, if the graph has every layer and computes every tensor of ``given``.

    Raises:
        ConfigError: it has not; with the nearest name.
    """
    layers, tensors = layer_precision(model), Index(model).producer
    for name in given.layers:
        if name not in layers:
            raise ConfigError(f"quantize.plan: layers[{name!r}]: the graph has no such layer; {_near(name, layers)}")
    for name in given.tensors:
        if name not in tensors:
            raise ConfigError(f"quantize.plan: tensors[{name!r}]: the graph computes no such; {_near(name, tensors)}")
    for name in given.divided:
        if name not in tensors:
            raise ConfigError(f"quantize.plan: divided[{name!r}]: the graph computes no such; {_near(name, tensors)}")


def check_divided(model: ModelProto, given: QuantizationPlan) -> None:
    """Nothing, if every tensor that ``given`` divides can be, by as many factors.

    Raises:
        ConfigError: one cannot.
    """
    if not given.divided:
        return
    channels = {seam.tensor: seam.channels for seam in seams(model)}
    for name, entry in given.divided.items():
        where = f"quantize.plan: divided[{name!r}]"
        if name not in channels:
            raise ConfigError(f"{where}: no layer's channels alone make and read it; {_near(name, channels)}")
        if len(entry.by) != channels[name] or not all(_is_scale(factor) for factor in entry.by):
            raise ConfigError(
                f"{where}.by: {len(entry.by)} numbers from {min(entry.by, default=0)} to {max(entry.by, default=0)}; "
                f"rule: one for each of its {channels[name]} channels, finite and above 0"
            )


def check_layers(
    model: ModelProto, given: QuantizationPlan, scheme: Scheme | None, halves: Collection[str], out: set[str]
) -> None:
    """Nothing, if every layer of ``given`` can have the precision and the scales that it is to have.

    ``scheme``: in which int8 is written, if it is. ``halves``: which half precision is. ``out``: nodes that
    ``quantize.exclude`` matches.

    Raises:
        ConfigError: one cannot; it is named, with the rule.
    """
    index = Index(model)
    plain = {node.name: node for node in quantizable(index, set())}
    scaled: dict[tuple[str, int], str] = {}
    for name, layer in given.layers.items():
        where = f"quantize.plan: layers[{name!r}]"
        if complaint := _precision(name, layer, name in plain, scheme, halves, out):
            raise ConfigError(f"{where}.precision is {layer.precision!r}; {complaint}")
        if layer.precision == "int4" or layer.block_size:
            check_blocks(index, given, plain.get(name), layer, scheme)
        if layer.weight_bits:
            check_bits(model, given, name, scheme)
        if not layer.scales:
            continue
        if scheme is None or layer.precision not in ("int8", "fp8") or scheme.name == "cpu-dynamic":
            raise ConfigError(f"{where}.scales: rule: for int8 layers whose scales the plan decides; leave them out")
        node = plain[name]
        tensor = index.initializers[node.input[1]]
        axis = weight_axis(node, len(tensor.dims))
        if len(layer.scales) != tensor.dims[axis] or not all(_is_scale(scale) for scale in layer.scales):
            raise ConfigError(
                f"{where}.scales: {len(layer.scales)} numbers from {min(layer.scales)} to {max(layer.scales)}; rule: "
                f"one for each of its {tensor.dims[axis]} output channels, finite and above 0"
            )
        other = scaled.setdefault((tensor.name, axis), name)
        if given.layers[other].scales != layer.scales:
            raise ConfigError(f"{where}.scales differ from those of {other!r}; rule: one scale for shared weights")


def _precision(
    name: str, layer: LayerPlan, plain: bool, scheme: Scheme | None, halves: Collection[str], out: set[str]
) -> str:
    """What stands against the layer's precision."""
    if layer.precision in ("fp16", "bf16") and layer.precision not in halves:
        return (
            f"no {layer.precision.upper()} is written into this graph; set it to 'fp32', or see quantize.elsewhere and "
            "the target's opset"
        )
    if layer.precision in ("fp16", "bf16", "fp32"):
        return ""
    if scheme is None or layer.precision != scheme.precision:
        return f"quantize.precision lets nothing be {layer.precision}; set one of the two to what the other says"
    if name in out:
        return "quantize.exclude matches it; take it out of one of the two"
    if layer.precision == "int4":
        return "" if plain else "rule: Gemm and MatMul with a constant matrix become INT4; set it to 'fp32'"
    kind = layer.precision.upper()
    return "" if plain else f"rule: Conv, Gemm and MatMul with constant weights become {kind}; set it to 'fp32'"


def check_tensors(
    model: ModelProto,
    given: QuantizationPlan,
    scheme: Scheme,
    placements: tuple[Placement, Placement],
    methods: Collection[str],
) -> None:
    """Nothing, if every tensor of ``given`` can have the pair and the numbers that it is to have.

    ``placements``: with all layers on int8, and with those that ``given`` leaves. ``methods``: what can calibrate.

    Raises:
        ConfigError: one cannot; it is named, with the rule and the nearest name.
    """
    possible, actual = placements
    pairs = {**possible.pairs, **actual.pairs}
    for name, tensor in given.tensors.items():
        where = f"quantize.plan: tensors[{name!r}]"
        if name not in pairs:
            raise ConfigError(f"{where}: the scheme {scheme.name!r} leaves it as it is; {_near(name, pairs)}")
        for wrong, rule in (*_numbers(scheme, tensor, methods), *_sharing(pairs[name], tensor)):
            raise ConfigError(f"{where}.{wrong}; rule: {rule}")
        possible_readers = possible.pairs.get(name, pairs[name]).readers
        for reader in tensor.readers:
            if reader not in possible_readers:
                close = _near(reader, possible_readers) if possible_readers else "leave readers out"
                raise ConfigError(f"{where}.readers has {reader!r}; rule: nodes that can read it in int8; {close}")
    _check_inputs(model, given, actual)


def check_bias(model: ModelProto, layer: str, scales: Collection[float], unit: float) -> None:
    """Nothing, if the bias of ``layer`` in units of ``unit`` times the scales fits into 32 bits.

    Raises:
        ConfigError: it does not.
    """
    index = Index(model)
    node = next(node for node in model.graph.node if node.name == layer)
    bias = bias_of(index, node)
    if bias is None or bias.size != len(scales):
        return
    steps = np.abs(bias) / (unit * np.asarray(list(scales), np.float64))
    if (steps > LARGEST_BIAS).any():
        channel = int(steps.argmax())
        raise ConfigError(
            f"quantize.plan: layers[{layer!r}].scales[{channel}] is too small: the bias {bias[channel]} would be "
            f"{steps[channel]:.3g} steps; rule: at most 2**31 - 1; give a larger scale, or none"
        )


def _numbers(scheme: Scheme, tensor: TensorPlan, methods: Collection[str]) -> Iterator[Complaint]:
    """What is wrong with scale, zero point and source."""
    low, high = integer_limits(scheme, tensor.bits)
    if tensor.bits and scheme.activations == "fp8":
        yield f"bits is {tensor.bits}", "of integers; leave it out"
    zero_point = tensor.zero_point
    if tensor.scale is None:
        if zero_point is not None:
            yield f"zero_point is {zero_point} without a scale", "both or neither"
        if tensor.source not in ("", *methods) and not tensor.like and tensor.precision == "int8":
            yield f"source is {tensor.source!r} without a scale", f"one of {', '.join(methods)}, which then finds it"
        return
    if not _is_scale(tensor.scale):
        yield f"scale is {tensor.scale}", "finite and above 0"
    if scheme.symmetric and zero_point:
        yield f"zero_point is {zero_point}", f"0 in the scheme {scheme.name!r}"
    if not scheme.symmetric and (zero_point is None or not low <= zero_point <= high):
        yield f"zero_point is {zero_point}", f"{low} to {high} beside a scale in the scheme {scheme.name!r}"


def _sharing(pair: Pair, tensor: TensorPlan) -> Iterator[Complaint]:
    """What is wrong with a scale that is another tensor's."""
    if tensor.like and tensor.like != pair.like:
        yield f"like is {tensor.like!r}", f"{pair.like!r}" if pair.like else "none: it has a scale of its own"
    if tensor.bits and (pair.like or tensor.precision == "fp32"):
        yield f"bits is {tensor.bits}", f"as {pair.like!r} has it; change it there" if pair.like else "of int8 tensors"
    if pair.like and tensor.scale is not None:
        yield f"scale is {tensor.scale}", f"it shares that of {pair.like!r}; change it there"


def _check_inputs(model: ModelProto, given: QuantizationPlan, actual: Placement) -> None:
    """An int8 layer reads int8."""
    reads = {node.name: node.input[0] for node in model.graph.node if node.input}
    for weights in actual.weights:
        for layer in weights.layers:
            tensor = reads[layer]
            pair = actual.pairs.get(tensor)
            if pair is None or (pair.readers and layer not in pair.readers):
                raise ConfigError(
                    f"quantize.plan: tensors[{tensor!r}] is not int8 for {layer!r}, which is; rule: an int8 layer "
                    f"reads int8; set layers[{layer!r}].precision to 'fp32' as well"
                )


def _near(name: str, names: Collection[str]) -> str:
    """The names most like ``name``, or some of those that there are."""
    if close := difflib.get_close_matches(name, names, n=3, cutoff=0.5):
        return f"the nearest: {', '.join(close)}"
    return f"there are: {', '.join(sorted(names)[:20])}"


def _is_scale(scale: float) -> bool:
    return math.isfinite(scale) and bool(0 < np.float32(scale) < np.inf)

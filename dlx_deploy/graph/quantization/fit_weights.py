"""Whether what a plan says of weights below 8 bits can be: how many, and in which blocks."""

from __future__ import annotations

from typing import get_args

from onnx import ModelProto, NodeProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.blocks import BlockSource, not_blockable
from dlx_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan
from dlx_deploy.graph.quantization.scheme import Scheme

__all__ = ["check_bits", "check_blocks"]


def check_blocks(
    index: Index, given: QuantizationPlan, node: NodeProto | None, layer: LayerPlan, scheme: Scheme | None
) -> None:
    """Nothing, if the layer's weights can be INT4 in such blocks."""
    if layer.precision != "int4" or scheme is None or node is None:
        raise ConfigError(
            f"quantize.plan: block_size is {layer.block_size}; rule: beside precision 'int4'; leave it out"
        )
    where = f"quantize.plan: layers[{node.name!r}]"
    if why := not_blockable(index, node, layer.block_size or scheme.block_size):
        raise ConfigError(f"{where}.precision is 'int4', and {why}; set it to 'fp32'")
    if layer.source not in ("", *get_args(BlockSource)):
        raise ConfigError(
            f"{where}.source is {layer.source!r}; rule: {' or '.join(get_args(BlockSource))}, by which scales follow "
            "from weights"
        )
    for other in index.readers(node.input[1]):
        line = given.layers.get(other.name)
        if line is not None and line.precision == "int4" and (line.block_size, line.source) != _blocks_of(layer):
            raise ConfigError(f"{where} and that of {other.name!r} differ; rule: one line for shared weights")


def _blocks_of(layer: LayerPlan) -> tuple[int | None, str]:
    return layer.block_size, layer.source


def check_bits(model: ModelProto, given: QuantizationPlan, name: str, scheme: Scheme | None) -> None:
    """Nothing, if the layer's weights can have as many bits as its line says."""
    layer, where = given.layers[name], f"quantize.plan: layers[{name!r}].weight_bits"
    if layer.precision != "int8" or scheme is None or scheme.name == "cpu-dynamic":
        raise ConfigError(f"{where} is {layer.weight_bits}; rule: for int8 layers on static ranges; leave it out")
    read = {node.name: node.input[1] for node in model.graph.node if node.name in given.layers}
    for other, line in given.layers.items():
        if read[other] == read[name] and line.weight_bits not in (None, layer.weight_bits):
            raise ConfigError(
                f"{where} is {layer.weight_bits}, that of {other!r} {line.weight_bits}; rule: one for shared weights"
            )

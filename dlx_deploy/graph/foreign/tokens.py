"""A finished network for texts: what its inputs are, by their names, and our one input of tokens put before them.

Exporters of Hugging Face's encoders name them ``input_ids``, ``attention_mask`` and ``token_type_ids``. A package reads
tokens alone: the mask is where they are no padding, and the types are zeros, as for one text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.foreign.wire import Value

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["TokenEnds", "TokenFront", "reads_tokens", "refuse_length", "token_ends", "tokens_before", "with_token_ends"]

_IDS = ("input_ids", "token_ids", "ids", "tokens")
_MASKS = ("attention_mask", "input_mask", "mask")
_TYPES = ("token_type_ids", "segment_ids")
_INTEGERS = {6: "int32", 7: "int64"}


@dataclass(frozen=True)
class TokenEnds:
    """The inputs: token ids, and the mask and types where it has them."""

    ids: Value
    mask: Value | None
    types: Value | None

    @property
    def all(self) -> tuple[Value, ...]:
        """Those that are there."""
        return tuple(one for one in (self.ids, self.mask, self.types) if one is not None)


@dataclass(frozen=True)
class TokenFront:
    """Tokens int32[N, L], ``pad_id`` behind a text's end. ``length``: L if it is fixed; ``max_length``: its bound."""

    max_length: int
    pad_id: int
    length: int | None


def reads_tokens(inputs: Sequence[Value]) -> bool:
    """Whether a network with ``inputs`` is one for texts, by their types and ranks."""
    return bool(inputs) and all(one.type in _INTEGERS and len(one.dims or ()) == 2 for one in inputs)


def token_ends(inputs: Sequence[Value], path: Path) -> TokenEnds:
    """What each of ``inputs`` is.

    Raises:
        ConfigError: one is something else, or there are no token ids.
    """
    said = ", ".join(map(str, inputs))
    if not reads_tokens(inputs):
        raise ConfigError(
            f"{path}: reads {said or 'nothing'}; the data are texts, so rule: token ids int64[N, L], and where it "
            f"wants them {_MASKS[0]} and {_TYPES[0]}; export it so"
        )
    found = {one.name: one for one in inputs}
    ids, mask, types = (next((found.pop(name) for name in names if name in found), None) for names in _ROLES)
    if ids is None or found:
        odd = next(iter(found), "")
        raise ConfigError(
            f"{path}: reads {said}; {f'{odd!r} is not known' if found else 'no token ids'}; rule: {_IDS[0]}, and where "
            f"it wants them {_MASKS[0]} and {_TYPES[0]}; export it with these names and the others as constants"
        )
    return TokenEnds(ids, mask, types)


_ROLES = (_IDS, _MASKS, _TYPES)


def refuse_length(ends: TokenEnds, front: TokenFront, path: Path) -> None:
    """Nothing, if the network takes texts as long as a package feeds it.

    Raises:
        ConfigError: it takes one length, and that is another, or left open here.
    """
    for one in ends.all:
        own = one.dims[1] if one.dims else None
        if own is not None and own != front.length:
            raise ConfigError(
                f"{path}: reads {one}, texts of {own} tokens alone; set data.max_length = {own} and export.length = "
                "'fixed', or export it with a dynamic length"
            )


def with_token_ends(model: ModelProto, ends: TokenEnds, front: TokenFront, batch: int | str) -> int:
    """Give the inputs the shapes that ``front`` has; the batch size that they had (0: any)."""
    from onnx import helper

    before = 0
    weights = {tensor.name for tensor in model.graph.initializer}
    named = {value.name: value for value in model.graph.input if value.name not in weights}
    inputs = []
    for one in ends.all:
        held = named[one.name].type.tensor_type
        before = before or max(held.shape.dim[0].dim_value, 0)
        inputs.append(helper.make_tensor_value_info(one.name, held.elem_type, [batch, front.length or "length"]))
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return before


def tokens_before(model: ModelProto, ends: TokenEnds, front: TokenFront, tokens: str, batch: int | str) -> ModelProto:
    """The inputs made of the one input ``tokens``, int32[N, L]."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    nodes = [helper.make_node("Cast", [tokens], [ends.ids.name], name="tokens/ids", to=ends.ids.type)]
    if ends.mask is not None:
        graph.initializer.append(numpy_helper.from_array(np.array(front.pad_id, np.int32), "tokens/pad"))
        nodes += [
            helper.make_node("Equal", [tokens, "tokens/pad"], ["tokens/padding"], name="tokens/Equal"),
            helper.make_node("Not", ["tokens/padding"], ["tokens/said"], name="tokens/Not"),
            helper.make_node("Cast", ["tokens/said"], [ends.mask.name], name="tokens/mask", to=ends.mask.type),
        ]
    if ends.types is not None:
        nodes += [
            helper.make_node("Sub", [tokens, tokens], ["tokens/zeros"], name="tokens/Sub"),
            helper.make_node("Cast", ["tokens/zeros"], [ends.types.name], name="tokens/types", to=ends.types.type),
        ]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(tokens, TensorProto.INT32, [batch, front.length or "length"]))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return model

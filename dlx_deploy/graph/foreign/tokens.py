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

    from dlx_deploy.runtime.untyped import Array

__all__ = ["TokenBorder", "TokenEnds", "TokenFront", "reads_tokens", "refuse_length", "token_ends"]

_IDS = ("input_ids", "token_ids", "ids", "tokens")
_MASKS = ("attention_mask", "input_mask", "mask")
_TYPES = ("token_type_ids", "segment_ids")
LENGTH_KEY = "max_length"
"""As ``graph.model.MAX_LENGTH``, which is not imported: it needs onnx."""
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


@dataclass(frozen=True)
class TokenBorder:
    """``front`` before the network whose inputs are ``ends``: one input of tokens, of which the others are made."""

    front: TokenFront
    ends: TokenEnds

    @property
    def first(self) -> Value:
        """The network's own input that says its batch."""
        return self.ends.ids

    def opened(self, model: ModelProto, batch: int | str) -> None:
        """Give the network's inputs the shapes that the package feeds; weights are no inputs."""
        from onnx import helper

        sizes = [batch, self.front.length or "length"]
        del model.graph.input[:]
        model.graph.input.extend(helper.make_tensor_value_info(one.name, one.type, sizes) for one in self.ends.all)

    def put_before(self, model: ModelProto, name: str, batch: int | str) -> None:
        """The inputs made of the one input ``name``, int32[N, L]."""
        import numpy as np
        from onnx import TensorProto, helper, numpy_helper

        graph, ends, front = model.graph, self.ends, self.front
        nodes = [helper.make_node("Cast", [name], [ends.ids.name], name="tokens/ids", to=ends.ids.type)]
        if ends.mask is not None:
            graph.initializer.append(numpy_helper.from_array(np.array(front.pad_id, np.int32), "tokens/pad"))
            nodes += [
                helper.make_node("Equal", [name, "tokens/pad"], ["tokens/padding"], name="tokens/Equal"),
                helper.make_node("Not", ["tokens/padding"], ["tokens/said"], name="tokens/Not"),
                helper.make_node("Cast", ["tokens/said"], [ends.mask.name], name="tokens/mask", to=ends.mask.type),
            ]
        if ends.types is not None:
            nodes += [
                helper.make_node("Sub", [name, name], ["tokens/zeros"], name="tokens/Sub"),
                helper.make_node("Cast", ["tokens/zeros"], [ends.types.name], name="tokens/types", to=ends.types.type),
            ]
        sizes = [batch, front.length or "length"]
        del graph.input[:]
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT32, sizes))
        for node in reversed(nodes):
            graph.node.insert(0, node)
        if front.length is None:
            helper.set_model_props(model, {LENGTH_KEY: str(front.max_length)})

    def feed(self, read: Array) -> dict[str, Array]:
        """What the network reads of tokens ``read``, int64[N, L], computed the plain way."""
        import numpy as np

        made = {self.ends.ids: read}
        if self.ends.mask is not None:
            made[self.ends.mask] = read != self.front.pad_id
        if self.ends.types is not None:
            made[self.ends.types] = np.zeros_like(read)
        return {value.name: np.ascontiguousarray(array, _INTEGERS[value.type]) for value, array in made.items()}

"""What each layer of a built engine computes in, and whether that is what the plan asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Tuple

from ..errors import PackageError

__all__ = ["COMPUTE", "KINDS", "PRECISIONS", "EngineLayer", "PrecisionTable", "unproven", "violations"]

COMPUTE = ("convolution", "deconvolution", "gemm")
"""The kinds whose precision is counted: where an engine's arithmetic is."""
KINDS = (*COMPUTE, "reformat", "other")
PRECISIONS = ("int8", "fp8", "fp16", "bf16", "fp32", "other")
"""From narrow to wide; ``other`` is a type outside this list, or one that the engine does not show."""
_ENOUGH = {"int8": ("int8",), "fp16": ("int8", "fp8", "fp16", "bf16")}
NAMED = 5
"""How many layers a message names."""


@dataclass(frozen=True)
class EngineLayer:
    """One kernel of an engine: its kind, the type it computes in, and the ONNX nodes in it as far as they are known."""

    name: str
    kind: str
    precision: str
    nodes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class PrecisionTable:
    """All kernels of an engine in the engine's order; ``source`` is ``inspector`` or ``plan``."""

    source: str
    layers: Tuple[EngineLayer, ...]

    @property
    def compute(self) -> Tuple[EngineLayer, ...]:
        """The convolutions, deconvolutions and matrix products."""
        return tuple(layer for layer in self.layers if layer.kind in COMPUTE)

    @property
    def reformats(self) -> int:
        """How many kernels only move or convert data."""
        return sum(layer.kind == "reformat" for layer in self.layers)

    def counts(self) -> Dict[str, int]:
        """Precision → how many of the compute layers have it, narrow ones first; those with none are left out."""
        found = [layer.precision for layer in self.compute]
        return {precision: found.count(precision) for precision in PRECISIONS if precision in found}

    def shares(self) -> Dict[str, float]:
        """Precision → its share (0..1) of the compute layers."""
        return {precision: count / len(self.compute) for precision, count in self.counts().items()}

    def summary(self) -> str:
        """For people: ``int8 20 of 21 (95 %), fp16 1; 3 reformats``."""
        total = len(self.compute)
        parts = [f"{precision} {count}" for precision, count in self.counts().items()]
        if parts:
            first = next(iter(self.counts().values()))
            parts[0] += f" of {total} ({100 * first // total} %)"  # rounded down: 100 % means all
        said = ", ".join(parts) or "no convolution or matrix product"
        return f"{said}; {self.reformats} reformat{'' if self.reformats == 1 else 's'}"

    def to_dict(self) -> Dict[str, Any]:
        """As JSON values, with ``counts``, ``shares`` and ``reformats`` for readers; ``from_dict`` gives the table."""
        layers = [
            {"name": layer.name, "kind": layer.kind, "precision": layer.precision, "nodes": list(layer.nodes)}
            for layer in self.layers
        ]
        derived = {"counts": self.counts(), "shares": self.shares(), "reformats": self.reformats}
        return {"source": self.source, "layers": layers, **derived}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str) -> PrecisionTable:
        """The table in ``values``; ``origin`` names them in messages.

        Raises:
            PackageError: a field is missing or of the wrong kind.
        """
        try:
            layers = tuple(
                EngineLayer(layer["name"], layer["kind"], layer["precision"], tuple(layer["nodes"]))
                for layer in values["layers"]
            )
            table = cls(values["source"], layers)
        except (KeyError, TypeError) as e:
            raise PackageError(f"{origin}: no table of precisions ({e!r}); build the engine again") from e
        for layer in layers:
            if layer.kind not in KINDS or layer.precision not in PRECISIONS:
                raise PackageError(
                    f"{origin}: layer {layer.name!r} is a {layer.kind!r} in {layer.precision!r}; kinds: "
                    f"{', '.join(KINDS)}; precisions: {', '.join(PRECISIONS)}"
                )
        return table


def violations(table: PrecisionTable, asked: Mapping[str, str]) -> List[str]:
    """One sentence for each node of ``asked`` (ONNX node name → int8, fp16 or fp32) that came out wider than asked.

    A narrower type is no violation, and fp32 asks for nothing. A node that only a fused layer of unknown type names is
    not judged: ``unproven`` lists it. Where the engine names no nodes at all, the numbers of layers are compared.
    """
    wanted = {node: precision for node, precision in asked.items() if precision in _ENOUGH}
    if not any(layer.nodes for layer in table.layers):
        return _by_count(table, wanted)
    homes = _homes(table)
    return [said for node, precision in wanted.items() for said in _wrong(node, precision, homes.get(node, ()))]


def unproven(table: PrecisionTable, asked: Mapping[str, str]) -> List[str]:
    """The nodes of ``asked`` whose type the engine does not show: they are inside a fused layer without types."""
    homes = _homes(table)
    return [
        node
        for node, precision in asked.items()
        if precision in _ENOUGH and _hidden(homes.get(node, ()))
    ]


def _homes(table: PrecisionTable) -> Dict[str, Tuple[EngineLayer, ...]]:
    """ONNX node → the compute layers that name it; where there are none, the other layers that do."""
    compute: Dict[str, Tuple[EngineLayer, ...]] = {}
    others: Dict[str, Tuple[EngineLayer, ...]] = {}
    for layer in table.layers:
        found = compute if layer.kind in COMPUTE else others
        for node in layer.nodes:
            found[node] = (*found.get(node, ()), layer)
    return {**others, **compute}


def _hidden(homes: Tuple[EngineLayer, ...]) -> bool:
    return bool(homes) and all(home.precision == "other" and home.kind == "other" for home in homes)


def _wrong(node: str, precision: str, homes: Tuple[EngineLayer, ...]) -> List[str]:
    if not homes:
        return [f"{node}: asked {precision}, and no layer of the engine names it, so that nothing proves its precision"]
    if _hidden(homes):
        return []
    widest = max(homes, key=lambda home: PRECISIONS.index(home.precision))
    if widest.precision in _ENOUGH[precision]:
        return []
    return [f"{node}: asked {precision}, the engine computes it in {widest.precision} ({widest.kind} {widest.name!r})"]


def _by_count(table: PrecisionTable, wanted: Mapping[str, str]) -> List[str]:
    said = []
    for precision in sorted(set(wanted.values()), reverse=True):  # int8 before fp16
        enough = _ENOUGH[precision]
        asked = sum(want in enough for want in wanted.values())
        got = sum(layer.precision in enough for layer in table.compute)
        if got < asked:
            rest = [layer.name for layer in table.compute if layer.precision not in enough]
            names = f"; those in another: {', '.join(rest[:NAMED])}" if rest else ""
            said.append(
                f"asked {precision} or narrower for {asked} layers, the engine computes {got} so "
                f"and names no ONNX nodes{names}"
            )
    return said

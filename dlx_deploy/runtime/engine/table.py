"""What the layers of an engine compute in, and whether that is what the plan asked."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from typing import Dict, Iterable, List, Mapping, Tuple

from ..errors import PackageError
from ..records import record
from ..untyped import JsonTable

__all__ = ["COMPUTE", "OPAQUE", "OTHER", "WIDTH", "EngineLayer", "PrecisionTable", "patterns", "violations", "wider"]

COMPUTE = ("convolution", "deconvolution", "gemm")
"""The kinds of layers whose precision decides the speed: the others move or change numbers."""
OTHER = "other"
OPAQUE = "opaque"
"""The kind of a layer that hides what is in it: TensorRT 8's compiled subgraphs."""
WIDTH = {"int4": 4, "int8": 8, "fp8": 8, "fp16": 16, "bf16": 16, "fp32": 32, "fp64": 64}


@record
class EngineLayer:
    """One layer of an engine.

    ``kind``: convolution, deconvolution, gemm, fusion, opaque, reformat or other. ``precision``: int8, fp8, fp16, bf16,
    fp32, fp64 or other, which it computes in; int4: so its weights are stored, and it computes in floating point.
    ``nodes``: the ONNX nodes that are in it, as far as the engine says.
    """

    name: str
    kind: str
    precision: str
    nodes: Tuple[str, ...] = ()


@record
class PrecisionTable:
    """Every layer of an engine; ``source`` is ``inspector`` or ``plan``: who says so."""

    source: str
    layers: Tuple[EngineLayer, ...]

    @property
    def reformats(self) -> int:
        """How many layers only change a tensor's type or layout."""
        return sum(layer.kind == "reformat" for layer in self.layers)

    def counts(self) -> Dict[str, int]:
        """Precision → how many convolutions and matrix products compute in it."""
        return dict(sorted(Counter(layer.precision for layer in self.layers if layer.kind in COMPUTE).items()))

    def shares(self) -> Dict[str, float]:
        """As ``counts``, as shares of 1."""
        counts = self.counts()
        total = sum(counts.values())
        return {precision: count / total for precision, count in counts.items()}

    def describe(self) -> str:
        """The counts as a phrase: ``int8 20 of 21 (95 %), fp16 1 of 21 (5 %); 2 reformats``."""
        counts = self.counts()
        total = sum(counts.values())
        hidden = sum(layer.kind == OPAQUE for layer in self.layers)
        parts = [f"{p} {n} of {total} ({100 * n / total:.0f} %)" for p, n in counts.items()]
        return f"{', '.join(parts) or 'no convolution and no matrix product'}; {self.reformats} reformats" + (
            f"; {hidden} layers that TensorRT compiled as a whole and does not open" if hidden else ""
        )

    def to_dict(self) -> Dict[str, object]:
        """As JSON values; ``from_dict`` gives the table back."""
        return {
            "source": self.source,
            "counts": self.counts(),
            "reformats": self.reformats,
            "layers": [{**asdict(layer), "nodes": list(layer.nodes)} for layer in self.layers],
        }

    @classmethod
    def from_dict(cls, values: JsonTable) -> PrecisionTable:
        """The table in ``values``.

        Raises:
            PackageError: a field is missing or unknown.
        """
        try:
            layers = tuple(EngineLayer(**{**layer, "nodes": tuple(layer["nodes"])}) for layer in values["layers"])
            table = cls(str(values["source"]), layers)
        except (KeyError, TypeError) as e:
            raise PackageError(f"the engine's precision table is damaged ({e}); build the engine again") from e
        for layer in layers:
            if not all(isinstance(text, str) for text in (layer.name, layer.kind, layer.precision, *layer.nodes)):
                raise PackageError(f"the engine's precision table is damaged ({layer}); build the engine again")
        return table


def violations(table: PrecisionTable, asked: Mapping[str, str]) -> List[str]:
    """What ``wider`` says, a sentence for each node."""
    return list(wider(table, asked).values())


def patterns(nodes: Iterable[str]) -> List[str]:
    """Patterns (fnmatch) for the ``nodes``: one for all whose names differ in the numbers of their modules alone."""
    plain = (re.sub(r"([\[*?])", r"[\1]", node) for node in nodes)
    return list(dict.fromkeys(re.sub(r"(?<=\.)[0-9]+(?=[./])", "*", node) for node in plain))


def wider(table: PrecisionTable, asked: Mapping[str, str]) -> Dict[str, str]:
    """Each ONNX node of ``asked`` (node name → precision) that computes wider than asked → that as a sentence.

    A node that no layer of the engine names is one too: what cannot be found is not proven. Those inside an
    opaque layer are left out: nothing can be said of them.
    """
    where: Dict[str, str] = {}
    hidden = {node for layer in table.layers if layer.kind == OPAQUE for node in layer.nodes}
    for layer in table.layers:
        for node in layer.nodes if layer.kind in COMPUTE else ():
            where[node] = max(where.get(node, layer.precision), layer.precision, key=_width)
    for layer in table.layers:  # a small product may be part of a generated kernel: what that computes in counts
        where.update((node, layer.precision) for node in layer.nodes if layer.kind == OTHER and node not in where)
    violating: Dict[str, str] = {}
    for node, precision in asked.items():
        computed = where.get(node)
        if computed is None and node in hidden:
            continue
        if computed is None:
            violating[node] = f"{node}: asked for {precision}, and no layer of the engine names it"
        elif _width(computed) > WIDTH[precision]:
            violating[node] = f"{node}: asked for {precision}, the engine computes it in {computed}"
    return violating


def _width(precision: str) -> int:
    """In bits; what is not known counts as the widest."""
    return WIDTH.get(precision, 128)

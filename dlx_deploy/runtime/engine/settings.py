"""What a builder is told; the part of a package's recipe that concerns TensorRT."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Callable, Dict, Mapping, Optional, Tuple

from ..backends.names import ENGINES
from ..errors import PackageError
from ..untyped import JsonTable
from ..words import shortened

__all__ = ["BuildSettings", "is_count"]

PRECISIONS = ("int8", "int4", "fp8", "fp16", "bf16", "fp32")
FLAGS = ("strongly_typed", "sparse_weights", "version_compatible", "hardware_compatible")


@dataclass(frozen=True)
class BuildSettings:
    """One engine's build; equal settings and an equal ONNX ask for the same engine.

    ``precision`` is the plan's lowest, ``layers`` what each named layer must compute in. ``strongly_typed``: the graph
    holds every type; otherwise (TensorRT 8) ``weak_types`` names the types that the builder may choose beside FP32.
    ``batch``: the optimisation profile's min, opt and max. ``workspace_mib``: 0 for no limit.
    ``compute_capabilities``: of TensorRT-RTX, what the ahead-of-time engine must run on; empty for its default.
    """

    flavour: str
    precision: str
    batch: Tuple[int, int, int]
    strongly_typed: bool = True
    weak_types: Tuple[str, ...] = ()
    layers: Mapping[str, str] = field(default_factory=dict)
    workspace_mib: int = 0
    sparse_weights: bool = False
    dla_core: Optional[int] = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    optimization_level: Optional[int] = None
    compute_capabilities: Tuple[str, ...] = ()

    def weak_flags(self, has: Mapping[str, bool]) -> Tuple[str, ...]:
        """What a builder with the features ``has`` is free to choose beside FP32; nothing where types are strong."""
        if (self.strongly_typed and has["strongly_typed_flag"]) or not has["weak_types"]:
            return ()
        # Those that the graph's plan needs, and those that the builder may choose.
        given = {self.precision, *self.weak_types}
        if self.strongly_typed and self.precision == "int8":
            given |= {"fp16"} & set(self.layers.values())
        return tuple(sorted(given & {"fp16", "int8"}))

    def to_dict(self) -> Dict[str, object]:
        """As JSON values; ``from_dict`` gives the settings back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: JsonTable, origin: str) -> BuildSettings:
        """The settings in ``values``; ``origin`` names them in messages.

        Raises:
            PackageError: a field is missing, unknown or of the wrong kind.
        """
        known = {f.name for f in fields(cls)}
        for name in sorted(set(values) - known):
            raise PackageError(f"{origin}: {name!r} is not a build setting; known: {', '.join(sorted(known))}")
        missing = {"flavour", "precision", "batch"} - set(values)
        if missing:
            raise PackageError(f"{origin}: {', '.join(sorted(missing))} missing; a recipe of an engine has it")
        plain: JsonTable = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        settings = cls(**plain)
        settings._check(origin)
        return settings

    def _check(self, origin: str) -> None:
        rules = {
            "flavour": (self.flavour in ENGINES, f"one of {', '.join(ENGINES)}"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "batch": (_ascending(self.batch), "three whole numbers, 1 <= min <= opt <= max"),
            "workspace_mib": (is_count(self.workspace_mib), "a whole number of MiB, 0 for no limit"),
            "dla_core": (self.dla_core is None or is_count(self.dla_core), "absent, or the number of a DLA core"),
            "layers": (
                isinstance(self.layers, dict) and all(value in PRECISIONS for value in self.layers.values()),
                f"node name -> one of {', '.join(PRECISIONS)}",
            ),
            "weak_types": (_all_of(self.weak_types, lambda x: x in ("fp16", "int8")), "of fp16 and int8"),
            "compute_capabilities": (_all_of(self.compute_capabilities, lambda x: isinstance(x, str)), "strings"),
            "optimization_level": (
                self.optimization_level is None or is_count(self.optimization_level),
                "absent, or a whole number",
            ),
        }
        rules.update({name: (isinstance(getattr(self, name), bool), "true or false") for name in FLAGS})
        for name, (holds, rule) in rules.items():
            if not holds:
                raise PackageError(f"{origin}: {name} is {shortened(getattr(self, name))}; must be {rule}")


def is_count(value: object) -> bool:
    """Whether ``value`` is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _all_of(values: object, holds: Callable[[object], bool]) -> bool:
    return isinstance(values, tuple) and all(map(holds, values))


def _ascending(batch: object) -> bool:
    if not isinstance(batch, tuple) or len(batch) != 3 or not all(map(is_count, batch)):
        return False
    return 1 <= int(batch[0]) <= int(batch[1]) <= int(batch[2])

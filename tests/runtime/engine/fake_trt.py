"""A stand-in for ``tensorrt`` of a recorded version: what the version lacks raises, what is called is written down."""

from __future__ import annotations

import enum
import functools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["VERSIONS", "World", "fake_tensorrt"]

TABLES = json.loads(Path(__file__).with_name("api_tables.json").read_text(encoding="utf-8"))
VERSIONS = ("8.5", "8.6", "10.3", "10.13", "11.4", "rtx-1.7")
OPTIONAL = {"create_network", "deserialize_cuda_engine", "create_execution_context", "parse", "create_timing_cache"}
"""Methods whose documented arguments are incomplete or optional: their number is not checked."""


class World:
    """How the fake behaves, and what was done to it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.set: dict[str, Any] = {}
        self.shape: tuple[int, ...] = (-1, 8, 8, 3)
        self.plan: bytes | None = b"plan"
        self.parse_errors: list[dict[str, Any]] | None = None
        self.dla_cores = 0
        self.inspection = '{"Layers": [{"Name": "a", "LayerType": "Reformat", "Inputs": []}]}'
        self.loads = True
        self.says: list[tuple[str, str]] = []
        self.phases: list[tuple[str, int]] = []

    def made(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of ``name``."""
        return [arguments for called, arguments in self.calls if called == name]


def fake_tensorrt(version: str, world: World | None = None) -> Any:
    """A module with exactly what ``version`` has; its ``world`` is an attribute."""
    table = TABLES[version]
    world = world or World()
    module = ModuleType("tensorrt")
    module.__version__ = f"{version.removeprefix('rtx-')}.0"  # type: ignore[attr-defined]
    for name, members in table["enums"].items():
        setattr(module, name, enum.IntEnum(name, members))
    for name, attributes in table["classes"].items():
        setattr(module, name, _class(name, attributes, world, module))
    severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
    module.ILogger = type("ILogger", (), {"Severity": severity})  # type: ignore[attr-defined]
    if "IProgressMonitor" in table["names"]:
        module.IProgressMonitor = type("IProgressMonitor", (), {})  # type: ignore[attr-defined]
    for name in ("OnnxParser", "Runtime", "Builder"):
        setattr(module, name, functools.partial(_opened, getattr(module, name), world))
    module.world = world  # type: ignore[attr-defined]
    return module


def _opened(kind: Any, world: World, *arguments: Any) -> Any:
    world.calls.append((kind.__name__, arguments))
    world.set["logger"] = next((a for a in arguments if hasattr(a, "log")), world.set.get("logger"))
    return kind()


def _class(name: str, attributes: dict[str, Any], world: World, module: Any) -> type:
    """A class that knows the recorded attributes, and neither takes nor gives any other."""

    def refuse(self: Any, key: str, value: Any) -> None:
        if not isinstance(attributes.get(key), bool):
            raise AttributeError(f"{name} has no property {key!r}")
        if not attributes[key]:
            raise AttributeError(f"{name}.{key} cannot be set")
        world.set[key] = value

    body: dict[str, Any] = {"__setattr__": refuse}
    for key, kind in attributes.items():
        if isinstance(kind, bool):
            body[key] = property(functools.partial(_get, key, world))
        else:
            body[key] = _method(name, key, kind, world, module)
    return type(name, (), body)


def _get(key: str, world: World, self: Any) -> Any:
    values = {"num_inputs": 1, "name": "images", "shape": world.shape, "num_DLA_cores": world.dla_cores}
    if key == "num_errors":
        return len(world.parse_errors or [])
    return world.set.get(key, values.get(key))


def _method(owner: str, name: str, parameters: list[str] | None, world: World, module: Any) -> Any:
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if parameters and name not in OPTIONAL and len(arguments) + len(named) > len(parameters):
            raise TypeError(f"{owner}.{name} takes {len(parameters)} arguments, not {len(arguments) + len(named)}")
        unknown = set(named) - set(parameters or named)
        if unknown:
            raise TypeError(f"{owner}.{name} has no argument {sorted(unknown)}")
        world.calls.append((name, (*arguments, *named.values())))
        behaviour = _BEHAVIOUR.get(name)
        return behaviour(world, module, *arguments) if behaviour else True

    return call


def _build(world: World, module: Any, *arguments: Any) -> bytes | None:
    logger = world.set["logger"]
    for level, text in world.says:
        logger.log(module.ILogger.Severity[level], text)
    monitor = world.set.get("progress_monitor")
    for phase, steps in world.phases:
        monitor.phase_start(phase, "", steps)
        for step in range(steps):
            assert monitor.step_complete(phase, step)
        monitor.phase_finish(phase)
    return world.plan


def _error(world: World, module: Any, index: int) -> Any:
    error = (world.parse_errors or [])[index]
    missing = set(error) - set(dir(module.ParserError))
    assert not missing, f"this version's ParserError has no {missing}"
    return type("ParserError", (), {key: (lambda self, v=value: v) for key, value in error.items()})()


_BEHAVIOUR: dict[str, Any] = {
    "create_network": lambda world, module, *a: module.INetworkDefinition(),
    "create_builder_config": lambda world, module, *a: module.IBuilderConfig(),
    "create_optimization_profile": lambda world, module, *a: module.IOptimizationProfile(),
    "create_timing_cache": lambda world, module, *a: module.ITimingCache(),
    "serialize": lambda world, module, *a: b"timings",
    "get_input": lambda world, module, *a: module.ITensor(),
    "parse": lambda world, module, *a: world.parse_errors is None,
    "get_error": _error,
    "build_serialized_network": _build,
    "deserialize_cuda_engine": lambda world, module, *a: module.ICudaEngine() if world.loads else None,
    "create_engine_inspector": lambda world, module, *a: module.EngineInspector(),
    "get_engine_information": lambda world, module, *a: world.inspection,
}

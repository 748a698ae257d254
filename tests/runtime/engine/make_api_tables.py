"""Records what a TensorRT version's Python API has: ``python make_api_tables.py 10.3 path/to/tensorrt.so``.

The bindings' wheels on PyPI (``tensorrt-bindings``, ``tensorrt-cu12-bindings``, ``tensorrt-cu13-bindings``,
``tensorrt-rtx-cu13-bindings``) hold one extension module each. It is imported with stand-ins for NVIDIA's libraries:
shared objects of the names that it needs, which define the symbols that it leaves undefined. No library and no GPU
takes part, so what is recorded are names: of methods and their documented arguments, of properties and whether they
can be set, and of enumeration members.

Version 8.5 has no wheel on PyPI: its table is that of 8.6 without what NVIDIA's headers and release notes say came with
8.6 (``NEW_IN_8_6``); ``python make_api_tables.py 8.5`` writes it.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("api_tables.json")
CLASSES = [
    "Builder",
    "IBuilderConfig",
    "INetworkDefinition",
    "ITensor",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "ICudaEngine",
    "IExecutionContext",
    "IOptimizationProfile",
    "EngineInspector",
    "ITimingCache",
    "IRuntimeConfig",
    "IRuntimeCache",
]
ENUMS = [
    "BuilderFlag",
    "NetworkDefinitionCreationFlag",
    "MemoryPoolType",
    "DeviceType",
    "HardwareCompatibilityLevel",
    "ProfilingVerbosity",
    "LayerInformationFormat",
    "TensorIOMode",
    "DataType",
    "ComputeCapability",
]
NAMES = ["ILogger", "IProgressMonitor", *CLASSES, *ENUMS]
NEW_IN_8_6 = {
    "BuilderFlag": ["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "FP8", "DISABLE_TIMING_CACHE_OF_LEAN_RUNTIME"],
    "IBuilderConfig": [
        "builder_optimization_level",
        "hardware_compatibility_level",
        "max_aux_streams",
        "plugins_to_serialize",
    ],
    "ICudaEngine": ["hardware_compatibility_level", "num_aux_streams"],
    "IExecutionContext": ["set_aux_streams"],
    "Runtime": ["engine_host_code_allowed", "load_runtime", "temporary_directory", "tempfile_control_flags"],
}


def record(module: Any, source: str) -> dict[str, Any]:
    """The table of one module."""
    return {
        "source": source,
        "names": [name for name in NAMES if hasattr(module, name)],
        "enums": {name: members(getattr(module, name)) for name in ENUMS if hasattr(module, name)},
        "classes": {name: attributes(getattr(module, name)) for name in CLASSES if hasattr(module, name)},
    }


def members(enum: Any) -> dict[str, int]:
    return {name: int(value) for name, value in sorted(enum.__members__.items())}


def attributes(kind: Any) -> dict[str, Any]:
    """Methods with their arguments; properties with whether they can be set."""
    table: dict[str, Any] = {}
    for name in sorted(n for n in dir(kind) if not n.startswith("_")):
        attribute = getattr(kind, name)
        if isinstance(attribute, property):
            table[name] = attribute.fset is not None
        elif callable(attribute):
            table[name] = arguments(attribute.__doc__ or "")
    return table


def arguments(text: str) -> list[str] | None:
    """The documented arguments of a method, ``None`` where it has several forms."""
    return None if "Overloaded function" in text else list(dict.fromkeys(re.findall(r":(?:arg|param) (\w+):", text)))


def older(table: dict[str, Any]) -> dict[str, Any]:
    """8.5 from 8.6."""
    table = json.loads(json.dumps(table))
    table["source"] = "8.6.1 without what came with it (see NEW_IN_8_6); not recorded from 8.5 itself"
    table["names"].remove("HardwareCompatibilityLevel")
    del table["enums"]["HardwareCompatibilityLevel"]
    for owner, names in NEW_IN_8_6.items():
        for name in names:
            table["enums" if owner in table["enums"] else "classes"][owner].pop(name, None)
    return table


def main(version: str, path: str = "") -> None:
    tables = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    if version == "8.5":
        tables[version] = older(tables["8.6"])
    elif path.endswith(".so"):
        spec = importlib.util.spec_from_file_location("tensorrt_rtx" if "rtx" in version else "tensorrt", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        wheel = next(Path(path).parents[1].glob("*.dist-info")).stem
        tables[version] = record(module, f"recorded from {wheel}")
    else:
        module = importlib.import_module(path)
        tables[version] = record(module, f"recorded from {path} {module.__version__}")
    PATH.write_text(json.dumps(tables, sort_keys=True, separators=(",\n", ": ")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

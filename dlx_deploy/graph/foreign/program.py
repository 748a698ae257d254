"""Whether a torch.export program (``.pt2``) can be the teacher, by what its archive says; no torch, in milliseconds.

The archive is a zip with the graph as JSON (``models/NAME.json``) and its weights as plain bytes. Objects that torch
would unpickle and code that it would load are refused: a network needs neither.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.foreign.wire import BFLOAT16, DOUBLE, FLOAT, FLOAT16, Value

__all__ = ["ProgramFacts", "program_facts"]

MAX_JSON_BYTES = 256 * 1024**2
"""A graph of 100,000 operators takes a tenth of it."""
_TYPES = {6: FLOAT16, 7: FLOAT, 8: DOUBLE, 13: BFLOAT16}
"""torch's number of an element type in such a file → ONNX's."""
_GRAPH = re.compile(r"(?:[^/]+/)?models/[^/]+\.json")
_OLD = "serialized_exported_program.json"
_CODE = ("data/aotinductor/", "data/compiled/")
_OBJECT = "custom_obj"
_TABLES = re.compile(r"(?:[^/]+/)?data/(?:weights|constants)/[^/]+_config\.json")
_NAMED = re.compile(r"[A-Za-z_][\w.]*")
_EXPRESSIONS = {
    *("Symbol", "Integer", "Rational", "Max", "Min", "Mod", "FloorDiv", "CleanDiv", "PythonMod", "CeilToInt"),
    *("FloorToInt", "IntTrueDiv", "TruncToInt", "ToFloat", "Where", "True", "False", "positive", "integer", "oo"),
    *("nonnegative", "Add", "Mul", "Pow", "Eq", "Ne", "Ge", "Gt", "Le", "Lt", "And", "Or", "Not", "int_oo"),
}
_QUOTED = re.compile(r"'[A-Za-z]\w*'")
_SYMBOL = re.compile(r"[su]\d+")


@dataclass(frozen=True)
class ProgramFacts:
    """``torch``: the version that wrote it; ``inputs`` without weights."""

    torch: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def program_facts(path: Path) -> ProgramFacts:
    """What the program in ``path`` says of itself, if it can be used.

    Raises:
        ConfigError: it cannot be read; it holds objects or code, or was exported in training mode.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            _refuse_unsafe(archive, names, path)
            graphs = [name for name in names if _GRAPH.fullmatch(name)]
            if len(graphs) != 1:
                raise ConfigError(f"{path}: holds {len(graphs)} programs; rule: one; save it with torch.export.save")
            held = _json(archive, graphs[0])
        return _facts(held, path)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror or e})") from e
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ConfigError(f"{path}: no torch.export program ({e}); save it with torch.export.save") from e


def _refuse_unsafe(archive: zipfile.ZipFile, names: Sequence[str], path: Path) -> None:
    if any(name.rpartition("/")[2] == _OLD for name in names):
        raise ConfigError(
            f"{path}: was saved by a torch before 2.8, whose archives are pickled; export it again with a newer "
            "one, or give it as ONNX"
        )
    unsafe = [name for name in names if any(code in f"/{name}" for code in _CODE) or _OBJECT in name]
    for table in (name for name in names if _TABLES.fullmatch(name)):
        entries = _json(archive, table)["config"].values()
        unsafe += [str(entry["path_name"]) for entry in entries if entry.get("use_pickle")]
    if unsafe:
        raise ConfigError(
            f"{path}: holds {unsafe[0]!r}, an object or code that torch would unpickle or run; rule: weights alone; "
            "export the plain network again, or give it as ONNX"
        )


def _json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > MAX_JSON_BYTES:
        raise ValueError(f"{name} has over {MAX_JSON_BYTES} bytes")
    return cast("dict[str, Any]", json.loads(archive.read(name)))


def _facts(held: Mapping[str, Any], path: Path) -> ProgramFacts:
    _refuse_expressions(held, path)
    graph, signature = held["graph_module"]["graph"], held["graph_module"]["signature"]
    tensors = graph["tensor_values"]
    inputs = [spec["user_input"]["arg"] for spec in signature["input_specs"] if "user_input" in spec]
    outputs = [spec["user_output"]["arg"] for spec in signature["output_specs"] if "user_output" in spec]
    _refuse_training(graph["nodes"], path)
    return ProgramFacts(
        str(held.get("torch_version", "unknown")),
        tuple(_value(one, tensors) for one in inputs),
        tuple(_value(one, tensors) for one in outputs),
    )


def _value(held: Mapping[str, Any], tensors: Mapping[str, Any]) -> Value:
    if "as_tensor" not in held:
        return Value(next(iter(held)), 0, None)
    name = held["as_tensor"]["name"]
    dims = tuple(size.get("as_int") for size in tensors[name]["sizes"])
    return Value(name, _TYPES.get(tensors[name]["dtype"], 0), dims)


def _refuse_training(nodes: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A network that drops out, or measures its batch, answers otherwise than it does when it is used."""
    for node in nodes:
        told = {one.get("name"): one["arg"].get("as_bool") for one in node["inputs"]}
        if told.get("training") or told.get("train"):
            raise ConfigError(
                f"{path}: was exported in training mode ({node['target'].rpartition('aten.')[2]}); call .eval() on the "
                "network before torch.export.export"
            )


def _refuse_expressions(held: object, path: Path) -> None:
    """torch evaluates sizes that are no numbers as Python; they are arithmetic, or they are refused."""
    for text in _expressions(held):
        names = _NAMED.findall(_QUOTED.sub("", text))
        strange = [name for name in names if name not in _EXPRESSIONS and not _SYMBOL.fullmatch(name)]
        if strange or "[" in text:
            raise ConfigError(f"{path}: a size is {text[:80]!r}, which is no arithmetic; export it again")


def _expressions(held: object) -> Iterator[str]:
    todo = [held]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            text = one.get("expr_str")
            if isinstance(text, str):
                yield text
            todo += one.values()
        elif isinstance(one, list):
            todo += one

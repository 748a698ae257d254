"""Which ONNX operators a target's runtime reads: a dated table, for what must be said before minutes are spent.

Of TensorRT it is the parser's, by version; where the table does not say, the verdict says so and nothing is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Literal, get_args

import msgspec

from dlx_deploy.runtime.backends.names import BackendName
from dlx_deploy.runtime.hazards.operators import Operator
from dlx_deploy.runtime.hazards.table import Hazard
from dlx_deploy.targets.hazards import own_version, target_hazards
from dlx_deploy.targets.profile import Precision, Profile

__all__ = ["OperatorTable", "Verdict", "operator_table", "operator_verdicts"]

_MEMBER = "operators.json"
Word = Literal["runs", "rewritten", "not known", "hazard", "not supported"]
_WORDS: tuple[str, ...] = get_args(Word)
"""The worst last."""
_OWN = ("com.microsoft", "onnxruntime-cpu")
"""The domain of ONNX Runtime's own operators, and who has their kernels on a CPU."""
_PRECISIONS: dict[str, Precision] = {"int4": "int4", "float8e4m3fn": "fp8"}
"""Element type → the precision that an engine must know to read it."""


class _Parser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``since``: version → the operators that came with it; ``at_the_latest``: those that older ones may have too."""

    since: dict[str, tuple[str, ...]]
    at_the_latest: dict[str, tuple[str, ...]]
    never: tuple[str, ...]
    notes: dict[str, str]


class _Absent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    absent: tuple[str, ...]


class _Kernels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``microsoft``: version → the operators of its own domain that have a CPU kernel from then on, at the latest;
    ``types``: element type → the version that first reads it."""

    absent: tuple[str, ...]
    microsoft: dict[str, tuple[str, ...]]
    types: dict[str, str]


class OperatorTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``date``: when it was last looked through. ``rewritten``: operator → builds for an older opset rewrite it."""

    schema: Literal[1]
    date: str
    sources: tuple[str, ...]
    tensorrt: _Parser
    tensorrt_rtx: _Absent = msgspec.field(name="tensorrt-rtx")
    onnxruntime: _Kernels
    rewritten: dict[str, int]


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of one kind of operator on a target, ``count`` times in the graph.

    ``runtime``: the target's first choice and the version that its profile was written for. ``note``: what it is read
    with, or why it is not.
    """

    operator: str
    count: int
    target: str
    runtime: str
    verdict: Word
    note: str = ""


def operator_verdicts(operators: Sequence[Operator], profile: Profile) -> list[Verdict]:
    """What becomes of each of a graph's ``operators`` on the target, in the order of the graph."""
    backend = profile.backend_order[0]
    version = own_version(profile, backend)
    met = [one for one in target_hazards(operators, profile) if one.backend == backend]
    here = [one.hazard for one in met if not version or version in one.versions or not one.versions]
    found: dict[str, Verdict] = {}
    for one in operators:
        name = f"{one.domain}.{one.type}" if one.domain else one.type
        word, note = _with_hazards(one, _verdict(one, profile, backend, version), here)
        now = Verdict(name, one.count, profile.name, f"{backend} {version}".strip(), word, note)
        before = found.get(name, now)
        worst = max(before, now, key=lambda verdict: _WORDS.index(verdict.verdict))
        count = one.count + (before.count if name in found else 0)
        found[name] = msgspec.structs.replace(worst, count=count)
    return list(found.values())


def _with_hazards(one: Operator, seen: tuple[Word, str], hazards: Sequence[Hazard]) -> tuple[Word, str]:
    """What becomes of an operator that is read, where it is known to be computed wrong."""
    for hazard in hazards:
        if seen[0] in ("runs", "not known") and replace(hazard.when, with_=()).meets([one]):
            return "rewritten" if hazard.action == "rewrite" else "hazard", f"{hazard.title} ({hazard.id})"
    return seen


def _verdict(one: Operator, profile: Profile, backend: BackendName, version: str) -> tuple[Word, str]:
    table = operator_table()
    if one.domain:
        since = _group(table.onnxruntime.microsoft, one.type) if (one.domain, backend) == _OWN else ""
        if since:
            return "runs", f"an operator of ONNX Runtime's own, with a kernel for CPUs from {since} on"
        return "not supported", f"an operator of {one.domain}, not of ONNX"
    if seen := _by_type(one, profile, backend):
        return seen
    if one.opset > profile.opset and one.type in table.rewritten and profile.opset < table.rewritten[one.type]:
        return "rewritten", f"at opset {profile.opset}, that of the target"
    if backend != "tensorrt":
        absent = table.tensorrt_rtx.absent if "tensorrt-rtx" in backend else table.onnxruntime.absent
        return ("not supported", "") if one.type in absent else ("runs", "")
    reads = _parsed(one.type, version)
    if reads is None:
        return "not known", f"the table of {table.date} does not say"
    return ("runs", table.tensorrt.notes.get(one.type, "")) if reads else ("not supported", _since(one.type))


def _by_type(one: Operator, profile: Profile, backend: BackendName) -> tuple[Word, str] | None:
    """What the type of its numbers alone decides: INT4 weights, FP8; ``None`` where it decides nothing."""
    kinds = {one.dtype, one.gives}
    if backend == _OWN[1]:
        if one.type not in ("DequantizeLinear", "QuantizeLinear"):
            return None
        found = [(kind, since) for kind, since in operator_table().onnxruntime.types.items() if kind in kinds]
        return ("runs", f"{found[0][0].upper()} is read from ONNX Runtime {found[0][1]} on") if found else None
    if "uint4" in kinds:
        return "not supported", "numbers in UINT4, which TensorRT does not have; INT4 has a sign"
    lacking = [name for kind, name in _PRECISIONS.items() if kind in kinds and name not in profile.precisions]
    return ("not supported", f"numbers in {lacking[0].upper()}, which the target has not") if lacking else None


def _parsed(operator: str, version: str) -> bool | None:
    """Whether TensorRT's parser of ``version`` reads ``operator``; ``None`` where the table does not say."""
    parser = operator_table().tensorrt
    if operator in parser.never:
        return False
    if first := _group(parser.since, operator):
        return _numbers(version) >= _numbers(first) if version else None
    last = _group(parser.at_the_latest, operator)
    return True if last and version and _numbers(version) >= _numbers(last) else None


def _since(operator: str) -> str:
    first = _group(operator_table().tensorrt.since, operator)
    return f"TensorRT {first} was the first" if first else "no TensorRT so far reads it"


def _group(groups: dict[str, tuple[str, ...]], operator: str) -> str:
    return next((version for version, names in groups.items() if operator in names), "")


def _numbers(version: str) -> tuple[int, int]:
    major, _, rest = version.partition(".")
    return int(major), int(rest.partition(".")[0] or 0)


@functools.lru_cache(maxsize=1)
def operator_table() -> OperatorTable:
    """The table that comes with this code."""
    content = (files("dlx_deploy.targets") / _MEMBER).read_bytes()
    return msgspec.json.decode(content, type=OperatorTable)

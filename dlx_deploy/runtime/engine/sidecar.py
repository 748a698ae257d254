"""What an engine was built for: the JSON beside the plan, this machine in the same terms, and how they differ."""

from __future__ import annotations

import platform
import re
from dataclasses import asdict, fields
from typing import List, Optional

from ..digests import sha256_hex
from ..errors import BackendMissing, PackageError
from ..machine import power_mode
from ..package.archive import to_json
from ..records import record
from ..schemas import SIDECAR, newer_schema
from ..strict_json import from_json
from ..untyped import JsonTable
from ..words import shortened
from .build import BuiltEngine
from .settings import BuildSettings, is_count

__all__ = [
    "EngineKey",
    "Sidecar",
    "differences",
    "make_sidecar",
    "read_sidecar",
    "this_machine",
    "to_bytes",
    "to_dict",
]

REQUIRED = ("flavour", "version", "system", "arch")
OPTIONAL = ("package_digest", "compute_capability", "gpu", "power_mode", "driver")
RECORDED = ("driver",)
"""Fields that are written down and compared with nothing: any driver that runs this CUDA loads the plan."""
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9")
RTX_FORWARD = 12
"""GPUs of TensorRT-RTX 1.7: these compute capabilities, and major versions from 12 on. It builds plans for others and
then refuses to load them, as an H100 (9.0) showed."""


@record
class EngineKey:
    """What must be equal for an engine to be loaded; a stored ``None`` says that the engine does not depend on it.

    ``compute_capability`` of an engine for several GPUs is a list with commas: any of them will do.
    """

    flavour: str
    version: str
    system: str
    arch: str
    package_digest: Optional[str] = None
    compute_capability: Optional[str] = None
    gpu: Optional[str] = None
    sm_count: Optional[int] = None
    power_mode: Optional[str] = None
    driver: Optional[str] = None


@record
class Sidecar:
    """``engine.json``. ``build_s`` and ``peak_memory_mib`` are ``None`` in a package, whose bytes hold no timings."""

    key: EngineKey
    settings: JsonTable
    precision: JsonTable
    build_s: Optional[float]
    peak_memory_mib: Optional[float]
    plan_sha256: str
    plan_size: int


def differences(stored: EngineKey, here: EngineKey) -> List[str]:
    """Each field in which an engine's key does not fit this machine, with both values."""
    differing = []
    for field in fields(EngineKey):
        wanted, seen = getattr(stored, field.name), getattr(here, field.name)
        if wanted is None or field.name in RECORDED:
            continue
        allowed = wanted.split(",") if field.name == "compute_capability" else [wanted]
        if seen not in allowed:
            differing.append(f"{field.name}: the engine is for {wanted}, here is {seen}")
    return differing


def make_sidecar(key: EngineKey, settings: BuildSettings, built: BuiltEngine, timed: bool = True) -> Sidecar:
    """The sidecar of an engine that was just built; without ``timed`` it is the same for the same plan."""
    return Sidecar(
        key=key,
        settings=settings.to_dict(),
        precision=built.table.to_dict(),
        build_s=built.build_s if timed else None,
        peak_memory_mib=built.peak_memory_mib if timed else None,
        plan_sha256=sha256_hex(built.plan),
        plan_size=len(built.plan),
    )


def to_dict(sidecar: Sidecar) -> JsonTable:
    """The sidecar as JSON values."""
    return {"schema": SIDECAR, **asdict(sidecar)}


def to_bytes(sidecar: Sidecar) -> bytes:
    """``engine.json``: sorted keys, UTF-8, newline at the end."""
    return to_json(to_dict(sidecar))


def read_sidecar(data: bytes, origin: str) -> Sidecar:
    """The sidecar in ``data``; ``origin`` names it in messages.

    Raises:
        PackageError: no JSON, a newer schema, or a field that is missing, unknown or of the wrong kind.
    """
    try:
        values = from_json(data)
    except ValueError as e:
        raise PackageError(f"{origin}: no JSON ({e}); the engine beside it is not used") from e
    if not isinstance(values, dict) or not isinstance(values.get("schema"), int):
        raise PackageError(f"{origin}: no engine sidecar; it has no schema number")
    schema = values.pop("schema")
    refusal = newer_schema(schema, SIDECAR)
    if refusal:
        raise PackageError(f"{origin}: {refusal}")
    try:
        key = EngineKey(**values.pop("key"))
        sidecar = Sidecar(key=key, **values)
    except (TypeError, KeyError, AttributeError) as e:
        raise PackageError(f"{origin}: a field is missing or unknown ({e}); the engine beside it is not used") from e
    _check(sidecar, origin)
    return sidecar


def this_machine(package_digest: Optional[str], flavour: str, version: str) -> EngineKey:
    """The key that an engine for this machine has.

    Raises:
        BackendMissing: cuda-python, the driver or a GPU is not here, or TensorRT-RTX does not run on this one.
    """
    from .cuda import gpu_facts

    facts = gpu_facts()
    _check_rtx(flavour, version, facts.name, facts.compute_capability)
    return EngineKey(
        flavour=flavour,
        version=version,
        system=platform.system(),
        arch=platform.machine(),
        package_digest=package_digest,
        compute_capability=facts.compute_capability,
        gpu=facts.name,
        sm_count=facts.sm_count,
        power_mode=power_mode(),
        driver=facts.driver,
    )


def _check_rtx(flavour: str, version: str, gpu: str, capability: str) -> None:
    runs = capability in RTX_CAPABILITIES or int(capability.partition(".")[0]) >= RTX_FORWARD
    if flavour == "tensorrt-rtx" and not runs:
        raise BackendMissing(
            f"TensorRT-RTX {version} runs on GPUs of compute capability {', '.join(RTX_CAPABILITIES)} and "
            f"{RTX_FORWARD}.0 or newer; {gpu} has {capability}: use TensorRT or onnxruntime-cuda there"
        )


def _check(sidecar: Sidecar, origin: str) -> None:
    key = sidecar.key
    sha, number = sidecar.plan_sha256, "a number from 0, or null"
    kinds = {
        "plan_sha256": (isinstance(sha, str) and re.fullmatch("[0-9a-f]{64}", sha) is not None, "64 hex digits"),
        "plan_size": (is_count(sidecar.plan_size) and sidecar.plan_size > 0, "a whole number from 1"),
        "settings": (isinstance(sidecar.settings, dict), "a table of build settings"),
        "precision": (isinstance(sidecar.precision, dict), "a table of layers"),
        "build_s": (sidecar.build_s is None or _is_number(sidecar.build_s), number),
        "peak_memory_mib": (sidecar.peak_memory_mib is None or _is_number(sidecar.peak_memory_mib), number),
        "key": (
            all(isinstance(getattr(key, n), str) for n in REQUIRED)
            and all(isinstance(getattr(key, n), (str, type(None))) for n in OPTIONAL)
            and (key.sm_count is None or is_count(key.sm_count)),
            "a table of strings, with a whole number of sm_count",
        ),
    }
    for name, (holds, rule) in kinds.items():
        if not holds:
            raise PackageError(
                f"{origin}: {name} is {shortened(getattr(sidecar, name))}, which is of the wrong kind: must be {rule}"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0

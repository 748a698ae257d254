"""What a package is made of as a CycloneDX 1.6 bill of materials (ML-BOM), from its own ``package.json`` and manifest.

The same package gives the same bytes: the serial number is made of its SHA-256, and a time is in it only if
``SOURCE_DATE_EPOCH`` says one. The library of CycloneDX knows no model cards yet, so the document is made here; it is
the library that holds it to the schema.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx_deploy import __version__
from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.runtime.filenames import MANIFEST
from dlx_deploy.runtime.words import said

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.contents import Package
    from dlx_deploy.runtime.package.trust import Trust

__all__ = ["SbomView", "view_sbom"]

Json = dict[str, Any]
SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
MODEL, NAMESPACE = "model", uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/dlx-deploy")
NEEDED = ("numpy", "onnxruntime")
DISTRIBUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SbomView:
    """The bill, and where it was written."""

    data: Json
    where: str

    @property
    def text(self) -> str:
        """What is in it."""
        return f"{self.where}: CycloneDX {self.data['specVersion']}, {len(self.data['components'])} components"


def view_sbom(path: Path, where: str, trust: Trust | None = None) -> SbomView:
    """The bill of materials of the package at ``path``, valid by the schema.

    Raises:
        PackageError, InputError, BackendMissing: the package cannot be read, or its signature is not a trusted one's.
        EnvironmentMissing: the library of CycloneDX is not here. ConfigError: ``SOURCE_DATE_EPOCH`` is no time.
    """
    from dlx_deploy.runtime.package.archive import parse_archive, read_bytes
    from dlx_deploy.runtime.package.contents import parse_package
    from dlx_deploy.runtime.package.trust import trust_of_machine

    data, trust = read_bytes(path), trust or trust_of_machine()
    if trust:
        trust.verify(data, path)
    files = parse_archive(data, str(path))
    document = _document(
        parse_package(files, str(path)), _steps(files.get(MANIFEST, b"{}")), hashlib.sha256(data).hexdigest()
    )
    _check(document)
    return SbomView(document, where)


def _check(document: Json) -> None:
    """Holds the document to the schema, by the library."""
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError as e:
        raise EnvironmentMissing(
            f"a bill of materials needs cyclonedx-python-lib ({said(e)}); {install_command('sbom')}"
        ) from e
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    assert wrong is None, wrong


def _document(package: Package, steps: Json, sha256: str) -> Json:
    teacher = _teacher(package, steps)
    data = list(_data(steps))
    libraries = [*_needed(), *_tools(steps)]
    scores = {"performanceMetrics": _scores(package)}
    card = {"modelParameters": _parameters(package, data), "quantitativeAnalysis": scores}
    model: Json = {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": package.name,
        "version": package.version,
        "description": f"{_task(package)} for {package.target}, {package.meta['precision']['plan']}",
        "hashes": _sha256(sha256),
        "modelCard": card,
        "properties": _properties(
            {
                "digest": package.digest,
                "target": package.target,
                "precision": package.meta["precision"]["plan"],
                "gate": _table(package.meta["accuracy"].get("gate")).get("text", ""),
            }
        ),
        "components": [_member(name, entry) for name, entry in sorted(package.meta["files"].items())],
    }
    if teacher:
        model["pedigree"] = {"ancestors": teacher}
    others = [*data, *libraries]
    needed = [one["bom-ref"] for one in others if one.get("scope") == "required"]
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256)}",
        "version": 1,
        "metadata": {
            **_timestamp(),
            "tools": {"components": [{"type": "application", "name": "dlx-deploy", "version": __version__}]},
            "component": model,
        },
        "components": others,
        "dependencies": [{"ref": MODEL, "dependsOn": needed}],
    }


def _parameters(package: Package, data: list[Json]) -> Json:
    return {
        "approach": {"type": "supervised"},
        "task": _task(package),
        "datasets": [{"ref": one["bom-ref"]} for one in data],
        "inputs": [{"format": _format(one.to_dict(package.batch))} for one in package.inputs.values()],
        "outputs": [{"format": _format(one.to_dict(package.batch))} for one in package.outputs.values()],
    }


def _task(package: Package) -> str:
    return package.task.name


def _format(tensor: Mapping[str, Any]) -> str:
    shape = ", ".join(map(str, tensor["shape"]))
    return f"{tensor['name']}: {tensor['dtype']}[{shape}]{' ' + tensor['layout'] if tensor.get('layout') else ''}"


def _scores(package: Package) -> list[Json]:
    """What was measured of the model that is shipped, and of its teacher."""
    accuracy = package.meta["accuracy"]
    shipped, title = accuracy.get("shipped"), str(accuracy.get("title") or accuracy.get("metric") or "accuracy")
    rows = accuracy.get("rows") if isinstance(accuracy.get("rows"), list) else []
    return [
        {"type": title, "value": str(row.get("score")), "slice": f"test split, n = {accuracy.get('n')}: {row['model']}"}
        for row in rows
        if isinstance(row, dict) and row.get("model") in (shipped, "teacher")
    ]


def _teacher(package: Package, steps: Json) -> list[Json]:
    """The network that the package's was judged by, by its ONNX file."""
    digest = _table(_table(steps.get("verify")).get("inputs")).get("teacher")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        return []
    network = _table(_table(steps.get("teacher")).get("params"))
    properties = {key: network[key] for key in ("model", "checkpoint", "epochs") if network.get(key)}
    one: Json = {"type": "machine-learning-model", "name": f"{package.name} teacher", "hashes": _sha256(digest)}
    return [{**one, "properties": _properties(properties)}]


def _data(steps: Json) -> Iterator[Json]:
    """The data set, as the step that read it was asked for it."""
    step = _table(steps.get("data"))
    params = _table(step.get("params"))
    if not params:
        return
    digests = {f"source.{name}": value for name, value in _table(step.get("inputs")).items()}
    made = _table(_table(steps.get("teacher")).get("inputs")).get("data")
    kind = str(params.get("kind", "data"))
    yield {
        "type": "data",
        "bom-ref": "data",
        "name": kind,
        "data": [{"type": "dataset", "name": kind}],
        "properties": _properties({**digests, **({"digest": made} if made else {}), "seed": step.get("seed")}),
    }


def _needed() -> Iterator[Json]:
    """What the package needs on a device."""
    from dlx_deploy.runtime.supported import ONNXRUNTIME

    oldest, newest = (".".join(map(str, version)) for version in ONNXRUNTIME)

    for name in NEEDED:
        own = {"supported": f"{oldest} to {newest}"} if name == "onnxruntime" else {}
        yield {
            "type": "library",
            "bom-ref": f"runtime/{name}",
            "name": name,
            "purl": f"pkg:pypi/{name}",
            "scope": "required",
            "properties": _properties(own),
        }


def _tools(steps: Json) -> Iterator[Json]:
    """The libraries that made it, in the versions of the manifest; nothing of them is in the package."""
    seen: dict[tuple[str, str], list[str]] = {}
    for step, made in sorted(steps.items()):
        for name, version in _table(_table(made).get("tool_versions")).items():
            if DISTRIBUTION.fullmatch(name):
                seen.setdefault((name, str(version)), []).append(step)
    for (name, version), users in sorted(seen.items()):
        yield {
            "type": "library",
            "bom-ref": f"build/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower()}@{version.replace('+', '%2B')}",
            "scope": "excluded",
            "properties": _properties({"steps": ", ".join(users)}),
        }


def _member(name: str, entry: Mapping[str, Any]) -> Json:
    return {"type": "file", "bom-ref": f"member/{name}", "name": name, "hashes": _sha256(entry["sha256"])}


def _sha256(digest: str) -> list[Json]:
    return [{"alg": "SHA-256", "content": digest}]


def _properties(values: Mapping[str, object]) -> list[Json]:
    return [{"name": f"dlx-deploy:{name}", "value": str(value)} for name, value in values.items()]


def _timestamp() -> Json:
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if not given:
        return {}
    try:
        return {"timestamp": datetime.fromtimestamp(int(given), timezone.utc).isoformat()}
    except (ValueError, OverflowError, OSError) as e:
        raise ConfigError(f"SOURCE_DATE_EPOCH is {given!r}; must be seconds since 1970, or be unset") from e


def _steps(manifest: bytes) -> Json:
    try:
        return _table(_table(json.loads(manifest)).get("steps"))
    except (ValueError, RecursionError):  # made by other means
        return {}


def _table(value: object) -> Json:
    return value if isinstance(value, dict) else {}

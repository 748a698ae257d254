"""A report of a build, from its manifest and from what of its outputs is still there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import UNSET

from dlx_deploy.config import Config
from dlx_deploy.errors import StoreError
from dlx_deploy.pipeline.manifest import Manifest, StepEntry
from dlx_deploy.pipeline.record import Corrupt
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.page.facts import DataSeen, Models, Origin, Outputs, Searched, StepSeen, Verdicts, overall
from dlx_deploy.report.page.judged import models_of
from dlx_deploy.report.page.report import BuildReport
from dlx_deploy.report.page.weights import layers_of, quantization_of
from dlx_deploy.report.proven import settled_gates
from dlx_deploy.report.table import LOST

__all__ = ["config_of", "flat", "outputs_of", "report_of_build"]


def outputs_of(manifest: Manifest, store: Store) -> Outputs:
    """Of each step of a build what the store still has, and no other run's: the same key may have been timed again.

    Raises:
        StoreError: what a step wrote is damaged.
    """
    found: dict[str, dict[str, Path]] = {}
    for entry in manifest.steps:
        record = store.find(entry.key)
        if isinstance(record, Corrupt):
            raise StoreError(
                f"{store.root}: what {entry.step} wrote is damaged ({record.what}); build again with --deep, which "
                "makes damaged steps anew"
            )
        there = record.outputs if record else {}
        same = [name for name, output in entry.outputs.items() if name in there and there[name].digest == output.digest]
        found[entry.step] = {name: store.output_path(entry.key, name) for name in same}
    return found


def config_of(manifest: Manifest) -> Config | None:
    """The configuration of a build; ``None`` where another version of dlx-deploy wrote what this one does not take."""
    try:
        return msgspec.convert(manifest.config, Config)
    except msgspec.ValidationError:
        return None


def report_of_build(
    manifest: Manifest, outputs: Outputs, package: Path | None = None, search: Searched | None = None
) -> BuildReport:
    """What is known of a build. ``package``: where it is, if there is one; ``search``: what chose its configuration."""
    config, gates = config_of(manifest), settled_gates(manifest)
    whole = manifest.config if isinstance(manifest.config, dict) else {}
    target = manifest.target if isinstance(manifest.target, dict) else {}
    return BuildReport(
        name=str(whole.get("name", "")),
        version=str(whole.get("version", "")),
        target=manifest.target_name,
        target_title=str(target.get("title", "")),
        verdicts=Verdicts(
            outcome=overall(manifest.status, gates),
            status=manifest.status,
            error=manifest.error,
            gates=gates,
            notes=manifest.notes,
            boards=manifest.proofs,
        ),
        models=_models(config, outputs),
        layers=layers_of(outputs),
        quantization=quantization_of(outputs),
        search=search,
        data_set=_data(manifest, outputs),
        steps=tuple(map(_step, manifest.steps)),
        origin=_origin(manifest, package),
    )


def _models(config: Config | None, outputs: Outputs) -> Models | None:
    verify = outputs.get("verify", {})
    if config is None or not {"accuracy.json", "latency.json"} <= verify.keys():
        return None
    return models_of(config, verify)


def _data(manifest: Manifest, outputs: Outputs) -> DataSeen | None:
    entry = next((entry for entry in manifest.steps if entry.step == "data"), None)
    if entry is None:
        return None
    header = _Header()
    folder = outputs.get("data", {}).get("data")
    if folder is not None and (folder / "dataset.json").is_file():
        header = msgspec.json.decode((folder / "dataset.json").read_bytes(), type=_Header)
    return DataSeen(
        kind=str(entry.document.params.get("kind", "")),
        classes=header.classes,
        splits=header.splits or _counts(entry),
        findings={name: round(entry.metrics[name]) for name in LOST if entry.metrics.get(name)},
    )


class _Header(msgspec.Struct, frozen=True):
    """Of ``dataset.json`` what every task has."""

    classes: tuple[str, ...] = ()
    splits: dict[str, int] = {}


def _counts(entry: StepEntry) -> dict[str, int]:
    """The splits by what the step counted: ``test_images``."""
    names = ("train", "calibration", "validation", "test")
    counted = ((name, key) for name in names for key in entry.metrics if key.startswith(f"{name}_"))
    return {name: round(entry.metrics[key]) for name, key in counted}


def _step(entry: StepEntry) -> StepSeen:
    return StepSeen(
        step=entry.step,
        status=entry.status,
        why=entry.why,
        key=entry.key,
        started=entry.started,
        seconds=entry.seconds,
        peak_memory_mib=None if entry.peak_memory_mib is UNSET else entry.peak_memory_mib,
        size_bytes=sum(output.size_bytes for output in entry.outputs.values()),
        metrics=entry.metrics,
        digests={name: output.digest for name, output in entry.outputs.items()},
        inputs=entry.document.inputs,
        tools=entry.tools,
        curves={} if entry.curves is UNSET else entry.curves,
    )


def _origin(manifest: Manifest, package: Path | None) -> Origin:
    facts = {
        "dlx-deploy": manifest.dlx_deploy,
        "target": manifest.target_name,
        "build started": manifest.started,
        "build took": f"{manifest.seconds:.1f} s",
    }
    if package is not None:
        facts |= {
            "package": package.name,
            "package size": f"{package.stat().st_size:,} bytes",
            "package SHA-256": hashlib.sha256(package.read_bytes()).hexdigest(),
        }
    machines = {"built on": manifest.host, "measured on": manifest.device or {}}
    known = ((f"{did}: {key}", value) for did, of in machines.items() for key, value in flat(of))
    facts |= {name: value for name, value in known if value not in ("", "null")}
    tools = {name: version for entry in manifest.steps for name, version in entry.tools.items()}
    return Origin(facts=facts, tools=dict(sorted(tools.items())), config=dict(flat(manifest.config)))


def flat(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every value below ``value`` under its dotted key, as JSON writes it; empty tables and lists have none."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from flat(below, f"{key}.{name}" if key else str(name))
    elif value not in ([], ()):
        yield key, value if isinstance(value, str) else msgspec.json.encode(value).decode()

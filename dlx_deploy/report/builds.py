"""Builds as people look at them: what one came to, what one would do, why, and how the newest ones went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.collect import Collected
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.manifest import Manifest, latest_manifests
from dlx_deploy.pipeline.plan import Build, Planned
from dlx_deploy.pipeline.plan import plan as plan_build
from dlx_deploy.pipeline.run import BuildResult
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.results import draw_results, read_results
from dlx_deploy.report.table import LOST, format_age, format_bytes, format_seconds, format_table
from dlx_deploy.runtime.words import line

__all__ = ["describe_collected", "describe_plan", "describe_status", "explain_stage", "summarise"]


def summarise(
    config: Config, result: BuildResult, package: Path | None, superseded: Path | None = None
) -> tuple[dict[str, Any], str]:
    """What a build came to, as data and as text.

    ``package`` is None where a gate stopped it; ``superseded`` is then where an earlier build's package was moved to.
    """
    manifest = result.manifest
    ran = sum(entry.status == "ran" for entry in manifest.steps)
    cached = len(manifest.steps) - ran
    results = read_results(manifest.target_name, result.outputs["verify"], config.gate, package is not None)
    summary: dict[str, Any] = {
        "target": manifest.target_name,
        "status": manifest.status,
        "package": None,
        "superseded": str(superseded) if superseded else None,
        "seconds": manifest.seconds,
        "ran": ran,
        "cached": cached,
        "results": msgspec.to_builtins(results),
        "gates": msgspec.to_builtins(manifest.gates),
        "notes": list(manifest.notes),
    }
    missed = [gate.gate for gate in manifest.gates if gate.verdict in ("fail", "undecided")]
    made = f"no package: a gate did not pass ({', '.join(missed)})"
    if superseded:
        made += f"; that of an earlier build is now {superseded}"
    if package is not None:
        size, teacher = package.stat().st_size, next(r for r in results.rows if r.model == "teacher")
        ratio = teacher.size_bytes / size
        made = f"{line(str(package))}  {format_bytes(size)}, the teacher's ONNX is {ratio:.1f} times as large"
        summary |= {"package": str(package), "size_bytes": size, "teacher_size_ratio": ratio}
    engine = msgspec.json.decode((result.outputs["compile"]["engine"] / "report.json").read_bytes())
    summary["engine"] = {
        key: value for key, value in engine.items() if key in ("status", "builder", "layers", "reason")
    }
    recipe = msgspec.json.decode(result.outputs["compile"]["recipe.json"].read_bytes())
    summary["precision"] = {"plan": recipe["precision"], "reason": recipe["reason"]}
    said = f"Precision: {recipe['precision'].upper()}; {recipe['reason']}.\n"
    said += f"{_engine_line(engine)}\n" if engine["status"] != "none" else ""
    gates = "".join(f"Gate {gate.gate}: {gate.verdict}.\n" for gate in manifest.gates)
    done = f"{ran} stages ran, {cached} cached, {format_seconds(manifest.seconds)}"
    text = f"{draw_results(results)}\n{gates}{_data_line(manifest)}{said}{made}; {done}"
    return summary, text


def _data_line(manifest: Manifest) -> str:
    """What of the user's data was not used, or stands where it should not; empty where there is nothing to say."""
    metrics = next((entry.metrics for entry in manifest.steps if entry.step == "data"), {})
    said = [f"{metrics[name]:.0f} {name.replace('_', ' ')}" for name in LOST if metrics.get(name)]
    return f"Data: {', '.join(said)}.\n" if said else ""


def _engine_line(engine: dict[str, Any]) -> str:
    done = "in the package, built" if engine["status"] == "shipped" else "built on the board; compiled here as a check"
    return f"Engine: {done} by {engine['builder']}: {engine['layers']}."


def describe_plan(builds: Sequence[Build], store: Store) -> tuple[Any, str]:
    """Each step of each target with hit or run and why, as data and as a table."""
    data, rows, seen = [], [], set[Any]()
    for build in builds:
        for planned in plan_build(build, store):
            data.append({"target": build.target_name, **_planned(planned)})
            stage = planned.step.stage
            looks_at = [getattr(build.target, field) for field in stage.uses]
            shared = repr((planned.step.name, looks_at, build.device is not None and stage.measures_host, planned.why))
            if shared not in seen:
                seen.add(shared)
                rows.append([planned.step.name, planned.action, planned.why, build.target_name])
    store.save_digests()
    return data, format_table(["stage", "", "why", "first needed for"], rows)


def _planned(planned: Planned) -> dict[str, Any]:
    return {"step": planned.step.name, "action": planned.action, "why": planned.why, "key": planned.key}


def explain_stage(builds: Sequence[Build], store: Store, name: str) -> tuple[Any, str]:
    """Why the step ``name`` would run or not, and its key document.

    Raises:
        ConfigError: there is no such step.
    """
    names = list(dict.fromkeys(step.name for build in builds for step in build.steps))
    if name not in names:
        raise ConfigError(f"no stage {name!r}; {nearest(name, names)}")
    data, lines = [], []
    for build in builds:
        planned = next(p for p in plan_build(build, store) if p.step.name == name)
        document = msgspec.to_builtins(planned.document)
        data.append({"target": build.target_name, **_planned(planned), "document": document})
        lines.append(line(f"{name} for {build.target_name}: {planned.action}: {planned.why}"))
        if planned.document is not None:
            lines += [f"key {planned.key}", canonical_json(planned.document).decode().rstrip()]
    return data, "\n".join(lines)


def describe_status(store: Path) -> tuple[Any, str]:
    """The newest build of each target, as data and as text.

    Raises:
        ConfigError: nothing was built in this store.
    """
    manifests = latest_manifests(Store(store))
    if not manifests:
        raise ConfigError(f"no build in {store}; start one with: dlx-deploy build --target jetson")
    return msgspec.to_builtins(manifests), "\n\n".join(map(_draw_manifest, manifests.values()))


def _draw_manifest(manifest: Manifest) -> str:
    rows = [
        [
            e.step,
            e.status,
            format_seconds(e.seconds),
            format_bytes(sum(o.size_bytes for o in e.outputs.values())),
            e.why,
        ]
        for e in manifest.steps
    ]
    lines = [
        f"{manifest.target_name}: {manifest.status}, started {manifest.started}, {format_seconds(manifest.seconds)}",
        format_table(["stage", "", "took", "size", "why"], rows, right=(2, 3)),
        *(f"gate {gate.gate}: {gate.verdict}. {gate.text}" for gate in manifest.gates),
    ]
    lines += [line(f"note {note}") for note in manifest.notes]
    if manifest.status == "interrupted":  # somebody's wish, not an error
        return "\n".join([*lines, "interrupted; finished stages are kept: build again to go on"])
    return "\n".join([*lines, line(f"error: {manifest.error}")] if manifest.error else lines)


_LISTED = 40
"""So many removed entries are listed for people; ``--json`` has all."""


def describe_collected(found: Collected, dry_run: bool) -> str:
    """What garbage collection removed, as a table with the oldest first, and a line that adds it up."""
    verb = "would free" if dry_run else "freed"
    total = f"{verb} {format_bytes(found.freed_bytes)}: {len(found.removed)} entries; {found.kept} are kept"
    if not found.removed:
        return total
    rows = [
        [e.step or "(unfinished)", e.target_name or "-", format_age(e.age_s), format_bytes(e.size_bytes), e.key[:12]]
        for e in found.entries[:_LISTED]
    ]
    more = len(found.removed) - len(rows)
    table = format_table(["stage", "first built for", "age", "size", "key"], rows, right=(2, 3))
    return "\n".join([table, *([f"… and {more} more; --json lists all"] if more else []), total])

"""What the commands do: from a configuration and target names to packages, plans and explanations."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dlx_deploy.config import Config, Data, load_config
from dlx_deploy.errors import ConfigError, StoreError
from dlx_deploy.pipeline.collect import collect_garbage
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.key import key_of
from dlx_deploy.pipeline.manifest import Manifest, latest_manifests
from dlx_deploy.pipeline.plan import Build, Planned
from dlx_deploy.pipeline.plan import plan as plan_build
from dlx_deploy.pipeline.run import BuildResult, Watcher, run_build
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.live import LiveWatcher, QuietWatcher
from dlx_deploy.report.results import draw_results, read_results
from dlx_deploy.report.table import format_bytes, format_seconds, format_table
from dlx_deploy.stages.recipe import build_for
from dlx_deploy.strict import nearest
from dlx_deploy.targets import load_target

__all__ = [
    "Built",
    "Work",
    "build_packages",
    "collect",
    "describe_plan",
    "describe_status",
    "explain_stage",
    "find_config",
    "labelled_data",
    "load_job",
]


@dataclass(frozen=True)
class Work:
    """A configuration with its targets resolved. ``notes`` are said before anything is done."""

    config: Config
    builds: tuple[Build, ...]
    store: Store
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """One finished package: where it is, and its summary for ``--json`` and for people."""

    path: Path
    summary: dict[str, Any]
    text: str


def find_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration at ``path``, else ./deploy.toml if there is one, else the built-in one.

    Raises:
        ConfigError: see ``load_config``.
    """
    default = Path("deploy.toml")
    return load_config(path or (default if default.is_file() else None), overrides)


def load_job(
    config: Path | None,
    targets: Sequence[str] | None,
    overrides: Sequence[str] | None,
    store: Path,
    deep: bool = False,
) -> Work:
    """Everything resolved and checked that can be before any stage runs.

    Raises:
        ConfigError: the configuration, an override or a target name is not valid.
    """
    loaded = find_config(config, overrides or ())
    found = [load_target(name) for name in dict.fromkeys(targets or loaded.targets)]
    builds = tuple(build_for(loaded, target.profile) for target in found)
    notes = tuple(target.note for target in found if target.note)
    return Work(loaded, builds, Store(store, deep), notes)


def build_packages(work: Work, output: Path, quiet: bool = False) -> Iterator[Built]:
    """Build target after target; what they share is built once."""
    for build in work.builds:
        with _watcher(quiet) as watch:
            result = run_build(build, work.store, watch)
        yield _deliver(work, build, result, output)


@contextlib.contextmanager
def _watcher(quiet: bool) -> Iterator[Watcher]:
    if quiet:
        yield QuietWatcher()
        return
    from rich.console import Console

    with LiveWatcher(Console(stderr=True)) as live:
        yield live


def _deliver(work: Work, build: Build, result: BuildResult, output: Path) -> Built:
    config = work.config
    name = f"{config.name}-{config.version}-{build.target_name}"
    package, manifest = output / f"{name}.dlx", output / f"{name}.manifest.json"
    try:
        output.mkdir(parents=True, exist_ok=True)
        _copy(result.outputs["package"]["package.dlx"], package)
        manifest.write_bytes(canonical_json(result.manifest))
    except OSError as e:
        raise StoreError(f"{output}: {e.strerror}; the stages are kept: name another folder with --output") from e
    results = read_results(build.target_name, result.outputs["verify"], config.gate)
    size, teacher = package.stat().st_size, next(r for r in results.rows if r.model == "teacher")
    ran = sum(entry.status == "ran" for entry in result.manifest.steps)
    summary = {
        "package": str(package),
        "manifest": str(manifest),
        "size_bytes": size,
        "teacher_size_ratio": teacher.size_bytes / size,
        "seconds": result.manifest.seconds,
        "ran": ran,
        "cached": len(result.manifest.steps) - ran,
        "results": msgspec.to_builtins(results),
        "gates": msgspec.to_builtins(result.manifest.gates),
    }
    text = (
        f"{draw_results(results)}\n{package}  {format_bytes(size)}, the teacher's ONNX is "
        f"{teacher.size_bytes / size:.1f} times as large; {ran} stages ran, {len(result.manifest.steps) - ran} cached, "
        f"{format_seconds(result.manifest.seconds)}"
    )
    return Built(package, summary, text)


def _copy(source: Path, target: Path) -> None:
    """Copy so that ``target`` is the old file or the whole new one."""
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as out, source.open("rb") as data:
            shutil.copyfileobj(data, out)
        os.chmod(aside, 0o644)
        os.replace(aside, target)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def describe_plan(work: Work) -> tuple[Any, str]:
    """Each step of each target with hit or run and why, as data and as a table."""
    data, rows, seen = [], [], set[Any]()
    for build in work.builds:
        for planned in plan_build(build, work.store):
            data.append({"target": build.target_name, **_planned(planned)})
            stage = planned.step.stage
            looks_at = [getattr(build.target, field) for field in stage.uses]
            shared = repr((planned.step.name, looks_at, build.target_is_host and stage.measures_host, planned.why))
            if shared not in seen:
                seen.add(shared)
                rows.append([planned.step.name, planned.action, planned.why, build.target_name])
    work.store.save_digests()
    return data, format_table(["stage", "", "why", "first needed for"], rows)


def _planned(planned: Planned) -> dict[str, Any]:
    return {"step": planned.step.name, "action": planned.action, "why": planned.why, "key": planned.key}


def explain_stage(work: Work, name: str) -> tuple[Any, str]:
    """Why the step ``name`` would run or not, and its key document.

    Raises:
        ConfigError: there is no such step.
    """
    names = list(dict.fromkeys(step.name for build in work.builds for step in build.steps))
    if name not in names:
        raise ConfigError(f"no stage {name!r}; {nearest(name, names)}")
    data, lines = [], []
    for build in work.builds:
        planned = next(p for p in plan_build(build, work.store) if p.step.name == name)
        document = msgspec.to_builtins(planned.document)
        data.append({"target": build.target_name, **_planned(planned), "document": document})
        lines.append(f"{name} for {build.target_name}: {planned.action}: {planned.why}")
        if planned.document is not None:
            assert planned.key == key_of(planned.document)
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
    return "\n".join([*lines, f"error: {manifest.error}"] if manifest.error else lines)


def collect(config: Config, store: Path, dry_run: bool) -> tuple[Any, str]:
    """Garbage collection that keeps what the newest builds and ``config`` need."""
    opened = Store(store)
    builds = [build_for(config, load_target(name).profile) for name in config.targets]
    keep = [p.key for build in builds for p in plan_build(build, opened) if p.key is not None]
    found = collect_garbage(opened, keep, dry_run)
    verb = "would free" if dry_run else "freed"
    text = f"{verb} {format_bytes(found.freed_bytes)}: {len(found.removed)} entries; {found.kept} are kept"
    return msgspec.to_builtins(found), text


@contextlib.contextmanager
def labelled_data(data: str, package: Path) -> Iterator[Path]:
    """The folder that ``--data`` means; ``digits`` is made afresh with the seed that the package was built with."""
    if data != "digits" or Path(data).exists():
        yield Path(data)
        return
    from dlx_deploy.nn.data.prepare import prepare
    from dlx_deploy.runtime.archive import read_archive

    made = msgspec.json.decode(read_archive(package)["manifest.json"])["steps"]["data"]
    with tempfile.TemporaryDirectory() as folder:
        prepare(msgspec.convert(made["params"], Data), Path(folder), made["seed"])
        yield Path(folder)

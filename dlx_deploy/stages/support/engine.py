"""What the compile stage does with TensorRT: which builder is here, what it is told, and what came of it.

Three outcomes: the engine is *shipped* (TensorRT-RTX builds ahead of time for a GPU that is not here; TensorRT where
the target's GPU is here), or the graph is only *checked* (TensorRT-RTX stands in for the TensorRT of a board), or
there is *none*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlx_deploy.config import Compile, Config, Quantize
from dlx_deploy.devices.choice import has_gpu_of
from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job, Metrics
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.runtime.filenames import MODEL, PLAN, SIDECAR
from dlx_deploy.stages.support.layer_precisions import LayerPrecisions
from dlx_deploy.targets import Profile

if TYPE_CHECKING:
    from dlx_deploy.runtime.engine.build import BuiltEngine

__all__ = ["CompileParams", "Outcome", "build_settings", "builder_for", "compile_engine", "missing_builder"]

_REPORT_SCHEMA = 1
"""Of ``engine/report.json``."""

Outcome = Literal["shipped", "checked", "none"]
RTX, TENSORRT = "tensorrt-rtx", "tensorrt"


class CompileParams(Compile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section's keys, and those of others that the choice depends on."""

    precision: str = Quantize().precision
    threads: int = 1
    batch: Literal["dynamic"] | int = "dynamic"
    builder: str = ""


def builder_for(config: Config, profile: Profile) -> str:
    """The builder that the compile stage uses, as ``flavour version``; empty where there is none or none is wanted.

    Raises:
        EnvironmentMissing: ``compile.engine`` is 'required' and no builder is here.
        ConfigError: the configuration asks for a DLA core that the target has not.
    """
    _refuse_dla(config, profile)
    if config.compile.engine == "required" and not profile.builds_engines:
        raise ConfigError(
            f"compile.engine is 'required', and {profile.name} ({profile.kind}) runs no engine that can be built; "
            "set 'auto'"
        )
    if config.compile.engine == "off" or not profile.builds_engines:
        return ""
    here = _installed(TENSORRT) if profile.kind == TENSORRT and has_gpu_of(profile) else ""
    here = here or _installed(RTX)
    if not here and config.compile.engine == "required":
        raise EnvironmentMissing(f"compile.engine is 'required', and tensorrt-rtx is not installed; {_install()}")
    return here


def missing_builder(config: Config, profile: Profile) -> str:
    """What to say before a build that wants an engine and has no builder; empty if there is nothing to say."""
    if config.compile.engine != "auto" or not profile.builds_engines or builder_for(config, profile):
        return ""
    effect = "the package holds no engine" if profile.kind == RTX else "the graph is not compiled as a check"
    return f"{profile.name}: tensorrt-rtx is not installed, so {effect}; {_install()}"


def _install() -> str:
    return f"install it with: {install_command(RTX)}"


def build_settings(job: Job[CompileParams], asked: LayerPrecisions) -> BuildSettings | None:
    """What the device's builder is told; ``None`` where nothing builds an engine."""
    from dlx_deploy.graph.analysis.sparsity import two_four_layers
    from dlx_deploy.graph.model import load

    target, params = job.target, job.params
    if not target.builds_engines:
        return None
    sizes = (params.batch,) * 3 if isinstance(params.batch, int) else (1, params.opt_batch, params.max_batch)
    sparse = bool(target.sparsity_2_4 and two_four_layers(load(job.inputs["quantized"])))
    rtx = target.kind == RTX
    return BuildSettings(
        flavour=target.kind,
        precision=asked.precision,
        batch=sizes,
        strongly_typed=asked.strongly_typed,
        weak_types=() if asked.strongly_typed else (asked.precision, asked.elsewhere),
        layers={name: kind for name, kind in asked.layers.items() if kind != "fp32"},
        workspace_mib=target.workspace_mib,
        sparse_weights=sparse,
        dla_core=params.dla_core if params.dla_core >= 0 else None,
        version_compatible=params.version_compatible,
        hardware_compatible=params.hardware_compatible,
        optimization_level=params.optimization_level if params.optimization_level >= 0 else None,
        compute_capabilities=(target.engine_capabilities or (target.compute_capability,)) if rtx else (),
    )


def compile_engine(job: Job[CompileParams], settings: BuildSettings | None) -> tuple[Outcome, Metrics]:
    """Write ``engine/`` (``report.json``, and the engine with its sidecar if it is shipped); the outcome and metrics.

    Raises:
        EngineError: the graph cannot be built, or a layer came out in another precision than asked for.
    """
    folder = job.out / "engine"
    folder.mkdir()
    flavour = job.params.builder.partition(" ")[0]
    if settings is None or not flavour:
        reason = "nothing on the target builds one" if settings is None else "no builder is installed, or none wanted"
        _report(folder, {"status": "none", "reason": reason})
        return "none", {}
    shipped = flavour == settings.flavour
    built = _build(job, settings if shipped else _as_check(settings), folder, shipped)
    shares = {f"engine_{kind}_share": share for kind, share in built.table.shares().items()}
    metrics = {
        **shares,
        "engine_reformats": float(built.table.reformats),
        "engine_build_s": built.build_s,
        "engine_peak_memory_mib": built.peak_memory_mib,
        "engine_size_bytes": float(len(built.plan)),
    }
    return ("shipped" if shipped else "checked"), metrics


def _build(job: Job[CompileParams], settings: BuildSettings, folder: Path, shipped: bool) -> BuiltEngine:
    from dlx_deploy.runtime.engine.build import build_engine

    def watch(phase: str, done: int, total: int) -> None:
        job.progress(done, max(total, 1), f"{settings.flavour}: {phase}")

    job.progress(0, 0, f"{settings.flavour} starts")
    built = build_engine((job.out / MODEL).read_bytes(), settings, progress=watch)
    report = {
        "status": "shipped" if shipped else "checked",
        "builder": f"{built.flavour} {built.version}",
        "layers": built.table.describe(),
        "precision": built.table.to_dict(),
        "warnings": list(dict.fromkeys(built.warnings)),
        "ignored": list(built.ignored),
    }
    _report(folder, report)
    if shipped:
        _ship(job, built, settings, folder)
    return built


def _ship(job: Job[CompileParams], built: BuiltEngine, settings: BuildSettings, folder: Path) -> None:
    from dlx_deploy.runtime.engine.sidecar import EngineKey, make_sidecar, this_machine, to_bytes

    if settings.flavour == RTX:
        key = EngineKey(
            flavour=RTX,
            version=built.version,
            compute_capability=",".join(settings.compute_capabilities),
            system="Linux",
            arch=job.target.arch,
        )
    else:
        key = this_machine(None, built.flavour, built.version)
    (folder / PLAN).write_bytes(built.plan)
    (folder / SIDECAR).write_bytes(to_bytes(make_sidecar(key, settings, built, timed=settings.flavour != RTX)))


def _report(folder: Path, values: Mapping[str, object]) -> None:
    (folder / "report.json").write_bytes(canonical_json({"schema": _REPORT_SCHEMA, **values}))


def _as_check(settings: BuildSettings) -> BuildSettings:
    """The same graph for TensorRT-RTX's default GPU, without what only a board's own TensorRT knows."""
    return replace(
        settings,
        flavour=RTX,
        strongly_typed=True,
        weak_types=(),
        sparse_weights=False,
        dla_core=None,
        version_compatible=False,
        hardware_compatible=False,
        optimization_level=None,
        compute_capabilities=(),
    )


def _installed(flavour: str) -> str:
    """``flavour version`` if its Python package is installed; nothing is imported."""
    try:
        return f"{flavour} {metadata.version(flavour)}"
    except metadata.PackageNotFoundError:
        return ""


def _refuse_dla(config: Config, profile: Profile) -> None:
    core = config.compile.dla_core
    if core >= profile.dla.cores and core >= 0:
        raise ConfigError(
            f"compile.dla_core is {core}; {profile.name} has {profile.dla.cores} DLA cores, numbered from 0; set -1"
        )

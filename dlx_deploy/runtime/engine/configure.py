"""Build settings as calls on a builder's configuration; a call that this TensorRT lacks is never made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, List, Mapping

from ..errors import EngineError
from ..untyped import Foreign
from .settings import BuildSettings

if TYPE_CHECKING:
    from .api import Api

__all__ = ["add_profile", "configure"]

MIB = 1024**2
Features = Mapping[str, bool]
"""What this TensorRT has, as ``Api.features`` says."""


def configure(
    api: Api,
    builder: Foreign,
    config: Foreign,
    settings: BuildSettings,
    workspace_mib: int,
    progress: Callable[..., None],
) -> List[str]:
    """Sets everything but the optimisation profile; what has no effect here, as sentences.

    Raises:
        EngineError: a setting that would make another engine cannot be honoured.
    """
    trt, has, name = api.module, api.features(), f"{api.flavour} {api.version}"
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if has["progress_monitor"]:
        config.progress_monitor = _monitor(trt, progress)
    for kind in settings.weak_flags(has):
        config.set_flag(getattr(trt.BuilderFlag, kind.upper()))
    _set_dla(trt, builder, config, settings, has, name)
    _set_compatibility(trt, config, settings, has, name)
    _set_capabilities(trt, config, settings, has, name)
    ignored = _set_workspace(api, config, workspace_mib, has)
    if settings.sparse_weights:
        if has["sparse_weights"]:
            config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
        else:
            ignored.append(f"sparse_weights: {name} has no sparse kernels to choose")
    if settings.optimization_level is not None:
        if has["optimization_level"]:
            config.builder_optimization_level = settings.optimization_level
        else:
            ignored.append(f"optimization_level: {name} has none")
    return ignored


def add_profile(builder: Foreign, network: Foreign, config: Foreign, settings: BuildSettings) -> None:
    """The optimisation profile of the batch size, if it is dynamic.

    Raises:
        EngineError: another dimension is dynamic, or the fixed batch is not the one in ``settings``.
    """
    profile = None
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = list(tensor.shape)
        if any(size < 0 for size in shape[1:]):
            raise EngineError(
                f"the input {tensor.name!r} has the shape {shape}; only its first dimension, the batch, may be dynamic"
            )
        if shape[0] >= 0:
            if set(settings.batch) != {shape[0]}:
                raise EngineError(
                    f"the input {tensor.name!r} has the fixed batch {shape[0]}, and the settings ask for "
                    f"{list(settings.batch)}; they must agree"
                )
            continue
        profile = profile or builder.create_optimization_profile()
        profile.set_shape(tensor.name, *((batch, *shape[1:]) for batch in settings.batch))
    if profile is not None:
        config.add_optimization_profile(profile)


def _set_workspace(api: Api, config: Foreign, limit_mib: int, has: Features) -> List[str]:
    if not limit_mib:
        return []
    if api.flavour == "tensorrt-rtx":
        return [f"workspace_mib: {api.flavour} {api.version} chooses no tactics by it"]
    if has["memory_pool"]:
        config.set_memory_pool_limit(api.module.MemoryPoolType.WORKSPACE, limit_mib * MIB)
    else:
        config.max_workspace_size = limit_mib * MIB
    return []


def _set_dla(
    trt: Foreign, builder: Foreign, config: Foreign, settings: BuildSettings, has: Features, name: str
) -> None:
    if settings.dla_core is None:
        return
    cores = int(builder.num_DLA_cores) if has["dla"] else 0
    if settings.dla_core >= cores:
        raise EngineError(
            f"dla_core is {settings.dla_core}; {name} sees {cores} DLA cores on this machine; leave it out for the GPU"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = settings.dla_core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _set_compatibility(trt: Foreign, config: Foreign, settings: BuildSettings, has: Features, name: str) -> None:
    for key in ("version_compatible", "hardware_compatible"):
        if getattr(settings, key) and not has[key]:
            raise EngineError(f"{key} is true; {name} builds no such engine; set it to false")
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _set_capabilities(trt: Foreign, config: Foreign, settings: BuildSettings, has: Features, name: str) -> None:
    """TensorRT-RTX: the GPUs that the engine is compiled for."""
    if not settings.compute_capabilities:
        return
    if not has["compute_capabilities"]:
        raise EngineError(f"compute_capabilities is set; {name} builds for the GPU of this machine alone; leave it out")
    known = {"SM" + c.replace(".", ""): c for c in settings.compute_capabilities}
    wrong = [c for sm, c in known.items() if not hasattr(trt.ComputeCapability, sm)]
    if wrong:
        offered = ", ".join(sorted(c for c in dir(trt.ComputeCapability) if c.startswith("SM")))
        raise EngineError(f"{name} builds for no GPU of compute capability {', '.join(wrong)}; it knows {offered}")
    config.num_compute_capabilities = len(known)
    for i, sm in enumerate(known):
        config.set_compute_capability(getattr(trt.ComputeCapability, sm), i)


def _monitor(trt: Foreign, progress: Callable[[str, int, int], None]) -> Foreign:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes a build's phases on."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: Dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            progress(phase_name, steps, steps)

    return Monitor()

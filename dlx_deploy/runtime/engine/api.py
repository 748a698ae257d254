"""One face of the installed TensorRT, whichever it is: 8.5 to 11, or TensorRT-RTX.

What a version can do is asked of the module itself (has it this flag, this method), never concluded from its number.
"""

from __future__ import annotations

import importlib
from typing import Callable, Dict, Optional, Tuple

from ..backends.names import ENGINES
from ..errors import BackendMissing, EngineError
from ..records import record
from ..untyped import Foreign
from .configure import add_profile, configure
from .messages import logger_of, parse_failure, without_memory
from .settings import BuildSettings

__all__ = ["Api", "RawBuild", "load_api"]

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {
    "tensorrt": "JetPack brings it on a Jetson; elsewhere: pip install tensorrt",
    "tensorrt-rtx": "install it with: pip install tensorrt-rtx",
}
PROGRESS = Callable[[str, int, int], None]


@record
class RawBuild:
    """What a builder gave back.

    ``inspection``: the engine inspector's JSON, ``None`` where the engine cannot be inspected on this machine.
    ``ignored``: settings that this TensorRT has no means for, or takes with no effect, as sentences.
    """

    plan: bytes
    timing_cache: bytes
    inspection: Optional[str]
    warnings: Tuple[str, ...]
    ignored: Tuple[str, ...]


def load_api(flavour: str) -> Api:
    """The TensorRT of this machine.

    Raises:
        BackendMissing: its Python package is not here, or cannot be loaded.
        EngineError: there is no such flavour.
    """
    if flavour not in ENGINES:
        raise EngineError(f"flavour is {flavour!r}; must be one of {', '.join(ENGINES)}")
    try:
        return Api(importlib.import_module(MODULES[flavour]), flavour)
    except (ImportError, OSError) as e:  # OSError: a shared library that it loads itself
        raise BackendMissing(f"{MODULES[flavour]} cannot be imported ({e}); {INSTALL[flavour]}") from e


class Api:
    """The TensorRT ``module``; ``flavour`` is ``tensorrt`` or ``tensorrt-rtx``, ``version`` as the module says it."""

    def __init__(self, module: Foreign, flavour: str) -> None:
        self.module = module
        self.flavour = flavour
        self.version = str(module.__version__)
        self._log = logger_of(module)

    def features(self) -> Dict[str, bool]:
        """What this TensorRT has, by asking it."""
        trt = self.module
        builder_flag, config = trt.BuilderFlag, trt.IBuilderConfig
        network_flag = trt.NetworkDefinitionCreationFlag
        weak = hasattr(builder_flag, "FP16")
        return {
            "explicit_batch_flag": hasattr(network_flag, "EXPLICIT_BATCH"),
            "strongly_typed_flag": hasattr(network_flag, "STRONGLY_TYPED"),
            "weak_types": weak,
            "memory_pool": hasattr(config, "set_memory_pool_limit"),
            "progress_monitor": hasattr(trt, "IProgressMonitor"),
            "timing_cache": hasattr(config, "create_timing_cache") and self.flavour == "tensorrt",
            "sparse_weights": hasattr(builder_flag, "SPARSE_WEIGHTS") and self.flavour == "tensorrt",
            "optimization_level": hasattr(config, "builder_optimization_level") and self.flavour == "tensorrt",
            "version_compatible": hasattr(builder_flag, "VERSION_COMPATIBLE") and self.flavour == "tensorrt",
            "hardware_compatible": hasattr(trt, "HardwareCompatibilityLevel") and self.flavour == "tensorrt",
            "dla": hasattr(config, "DLA_core") and self.flavour == "tensorrt",
            "compute_capabilities": hasattr(config, "set_compute_capability"),
            "runtime_cache": hasattr(trt, "IRuntimeCache"),
        }

    def refused(self, model: bytes) -> str:
        """What the parser does not read of the ONNX ``model``, with the nodes' names; empty where it reads all."""
        self._log.take()
        builder = self.module.Builder(self._log)
        flags = self.module.NetworkDefinitionCreationFlag
        network = builder.create_network(1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0)
        parser = self.module.OnnxParser(network, self._log)
        if parser.parse(model):
            return ""
        return parse_failure(parser, f"{self.flavour} {self.version}", self._log.take())

    def build(
        self, model: bytes, settings: BuildSettings, timing_cache: bytes, workspace_mib: int, progress: PROGRESS
    ) -> RawBuild:
        """The engine for the ONNX ``model``; ``workspace_mib`` is the limit to use, 0 for none.

        Raises:
            EngineError: the graph cannot be parsed or built, or a setting cannot be honoured by this TensorRT.
        """
        self._log.take()
        builder = self.module.Builder(self._log)
        network, ignored = self._network(builder, settings)
        parser = self.module.OnnxParser(network, self._log)
        if not parser.parse(model):
            raise EngineError(parse_failure(parser, f"{self.flavour} {self.version}", self._log.take()))
        config = builder.create_builder_config()
        ignored += configure(self, builder, config, settings, workspace_mib, progress)
        add_profile(builder, network, config, settings)
        cache = self._timing_cache(config, timing_cache)
        memory = builder.build_serialized_network(network, config)
        said = self._log.take()
        if memory is None:
            raise EngineError(self._build_failure(said))
        plan = bytes(memory)
        kept = bytes(cache.serialize()) if cache is not None else b""
        return RawBuild(plan, kept, self._inspection(plan), tuple(text for _, text in said), tuple(ignored))

    def deserialize(self, plan: bytes) -> Foreign:
        """The engine in ``plan``, with its runtime kept alive by it.

        Raises:
            EngineError: TensorRT refuses it.
        """
        self._log.take()
        runtime = self.module.Runtime(self._log)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            said = "; ".join(text for _, text in self._log.take()[-3:]) or "it gives no reason"
            raise EngineError(f"{self.flavour} {self.version} cannot load the engine: {said}")
        return engine

    def inspect(self, engine: Foreign) -> Optional[str]:
        """The inspector's JSON on every layer, ``None`` where there is no inspector."""
        if not hasattr(engine, "create_engine_inspector"):
            return None
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self.module.LayerInformationFormat.JSON))

    def _network(self, builder: Foreign, settings: BuildSettings) -> Tuple[Foreign, list[str]]:
        """The empty network, created as explicit and as strongly typed as the version can."""
        flags = self.module.NetworkDefinitionCreationFlag
        wanted, ignored = 0, []
        if hasattr(flags, "EXPLICIT_BATCH"):
            wanted |= 1 << int(flags.EXPLICIT_BATCH)
        if settings.strongly_typed and hasattr(flags, "STRONGLY_TYPED"):
            wanted |= 1 << int(flags.STRONGLY_TYPED)
        if settings.weak_types and not self.features()["weak_types"]:
            ignored.append(
                f"weak_types: {self.flavour} {self.version} takes every type from the graph, so what is not INT8 there "
                "runs in FP32"
            )
        return builder.create_network(wanted), ignored

    def _timing_cache(self, config: Foreign, known: bytes) -> Foreign:
        if not self.features()["timing_cache"]:
            return None
        cache = config.create_timing_cache(known)
        config.set_timing_cache(cache, False)  # False: one of another GPU is refused, not used
        return cache

    def _inspection(self, plan: bytes) -> Optional[str]:
        """TensorRT-RTX builds where nothing can be loaded; its plan is read instead."""
        return None if self.flavour == "tensorrt-rtx" else self.inspect(self.deserialize(plan))

    def _build_failure(self, said: Foreign) -> str:
        last = "; ".join(text for _, text in said[-4:]) or "it gives no reason"
        remedy = without_memory(last)
        return f"{self.flavour} {self.version} cannot build the engine: {last}{remedy}"

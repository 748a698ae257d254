"""The engine of a package for this machine: the one that it ships, one from the cache, or one built now."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional, Tuple

from ..errors import EngineError, PackageError
from ..package.contents import ENGINE_SIDECAR, Package
from ..records import record
from ..telling import telling
from ..words import shortened
from .api import Api, load_api
from .build import BuiltEngine, build_engine
from .cache import EngineCache, check_shipped, default_folder
from .execute import EngineSession
from .settings import BuildSettings
from .sidecar import EngineKey, Sidecar, read_sidecar, this_machine

__all__ = ["PreparedEngine", "engine_builder", "engine_settings", "open_engine", "prepare_engine"]


@record
class PreparedEngine:
    """An engine that may be loaded here; ``origin`` is ``package``, ``cache`` or ``built``."""

    plan: bytes
    sidecar: Sidecar
    origin: str


def open_engine(package: Package, build: bool, cache: Optional[str], say: Callable[[str], None]) -> EngineSession:
    """A session of the package's engine, built first if need be and if ``build`` allows it.

    Raises:
        BackendMissing: TensorRT, cuda-python, the driver or a GPU is not here.
        EngineError: the engine cannot be built, or would have to be and must not.
        PackageError: the recipe or the shipped engine is damaged.
    """
    settings, api = engine_builder(package)
    prepared = prepare_engine(package, build, cache, say, api)
    folder = Path(cache) if cache else default_folder()
    runtime_cache = folder / "runtime" / f"{prepared.sidecar.plan_sha256}.cache"
    rtx = settings.flavour == "tensorrt-rtx"
    return EngineSession(api, prepared.plan, runtime_cache=runtime_cache if rtx else None)


def prepare_engine(
    package: Package, build: bool, cache: Optional[str], say: Callable[[str], None], api: Optional[Api] = None
) -> PreparedEngine:
    """The package's engine for this machine, without loading it; errors as ``open_engine``."""
    settings = engine_settings(package)
    api = api or load_api(settings.flavour)
    here = this_machine(package.digest, api.flavour, api.version)
    shipped = _shipped(package, here, say)
    if shipped is not None:
        return shipped

    def builder(timing_cache: Path) -> BuiltEngine:
        say(f"building the engine for this machine with {api.flavour} {api.version}; this can take minutes")
        with telling(say, "building the engine") as tell:
            return build_engine(
                package.model, settings, timing_cache, lambda phase, done, total: tell(done, total, phase)
            )

    store = EngineCache(Path(cache) if cache else default_folder())
    cached = store.get(here, settings, builder if build else None, say)
    return PreparedEngine(cached.plan, cached.sidecar, cached.origin)


def engine_builder(package: Package) -> Tuple[BuildSettings, Api]:
    """What the package's engine is built by, and the TensorRT of this machine.

    Raises:
        BackendMissing: it is not here. EngineError, PackageError: as ``engine_settings``.
    """
    settings = engine_settings(package)
    return settings, load_api(settings.flavour)


def engine_settings(package: Package) -> BuildSettings:
    """The build settings in the package's recipe.

    Raises:
        EngineError: the package's target builds no engine.
        PackageError: the recipe is damaged.
    """
    values: object = package.meta["recipe"].get("engine")
    if values is None:
        raise EngineError(
            f"the package is for {package.target}, which runs no TensorRT engine; leave --backend out, or build it for "
            "a target with a GPU"
        )
    if not isinstance(values, dict):
        raise PackageError(f"recipe.engine is {shortened(values)}; must be a table of build settings")
    return BuildSettings.from_dict(values, "recipe.engine")


def _shipped(package: Package, here: EngineKey, say: Callable[[str], None]) -> Optional[PreparedEngine]:
    """The engine in the package if it is for this machine; otherwise ``say`` hears what differs."""
    if package.engine is None or package.engine_sidecar is None:
        return None
    different = check_shipped(package.engine, package.engine_sidecar, here, ENGINE_SIDECAR)
    if different:
        say(f"the engine in the package is not for this machine: {'; '.join(different)}")
        return None
    return PreparedEngine(package.engine, read_sidecar(package.engine_sidecar, ENGINE_SIDECAR), "package")

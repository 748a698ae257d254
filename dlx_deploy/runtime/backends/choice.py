"""What runs a package on this machine: the first backend of the package's order that can, and why the others cannot.

A backend that is not here (no library, no driver, no such GPU) is passed over and said so; one that is here and fails
is an error, never a reason to go on with a slower one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..errors import BackendMissing, InputError, PackageError
from ..package.contents import Package
from ..words import shortened
from .session import open_plugin_session, open_session, version_warning

__all__ = ["BACKENDS", "Backend", "BackendOptions", "open_backend"]

CUDA = ("CUDAExecutionProvider",)
RTX_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"


@dataclass(frozen=True)
class BackendOptions:
    """How a backend is chosen and opened.

    ``backend``: one by name, or ``None`` for the package's order. ``threads``: ONNX Runtime's intra-op count, 0 for its
    own choice. ``build``: whether an engine that is missing or made for another machine may be built, which takes
    minutes; ``cache``: the folder that keeps it (``None``: the user's cache folder).
    """

    backend: Optional[str] = None
    threads: int = 0
    build: bool = True
    cache: Optional[str] = None


@dataclass(frozen=True)
class Backend:
    """An open backend: ``session.run(outputs, feeds)`` gives arrays, as an ``onnxruntime.InferenceSession`` does.

    ``skipped``: why each backend before it was passed over; ``chosen``: whether there was anything to choose from.
    """

    name: str
    session: Any
    skipped: Sequence[str] = ()
    chosen: bool = True

    def describe(self) -> str:
        """The choice and its reasons, for people."""
        return f"backend: {self.name}" + (f" (passed over: {'; '.join(self.skipped)})" if self.skipped else "")


Say = Callable[[str], None]


def open_backend(package: Package, options: BackendOptions, say: Say) -> Backend:
    """The backend that ``options`` name, or the first of the package's order that is here; ``say`` hears of progress.

    Raises:
        BackendMissing: it, or every one of them, is not here.
        InputError: no backend has this name.
        EngineError: TensorRT is here, but the engine cannot be built, or must not be.
        PackageError: the model or the recipe is damaged.
    """
    if options.backend is not None:
        if options.backend not in BACKENDS:
            raise InputError(f"backend is {options.backend!r}; must be one of {', '.join(BACKENDS)}")
        return Backend(options.backend, BACKENDS[options.backend](package, options, say))
    skipped: List[str] = []
    order = _order(package)
    for name in order:
        try:
            return Backend(name, BACKENDS[name](package, options, say), tuple(skipped), len(order) > 1)
        except BackendMissing as e:
            skipped.append(f"{name}: {e}")
    raise BackendMissing(f"nothing on this machine runs the package: {'; '.join(skipped)}")


def _order(package: Package) -> Sequence[str]:
    order = package.meta["recipe"].get("backends", ["onnxruntime-cpu"])
    unknown = [name for name in order if name not in BACKENDS]
    if unknown or not order:
        raise PackageError(f"recipe.backends is {shortened(order)}; must be some of {', '.join(BACKENDS)}")
    return list(order)


def _cpu(package: Package, options: BackendOptions, say: Say) -> Any:
    session = open_session(package.model, package.exact_qdq, options.threads)
    _warn(say)
    return session


def _cuda(package: Package, options: BackendOptions, say: Say) -> Any:
    session = open_session(package.model, package.exact_qdq, options.threads, CUDA)
    _warn(say)
    return session


def _warn(say: Say) -> None:
    warning = version_warning()
    if warning:
        say(f"warning: {warning}")


def _rtx_plugin(package: Package, options: BackendOptions, say: Say) -> Any:
    return open_plugin_session(package.model, RTX_PLUGIN, options.threads)


def _tensorrt(package: Package, options: BackendOptions, say: Say) -> Any:
    from ..engine.open import open_engine

    return open_engine(package, options.build, options.cache, say)


BACKENDS: Dict[str, Callable[[Package, BackendOptions, Say], Any]] = {
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt,
    "onnxruntime-tensorrt-rtx": _rtx_plugin,
    "onnxruntime-cuda": _cuda,
    "onnxruntime-cpu": _cpu,
}
"""Every backend by its name."""

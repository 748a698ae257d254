"""Every backend as a record: how it is opened, and what of it the rest of the runtime has to know.

Nothing else asks for a backend by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple, Type

from ..hazards.operators import Operator, in_exact, in_half, list_operators
from ..records import record
from ..untyped import Array
from .session import onnxruntime_version, open_plugin_session, open_session, session_errors, version_warning

if TYPE_CHECKING:
    from ..package.contents import Package

__all__ = ["BACKENDS", "BackendOptions", "BackendRecord", "Running", "Say", "Session"]

CUDA = ("CUDAExecutionProvider",)
RTX_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"

Say = Callable[[str], None]
Faults = Tuple[Type[BaseException], ...]


class Session(Protocol):
    """What is run: an ``onnxruntime.InferenceSession``, or what has its call shape."""

    def run(self, outputs: Optional[Sequence[str]], feeds: Mapping[str, Array], /) -> List[Array]:
        """The arrays of the named ``outputs`` for ``feeds``, which are only read."""


@record
class BackendOptions:
    """How a backend is chosen and opened.

    ``backend``: one by name, or ``None`` for the package's order. ``threads``: ONNX Runtime's intra-op count, 0 for its
    own choice. ``build``: whether an engine that is missing or made for another machine may be built, which takes
    minutes; ``cache``: the folder that keeps it (``None``: the user's cache folder). ``accept_hazards``: whether a
    backend is taken although it is known to compute the package's graph wrong.
    """

    backend: Optional[str] = None
    threads: int = 0
    build: bool = True
    cache: Optional[str] = None
    accept_hazards: bool = False


@record
class Running:
    """What would run a package: a backend's name and version (``None``: not known), and the operators that it gets."""

    backend: str
    version: Optional[str]
    operators: Callable[[], Sequence[Operator]]


@record
class BackendRecord:
    """One backend. ``open(package, options, say)`` gives its session; ``say`` hears of progress and warnings.
    ``running(package)`` says what it would run, before it is opened, and raises as ``open`` if it is not here.

    ``faults``: what its sessions raise, beside our own errors, where a model cannot be run. ``describes_model``: its
    sessions tell the names, types and shapes of the model's inputs and outputs, as ONNX Runtime's do, so that they are
    held against the package. ``exact``: with ``execution.exact_qdq`` its arithmetic is the one that ``exact_atol``
    holds for. ``own_graph``: it is given the package's own graph, and not the float32 one in its place. ``concurrent``:
    a session runs in several threads at once, each on cores of its own.
    """

    open: Callable[[Package, BackendOptions, Say], Session]
    faults: Callable[[], Faults]
    running: Callable[[Package], Running]
    describes_model: bool = True
    exact: bool = False
    own_graph: bool = False
    concurrent: bool = False


def _onnxruntime(package: Package, options: BackendOptions, say: Say) -> Session:
    return _checked(open_session(package.model, package.exact_qdq, options.threads), say)


def _onnxruntime_cuda(package: Package, options: BackendOptions, say: Say) -> Session:
    return _checked(open_session(package.model, package.exact_qdq, options.threads, CUDA), say)


def _checked(session: Session, say: Say) -> Session:
    warning = version_warning()
    if warning:
        say(f"warning: {warning}")
    return session


def _rtx_plugin(package: Package, options: BackendOptions, say: Say) -> Session:
    return open_plugin_session(package.model, RTX_PLUGIN, options.threads)


def _engine(package: Package, options: BackendOptions, say: Say) -> Session:
    from ..engine.open import open_engine

    return open_engine(package, options.build, options.cache, say)


def _in_session(name: str) -> Callable[[Package], Running]:
    """ONNX Runtime is given the equivalent float32 graph of a package that is meant exactly."""

    def running(package: Package) -> Running:
        return Running(name, onnxruntime_version(), lambda: _in_float32(package))

    return running


def _in_float32(package: Package) -> Sequence[Operator]:
    found = list_operators(package.model)
    return in_exact(found) if package.exact_qdq else found


def _in_plugin(package: Package) -> Running:
    """A plugin says no version of the TensorRT-RTX inside."""
    return Running("onnxruntime-tensorrt-rtx", None, lambda: list_operators(package.model))


def _in_engine(package: Package) -> Running:
    """A builder with weak types may take FP16 for what the graph has in float32."""
    from ..engine.open import engine_builder

    settings, api = engine_builder(package)

    def operators() -> Sequence[Operator]:
        found = list_operators(package.model)
        return in_half(found) if "fp16" in settings.weak_flags(api.features()) else found

    return Running(settings.flavour, api.version, operators)


ENGINE = BackendRecord(_engine, faults=tuple, running=_in_engine, describes_model=False, own_graph=True)

BACKENDS: Dict[str, BackendRecord] = {
    "tensorrt": ENGINE,
    "tensorrt-rtx": ENGINE,
    "onnxruntime-tensorrt-rtx": BackendRecord(_rtx_plugin, session_errors, _in_plugin, own_graph=True),
    "onnxruntime-cuda": BackendRecord(_onnxruntime_cuda, session_errors, _in_session("onnxruntime-cuda")),
    "onnxruntime-cpu": BackendRecord(
        _onnxruntime, session_errors, _in_session("onnxruntime-cpu"), exact=True, concurrent=True
    ),
}
"""Every backend by its name (``names.BackendName``)."""

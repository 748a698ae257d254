"""ONNX Runtime as the backend: a session that does what was asked for, or an error that says why not."""

from __future__ import annotations

import importlib
from typing import List, Mapping, Optional, Protocol, Sequence, Tuple, Type, Union

from ..errors import BackendMissing, InputError, PackageError
from ..machine import limited_threads
from ..supported import check_onnxruntime
from ..untyped import Array, Foreign
from ..words import said

__all__ = [
    "MAX_THREADS",
    "InferenceSession",
    "ModelEnd",
    "onnxruntime_version",
    "open_plugin_session",
    "open_session",
    "session_errors",
    "tensor_type",
    "version_warning",
]

CPU = ("CPUExecutionProvider",)
MAX_THREADS = 1024
TYPES = {"float32": "float", "float64": "double"}


class ModelEnd(Protocol):
    """An input or output of a model: ``type`` as ``tensor(uint8)``; an open dimension is its name or ``None``."""

    name: str
    type: str
    shape: Sequence[Union[int, str, None]]


class InferenceSession(Protocol):
    """What is used of an ``onnxruntime.InferenceSession``."""

    def get_inputs(self) -> Sequence[ModelEnd]:
        """The model's inputs."""

    def get_outputs(self) -> Sequence[ModelEnd]:
        """The model's outputs."""

    def run(self, outputs: Optional[Sequence[str]], feeds: Mapping[str, Array], /) -> List[Array]:
        """The arrays of the named ``outputs`` (``None``: all) for ``feeds``, which are only read."""


def open_session(
    model: bytes,
    exact_qdq: bool,
    threads: int = 0,
    providers: Optional[Sequence[str]] = None,
    fused: bool = False,
) -> InferenceSession:
    """An ``onnxruntime.InferenceSession`` of ``model`` on the CPU, or on ``providers``; it never falls back.

    ``exact_qdq`` runs the arithmetic that the graph describes, Q/DQ in floating point and float16 by rounding, instead
    of this host's integer and half-precision kernels: what a TensorRT-style graph means, the same on every version and
    CPU, though slower. ``threads`` is the intra-op count, 0: ONNX Runtime's own. ``fused``: that arithmetic at two
    thirds of the time, where the last bit of sums in floating point does not matter.

    Raises:
        BackendMissing: onnxruntime or a provider is not here, or it is older than any that was tested.
        InputError: ``threads`` is negative or over 1,024.
        PackageError: ONNX Runtime cannot load the model.
    """
    _check_threads(threads)
    ort = _import()
    wanted = list(providers or CPU)
    _check_providers(wanted, ort.get_available_providers())
    if exact_qdq:
        from .exact import exact_model, may_be_fused  # what runs a graph as it is rewrites none

        model = exact_model(model)
        fused = fused and may_be_fused(model)
    try:
        session = _kind(ort)(model, _options(ort, exact_qdq, threads, fused), providers=wanted)
    except session_errors(ort) as e:
        raise PackageError(f"ONNX Runtime {ort.__version__} cannot load the model: {said(e)}") from e
    _check_providers(wanted, session.get_providers())
    session.disable_fallback()
    _release_bytes(session)
    opened: InferenceSession = session
    return opened


def open_plugin_session(model: bytes, plugin: str, threads: int = 0) -> InferenceSession:
    """A session of ``model`` on the execution provider that the Python package ``plugin`` brings along.

    Raises:
        BackendMissing: onnxruntime or the plugin is not here, or it finds no device.
        InputError: as ``open_session``.
        PackageError: ONNX Runtime cannot load the model.
    """
    _check_threads(threads)
    ort = _import()
    try:
        brought = importlib.import_module(plugin)
    except ImportError as e:
        raise BackendMissing(f"{plugin} cannot be imported ({e}); it comes with the plugin's own package") from e
    name = brought.get_ep_name()
    try:
        ort.register_execution_provider_library(name, brought.get_library_path())
    except session_errors(ort) as e:
        raise BackendMissing(f"the plugin {name} cannot be loaded ({said(e)}); it needs the NVIDIA driver") from e
    devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise BackendMissing(f"the plugin {name} finds no device that it runs on")
    options = _options(ort, False, threads)
    options.add_provider_for_devices(devices, {})
    try:
        session = _kind(ort)(model, options)
    except session_errors(ort) as e:
        raise PackageError(f"ONNX Runtime {ort.__version__} cannot load the model: {said(e)}") from e
    _check_providers([name], session.get_providers())
    opened: InferenceSession = session
    return opened


def tensor_type(dtype: str) -> str:
    """What ONNX Runtime calls a tensor of this numpy ``dtype``, such as ``tensor(uint8)``."""
    return f"tensor({TYPES.get(dtype, dtype)})"


def onnxruntime_version() -> str:
    """This machine's onnxruntime.

    Raises:
        BackendMissing: as ``version_warning``.
    """
    return str(_import().__version__)


def version_warning() -> Optional[str]:
    """A word of warning where this machine's onnxruntime is newer than those that packages are tested with.

    Raises:
        BackendMissing: onnxruntime is not here, or it is older than any that was tested.
    """
    return check_onnxruntime(_import().__version__)


def _kind(ort: Foreign) -> Foreign:
    """``InferenceSession`` without its fallback: at a failure it would print on stdout, and try another provider."""
    own = ort.InferenceSession
    never = property(lambda _: False, lambda _, value: None)  # its __init__ sets it to True
    return type("Session", (own,), {"_enable_fallback": never}) if isinstance(own, type) else own


def _release_bytes(session: Foreign) -> None:
    """Lets go of the model's bytes, which ONNX Runtime's Python part keeps for a fallback: all weights once more."""
    if isinstance(getattr(session, "_model_bytes", None), bytes):
        session._model_bytes = None


def _check_threads(threads: int) -> None:
    if not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads is {threads}; must be 0 (ONNX Runtime's choice) to {MAX_THREADS}")


def _import() -> Foreign:
    try:
        import onnxruntime
    except ImportError as e:
        raise BackendMissing(f"onnxruntime cannot be imported ({e}); install it with: pip install onnxruntime") from e
    check_onnxruntime(onnxruntime.__version__)
    return onnxruntime


def _options(ort: Foreign, exact_qdq: bool, threads: int, fused: bool = False) -> Foreign:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or limited_threads()
    # Nothing but what ends the process: failures are raised, and what is printed holds the model's own names raw.
    options.log_severity_level = 4
    if exact_qdq:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.enable_mem_pattern = False  # up to 1.18 it mixes up buffers of casts: the second run gave old numbers
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if fused else levels.ORT_ENABLE_BASIC
    return options


def _check_providers(wanted: Sequence[str], there: Sequence[str]) -> None:
    for name in wanted:
        if name not in there:
            raise BackendMissing(
                f"the execution provider {name!r} is not available; this onnxruntime has {', '.join(there)}; install "
                "the onnxruntime build for it, or leave the provider out to run on the CPU"
            )


def session_errors(ort: Foreign = None) -> Tuple[Type[BaseException], ...]:
    """ONNX Runtime's own exceptions: they share no base class but ``Exception``."""
    state = (ort or _import()).capi.onnxruntime_pybind11_state
    names = "EPFail Fail InvalidArgument InvalidGraph InvalidProtobuf ModelLoaded NoModel NoSuchFile NotImplemented"
    own = [getattr(state, name) for name in [*names.split(), "RuntimeException"] if hasattr(state, name)]
    return (*own, ValueError, RuntimeError, MemoryError)

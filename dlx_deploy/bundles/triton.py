"""A package as a model of Triton's repository: ``NAME/config.pbtxt``, ``NAME/1/model.onnx`` or ``model.plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlx_deploy.bundles.bundle import Bundle, check_labels
from dlx_deploy.bundles.pbtxt import Enum, Message, pbtxt
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.tasks import find_task

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.contents import Package
    from dlx_deploy.runtime.tasks.arrays import Tensor
    from dlx_deploy.tasks.neighbours import Served

__all__ = ["triton_bundle"]

_TYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""numpy's types as Triton calls them."""
_PLANS = "tensorrt"
"""The flavour of the engines that Triton's TensorRT reads."""
_MAX_BATCH = 16
"""Samples that are run together where neither an engine nor a budget says how many; ONNX Runtime takes any number."""
_QUEUED = 0.1
"""Of a budget of latency that waiting for more requests may take."""
_LABELS = "labels.txt"
_WARMUP = "golden"


class _Engine(NamedTuple):
    """An engine's bytes, and the largest batch that it was built for."""

    plan: bytes
    batch: int


def triton_bundle(package: Package, name: str) -> Bundle:
    """The model, its labels, a request to warm up with, and how Triton is to run it.

    Raises:
        ConfigError: a type that Triton has no name for, or a label that has no place in a file of lines.
    """
    served = _served(package)
    engine = _engine(package)
    files = {"1/model.onnx": package.model} if engine is None else {"1/model.plan": engine.plan}
    if served is not None:
        check_labels(served.labels, "")
        files[_LABELS] = _lines(served.labels)
    for tensor in package.task.inputs.tensors:
        golden = package.golden_inputs[tensor.name]
        files[f"warmup/{_WARMUP}_{tensor.name}"] = golden[np.arange(package.batch or 1) % len(golden)].tobytes()
    files.update({file: data for file, data in package.task.inputs.members().items() if "/" not in file})
    notes = _notes(package, engine)
    files["config.pbtxt"] = pbtxt(_config(package, name, served, engine)).encode("ascii")
    files["README.md"] = _readme(package, name, notes).encode("utf-8")
    return Bundle(files, notes, name)


def _served(package: Package) -> Served | None:
    """What the task says of its answers; nothing, if it is another package's and has not thought of it."""
    say = getattr(find_task(package.task.name).answers, "served", None)
    served: Served | None = say(package.task.outputs) if say else None
    return served


def _engine(package: Package) -> _Engine | None:
    """The engine in the package, if Triton's TensorRT reads it: TensorRT-RTX writes another format.

    Raises:
        PackageError: what the recipe says of it is damaged.
    """
    values = package.meta["recipe"].get("engine")
    if package.engine is None or not values:
        return None
    settings = BuildSettings.from_dict(values, f"{package.name}: recipe.engine")
    return _Engine(package.engine, settings.batch[-1]) if settings.flavour == _PLANS else None


def _config(package: Package, name: str, served: Served | None, engine: _Engine | None) -> Message:
    """``ModelConfig``, field by field in the order of its numbers."""
    most = _max_batch(package, engine)
    ranked = {"label_filename": _LABELS} if served is not None and served.ranked else {}
    batching = {"dynamic_batching": _batching(package, most)} if most > 1 else {}
    return {
        "name": name,
        "backend": "tensorrt" if engine else "onnxruntime",
        "default_model_filename": "model.plan" if engine else "model.onnx",
        "max_batch_size": most,
        "input": [_tensor(package, tensor) for tensor in package.task.inputs.tensors],
        "output": [{**_tensor(package, tensor), **ranked} for tensor in package.task.outputs.tensors],
        "version_policy": {"latest": {"num_versions": 1}},
        "instance_group": [{"count": 1, "kind": Enum("KIND_GPU" if _on_gpu(package) else "KIND_CPU")}],
        **batching,
        "model_warmup": [_warmup(package)],
    }


def _max_batch(package: Package, engine: _Engine | None) -> int:
    """0: the batch is one of the model's own dimensions, as ONNX Runtime asks for where it is fixed."""
    if package.batch is not None:
        return 0
    return engine.batch if engine else max(package.device_budgets.throughput_batch, _MAX_BATCH)


def _batching(package: Package, most: int) -> Message:
    """Requests that wait are run together; with a budget of latency Triton waits for more, a tenth of it at most."""
    preferred = package.device_budgets.throughput_batch
    sizes: dict[str, Any] = {"preferred_batch_size": [preferred]} if 1 < preferred <= most else {}
    limit_ms = min(package.latency_budgets.values(), default=0.0)
    return {**sizes, "max_queue_delay_microseconds": int(limit_ms * 1000 * _QUEUED)}


def _tensor(package: Package, tensor: Tensor) -> dict[str, object]:
    return {"name": tensor.name, "data_type": _type(tensor), "dims": _dims(package, tensor)}


def _type(tensor: Tensor) -> Enum:
    if tensor.dtype not in _TYPES:
        raise ConfigError(f"{tensor.name} is {tensor.dtype}; Triton has: {', '.join(_TYPES)}")
    return Enum(f"TYPE_{_TYPES[tensor.dtype]}")


def _dims(package: Package, tensor: Tensor) -> list[int]:
    """Behind the batch where Triton counts it, and with it where it is fixed; -1: any size."""
    batch = [] if package.batch is None else [package.batch]
    return [*batch, *(-1 if n is None else n for n in tensor.sizes)]


def _warmup(package: Package) -> Message:
    """The first golden input, or as many as the model's batch."""
    inputs = []
    for tensor in package.task.inputs.tensors:
        shape = package.golden_inputs[tensor.name].shape[1:]
        dims = [*([] if package.batch is None else [package.batch]), *shape]
        value = {"data_type": _type(tensor), "dims": dims, "input_data_file": f"{_WARMUP}_{tensor.name}"}
        inputs.append({"key": tensor.name, "value": value})
    return {"name": _WARMUP, "batch_size": 1, "inputs": inputs}


def _on_gpu(package: Package) -> bool:
    backends = package.meta["recipe"].get("backends", [])
    return any(str(name).endswith(("cuda", "tensorrt", "rtx")) for name in backends) if backends else False


def _lines(labels: tuple[str, ...]) -> bytes:
    return "".join(f"{label}\n" for label in labels).encode("utf-8")


def _notes(package: Package, engine: _Engine | None) -> tuple[str, ...]:
    inputs = package.task.inputs
    notes = [
        f"a client sends what the network reads, {inputs.describe(package.batch)}: pictures are resized, and texts "
        "made tokens, by the client (docs/tensor-contract.md)",
    ]
    if engine is not None:
        notes.append(
            "the engine runs on the GPU and the TensorRT that it was built with alone; for others put model.onnx of "
            "the package in its place, with backend: onnxruntime"
        )
    elif _on_gpu(package):
        notes.append(
            "the package's own runtime builds a TensorRT engine on the board and proves it; Triton runs the ONNX model "
            "with ONNX Runtime, on CUDA"
        )
    if package.exact_qdq and engine is None:
        notes.append(
            "accuracy was judged in exact Q/DQ arithmetic; ONNX Runtime on a CPU would use its INT8 kernels instead, "
            "which may saturate: keep the instance on a GPU"
        )
    if package.meta["execution"].get("dot_product") is True:
        notes.append(
            "the package's 8-bit weights use their full range: on an x86 CPU without a dot product (VNNI) ONNX "
            "Runtime's sums would saturate, and Triton does not refuse"
        )
    if package.batch is not None:
        notes.append(f"the model's batch is {package.batch}: each request holds as many samples, and none are joined")
    return tuple(notes)


def _readme(package: Package, name: str, notes: tuple[str, ...]) -> str:
    asked = "".join(f"- {note}\n" for note in notes)
    digest, task = package.digest, package.task.name
    return (
        f"# {name}: a model of Triton Inference Server\n\n"
        f"Made of the package {package.name} {package.version} ({task}, for {package.target}), digest `{digest}`.\n\n"
        f"    tritonserver --model-repository FOLDER      # the folder that holds {name}/\n"
        f"    curl -f localhost:8000/v2/models/{name}/ready\n\n"
        f"{asked}\n"
        "Triton does not check what the package's own runtime checks: known faults of the runtime at hand\n"
        "(`dlx-deploy hazards`), the self-test, the budgets. Hold its answers against the package's before it serves:\n"
        "the input in `warmup/` is the package's first golden one.\n"
    )

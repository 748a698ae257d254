"""A package as a configuration of DeepStream's ``nvinfer``: pictures in, one class or a class for each pixel out.

nvinfer feeds float planes, 0..255 where it does not scale them, and takes outputs for probabilities. The package reads
uint8 NHWC, normalises inside its graph and gives logits. So the graph is written with the other border
(``graph/passes/planes``), and ``net-scale-factor`` stays 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlx_deploy.bundles.bundle import Bundle, check_labels
from dlx_deploy.bundles.nvinfer import CONFIG, LABELS, MODEL, differences, engine_file, frame_keys, network_mode, readme
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.tasks import find_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlx_deploy.runtime.package.contents import Package
    from dlx_deploy.runtime.tasks.framing import Framing
    from dlx_deploy.tasks.neighbours import Served

__all__ = ["deepstream_bundle"]

_CLOSE = 1e-3
"""How far a probability may be from the package's own: two float32 runs of one graph, whose INT8 may round a value the
other way."""


class _Asked(NamedTuple):
    framing: Framing
    served: Served


def deepstream_bundle(package: Package, name: str) -> Bundle:
    """The graph that nvinfer can feed, its labels, and ``config_infer_primary.txt``.

    Raises:
        ConfigError: nvinfer cannot run such a package, with the reason.
        StageFailed: the graph does not answer as the package's does.
    """
    framing, served = _asked(package)
    check_labels(served.labels, ";")
    model = _planar(package)
    _prove(package, model)
    batch = package.batch or 1
    mode = network_mode(package)
    keys = {
        **frame_keys(framing),
        "onnx-file": MODEL,
        "model-engine-file": engine_file(package),
        "labelfile-path": LABELS,
        "batch-size": str(batch),
        "network-mode": str(mode),
        **served.nvinfer,
        "output-blob-names": "probabilities",
        "process-mode": "1",
        "gie-unique-id": "1",
    }
    notes = differences(package, framing)
    # A line for each output that gives one class, its classes parted by ";"; a line for each class of a mask.
    parted = ";" if served.ranked else "\n"
    files = {
        MODEL: model,
        LABELS: (parted.join(served.labels) + "\n").encode("utf-8"),
        CONFIG: ("[property]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())).encode("ascii"),
        "README.md": readme(package, framing, name, notes).encode("utf-8"),
    }
    return Bundle(files, notes)


def _asked(package: Package) -> _Asked:
    task = find_task(package.task.name)
    frames = getattr(task.inputs, "frames", None)
    say = getattr(task.answers, "served", None)
    if frames is None:
        raise ConfigError(
            f"{package.name} reads {package.task.inputs.noun}, and nvinfer feeds pictures alone; use --format triton"
        )
    served: Served | None = say(package.task.outputs) if say else None
    if served is None or not served.nvinfer:
        raise ConfigError(f"nvinfer has no type of network for the answers of {package.task.name}; use --format triton")
    return _Asked(frames(package.task.inputs), served)


def _planar(package: Package) -> bytes:
    from dlx_deploy.graph.model import STANDARD, load, to_bytes
    from dlx_deploy.graph.passes.base import run_passes
    from dlx_deploy.graph.passes.planes import planar_passes

    model = load(package.model)
    foreign = sorted({node.op_type for node in model.graph.node if node.domain not in STANDARD})
    if foreign:
        raise ConfigError(
            f"{package.name} has nodes of ONNX Runtime's own ({', '.join(foreign)}), which TensorRT does not read; "
            "build the package for a target with TensorRT"
        )
    return to_bytes(run_passes(model, planar_passes(), package.name))


def _prove(package: Package, model: bytes) -> None:
    """Run both graphs on the golden inputs.

    Raises:
        StageFailed: a probability is further from the package's own than rounding explains.
    """
    from dlx_deploy.graph.execution.evaluation import run_onnx
    from dlx_deploy.graph.passes.planes import PLANES, PROBABILITIES
    from dlx_deploy.graph.samples import Samples

    (images,) = package.golden_inputs.values()
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2).astype(np.float32))
    (own,) = run_onnx(package.model, Samples(package.golden_inputs), package.exact_qdq).values()
    given = run_onnx(model, Samples({PLANES: planes}), package.exact_qdq)[PROBABILITIES]
    furthest = float(np.abs(given - _softmax(own)).max())
    if not furthest <= _CLOSE:  # NaN too
        raise StageFailed(
            f"{package.name}: the graph for nvinfer answers the golden inputs otherwise: a probability is "
            f"{furthest:.3g} away; rule: at most {_CLOSE}; run: dlx-deploy selftest, and report it if that passes"
        )


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities

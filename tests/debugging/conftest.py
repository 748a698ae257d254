"""Packages of a small network, the network, and a store as their build would leave it.

The right class of a sample is what the network answers in floating point, so that whatever is lost is lost by integers.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from dlx_deploy.graph.model import Index, load, to_bytes
from dlx_deploy.graph.quantization.plan import plan_bytes
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.nn.data.dataset import write_header, write_labels
from dlx_deploy.nn.data.headers import ImageHeader
from dlx_deploy.pipeline.key import KeyDocument, key_of
from dlx_deploy.pipeline.record import SCHEMA, Record
from dlx_deploy.pipeline.store import Store
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.runtime.tasks.judging import Judging, judged, judging_fields
from dlx_deploy.runtime.tasks.task import Task

from ..arrays import quantize_model, run_onnx
from ..onnx_fixtures import images, residual_net

CLASSES = [str(i) for i in range(10)]
TESTED = 200


@functools.cache
def network() -> bytes:
    """Four convolutions and a classifier, whose classes are about equally many."""
    model = residual_net("conv")
    mean = run_onnx(to_bytes(model), images(200), exact_qdq=False).mean(axis=0)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) - mean, "fc.bias"))
    return to_bytes(model)


@functools.cache
def split() -> tuple[Any, Any]:
    """``TESTED`` images uint8[N, 8, 8, 1] on which one class leads clearly, and that class, int64[N]."""
    many = images(4 * TESTED, seed=1)
    logits = run_onnx(network(), many, exact_qdq=False)
    best = np.sort(logits, axis=1)
    rows = np.argsort(best[:, -2] - best[:, -1])[:TESTED]
    return many[rows], logits[rows].argmax(axis=1)


@dataclass(frozen=True)
class Bench:
    """``folder`` with ``plain.onnx``, ``STYLE.onnx``, ``data`` (a data folder) and ``store``."""

    folder: Path

    def package(
        self, name: str, style: str = "tensorrt", change: Callable[[ModelProto], None] | None = None, **meta: Any
    ) -> Path:
        """``NAME.dlx`` with the graph of ``style``, or with what ``change`` makes of it; golden answers are its own.

        ``preprocessing``: fields of it; ``golden``: by how much golden answers are off; ``metric``: that of its gate;
        others: what ``quantize`` was asked for.
        """
        model = load(self.folder / f"{style}.onnx")
        said, off, metric = meta.pop("preprocessing", {}), meta.pop("golden", 0.0), meta.pop("metric", "")
        if change is not None:
            change(model)
        path = self.folder / f"{name}.dlx"
        contents = _contents(to_bytes(model), style, self._manifest(style, meta), metric)
        said = {**contents.metadata["preprocessing"], **said}
        answers = {name: array + np.float32(off) for name, array in contents.golden_outputs.items()}
        contents = replace(contents, golden_outputs=answers, metadata={**contents.metadata, "preprocessing": said})
        write_archive(path, assemble(contents))
        return path

    def _manifest(self, style: str, meta: Mapping[str, Any]) -> bytes:
        data, plain = (json.loads((self.folder / f"{name}.json").read_text()) for name in ("data", "plain"))
        quantize = {"inputs": {"onnx": plain["digest"]}, "key": "", "params": {"exclude": [], "plan": ""} | meta}
        verify = {"inputs": {"data": data["digest"], "teacher": plain["digest"]}}
        steps = {"quantize": quantize, "verify": verify, "data": {"params": {"calibration_images": 128}}}
        return json.dumps({"schema": 1, "steps": steps}).encode()


def _task() -> Task:
    return image_classification(Framing(8, 8, 1), CLASSES)


def _contents(model: bytes, style: str, manifest: bytes, metric: str) -> PackageContents:
    pixels, classes = split()
    answers = np.nan_to_num(run_onnx(model, pixels, exact_qdq=style == "tensorrt"))
    task = judged(_task(), Judging(metric))
    known = {"label": classes, "teacher": classes}
    if metric == "auroc":
        known["logits"] = answers
    table = make_reference(task, {"images": pixels}, known)
    return PackageContents(
        task=task,
        metadata={
            "name": "digits",
            "version": "1",
            "target": {"name": "board", "kind": style, "title": "A board"},
            "preprocessing": {"height": 8, "width": 8, "channels": 1, "resize": "bilinear"},
            "precision": {"plan": "int8", "style": style, "layers": {}},
            "execution": {"exact_qdq": style == "tensorrt"},
            "recipe": {},
            "budgets": {
                "max_drop": 0.02,
                "confidence": 0.95,
                "max_latency_p90_ms": 0,
                **judging_fields(Judging(metric)),
            },
            "accuracy": {"rows": [{"model": "teacher", "score": 0.99}, {"model": "quantized", "score": 0.98}]},
        },
        model=model,
        golden_inputs={"images": pixels[:4]},
        golden_outputs={"logits": answers[:4]},
        tolerances={"logits": Tolerance(1e-3, 1e-3)},
        reference=table,
        manifest=manifest,
        model_card="# digits\n",
    )


def write_data(folder: Path, pixels: Any, classes: Any, **header: Any) -> Path:
    """A data folder whose test split these are."""
    folder.mkdir()
    said: dict[str, Any] = {"height": 8, "width": 8, "channels": 1, "mean": [0.3], "std": [0.4], **header}
    write_header(folder, ImageHeader(classes=CLASSES, splits={"test": len(pixels)}, **said))
    np.save(folder / "test.images.npy", pixels)
    write_labels(folder, "test", classes)
    return folder


def keep(store: Store, step: str, name: str, source: Path) -> str:
    """The digest of a copy of ``source`` that ``store`` has as an output of ``step``."""
    document = KeyDocument(1, step, 1, 0, {}, {}, [name], {}, {}, {})
    key = key_of(document)

    def record(work: Path) -> Record:
        target = work / name
        if source.is_dir():
            target.mkdir()
            for file in source.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
        else:
            target.write_bytes(source.read_bytes())
        outputs = store.outputs_in(work, [name])
        return Record(
            step=step,
            key=key,
            document=document,
            outputs=outputs,
            metrics={},
            started="",
            seconds=0.0,
            schema=SCHEMA,
            target_name="board",
        )

    return store.write(record, key).outputs[name].digest


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("debugged")
    (folder / "plain.onnx").write_bytes(network())
    for style in ("tensorrt", "cpu"):
        request = QuantizationRequest(style)  # type: ignore[arg-type]
        report = quantize_model(folder / "plain.onnx", folder / f"{style}.onnx", images(128, seed=2), request)
        (folder / f"{style}.plan.json").write_bytes(plan_bytes(report.plan))
    data = write_data(folder / "data", *split())
    store = Store(folder / "store")
    for name, step, path in (("plain", "export-pruned", folder / "plain.onnx"), ("data", "data", data)):
        digest = keep(store, step, "model.onnx" if name == "plain" else "data", path)
        (folder / f"{name}.json").write_text(json.dumps({"digest": digest}))
    assert hashlib.sha256(network()).hexdigest() == json.loads((folder / "plain.json").read_text())["digest"]
    return Bench(folder)


def scale_by(factor: float, tensor: str) -> Callable[[ModelProto], None]:
    """What multiplies the constant ``tensor`` of a graph."""

    def change(model: ModelProto) -> None:
        values = Index(model).array(tensor) * np.float32(factor)
        next(t for t in model.graph.initializer if t.name == tensor).CopyFrom(
            numpy_helper.from_array(values.astype(np.float32), tensor)
        )

    return change


def scale_of_input(model: ModelProto, layer: str) -> str:
    """The constant with the scale of what ``layer`` reads on integers."""
    index = Index(model)
    node = next(node for node in model.graph.node if node.name == layer)
    return str(index.producer[node.input[0]].input[1])

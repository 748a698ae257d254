"""package: one self-contained ``.dlx`` file, the same bytes for the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dlx_deploy.config import Config, Gate, Package
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Provenance, Source, Stage, Step
from dlx_deploy.stages.quantize import read_precisions
from dlx_deploy.stages.support.gates import judge_accuracy, judge_floor
from dlx_deploy.stages.support.results import REFERENCE, Accuracy
from dlx_deploy.targets import Profile

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import DataArtifact
    from dlx_deploy.runtime.tasks.task import Task

__all__ = ["STAGE", "PackageParams"]

RTOL = 1e-3
FLOAT_SHARE = 2e-4
"""The self-test's tolerance for FP32, as a share of the largest golden logit: another CPU sums in another order, which
moved logits by up to 2e-6 of it (ResNet-18, MobileNet-V2); no version of ONNX Runtime from 1.17 to 1.32 moved any."""
HALF_SHARE = 0.01
"""For FP16: eleven bits per step, and sums in another order or, in an engine, in FP16."""
INT8_SHARE = 0.05
"""For INT8 on any kernels: where sums differ in the last bit, a value on the edge is rounded to the next step. Measured
4.8e-2 (ResNet-18). The top-1 class must agree in any case."""
EXACT_SHARE = 0.005
"""For FP16 and INT8 in exact arithmetic, at least. Convolutional networks: no version moved a logit, bending what is
not exactly defined by up to 2.1e-3."""
SAFETY = 2.0
"""Times what bending did to the logits of this model. A ViT: bending 3.2e-2, ONNX Runtime 1.28 against 1.32 2.4e-2."""
BENT_INPUTS = 32
"""On which that is measured."""
GOLDEN_CHOICE = 8
"""Of so many times as many test inputs the golden ones are chosen."""


_TASK = {
    False: "Image classification. Input: uint8 NHWC images; the package resizes them, the graph normalises them.",
    True: "Sequence classification. Input: texts; the package holds their tokenizer, padding is masked by the graph.",
}


class PackageParams(Package, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section's keys, the package's name and version, the budgets it was judged by."""

    name: str
    version: str
    gate: Gate


def run(job: Job[PackageParams]) -> Metrics:
    """Write ``package.dlx``.

    Raises:
        StageFailed: a golden input gets another answer alone than in a batch.
    """
    import numpy as np

    from dlx_deploy.graph.evaluation import run_onnx
    from dlx_deploy.graph.model import OUTPUT, batch_size, input_dims, load
    from dlx_deploy.graph.rows import refuse_dependent_rows
    from dlx_deploy.graph.spread import spread
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.runtime.package.archive import write_archive
    from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference
    from dlx_deploy.runtime.tasks.arrays import Tolerance
    from dlx_deploy.tasks.classification import clear_rows

    data = open_data(job.inputs["data"])
    _, labels = data.split("test")
    model = job.inputs["model"].read_bytes()
    length = _fixed_length(model) if data.is_text else None
    exact = job.target.judge == "exact-qdq"
    recipe = msgspec.json.decode(job.inputs["recipe"].read_bytes())
    accuracy = msgspec.json.decode(job.inputs["accuracy"].read_bytes(), type=Accuracy)
    samples = data.samples("test")
    some = samples[: GOLDEN_CHOICE * job.params.golden_images].fitted(input_dims(load(model)))
    logits = run_onnx(model, some, exact_qdq=exact, threads=1)[OUTPUT]
    chosen = clear_rows(logits, _share(recipe) * float(np.abs(logits).max()), job.params.golden_images)
    golden, logits = some[chosen], logits[chosen]
    largest = float(np.abs(logits).max())
    tolerance = Tolerance(_share(recipe) * largest, RTOL)
    if exact:
        moved = spread(model, samples[:BENT_INPUTS])
        tolerance = replace(tolerance, exact_atol=_exact_share(recipe, moved) * largest)
    share = max(tolerance.on(exact).atol / max(largest, 1e-12), RTOL)
    refuse_dependent_rows(model, golden, exact, share)
    engine = job.inputs["engine"]
    task = _task(data, length, [int(i) for i in chosen])
    (answered,) = task.outputs.tensors
    columns = {"label": labels.astype(np.int64), "teacher": np.load(job.inputs["teacher"]).astype(np.int64)}
    contents = PackageContents(
        task=task,
        metadata=_metadata(job, data, recipe, accuracy),
        model=model,
        golden_inputs=golden.feed(),
        golden_outputs={answered.name: logits},
        tolerances={answered.name: tolerance},
        reference=make_reference(task, samples.feed(), columns),
        manifest=job.inputs["provenance"].read_bytes(),
        model_card=_card(job, recipe, accuracy, data.is_text),
        batch=batch_size(load(model)),
        engine=_optional(engine / "engine.plan"),
        engine_sidecar=_optional(engine / "engine.json"),
    )
    out = job.out / "package.dlx"
    write_archive(out, assemble(contents))
    return {"size_bytes": float(out.stat().st_size)}


def _task(data: DataArtifact, length: int | None, chosen: Sequence[int]) -> Task:
    """The task of the package; ``chosen`` are the golden ones of the test inputs."""
    from dlx_deploy.runtime.tasks.image_classification import image_classification
    from dlx_deploy.runtime.tasks.text_classification import text_classification
    from dlx_deploy.runtime.tasks.text_inputs import Tokens

    if not data.is_text:
        return image_classification((data.height, data.width, data.channels), data.classes)
    tokens = Tokens(data.vocabulary, data.pad_id, data.max_length, data.truncate, length)
    texts = data.texts("test")
    return text_classification(tokens, data.tokenizer.read_bytes(), data.classes, [texts[i] for i in chosen])


def _fixed_length(model: bytes) -> int | None:
    """The length of the token sequences that the model takes; ``None`` where any will do."""
    from dlx_deploy.graph.model import load

    return load(model).graph.input[0].type.tensor_type.shape.dim[1].dim_value or None


def _needs_dot_product(job: Job[PackageParams]) -> bool:
    """Whether an x86 CPU without VNNI would answer something else than what was proven."""
    from dlx_deploy.graph.kernels import has_full_range
    from dlx_deploy.graph.model import load

    native = job.target.judge == "native" and job.target.arch == "x86_64"
    return native and has_full_range(load(job.inputs["model"]))


def _optional(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _metadata(
    job: Job[PackageParams], data: DataArtifact, recipe: dict[str, Any], accuracy: Accuracy
) -> dict[str, Any]:
    params, target = job.params, job.target
    asked = read_precisions(job.inputs["layers"])
    layers = asked.layers if recipe["precision"] == asked.precision else dict.fromkeys(asked.layers, "fp32")
    compiled = msgspec.json.decode((job.inputs["engine"] / "report.json").read_bytes())
    return {
        "name": params.name,
        "version": params.version,
        "target": {"name": target.name, "kind": target.kind, "title": target.title},
        **_preprocessing(data),
        "precision": {"plan": recipe["precision"], "style": target.quantization.style, "layers": layers},
        "engine": compiled,
        "execution": {"exact_qdq": target.judge == "exact-qdq", "dot_product": _needs_dot_product(job)},
        "recipe": recipe,
        "budgets": {
            "max_drop": params.gate.max_drop,
            "min_accuracy": params.gate.min_accuracy,
            "confidence": params.gate.confidence,
            "max_latency_p90_ms": params.gate.max_latency_p90_ms,
        },
        "accuracy": {
            **msgspec.to_builtins(accuracy),
            "gate": msgspec.to_builtins(judge_accuracy(params.gate, accuracy)),
        },
    }


def _preprocessing(data: DataArtifact) -> dict[str, Any]:
    """What is done to an input before and in the graph."""
    if data.is_text:
        return {"preprocessing": {"tokenizer": "tokenizer.json", "mask": "in the graph"}}
    return {
        "preprocessing": {
            "height": data.height,
            "width": data.width,
            "channels": data.channels,
            "resize": "bilinear",
            "normalisation": "in the graph",
            "mean": list(data.mean),
            "std": list(data.std),
        }
    }


def _share(recipe: dict[str, Any]) -> float:
    """The tolerance on whatever runs the package, as a share of the largest golden logit."""
    half = "fp16" in (recipe["precision"], recipe["elsewhere"])
    return INT8_SHARE if recipe["precision"] == "int8" else HALF_SHARE if half else FLOAT_SHARE


def _exact_share(recipe: dict[str, Any], moved: float) -> float:
    """The tolerance in exact arithmetic, where bending moved logits by ``moved`` of the largest."""
    return min(max(EXACT_SHARE, SAFETY * moved), _share(recipe))


def _card(job: Job[PackageParams], recipe: dict[str, Any], accuracy: Accuracy, is_text: bool) -> str:
    shipped, teacher = accuracy.row(accuracy.shipped), accuracy.row(REFERENCE)
    gate, floor = judge_accuracy(job.params.gate, accuracy), ""
    if job.params.gate.min_accuracy:
        least = judge_floor(job.params.gate, accuracy)
        floor = f"\n- Accuracy floor: **{least.verdict}**. {least.text[0].upper()}{least.text[1:]}."
    style = f", {job.target.quantization.style} style" if recipe["precision"] == "int8" else ""
    return f"""# {job.params.name} {job.params.version} for {job.target.title}

{_TASK[is_text]}

| model | top-1 | parameters | multiply-accumulates | ONNX bytes |
|---|---|---|---|---|
| teacher | {100 * teacher.top1:.2f} % | {teacher.parameters} | {teacher.macs} | {teacher.size_bytes} |
| shipped | {100 * shipped.top1:.2f} % | {shipped.parameters} | {shipped.macs} | {shipped.size_bytes} |

- Precision: {recipe["precision"]}{style} ({recipe["reason"]}).
- Accuracy gate: **{gate.verdict}**. {gate.text[0].upper()}{gate.text[1:]}.{floor}
- Judged on {accuracy.n} test inputs that no stage tuned on, {accuracy.judge} arithmetic.
- Latency is not part of this file: measure it where it counts, with `python PACKAGE bench`.
- How it was made: `manifest.json` (every stage's parameters, input digests and tool versions).
"""


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step, the last: what it packs is offered by all the others."""
    params = PackageParams(
        **msgspec.structs.asdict(config.package), name=config.name, version=config.version, gate=config.gate
    )
    own = {name: upstream.output(name) for name in ("recipe", "engine", "layers", "accuracy", "data")}
    inputs: dict[str, Source] = {
        "model": upstream.output("shipped"),
        "teacher": upstream.output("teacher-answers"),
        **own,
        "provenance": Provenance(),
    }
    return [Bound(Step("package", STAGE, params, inputs, config.seed))]


STAGE = Stage(
    name="package",
    version=5,
    params=PackageParams,
    inputs=("model", "recipe", "layers", "engine", "accuracy", "teacher", "data", "provenance"),
    outputs=("package.dlx",),
    run=run,
    bind=bind,
    uses=("name", "kind", "arch", "title", "judge", "quantization"),
    tools=("numpy", "onnxruntime"),
)

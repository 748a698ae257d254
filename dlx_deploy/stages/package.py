"""package: one self-contained ``.dlx`` file, the same bytes for the same inputs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dlx_deploy.config import Config, Gate, Package
from dlx_deploy.devices.choice import device_for
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Provenance, Source, Stage, Step
from dlx_deploy.runtime.sources import own_sources
from dlx_deploy.stages.evaluate import answered
from dlx_deploy.stages.support.device_gates import judge_package
from dlx_deploy.stages.support.drift import drift_file
from dlx_deploy.stages.support.layer_precisions import read_precisions
from dlx_deploy.stages.support.parity import Judge, kept_features, make_parity, parity_rows
from dlx_deploy.stages.support.tolerances import relative, share_of, tolerance_of
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import Task, task_of
from dlx_deploy.tasks.judging import asked_metric, comparison_by, judged_device
from dlx_deploy.tasks.user_file import without_folder
from dlx_deploy.tasks.verification import REFERENCE, Accuracy

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays, Samples
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.runtime.package.parity import ParityTable
    from dlx_deploy.runtime.tasks.arrays import Tolerance
    from dlx_deploy.runtime.tasks.task import Task as DeviceTask

__all__ = ["STAGE", "PackageParams"]

BENT_INPUTS = 32
"""On which that is measured."""
GOLDEN_CHOICE = 8
"""Of up to so many times as many test inputs the golden ones are chosen."""


class PackageParams(Package, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section's keys, the package's name and version, the budgets it was judged by; ``runtime``: the SHA-256 of the
    runtime's sources, which travel in it."""

    name: str
    version: str
    gate: Gate
    runtime: str


def run(job: Job[PackageParams]) -> Metrics:
    """Write ``package.dlx``.

    Raises:
        StageFailed: a golden input gets another answer alone than in a batch.
    """
    import numpy as np

    from dlx_deploy.graph.model import input_dims, load
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.runtime.package.archive import write_archive
    from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference

    data = open_data(job.inputs["data"])
    task, samples, engine = task_of(data), data.samples("test"), job.inputs["engine"]
    recipe = msgspec.json.decode(job.inputs["recipe"].read_bytes())
    accuracy = msgspec.json.decode(job.inputs["accuracy"].read_bytes(), type=Accuracy)
    model = job.inputs["model"].read_bytes()
    dims = input_dims(load(model))
    golden = _golden(job, task, samples, recipe, _few(task.device(data, (), dims), job.params.golden_images))
    device = judged_device(task, data, golden.rows, dims, asked_metric(task, job.params.gate))
    with np.load(job.inputs["teacher"]) as columns:
        reference = make_reference(device, samples.feed(), dict(columns))
    answers = job.inputs.get(answered(accuracy.shipped))
    gates = comparison_by(task, job.params.gate.metric).judge(job.params.gate, accuracy)
    contents = PackageContents(
        task=device,
        metadata={**_metadata(job, data, recipe, accuracy), "accuracy": _measured(accuracy, gates)},
        model=model,
        golden_inputs=golden.inputs.feed(),
        golden_outputs=golden.outputs,
        tolerances=golden.tolerances,
        reference=reference,
        manifest=job.inputs["provenance"].read_bytes(),
        model_card=_card(job, recipe, accuracy, task, gates),
        batch=next(iter(dims.values()))[0],
        engine=_optional(engine / "engine.plan"),
        engine_sidecar=_optional(engine / "engine.json"),
        parity=_parity(job, answers, samples.fitted(dims), device, recipe),
        drift=None if answers is None else drift_file(kept_features(answers)),
    )
    out = job.out / "package.dlx"
    write_archive(out, assemble(contents), job.params.deflate)
    return {"size_bytes": float(out.stat().st_size)}


@dataclass(frozen=True)
class _Golden:
    """What a self-test compares: ``rows`` of the test split, by output how far an answer may be off."""

    rows: Sequence[int]
    inputs: Samples
    outputs: Arrays
    tolerances: Mapping[str, Tolerance]


@cache
def _runtime_digest() -> str:
    """Of all that is packed of the runtime: with another dlx-deploy a package is made again."""
    digest = hashlib.sha256()
    for name, source in own_sources().items():
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()


def _parity(
    job: Job[PackageParams], answers: Path | None, samples: Samples, device: DeviceTask, recipe: dict[str, Any]
) -> ParityTable | None:
    """The answers to some of the test samples, as ``evaluate`` kept them, with the bounds of this model."""
    if answers is None:
        return None
    rows = list(parity_rows(len(samples), job.params.parity_samples))
    judge = Judge(job.inputs["model"].read_bytes(), samples[rows], job.target.judge == "exact-qdq", job.threads)
    return make_parity(answers, judge, device, recipe)


def _few(device: DeviceTask, golden: int) -> int:
    """Of how many test inputs the ``golden`` ones are chosen: fewer where answers are large."""
    from dlx_deploy.runtime.tasks.arrays import block_rows

    return max(golden, block_rows((*device.inputs.tensors, *device.outputs.tensors), GOLDEN_CHOICE * golden))


def _golden(job: Job[PackageParams], task: Task, samples: Samples, recipe: dict[str, Any], few: int) -> _Golden:
    """Clear answers of the model that is packed, once they have shown that they are each row's own.

    Raises:
        StageFailed: one depends on the batch.
    """
    from dlx_deploy.graph.checks.rows import refuse_dependent_rows
    from dlx_deploy.graph.checks.spread import spread
    from dlx_deploy.graph.execution.evaluation import run_onnx
    from dlx_deploy.graph.model import input_dims, load

    model, exact = job.inputs["model"].read_bytes(), job.target.judge == "exact-qdq"
    some = samples[:few].fitted(input_dims(load(model)))
    answers = run_onnx(model, some, exact_qdq=exact, threads=1)
    rows = task.answers.golden(answers, share_of(recipe), job.params.golden_images)
    inputs, outputs = some[rows], {name: values[rows] for name, values in answers.items()}
    moved = spread(model, samples[: min(BENT_INPUTS, few)]) if exact else {}
    tolerances = {name: tolerance_of(recipe, values, moved.get(name)) for name, values in outputs.items()}
    allowed = max(relative(tolerances[name], values, exact) for name, values in outputs.items())
    refuse_dependent_rows(model, inputs, exact, allowed)
    return _Golden([int(i) for i in rows], inputs, outputs, tolerances)


def _needs_dot_product(job: Job[PackageParams]) -> bool:
    """Whether an x86 CPU without VNNI would answer something else than what was proven."""
    from dlx_deploy.graph.execution.kernels import has_full_range
    from dlx_deploy.graph.model import load

    native = job.target.judge == "native" and job.target.arch == "x86_64"
    return native and has_full_range(load(job.inputs["model"]))


def _optional(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _measured(accuracy: Accuracy, gates: Sequence[GateResult]) -> dict[str, Any]:
    """What was measured, and the first gate: the drop. A control says nothing of the package, and of classes a device
    finds out itself."""
    counted = dict.fromkeys(
        ("control", "classes", "class_scores", "slices", "slice_scores", "class_bounds", "slice_bounds"), msgspec.UNSET
    )
    base = accuracy.baseline
    if not isinstance(base, msgspec.UnsetType):
        of_slices = dict.fromkeys(("slices", "slice_scores", "slice_bounds"), msgspec.UNSET)
        base = msgspec.structs.replace(base, **of_slices)
    kept = msgspec.structs.replace(accuracy, **counted, baseline=base)
    return {**msgspec.to_builtins(kept), "gate": msgspec.to_builtins(gates[0])}


def _slices(budgets: Gate, accuracy: Accuracy) -> dict[str, Any]:
    """The budget of each slice that the build has seen, and of others, by the columns that they are of."""
    from dlx_deploy.runtime.tasks.slices import SliceBudgets, column_of, slice_fields

    names = [group.name for group in accuracy.each_slice]
    named = {name: budgets.slices.get(name, budgets.max_slice_drop) for name in names}
    columns = tuple(dict.fromkeys(map(column_of, names)))
    return slice_fields(SliceBudgets(columns, budgets.max_slice_drop, named))


def _metadata(job: Job[PackageParams], data: Dataset, recipe: dict[str, Any], accuracy: Accuracy) -> dict[str, Any]:
    params, target = job.params, job.target
    asked = read_precisions(job.inputs["layers"])
    layers = asked.layers if recipe["precision"] == asked.precision else dict.fromkeys(asked.layers, "fp32")
    compiled = msgspec.json.decode((job.inputs["engine"] / "report.json").read_bytes())
    return {
        "name": params.name,
        "version": params.version,
        "target": {"name": target.name, "kind": target.kind, "arch": target.arch, "title": target.title},
        "preprocessing": task_of(data).inputs.preprocessing(data),
        "precision": {"plan": recipe["precision"], "style": target.quantization.style, "layers": layers},
        "engine": compiled,
        "execution": {"exact_qdq": target.judge == "exact-qdq", "dot_product": _needs_dot_product(job)},
        "recipe": recipe,
        "budgets": {
            "max_drop": params.gate.max_drop,
            "min_accuracy": params.gate.min_accuracy,
            "max_flips": params.gate.max_flips,
            "max_class_drop": params.gate.max_class_drop,
            "confidence": params.gate.confidence,
            "max_latency_p90_ms": params.gate.max_latency_p90_ms,
            **{f"max_latency_p{p}_ms": limit for p, limit in params.gate.latency_budgets.items()},
            **params.gate.device_budgets.to_dict(),
            **_slices(params.gate, accuracy),
        },
    }


def _card(
    job: Job[PackageParams], recipe: dict[str, Any], accuracy: Accuracy, task: Task, gates: Sequence[GateResult]
) -> str:
    shipped, teacher = accuracy.row(accuracy.shipped), accuracy.row(REFERENCE)
    judged = "\n".join(f"- Gate {g.gate}: **{g.verdict}**. {g.text[0].upper()}{g.text[1:]}." for g in gates)
    style = f", {job.target.quantization.style} style" if recipe["precision"] == "int8" else ""
    return f"""# {job.params.name} {job.params.version} for {job.target.title}

{task.statement}

| model | {accuracy.title} | parameters | multiply-accumulates | ONNX bytes |
|---|---|---|---|---|
| teacher | {100 * teacher.score:.2f} % | {teacher.parameters} | {teacher.macs} | {teacher.size_bytes} |
| shipped | {100 * shipped.score:.2f} % | {shipped.parameters} | {shipped.macs} | {shipped.size_bytes} |

- Precision: {recipe["precision"]}{style} ({recipe["reason"]}).
{judged}
- Judged on {accuracy.n} test inputs that no stage tuned on, {accuracy.judge} arithmetic.
- Latency is not part of this file: measure it where it counts, with `python PACKAGE bench`.
- How it was made: `manifest.json` (every stage's parameters, input digests and tool versions).

It is run by `python PACKAGE.dlx predict INPUT`, and in Python, without anything installed but numpy and onnxruntime, by

```python
import sys

sys.path.insert(0, "PACKAGE.dlx")
from dlx_runtime import load

predictor = load()
answers = predictor.predict({task.inputs.noun})
```
"""


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step: what it packs is offered by all before it. Which candidate it ships shows when it runs."""
    # A user's paths; what was found of them is in ``accuracy``.
    gate = msgspec.structs.replace(config.gate, baseline="", metric=without_folder(config.gate.metric))
    params = PackageParams(
        **msgspec.structs.asdict(config.package),
        name=config.name,
        version=config.version,
        gate=gate,
        runtime=_runtime_digest(),
    )
    own = {name: upstream.output(name) for name in ("recipe", "engine", "layers", "accuracy", "data")}
    inputs: dict[str, Source] = {
        "model": upstream.output("shipped"),
        "teacher": upstream.output("teacher-answers"),
        **own,
        "provenance": Provenance(),
    }
    kept = {answered(name) for name in upstream.candidates} & upstream.outputs.keys()
    inputs |= {name: upstream.output(name) for name in sorted(kept)}
    stage = dataclasses.replace(STAGE, inputs=tuple(inputs))
    gates = partial(judge_package, config.gate.device_budgets, profile.title, device_for(profile) is not None)
    step = Step("package", stage, params, inputs, config.seed, gates)
    return [Bound(step, Offers(outputs={"package": Output("package", "package.dlx")}))]


STAGE = Stage(
    name="package",
    version=11,
    params=PackageParams,
    inputs=("model", "recipe", "layers", "engine", "accuracy", "teacher", "data", "provenance"),
    outputs=("package.dlx",),
    run=run,
    bind=bind,
    uses=("name", "kind", "arch", "title", "judge", "quantization"),
    tools=("numpy", "onnxruntime"),
)

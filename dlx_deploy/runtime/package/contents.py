"""A package as values: what ``package.json`` says, the model's bytes, the golden arrays and the reference table."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Dict, Mapping, Optional

from ..device_budgets import LIMITS, NO_BUDGETS, PERCENTILES, DeviceBudgets
from ..digests import sha256_hex
from ..errors import PackageError
from ..filenames import CARD, DRIFT, MANIFEST, MODEL, PLAN, SIDECAR
from ..files import PathLike
from ..records import record, replace
from ..schemas import PACKAGE
from ..sources import own_sources
from ..tasks.arrays import Arrays, Tensor, Tolerance, count_of
from ..tasks.judging import judging_fields, judging_of, read_judging
from ..tasks.slices import read_slices
from ..tasks.table import open_task
from ..tasks.task import Budgets, Task
from ..untyped import Array, JsonTable
from . import archive
from .fields import Fields
from .members import DIGEST, LAYOUT, array_members, read_golden, read_reference
from .model_bytes import check_model_bytes
from .parity import ParityTable, parity_fields, parity_members, read_parity
from .rules import check_batch, check_rest

if TYPE_CHECKING:
    from .trust import Signed, Trust

__all__ = ["Package", "PackageContents", "assemble", "make_reference", "open_package", "parse_package"]

ENGINE, ENGINE_SIDECAR = f"engine/{PLAN}", f"engine/{SIDECAR}"
OLDEST = 1  # of schemas that are read
RUNTIME = "dlx_runtime"  # the folder of this code inside a package

MAIN = b"""\
import sys

if sys.version_info < (3, 8):
    sys.exit("error: this package needs Python 3.8 or newer; this is " + sys.version.split()[0])
try:
    from dlx_runtime.commands.main import main
    from dlx_runtime.leaving import leave
except KeyboardInterrupt:
    sys.exit(130)
except ImportError as e:
    if (e.name or "").split(".")[0] != "numpy":
        raise
    sys.stderr.write("error: numpy is not installed; install it with: pip install numpy onnxruntime\\n")
    sys.exit(4)
leave(main(sys.argv[1:], sys.path[0]))
"""


@record
class Package:
    """A package whose digests were checked. ``meta`` is the whole of ``package.json``; treat it as read-only.

    ``batch`` is the model's fixed batch size, ``None`` if any is fine. ``golden_inputs`` and ``golden_outputs`` are
    arrays by the name of an input or output; ``reference`` by column: ``digest`` (uint64[m]) and those of the task's
    outputs. ``engine`` and ``engine_sidecar`` are a TensorRT engine that was built ahead and the JSON beside it, or
    both ``None``. ``digest`` is the SHA-256 of ``package.json`` in hexadecimal. ``parity``: the builder's answers to
    many real samples, if the package carries them. ``drift``: what ``watching.reference`` reads, if it carries that;
    who watches no drift does not read it. ``latency_budgets``: milliseconds by percentile. ``signed``: the
    signature, if it was verified. ``size_bytes`` and ``path``: of the file that it was read from.
    """

    name: str
    version: str
    target: str
    task: Task
    batch: Optional[int]
    exact_qdq: bool
    tolerances: Mapping[str, Tolerance]
    budgets: Budgets
    latency_budgets: Mapping[int, float]
    model: bytes
    golden_inputs: Arrays
    golden_outputs: Arrays
    reference: Arrays
    meta: JsonTable
    digest: str
    engine: Optional[bytes] = None
    engine_sidecar: Optional[bytes] = None
    parity: Optional[ParityTable] = None
    signed: Optional[Signed] = None
    device_budgets: DeviceBudgets = NO_BUDGETS
    size_bytes: Optional[int] = None
    path: Optional[str] = None
    drift: Optional[bytes] = None

    def without_model(self) -> Package:
        """The same, its model's bytes given up where they can be read again: a session has its own copy of them.

        Who asks for ``model`` all the same has the file read and checked again.
        """
        if self.path is None:
            return self
        other = copy.copy(self)
        other.__dict__.pop("model", None)  # ``__getattr__`` is asked for what is not there; it may be given up already
        return other

    if not TYPE_CHECKING:  # which would take any name for an attribute

        def __getattr__(self, name: str) -> bytes:
            """The ``model`` that was given up.

            Raises:
                PackageError: the file is no longer there, or no longer this package.
            """
            if name != "model" or self.path is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            files = archive.parse_archive(archive.read_bytes(self.path), self.path)
            if sha256_hex(files[archive.INDEX]) != self.digest:
                raise PackageError(f"{self.path}: has become another package since it was opened; open it again")
            return files[MODEL]

    @property
    def max_latency_p90_ms(self) -> Optional[float]:
        """The budget of p90, if there is one."""
        return self.latency_budgets.get(90)

    @property
    def inputs(self) -> Dict[str, Tensor]:
        """The model's inputs by name."""
        return {tensor.name: tensor for tensor in self.task.inputs.tensors}

    @property
    def outputs(self) -> Dict[str, Tensor]:
        """The model's outputs by name."""
        return {tensor.name: tensor for tensor in self.task.outputs.tensors}


@record
class PackageContents:
    """All that ``assemble`` needs.

    ``metadata`` holds the fields of ``package.json`` (docs/package.md) but those that follow from the rest: ``schema``,
    ``task``, ``inputs``, ``outputs``, ``golden``, ``files``, and what the task says itself (``labels``, ``tokenizer``).
    Arrays as in ``Package``; ``tolerances`` by the name of an output.
    """

    task: Task
    metadata: JsonTable
    model: bytes
    golden_inputs: Arrays
    golden_outputs: Arrays
    tolerances: Mapping[str, Tolerance]
    reference: Arrays
    manifest: bytes
    model_card: str
    batch: Optional[int] = None
    engine: Optional[bytes] = None
    engine_sidecar: Optional[bytes] = None
    parity: Optional[ParityTable] = None
    drift: Optional[bytes] = None


def open_package(path: PathLike, trust: Optional[Trust] = None) -> Package:
    """The package at ``path``, every digest checked; before that its signature, where ``trust`` or the machine asks.

    Raises:
        PackageError, InputError, BackendMissing: as ``archive.read_signed`` and ``parse_package``.
    """
    files, signed = archive.read_signed(path, trust)
    return replace(
        parse_package(files, os.fspath(path)),
        signed=signed,
        size_bytes=os.path.getsize(path),
        path=os.path.abspath(path),
    )


def parse_package(files: Mapping[str, bytes], origin: str) -> Package:
    """The members of an archive as a ``Package``; ``origin`` names it in messages.

    Raises:
        PackageError: a field of ``package.json`` is missing or of the wrong kind, or an array does not fit it.
    """
    meta = archive.read_index(origin, files[archive.INDEX])
    field, layout = Fields(meta, origin, files), LAYOUT
    if meta["schema"] == OLDEST:
        from . import schema1

        field, layout = schema1.upgraded(meta, origin, files), schema1.LAYOUT
    check_model_bytes(field.member(MODEL), origin)
    if (ENGINE in files) != (ENGINE_SIDECAR in files):
        raise PackageError(
            f"{origin}: of {ENGINE!r} and {ENGINE_SIDECAR!r} only one is there; both or none must be: build it again"
        )
    task = read_judging(field, open_task(field))
    batch = field.batch("inputs.0.shape")
    field.tensors("inputs", task.inputs.tensors, batch)
    field.tensors("outputs", task.outputs.tensors, batch)
    for table in ("preprocessing", "precision", "recipe", "accuracy"):
        field.get(table, dict)
    check_rest(field)
    check_batch(field, task.inputs.tensors, batch)
    inputs, outputs = read_golden(field, layout, task)
    return Package(
        name=field.get("name", str),
        version=field.get("version", str),
        target=field.get("target.name", str),
        task=task,
        batch=batch,
        exact_qdq=field.get("execution.exact_qdq", bool),
        tolerances={name: field.tolerance(f"golden.tolerances.{name}") for name in outputs},
        budgets=Budgets(
            field.fraction("budgets.max_drop", 0),
            field.fraction("budgets.confidence", 0.5),
            field.fraction_or("budgets.min_accuracy", 0.0),
            field.fraction_or("budgets.max_flips", 0.0),
            field.fraction_or("budgets.max_class_drop", 0.0),
            read_slices(field),
        ),
        latency_budgets=_latency_budgets(field),
        model=files[MODEL],
        golden_inputs=inputs,
        golden_outputs=outputs,
        reference=read_reference(field, layout, task),
        meta=meta,
        digest=sha256_hex(files[archive.INDEX]),
        engine=files.get(ENGINE),
        engine_sidecar=files.get(ENGINE_SIDECAR),
        parity=read_parity(field, files, task.outputs),
        device_budgets=_device_budgets(field),
        drift=files.get(DRIFT),
    )


def assemble(contents: PackageContents) -> Dict[str, bytes]:
    """Every member of the package, ``package.json`` with their digests and this runtime's own sources included.

    Write them with ``archive.write_archive``. The same contents give the same bytes.

    Raises:
        PackageError: the metadata is incomplete or no JSON, or an array does not fit it.
    """
    files = {
        MODEL: contents.model,
        MANIFEST: contents.manifest,
        CARD: contents.model_card.encode("utf-8"),
        **array_members({**contents.golden_inputs, **contents.golden_outputs}, contents.reference),
        **contents.task.inputs.members(),
        **(parity_members(contents.parity) if contents.parity else {}),
        **({} if contents.drift is None else {DRIFT: contents.drift}),
        "__main__.py": MAIN,
    }
    if contents.engine is not None and contents.engine_sidecar is not None:
        files.update({ENGINE: contents.engine, ENGINE_SIDECAR: contents.engine_sidecar})
    files.update({f"{RUNTIME}/{name}": source for name, source in own_sources().items()})
    meta = {**_metadata(contents), "files": {name: _entry(data) for name, data in files.items()}}
    try:
        files[archive.INDEX] = archive.to_json(meta)
    except (TypeError, ValueError) as e:
        raise PackageError(f"the new package's metadata cannot be written as JSON: {e}") from e
    parse_package(files, "the new package")
    return files


def make_reference(task: Task, feeds: Arrays, columns: Arrays) -> Dict[str, Array]:
    """The table that lets the gate be run again without the teacher: a row for each sample in ``feeds``.

    ``digest`` (uint64[m]) finds a sample's row; ``columns`` are those of the task's outputs, as ``Outputs.record``
    makes them of the teacher's answers.
    """
    return {DIGEST: task.inputs.digests(feeds), **columns}


def _latency_budgets(field: Fields) -> Dict[int, float]:
    """Those that there are; older writers know that of p90 alone."""
    paths = {p: f"budgets.max_latency_p{p}_ms" for p in PERCENTILES}
    limits = {p: field.number(path) for p, path in paths.items() if p == 90 or field.has(path)}
    return {p: limit for p, limit in limits.items() if limit}


def _device_budgets(field: Fields) -> DeviceBudgets:
    """Those that there are; older packages have none."""
    limits = {name: field.number(f"budgets.{name}") for name in LIMITS if field.has(f"budgets.{name}")}
    batch = "budgets.throughput_batch"
    return DeviceBudgets(throughput_batch=field.count(batch, 1, 65536) if field.has(batch) else 1, **limits)


def _metadata(contents: PackageContents) -> Dict[str, object]:
    """``package.json`` but ``files``."""
    task, batch = contents.task, contents.batch
    how = judging_fields(judging_of(task))
    budgets = {"budgets": {**contents.metadata["budgets"], **how}} if how else {}
    # Older runtimes would judge by another metric, or pass over slices, and need not refuse others.
    schema = PACKAGE if "slices" in contents.metadata["budgets"] else PACKAGE - 1 if how else PACKAGE - 2
    tolerances = {name: tolerance.to_dict() for name, tolerance in contents.tolerances.items()}
    return {
        **contents.metadata,
        **budgets,
        **task.inputs.fields(),
        **task.outputs.fields(),
        **(parity_fields(contents.parity) if contents.parity else {}),
        "schema": schema,
        "task": task.name,
        "inputs": [tensor.to_dict(batch) for tensor in task.inputs.tensors],
        "outputs": [tensor.to_dict(batch) for tensor in task.outputs.tensors],
        "golden": {"count": count_of(contents.golden_inputs), "tolerances": tolerances},
    }


def _entry(data: bytes) -> Dict[str, object]:
    return {"sha256": sha256_hex(data), "size": len(data)}

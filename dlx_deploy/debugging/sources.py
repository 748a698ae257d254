"""What a package was made of: the graph in floating point and the test split, out of the store of its build."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from onnx import ModelProto

from dlx_deploy.delivery import StoredOutput, stored_output
from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import load
from dlx_deploy.graph.quantization.integers import as_divided
from dlx_deploy.graph.quantization.plan import QuantizationPlan, read_plan
from dlx_deploy.pipeline.record import Record
from dlx_deploy.pipeline.store import Store
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.files import TooLarge, read_file
from dlx_deploy.runtime.package.archive import read_archive
from dlx_deploy.runtime.package.contents import Package, parse_package
from dlx_deploy.runtime.package.model_bytes import MAX_BYTES, check_model_bytes

if TYPE_CHECKING:
    from dlx_deploy.runtime.untyped import JsonTable

__all__ = ["Made", "Reference", "find_reference", "no_data", "open_made", "stored_data"]


DIGEST = re.compile(r"[0-9a-f]{64}")
"""What a package says of its making is believed only as far as it has the form of a SHA-256."""


@dataclass(frozen=True)
class Made:
    """A package and how it was made: the ``steps`` of its ``manifest.json``, none where it was made by other means."""

    path: Path
    package: Package
    steps: Mapping[str, JsonTable] = field(default_factory=dict)

    def inputs(self, step: str) -> Mapping[str, str]:
        """Name → SHA-256 of what ``step`` was given; nothing where there was no such step."""
        given = _table(_table(self.steps.get(step)).get("inputs"))
        return {name: digest for name, digest in given.items() if isinstance(digest, str) and DIGEST.fullmatch(digest)}

    def parameters(self, step: str) -> JsonTable:
        """What ``step`` was asked for."""
        return _table(_table(self.steps.get(step)).get("params"))


@dataclass(frozen=True)
class Reference:
    """A graph in floating point, and ``where`` it comes from.

    ``plan``: by which the package's was quantized, where that is known.
    """

    model: ModelProto
    where: str
    plan: QuantizationPlan | None = None


def open_made(path: Path) -> Made:
    """The package at ``path``, every digest checked.

    Raises:
        PackageError: it cannot be read, or is none.
    """
    files = read_archive(path)
    package = parse_package(files, str(path))
    steps: JsonTable = {}
    with contextlib.suppress(ValueError, RecursionError):
        steps = _table(_table(msgspec.json.decode(files.get("manifest.json", b"null"))).get("steps"))
    return Made(path, package, steps)


def find_reference(made: Made, root: Path, given: Path | None) -> Reference:
    """The graph that the package's was made of: the file that was ``given``, or the build's in the store at ``root``.

    That is what was quantized; of a package in floating point the teacher. What was rescaled channel by channel for
    the sake of integers is rescaled here too, which changes no answer.

    Raises:
        ConfigError: it is not to be had, is no ONNX model, or reads other inputs than the package.
        StoreError: the store cannot be read.
    """
    store = Store(root)
    plan = _plan(made, store)
    if given is not None:
        reference = Reference(_given(given), str(given), plan)
    else:
        found = _stored(made, store)
        reference = Reference(load(found.path), f"step {found.step!r} in {root}", plan)
    _refuse_other_inputs(reference, made)
    if plan is not None and plan.divided:
        return Reference(as_divided(reference.model, plan), reference.where, plan)
    return reference


def stored_data(made: Made, root: Path) -> Path | None:
    """The folder of the build's data in the store at ``root``, whose test split the gate was judged on; or none."""
    digest = made.inputs("verify").get("data", "")
    found = stored_output(Store(root), digest) if digest else None
    return found.path if found else None


def no_data(made: Made, root: Path) -> ConfigError:
    """That they are not there, and what to do."""
    return ConfigError(
        f"{made.path}: the data that it was judged on ({_short(made.inputs('verify').get('data', ''))}) are not in the "
        f"store {root}; name the build's store, --store DIR, or the labelled data, --data DIR"
    )


def _given(path: Path) -> ModelProto:
    """The model in a file of the user's, every weight inside.

    Raises:
        ConfigError: it cannot be read, or is no such model.
    """
    try:
        content = read_file(path, MAX_BYTES)
        check_model_bytes(content, str(path))
    except TooLarge as e:
        raise ConfigError(f"--reference {path}: has {e} bytes; an ONNX model has at most {MAX_BYTES}") from e
    except OSError as e:
        raise ConfigError(f"--reference {path}: cannot be read ({e.strerror}); give an .onnx file") from e
    except PackageError as e:
        raise ConfigError(f"--reference {e}") from e
    return load(content)


def _stored(made: Made, store: Store) -> StoredOutput:
    digests = list(_candidates(made))
    for digest in digests:
        found = stored_output(store, digest)
        if found is not None:
            return found
    raise ConfigError(
        f"{made.path}: the graph in floating point that it was made of ({_short(digests[0] if digests else '')}) is "
        f"not in the store {store.root}; name the build's store, --store DIR, or the file, --reference model.onnx"
    )


def _candidates(made: Made) -> Iterator[str]:
    """The digests of what the package's graph may have been made of, the nearest first."""
    shipped = hashlib.sha256(made.package.model).hexdigest()
    quantized = made.inputs("quantize")
    sources = [quantized[name] for name in ("learned-model", "onnx") if name in quantized]
    if shipped not in sources:
        yield from sources
    if teacher := made.inputs("verify").get("teacher", ""):
        yield teacher


def _plan(made: Made, store: Store) -> QuantizationPlan | None:
    """The ``plan.json`` of the build, where the store has it and the package's graph was written by it."""
    key = str(_table(made.steps.get("quantize")).get("key", ""))
    record = store.find(key) if DIGEST.fullmatch(key) else None
    if not isinstance(record, Record) or "plan.json" not in record.outputs:
        return None
    written = record.outputs.get("model.onnx")
    if written is None or written.digest != hashlib.sha256(made.package.model).hexdigest():
        return None
    return read_plan(store.output_path(key, "plan.json"))


def _refuse_other_inputs(reference: Reference, made: Made) -> None:
    ours, theirs = _ends(load(made.package.model)), _ends(reference.model)
    if ours != theirs:
        raise ConfigError(
            f"{reference.where}: it has {_said(theirs)}, and the package {_said(ours)}; rule: the same inputs and "
            "outputs by name, type and size. Give the ONNX that the build exported (.dlx/store/*/model.onnx of export)"
        )


def _ends(model: ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Inputs and outputs: their types and dimensions behind the batch, 0 where any will do."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: (
            int(value.type.tensor_type.elem_type),
            tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]),
        )
        for value in (*model.graph.input, *model.graph.output)
        if value.name not in weights
    }


def _said(ends: Mapping[str, tuple[int, Sequence[int]]]) -> str:
    from onnx import helper

    kinds = ((name, helper.tensor_dtype_to_np_dtype(kind), list(dims)) for name, (kind, dims) in ends.items())
    return ", ".join(f"{name} {kind}[N, {', '.join(map(str, dims))}]" for name, kind, dims in kinds)


def _short(digest: str) -> str:
    return f"SHA-256 {digest[:12]}…" if digest else "its manifest.json does not say which"


def _table(value: object) -> JsonTable:
    return value if isinstance(value, dict) else {}

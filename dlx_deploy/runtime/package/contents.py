"""A package as values: what ``package.json`` says, the model's bytes, the golden arrays and the reference table."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ..errors import PackageError
from ..sources import own_sources
from ..strict_json import from_json
from ..tasks.inputs import ImageInput, TextInput
from . import archive
from .fields import Fields, npy_array, npy_bytes
from .model_bytes import check_model_bytes
from .rules import check_batch, check_rest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Package",
    "PackageContents",
    "assemble",
    "input_digests",
    "make_reference",
    "open_package",
    "parse_package",
]

MODEL, MANIFEST, CARD = "model.onnx", "manifest.json", "MODEL_CARD.md"
GOLDEN_INPUTS, GOLDEN_LOGITS, REFERENCE = "golden/inputs.npy", "golden/logits.npy", "reference.npy"
OUTPUT = "logits"
TOKENIZER, GOLDEN_TEXTS = "tokenizer.json", "golden/texts.json"
ENGINE, ENGINE_SIDECAR = "engine/engine.plan", "engine/engine.json"
TASKS = {"images": "image-classification", "texts": "sequence-classification"}
_TABLE: Dict[str, type] = {"vocabulary": int, "pad_id": int, "max_length": int, "truncate": bool}
MAX_TOKEN = 2**31 - 1  # tokens are int32
RUNTIME = "dlx_runtime"  # the folder of this code inside a package

MAIN = b"""\
import sys

if sys.version_info < (3, 8):
    sys.exit("error: this package needs Python 3.8 or newer; this is " + sys.version.split()[0])
try:
    from dlx_runtime.commands.main import main
except KeyboardInterrupt:
    sys.exit(130)
except ImportError as e:
    if (e.name or "").split(".")[0] != "numpy":
        raise
    sys.stderr.write("error: numpy is not installed; install it with: pip install numpy onnxruntime\\n")
    sys.exit(4)
sys.exit(main(sys.argv[1:], sys.path[0]))
"""


@dataclass(frozen=True)
class Package:
    """A package whose digests were checked. ``meta`` is the whole of ``package.json``; treat it as read-only.

    ``input`` is what the model reads; ``batch`` is its fixed batch size, ``None`` if any is fine.
    ``golden_inputs``: images uint8[n, H, W, C], 0..255, or tokens int32[n, L], then with ``golden_texts`` and the
    ``tokenizer`` that makes them; ``golden_logits``: float32[n, classes]; ``reference``: uint64[m, 3], as
    ``make_reference`` makes it. ``engine`` and ``engine_sidecar`` are a TensorRT engine that was built
    ahead and the JSON beside it, or both ``None``. ``digest`` is the SHA-256 of ``package.json`` in hexadecimal.
    """

    name: str
    version: str
    target: str
    input: Union[ImageInput, TextInput]
    batch: Optional[int]
    labels: Tuple[str, ...]
    exact_qdq: bool
    atol: float
    rtol: float
    max_drop: float
    confidence: float
    max_latency_p90_ms: Optional[float]
    model: bytes
    golden_inputs: NDArray[Any]
    golden_logits: NDArray[np.float32]
    reference: NDArray[np.uint64]
    meta: Mapping[str, Any]
    digest: str
    engine: Optional[bytes] = None
    engine_sidecar: Optional[bytes] = None
    tokenizer: Optional[bytes] = None
    golden_texts: Tuple[str, ...] = ()
    min_accuracy: float = 0.0
    exact_atol: Optional[float] = None


@dataclass(frozen=True)
class PackageContents:
    """All that ``assemble`` needs.

    ``metadata`` holds the fields of ``package.json`` (docs/package.md) but ``schema``, ``task``, ``input``,
    ``outputs``, ``golden.images`` (or ``golden.texts``), ``golden.top1`` and ``files``, which follow from the rest; for
    texts it holds ``tokenizer``. Arrays as in ``Package``.
    """

    metadata: Mapping[str, Any]
    model: bytes
    golden_inputs: NDArray[Any]
    golden_logits: NDArray[np.float32]
    reference: NDArray[np.uint64]
    manifest: bytes
    model_card: str
    batch: Optional[int] = None
    engine: Optional[bytes] = None
    engine_sidecar: Optional[bytes] = None
    tokenizer: Optional[bytes] = None
    golden_texts: Sequence[str] = ()
    length: Optional[int] = None


def open_package(path: Union[str, os.PathLike[str]]) -> Package:
    """The package at ``path``, every digest checked.

    Raises:
        PackageError: as ``archive.read_archive`` and ``parse_package``.
    """
    return parse_package(archive.read_archive(path), os.fspath(path))


def parse_package(files: Mapping[str, bytes], origin: str) -> Package:
    """The members of an archive as a ``Package``; ``origin`` names it in messages.

    Raises:
        PackageError: a field of ``package.json`` is missing or of the wrong kind, or an array does not fit it.
    """
    meta = archive.read_index(origin, files[archive.INDEX])
    text = meta.get("task") == TASKS["texts"]
    for name in (MODEL, GOLDEN_INPUTS, GOLDEN_LOGITS, REFERENCE, *((TOKENIZER, GOLDEN_TEXTS) if text else ())):
        if name not in files:
            raise PackageError(
                f"{origin}: {name!r} is missing; a package of schema {archive.SCHEMA} has it: build it again"
            )
    if (ENGINE in files) != (ENGINE_SIDECAR in files):
        raise PackageError(
            f"{origin}: of {ENGINE!r} and {ENGINE_SIDECAR!r} only one is there; both or none must be: build it again"
        )
    check_model_bytes(files[MODEL], origin)
    field = Fields(meta, origin)
    spec, batch = _read_input(field)
    labels = field.labels()
    field.exactly("input", _input(spec, batch))
    field.exactly("outputs", _outputs(len(labels), batch))
    for table in ("preprocessing", "precision", "recipe", "accuracy"):
        field.get(table, dict)
    check_rest(field)
    check_batch(field, spec, batch)
    dims = [n if isinstance(n, int) else None for n in spec.dims]
    inputs = npy_array(files, GOLDEN_INPUTS, origin, np.dtype(spec.dtype), (None, *dims))
    field.exactly(f"golden.{spec.noun}", len(inputs))
    if not len(inputs):
        raise field.wrong(f"golden.{spec.noun}", 0, "must be at least 1, or the self-test would test nothing")
    logits = npy_array(files, GOLDEN_LOGITS, origin, np.float32, (len(inputs), len(labels)))
    reference = npy_array(files, REFERENCE, origin, np.uint64, (None, 3))
    _check_values(origin, spec, inputs, logits, reference)
    return Package(
        name=field.get("name", str),
        version=field.get("version", str),
        target=field.get("target.name", str),
        input=spec,
        batch=batch,
        labels=labels,
        exact_qdq=field.get("execution.exact_qdq", bool),
        atol=field.number("golden.atol", 1e6),
        rtol=field.fraction("golden.rtol", 0),
        max_drop=field.fraction("budgets.max_drop", 0),
        confidence=field.fraction("budgets.confidence", 0.5),
        max_latency_p90_ms=field.number("budgets.max_latency_p90_ms") or None,
        model=files[MODEL],
        golden_inputs=inputs,
        golden_logits=logits,
        reference=reference,
        meta=meta,
        digest=hashlib.sha256(files[archive.INDEX]).hexdigest(),
        engine=files.get(ENGINE),
        engine_sidecar=files.get(ENGINE_SIDECAR),
        tokenizer=files[TOKENIZER] if isinstance(spec, TextInput) else None,
        golden_texts=_golden_texts(files, origin, len(inputs)) if isinstance(spec, TextInput) else (),
        min_accuracy=field.fraction_or("budgets.min_accuracy", 0.0),
        exact_atol=field.number("golden.exact_atol", 1e6) if field.has("golden.exact_atol") else None,
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
        GOLDEN_INPUTS: npy_bytes(contents.golden_inputs),
        GOLDEN_LOGITS: npy_bytes(contents.golden_logits),
        REFERENCE: npy_bytes(contents.reference),
        "__main__.py": MAIN,
    }
    if contents.engine is not None and contents.engine_sidecar is not None:
        files.update({ENGINE: contents.engine, ENGINE_SIDECAR: contents.engine_sidecar})
    if contents.tokenizer is not None:
        files[TOKENIZER] = contents.tokenizer
        files[GOLDEN_TEXTS] = archive.to_json(list(contents.golden_texts))
    files.update({f"{RUNTIME}/{name}": source for name, source in own_sources().items()})
    meta = {**_derived(contents), "files": {name: _entry(data) for name, data in files.items()}}
    try:
        files[archive.INDEX] = archive.to_json(meta)
    except (TypeError, ValueError) as e:
        raise PackageError(f"the new package's metadata cannot be written as JSON: {e}") from e
    parse_package(files, "the new package")
    return files


def make_reference(
    inputs: NDArray[Any], labels: Sequence[int], teacher_top1: Sequence[int], pad_id: Optional[int] = None
) -> NDArray[np.uint64]:
    """The table that lets the gate be run again without the teacher: uint64[N, 3].

    A row is an input's digest (``input_digests``), its label and the teacher's top-1 class.
    ``inputs``: images uint8[N, H, W, C], 0..255, or tokens int32[N, L]; ``labels`` and ``teacher_top1``: N class
    numbers.
    """
    columns = [input_digests(inputs, pad_id), np.asarray(labels, np.uint64), np.asarray(teacher_top1, np.uint64)]
    return np.stack(columns, axis=1)


def input_digests(inputs: NDArray[Any], pad_id: Optional[int] = None) -> NDArray[np.uint64]:
    """Per row the first 8 bytes of its SHA-256, little-endian, as uint64[N].

    Of an image uint8[H, W, C] the pixels count, of tokens int32[L] those that are no padding, little-endian.
    """
    rows = inputs if pad_id is None else [row[row != pad_id].astype("<i4") for row in inputs]
    heads = b"".join(hashlib.sha256(row.tobytes()).digest()[:8] for row in rows)
    return np.frombuffer(heads, "<u8").astype(np.uint64)


def _derived(contents: PackageContents) -> Dict[str, Any]:
    spec = _spec_of(contents)
    golden = {**contents.metadata.get("golden", {}), spec.noun: len(contents.golden_inputs), "top1": "must agree"}
    return {
        **contents.metadata,
        "schema": archive.SCHEMA,
        "task": TASKS[spec.noun],
        "input": _input(spec, contents.batch),
        "outputs": _outputs(contents.golden_logits.shape[-1], contents.batch),
        "golden": golden,
    }


def _spec_of(contents: PackageContents) -> Union[ImageInput, TextInput]:
    if contents.tokenizer is None:
        height, width, channels = contents.golden_inputs.shape[1:]
        return ImageInput((height, width, channels))
    try:
        table = contents.metadata["tokenizer"]
        return TextInput(**{key: table[key] for key in _TABLE}, length=contents.length)
    except (KeyError, TypeError) as e:
        raise PackageError(f"the new package's metadata says nothing of its tokenizer: {e}") from e


def _read_input(field: Fields) -> Tuple[Union[ImageInput, TextInput], Optional[int]]:
    """What the model reads, and its fixed batch size or ``None``."""
    if field.get("task", str) == TASKS["images"]:
        shape, batch = field.image_shape()
        return ImageInput(shape), batch
    if field.get("task", str) != TASKS["texts"]:
        raise field.wrong("task", field.get("task", str), f"must be one of {', '.join(TASKS.values())}")
    batch, length = field.token_shape()
    vocabulary = field.count("tokenizer.vocabulary", 1, MAX_TOKEN)
    longest = field.count("tokenizer.max_length", 1, MAX_TOKEN)
    if length is not None and length < longest:
        raise field.wrong("input.shape", field.at("input.shape"), f"its length must be tokenizer.max_length, {longest}")
    pad = field.count("tokenizer.pad_id", 0, vocabulary - 1)
    return TextInput(vocabulary, pad, longest, field.get("tokenizer.truncate", bool), length), batch


def _check_values(
    origin: str,
    spec: Union[ImageInput, TextInput],
    inputs: NDArray[Any],
    logits: NDArray[np.float32],
    reference: NDArray[np.uint64],
) -> None:
    """Refuses numbers that mean nothing: tokens and classes that there are not."""
    if isinstance(spec, TextInput) and (inputs.size == 0 or inputs.min() < 0 or inputs.max() >= spec.vocabulary):
        raise PackageError(f"{origin}: {GOLDEN_INPUTS!r} holds other tokens than 0 to {spec.vocabulary - 1}, or none")
    if reference[:, 1:].max(initial=0) >= logits.shape[1]:
        raise PackageError(
            f"{origin}: {REFERENCE!r} names class {int(reference[:, 1:].max())}; must be 0 to {logits.shape[1] - 1}"
        )


def _golden_texts(files: Mapping[str, bytes], origin: str, count: int) -> Tuple[str, ...]:
    try:
        texts = from_json(files[GOLDEN_TEXTS])
    except ValueError as e:
        raise PackageError(f"{origin}: {GOLDEN_TEXTS!r} is not JSON ({e})") from e
    if not isinstance(texts, list) or len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise PackageError(f"{origin}: {GOLDEN_TEXTS!r} must be a list of {count} texts")
    return tuple(texts)


def _input(spec: Union[ImageInput, TextInput], batch: Optional[int]) -> Dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "layout": spec.layout, "shape": [batch or "batch", *spec.dims]}


def _outputs(classes: int, batch: Optional[int]) -> List[Dict[str, Any]]:
    return [{"name": OUTPUT, "dtype": "float32", "shape": [batch or "batch", classes]}]


def _entry(data: bytes) -> Dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

"""Predictions: images or texts in, logits, probabilities, classes and labels out."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Tuple, Union

import numpy as np

from .backends.choice import open_backend
from .backends.kernels import missing_dot_product
from .backends.table import BackendOptions
from .errors import BackendMissing, InputError, PackageError
from .package.contents import OUTPUT, Package, open_package
from .tasks.inputs import ImageInput, reader_for
from .words import line, said

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Predictions", "Predictor", "load"]

_log = logging.getLogger(__name__)

DEFAULTS = BackendOptions()
PathLike = Union[str, "os.PathLike[str]"]
NDARRAY = np.ndarray
UINT8 = np.dtype(np.uint8)


class Predictions:
    """What a model says about N images or texts; everything but the logits is computed when it is asked for.

    ``logits``: float32[N, classes], owned by the caller: no later call writes to it.
    """

    __slots__ = ("_names", "logits")

    def __init__(self, logits: NDArray[np.float32], names: Tuple[str, ...]) -> None:
        self.logits = logits
        self._names = names

    def __len__(self) -> int:
        return len(self.logits)

    def __repr__(self) -> str:
        shown = [self._names[int(row.argmax())] if np.isfinite(row).all() else "no answer" for row in self.logits[:8]]
        return f"Predictions({len(self)}: {', '.join(shown)}{', …' if len(self) > 8 else ''})"

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """The softmax of the logits: float32[N, classes], 0..1, each row sums to 1."""
        powers = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class of each input: int64[N], 0..classes - 1; the first one of equals.

        Raises:
            PackageError: a logit is NaN or infinite; the largest would be an answer to nothing.
        """
        self._check_finite()
        classes: NDArray[np.int64] = self.logits.argmax(axis=1)
        return classes

    @property
    def labels(self) -> List[str]:
        """The class name of each input."""
        return [self._names[i] for i in self.classes]

    def top(self, k: int) -> List[List[Tuple[str, float]]]:
        """Per input the ``k`` most probable classes (all, if there are fewer), best first, as (label, probability).

        Raises:
            InputError: ``k`` is under 1. PackageError: as ``classes``.
        """
        if k < 1:
            raise InputError(f"top is {k}; must be 1 or more")
        self._check_finite()
        best = np.argsort(-self.logits, axis=1, kind="stable")[:, :k]
        probabilities = self.probabilities
        pairs = ((row, probabilities[n]) for n, row in enumerate(best))
        return [[(self._names[i], float(p[i])) for i in row] for row, p in pairs]

    def _check_finite(self) -> None:
        if not np.isfinite(self.logits).all():
            row = int(np.flatnonzero(~np.isfinite(self.logits).all(axis=1))[0])
            raise PackageError(
                f"the model gives NaN or infinite logits for input {row}; run its self-test, or another onnxruntime"
            )


class Predictor:
    """A package with its backend open; ``predict`` may be called from several threads at once.

    ``say`` hears which backend was chosen and how an engine's build goes; by default that is logged, a fallback as a
    warning.

    Raises:
        PackageError: the model cannot be loaded, or its input or output is not what the package says.
        BackendMissing: no backend of the package's, or not the one asked for, is here; or this CPU's INT8 kernels would
            compute something else than what was proven.
        EngineError: an engine cannot be built, or must not be.
    """

    def __init__(
        self, package: Package, options: BackendOptions = DEFAULTS, say: Optional[Callable[[str], None]] = None
    ) -> None:
        self.package = package
        wrong = missing_dot_product(package.meta)
        if wrong:
            raise BackendMissing(wrong)
        self.backend = open_backend(package, options, say or (lambda text: _log.info(line(text))))
        if self.backend.skipped and say is None:
            _log.warning(line(self.backend.describe()))
        elif self.backend.chosen and say is not None:
            say(self.backend.describe())
        if self.backend.record.describes_model:
            try:
                _check_model(self.backend.session, package)
            except UnicodeDecodeError as e:
                raise PackageError(f"a name in the model is no text ({e}); copy or build the package again") from e
        self._run = self.backend.session.run
        self._faults = self.backend.record.faults()
        self._read = reader_for(package.input, package.tokenizer)
        self._input = package.input.name
        self._batch = package.batch
        self._frame = (package.batch or 1, *package.input.dims) if isinstance(package.input, ImageInput) else None
        self._names = package.labels
        self._outputs = [OUTPUT]

    def predict(self, inputs: Any) -> Predictions:
        """The predictions for ``inputs``: what the package's task takes.

        Images: uint8[N, H, W, C] or [H, W, C], NHWC, 0..255, or image files to decode. Texts: a string or several, or
        tokens int32[N, L]. ``inputs`` is only read, and not kept. A model of fixed batch size is run in blocks of it.

        Raises:
            InputError: another dtype or shape, nothing at all, a file that is missing or cannot be decoded, a text that
                is empty or too long.
            BackendMissing: files were given and Pillow is not here, or texts and the tokenizers library is not.
            PackageError: the model cannot be run, or gives other logits than the package says.
        """
        # The path of every frame of a stream: as few steps as can be, then ONNX Runtime.
        if type(inputs) is NDARRAY and inputs.dtype is UINT8 and inputs.shape == self._frame:
            return Predictions(self._answer(inputs), self._names)
        return Predictions(self._logits(self.decode(inputs)), self._names)

    def decode(self, inputs: Any) -> NDArray[Any]:
        """``inputs`` as the array that the model reads, with its batch axis.

        Raises:
            InputError, BackendMissing: as ``predict``.
        """
        return self._read(inputs)

    def _logits(self, rows: NDArray[Any]) -> Any:
        if self._batch is None:
            return self._answer(rows)
        blocks = []
        for start in range(0, len(rows), self._batch):
            block = self._trimmed(rows[start : start + self._batch])
            filling = np.repeat(block[-1:], self._batch - len(block), axis=0)
            blocks.append(self._answer(np.concatenate([block, filling]))[: len(block)])
        return np.concatenate(blocks)

    def _trimmed(self, block: NDArray[Any]) -> NDArray[Any]:
        """``block`` without the padding that only rows of other blocks need: neighbours leave no trace."""
        spec = self.package.input
        if isinstance(spec, ImageInput) or spec.length:
            return block
        used = np.flatnonzero((block != spec.pad_id).any(axis=0))
        return block[:, : int(used[-1]) + 1 if len(used) else 1]

    def _answer(self, rows: NDArray[Any]) -> Any:
        try:
            logits = self._run(self._outputs, {self._input: rows})[0]
        except self._faults as e:
            raise PackageError(
                f"{self.backend.name} cannot run the model on {len(rows)} {self.package.input.noun}: {said(e)}; if "
                "memory is short, give fewer at a time"
            ) from e
        if logits.shape != (len(rows), len(self._names)):
            raise PackageError(
                f"the model gives {logits.dtype}{list(logits.shape)} for {len(rows)} {self.package.input.noun}; must "
                f"give [{len(rows)}, {len(self._names)}]"
            )
        return logits


def load(path: PathLike, threads: int = 0, backend: Optional[str] = None, build: bool = True) -> Predictor:
    """A predictor for the package at ``path``, every digest checked first; the options are those of ``BackendOptions``.

    Raises:
        PackageError, BackendMissing, EngineError: as ``Predictor``, and a package that is missing or damaged.
    """
    return Predictor(open_package(path), BackendOptions(backend, threads, build))


def _check_model(session: Any, package: Package) -> None:
    batch, spec = package.batch, package.input
    wanted = [(spec.name, f"tensor({spec.dtype})", spec.dims), (OUTPUT, "tensor(float)", (len(package.labels),))]
    ends = [session.get_inputs(), session.get_outputs()]
    for i, (name, kind, shape) in enumerate(wanted):
        found = ends[i]
        if [x.name for x in found] != [name] or found[0].type != kind or tuple(found[0].shape[1:]) != shape:
            seen = ", ".join(f"{x.name}: {x.type}{x.shape}" for x in found)
            raise PackageError(f"the model has {seen}; must have {name}: {kind}['batch', {', '.join(map(str, shape))}]")
    first = ends[0][0].shape[0]
    if (first if isinstance(first, int) else None) != batch:
        raise PackageError(f"the model's batch size is {first!r}, the package says {batch or 'any'}; they must agree")

"""A package with its backend open: what a task reads in, its predictions out."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from .backends.choice import open_backend
from .backends.kernels import missing_dot_product
from .backends.session import tensor_type
from .backends.table import BackendOptions
from .errors import BackendMissing, InputError, PackageError
from .files import PathLike
from .inside import own_package
from .package.contents import Package, open_package
from .streaming import check_batch_size, read_all, stream_answers
from .tasks.arrays import Arrays, Filled, count_of, joined, rows_of
from .telling import Tell, silent
from .untyped import Array, Foreign
from .words import line, said

if TYPE_CHECKING:
    from .package.trust import Trust

__all__ = ["Predictor", "Run", "load"]

Run = Callable[[Optional[Sequence[str]], Arrays], List[Array]]
"""What runs a model: names of outputs and the inputs by name in, the outputs out."""

_log = logging.getLogger(__name__)

DEFAULTS = BackendOptions()
NDARRAY = np.ndarray


class Predictor:
    """A package with its backend open; ``predict`` may be called from several threads at once.

    ``say`` hears which backend was chosen and how an engine's build goes; by default that is logged, a fallback as a
    warning.

    Raises:
        PackageError: the model cannot be loaded, or its inputs or outputs are not what the package says.
        BackendMissing: no backend of the package's, or not the one asked for, is here; or this CPU's INT8 kernels would
            compute something else than what was proven.
        EngineError: an engine cannot be built, or must not be.
    """

    def __init__(
        self, package: Package, options: BackendOptions = DEFAULTS, say: Optional[Callable[[str], None]] = None
    ) -> None:
        self.package, self.options = package, options
        wrong = missing_dot_product(package.meta)
        if wrong:
            raise BackendMissing(wrong)
        self.say = say or (lambda text: _log.info(line(text)))
        self.tell: Tell = silent
        self.backend = open_backend(package, options, self.say)
        if self.backend.skipped and say is None:
            _log.warning(line(self.backend.describe()))
        elif self.backend.chosen and say is not None:
            say(self.backend.describe())
        if self.backend.record.describes_model:
            try:
                _check_model(self.backend.session, package)
            except UnicodeDecodeError as e:
                raise PackageError(f"a name in the model is no text ({e}); copy or build the package again") from e
        self.package = package.without_model()
        self._run: Run = self.backend.session.run
        self._faults = self.backend.record.faults()
        self._read, self._trim = package.task.inputs.read, package.task.inputs.trim
        self._decode, self._place = package.task.outputs.decode, package.task.place
        self._batch = package.batch
        self._outputs = package.task.outputs.tensors
        self._names = [tensor.name for tensor in self._outputs]
        self._frame: Optional[Tuple[object, ...]] = None
        if _takes_frames(package):
            (tensor,) = package.task.inputs.tensors
            self._input, self._dtype = tensor.name, np.dtype(tensor.dtype)
            self._frame = (package.batch or 1, *tensor.dims)
            self._output = self._names[0]
            self._answer_shape = (package.batch or 1, *self._outputs[0].dims) if len(self._outputs) == 1 else None

    def predict(self, given: object, bgr: bool = False) -> object:
        """The predictions for ``given``, as the package's task takes and makes them.

        Images: uint8[N, H, W, C] or [H, W, C], NHWC, 0..255, of any size (another than the model's is resized as the
        training images were), grey ones uint8[H, W]; Pillow images, image files, or a list of either. ``bgr``: arrays
        have blue first, as OpenCV's. Texts: a string or several, or tokens int32[N, L]. Several inputs: arrays by name.
        A classification gives ``Predictions``. ``given`` is only read, and not kept. A model of fixed batch size is run
        in blocks of it. What has no end, or comes one by one, is for ``stream``.

        Raises:
            InputError: another dtype or shape, nothing at all, a file that is missing or cannot be decoded, a text that
                is empty or too long, ``bgr`` with what is no array of pixels.
            BackendMissing: files were given and Pillow is not here, or texts and the tokenizers library is not.
            PackageError: the model cannot be run, or gives other outputs than the package says.
        """
        # The path of every frame of a stream: as few steps as can be, then ONNX Runtime.
        if type(given) is NDARRAY and given.shape == self._frame and given.dtype is self._dtype and not bgr:
            try:
                values = self._run(self._names, {self._input: given})
            except self._faults as e:
                raise self._unrun(e, len(given)) from e
            if values[0].shape == self._answer_shape:
                return self._decode({self._output: values[0]})
            return self._decode(self._named(values, len(given)))
        return self.answers(self.run(self.read_given(given, bgr)), given)

    def through(self, wrap: Callable[[Run], Run]) -> Predictor:
        """This predictor, its backend open once, with ``wrap`` around what runs the model: whoever measures sees in."""
        other = copy.copy(self)
        other._run = wrap(self._run)
        return other

    def stream(self, samples: Iterable[object], batch: Optional[int] = None, bgr: bool = False) -> Iterator[object]:
        """The answer to each of ``samples`` as they come, a generator's or a list's, in their order.

        Each is what ``predict`` takes as one, and each answer what it would give. ``batch``: how many are waited for
        and run at a time, and held at most; by default the model's fixed size, or 1.

        Raises:
            InputError: ``batch`` is out of range. What a sample raises comes when its answer would.
        """
        return stream_answers(self, samples, check_batch_size(batch, self._batch), bgr)

    def answers(self, outputs: Arrays, given: object) -> object:
        """The predictions behind ``outputs``, which know how large what was ``given`` was, where the task asks it."""
        answers = self._decode(outputs)
        return answers if self._place is None else self._place(answers, given)

    def read_all(self, samples: Sequence[object], bgr: bool = False) -> Dict[str, Array]:
        """``samples``, each given as it may be given alone, as one batch; they may be of several kinds.

        Raises:
            InputError, BackendMissing: as ``predict``.
        """
        return read_all(self.package.task.inputs, samples, lambda given: self.read_given(given, bgr))

    def read(self, given: object) -> Dict[str, Array]:
        """``given`` as the arrays that the model reads, by name, with their batch axis.

        Raises:
            InputError, BackendMissing: as ``predict``.
        """
        return self._read(given)

    def read_given(self, given: object, bgr: bool = False) -> Dict[str, Array]:
        """``given`` as ``predict`` takes it, as the arrays that the model reads: what comes first in ``predict``.

        Raises:
            InputError, BackendMissing: as ``predict``.
        """
        noun, own = self.package.task.inputs.noun, getattr(self.package.task.inputs, "read_own", None)
        if hasattr(given, "__next__"):
            raise InputError(f"{noun} are an iterator ({type(given).__name__}); give a list, or use stream({noun})")
        if own is None and bgr:
            raise InputError(f"bgr is for arrays of pixels, and the package reads {noun}")
        feeds: Dict[str, Array] = own(given, bgr) if own else self._read(given)
        return feeds

    def run(self, feeds: Arrays) -> Dict[str, Array]:
        """The model's outputs for what ``read`` gave, by name; a fixed batch size is filled with copies.

        Raises:
            PackageError: as ``predict``.
        """
        if self._batch is None:
            return self._answer(feeds)
        blocks: List[Arrays] = []
        count = count_of(feeds)
        for start in range(0, count, self._batch):
            size = min(self._batch, count - start)
            block = self._trim(rows_of(feeds, slice(start, start + size)))
            filled = Filled(rows_of(block, np.minimum(np.arange(self._batch), size - 1)), size)
            blocks.append(rows_of(self._answer(filled), slice(size)))
        return joined(blocks)

    def _answer(self, feeds: Arrays) -> Dict[str, Array]:
        count = count_of(feeds)
        try:
            values = self._run(self._names, feeds)
        except self._faults as e:
            raise self._unrun(e, count) from e
        return self._named(values, count)

    def _named(self, values: Sequence[Array], count: int) -> Dict[str, Array]:
        """The outputs by name; ONNX Runtime holds a model to its types only, so their shapes are checked."""
        for i, tensor in enumerate(self._outputs):
            value = values[i]
            if not tensor.fits(value.shape) or len(value) != count:
                what = f"{tensor.name}: " if len(values) > 1 else ""
                wanted = ", ".join(map(str, (count, *tensor.dims)))
                raise PackageError(
                    f"the model gives {what}{value.dtype}{list(value.shape)} for {count} "
                    f"{self.package.task.inputs.noun}; must give [{wanted}]"
                )
        return dict(zip(self._names, values))

    def _unrun(self, error: BaseException, count: int) -> PackageError:
        return PackageError(
            f"{self.backend.name} cannot run the model on {count} {self.package.task.inputs.noun}: {said(error)}; if "
            "memory is short, give fewer at a time"
        )


def load(
    path: Optional[PathLike] = None,
    threads: int = 0,
    backend: Optional[str] = None,
    build: bool = True,
    trust: Optional[Trust] = None,
) -> Predictor:
    """A predictor for the package at ``path``, every digest checked first; the options are those of ``BackendOptions``.

    With ``trust`` (or where the machine's environment names what it trusts) its signature is verified before that.

    Without a path: for the package that this runtime was imported from (``from dlx_runtime import load``).

    Raises:
        PackageError, BackendMissing, EngineError: as ``Predictor``, and a package that is missing or damaged.
        InputError: no path, and the runtime is not inside a package, or not alone (``own_package``); or ``trust`` and
            no path: that package's own code runs already, so its word for its signature is worth nothing.
    """
    if path is None and trust is not None:
        raise InputError("load(trust=…) is for code that you trust and a package that it opens: load('X.dlx', trust=…)")
    package = open_package(own_package() if path is None else path, trust)
    return Predictor(package, BackendOptions(backend, threads, build))


def _takes_frames(package: Package) -> bool:
    """Whether an array of the one right shape and dtype can go to the model as it is."""
    inputs = package.task.inputs
    return inputs.any_value and len(inputs.tensors) == 1 and None not in inputs.tensors[0].sizes


def _check_model(session: Foreign, package: Package) -> None:
    """Refuses a model with other inputs or outputs than the package says."""
    task = package.task
    for nodes, tensors in ((session.get_inputs(), task.inputs.tensors), (session.get_outputs(), task.outputs.tensors)):
        seen = {(node.name, node.type, tuple(node.shape[1:])) for node in nodes}
        wanted = {(t.name, tensor_type(t.dtype), t.dims): t for t in tensors}
        if seen != set(wanted):
            has = ", ".join(f"{node.name}: {node.type}{node.shape}" for node in nodes)
            rule = ", ".join(f"{n}: {kind}['batch', {', '.join(map(str, dims))}]" for n, kind, dims in wanted)
            raise PackageError(f"the model has {has}; must have {rule}")
    for node in session.get_inputs():
        first = node.shape[0]
        if (first if isinstance(first, int) else None) != package.batch:
            rule = f"the package says {package.batch or 'any'}; they must agree"
            raise PackageError(f"the model's batch size is {first!r}, {rule}")

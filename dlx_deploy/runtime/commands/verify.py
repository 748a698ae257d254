"""The accuracy gate run again on the shipped bytes: the package against its teacher, input by input."""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ..backends.session import open_session, session_errors
from ..errors import InputError, PackageError, RuntimeFault
from ..files import TooLarge, open_file, read_file, reason
from ..package.contents import Package, input_digests
from ..package.model_bytes import MAX_BYTES as MAX_MODEL_BYTES
from ..package.model_bytes import check_model_bytes
from ..predictor import Predictor
from ..statistics.drops import Verdict, non_inferiority
from ..statistics.floors import Floor, accuracy_floor
from ..strict_json import from_json
from ..tasks.folders import SUFFIXES, counted, list_classes, split_entries
from ..tasks.images import load_image
from ..tasks.inputs import ImageInput
from ..tasks.labels import composed
from ..tasks.text_files import distinct, read_texts
from ..words import said

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Verification", "load_labelled", "load_labelled_folder", "teacher_predictions", "verify_package"]

_log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 1024**3  # of a JSON file in a data folder: its texts
BLOCK = 128  # images per run: bounds the memory, not the result
PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Verification:
    """The gate's verdict and the two accuracies behind it, as fractions.

    ``b``: teacher right and package wrong; ``c``: the reverse. ``relabelled`` counts images whose label differs from
    the one that the package was built with. ``floor`` is the verdict on the package's own accuracy, if it has a budget.
    """

    verdict: Verdict
    teacher_accuracy: float
    accuracy: float
    b: int
    c: int
    relabelled: int
    floor: Optional[Floor] = None

    def held_to(self, min_accuracy: float) -> Verification:
        """This with the package's own accuracy judged too, at the same confidence; 0: not judged.

        Raises:
            InputError: ``min_accuracy`` outside 0..1.
        """
        n = self.verdict.images
        floor = accuracy_floor(round(self.accuracy * n), n, min_accuracy, self.verdict.confidence)
        return replace(self, floor=floor if min_accuracy else None)

    def failure(self) -> Optional[RuntimeFault]:
        """The error that the verdicts amount to, a miss before an undecided one, or ``None`` if all pass."""
        faults = [self.verdict.failure(), self.floor.failure() if self.floor else None]
        failures = [fault for fault in faults if fault]
        return min(failures, key=lambda fault: fault.exit_code, default=None)

    def to_dict(self) -> Dict[str, Any]:
        """The result as JSON-ready values."""
        return asdict(self)


def verify_package(
    predictor: Predictor,
    images: NDArray[Any],
    labels: NDArray[np.int64],
    max_drop: Optional[float] = None,
    confidence: Optional[float] = None,
    teacher_top1: Optional[NDArray[np.int64]] = None,
) -> Verification:
    """The verdict on ``images`` (uint8[N, H, W, C], 0..255, or tokens int32[N, L]) with ``labels``: int[N].

    The teacher's answers are ``teacher_top1``: int[N], or else those in the package, found by the images' pixels.
    ``max_drop`` and ``confidence`` default to the package's budgets; its ``min_accuracy`` is judged too, if it has one.

    Raises:
        InputError: no images, counts or labels that do not fit, an option out of range, or images whose teacher's
            answer is not in the package.
    """
    package = predictor.package
    _check_labels(images, labels, package)
    known, teacher, expected = _look_up(package, images)
    if teacher_top1 is not None:
        if len(teacher_top1) != len(images):
            raise InputError(
                f"there are {len(teacher_top1)} answers of the teacher for {len(images)} images; must be as many"
            )
        teacher = np.asarray(teacher_top1)
    elif not known.all():
        raise InputError(
            f"{int((~known).sum())} of {len(images)} images (first: number {int(np.flatnonzero(~known)[0])}) are not "
            "in the package's reference table, so the teacher's answers for them are unknown; use the test split of "
            "the build, or give the teacher: --teacher model.onnx"
        )
    student = np.concatenate([predictor.predict(images[i : i + BLOCK]).classes for i in range(0, len(images), BLOCK)])
    right, teacher_right = student == labels, teacher == labels
    b, c = int((teacher_right & ~right).sum()), int((right & ~teacher_right).sum())
    found = Verification(
        verdict=non_inferiority(
            b,
            c,
            len(images),
            package.max_drop if max_drop is None else max_drop,
            package.confidence if confidence is None else confidence,
        ),
        teacher_accuracy=float(teacher_right.mean()),
        accuracy=float(right.mean()),
        b=b,
        c=c,
        relabelled=int((known & (expected != labels)).sum()),
    )
    return found.held_to(package.min_accuracy)


def teacher_predictions(
    path: PathLike, images: NDArray[Any], threads: int = 0, classes: Optional[int] = None
) -> NDArray[np.int64]:
    """The top-1 classes, int64[N], of the ONNX classifier at ``path``, which reads ``images`` as the package does.

    Raises:
        InputError: no such file, or a model that is not one, does not take these images, fails on them, or gives other
            than finite logits [N, classes].
        BackendMissing: onnxruntime is not here.
    """
    name = os.fspath(path)
    try:
        model = read_file(name, MAX_MODEL_BYTES)
    except TooLarge as e:
        raise InputError(f"{name}: the teacher has {e} bytes; an ONNX model has at most {MAX_MODEL_BYTES}") from e
    except (OSError, ValueError) as e:
        raise InputError(f"{name}: the teacher cannot be read ({reason(e)}); give an .onnx file") from e
    try:
        check_model_bytes(model, name)
    except PackageError as e:
        raise InputError(str(e)) from e
    try:
        session = open_session(model, exact_qdq=False, threads=threads)
    except PackageError as e:
        raise InputError(f"{os.fspath(path)}: {e}") from e
    name = "tokens" if images.ndim == 2 else "images"
    wanted = (name, f"tensor({images.dtype})", images.shape[1:])
    found = [(x.name, x.type, _filled(x.shape[1:], images.shape[1:])) for x in session.get_inputs()]
    batch = session.get_inputs()[0].shape[0] if found else None
    if found != [wanted] or isinstance(batch, int):
        raise InputError(
            f"{os.fspath(path)}: the teacher reads {found} at batch {batch}; must read {wanted} at any batch"
        )
    blocks = [images[i : i + BLOCK] for i in range(0, len(images), BLOCK)]
    try:
        logits = np.concatenate([session.run(None, {name: block})[0] for block in blocks])
    except session_errors() as e:
        raise InputError(f"{os.fspath(path)}: the teacher cannot be run: {said(e)}") from e
    if logits.ndim != 2 or len(logits) != len(images) or classes not in (None, logits.shape[1]):
        wanted_shape = [len(images), classes or "classes"]
        raise InputError(f"{os.fspath(path)}: the teacher gives {list(logits.shape)}; must give {wanted_shape}")
    if not np.isfinite(logits).all():
        raise InputError(f"{os.fspath(path)}: the teacher gives NaN or infinite logits; all must be finite")
    best: NDArray[np.int64] = logits.argmax(axis=1)
    return best


def load_labelled(path: PathLike, package: Package) -> Tuple[Any, NDArray[np.int64]]:
    """The labelled test data at ``path``, and int64[N], class numbers in the package's order.

    Images come as uint8[N, H, W, C], 0..255, from a folder of class folders, texts as a list from a .csv or .jsonl
    file; both from a data folder with a ``dataset.json``.

    Raises:
        InputError: as ``load_labelled_folder`` and ``texts.read_texts``, or other classes than the package's.
        BackendMissing: Pillow is not here.
    """
    if (Path(path) / "dataset.json").is_file():
        return _load_arrays(Path(path), package)
    if isinstance(package.input, ImageInput):
        return load_labelled_folder(path, package.labels, *package.input.shape)
    texts, names = _first_ones(*read_texts(_text_file(Path(path))), path)
    return texts, np.array([_class_number(Path(path), name, package.labels) for name in names], np.int64)


def load_labelled_folder(
    path: PathLike, labels: Sequence[str], height: int, width: int, channels: int
) -> Tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images of ``path/test/CLASS/*`` or ``path/CLASS/*`` and their class numbers, in the order of their names.

    Gives uint8[N, height, width, channels], 0..255, and int64[N]. Lists as training does (``folders``); what is left
    out is logged.

    Raises:
        InputError: no such folder, a class folder with an unknown name or no images, or an image that cannot be read.
        BackendMissing: Pillow is not here.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give one that holds a folder of images per class")
    root = _test_folder(root, labels)
    found = list_classes(root)
    numbers = {name: _class_number(root / name, name, labels) for name in found.classes}
    if not found.images:
        raise InputError(
            f"{root}: holds no class folders with images; it needs CLASS/NAME.jpg, CLASS one of: {_few(labels)}"
        )
    empty = sorted(set(found.classes) - {group for _, group in found.images})
    if empty:
        raise InputError(
            f"{root / empty[0]}: the class has no images ({', '.join(SUFFIXES)}); add some or remove the folder"
        )
    if found.left_out:
        _log.warning("%s: %d files are left out: %s", root, len(found.left_out), counted(found.left_out))
    images = np.stack([load_image(root / name, height, width, channels) for name, _ in found.images])
    return images, np.array([numbers[group] for _, group in found.images], np.int64)


def _first_ones(texts: List[str], names: List[str], path: PathLike) -> Tuple[List[str], List[str]]:
    """Each text once, as in training: its copies would count it several times."""
    first: Dict[str, int] = {}
    for i, text in enumerate(texts):
        first.setdefault(distinct(text), i)
    if len(first) < len(texts):
        _log.warning("%s: %d texts come twice and were left out", path, len(texts) - len(first))
    return [texts[i] for i in first.values()], [names[i] for i in first.values()]


def _test_folder(root: Path, labels: Sequence[str]) -> Path:
    """The test split's folder in ``root``, in any case, or ``root`` itself.

    Raises:
        InputError: there are training images only.
    """
    split = split_entries([p.name for p in root.iterdir() if p.is_dir() and p.name not in labels], root)
    if "train" in split and "test" not in split:
        raise InputError(
            f"{root}: has a train folder and no test folder; a package is verified on what it was not trained on: give "
            "the folder of the test images"
        )
    return root / split["test"] if "test" in split else root


def _text_file(path: Path) -> Path:
    """The test split's file in the folder ``path``, in any case, or ``path`` itself."""
    if not path.is_dir():
        return path
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".csv", ".jsonl") and p.stem.lower() == "test")
    if len(files) > 1:
        raise InputError(f"{path}: has {' and '.join(p.name for p in files)}; one of them must be the test split")
    return files[0] if files else path


def _filled(dims: Sequence[Any], sizes: Sequence[int]) -> Tuple[int, ...]:
    """The dimensions of a model, dynamic ones as large as they are asked to be."""
    return tuple(d if isinstance(d, int) else n for d, n in zip(dims, sizes))  # noqa: B905  # Python 3.8


def _load_arrays(path: Path, package: Package) -> Tuple[Any, NDArray[np.int64]]:
    try:
        meta = from_json(read_file(path / "dataset.json", MAX_HEADER_BYTES))
        classes = tuple(meta["classes"])
        if isinstance(package.input, ImageInput):
            images: Any = _load_npy(path / "test.images.npy")
        else:
            images = from_json(read_file(path / "test.texts.json", MAX_HEADER_BYTES))
        labels = _load_npy(path / "test.labels.npy")
    except (OSError, ValueError, KeyError, TypeError, EOFError, TooLarge) as e:
        raise InputError(
            f"{path}: not a readable data folder ({type(e).__name__}: {said(e)}); make it again, or give another"
        ) from e
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: the labels are {labels.dtype}{list(labels.shape)}; must be whole numbers [N]")
    if classes != package.labels:
        raise InputError(f"{path}: its classes are {_few(classes)}; the package's are {_few(package.labels)}")
    return images, labels


def _load_npy(path: Path) -> NDArray[Any]:
    with open_file(path) as f:
        found: NDArray[Any] = np.load(f, allow_pickle=False)
    return found


def _class_number(where: Path, name: str, labels: Sequence[str]) -> int:
    known = [composed(label) for label in labels]
    if composed(name) in known:
        return known.index(composed(name))
    close = difflib.get_close_matches(name, labels, n=1, cutoff=0.5)
    hint = f"nearest: {close[0]!r}" if close else f"the package knows: {_few(labels)}"
    raise InputError(f"{where}: {name!r} is no class of the package; {hint}")


def _check_labels(images: NDArray[np.uint8], labels: NDArray[np.int64], package: Package) -> None:
    if len(images) != len(labels) or not len(images):
        raise InputError(f"there are {len(images)} images and {len(labels)} labels; must be as many, and at least one")
    low, high, classes = int(np.min(labels)), int(np.max(labels)), len(package.labels)
    if low < 0 or high >= classes:
        raise InputError(f"labels run from {low} to {high}; the package has {classes} classes, 0 to {classes - 1}")


def _look_up(package: Package, images: NDArray[np.uint8]) -> Tuple[Any, Any, Any]:
    """Per image: whether the reference table has it, the teacher's top-1, and the label it was built with."""
    table: Mapping[int, Tuple[int, int]] = {int(d): (int(label), int(top1)) for d, label, top1 in package.reference}
    rows = [table.get(int(d)) for d in input_digests(images, package.input.pad_id)]
    known = np.array([row is not None for row in rows])
    answers = np.array([row or (-1, -1) for row in rows], np.int64)
    return known, answers[:, 1], answers[:, 0]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f", … ({len(names)})" if len(names) > 10 else "")

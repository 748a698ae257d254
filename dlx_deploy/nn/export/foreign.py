"""A finished network from outside, ONNX or a torch.export program, behind the border that exported networks have."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.checks.rows import refuse_dependent_rows, unlike
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.foreign.adopt import Adoption, Border, adopted, ends_in_softmax, load_original
from dlx_deploy.graph.foreign.finite import refuse_infinite
from dlx_deploy.graph.foreign.invalid import refuse_invalid
from dlx_deploy.graph.foreign.parity import Original, OriginalParity, check_original, open_original
from dlx_deploy.graph.foreign.shape import PROGRAM, usable_ends
from dlx_deploy.graph.foreign.usable import chosen_output, usable_facts
from dlx_deploy.graph.foreign.wire import Value
from dlx_deploy.graph.model import load, to_bytes
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.nn.export.spec import Spec
from dlx_deploy.nn.export.tolerances import ROUNDING, ROWS_SHARE
from dlx_deploy.nn.weights.class_match import order_of

__all__ = ["Adopted", "Foreign", "check_adopted", "check_rows", "read_foreign"]

log = logging.getLogger(__name__)

_NAMES = ("names", "classes", "class_names", "labels", "id2label")
"""Where exporters keep the names of classes in a model's metadata, as JSON or as Python's repr."""


@dataclass(frozen=True)
class Adopted:
    """``model``: the graph as it is used; ``original``: as it came, with what became of its answer."""

    model: bytes
    original: Original
    border: Border
    name: str


@dataclass(frozen=True)
class Foreign:
    """A network as it came, and its ``inputs``. ``answer``: the output that counts; ``ask``: as in ``Original``."""

    name: str
    model: ModelProto
    inputs: tuple[Value, ...]
    answer: Value
    metadata: dict[str, str]
    ask: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None

    def class_names(self, beside: Path | None) -> tuple[str, ...]:
        """The names of the classes in the order of the answer: from its metadata or the file ``beside``, else none."""
        for key in _NAMES:
            if names := _listed(self.metadata.get(key, "")):
                return names
        if beside is None:
            return ()
        lines = beside.read_text(encoding="utf-8", errors="replace").splitlines()
        return tuple(line.strip() for line in lines if line.strip())

    def adopted(self, spec: Spec, names: Sequence[str] | None, classes: Sequence[str]) -> Adopted:
        """The graph behind ``spec``, its answer in the order of ``classes``; ``names``: the order that it has.

        Raises:
            ConfigError: the two are other classes, a weight is not finite, or the graph cannot be used.
        StageFailed: it cannot be converted.
        """
        order, border = self._order(names, classes), spec.border(self.inputs, Path(self.name))
        ((output, dims),) = spec.outputs.items()
        wanted = Adoption(
            border=border,
            input=spec.inputs[0],
            answer=self.answer.name,
            output=output,
            dims=tuple(dims),
            opset=spec.opset,
            order=order,
            batch=spec.fixed,
        )
        softmax = ends_in_softmax(self.model, self.answer.name)
        first = border.first
        batch = first.dims[0] if first.dims else None
        original = Original(to_bytes(self.model), first.name, self.answer.name, batch, softmax, order, self.ask)
        try:
            graph = adopted(load(self.model), wanted, self.name)
        except StageFailed:
            refuse_invalid(self.model, self.name)
            refuse_infinite(self.model, self.name)
            raise
        refuse_infinite(self.model, self.name)
        return Adopted(to_bytes(graph), original, border, self.name)

    def _order(self, names: Sequence[str] | None, classes: Sequence[str]) -> tuple[int, ...]:
        if names is None:  # a rehearsal, whose answers nobody reads
            return ()
        if not names:
            some = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")
            log.warning(
                "%s names no classes: its outputs are taken in the order of the data's, %s; teacher.classes or a "
                "classes.txt beside it says another",
                self.name,
                some,
            )
            return ()
        order = tuple(order_of(names, classes, self.name))
        if order == tuple(sorted(order)):
            return ()
        log.warning("%s has its classes in another order: its outputs are put in that of the data", self.name)
        return order


def read_foreign(path: Path, weights: Path | None, spec: Spec, output: str) -> Foreign:
    """The network in ``path``; ``weights``: the folder of the other files that it needs.

    Raises:
        ConfigError: it cannot be used, or does not fit what ``spec`` says of images and answers.
    """
    (dims,) = spec.outputs.values()
    if path.suffix.lower() == PROGRAM:
        inputs, outputs = usable_ends(path)
        spec.border(inputs, path)
        chosen_output(outputs, output, dims, path)  # said before torch is asked
        from dlx_deploy.nn.export.program import read_program  # torch

        came = read_program(path)
        facts = usable_facts(path, to_bytes(came.model))
        model, ask = came.model, came.ask
    else:
        facts, ask = usable_facts(path, texts=spec.texts), None
        model = load_original(path, weights)
    spec.border(facts.inputs, path)
    answer = chosen_output(facts.outputs, output, dims, path)
    place = [value.name for value in facts.outputs].index(answer.name)
    return Foreign(path.name, model, tuple(facts.inputs), answer, facts.metadata, ask and partial(ask, place))


def check_adopted(adopted: Adopted, spec: Spec, samples: Samples, tolerance: float) -> OriginalParity:
    """How far the adopted graph is from the original on ``samples``, once each row had the answer that it has alone.

    Raises:
        StageFailed: further than ``tolerance``, or an answer depends on the batch.
    """

    def read(rows: Samples) -> Arrays:
        return adopted.border.feed(spec.plain(spec.trimmed(rows)))

    parity = check_original(adopted.original, adopted.model, samples, read, tolerance)
    refuse_dependent_rows(adopted.model, unlike(samples), False, max(tolerance * ROWS_SHARE, ROUNDING))
    if parity.vacuous:
        log.warning("parity of %s says nothing: it answers the same to every input", adopted.name)
    if adopted.original.softmax:
        log.warning("%s ends in a softmax, which is left out: a device makes probabilities of logits", adopted.name)
    elif parity.probabilities:
        log.warning(
            "%s answers probabilities, and they are taken for logits: classes are right, the probabilities that a "
            "device shows are not; export it without its softmax or sigmoid",
            adopted.name,
        )
    return parity


def check_rows(adopted: Adopted, spec: Spec, count: int) -> None:
    """Nothing, if the graph answers each of ``count`` samples of noise as it would alone.

    Raises:
        ConfigError: it cannot be run as it came, answers NaN, or takes one batch size alone.
        StageFailed: an answer depends on the batch.
    """
    open_original(adopted.original)
    noise = spec.noise(count)
    try:
        _refuse_nan(adopted, noise, spec.fixed or count)
        refuse_dependent_rows(adopted.model, noise, False, ROUNDING)
    except ConfigError:
        raise
    except Exception as e:
        fixed = adopted.original.batch
        if fixed is None or spec.fixed is not None:
            raise
        raise ConfigError(
            f"{adopted.name} was exported for batches of {fixed} alone, and cannot be opened for others ({e}); set "
            f"export.batch = {fixed}, or export it with a dynamic batch"
        ) from e


def _refuse_nan(adopted: Adopted, noise: Samples, batch: int) -> None:
    (answers,) = run_onnx(adopted.model, noise, exact_qdq=False, batch=batch).values()
    if np.isnan(answers).any():
        raise ConfigError(
            f"{adopted.name} answers NaN to noise: it computes what has no value (a logarithm of a negative number), "
            "or was trained with another preprocessing than [data] has (mean, std and scale); export it again, or "
            "correct that"
        )


def _listed(text: str) -> tuple[str, ...]:
    """Names in the order of their numbers, from JSON or Python's repr of a list or of a table by number."""
    if not text or len(text) > 1 << 20:
        return ()
    try:
        held = json.loads(text)
    except ValueError:
        try:
            held = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return ()
    if isinstance(held, dict):
        try:
            numbered = {int(number): name for number, name in held.items()}
        except (TypeError, ValueError):
            return ()
        held = [numbered[i] for i in sorted(numbered)] if sorted(numbered) == list(range(len(numbered))) else []
    named = isinstance(held, list) and all(isinstance(name, str) for name in held) and len(set(held)) == len(held)
    return tuple(held) if named else ()

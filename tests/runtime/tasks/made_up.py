"""A task that the runtime does not know: two inputs, two outputs, files as answers; registered by its tests.

A sample is a series of numbers and a unit ("3 4 5 m"). The network gives the series' mean times the unit's size
(``value``), and each number's distance from the mean (``distances``, as long as the longest series of the batch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.runtime.errors import BudgetMissed, InputError
from dlx_deploy.runtime.package.fields import Fields
from dlx_deploy.runtime.tasks.arrays import Agreement, Arrays, Tensor, Tolerance, digests_of, within
from dlx_deploy.runtime.tasks.task import Budgets, PredictionRow, PredictOptions, Task

__all__ = ["NAME", "measuring", "network", "open_task", "read_lines"]

NAME = "measuring"


def network(batch: int | None = None, off: float = 0.0) -> bytes:
    """The network; its values are ``off`` by so much, which damages it."""
    constants = {"one": np.array([1], np.int64), "off": np.array(off, np.float32), "zero": np.array(0, np.float32)}
    nodes = [
        helper.make_node("Greater", ["series", "zero"], ["there"]),
        helper.make_node("Cast", ["there"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["series", "one"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Cast", ["size"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["mean", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "off"], ["value"]),
        helper.make_node("Sub", ["series", "mean"], ["apart"]),
        helper.make_node("Mul", ["apart", "mask"], ["kept"]),
        helper.make_node("Abs", ["kept"], ["distances"]),
    ]
    rows, value = batch or "batch", helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "measuring",
        [value("size", TensorProto.INT32, [rows, 1]), value("series", TensorProto.FLOAT, [rows, "length"])],
        [value("distances", TensorProto.FLOAT, [rows, "length"]), value("value", TensorProto.FLOAT, [rows, 1])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@dataclass(frozen=True)
class Measurements:
    """float32[N, L] numbers above 0, and int32[N, 1] sizes of units; ``units``: name → size."""

    units: Mapping[str, int]
    noun: str = "measurements"
    any_value: bool = False
    samples: Sequence[Any] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (Tensor("series", "float32", ("length",)), Tensor("size", "int32", (1,)))

    def fields(self) -> dict[str, Any]:
        return {"units": dict(self.units)}

    def members(self) -> dict[str, bytes]:
        return {}

    def describe(self, batch: int | None) -> str:
        return f"numbers and a unit of {', '.join(self.units)}"

    def read(self, given: Any) -> dict[str, np.ndarray]:
        if isinstance(given, Mapping):
            return {name: np.ascontiguousarray(given[name]) for name in ("series", "size")}
        rows = [one.split() for one in ([given] if isinstance(given, str) else given)]
        series = np.zeros((len(rows), max(len(row) - 1 for row in rows)), np.float32)
        for i, row in enumerate(rows):
            if row[-1] not in self.units:
                raise InputError(f"measurement {i} has the unit {row[-1]!r}; must be one of {', '.join(self.units)}")
            series[i, : len(row) - 1] = [float(word) for word in row[:-1]]
        return {"series": series, "size": np.array([[self.units[row[-1]]] for row in rows], np.int32)}

    def trim(self, feeds: Arrays) -> Arrays:
        return {**feeds, "series": feeds["series"][:, : int((feeds["series"] > 0).sum(axis=1).max())]}

    def digests(self, feeds: Arrays) -> np.ndarray:
        pairs = zip(feeds["series"], feeds["size"], strict=True)
        return digests_of(np.append(row[row > 0], size).astype("<f4") for row, size in pairs)

    def fault(self, feeds: Arrays) -> tuple[str, str] | None:
        known = np.isin(feeds["size"], list(self.units.values())).all()
        return None if known else ("size", "holds sizes of no unit")

    def sample_fault(self, golden: Arrays) -> str | None:
        return None

    def check_argument(self, argument: str) -> None:
        if not argument[:1].isdigit():
            raise InputError(f"{argument!r} does not begin with a number")


@dataclass(frozen=True)
class Result:
    """An answer: float32[N, 1] values."""

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def to_dict(self) -> dict[str, Any]:
        return {"values": self.values[:, 0].tolist()}


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors; the package's may be larger by ``max_drop``."""

    teacher: float
    package: float
    most: float
    changed: int

    def failure(self) -> BudgetMissed | None:
        return BudgetMissed("the error grew") if self.package > self.teacher + self.most else None

    def to_dict(self) -> dict[str, Any]:
        return {"teacher_error": self.teacher, "error": self.package, "changed": self.changed}

    def lines(self, noun: str) -> list[str]:
        return [f"error {self.teacher:.3f} and {self.package:.3f} on {noun}"]


@dataclass(frozen=True)
class Values:
    """What the network gives: a value, and distances."""

    columns: tuple[Tensor, ...] = (Tensor("truth", "float32", (1,)), Tensor("teacher", "float32", (1,)))
    targets: tuple[str, ...] = ("truth",)
    agreement: str = "every sign the same"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (Tensor("value", "float32", (1,)), Tensor("distances", "float32", ("length",)))

    def fields(self) -> dict[str, Any]:
        return {}

    def describe(self) -> list[tuple[str, str]]:
        return [("gives", "a value")]

    def decode(self, outputs: Arrays) -> Result:
        return Result(outputs["value"])

    def rows(self, answers: Result, named: Sequence[str], options: PredictOptions) -> list[PredictionRow]:
        rows = []
        for name, value in zip(named, answers.values[:, 0].tolist(), strict=True):
            if options.out is not None:
                (Path(options.out) / f"{name.replace(' ', '-')}.txt").write_text(f"{value}\n")
            rows.append(PredictionRow({"value": value}, [f"{value:.2f}"]))
        return rows

    def compare(self, outputs: Arrays, golden: Arrays, tolerances: Mapping[str, Tolerance]) -> Agreement:
        return within(outputs, golden, tolerances)

    def difference(self, outputs: Arrays, golden: Arrays, row: int) -> tuple[str, str, str]:
        return "value", f"value is {outputs['value'][row, 0]:g}, expected {golden['value'][row, 0]:g}", ""

    def fault(self, golden: Arrays) -> tuple[str, str] | None:
        return None

    def column_fault(self, columns: Arrays) -> tuple[str, str] | None:
        return None

    def check_targets(self, targets: Arrays, count: int, noun: str) -> None:
        if len(targets["truth"]) != count:
            raise InputError(f"there are {count} {noun} and {len(targets['truth'])} truths")

    def record(self, outputs: Arrays, targets: Arrays) -> Arrays:
        return {"truth": targets["truth"], "teacher": outputs["value"]}

    def changed(self, columns: Arrays, targets: Arrays) -> np.ndarray:
        return (columns["truth"] != targets["truth"]).any(axis=1)

    def recall(self, columns: Arrays, targets: Arrays) -> Arrays:
        return {"error": np.abs(columns["teacher"] - targets["truth"])}

    def statistic(self, outputs: Arrays, targets: Arrays) -> Arrays:
        return {"error": np.abs(outputs["value"] - targets["truth"])}

    def judge(self, teacher: Arrays, package: Arrays, budgets: Budgets, changed: int) -> Errors:
        return Errors(float(teacher["error"].mean()), float(package["error"].mean()), budgets.max_drop, changed)


def read_lines(path: Any) -> tuple[list[str], Arrays]:
    """Samples and truths: ``1 2 m = 3`` on each line."""
    pairs = [line.split(" = ") for line in Path(path).read_text().splitlines()]
    return [pair[0] for pair in pairs], {"truth": np.array([[float(pair[1])] for pair in pairs], np.float32)}


def measuring(units: Mapping[str, int]) -> Task:
    """The task of a package."""
    return Task(NAME, Measurements(units), Values(), read_lines)


def open_task(field: Fields) -> Task:
    """The task as ``package.json`` has it."""
    return measuring(field.get("units", dict))

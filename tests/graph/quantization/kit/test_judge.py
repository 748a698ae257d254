from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.quantization.kit import judge
from dlx_deploy.graph.quantization.kit.judge import Judge, Score

from ....arrays import samples


def linear(*factors: float, kind: int = TensorProto.FLOAT) -> ModelProto:
    """``x`` [N, k] times ``factors``."""
    size = len(factors)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])]
    ends.append(helper.make_tensor_value_info("y", kind, ["n", size]))
    nodes = [helper.make_node("Mul", ["x", "f"], ["m"]), helper.make_node("Cast", ["m"], ["y"], to=kind)]
    factor = numpy_helper.from_array(np.asarray(factors, np.float32), "f")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [factor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ROWS = samples(np.asarray([[1, 2], [3, 1]], np.float32), name="x")


def test_the_ratio_and_the_decisions() -> None:
    one = Judge(linear(1, 1), ROWS, exact=False)
    assert one.decides == 2
    assert one.score(linear(1, 1)) == Score(200.0, 1.0, 2)
    score = one.score(linear(1.1, 1.1))
    assert score.sqnr_db == pytest.approx(20.0, abs=1e-4)
    assert score.agreement == 1.0
    assert one.score(linear(1, 0.1)) == Score(pytest.approx(10 * np.log10(15 / (0.81 * 5)), abs=1e-4), 0.5, 2)  # type: ignore[arg-type]


def test_no_signal_and_no_number_are_the_worst() -> None:
    assert Judge(linear(0, 0), ROWS, exact=False).score(linear(1, 1)).sqnr_db == -200
    assert Judge(linear(1, 1), ROWS, exact=False).score(linear(np.inf, 1)).sqnr_db == -200


def test_one_value_decides_nothing_and_integers_are_not_compared() -> None:
    rows = samples(np.ones((3, 1), np.float32), name="x")
    single = Judge(linear(2), rows, exact=False)
    assert single.decides is None
    assert single.score(linear(2)).agreement is None
    assert single.compares
    assert not Judge(linear(1, 1, kind=TensorProto.INT64), ROWS, exact=False).compares


def test_answers_are_kept_as_far_as_there_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "ANSWER_BYTES", 8)
    assert len(Judge(linear(1, 1), ROWS, exact=False).held) == 1

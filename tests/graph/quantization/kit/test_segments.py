from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.kit.segments import HELD_BYTES, Segments, affordable
from dlx_deploy.graph.quantization.scheme import CPU, TENSORRT, Scheme

from ....arrays import run_onnx, samples
from ....onnx_fixtures import images, residual_net, with_qdq


@pytest.mark.parametrize("scheme", [TENSORRT, CPU], ids=lambda scheme: scheme.name)
def test_parts_compute_what_the_whole_does(scheme: Scheme) -> None:
    model = with_qdq(residual_net("conv"), scheme)
    segments = Segments(model, samples(images(70)))
    for node in model.graph.node:
        if node.op_type in ("Conv", "Add", "Gemm"):
            assert sum(map(len, segments.until(node.output[0]))) == 70
    found = np.concatenate(segments.until("logits"))
    expected = run_onnx(model.SerializeToString(), images(70), exact_qdq=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_has_not_run_can_still_change() -> None:
    model = residual_net()
    segments = Segments(model, samples(images(4)))
    segments.until("conv2")
    changed = load(model)
    tensor = Index(model).initializers["fc.bias"]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, "fc.bias"))
    for values in segments.until("conv2"):
        values += 0.5
    found = np.concatenate(segments.until("logits"))
    bias = Index(changed).initializers["conv2.bias"]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), "conv2.bias"))
    expected = run_onnx(changed.SerializeToString(), images(4), exact_qdq=False) + 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_values_that_nothing_reads_any_more_are_let_go() -> None:
    segments = Segments(residual_net(), samples(images(4)))
    segments.until("conv3")
    assert set(segments._values[0]) == {"conv3", "relu1"}  # the shortcut waits for the sum


def test_inputs_are_as_many_as_there_is_memory_for() -> None:
    some = samples(images(40))
    assert len(affordable(residual_net(), some)) == 40
    assert HELD_BYTES <= 1 << 30

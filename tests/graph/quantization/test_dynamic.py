from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, batch_size, to_bytes
from dlx_deploy.graph.passes.tidy import tidy
from dlx_deploy.graph.quantization.dynamic import dynamic_layers, quantize_dynamically
from dlx_deploy.graph.quantization.layers import layer_precision

from ...arrays import run_onnx
from ...onnx_fixtures import token_net


def dynamic(model: ModelProto) -> ModelProto:
    return tidy(quantize_dynamically(model, dynamic_layers(model, set()), reduce_range=True))


def test_dynamic_answers_do_not_depend_on_the_batch() -> None:
    """One range holds for the whole tensor: a row that is large would leave its neighbours a few steps."""
    tokens = np.array([[1, 1, 2, 2, 0, 0], [8, 8, 8, 8, 8, 8], [2, 3, 1, 0, 0, 0]], np.int32)
    model = dynamic(token_net())
    together = run_onnx(to_bytes(model), tokens, exact_qdq=False, pad_id=0)
    alone = np.concatenate([run_onnx(to_bytes(model), row[None], exact_qdq=False, pad_id=0) for row in tokens])
    exact = run_onnx(to_bytes(token_net()), tokens[:1, :4], exact_qdq=False, pad_id=0)
    assert np.array_equal(together, alone)
    assert np.abs(together[:1] - exact).max() < 0.05 * np.abs(exact).max()
    assert batch_size(model) == 1


def test_a_gemm_stays_in_floating_point_under_its_own_name_where_ranges_are_dynamic() -> None:
    model = dynamic(token_net())
    assert layer_precision(model) == {"mix/MatMul": "int8", "head/Gemm": "fp32"}


def test_dynamic_weights_have_a_scale_per_output_channel() -> None:
    """Columns of very different sizes: with one scale for all, the small ones would be nothing but zeros."""
    model = token_net()
    spread = Index(model).array("mix").astype(np.float32) * np.logspace(0, -4, 16, dtype=np.float32)
    Index(model).initializers["mix"].CopyFrom(onnx.numpy_helper.from_array(spread, "mix"))
    index = Index(dynamic(model))
    weights = index.array(next(n for n in index.model.graph.node if n.op_type == "MatMulInteger").input[1])
    assert np.abs(weights.astype(int)).max(axis=0).tolist() == [64] * 16


def test_dynamic_ranges_and_a_fixed_batch_exclude_each_other() -> None:
    assert batch_size(dynamic(token_net(batch=1))) == 1
    with pytest.raises(
        ConfigError, match=r"export\.batch is 4, and with dynamic .*set export\.batch to 'dynamic' or 1"
    ):
        dynamic(token_net(batch=4))


def test_with_a_reduced_range_no_sum_of_two_products_leaves_sixteen_bits() -> None:
    index = Index(dynamic(token_net()))
    weights = [w for w in map(index.array, index.initializers) if w.dtype == np.int8 and w.size > 16]
    assert weights
    assert all(2 * 255 * int(np.abs(w.astype(int)).max()) <= 32767 for w in weights)


def test_no_leftovers_and_no_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime asks for pre-processing that the exporter has done; its logging is left as it was."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = logging.getLogger()
    before = list(root.handlers), list(root.filters)
    model = token_net()
    source = to_bytes(model)
    dynamic(model)
    assert to_bytes(model) == source
    assert not list(tmp_path.iterdir())
    assert not caplog.records
    assert (root.handlers, root.filters) == before

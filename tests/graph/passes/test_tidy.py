from __future__ import annotations

from onnx import TensorProto, helper

from dlx_deploy.graph.model import to_bytes
from dlx_deploy.graph.passes.tidy import tidy

from ...onnx_fixtures import Net, residual_net


def test_tidy_leaves_what_computes() -> None:
    clean = tidy(residual_net())
    dirty = residual_net()
    dirty.doc_string, dirty.graph.node[0].doc_string, dirty.producer_version = "/home/me/x.py", "line 3", "1.2"
    helper.set_model_props(dirty, {"stack_trace": "/home/me/x.py"})
    dirty.graph.initializer.extend(Net().constants)
    dirty.graph.initializer.add(name="unused", data_type=TensorProto.FLOAT, dims=[1], float_data=[1.0])
    entry = dirty.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg", "/home/me/x.py"
    dirty.graph.value_info.append(helper.make_tensor_value_info("relu1", TensorProto.FLOAT, None))
    assert to_bytes(tidy(dirty)) == to_bytes(clean)

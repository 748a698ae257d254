from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.runtime.backends import session as session_module
from dlx_deploy.runtime.backends.session import open_plugin_session, open_session
from dlx_deploy.runtime.errors import BackendMissing, InputError, PackageError


def quantized_sum() -> bytes:
    """x → Q/DQ at scale 1 → MatMul with saturating weights: native u8s8 kernels may round, exact arithmetic cannot."""
    scale, zero = numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.uint8(0), "z")
    weight = numpy_helper.from_array(np.full((4, 2), 127, np.int8), "w")
    ws, wz = numpy_helper.from_array(np.float32(0.01), "ws"), numpy_helper.from_array(np.int8(0), "wz")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "q",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [scale, zero, weight, ws, wz],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Spy:
    """onnxruntime with the options of the last session kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.options: Any = None
        real = onnxruntime.InferenceSession

        def keep(model: bytes, options: Any, providers: Any) -> Any:
            self.options = options
            return real(model, options, providers=providers)

        monkeypatch.setattr(onnxruntime, "InferenceSession", keep)


def test_exact_arithmetic_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    session = open_session(quantized_sum(), exact_qdq=True, threads=2)
    assert spy.options.get_session_config_entry("session.disable_quant_qdq") == "1"
    assert spy.options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert spy.options.intra_op_num_threads == 2
    x = np.array([[0.26, 1, 50, 200]], np.float32)  # 0.5, 1, 50, 127.5 after the Q/DQ
    np.testing.assert_allclose(session.run(None, {"x": x})[0], [[179 * 1.27] * 2], rtol=1e-6)
    fused = open_session(quantized_sum(), exact_qdq=True, threads=2, fused=True)
    assert spy.options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert spy.options.get_session_config_entry("session.disable_quant_qdq") == "1"
    np.testing.assert_allclose(fused.run(None, {"x": x})[0], [[179 * 1.27] * 2], rtol=1e-6)


def test_native_arithmetic_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    open_session(quantized_sum(), exact_qdq=False)
    with pytest.raises(RuntimeError, match="disable_quant_qdq"):
        spy.options.get_session_config_entry("session.disable_quant_qdq")
    assert spy.options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


@pytest.mark.parametrize("model", [b"", b"not a model", quantized_sum()[:100]])
def test_model_that_cannot_be_loaded(model: bytes) -> None:
    with pytest.raises(PackageError, match=r"ONNX Runtime \S+ cannot load the model: "):
        open_session(model, exact_qdq=False)


def test_unknown_operator() -> None:
    graph = helper.make_graph(
        [helper.make_node("Nonsense", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    with pytest.raises(PackageError, match="Nonsense"):
        open_session(helper.make_model(graph, ir_version=8).SerializeToString(), exact_qdq=False)


def test_no_silent_fallback_to_another_provider() -> None:
    with pytest.raises(BackendMissing, match=r"'NoSuchProvider' is not available; this onnxruntime has .*CPUExec") as e:
        open_session(quantized_sum(), exact_qdq=False, providers=["NoSuchProvider", "CPUExecutionProvider"])
    assert e.value.exit_code == 4


def test_provider_that_is_listed_but_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda m, o, providers: real(m, o, ["CPUExecutionProvider"]))
    with pytest.raises(BackendMissing, match="'CUDAExecutionProvider' is not available; this onnxruntime has CPU"):
        open_session(quantized_sum(), exact_qdq=False, providers=["CUDAExecutionProvider"])


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendMissing, match="install it with: pip install onnxruntime"):
        open_session(b"", exact_qdq=False)


@pytest.mark.parametrize("threads", [-1, 1025, 1_000_000])
def test_impossible_threads(threads: int) -> None:
    for opened in (lambda: open_session(b"", False, threads), lambda: open_plugin_session(b"", "x", threads)):
        with pytest.raises(InputError, match=f"threads is {threads}; must be 0 .* to 1024"):
            opened()


class Plugin:
    """ONNX Runtime and an execution provider that comes as a plugin, as far as opening a session goes."""

    __version__ = "1.32"

    def __init__(self, loads: bool = True, devices: int = 1, runs_on: str = "Nv") -> None:
        self.loads, self.devices, self.runs_on, self.given = loads, devices, runs_on, []
        self.capi = onnxruntime.capi
        self.GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel

    def get_ep_name(self) -> str:
        return "Nv"

    def get_library_path(self) -> str:
        return "libnv.so"

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if not self.loads:
            raise RuntimeError("libcuda.so.1: cannot open shared object file")

    def get_ep_devices(self) -> list[Any]:
        kind = type("Device", (), {"ep_name": "Nv"})
        return [kind() for _ in range(self.devices)] + [type("Device", (), {"ep_name": "Cpu"})()]

    def SessionOptions(self) -> Any:
        return type("Options", (), {"add_provider_for_devices": lambda _, found, options: self.given.extend(found)})()

    def InferenceSession(self, model: bytes, options: Any) -> Any:
        return type("Session", (), {"get_providers": lambda _: [self.runs_on]})()


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Plugin(loads=False), r"the plugin Nv cannot be loaded \(libcuda.* it needs the NVIDIA driver"),
        (Plugin(devices=0), "the plugin Nv finds no device that it runs on"),
        (Plugin(runs_on="CPUExecutionProvider"), "the execution provider 'Nv' is not available"),
        (None, "no_such_plugin cannot be imported .* it comes with the plugin's own package"),
    ],
)
def test_a_plugin_that_cannot_run(plugin: Plugin | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if plugin:
        monkeypatch.setattr(session_module, "_import", lambda: plugin)
        monkeypatch.setitem(sys.modules, "no_such_plugin", plugin)
    with pytest.raises(BackendMissing, match=message):
        open_plugin_session(b"", "no_such_plugin")


def test_a_plugin_gets_its_own_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin(devices=2)
    monkeypatch.setattr(session_module, "_import", lambda: plugin)
    monkeypatch.setitem(sys.modules, "plugin", plugin)
    assert open_plugin_session(b"", "plugin").get_providers() == ["Nv"]
    assert [device.ep_name for device in plugin.given] == ["Nv", "Nv"]

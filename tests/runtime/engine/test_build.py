"""Real builds by TensorRT-RTX, which needs no GPU: what comes out, the traps, and builders that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from dlx_deploy.graph.quantization.rules import check_tensorrt_rules
from dlx_deploy.runtime.engine import build as building
from dlx_deploy.runtime.engine.build import BuiltEngine, build_engine
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.runtime.errors import BackendMissing, EngineError

from .graphs import LAYER, attention_3d, attention_of_itself, bfloat16_with_float32_weights, int4_product, layer

RTX = BuildSettings("tensorrt-rtx", "int8", (1, 1, 4))
rtx = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def installed() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install '.[tensorrt-rtx]'")


def build(model: bytes, asked: dict[str, str] | None = None, **changes: Any) -> BuiltEngine:
    return build_engine(model, replace(RTX, layers=asked or {}, **changes))


def rules(model: bytes) -> str:
    """What the graph rules say, before any builder sees it."""
    return " | ".join(check_tensorrt_rules(onnx.load_model_from_string(model)))


@rtx
@pytest.mark.parametrize(("op", "kind"), [("Conv", "convolution"), ("MatMul", "gemm")])
def test_an_int8_layer_is_int8(op: str, kind: str) -> None:
    built = build(layer(op), {LAYER[op]: "int8"})
    [compute] = [layer for layer in built.table.layers if layer.kind == kind]
    assert (compute.precision, LAYER[op] in compute.nodes) == ("int8", True)
    assert built.table.shares() == {"int8": 1.0}
    assert built.plan[4:8] or built.plan  # bytes of TensorRT's own
    assert built.build_s > 0
    assert 50 < built.peak_memory_mib < 3000
    assert rules(layer(op)) == ""


@rtx
def test_int4_weights_are_in_the_engine_and_what_is_not_stored_so_is_found() -> None:
    model = int4_product()
    built = build(model, {"a/MatMul": "int4"}, precision="int4")
    assert built.table.shares() == {"int4": 1.0}
    assert rules(model) == ""
    odd = int4_product(outputs=11)
    assert "whole blocks of its inputs" in rules(odd)
    with pytest.raises(EngineError, match=r"a/MatMul: asked for int4, the engine computes it in fp32"):
        build(odd, {"a/MatMul": "int4"}, precision="int4")


@rtx
def test_the_same_graph_gives_the_same_plan_and_reports_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    plans = [build_engine(layer(), RTX, progress=lambda *step: seen.append(step)).plan for _ in range(2)]
    assert plans[0] == plans[1]
    assert seen
    assert all(0 <= done <= max(total, done) for _, done, total in seen)


@rtx
def test_one_plan_for_several_gpus() -> None:
    plan = build(layer(), compute_capabilities=("8.6", "8.9", "12.0")).plan
    assert b"accelerators={sm86 sm89 sm120 }" in plan


@rtx
@pytest.mark.parametrize(
    ("wrong", "op", "rule"),
    [
        ({"activation_scales": 8}, "Conv", "per-tensor"),
        ({"activation_scales": 1}, "Conv", "per-tensor"),
        ({"weight_axis": 1}, "Conv", "weight-axis"),
        ({}, "ConvTranspose", "transposed-convolution"),
    ],
)
def test_what_silently_loses_int8_is_found_before_and_after(wrong: dict[str, Any], op: str, rule: str) -> None:
    model = layer(op, **wrong)
    assert rule in rules(model)
    with pytest.raises(EngineError, match=rf"1 places: {LAYER[op]}: asked for int8, the engine computes it in fp32"):
        build(model, {LAYER[op]: "int8"})


@rtx
def test_uint8_with_zero_point_0_runs_as_int8() -> None:
    import numpy as np

    model = layer(activation=np.uint8)
    assert "int8-only: node 'a/Q' (QuantizeLinear): it quantizes to uint8; only int8" in rules(model)
    assert build(model).table.shares() == {"int8": 1.0}  # values above 127 saturate, and nothing says so


@rtx
def test_float64_becomes_float32() -> None:
    import numpy as np

    model = layer(quantized=False, dtype=np.float64)
    assert "float64: tensor 'w': it is float64" in rules(model)
    assert build(model, precision="fp32").table.shares() == {"fp32": 1.0}


@rtx
@pytest.mark.parametrize(
    ("model", "rule", "message"),
    [
        (layer(bias="int32"), "bias", "cannot parse the graph, in .*DequantizeLinear.*Int32"),
        (layer(zero_point=3), "zero-point", "cannot parse the graph.*[Zz]ero"),
        (
            bfloat16_with_float32_weights(),
            "mixed-types",
            r"cannot parse the graph, in . places: node 'a/Conv' \(Conv\)",
        ),
    ],
)
def test_what_the_parser_refuses_is_named(model: bytes, rule: str, message: str) -> None:
    assert f"{rule}: " in rules(model)
    with pytest.raises(EngineError, match=message):
        build(model)


@rtx
def test_a_builder_that_really_crashes_takes_only_its_own_process() -> None:
    assert "attention: node 'a/Attention' (Attention): q, k and v are not three tensors" in rules(attention_of_itself())
    with pytest.raises(
        EngineError, match=r"the engine builder was ended by SIGSEGV in the phase .*TensorRT crashed on"
    ):
        build(attention_of_itself(), batch=(1, 1, 1))


@rtx
def test_attention_with_3d_inputs() -> None:
    assert "attention: node 'a/Attention'" in rules(attention_3d())
    with pytest.raises(EngineError, match=r"tensorrt-rtx .* cannot build the engine: .*[Aa]ttention"):
        build(attention_3d())


@rtx
def test_a_layer_that_no_engine_layer_names_is_not_proven() -> None:
    with pytest.raises(EngineError, match="b/Conv: asked for int8, and no layer of the engine names it"):
        build(layer(), {"b/Conv": "int8"})


@rtx
def test_no_onnx() -> None:
    with pytest.raises(EngineError, match=r"tensorrt-rtx .* cannot parse the graph"):
        build(b"not a model")


def test_a_flavour_that_is_not_installed() -> None:
    if _has("tensorrt"):
        pytest.skip("tensorrt is installed")
    with pytest.raises(BackendMissing, match=r"tensorrt cannot be imported .*JetPack"):
        build_engine(layer(), replace(RTX, flavour="tensorrt"))


def _has(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the builder's process by a line of Python; ``here`` is the folder of the request."""

    def use(code: str) -> None:
        start = "import json, os, signal, sys, time; from pathlib import Path; here = Path({!r}); "
        monkeypatch.setattr(
            building, "_command", lambda folder: (sys.executable, "-c", start.format(str(folder)) + code)
        )

    return use


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "print(json.dumps(['Parsing', 1, 2]), flush=True); os.kill(os.getpid(), signal.SIGKILL)",
            r"ended by SIGKILL in the phase 'Parsing': most likely the memory ran out: lower workspace_mib",
        ),
        (
            "os.kill(os.getpid(), signal.SIGSEGV)",
            r"ended by SIGSEGV in the phase 'start': TensorRT crashed on this graph; nothing of it is kept",
        ),
        (
            "sys.stderr.write('no space'); sys.exit(3)",
            r"ended with exit code 3 in the phase 'start'; its last words: no space",
        ),
        ("sys.exit(0)", "ended with exit code 0"),
    ],
)
def test_a_builder_that_dies(child: Any, code: str, message: str) -> None:
    child(code)
    with pytest.raises(EngineError, match=message):
        build_engine(b"", RTX)


def test_what_a_killed_build_left_goes_with_the_next(
    child: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "dlx-engine-left"
    left.mkdir()
    (left / "model.onnx").write_bytes(b"large")
    os.utime(left, (0, 0))
    child("sys.exit(3)")
    with pytest.raises(EngineError):
        build_engine(layer(), RTX)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_stops_the_builder(child: Any) -> None:
    child(
        "(here / 'pid').write_text(str(os.getpid())); print(json.dumps(['Building', 0, 9]), flush=True); time.sleep(60)"
    )
    pids: set[int] = set()
    others = _children()  # of other tests in this process: a server that forks commands stays

    def interrupt(phase: str, done: int, total: int) -> None:
        pids.update(_children() - others)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(b"", RTX, progress=interrupt)
    assert pids
    assert not pids & _children()


def _children() -> set[int]:
    path = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children")
    return {int(pid) for pid in path.read_text().split()} if path.exists() else set()


def test_an_engine_that_cannot_be_proven_is_none(child: Any) -> None:
    report = {"inspection": None, "version": "8.5", "build_s": 1, "peak_memory_mib": 1, "warnings": [], "ignored": []}
    child(
        f"(here / 'engine.plan').write_bytes(b'x'); (here / 'report.json').write_text({json.dumps(json.dumps(report))})"
    )
    with pytest.raises(EngineError, match="no engine inspector, so the engine's precision cannot be proven"):
        build_engine(b"", replace(RTX, flavour="tensorrt"))


def test_the_timing_cache_comes_back(child: Any, tmp_path: Path) -> None:
    inspection = json.dumps({"Layers": [{"Name": "a", "LayerType": "Reformat", "Inputs": []}]})
    report = {
        "inspection": inspection,
        "version": "10",
        "build_s": 1,
        "peak_memory_mib": 1,
        "warnings": [],
        "ignored": [],
    }
    code = (
        "cache = here / 'timing.cache'; cache.write_bytes((cache.read_bytes() if cache.exists() else b'') + b'+'); "
        f"(here / 'engine.plan').write_bytes(b'x'); (here / 'report.json').write_text({json.dumps(json.dumps(report))})"
    )
    child(code)
    cache = tmp_path / "timing" / "a.cache"
    for expected in (b"+", b"++"):
        build_engine(b"", replace(RTX, flavour="tensorrt"), cache)
        assert cache.read_bytes() == expected
    assert [p.name for p in cache.parent.iterdir()] == ["a.cache"]


@pytest.mark.parametrize(
    ("wanted", "free", "used"), [(1024, 8000, 1024), (1024, 1000, 500), (0, 1000, 0), (1024, 0, 1024)]
)
def test_the_workspace_leaves_half_of_the_free_memory(
    wanted: int, free: int, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_available_mib", lambda: free)
    assert building._workspace_mib(wanted) == used


def test_signals_have_names() -> None:
    assert "SIGSEGV" in building._death(-signal.SIGSEGV, "x", "")


@rtx
def test_a_package_builds_with_its_own_code(dlx: Path, tmp_path: Path) -> None:
    """As on a device: the runtime and its child process come out of the ``.dlx``."""
    (tmp_path / "m.onnx").write_bytes(layer())
    code = (
        f"import sys; sys.path.insert(0, {str(dlx)!r})\n"
        "from dlx_runtime.engine.build import build_engine\n"
        "from dlx_runtime.engine.settings import BuildSettings\n"
        "settings = BuildSettings('tensorrt-rtx', 'int8', (1, 1, 4), layers={'a/Conv': 'int8'})\n"
        "built = build_engine(open('m.onnx', 'rb').read(), settings)\n"
        "print(built.table.describe(), any(name.startswith('dlx_deploy.runtime') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "int8 1 of 1 (100 %); 0 reformats False\n", done.stderr

"""What is judged on this machine is what the target computes, whichever CPU this is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlx_deploy.graph.execution import evaluation, kernels
from dlx_deploy.graph.execution.kernels import has_full_range, host_saturates
from dlx_deploy.graph.model import to_bytes
from dlx_deploy.graph.quantization.scheme import CPU, CPU_REDUCED
from dlx_deploy.targets.host import Host

from ...arrays import run_onnx
from ...onnx_fixtures import images, residual_net, with_qdq

AVX2 = Host(arch="x86_64", cpu_model="", cores=2, has_vnni=False, board="")
VNNI = Host(arch="x86_64", cpu_model="", cores=2, has_vnni=True, board="")
CORTEX_A72 = Host(arch="aarch64", cpu_model="", cores=4, has_vnni=False, board="")


def quantized(reduce_range: bool) -> bytes:
    return to_bytes(with_qdq(residual_net(), CPU_REDUCED if reduce_range else CPU))


@pytest.mark.parametrize(("host", "saturates"), [(AVX2, True), (VNNI, False), (CORTEX_A72, False)])
def test_only_x86_without_a_dot_product_saturates(host: Host, saturates: bool) -> None:
    assert host_saturates(quantized(reduce_range=False), host) is saturates
    assert not host_saturates(quantized(reduce_range=True), host)
    assert not host_saturates(to_bytes(residual_net()), host)


def test_the_range_of_the_weights_counts() -> None:
    from dlx_deploy.graph.model import load

    assert has_full_range(load(quantized(reduce_range=False)))
    assert not has_full_range(load(quantized(reduce_range=True)))


def exactly(monkeypatch: pytest.MonkeyPatch, model: bytes, host: Host) -> bool:
    """Whether a machine like ``host`` runs ``model`` in exact arithmetic when its own kernels are asked for."""
    seen: list[bool] = []
    opened = evaluation.open_session

    def spy(source: bytes, exact_qdq: bool, threads: int = 0, fused: bool = False) -> Any:
        seen.append(exact_qdq)
        return opened(source, exact_qdq, threads, fused=fused)

    monkeypatch.setattr(evaluation, "open_session", spy)
    monkeypatch.setattr(kernels, "_host", lambda: host)
    run_onnx(model, images(4), exact_qdq=False)
    return seen[0]


def test_a_machine_that_saturates_judges_in_exact_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exactly(monkeypatch, quantized(reduce_range=False), AVX2)
    assert not exactly(monkeypatch, quantized(reduce_range=True), AVX2)
    assert not exactly(monkeypatch, quantized(reduce_range=False), VNNI)


def test_exact_arithmetic_is_what_a_dot_product_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reduced range every CPU's kernels are exact: the two ways agree but for roundings on an edge."""
    model = quantized(reduce_range=True)
    native, exact = (run_onnx(model, images(40), exact_qdq) for exact_qdq in (False, True))
    assert np.abs(native - exact).max() < 0.05 * np.abs(exact).max()

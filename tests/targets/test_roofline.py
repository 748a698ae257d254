from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.errors import ConfigError
from dlx_deploy.targets import Estimate, LayerCost, Precision, Profile, Roofline, estimate, load_target

Layers = Callable[[Precision], list[LayerCost]]
ORIN = load_target("jetson-orin-nx-16gb").profile


def layer(**changes: Any) -> LayerCost:
    sizes = {"macs": 10**8, "weight_bytes": 10**6, "input_bytes": 10**5, "output_bytes": 10**5}
    return LayerCost(**{"name": "conv", "op": "Conv", "dtype": "int8", **sizes, **changes})


def with_roofline(**changes: Any) -> Profile:
    return msgspec.structs.replace(ORIN, roofline=msgspec.structs.replace(ORIN.roofline, **changes))


# Against published measurements


def test_resnet50_is_the_network_of_the_papers(resnet50_layers: Layers) -> None:
    layers = resnet50_layers("int8")
    assert len(layers) == 56
    assert sum(x.macs for x in layers) == pytest.approx(4.089e9, rel=0.001)
    assert sum(x.weight_bytes for x in layers) == pytest.approx(25.5e6, rel=0.002)  # without biases and batch norms


# MLPerf Inference, closed division, NVIDIA's results, ResNet-50 INT8 SingleStream, 90th percentile in ms
PUBLISHED = {
    "jetson-agx-orin-64gb": 0.633,  # v3.0, developer kit
    "jetson-orin-nx-16gb": 1.088,  # v3.0
    "jetson-agx-xavier": 1.834,  # v1.1
    "jetson-xavier-nx": 2.461,  # v2.0
    "a2": 0.706,  # v2.0
    "a10": 0.466,  # v1.1
    "l4": 0.362,  # v3.0
    "a100": 0.476,  # v3.0
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_resnet50_int8_within_the_stated_range_of_mlperf(name: str, resnet50_layers: Layers) -> None:
    modelled = estimate(resnet50_layers("int8"), load_target(name).profile)
    assert modelled.low_ms < PUBLISHED[name] < modelled.high_ms
    assert 0.5 < modelled.latency_ms / PUBLISHED[name] < 2.0


def test_resnet50_fp32_on_a_raspberry_pi_4(resnet50_layers: Layers) -> None:
    modelled = estimate(resnet50_layers("fp32"), load_target("rpi4").profile)
    assert modelled.low_ms < 331.6 < modelled.high_ms  # MLPerf v2.1, Krai, ArmNN 22.05


def test_orin_is_faster_than_its_smaller_brothers(resnet50_layers: Layers) -> None:
    names = ["jetson-agx-orin-64gb", "jetson-agx-orin-32gb", "jetson-orin-nx-16gb", "jetson-orin-nx-8gb",
             "jetson-orin-nano-8gb", "jetson-orin-nano-4gb", "jetson-nano"]  # fmt: skip
    times = [estimate(resnet50_layers("fp16"), load_target(name).profile).latency_ms for name in names]
    assert times == sorted(times)


# The formula


def test_one_compute_bound_layer_by_hand() -> None:
    modelled = estimate([layer(macs=10**10)], ORIN)
    by_hand_ms = 2 * 10**10 / (30.1e12 * 0.45) * 1e3 + 0.005
    assert modelled.latency_ms == pytest.approx(by_hand_ms)
    assert modelled.layers[0].bound == "compute"
    assert modelled.compute_share == pytest.approx(1 - 0.005 / by_hand_ms)
    assert modelled.memory_share == 0


def test_one_memory_bound_layer_by_hand() -> None:
    modelled = estimate([layer(macs=1, weight_bytes=10**7, input_bytes=10**6, output_bytes=2 * 10**6)], ORIN, batch=4)
    assert modelled.latency_ms == pytest.approx((10**7 + 4 * 3 * 10**6) / (102e9 * 0.8) * 1e3 + 0.005)
    assert modelled.layers[0].bound == "memory"
    assert modelled.compute_share == 0


def test_a_tiny_layer_is_launch_bound() -> None:
    modelled = estimate([layer(macs=1, weight_bytes=1, input_bytes=1, output_bytes=1)], ORIN)
    assert modelled.layers[0].bound == "launch"
    assert modelled.launch_share > 0.99


def test_depthwise_counts_its_memory_only() -> None:
    modelled = estimate([layer(macs=10**12, memory_bound=True)], ORIN)
    assert modelled.layers[0].compute_ms == 0
    assert modelled.latency_ms == estimate([layer(macs=0)], ORIN).latency_ms


def test_large_batches_use_their_own_efficiency() -> None:
    xavier = load_target("jetson-agx-xavier").profile
    heavy = layer(macs=10**10)
    modelled = estimate([heavy], xavier, batch=16).layers[0].compute_ms
    assert modelled == pytest.approx(2 * 16 * 10**10 / (22.6e12 * 0.50) * 1e3)
    assert estimate([heavy], xavier, batch=64).layers[0].compute_ms == pytest.approx(4 * modelled)


def test_an_estimate_says_that_it_is_one() -> None:
    modelled = estimate([layer()], ORIN)
    assert modelled.label == "estimate (roofline, not measured)"
    assert (modelled.target, modelled.power_mode, modelled.batch) == ("jetson-orin-nx-16gb", "MAXN", 1)
    assert (modelled.low_ms, modelled.high_ms) == pytest.approx((0.5 * modelled.latency_ms, 1.5 * modelled.latency_ms))


def test_int4_weights_run_in_half_precision() -> None:
    roof = ORIN.roofline
    assert roof.peak_tera("int4") == roof.peak_tera("bf16") == roof.peak_tera("fp16") == roof.fp16_tflops


# Errors


def test_no_layers() -> None:
    with pytest.raises(ConfigError, match="needs at least one layer; the list is empty"):
        estimate([], ORIN)


def test_no_batch() -> None:
    with pytest.raises(ConfigError, match="batch is 0; rule: 1 or more"):
        estimate([layer()], ORIN, batch=0)


def test_no_such_unit() -> None:
    with pytest.raises(
        ConfigError, match=r"layer 'conv' is fp8, .*jetson-orin-nx-16gb has no peak; its precisions: fp32"
    ):
        estimate([layer(dtype="fp8")], ORIN)


def test_negative_cost() -> None:
    with pytest.raises(ConfigError, match="layer 'conv': input_bytes is -1; rule: 0 or more"):
        layer(input_bytes=-1)


# Properties

counts = st.integers(0, 10**10)
layers_st = st.lists(
    st.builds(
        LayerCost, name=st.just("l"), op=st.just("Conv"), macs=counts, weight_bytes=counts, input_bytes=counts,
        output_bytes=counts, dtype=st.sampled_from(["fp32", "fp16", "bf16", "int8"]), memory_bound=st.booleans(),
    ),
    min_size=1, max_size=5,
)  # fmt: skip
batches = st.integers(1, 64)
factors = st.floats(1.0, 100.0)
KEYS = ["fp32_tflops", "fp16_tflops", "int8_tops", "memory_gb_per_s"]


def grown(roof: Roofline, key: str, factor: float) -> Profile:
    return with_roofline(**{key: getattr(roof, key) * factor})


@given(layers_st, batches, st.sampled_from(KEYS), factors)
def test_better_hardware_is_never_slower(layers: list[LayerCost], batch: int, key: str, factor: float) -> None:
    better = estimate(layers, grown(ORIN.roofline, key, factor), batch)
    assert better.latency_ms <= estimate(layers, ORIN, batch).latency_ms * (1 + 1e-12)


@given(layers_st, batches, st.sampled_from(["macs", "weight_bytes", "input_bytes", "output_bytes"]), counts)
def test_more_work_is_never_faster(layers: list[LayerCost], batch: int, key: str, more: int) -> None:
    heavier = [msgspec.structs.replace(x, **{key: getattr(x, key) + more}) for x in layers]
    assert estimate(heavier, ORIN, batch).latency_ms >= estimate(layers, ORIN, batch).latency_ms * (1 - 1e-12)


@given(layers_st, batches, st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_a_larger_batch_never_takes_less_time(layers: list[LayerCost], batch: int, one: float, many: float) -> None:
    profile = with_roofline(eff_compute=one, eff_compute_batch16=min(many, 16 * one))
    smaller, larger = estimate(layers, profile, batch), estimate(layers, profile, batch + 1)
    assert larger.latency_ms >= smaller.latency_ms * (1 - 1e-9)


@given(layers_st, batches)
def test_the_parts_make_the_whole(layers: list[LayerCost], batch: int) -> None:
    modelled: Estimate = estimate(layers, ORIN, batch)
    assert len(modelled.layers) == len(layers)
    assert modelled.latency_ms == pytest.approx(sum(row.time_ms for row in modelled.layers))
    assert modelled.compute_share + modelled.memory_share + modelled.launch_share == pytest.approx(1.0)
    assert modelled.low_ms <= modelled.latency_ms <= modelled.high_ms

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from onnx import ModelProto, numpy_helper

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.layers import quantizable
from dlx_deploy.graph.quantization.placement import Placement, place
from dlx_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan, TensorPlan
from dlx_deploy.graph.quantization.planning import asked_methods, integer_limits, make_plan, scale_of
from dlx_deploy.graph.quantization.ranges import Ranges
from dlx_deploy.graph.quantization.scheme import CPU, CPU_REDUCED, TENSORRT, TENSORRT_HALF, Scheme

from ...onnx_fixtures import residual_net

NOTHING = QuantizationPlan(schema=1)
SCHEMES = [TENSORRT, TENSORRT_HALF, CPU, CPU_REDUCED]
FOUR_BITS = [replace(scheme, activation_bits=4) for scheme in (TENSORRT_HALF, CPU)]


def placed(model: ModelProto, scheme: Scheme) -> Placement:
    return place(model, scheme.placement, quantizable(Index(model), set()))


def planned(
    scheme: Scheme,
    bounds: tuple[float, float],
    given: QuantizationPlan = NOTHING,
    model: ModelProto | None = None,
) -> QuantizationPlan:
    model = model or residual_net()
    placement = placed(model, scheme)
    ranges = Ranges(tensors={name: {"minmax": bounds, "entropy": (-0.5, 0.5)} for name in placement.own})
    return make_plan(model, scheme, placement, ranges, given, "minmax")


@settings(max_examples=50, deadline=None)
@example(low=0.00009999999747378752, width=0.00009999999747378752, scheme=TENSORRT_HALF)
@given(st.floats(-1e3, 1e3, width=32), st.floats(0, 1e3, width=32), st.sampled_from([*SCHEMES, *FOUR_BITS]))
def test_zero_and_both_ends_of_a_range_are_numbers_of_the_type(low: float, width: float, scheme: Scheme) -> None:
    bounds = (low, low + width)
    tensor = planned(scheme, bounds).tensors["x"]
    assert tensor.scale is not None
    assert tensor.zero_point is not None
    smallest, largest = integer_limits(scheme, tensor.bits)
    assert largest - smallest == 2**scheme.activation_bits - 1
    assert smallest <= tensor.zero_point <= largest
    assert tensor.scale > 0
    for value in bounds:
        step = np.clip(np.rint(value / tensor.scale) + tensor.zero_point, smallest, largest)
        # A float16 scale is off by half of its last bit, below 2**-14 by 2**-25 whatever its size.
        slack = 2.0**-10 * abs(value) + 128 * 2.0**-25 if scheme.half_scales else 1e-5 * abs(value)
        assert abs((step - tensor.zero_point) * tensor.scale - value) <= 1.01 * tensor.scale + slack
    if scheme.symmetric:
        assert tensor.zero_point == 0


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s.name}-{s.weight_levels}-{s.half_scales}")
def test_weights_get_a_scale_for_each_output_channel(scheme: Scheme) -> None:
    layer = planned(scheme, (-1.0, 1.0)).layers["conv2/Conv"]
    weight = Index(residual_net()).array("conv2.weight").astype(np.float64)
    wanted = np.abs(weight).reshape(8, -1).max(axis=1) / scheme.weight_levels
    assert layer == LayerPlan(source="max", scales=layer.scales)
    assert layer.scales == pytest.approx(wanted, rel=2**-10 if scheme.half_scales else 1e-6)


def test_what_was_given_stays_and_the_rest_is_found() -> None:
    given = QuantizationPlan(
        schema=1,
        tensors={"x": TensorPlan(scale=0.25), "relu1": TensorPlan(source="entropy")},
        layers={"conv2/Conv": LayerPlan(scales=(0.5,) * 8, source="learned")},
    )
    plan = planned(TENSORRT, (-1.0, 2.0), given)
    assert (plan.tensors["x"].scale, plan.tensors["x"].source) == (0.25, "given")
    assert plan.tensors["relu1"].scale == np.float32(0.5 / 127)
    assert plan.tensors["relu2"].scale == np.float32(2 / 127)
    assert plan.layers["conv2/Conv"] == given.layers["conv2/Conv"]
    assert plan.layers["conv1/Conv"].source == "max"


def test_only_what_has_no_scale_is_calibrated_and_by_the_method_it_names() -> None:
    given = QuantizationPlan(schema=1, tensors={"x": TensorPlan(scale=1.0), "relu1": TensorPlan(source="entropy")})
    asked = asked_methods(placed(residual_net(), TENSORRT), given, "percentile")
    assert asked == {"relu1": ("entropy",), "relu2": ("percentile",), "flat": ("percentile",)}


def test_given_scales_become_numbers_of_half_precision_where_the_graph_does() -> None:
    given = QuantizationPlan(schema=1, tensors={"x": TensorPlan(scale=0.1), "relu1": TensorPlan(scale=1e-9)})
    plan = planned(TENSORRT_HALF, (-1.0, 1.0), given)
    assert plan.tensors["x"].scale == float(np.float16(0.1))
    assert plan.tensors["relu1"].scale == 2.0**-20


def test_a_shared_scale_is_that_of_the_tensor_it_comes_from() -> None:
    plan = planned(CPU, (-1.0, 2.0))
    assert plan.tensors["flat"] == TensorPlan(like="pooled")
    assert scale_of(plan, "flat") == scale_of(plan, "pooled") == np.float32(3 / 255)


def test_a_bias_far_larger_than_its_channel_fits_into_32_bits() -> None:
    model = residual_net()
    index = Index(model)
    weight, bias = index.array("conv2.weight").copy(), index.array("conv2.bias").copy()
    weight[3] *= 1e-9
    bias[3] = 100.0
    for name, values in (("conv2.weight", weight), ("conv2.bias", bias)):
        index.initializers[name].CopyFrom(numpy_helper.from_array(values, name))
    plan = planned(CPU, (-1.0, 2.0), model=model)
    unit = scale_of(plan, "relu1").astype(np.float64) * np.array(plan.layers["conv2/Conv"].scales)
    assert 2**30 < 100 / unit[3] < 2**31
    assert planned(TENSORRT, (-1.0, 2.0), model=model).layers["conv2/Conv"].scales[3] < 1e-10

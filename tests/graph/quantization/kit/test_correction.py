from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.model import Index, load, to_bytes
from dlx_deploy.graph.quantization.kit import corrected, correction
from dlx_deploy.graph.quantization.kit.biases import add_to_biases, with_bias
from dlx_deploy.graph.quantization.kit.corrected import mean_errors
from dlx_deploy.graph.quantization.kit.correction import correct_biases
from dlx_deploy.graph.quantization.kit.state import Setting, State
from dlx_deploy.graph.quantization.scheme import CPU_REDUCED, TENSORRT, Scheme
from dlx_deploy.progress import silent
from dlx_deploy.runtime.backends.session import open_session

from ....arrays import samples
from ....onnx_fixtures import Net, digits, exported, images, node, residual_net
from .states import started


def values_of(
    model: ModelProto, names: list[str], inputs: NDArray[Any], batch: str | int = "batch"
) -> list[NDArray[Any]]:
    model = load(model)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = open_session(to_bytes(model), exact_qdq=True, threads=1)
    size = batch if isinstance(batch, int) else len(inputs)
    parts = [inputs[at : at + size] for at in range(0, len(inputs), size)]
    found = [session.run(names, {model.graph.input[0].name: part}) for part in parts]
    return [np.concatenate(values) for values in zip(*found, strict=True)]


def channel_errors(setting: Setting, state: State, inputs: NDArray[Any]) -> dict[str, float]:
    """Layer → the largest shift of a channel's mean, over what its outputs vary."""
    written = setting.write(state)
    errors = {}
    for layer in state.plan.layers_at("int8"):
        (wanted,) = values_of(state.model, [node(state.model, layer).output[0]], inputs)
        (found,) = values_of(written, [node(written, layer).output[0]], inputs)
        others = tuple(axis for axis in range(wanted.ndim) if axis != 1)
        errors[layer] = float(np.abs(wanted.mean(axis=others) - found.mean(axis=others)).max() / wanted.std())
    return errors


@pytest.mark.parametrize("scheme", [TENSORRT, CPU_REDUCED], ids=lambda scheme: scheme.name)
def test_every_channel_of_every_layer_has_the_mean_that_it_has_in_float32(scheme: Scheme) -> None:
    inputs = digits()[0][:48]
    setting, state = started(load(exported()), scheme, inputs)
    found = correct_biases(state, setting, silent)
    assert found is not None
    assert set(found.biases) == set(state.plan.layers_at("int8"))
    before, after = channel_errors(setting, state, inputs), channel_errors(setting, found, inputs)
    assert max(before.values()) > 0.01
    assert max(after.values()) < 0.1 * max(before.values())  # a bias in int32 is rounded, too
    again = correct_biases(found, setting, silent)  # from the start, not on top of itself
    assert again is not None
    for layer, added in found.biases.items():
        assert np.array_equal(again.biases[layer], added)


def test_the_network_itself_is_left_as_it_is() -> None:
    model = residual_net()
    setting, state = started(model, CPU_REDUCED, images(16))
    found = correct_biases(state, setting, silent)
    assert found is not None
    assert to_bytes(found.model) == to_bytes(residual_net())


def biasless() -> ModelProto:
    """A convolution without bias, two that share theirs, and products with and without a sum behind them."""
    net = Net()
    net.weight("a.weight", 4, 1, 3, 3)
    net.add("a", "Conv", net.planes(), "a.weight", pads=[1] * 4)
    net.conv("b", "a", 4, 4)
    net.weight("c.weight", 4, 4, 3, 3)
    net.add("c", "Conv", "b", "c.weight", "b.bias", pads=[1] * 4)
    net.add("pooled", "GlobalAveragePool", "c")
    net.add("flat", "Flatten", "pooled", axis=1)
    net.weight("m.weight", 4, 4)
    net.constant("m.bias", np.full(4, 0.5, np.float32))
    net.add("sum", "Add", "m.bias", net.add("m", "MatMul", "flat", "m.weight"))
    net.weight("n.weight", 4, 10)
    net.add("logits", "MatMul", "sum", "n.weight")
    return net.model()


def test_a_bias_is_made_split_or_found_behind_a_product() -> None:
    model = biasless()
    layers = with_bias(model, ["a/Conv", "b/Conv", "c/Conv", "m/MatMul", "n/MatMul", "logits/MatMul"])
    assert layers == ["a/Conv", "b/Conv", "c/Conv", "m/MatMul"]  # no sum behind the last, whose output is the graph's
    added = {layer: np.arange(4, dtype=np.float32) + position for position, layer in enumerate(layers)}
    changed = add_to_biases(model, added)
    assert to_bytes(model) == to_bytes(biasless())
    before, after = Index(model), Index(changed)
    for layer in layers:
        (old,) = values_of(model, [node(model, layer).output[0]], images(2))
        assert old.size
    assert np.array_equal(after.array(node(changed, "a/Conv").input[2]), added["a/Conv"])
    for layer in ("b/Conv", "c/Conv"):
        expected = before.array("b.bias") + added[layer]
        assert np.array_equal(after.array(node(changed, layer).input[2]), expected)
    assert np.array_equal(after.array("m.bias"), before.array("m.bias") + added["m/MatMul"])
    values_of(changed, ["logits"], images(2))


@pytest.mark.parametrize(("opset", "batch"), [(17, "batch"), (20, "batch"), (20, 4)])
def test_errors_are_those_of_one_layer_after_the_other(opset: int, batch: str | int, monkeypatch: Any) -> None:
    """Whatever the batches, and where they are filled up."""
    model = load(residual_net("conv", batch=batch))
    model.opset_import[0].version = opset
    inputs = images(32)
    setting, state = started(model, TENSORRT, inputs)
    layers = with_bias(state.model, state.plan.layers_at("int8"))
    assert len(layers) > 3
    errors: dict[str, NDArray[Any]] = {}
    for layer in layers:
        written = setting.write(replace(state, biases=errors))
        (wanted,) = values_of(model, [node(model, layer).output[0]], inputs, batch)
        (found,) = values_of(written, [node(written, layer).output[0]], inputs, batch)
        others = tuple(axis for axis in range(wanted.ndim) if axis != 1)
        errors[layer] = (wanted - found).mean(axis=others)
    monkeypatch.setattr(corrected, "LARGEST_BATCH", 32)
    seen = mean_errors(model, setting.write(state), layers, samples(inputs), silent)
    assert list(seen) == layers
    size = max(np.abs(errors[layer]).max() for layer in layers)
    for layer in layers:
        assert seen[layer].shape == errors[layer].shape
        np.testing.assert_allclose(seen[layer], errors[layer], atol=(1e-5 if batch == "batch" else 0.3 * size))


def test_errors_of_batches_are_a_mean_over_all_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, state = started(residual_net(), TENSORRT, images(38))
    layers, written = ["conv1/Conv"], setting.write(state)
    whole = mean_errors(state.model, written, layers, setting.fitted, silent)
    monkeypatch.setattr(corrected, "LARGEST_BATCH", 5)
    parts = mean_errors(state.model, written, layers, setting.fitted, silent)
    np.testing.assert_allclose(parts["conv1/Conv"], whole["conv1/Conv"], atol=1e-6)
    assert np.abs(whole["conv1/Conv"]).max() > 1e-4


@pytest.mark.parametrize(("count", "asked"), [(64, 64), (65, 33), (200, 50)])
def test_errors_are_learned_from_inputs_of_all_parts(count: int, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[NDArray[Any]] = []

    def spy(network: Any, written: Any, layers: list[str], some: Any, progress: Any) -> dict[str, Any]:
        seen.extend(some.arrays.values())
        return {}

    setting, state = started(residual_net(), TENSORRT, images(16))
    monkeypatch.setattr(correction, "mean_errors", spy)
    correct_biases(state, replace(setting, fitted=samples(images(count))), silent)
    assert len(seen[0]) == asked
    assert np.array_equal(seen[0], images(count)[:: -(-count // 64)])


def test_a_graph_may_have_the_names_that_are_added() -> None:
    setting, state = started(residual_net(), TENSORRT, images(16))
    written = setting.write(state)
    usual = mean_errors(state.model, written, ["conv1/Conv", "conv2/Conv"], setting.fitted, silent)
    names = {"conv1": "/correction/network/conv2", "relu1": "/correction/layers/conv1/Conv/error"}
    alike = [load(state.model), load(written)]
    for model in alike:
        for one in model.graph.node:
            one.input[:] = [names.get(name, name) for name in one.input]
            one.output[:] = [names.get(name, name) for name in one.output]
    found = mean_errors(*alike, ["conv1/Conv", "conv2/Conv"], setting.fitted, silent)
    for layer, errors in usual.items():
        np.testing.assert_array_equal(found[layer], errors)


def test_layers_without_a_place_for_a_bias_are_nothing_to_correct() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"], name="m/MatMul")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    setting, state = started(model, TENSORRT, np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
    assert correct_biases(state, setting, silent) is None

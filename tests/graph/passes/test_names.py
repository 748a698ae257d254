from __future__ import annotations

import pytest
from onnx import ModelProto

from dlx_deploy.graph.passes.base import run_passes
from dlx_deploy.graph.passes.names import NAME_NODES, SCOPES, STRIP_PREFIX, scope_of

from ...onnx_fixtures import Net


def scoped(node: int, model: ModelProto, *scopes: str) -> None:
    """What the exporter notes on a node: the modules around it, and last its own name."""
    entry = model.graph.node[node].metadata_props.add()
    entry.key, entry.value = SCOPES, str([*scopes, "node"])


def exporters() -> ModelProto:
    """A convolution of ``model.stem``, used twice, and a ReLU of ``model``; what is before has no scope."""
    net = Net()
    x = net.planes()
    net.weight("model.stem.weight", 1, 1, 3, 3)
    x = net.add("y", "Conv", x, "model.stem.weight", pads=[1] * 4)
    x = net.add("z", "Conv", x, "model.stem.weight", pads=[1] * 4)
    model = net.head(net.add("r", "Relu", x), 1)
    for node, *scopes in ((4, "", "model", "model.stem"), (5, "", "model", "model.stem"), (6, "", "model")):
        scoped(node, model, *scopes)
    return model


def test_nodes_are_named_after_the_modules_that_hold_their_weights() -> None:
    names = [node.name for node in run_passes(exporters(), [NAME_NODES], "net").graph.node]
    assert names[:7] == [
        "preprocess/Cast", "preprocess/Transpose", "preprocess/Mul", "preprocess/Add",
        "stem/Conv", "stem/Conv_2", "model/Relu",
    ]  # fmt: skip
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("scopes", "wanted"),
    [(("", "model", "model.a.b"), "model.a.b"), (("", "modelling.a"), ""), ((), ""), (("model", "other"), "model")],
)
def test_the_innermost_module_of_the_users_network(scopes: tuple[str, ...], wanted: str) -> None:
    model = exporters()
    del model.graph.node[4].metadata_props[:]
    scoped(4, model, *scopes)
    assert scope_of(model.graph.node[4]) == wanted


def test_weights_have_the_names_of_the_state_dict_unless_a_tensor_has_them() -> None:
    model = run_passes(exporters(), [STRIP_PREFIX], "net")
    assert "stem.weight" in {tensor.name for tensor in model.graph.initializer}
    assert model.graph.node[4].input[1] == "stem.weight"
    taken = exporters()
    taken.graph.node[6].output[0] = taken.graph.node[7].input[0] = "stem.weight"
    assert run_passes(taken, [STRIP_PREFIX], "net").graph.node[4].input[1] == "model.stem.weight"

from __future__ import annotations

from collections.abc import Sequence

import pytest
from onnx import ModelProto

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.passes.base import Pass, run_passes
from dlx_deploy.graph.passes.exported import exported_passes

from ...onnx_fixtures import node, op_types, residual_net


def renamed(model: ModelProto) -> ModelProto:
    model.graph.name += "+"
    return model


def broken(error: Exception) -> Pass:
    def run(model: ModelProto) -> ModelProto:
        raise error

    return Pass("broken", run)


FIRST, SECOND = Pass("first", renamed), Pass("second", renamed)


def complains(*findings: str) -> Sequence[str]:
    return findings


def test_passes_run_in_order_and_each_gets_what_the_one_before_made() -> None:
    names: list[str] = []

    def seen(model: ModelProto) -> Sequence[str]:
        names.append(model.graph.name)
        return ()

    spies = [Pass("a", renamed, requires=seen, ensures=seen), Pass("b", renamed, requires=seen, ensures=seen)]
    assert run_passes(residual_net(), spies, "net").graph.name == "test++"
    assert names == ["test", "test+", "test+", "test++"]


def test_no_passes_leave_the_graph() -> None:
    model = residual_net()
    assert run_passes(model, [], "net") is model


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConfigError("exclude is 'x'"), ConfigError, "net.onnx: exclude is 'x'"),
        (StageFailed("no such operator"), StageFailed, "net.onnx: no such operator"),
        (KeyError("y"), StageFailed, "net.onnx: KeyError: 'y'"),
    ],
)
def test_the_pass_that_raised_is_named_and_those_before_it(error: Exception, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        run_passes(residual_net(), [FIRST, SECOND, broken(error), FIRST], "net.onnx")
    assert type(caught.value) is kind
    assert str(caught.value) == f"{text} (in the pass 'broken', after first, second)"
    assert caught.value.__cause__ is error


def test_no_memory_is_nobodys_mistake() -> None:
    with pytest.raises(MemoryError):
        run_passes(residual_net(), [broken(MemoryError())], "net.onnx")


def test_a_graph_that_a_pass_cannot_take() -> None:
    picky = Pass("picky", renamed, requires=lambda model: complains("node 'a' has no weights"))
    with pytest.raises(StageFailed, match=r"^net: the graph is not what the pass 'picky' needs: node 'a' has no weig"):
        run_passes(residual_net(), [picky], "net")
    with pytest.raises(StageFailed, match=r"weights \(in the pass 'picky', the first\)$"):
        run_passes(residual_net(), [picky], "net")


def test_a_graph_that_breaks_what_a_pass_ensures() -> None:
    careless = Pass("careless", renamed, ensures=lambda model: complains(*"abcdefg"))
    with pytest.raises(StageFailed) as caught:
        run_passes(residual_net(), [FIRST, careless], "net")
    assert str(caught.value) == (
        "net: the graph breaks what the pass 'careless' ensures: a; b; c; d; e; and 2 more "
        "(in the pass 'careless', after first)"
    )


def test_what_an_exported_graph_must_be() -> None:
    """Each contract of the sequence holds on a good graph, and is broken by one fault."""
    passes = {step.name: step for step in exported_passes(17)}
    assert list(passes) == [
        "fold-weights",
        "name-nodes",
        "pool-globally",
        "strip-prefix",
        "opset-17",
        "safe-forms",
        "tidy",
    ]
    assert all(not step.ensures(residual_net()) for step in passes.values())
    model = residual_net()
    node(model, "conv2/Conv").name = "conv1/Conv"
    assert passes["name-nodes"].ensures(model) == ["2 nodes are named 'conv1/Conv'"]
    assert passes["opset-17"].ensures(residual_net(opset=20)) == ["it is at opset 20"]
    model = residual_net()
    node(model, "conv2/Conv").input[0] = "nowhere"
    assert "nowhere" in passes["tidy"].ensures(model)[0]


def test_a_computed_weight_breaks_what_folding_ensures() -> None:
    import onnx

    model = residual_net()
    position = op_types(model).index("Conv")
    model.graph.node.insert(position, onnx.helper.make_node("Neg", ["conv1.weight"], ["w"], name="w/Neg"))
    node(model, "conv1/Conv").input[1] = "w"
    fold = exported_passes(17)[0]
    assert fold.ensures(model) == ["conv1/Conv computes its constant 'w' for every input"]
    assert fold.ensures(fold.run(model)) == []

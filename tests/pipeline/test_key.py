"""Keys: pinned, complete, and able to say why they differ."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.key import KeyDocument, differences, key_document, key_of, tool_versions
from dlx_deploy.pipeline.stage import Job, Metrics, Stage, Step

from .conftest import Board, NumberParams


def run(job: Job) -> Metrics:
    return {}


def document(**changes: Any) -> KeyDocument:
    base = KeyDocument(1, "train", 2, 0, {"epochs": 5}, {"data": "ab"}, ["model"], {"torch": "2.9"}, {"opset": 17}, {})
    return msgspec.structs.replace(base, **changes)


def test_key_is_pinned() -> None:
    """A change of this value makes every user's store cold: bump the schema and say so in the change log."""
    assert key_of(document()) == PINNED


PINNED = "e18bf79588dede9e9ff21416d9cc01927e7fca51943d8d26e2fd9f7f458918c5"


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "prune"},
        {"version": 3},
        {"seed": 1},
        {"params": {"epochs": 6}},
        {"inputs": {"data": "cd"}},
        {"outputs": ["model", "log"]},
        {"tools": {"torch": "2.10"}},
        {"target": {"opset": 18}},
        {"host": {"cpu": "x"}},
    ],
)
def test_everything_in_the_document_changes_the_key(changes: dict[str, Any]) -> None:
    assert key_of(document(**changes)) != key_of(document())
    assert differences(document(), document(**changes))


def test_differences_name_path_and_values() -> None:
    new = document(params={"epochs": 6, "lr": 0.1}, inputs={"data": "c" * 64})
    assert differences(document(), new) == [
        "inputs.data: ab → cccccccccccc",
        "params.epochs: 5 → 6",
        "params.lr: absent → 0.1",
    ]


def test_document_takes_only_the_used_target_fields_and_the_host_on_demand() -> None:
    stage = Stage("s", 1, NumberParams, (), ("x",), run, uses=("factor",))
    made = key_document(stage, NumberParams(3), {}, Board(), 7, {"cpu": "x"})
    assert (made.target, made.host, made.seed, made.params) == ({"factor": 10}, {}, 7, {"value": 3})
    measuring = Stage("s", 1, NumberParams, (), ("x",), run, measures_host=True)
    assert key_document(measuring, NumberParams(3), {}, Board(), 7, {"cpu": "x"}).host == {"cpu": "x"}


def test_tool_versions() -> None:
    assert tool_versions(["no-such-distribution", "msgspec"]) == {
        "no-such-distribution": "missing",
        "msgspec": msgspec.__version__,
    }


def test_a_step_cannot_bind_an_input_its_stage_lacks() -> None:
    with pytest.raises(ValueError, match=r"step 'a' binds \['x'\], which stage 's' has not"):
        Step("a", Stage("s", 1, NumberParams, ("y",), (), run), NumberParams(), {"x": None})  # type: ignore[dict-item]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
@given(st.dictionaries(st.text(), json_values))
def test_canonical_json_round_trips_and_ignores_order(value: dict[str, Any]) -> None:
    data = canonical_json(value)
    assert msgspec.json.decode(data) == value
    assert canonical_json(dict(reversed(value.items()))) == data
    assert data.endswith(b"\n")

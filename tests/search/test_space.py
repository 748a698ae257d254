"""What a search varies."""

from __future__ import annotations

from typing import Any

import pytest

from dlx_deploy.config import load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.search.space import Choice, Range, combinations, default_space, parse_space
from dlx_deploy.targets import load_target


def test_lists_are_choices_and_two_numbers_are_a_range() -> None:
    space: dict[str, Any] = {
        "distill.arguments.width": [0.5, 2.0],
        "distill.epochs": [3, 9],
        "quantize.precision": ["int8", "fp32"],
        "prune.round_to": {"choice": [4, 8]},
        "quantize.exclude": [[], ["conv1", "layer4.*"]],
        "distill.temperature": {"low": 1.0, "high": 8.0, "log": True},
        "prune.reduce_macs": {"low": 0.0, "high": 0.6, "step": 0.2},
    }
    parsed = {one.key: one for one in parse_space(space)}
    assert parsed["distill.arguments.width"] == Range("distill.arguments.width", 0.5, 2.0, 0.075, False)
    assert parsed["distill.epochs"] == Range("distill.epochs", 3, 9, 1, True)
    assert parsed["quantize.precision"] == Choice("quantize.precision", ('"int8"', '"fp32"'))
    assert parsed["prune.round_to"] == Choice("prune.round_to", ("4", "8"))
    assert parsed["quantize.exclude"] == Choice("quantize.exclude", ("[]", '["conv1", "layer4.*"]'))
    assert str(parsed["distill.temperature"]) == "distill.temperature: 1.0 to 8.0, by its logarithm"
    assert str(parsed["prune.reduce_macs"]) == "prune.reduce_macs: 0.0 to 0.6, in steps of 0.2"
    assert parsed["prune.reduce_macs"].extremes == ("0.0", "0.6")


def test_what_steps_add_up_to_is_a_short_number() -> None:
    assert Range("k", 0.0, 0.6, 0.2, False).text(0.1 + 0.2) == "0.3"
    assert Range("k", 3, 9, 1, True).text(5.0) == "5"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, r"search\.space is empty, .*; give keys and values, for instance: space = "),
        ({"precision": ["int8", "fp32"]}, r"has 'precision' = \['int8', 'fp32'\]; rule: SECTION\.KEY, for instance"),
        (
            {"gate.max_drop": [0.1, 0.2]},
            r"rule: a key of distill, prune, .*: data, teacher and budgets are what trials",
        ),
        ({"distil.epochs": [1, 2]}, r"compared by; nearest valid name: 'distill'"),
        ({"distill.epochs": [1]}, r"distill\.epochs is \[1\]; rule: a list of two values or more, or a table"),
        ({"distill.epochs": 5}, r"distill\.epochs is 5; rule: a list of two"),
        ({"distill.epochs": [9, 3]}, r"distill\.epochs is \[9, 3\]; rule: the first less than the second"),
        ({"distill.epochs": [3, 3]}, r"rule: the first less than the second"),
        ({"quantize.precision": ["int8", "int8"]}, r'quantize\.precision has "int8" twice; rule: each value once'),
        ({"prune.reduce_macs": {"low": 0.1}}, r"is \{'low': 0\.1\}; rule: \{ choice = \[two or more\] \}, or low and"),
        ({"prune.reduce_macs": {"low": 0.0, "high": 0.5, "log": True}}, r"rule: with log, more than 0"),
        ({"prune.reduce_macs": {"low": 0.0, "high": 0.5, "step": 2}}, r"rule: step more than 0 and at most their"),
        ({"prune.reduce_macs": {"low": "a", "high": 0.5}}, r"rule: numbers, and log true or false"),
        ({"prune.reduce_macs": {"low": False, "high": 0.5}}, r"rule: numbers"),
        ({"distill.arguments": [{}, {"width": 1}], "distill.arguments.width": [1, 2]}, r"which holds it; rule: one of"),
        ({"quantize.enabled": [True, False]}, r"rule: distill, prune, qat alone can be left out"),
    ],
)
def test_what_is_no_space_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_space(space)


def test_a_usual_space_fits_what_is_enabled_and_holds_the_configuration() -> None:
    config = load_config(None)
    space = default_space(config, load_target("jetson").profile)
    assert config.distill.arguments["width"] in space["distill.arguments.width"]
    assert config.distill.model in space["distill.model"]
    assert config.prune.reduce_macs in space["prune.reduce_macs"]
    assert space["quantize.precision"] == ["auto", "int8", "fp16", "fp32"]
    bare = load_config(None, ["distill.enabled=false", "prune.enabled=false", "quantize.precision=fp32"])
    assert default_space(bare, load_target("rpi5").profile) == {}
    assert "fp16" not in default_space(config, load_target("rpi5").profile)["quantize.precision"]


def test_few_combinations_are_all_tried() -> None:
    parsed = parse_space({"quantize.precision": ["int8", "fp32"], "quantize.effort": ["fast", "balanced"]})
    assert len(combinations(parsed, 4)) == 4
    assert combinations(parsed, 3) == []
    assert combinations(parse_space({"distill.epochs": [3, 9]}), 100) == []

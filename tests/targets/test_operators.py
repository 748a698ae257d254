"""The table of operators that runtimes read: what it says at the edges of versions, and what it leaves open."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from dlx_deploy.graph.passes import opset
from dlx_deploy.runtime.hazards.operators import Operator
from dlx_deploy.targets import Profile, load_target
from dlx_deploy.targets.operators import operator_table, operator_verdicts


def at(version: str, name: str = "jetson-orin-nano-8gb") -> Profile:
    profile = load_target(name).profile
    return replace(profile, software=replace(profile.software, tensorrt=version, tensorrt_known=()))


def seen(operator: str, profile: Profile, version: int = 17, **more: object) -> tuple[str, str]:
    kinds = {"dtype": "float32", "gives": "float32"}
    (verdict,) = operator_verdicts([Operator(operator, version, **{**kinds, **more})], profile)  # type: ignore[arg-type]
    return verdict.verdict, verdict.note


def word(operator: str, profile: Profile, version: int = 17, **more: object) -> str:
    return seen(operator, profile, version, **more)[0]


def test_each_operator_stands_once_and_rewritten_ones_have_a_rule() -> None:
    table = operator_table()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", table.date)
    parser = table.tensorrt
    names = [
        *parser.never,
        *(name for group in (parser.since, parser.at_the_latest) for v in group.values() for name in v),
    ]
    assert len(set(names)) == len(names) > 150
    assert set(parser.notes) <= set(names)
    assert set(table.rewritten) <= set(opset._RULES)


@pytest.mark.parametrize(
    ("operator", "version", "expected"),
    [
        ("Conv", "8.2.1", "runs"),
        ("Trilu", "8.4", "not supported"),
        ("Trilu", "8.5.2", "runs"),
        ("IsInf", "8.5.2", "not supported"),
        ("IsInf", "8.6.1", "runs"),
        ("STFT", "10.3.0", "not supported"),
        ("STFT", "10.16", "runs"),
        ("Mish", "10.3.0", "not known"),
        ("Mish", "10.15", "runs"),
        ("Unique", "11.4.1", "not supported"),
        ("NoSuch", "11.4.1", "not known"),
        ("Conv", "", "not known"),
    ],
)
def test_what_a_version_of_tensorrt_reads(operator: str, version: str, expected: str) -> None:
    assert word(operator, at(version)) == expected


def test_other_runtimes_and_other_domains() -> None:
    rtx, board = load_target("rtx").profile, load_target("rpi5").profile
    assert [word("DeformConv", one) for one in (rtx, board)] == ["not supported", "runs"]
    assert word("Relu", board, domain="com.example") == "not supported"


@pytest.mark.parametrize(
    ("operator", "since"), [("MatMulNBits", "1.17"), ("GatherBlockQuantized", "1.20"), ("MoE", "1.23")]
)
def test_operators_of_onnx_runtime_s_own_run_on_cpus_alone(operator: str, since: str) -> None:
    board, engine = load_target("rpi5").profile, load_target("jetson").profile
    own = {"domain": "com.microsoft", "version": 1}
    said = f"an operator of ONNX Runtime's own, with a kernel for CPUs from {since} on"
    assert seen(operator, board, **own) == ("runs", said)
    assert seen(operator, engine, **own) == ("not supported", "an operator of com.microsoft, not of ONNX")
    assert word(operator, board, domain="com.example") == word("NoSuch", board, **own) == "not supported"


@pytest.mark.parametrize(
    ("target", "kind", "expected"),
    [
        ("rpi5", "int4", ("runs", "INT4 is read from ONNX Runtime 1.19 on")),
        ("rpi5", "int8", ("runs", "")),
        ("jetson", "int4", ("runs", "zero point 0")),
        ("jetson", "float8e4m3fn", ("not supported", "numbers in FP8, which the target has not")),
        ("jetson-xavier-nx", "int4", ("not supported", "numbers in INT4, which the target has not")),
        ("rtx", "int4", ("runs", "")),
        ("jetson", "uint4", ("not supported", "numbers in UINT4, which TensorRT does not have; INT4 has a sign")),
        ("rpi5", "uint4", ("runs", "UINT4 is read from ONNX Runtime 1.19 on")),
        ("rtx-4090", "float8e4m3fn", ("runs", "")),
    ],
)
def test_numbers_that_not_every_runtime_reads(target: str, kind: str, expected: tuple[str, str]) -> None:
    profile = load_target(target).profile
    assert seen("DequantizeLinear", profile, min(profile.opset, 21), dtype=kind) == expected
    if kind == "float8e4m3fn":
        assert word("QuantizeLinear", profile, min(profile.opset, 21), gives=kind) == expected[0]


def test_what_a_build_rewrites() -> None:
    assert word("LayerNormalization", load_target("xavier-nx").profile) == "rewritten"  # its opset is 16
    assert word("GridSample", load_target("jetson-thor").profile, 20, attributes=("mode=linear",)) == "rewritten"


def test_a_known_wrong_computation_is_a_hazard_and_the_worst_of_one_kind_counts() -> None:
    board = load_target("rpi5").profile
    half, single = (Operator("Conv", 17, kind, kind, count=2) for kind in ("float16", "float32"))
    for operators in ((half, single), (single, half)):
        (verdict,) = operator_verdicts(operators, board)
        assert (verdict.verdict, verdict.count) == ("hazard", 4)
        assert verdict.note.endswith("(onnxruntime-fp16-aarch64)")

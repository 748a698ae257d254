from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dlx_deploy.errors import ConfigError
from dlx_deploy.targets import Profile, list_targets, load_target
from dlx_deploy.targets.checks import check


def changed(profile: Profile, **changes: Any) -> Profile:
    """``profile`` with some fields replaced; ``table__key`` reaches into a table."""
    for name, value in changes.items():
        table, _, key = name.rpartition("__")
        if table:
            value = msgspec.structs.replace(getattr(profile, table), **{key: value})
        profile = msgspec.structs.replace(profile, **{table or key: value})
    return profile


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("jetson", {"opset": 12}, r"opset is 12; rule: 13 \(per-channel Q/DQ\) to 25 .*; write the newest"),
        ("jetson", {"opset": 26}, r"opset is 26; rule: 13 .* to 25 \(newest TensorRT parser\)"),
        ("jetson", {"precisions": ("fp16",)}, r"precisions is \['fp16'\]; rule: every target runs fp32.*add 'fp32'"),
        ("jetson", {"precisions": ("fp32", "fp32")}, r"rule: each one once; remove the repeated one"),
        (
            "jetson-nano",
            {"precisions": ("fp32", "int8")},
            r"precisions\[1\] is 'int8' but roofline\.int8_tops is 0; .*; set roofline\.int8_tops or remove 'int8'",
        ),
        ("jetson", {"precisions": ("fp32", "fp8")}, r"precisions\[1\] is 'fp8' but roofline\.fp8_tflops is 0"),
        ("jetson", {"precisions": ("fp32", "fp4")}, r"precisions\[1\] is 'fp4' but roofline\.fp4_tflops is 0"),
        ("rpi5", {"precisions": ("fp32", "bf16")}, r"precisions\[1\] is 'bf16' but roofline\.fp16_tflops is 0"),
        (
            "jetson",
            {"quantization__style": "cpu"},
            r"style is 'cpu' but kind is 'tensorrt'; .*write style = 'tensorrt'",
        ),
        ("rpi5", {"quantization__style": "tensorrt"}, r"style is 'tensorrt' but kind is 'cpu'; .*write style = 'cpu'"),
        (
            "jetson",
            {"quantization__activation": "uint8"},
            r"'uint8' with style 'tensorrt'; .*above 127 saturate; write",
        ),
        (
            "jetson",
            {"quantization__symmetric": False},
            r"symmetric is false .*zero point 0 only; write symmetric = true",
        ),
        ("jetson", {"quantization__reduce_range": True}, r"reduce_range is true with style 'tensorrt'; rule: .*x86"),
        ("jetson", {"quantization__kernels": "avx2"}, r"kernels is 'avx2' with style 'tensorrt'; .*; remove it"),
        ("rpi5", {"quantization__kernels": "mmx"}, r"kernels is 'mmx'; rule: 'avx2', .*, or '' where no kernels"),
        ("jetson", {"judge": "native"}, r"judge is 'native' with kind 'tensorrt'; .*; write judge = 'exact-qdq'"),
        ("rtx-4090", {"judge": "native"}, r"judge is 'native' with kind 'tensorrt-rtx'"),
        ("jetson", {"compute_capability": ""}, r"compute_capability is '' but kind is 'tensorrt'; .*as in '8\.7'"),
        ("rpi5", {"compute_capability": "8.7"}, r"compute_capability is '8\.7' but kind is 'cpu'; .*remove it"),
        ("rpi5", {"sm_count": 8}, r"sm_count is 8 but kind is 'cpu'"),
        ("rpi5", {"dla__cores": 1}, r"dla\.cores is 1 but kind is 'cpu'"),
        ("rpi5", {"sparsity_2_4": True}, r"sparsity_2_4 is True but kind is 'cpu'"),
        ("jetson", {"dla__cores": 1}, r"dla\.cores is 1 without dla\.version or dla\.tensorrt_ranges"),
        ("jetson", {"power_mode": "25W"}, r"power_mode is '25W'; rule: one of power_modes \(7W, 15W\)"),
        (
            "jetson",
            {"roofline__eff_compute": 0.02},
            r"eff_compute_batch16 is 0\.4 and eff_compute 0\.02; rule: at most",
        ),
        ("rpi5", {"roofline__cores": 0}, r"roofline\.cores is 0 but kind is 'cpu'"),
    ],
)
def test_parts_that_do_not_fit(base: str, changes: dict[str, Any], message: str) -> None:
    profile = load_target(base).profile
    assert check(profile, "x.toml") is profile
    with pytest.raises(ConfigError, match=r"^x\.toml: .*" + message):
        check(changed(profile, **changes), "x.toml")


def test_a_cpu_may_be_judged_exactly() -> None:
    profile = changed(load_target("cpu-aarch64").profile, judge="exact-qdq", quantization__reduce_range=False)
    assert check(profile, "x.toml") == profile


def test_every_precision_has_a_peak_to_check() -> None:
    for profile in list_targets():
        assert all(profile.roofline.peak_tera(precision) > 0 for precision in profile.precisions), profile.name

"""Whether a profile's parts fit together: combinations that decode well but could not build or would mislead."""

from __future__ import annotations

from collections.abc import Iterator

from dlx_deploy.errors import ConfigError
from dlx_deploy.targets.kernels import kernel_table
from dlx_deploy.targets.opsets import NEWEST, OLDEST
from dlx_deploy.targets.profile import Profile

__all__ = ["check"]

PEAKS = {
    "fp16": "fp16_tflops",
    "bf16": "fp16_tflops",
    "int8": "int8_tops",
    "fp8": "fp8_tflops",
    "int4": "fp16_tflops",
    "fp4": "fp4_tflops",
}


def check(profile: Profile, origin: str) -> Profile:
    """The same ``profile``, if its parts fit together.

    Raises:
        ConfigError: names ``origin``, the key, the value seen, the rule and the remedy.
    """
    for checks in (_opset, _precisions, _quantization, _hardware, _roofline):
        for complaint in checks(profile):
            raise ConfigError(f"{origin}: {complaint}")
    return profile


def _opset(p: Profile) -> Iterator[str]:
    if not OLDEST <= p.opset <= NEWEST:
        yield (
            f"opset is {p.opset}; rule: {OLDEST} (per-channel Q/DQ) to {NEWEST} (newest TensorRT parser); "
            "write the newest that the target's parser reads: 13 for TensorRT 8.2, 17 for 8.5, 20 for 10.x"
        )


def _precisions(p: Profile) -> Iterator[str]:
    if "fp32" not in p.precisions:
        yield f"precisions is {list(p.precisions)}; rule: every target runs fp32, the fallback; add 'fp32'"
    if len(set(p.precisions)) < len(p.precisions):
        yield f"precisions is {list(p.precisions)}; rule: each one once; remove the repeated one"
    for i, precision in enumerate(p.precisions):
        if not p.roofline.peak_tera(precision):
            key = PEAKS[precision]
            yield (
                f"precisions[{i}] is {precision!r} but roofline.{key} is 0; rule: a precision that runs has a peak; "
                f"set roofline.{key} or remove {precision!r}"
            )


def _quantization(p: Profile) -> Iterator[str]:
    q = p.quantization
    if (q.style == "cpu") != (p.kind == "cpu"):
        right = "cpu" if p.kind == "cpu" else "tensorrt"
        yield (
            f"quantization.style is {q.style!r} but kind is {p.kind!r}; rule: TensorRT rejects CPU-style Q/DQ, and "
            f"TensorRT-style Q/DQ is slower than FP32 on a CPU; write style = {right!r}"
        )
    if q.kernels and q.kernels not in kernel_table().cpus:
        known = ", ".join(map(repr, kernel_table().cpus))
        yield f"quantization.kernels is {q.kernels!r}; rule: {known}, or '' where no kernels were timed"
    if q.style != "tensorrt":
        return
    if q.kernels:
        yield (
            f"quantization.kernels is {q.kernels!r} with style 'tensorrt'; rule: it is of ONNX Runtime's kernels for "
            "CPUs; remove it"
        )
    if q.activation == "uint8":
        yield (
            "quantization.activation is 'uint8' with style 'tensorrt'; rule: TensorRT runs uint8 as int8, so values "
            "above 127 saturate; write activation = 'int8'"
        )
    if not q.symmetric:
        yield (
            "quantization.symmetric is false with style 'tensorrt'; rule: TensorRT accepts zero point 0 only; "
            "write symmetric = true"
        )
    if q.reduce_range:
        yield (
            "quantization.reduce_range is true with style 'tensorrt'; rule: it guards the 16-bit sums of x86 CPUs, and "
            "costs a TensorRT target a bit for nothing; write reduce_range = false"
        )
    if p.judge == "native":
        yield (
            f"judge is 'native' with kind {p.kind!r}; rule: this host's own INT8 kernels compute something else than "
            "TensorRT, so its graphs are judged in exact Q/DQ arithmetic; write judge = 'exact-qdq'"
        )


def _hardware(p: Profile) -> Iterator[str]:
    if p.kind == "cpu":
        for key, value in (
            ("compute_capability", p.compute_capability),
            ("sm_count", p.sm_count),
            ("dla.cores", p.dla.cores),
            ("sparsity_2_4", p.sparsity_2_4),
        ):
            if value:
                yield f"{key} is {value!r} but kind is 'cpu'; rule: a CPU has none; remove it"
    elif not p.compute_capability:
        yield f"compute_capability is '' but kind is {p.kind!r}; rule: engines are built for one; write it, as in '8.7'"
    if p.kind == "cpu" and set(p.backends) - {"onnxruntime-cpu"}:
        yield f"backends is {list(p.backends)} but kind is 'cpu'; rule: only 'onnxruntime-cpu' runs there; remove it"
    if p.engine_capabilities and p.compute_capability not in p.engine_capabilities:
        yield (
            f"engine_capabilities is {list(p.engine_capabilities)}, compute_capability {p.compute_capability!r}; "
            "rule: the engine runs on the hardware that the profile describes; add it"
        )
    if p.dla.cores and not (p.dla.version and p.dla.tensorrt_ranges):
        yield (
            f"dla.cores is {p.dla.cores} without dla.version or dla.tensorrt_ranges; rule: which TensorRT can use a "
            "DLA depends on both; write them"
        )
    if p.power_modes and p.power_mode not in p.power_modes:
        yield (
            f"power_mode is {p.power_mode!r}; rule: one of power_modes ({', '.join(p.power_modes)}); "
            "write the mode that the roofline describes"
        )


def _roofline(p: Profile) -> Iterator[str]:
    r = p.roofline
    if r.eff_compute_batch16 > 16 * r.eff_compute:
        yield (
            f"roofline.eff_compute_batch16 is {r.eff_compute_batch16} and eff_compute {r.eff_compute}; rule: at most "
            "16 times as much, or 16 images would take less time than one; correct the smaller one"
        )
    if p.kind == "cpu" and not r.cores:
        yield "roofline.cores is 0 but kind is 'cpu'; rule: peaks of a CPU say how many cores they count; write it"

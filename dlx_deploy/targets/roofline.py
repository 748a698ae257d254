"""A latency estimate from a layer list and a profile's peaks; a model of the machine, never a measurement.

Each fused layer takes as long as its arithmetic or its memory traffic needs, whichever is longer (the roofline of
Williams, Waterman and Patterson, CACM 2009), plus a fixed launch time:

    t = max(2 * MACs / (peak * eff_compute), bytes / (bandwidth * eff_memory)) + launch

Fusion is the caller's business: convolution, batch norm, activation and residual sum are one layer. Not modelled:
caches, TF32 (an FP32 layer counts at the FP32 peak), the DLA, 2:4 sparsity, and copies to and from the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.targets.profile import Precision, Profile, Roofline

__all__ = ["ANCHOR_ERROR", "NOT_MEASURED", "SPREAD", "Estimate", "LayerCost", "LayerEstimate", "estimate"]

NOT_MEASURED = "estimate (roofline, not measured)"
SPREAD = 0.5  # an uncalibrated roofline is off by 30 to 50 %
ANCHOR_ERROR = 0.164
"""The mean error of the profiles on MLPerf's ResNet-50 of eight boards (tests/targets/anchors.toml), at most 0.63."""
LARGE_BATCH = 16  # from here on eff_compute_batch16 holds


class LayerCost(msgspec.Struct, frozen=True, kw_only=True):
    """One fused layer for one image; bytes are at the layer's own dtype, a residual input included."""

    name: str
    op: str
    macs: int  # multiply-accumulates
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    dtype: Precision
    memory_bound: bool = False  # depthwise, elementwise, pooling: only the memory term counts

    def __post_init__(self) -> None:
        for key in ("macs", "weight_bytes", "input_bytes", "output_bytes"):
            if getattr(self, key) < 0:
                raise ConfigError(f"layer {self.name!r}: {key} is {getattr(self, key)}; rule: 0 or more")


class LayerEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one layer goes: ``time_ms`` is the larger of the two terms plus the launch."""

    name: str
    op: str
    dtype: Precision
    time_ms: float
    compute_ms: float
    memory_ms: float
    launch_ms: float
    bound: Literal["compute", "memory", "launch"]  # the largest of the three


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The time for one batch, its range, and the shares of it (they add up to 1)."""

    label: str
    target: str
    power_mode: str
    batch: int
    latency_ms: float
    low_ms: float
    high_ms: float
    compute_share: float
    memory_share: float
    launch_share: float
    layers: tuple[LayerEstimate, ...]


def estimate(layers: Sequence[LayerCost], profile: Profile, batch: int = 1) -> Estimate:
    """What the roofline of ``profile`` says for ``batch`` images through ``layers``, one after the other.

    Raises:
        ConfigError: no layers, a batch below 1, or a layer in a precision that the target has no unit for.
    """
    if not layers:
        raise ConfigError("a roofline estimate needs at least one layer; the list is empty")
    if batch < 1:
        raise ConfigError(f"batch is {batch}; rule: 1 or more")
    rows = tuple(_row(layer, profile, batch) for layer in layers)
    total = sum(row.time_ms for row in rows)
    return Estimate(
        label=NOT_MEASURED,
        target=profile.name,
        power_mode=profile.power_mode,
        batch=batch,
        latency_ms=total,
        low_ms=total * (1 - SPREAD),
        high_ms=total * (1 + SPREAD),
        compute_share=_share((r.compute_ms for r in rows if r.compute_ms >= r.memory_ms), total),
        memory_share=_share((r.memory_ms for r in rows if r.compute_ms < r.memory_ms), total),
        launch_share=_share((r.launch_ms for r in rows), total),
        layers=rows,
    )


def _row(layer: LayerCost, profile: Profile, batch: int) -> LayerEstimate:
    roof = profile.roofline
    traffic = layer.weight_bytes + batch * (layer.input_bytes + layer.output_bytes)
    memory_ms = traffic / (roof.memory_gb_per_s * 1e9 * roof.eff_memory) * 1e3
    compute_ms = 0.0 if layer.memory_bound else _compute_ms(layer, profile, batch)
    launch_ms = roof.launch_us / 1e3
    terms: dict[Literal["compute", "memory", "launch"], float] = {
        "compute": compute_ms,
        "memory": memory_ms,
        "launch": launch_ms,
    }
    return LayerEstimate(
        name=layer.name,
        op=layer.op,
        dtype=layer.dtype,
        time_ms=max(compute_ms, memory_ms) + launch_ms,
        compute_ms=compute_ms,
        memory_ms=memory_ms,
        launch_ms=launch_ms,
        bound=max(terms, key=lambda term: terms[term]),
    )


def _compute_ms(layer: LayerCost, profile: Profile, batch: int) -> float:
    peak_tera = profile.roofline.peak_tera(layer.dtype)
    if not peak_tera:
        raise ConfigError(
            f"layer {layer.name!r} is {layer.dtype}, for which {profile.name} has no peak; "
            f"its precisions: {', '.join(profile.precisions)}"
        )
    return 2 * layer.macs * batch / (peak_tera * 1e12 * _efficiency(profile.roofline, batch)) * 1e3


def _efficiency(roof: Roofline, batch: int) -> float:
    """Linear between batch 1 and batch 16, so that a larger batch never takes less time."""
    part = min(batch - 1, LARGE_BATCH - 1) / (LARGE_BATCH - 1)
    return roof.eff_compute + part * (roof.eff_compute_batch16 - roof.eff_compute)


def _share(terms_ms: Iterable[float], total_ms: float) -> float:
    return sum(terms_ms) / total_ms if total_ms else 0.0

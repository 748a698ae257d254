"""How far an output may be from its golden value on another runtime: a share of the largest, by precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlx_deploy.runtime.tasks.arrays import Tolerance
    from dlx_deploy.runtime.untyped import Array, JsonTable

__all__ = ["relative", "share_of", "tolerance_of"]

RTOL = 1e-3
FLOAT_SHARE = 2e-4
"""The self-test's tolerance for FP32, as a share of the largest golden logit: another CPU sums in another order, which
moved logits by up to 2e-6 of it (ResNet-18, MobileNet-V2); no version of ONNX Runtime from 1.17 to 1.32 moved any."""
HALF_SHARE = 0.01
"""For FP16: eleven bits per step, and sums in another order or, in an engine, in FP16."""
INT8_SHARE = 0.05
"""For INT8 on any kernels: where sums differ in the last bit, a value on the edge is rounded to the next step. Measured
4.8e-2 (ResNet-18). The task's own answer must agree in any case.
FP8, whose steps at its ends are larger, and BF16, which has 8 bits, three less than FP16, likewise."""
EXACT_SHARE = 0.005
"""For FP16 and INT8 in exact arithmetic, at least. Convolutional networks: no version moved a logit, bending what is
not exactly defined by up to 2.1e-3."""
SAFETY = 2.0
"""Times what bending did to the logits of this model. A ViT: bending 3.2e-2, ONNX Runtime 1.28 against 1.32 2.4e-2."""


def share_of(recipe: JsonTable) -> float:
    """The tolerance on whatever runs the package, as a share of the largest golden logit."""
    half = "fp16" in (recipe["precision"], recipe["elsewhere"])
    return INT8_SHARE if recipe["precision"] in ("int8", "fp8", "bf16") else HALF_SHARE if half else FLOAT_SHARE


def tolerance_of(recipe: JsonTable, golden: Array, moved: float | None) -> Tolerance:
    """That of one output; ``moved``: by what share bending moved it, where the judge is exact arithmetic.

    Whole numbers have none: half a class is no class, and a share of the largest one would let its neighbours pass.
    """
    from dlx_deploy.runtime.tasks.arrays import Tolerance

    if golden.dtype.kind != "f":
        return Tolerance(0.0, 0.0)
    largest = _largest(golden)
    exact = None if moved is None else _exact_share(recipe, moved) * largest
    return Tolerance(share_of(recipe) * largest, RTOL, exact)


def relative(tolerance: Tolerance, golden: Array, exact: bool) -> float:
    """The tolerance as a share of the largest golden value, at least ``RTOL``."""
    return max(tolerance.on(exact).atol / max(_largest(golden), 1e-12), RTOL)


def _largest(values: Array) -> float:
    import numpy as np

    return float(np.abs(values.astype(np.float64)).max())  # in int8, abs(-128) is -128


def _exact_share(recipe: JsonTable, moved: float) -> float:
    """The tolerance in exact arithmetic, where bending moved logits by ``moved`` of the largest."""
    return min(max(EXACT_SHARE, SAFETY * moved), share_of(recipe))

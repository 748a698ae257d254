"""The tables of what is shipped: how it is verified, its budgets, its package, the search for a better one."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from dlx_deploy.config.strict import Table
from dlx_deploy.config.values import AtLeastOne, Fraction, Section
from dlx_deploy.runtime.device_budgets import DeviceBudgets

__all__ = [
    "Gate",
    "Package",
    "Search",
    "Verify",
]


class Verify(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Teacher against candidate on the test split, and latency where this machine is the target.

    ``rounds``: timings of each model at least; a budget of a percentile may take more. ``max_seconds``: no longer.
    ``calibration``: how far probabilities of what is shipped are off, and the temperature that brings them nearer.
    """

    rounds: AtLeastOne = 400
    max_seconds: Annotated[float, Meta(gt=0.0)] = 600.0
    threads: Annotated[int, Meta(ge=1, le=1024)] = 1
    calibration: bool = False


class Gate(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The budgets, by the task's metric. ``max_drop``: it may fall by so much (0.02 is two points), shown at
    ``confidence``.

    ``min_accuracy``: what is shipped must reach so much; 0: no floor, and then the teacher must be clearly better than
    one answer to everything, unless ``allow_chance``. ``max_flips``: the share of answers that may be others than the
    teacher's, right or wrong; 0: any. ``max_class_drop``: as ``max_drop``, of each class by itself; 0: no budget.
    ``max_slice_drop``: of each slice of ``data.slices``; ``slices``: of single ones, by ``COLUMN=VALUE``.
    ``min_throughput``: samples a second, given ``throughput_batch`` at a time; ``max_memory_mib``: of the process that
    runs the package; ``max_size_mib``: of its file; ``max_energy_mj``: of one inference, beyond idle;
    ``max_cold_start_ms``: the median time of a fresh process to its first answer.
    ``metric``: one of the task's (docs/guide/gates.md); "": its own.

    ``baseline``: the package that was released before (``{target}`` in its path: a target's name); against it the
    metric may fall by ``max_regression``.
    """

    metric: str = ""
    max_drop: Fraction = 0.02
    min_accuracy: Fraction = 0.0
    allow_chance: bool = False
    max_flips: Fraction = 0.0
    max_class_drop: Fraction = 0.0
    max_slice_drop: Fraction = 0.0
    slices: dict[str, Fraction] = field(default_factory=dict)
    baseline: str = ""
    max_regression: Fraction | Literal["max_drop"] = "max_drop"
    confidence: Annotated[float, Meta(ge=0.5, lt=1.0)] = 0.95
    max_latency_p50_ms: Annotated[float, Meta(ge=0.0)] = 0.0
    max_latency_p90_ms: Annotated[float, Meta(ge=0.0)] = 0.0
    max_latency_p99_ms: Annotated[float, Meta(ge=0.0)] = 0.0
    min_throughput: Annotated[float, Meta(ge=0.0)] = 0.0
    throughput_batch: Annotated[int, Meta(ge=1, le=65_536)] = 1
    max_memory_mib: Annotated[float, Meta(ge=0.0)] = 0.0
    max_size_mib: Annotated[float, Meta(ge=0.0)] = 0.0
    max_energy_mj: Annotated[float, Meta(ge=0.0)] = 0.0
    max_cold_start_ms: Annotated[float, Meta(ge=0.0)] = 0.0

    @property
    def device_budgets(self) -> DeviceBudgets:
        """What the machine that runs the package decides, but for its size."""
        return DeviceBudgets(
            min_throughput=self.min_throughput,
            throughput_batch=self.throughput_batch,
            max_memory_mib=self.max_memory_mib,
            max_size_mib=self.max_size_mib,
            max_energy_mj=self.max_energy_mj,
            max_cold_start_ms=self.max_cold_start_ms,
        )

    @property
    def latency_budgets(self) -> dict[int, float]:
        """The budgets of latency that are set, in milliseconds, by percentile."""
        limits = {50: self.max_latency_p50_ms, 90: self.max_latency_p90_ms, 99: self.max_latency_p99_ms}
        return {percentile: limit for percentile, limit in limits.items() if limit}


class Package(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``.dlx`` file."""

    golden_images: AtLeastOne = 8
    parity_samples: Annotated[int, Meta(ge=0, le=10_000)] = 512
    deflate: bool = False


class Search(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``dlx-deploy search`` tries, and what a report says of it; no build rests on it.

    ``space``: key of the configuration → a list of choices, two numbers, which are a range, or a table of ``choice`` or
    of ``low``, ``high`` and maybe ``step`` or ``log``. A trial is stopped where a network on its way is worse than the
    budgets by more than ``slack``. ``choose``: of the trials that meet all budgets, the best by that;
    "energy" where this machine is the target and measures it. ``study`` and ``trial``: of which a search made this
    configuration; "": of none.
    """

    space: Table = field(default_factory=dict)
    choose: Literal["latency", "accuracy", "size", "energy"] = "latency"
    slack: Fraction = 0.05
    max_size_mib: Annotated[float, Meta(ge=0.0)] = 0.0
    study: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._+-]*)?$", max_length=200)] = ""
    trial: Annotated[int, Meta(ge=-1)] = -1

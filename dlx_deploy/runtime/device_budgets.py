"""Budgets of a package that the machine which runs it decides, but for its size; 0 is no budget."""

from __future__ import annotations

from typing import Dict, Mapping, Optional, Tuple

from .records import record

__all__ = ["LIMITS", "NO_BUDGETS", "PERCENTILES", "DeviceBudgets"]

PERCENTILES = (50, 90, 99)
"""Those of a latency that are told, and that a budget may be set for."""
LIMITS: Tuple[str, ...] = ("min_throughput", "max_memory_mib", "max_size_mib", "max_energy_mj", "max_cold_start_ms")


@record
class DeviceBudgets:
    """``min_throughput``: samples a second, given ``throughput_batch`` at a time. ``max_memory_mib``: the peak of the
    process that runs the package. ``max_size_mib``: of the package's file. ``max_energy_mj``: of one inference, beyond
    what the machine takes idle. ``max_cold_start_ms``: the median from the start of a process to its first answer."""

    min_throughput: float = 0.0
    throughput_batch: int = 1
    max_memory_mib: float = 0.0
    max_size_mib: float = 0.0
    max_energy_mj: float = 0.0
    max_cold_start_ms: float = 0.0

    @property
    def is_set(self) -> bool:
        """Whether there is any."""
        return any(getattr(self, name) for name in LIMITS)

    def with_given(
        self, throughput_batch: Optional[int] = None, limits: Optional[Mapping[str, Optional[float]]] = None
    ) -> DeviceBudgets:
        """The same, with what was given in its place."""
        given = {name: value for name, value in (limits or {}).items() if value is not None}
        batch = self.throughput_batch if throughput_batch is None else throughput_batch
        own = {name: getattr(self, name) for name in LIMITS}
        return DeviceBudgets(throughput_batch=batch, **{**own, **given})

    def to_dict(self) -> Dict[str, float]:
        """Those that are set, as ``package.json`` has them."""
        given = {name: value for name, value in vars(self).items() if value}
        if not self.min_throughput:
            given.pop("throughput_batch")
        return given


NO_BUDGETS = DeviceBudgets()

"""Sensors as counters of joules: those that count energy themselves, and those that say power, which is integrated."""

from __future__ import annotations

from typing import Callable, Optional, Protocol

__all__ = ["Channel", "EnergyCounter", "PowerRail", "SensorError"]


class SensorError(Exception):
    """Raised when a sensor that was found cannot be read, or says what is no number."""


class Channel(Protocol):
    """One sensor."""

    @property
    def name(self) -> str:
        """How the hardware calls it, for instance ``VDD_IN`` or ``package-0``."""

    def joules(self, now_s: float) -> float:
        """The energy since it was first asked.

        Raises:
            SensorError: it cannot be read.
        """


class PowerRail:
    """A sensor of power in watts; between two readings it is taken to change evenly (trapezoids)."""

    def __init__(self, name: str, watts: Callable[[], float]) -> None:
        self.name = name
        self._watts = watts
        self._last: Optional[float] = None
        self._at_s = self._joules = 0.0

    def joules(self, now_s: float) -> float:
        """The integral so far."""
        watts = self._watts()
        if self._last is not None:
            self._joules += (now_s - self._at_s) * (self._last + watts) / 2
        self._last, self._at_s = watts, now_s
        return self._joules


class EnergyCounter:
    """A sensor that counts energy in ``unit_j`` and begins at 0 again behind ``most`` (``None``: it never does)."""

    def __init__(self, name: str, count: Callable[[], int], unit_j: float, most: Optional[int] = None) -> None:
        self.name = name
        self._count, self._unit_j, self._most = count, unit_j, most
        self._last: Optional[int] = None
        self._joules = 0.0

    def joules(self, now_s: float) -> float:
        """What was counted so far. A counter that is lower than before has wrapped around once."""
        count = self._count()
        if self._last is not None:
            grown = count - self._last
            if grown < 0 and self._most is None:
                raise SensorError(f"the counter of {self.name} went back from {self._last} to {count}")
            self._joules += (grown if grown >= 0 else grown + (self._most or 0) + 1) * self._unit_j
        self._last = count
        return self._joules

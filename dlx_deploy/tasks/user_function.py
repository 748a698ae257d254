"""A function of the user's that judges answers, as it is called: everything that it can get wrong is said.

It gets arrays with a row for each of m samples, by the task which ones, and weights float64[m], and gives one number,
0..1.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.user_code import executed, found_beside, sources_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlx_deploy.runtime.untyped import Array

    Rows = tuple[Array, ...]
    """Arrays of the same samples, a row for each."""
    Values = NDArray[np.float64]

__all__ = ["UserFunction"]

_CHECKS = 3
_SLACK = 1e-6
"""By so much weights may round otherwise than repeated samples."""


@dataclass(frozen=True)
class UserFunction:
    """``call`` as the user wrote it, called ``name`` in messages. ``takes``: its arguments, in words."""

    name: str
    call: Callable[..., object]
    takes: str

    @classmethod
    def loaded(cls, file: Path, function: str, name: str, takes: str) -> UserFunction:
        """From ``file``, which is run; what it imports from its own folder are modules in its key (``nn.user_code``).

        Raises:
            ConfigError: it fails, imports a package beside it, or what is called so is no function.
        """
        if packages := [one for one in found_beside(file) if "/" in one]:
            raise ConfigError(
                f"gate.metric is {name!r}: its file imports the package {packages[0]}, which lies beside it; only "
                "modules there, NAME.py, are read: make it one, or install it"
            )
        try:
            sources = sources_of(file)
        except OSError as e:
            raise ConfigError(
                f"gate.metric is {name!r}: its file, or one that it imports, cannot be read ({e.strerror}); put it back"
            ) from e
        try:
            module = executed(file, sources, "dlx_user_metric_")
        except (Exception, SystemExit) as e:  # the user's code: whatever it raises
            raise ConfigError(f"gate.metric is {name!r}: its file fails with {_told(e)}; mend it") from e
        call = getattr(module, function, None)
        if not callable(call):
            raise ConfigError(f"gate.metric is {name!r}: {function} is a {type(call).__name__}; must be a function")
        return cls(name, call, takes)

    def value(self, rows: Rows, weights: Values) -> float:
        """0..1, or NaN, of the samples that have a weight.

        Raises:
            ConfigError: it fails, or gives something else.
        """
        import numpy as np

        drawn = weights > 0
        given = (*(array[drawn] for array in rows), weights[drawn])
        for array in given:
            array.setflags(write=False)
        try:
            value = self.call(*given)
        except (Exception, SystemExit) as e:  # the user's code: whatever it raises
            raise self._wrong(f"fails with {_told(e)}", f"it gets {self.takes}") from e
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value[()]
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise self._wrong(f"gives a {type(value).__name__}", "must be one number")
        found = float(value)
        if np.isnan(found):
            return found
        if not -_SLACK <= found <= 1 + _SLACK:
            raise self._wrong(f"gives {found:g}", "must be 0 to 1, higher is better: scale it, or turn it round")
        return min(max(found, 0.0), 1.0)

    def check_weights(self, rows: Rows) -> None:
        """That a sample of weight 2 counts as two samples, whatever order they come in.

        Raises:
            ConfigError: it does not.
        """
        import numpy as np

        rng = np.random.default_rng(0)
        for _ in range(_CHECKS):
            weights = rng.integers(1, 4, len(rows[0]))
            often = rng.permutation(np.repeat(np.arange(len(rows[0])), weights))
            weighed = self.value(rows, weights.astype(np.float64))
            repeated = self.value(tuple(array[often] for array in rows), np.ones(len(often)))
            if not np.isclose(weighed, repeated, rtol=0, atol=_SLACK, equal_nan=True):
                raise self._wrong(
                    f"gives {weighed:.9g} of samples with weights and {repeated:.9g} where the samples come as often "
                    "as they weigh, in another order",
                    "must be the same: it must use its weights (sample_weight) and neither order nor chance",
                )

    def _wrong(self, seen: str, rule: str) -> ConfigError:
        return ConfigError(f"gate.metric is {self.name!r}: the function {seen}; {rule}")


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    shown = "".join(c for c in text if c.isprintable())[:200]
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__

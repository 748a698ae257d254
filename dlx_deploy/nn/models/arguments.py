"""The arguments that a configuration gives a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError

__all__ = ["refuse_unknown"]


def refuse_unknown(model: str, arguments: Mapping[str, Any], known: Iterable[str]) -> None:
    """Nothing, if ``model`` has all these ``arguments``.

    Raises:
        ConfigError: it does not; names the nearest.
    """
    names = list(known)
    for key, value in arguments.items():
        if key not in names:
            raise ConfigError(f"{model}: unknown argument {key!r} ({value!r}); {nearest(key, names)}")

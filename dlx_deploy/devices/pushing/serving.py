"""A package's service on a board: set up behind a push, taken away, or started anew as another release is current."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from dlx_deploy.devices.asking import Agent
from dlx_deploy.devices.measuring import Manners
from dlx_deploy.devices.pushing.locking import locked
from dlx_deploy.devices.pushing.service import Scope, Service, check_options, unit_name, unit_text
from dlx_deploy.errors import BoardUnfit, ConfigError
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.untyped import JsonTable

__all__ = ["Caretaker", "Serving", "read_serving"]

SERVES, NOTIFIES = "dlx_runtime/commands/serving.py", "dlx_runtime/watching/keeper.py"
"""Members of a package whose runtime has ``serve``, and of one that speaks to systemd."""
Say = Callable[[str], None]


class Serving(msgspec.Struct, frozen=True):
    """What is wished: a unit of the ``user`` or the ``system`` that runs ``serve`` with ``options``; ``none``: that
    there is none; empty: what there is runs the new release. ``notifies``: whether the package speaks to systemd."""

    scope: Literal["", "user", "system", "none"] = ""
    options: tuple[str, ...] = ()
    notifies: bool = True


def read_serving(package: Path, scope: str, options: tuple[str, ...]) -> Serving:
    """What the options of a command line mean for the file ``package``.

    Raises:
        ConfigError: another scope, an option that ``serve`` has not, or a package without ``serve``.
    """
    if scope not in ("user", "system"):
        raise ConfigError(f"--service is {scope!r}; must be user (no root needed) or system")
    check_options(options)
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist())
    if SERVES not in names:
        raise ConfigError(f"{package}: its runtime has no serve yet; build it again with this dlx-deploy")
    return Serving(scope, options, NOTIFIES in names)  # type: ignore[arg-type]


class Caretaker:
    """Sees to the service of one package on one board; changes go by the lock of the package's folder."""

    def __init__(self, agent: Agent, package: Package, serving: Serving, manners: Manners, say: Say) -> None:
        self._agent, self._package, self._serving = agent, package, serving
        self._manners, self._say, self._name = manners, say, unit_name(package.name)

    def check(self) -> None:
        """See that the board can have what is wished.

        Raises:
            BoardUnfit: systemd does not run it.
        """
        if self._serving.scope in ("user", "system") and not self._facts()["systemd"]:
            raise BoardUnfit(
                f"{self._agent.connection.name}: systemd does not run it, so it can have no unit; leave --service away "
                f"and start by what it has: python3 {self._agent.path}/current/package.dlx serve"
            )

    def text(self, python: str) -> str:
        """The unit that would be written, which runs ``python``; empty where none is wished."""
        if self._serving.scope not in ("user", "system"):
            return ""
        facts = self._facts()
        scope: Scope = "system" if self._serving.scope == "system" else "user"
        service = Service(
            package=self._package.name,
            root=str(facts["root"]),
            python=python,
            scope=scope,
            options=self._serving.options,
            user=str(facts["user"]),
            cache=str(facts["cache"]),
            memory_mib=self._package.device_budgets.max_memory_mib,
            notifies=self._serving.notifies,
        )
        return unit_text(service)

    def settle(self, python: str) -> str:
        """What is wished is so; in words, empty where there is no service and none is wished.

        Raises:
            BoardRefused: it does not stay up, or may not be written; its last words are in the message.
        """
        scope = self._serving.scope
        if not scope:
            return self.restart()
        text = self.text(python)
        with locked(self._agent, "sets the service up", self._manners, self._say) as held:
            if scope == "none":
                removed = self._agent.ask("remove-service", token=held.token, name=self._name)["removed"]
                return f"{', '.join(removed)} removed" if removed else "there was none"
            fields = {"token": held.token, "name": self._name, "scope": scope, "text": text}
            done = self._agent.ask("install-service", **fields)
        if not done["lingers"]:
            self._say(
                f"warning: {self._agent.connection.name}: the service ends with the last login of its user; let it run "
                "on with: sudo loginctl enable-linger $USER"
            )
        return f"{done['unit']} is {done['state']}"

    def restart(self) -> str:
        """The services that there are run what is current now; in words, empty where there is none."""
        told = [self._agent.ask("restart-service", name=self._name, scope=scope) for scope in self._facts()["services"]]
        return ", ".join(f"{one['unit']} is {one['state']}" for one in told)

    def _facts(self) -> JsonTable:
        return self._agent.ask("service-facts", name=self._name)

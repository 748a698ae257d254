"""The systemd unit that serves a package's current release on a board, as text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.words import line

__all__ = ["OPTIONS", "Scope", "Service", "check_options", "unit_name", "unit_text"]

Scope = Literal["user", "system"]
WATCHDOG_S = 60
"""How long a service may be silent: a start that builds no engine and a run of a large model take less."""
START_S = 300
"""Until it is ready: a first import and a session of a large model on a small board."""
OPTIONS = (
    *("--host", "--port", "--token-file", "--tls-cert", "--tls-key", "--insecure", "--max-batch", "--max-wait-ms"),
    *("--capacity", "--connections", "--max-body-mib", "--drain-s", "--log-json", "--watchdog-s", "--no-selftest"),
    *("--drift", "--drift-window", "--drift-every", "--threads", "--workers", "--backend", "--accept-hazards"),
)
"""What ``serve`` may be given in a unit, by name."""
_PLAIN = re.compile(r"[A-Za-z0-9_@/.,:=+-]+")
_UNIT = re.compile(r"[^A-Za-z0-9_.-]")


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What is served, and how. ``package``: its name; ``root``: the folder of its releases on the board, absolute;
    ``python``: the interpreter there; ``options``: of ``serve``; ``user``: who it runs as (scope ``system``);
    ``cache``: where engines are kept there; ``memory_mib``: its budget of memory, 0 for none; ``notifies``: whether
    its runtime speaks to systemd."""

    package: str
    root: str
    python: str
    scope: Scope = "user"
    options: tuple[str, ...] = ()
    user: str = ""
    cache: str = ""
    memory_mib: float = 0.0
    notifies: bool = True


def unit_name(package: str) -> str:
    """``dlx-deploy-NAME.service``; what no unit may be called becomes ``-``."""
    return f"dlx-deploy-{_UNIT.sub('-', package)[:200]}.service"


def check_options(options: Sequence[str]) -> None:
    """Refuses what ``serve`` does not know, so that a service does not fail for it on the board.

    Raises:
        ConfigError: a word that begins with ``-`` is none of its options.
    """
    from dlx_deploy.config.strict import nearest

    for word in options:
        name = word.partition("=")[0]
        if word.startswith("-") and name not in OPTIONS:
            raise ConfigError(f"--serve-options: {word!r} is no option of serve; {nearest(name, OPTIONS)}")


def unit_text(service: Service) -> str:
    """The unit. Its file system is read-only but for the cache of engines, so a service changes no release."""
    package = f"{service.root}/current/package.dlx"
    python = [service.python] if service.python.startswith("/") else ["/usr/bin/env", service.python]
    command = " ".join(map(_word, (*python, package, "serve", *service.options)))
    is_system = service.scope == "system"
    lines = [
        "# Written by dlx-deploy push --service; the next push writes it anew. Remove it with: push --no-service",
        "[Unit]",
        f"Description={_said(service.package)} (a package of dlx-deploy)",
        "After=network.target",
        "StartLimitIntervalSec=300",
        "StartLimitBurst=5",
        "",
        "[Service]",
        f"Type={'notify' if service.notifies else 'simple'}",
        f"ExecStart={command}",
        f"WorkingDirectory={_path(service.root)}",
        *([f"User={_said(service.user)}"] if is_system else []),
        "Environment=PYTHONUNBUFFERED=1",
        "Restart=on-failure",
        "RestartSec=2",
        f"TimeoutStartSec={START_S}",
        "TimeoutStopSec=30",
        *([f"WatchdogSec={WATCHDOG_S}"] if service.notifies else []),
        *_memory(service.memory_mib),
        *_HARDENED,
        *([f"ReadWritePaths={_quoted('-' + service.cache)}"] if service.cache else []),
        *(_HARDENED_SYSTEM if is_system else []),
        "",
        "[Install]",
        f"WantedBy={'multi-user' if is_system else 'default'}.target",
    ]
    return "\n".join(lines) + "\n"


_HARDENED = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateTmp=yes",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "UMask=0077",
)
"""No device is hidden (a Jetson's GPU is one), and memory may be made executable (CUDA compiles). Without privileges
a user's manager leaves out what needs a file system of its own."""
_HARDENED_SYSTEM = (
    "CapabilityBoundingSet=",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
)


def _memory(budget_mib: float) -> list[str]:
    """Above its budget a service is slowed down to give memory back, and at half as much again it is ended: the budget
    counts the package alone, and a server holds requests as well."""
    if not budget_mib:
        return []
    return [f"MemoryHigh={math.ceil(budget_mib)}M", f"MemoryMax={math.ceil(1.5 * budget_mib)}M"]


def _word(text: str) -> str:
    """``text`` as one word of ``ExecStart=``, which knows quotes, ``%`` and ``$``."""
    return _quoted(text.replace("$", "$$"))


def _quoted(text: str) -> str:
    """``text`` as one word of a list.

    Raises:
        ConfigError: it has a control character, of which another line could be made.
    """
    if line(text) != text:
        raise ConfigError(f"{line(text)!r} has a control character; no unit can hold it")
    text = text.replace("%", "%%")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _path(text: str) -> str:
    """A path that is a line's whole value: no quotes there."""
    return line(text).replace("%", "%%")


def _said(text: str) -> str:
    """Words for people: on one line, and ``%`` is itself."""
    return line(text).replace("%", "%%")

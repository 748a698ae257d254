"""A systemd unit on the board: written, started, told of, and taken away again.

A user's unit lies in ``~/.config/systemd/user`` and runs without a login only where lingering is on for the user; a
system's lies in ``/etc/systemd/system`` and needs root, or a ``sudo`` that asks for no password.
"""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from typing import List, Tuple

from .files import Refusal, Table, field_root, field_text, read_text, write
from .lock import guarded

__all__ = ["install_service", "remove_service", "restart_service", "service_facts"]

SYSTEM_UNITS = "/etc/systemd/system"
BOOTED = "/run/systemd/system"
"""There where systemd runs the machine (sd_booted)."""
MOST_UNIT = 64 << 10
CALL_S, SETTLE_S = 320, 3.0
WORDS = 600


def service_facts(asked: Table) -> Table:
    """Whether systemd runs this board, who the user is, and where engines are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    root = field_root(asked)
    return {
        "root": root,
        "systemd": os.path.isdir(BOOTED) and shutil.which("systemctl") is not None,
        "user": _user(),
        "cache": os.path.join(cache, "dlx-deploy"),
        "services": [scope for scope in ("user", "system") if os.path.exists(_place(scope, _unit(asked)))],
    }


def install_service(asked: Table) -> Table:
    """Writes the unit ``name`` with ``text``, has it started at every boot, and starts it anew now.

    Raises:
        Refusal: no systemd, no right, or the service does not stay up: its last words are told.
    """
    root, name, scope, text = field_root(asked), _unit(asked), _scope(asked), field_text(asked, "text")
    if len(text) > MOST_UNIT:
        raise Refusal("question", "text has %d characters; at most %d" % (len(text), MOST_UNIT))
    _refuse_without_systemd()
    with guarded(root, field_text(asked, "token")):
        changed = read_text(_place(scope, name)) != text.strip()
        if changed:
            _put(scope, name, text)
        _systemctl(scope, "daemon-reload")
        _systemctl(scope, "enable", name)
    return dict(restart_service(asked), changed=changed, lingers=scope == "system" or _lingers())


def restart_service(asked: Table) -> Table:
    """Starts the service ``name`` anew, and looks a moment later whether it is up.

    Raises:
        Refusal: it is not.
    """
    name, scope = _unit(asked), _scope(asked)
    _refuse_without_systemd()
    code, said = _call(scope, ["systemctl", "restart", name])
    if code == 0:
        time.sleep(SETTLE_S)
        code, said = _call(scope, ["systemctl", "is-active", name], root=False)
    if code != 0:
        unit = "--unit" if scope == "system" else "--user-unit"
        _, log = _call(scope, ["journalctl", unit, name, "-n", "5", "-o", "cat"])
        words = " | ".join((log or said).strip().split("\n"))[-WORDS:]
        raise Refusal("service-down", "%s does not stay up: %s" % (name, words), {"unit": _place(scope, name)})
    return {"unit": _place(scope, name), "state": said.strip()}


def remove_service(asked: Table) -> Table:
    """Stops the service ``name`` and takes its unit away; ``removed`` says whether there was one."""
    root, name = field_root(asked), _unit(asked)
    removed = []
    with guarded(root, field_text(asked, "token")):
        for scope in ("user", "system"):
            place = _place(scope, name)
            if os.path.exists(place):
                _refuse_without_systemd()
                _systemctl(scope, "disable", "--now", name)
                _allowed(scope, ["rm", "-f", place])
                _systemctl(scope, "daemon-reload")
                removed.append(place)
    return {"removed": removed}


def _unit(asked: Table) -> str:
    name = field_text(asked, "name")
    if not re.match(r"dlx-deploy-[A-Za-z0-9_.-]{1,200}\.service\Z", name):
        raise Refusal("question", "name is %r; must be dlx-deploy-NAME.service" % name)
    return name


def _scope(asked: Table) -> str:
    scope = field_text(asked, "scope")
    if scope not in ("user", "system"):
        raise Refusal("question", "scope is %r; must be user or system" % scope)
    return scope


def _place(scope: str, name: str) -> str:
    if scope == "system":
        return os.path.join(SYSTEM_UNITS, name)
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(config, "systemd", "user", name)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a number without a name
        return str(os.getuid())


def _refuse_without_systemd() -> None:
    if not os.path.isdir(BOOTED) or not shutil.which("systemctl"):
        text = "systemd does not run this board, so it can have no unit; start packages by what it has: "
        raise Refusal("no-systemd", text + "python3 PATH/current/package.dlx serve")


def _put(scope: str, name: str, text: str) -> None:
    place = _place(scope, name)
    if scope == "user" or os.access(os.path.dirname(place), os.W_OK):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        write(place, text.encode("utf-8"))
        return
    handle, aside = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
        _allowed(scope, ["install", "-m", "644", "-o", "root", "-g", "root", aside, place])
    finally:
        os.unlink(aside)


def _systemctl(scope: str, *words: str) -> None:
    _allowed(scope, ["systemctl", *words])


def _allowed(scope: str, command: List[str]) -> None:
    code, said = _call(scope, command)
    if code != 0:
        if "password is required" in said or "sudo: not found" in said or "no sudo" in said:
            text = (
                "a system unit needs root, and sudo asks %s for a password; log in as root, or use a unit of the user"
            )
            raise Refusal("not-root", text % _user())
        words = " | ".join(said.strip().split("\n"))[-WORDS:]
        raise Refusal("systemd", "%s ended with exit code %d: %s" % (" ".join(command), code, words))


def _call(scope: str, command: List[str], root: bool = True) -> Tuple[int, str]:
    """How a command ended and what it said, by whoever may run it."""
    environ = dict(os.environ, LC_ALL="C", SYSTEMD_COLORS="0", SYSTEMD_PAGER="")
    if scope == "user":
        environ.setdefault("XDG_RUNTIME_DIR", "/run/user/%d" % os.getuid())
        if command[0] == "systemctl":
            command = ["systemctl", "--user", *command[1:]]
    elif root and os.getuid() != 0 and not os.access(SYSTEM_UNITS, os.W_OK):
        command = ["sudo", "-n", *command]
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CALL_S,
        )
    except FileNotFoundError:
        return 127, "%s: not found" % command[0]
    except subprocess.TimeoutExpired:
        return 124, "%s has not ended for %d s" % (command[0], CALL_S)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _lingers() -> bool:
    """Whether the user's services run without a login, now that it was asked for."""
    code, said = _call("user", ["loginctl", "show-user", _user(), "--property=Linger"])
    if code == 0 and "=yes" in said:
        return True
    return _call("user", ["loginctl", "enable-linger"])[0] == 0

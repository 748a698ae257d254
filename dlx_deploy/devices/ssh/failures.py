"""Why ssh did not get through, by what it says of it, and what to do."""

from __future__ import annotations

import re

from dlx_deploy.errors import BoardError, BoardLost, BoardUnreachable
from dlx_deploy.runtime.words import line

__all__ = ["last_words", "lost", "unreachable"]

REASONS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one known of it: another machine answers, or it was installed anew",
        "compare its fingerprint on its console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); if it is right, "
        "forget the old key: ssh-keygen -R {host}",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "its host key is not known here",
        "log in once by hand (ssh {host}), compare the fingerprint, and accept it",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "it refuses the user or the key",
        "try ssh {host} by hand; ssh-copy-id {host} brings a key there, ssh-add -l lists those at hand",
    ),
    (
        r"Could not resolve hostname",
        "its name is not known",
        "correct the name, or give its number or a Host of ~/.ssh/config",
    ),
    (r"Connection refused", "no ssh server listens there", "start sshd on it, or correct the port"),
    (r"No route to host|Network is unreachable", "there is no route to it", "see that it is on, and on this network"),
    (
        r"[Tt]imed out|[Tt]imeout",
        "it does not answer",
        "see that it is on and reachable (ping {host}), and that no firewall drops the port",
    ),
    (
        r"Bad owner or permissions|[Bb]ad configuration option|Can't open user config|bad configuration",
        "ssh's own configuration cannot be used",
        "correct the file that it names",
    ),
    (
        r"kex_exchange_identification|Connection (closed|reset) by|banner exchange",
        "it hung up before the login",
        "see its sshd's log: too many logins at once, a block after failed ones, or no ssh server on that port",
    ),
)


def last_words(stderr: str) -> str:
    """The last line that says something, safe for a terminal; empty if there is none."""
    lines = [text.strip() for text in stderr.replace("\r", "\n").splitlines() if text.strip()]
    return line(lines[-1]) if lines else ""


def unreachable(name: str, host: str, stderr: str) -> BoardUnreachable:
    """The error of a login at ``name`` that did not come about; ``host``: as ssh is told it, for the remedy."""
    for words, reason, remedy in REASONS:
        if re.search(words, stderr):
            said = next(line(text.strip()) for text in stderr.splitlines() if re.search(words, text))
            return BoardUnreachable(
                f"{name} cannot be reached: {reason} ({said.strip('@ ')}); {remedy.format(host=host)}"
            )
    said = last_words(stderr) or "it says nothing"
    return BoardUnreachable(f"{name} cannot be reached: ssh says: {said}; try ssh {host} by hand")


def lost(name: str, during: str, stderr: str) -> BoardError:
    """The error of a connection to ``name`` that broke off ``during`` something."""
    said = last_words(stderr)
    return BoardLost(
        f"The connection to {name} broke off {during}{f' ({said})' if said else ''}; see that it is on and that the "
        "network holds, then run the same command again"
    )

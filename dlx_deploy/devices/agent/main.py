"""One question, one answer."""

from typing import Callable, Dict

from .facts import facts
from .files import Refusal, Table, fault_of
from .lock import lock, unlock, working
from .measuring import measure, release
from .overview import overview
from .releases import activate, install, mark, partial, prune, releases, rollback
from .units import install_service, remove_service, restart_service, service_facts
from .wheels import environment, use_environment

__all__ = ["COMMANDS", "answer"]

COMMANDS: Dict[str, Callable[[Table], Table]] = {
    "facts": facts,
    "partial": partial,
    "install": install,
    "mark": mark,
    "activate": activate,
    "releases": releases,
    "rollback": rollback,
    "prune": prune,
    "lock": lock,
    "unlock": unlock,
    "working": working,
    "environment": environment,
    "use-environment": use_environment,
    "service-facts": service_facts,
    "install-service": install_service,
    "restart-service": restart_service,
    "remove-service": remove_service,
    "overview": overview,
    "measure": measure,
    "release": release,
}


def answer(asked: Table) -> Table:
    """What the board says to a question: its answer, or its refusal in words."""
    command = COMMANDS.get(str(asked.get("command")))
    if command is None:
        text = "command is %r; must be one of %s" % (asked.get("command"), ", ".join(COMMANDS))
        return {"fault": {"kind": "question", "text": text}}
    try:
        return {"ok": command(asked)}
    except Refusal as e:
        return {"fault": e.to_table()}
    except OSError as e:
        return {"fault": fault_of(e).to_table()}

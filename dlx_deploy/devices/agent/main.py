"""One question, one answer."""

from typing import Callable, Dict

from .facts import facts
from .files import Refusal, Table, fault_of
from .lock import lock, unlock, working
from .measuring import measure, release
from .overview import overview
from .releases import activate, finish, install, mark, partial, prune, releases, rollback
from .units import install_service, remove_service, restart_service, service_facts
from .wheels import environment, use_environment

__all__ = ["COMMANDS", "answer", "look", "take"]


def look(asked: Table) -> Table:
    """All that a push asks before it begins: the board, what there is of the package, and the releases."""
    return {"facts": facts(asked), "partial": partial(asked), "releases": releases(asked)}


def take(asked: Table) -> Table:
    """The lock, and what there is by then of the package that it is taken for, if for one."""
    taken = lock(asked)
    return dict(taken, partial=partial(asked)) if asked.get("digest") else taken


COMMANDS: Dict[str, Callable[[Table], Table]] = {
    "facts": facts,
    "look": look,
    "partial": partial,
    "install": install,
    "mark": mark,
    "activate": activate,
    "finish": finish,
    "releases": releases,
    "rollback": rollback,
    "prune": prune,
    "lock": take,
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

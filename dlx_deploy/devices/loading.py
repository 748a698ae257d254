"""Several modules as one source, as a board's Python is sent it: none of them becomes a file there."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["one_source"]

LOADER = """\
import sys, types
from importlib import import_module
def load(package, sources):
    for name, source in sources:
        full = package + "." + name
        above = full.split(".")[:-1]
        for depth in range(1, len(above) + 1):
            room = ".".join(above[:depth])
            if room not in sys.modules:
                sys.modules[room] = types.ModuleType(room)
                sys.modules[room].__path__ = []
        module = sys.modules[full] = types.ModuleType(full)
        module.__package__ = ".".join(above)
        exec(compile(source, full.replace(".", "/") + ".py", "exec"), module.__dict__)
load(PACKAGE, SOURCES)
"""


def one_source(package: str, sources: Mapping[str, str], last: str = "") -> str:
    """A source that has the modules ``sources`` of ``package``, each by its dotted name and after those that it
    imports; then it does ``last``. In the syntax of Python 3.6.

    The names of a package that is in ``sys.modules`` already are replaced by these.
    """
    return f"PACKAGE = {package!a}\nSOURCES = {list(sources.items())!a}\n{LOADER}{last}"

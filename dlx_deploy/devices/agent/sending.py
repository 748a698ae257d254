"""The agent as one source, as a board's Python is sent it: it defines ``main``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["agent_source"]

MODULES = ("files", "facts", "lock", "layout", "releases", "measuring", "overview", "wheels", "units", "main")
"""In the order in which they import one another."""
LOADER = """\
import sys, types
def load(sources):
    package = sys.modules["dlx_agent"] = types.ModuleType("dlx_agent")
    package.__path__ = []
    for name, source in sources:
        module = sys.modules["dlx_agent." + name] = types.ModuleType("dlx_agent." + name)
        module.__package__ = "dlx_agent"
        exec(compile(source, "dlx_agent/%s.py" % name, "exec"), module.__dict__)
    return module.answer
main = load(SOURCES)
"""


@cache
def agent_source() -> str:
    """Standard library alone, in the syntax of Python 3.6; ``main(question)`` gives the answer, both plain tables."""
    sources = [(name, (files(__package__) / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES]
    return f"SOURCES = {sources!a}\n{LOADER}"

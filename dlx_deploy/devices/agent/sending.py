"""The agent as one source, as a board's Python is sent it: it defines ``main``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from dlx_deploy.devices.loading import one_source

__all__ = ["agent_source"]

MODULES = ("files", "facts", "lock", "layout", "releases", "measuring", "overview", "wheels", "units", "main")
"""In the order in which they import one another."""
MAIN = 'main = import_module("dlx_agent.main").answer\n'


@cache
def agent_source() -> str:
    """Standard library alone, in the syntax of Python 3.6; ``main(question)`` gives the answer, both plain tables."""
    sources = {name: (files(__package__) / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    return one_source("dlx_agent", sources, MAIN)

"""This copy of the runtime under the name that other packages import: a device runs the one inside the package.

Without it a task of another package would bring a second copy, of whatever version is installed, whose errors are not
those that are caught here; and dlx-deploy would have to be installed.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Dict, Optional, Sequence

__all__ = ["INSTALLED", "alias_runtime"]

ABOVE = "dlx_deploy"
INSTALLED = f"{ABOVE}.runtime"
"""What the runtime is called where dlx-deploy is installed."""


def alias_runtime() -> None:
    """Makes every import of ``dlx_deploy.runtime`` give this copy, if it has another name and none is imported yet."""
    own = __package__ or ""
    if own == INSTALLED or INSTALLED in sys.modules:
        return
    if find_spec(ABOVE) is None:
        sys.modules[ABOVE] = ModuleType(ABOVE)
        sys.modules[ABOVE].__path__ = []
    sys.meta_path.insert(0, _Aliases(own))


class _Aliases(MetaPathFinder, Loader):
    """Finds modules of ``own`` by their names below ``INSTALLED``."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._specs: Dict[str, Optional[ModuleSpec]] = {}

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        """The module of that name here, if it is one of ours."""
        return ModuleSpec(fullname, self) if f"{fullname}.".startswith(f"{INSTALLED}.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, not another one of the same source."""
        module = import_module(self._own + spec.name[len(INSTALLED) :])
        self._specs[module.__name__] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run; the import system has written the other name into the module, which relative imports use."""
        module.__spec__ = self._specs.pop(module.__name__)

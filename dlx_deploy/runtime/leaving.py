"""The end of a process that has answered: nothing is taken down that ends with it anyway.

Python clears every module of numpy and ONNX Runtime and looks for garbage in them before it ends, and their libraries
free what they hold: a fifth of the time of a bare script that asks for one answer.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn

__all__ = ["leave"]


def leave(code: int) -> NoReturn:
    """Ends the process with ``code``, at once where nobody but Python itself would go on after it.

    What was registered to be done at the end is done, and all that was printed is written. ``sys.exit`` is what ends it
    where code of somebody runs the package (``runpy``, a debugger), threads are to be waited for, Python is asked to go
    on (``-i``) or to tell what is left open (``-X dev``), or something cannot be written.
    """
    if os.name == "posix" and not (sys.flags.inspect or sys.flags.dev_mode or _is_called() or _has_threads()):
        with contextlib.suppress(BaseException):  # said on stderr, and passed over by Python too
            atexit._run_exitfuncs()
        with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):
            from ctypes import pythonapi  # numpy has it imported

            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            pythonapi.fflush(None)  # what libraries of C have printed
            os._exit(code)
    sys.exit(code)


def _is_called() -> bool:
    """Whether the main module, which called ``leave``, was run by more than Python's own start."""
    frame = sys._getframe(2).f_back
    while frame is not None and frame.f_globals.get("__name__") == "runpy":
        frame = frame.f_back
    return frame is not None


def _has_threads() -> bool:
    """Whether a thread runs that Python would wait for."""
    threading = sys.modules.get("threading")
    return threading is not None and any(
        not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()
    )

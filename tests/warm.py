"""``dlx-deploy`` in a process of its own that need not import torch first: it is forked from one that has.

Importing torch, ONNX and what exports costs several times what a small build does. A server, one for each process that
runs tests, imports all that once and computes nothing but one small export; every command is a fork of it, with its own
folder, environment, output, process id and exit code. What is asserted of an interpreter that has just started, such as
what it imports, needs ``subprocess`` and ``sys.executable``.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

__all__ = ["Warm", "keep_operators", "run_warm"]

ROOT = Path(__file__).parents[1]
LARGEST = 2**20
"""Bytes of one request; an environment is a few thousand."""
HEAVY = (
    *("torch", "torchvision", "torch._dynamo", "torch.onnx", "torch.onnx._internal.exporter._core"),
    *("onnx", "onnxscript", "onnxruntime", "sklearn.datasets", "accelerate", "matplotlib.figure", "jinja2"),
    *(f"dlx_deploy.nn.{name}" for name in ("training.loop", "export.network", "pruning.channels")),
    *(f"dlx_deploy.graph.{name}" for name in ("quantization", "execution.evaluation")),
    *("dlx_deploy.building", "dlx_deploy.cli", "dlx_deploy.report.page.beside"),
)


class Warm:
    """One such process, as ``subprocess.Popen``; ``arguments``: those of ``dlx-deploy``, or a script and its own."""

    def __init__(self, arguments: Sequence[str | os.PathLike[str]], cwd: Path, **environment: str) -> None:
        self.args = [os.fspath(argument) for argument in arguments]
        self._out: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115  # read when it has ended
        self._err: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        asked = {"cwd": os.fspath(cwd), "arguments": self.args, "environment": {**os.environ, **environment}}
        told, tells = os.pipe()
        self._told = os.fdopen(told)
        fds = [self._out.fileno(), self._err.fileno(), tells]
        socket.send_fds(_server(), [json.dumps(asked).encode()], fds)
        os.close(tells)
        self.pid = int(self._told.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        return self._ended(0)

    def kill(self) -> None:
        """By SIGKILL; it may have ended already."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said on stdout and on stderr, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it runs longer, and was killed.
        """
        if self._ended(timeout) is None:
            self.kill()
            self._ended(None)
            raise subprocess.TimeoutExpired(self.args, timeout or 0, *self._texts())
        return self._texts()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = int(self._told.readline())
        return self.returncode

    def _texts(self) -> tuple[str, str]:
        for stream in (self._out, self._err):
            stream.seek(0)
        return self._out.read(), self._err.read()


def run_warm(
    arguments: Sequence[str | os.PathLike[str]], cwd: Path, timeout_s: float = 900, **environment: str
) -> subprocess.CompletedProcess[str]:
    """One from its start to its end."""
    process = Warm(arguments, cwd, **environment)
    out, err = process.communicate(timeout_s)
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@functools.cache
def _server() -> socket.socket:
    """The way to this process's server, which ends with it."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # no threads, which forks would lack
    with its:
        subprocess.Popen([sys.executable, __file__, str(its.fileno())], pass_fds=[its.fileno()], env=environment)
    return ours


@dataclass(frozen=True)
class Job:
    """One command."""

    cwd: str
    arguments: list[str]
    environment: dict[str, str]


def serve(asked: socket.socket) -> Job | None:
    """The command that this process, a fork of the server's, is to run; ``None`` in the server itself at its end."""
    while True:
        data, fds, _, _ = socket.recv_fds(asked, LARGEST, 3)
        if not data:
            return None
        out, err, tells = fds
        if os.fork():
            for fd in fds:
                os.close(fd)
            _collect()
            continue
        asked.close()
        pid = os.fork()
        if pid:  # waits for the one that runs it
            _say(tells, pid)
            _say(tells, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os._exit(0)
        os.close(tells)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for fd, stream in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(fd, stream)
            os.close(fd)
        return Job(**json.loads(data))


def _collect() -> None:
    """What has ended of this process's children."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _say(tells: int, number: int) -> None:
    os.write(tells, f"{number}\n".encode())


def run(job: Job) -> int:
    """As ``python -m dlx_deploy.cli ARGUMENTS`` or ``python SCRIPT ARGUMENTS``: the exit code."""
    os.chdir(job.cwd)
    os.environ.clear()
    os.environ.update(job.environment)
    try:
        if job.arguments[0].endswith(".py"):
            sys.argv = job.arguments
            sys.path[0] = str(Path(job.arguments[0]).resolve().parent)
            runpy.run_path(job.arguments[0], run_name="__main__")
        else:
            sys.argv, sys.path[0] = ["dlx-deploy", *job.arguments], job.cwd
            importlib.import_module("dlx_deploy.cli").main()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run_and_end(job: Job) -> NoReturn:
    """Without the interpreter's own end, where libraries look for threads that a fork does not have."""
    code = run(job)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def warm_up() -> None:
    """Import what builds import, and export once."""
    for name in HEAVY:
        importlib.import_module(name)
    import torch

    keep_operators()
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    example, batch = torch.zeros(2, 1, 4, 4), {0: torch.export.Dim.DYNAMIC}
    torch.onnx.export(net.eval(), (example,), dynamo=True, dynamic_shapes=(batch,), verbose=False)


def keep_operators() -> None:
    """Let torch's exporter read its tables of operators once a process, not anew for each export: most of a second."""
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = ONNXRegistry.from_torchlib
    if not hasattr(read, "cache_info"):
        ONNXRegistry.from_torchlib = staticmethod(functools.cache(read))  # type: ignore[method-assign, assignment]
        utils._materialize_cpp_cia_ops = functools.cache(utils._materialize_cpp_cia_ops)


if __name__ == "__main__":
    warm_up()
    job = serve(socket.socket(fileno=int(sys.argv[1])))
    if job is not None:
        run_and_end(job)

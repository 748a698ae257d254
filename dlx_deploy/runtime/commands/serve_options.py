"""What ``serve`` is asked for on a command line; the server itself is not loaded for this."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING, Optional

from ..records import record

if TYPE_CHECKING:
    from .plain import Arguments

__all__ = ["ServeRequest", "add_serve_options", "request_of"]

HOST, PORT = "127.0.0.1", 8000
DRIFT_WINDOW = 256
CAPACITY, CONNECTIONS, BODY_MIB, DRAIN_S = 256, 64, 64, 20.0


@record
class ServeRequest:
    """What ``serve`` is asked for.

    Of each model: ``max_batch`` samples run together at most, ``workers`` batches at once (``None``: what is
    usual), a request waits ``max_wait_ms`` for others, ``capacity`` samples may wait. ``drain_s``: for what has begun,
    once it is told to end. ``log_json``: a file of events, ``-``: stderr. ``watchdog_s``: a run that takes longer is
    stuck; ``None``: 50 times what is usual. ``drift_window``, ``drift_every``: as ``DriftOptions``.
    """

    host: str = HOST
    port: int = PORT
    token_file: Optional[str] = None
    tls_cert: Optional[str] = None
    tls_key: Optional[str] = None
    insecure: bool = False
    max_batch: Optional[int] = None
    workers: Optional[int] = None
    max_wait_ms: float = 0.0
    capacity: int = CAPACITY
    connections: int = CONNECTIONS
    max_body_mib: int = BODY_MIB
    drain_s: float = DRAIN_S
    log_json: Optional[str] = None
    watchdog_s: Optional[float] = None
    drift: bool = False
    drift_window: int = DRIFT_WINDOW
    drift_every: int = 1
    no_selftest: bool = False


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Gives ``parser`` the options of a ``ServeRequest``."""
    parser.add_argument("--host", default=HOST, help=f"the address to listen on (default: {HOST}, this machine alone)")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"0: any that is free (default: {PORT})")
    parser.add_argument("--token-file", metavar="FILE", help="the token that each request must bear")
    parser.add_argument("--tls-cert", metavar="PEM", help="the certificate, with its chain")
    parser.add_argument("--tls-key", metavar="PEM", help="its key")
    parser.add_argument("--insecure", action="store_true", help="another host without token and TLS")
    parser.add_argument("--max-batch", type=int, metavar="N", help="samples that run together at most (default: 16)")
    workers = "batches of a model that run at once (default: cores / --threads; 1 without --threads)"
    parser.add_argument("--workers", type=int, metavar="N", help=workers)
    patience = "how long a request waits for others to run with (default: 0)"
    parser.add_argument("--max-wait-ms", type=float, default=0.0, metavar="MS", help=patience)
    waiting = f"samples that may wait for each model; more get 429 (default: {CAPACITY})"
    parser.add_argument("--capacity", type=int, default=CAPACITY, metavar="N", help=waiting)
    parser.add_argument(
        "--connections", type=int, default=CONNECTIONS, metavar="N", help=f"at a time (default: {CONNECTIONS})"
    )
    size = f"of a request at most; larger ones get 413 (default: {BODY_MIB})"
    parser.add_argument("--max-body-mib", type=int, default=BODY_MIB, metavar="MIB", help=size)
    last = f"for what has begun, once it is told to end (default: {DRAIN_S:g})"
    parser.add_argument("--drain-s", type=float, default=DRAIN_S, metavar="S", help=last)
    parser.add_argument("--log-json", metavar="FILE", help="what happens, a line of JSON each; -: on stderr")
    stuck = "a run that takes longer is stuck: not ready, and ended with 8 at twice that (default: 50 times the usual)"
    parser.add_argument("--watchdog-s", type=float, metavar="S", help=stuck)
    parser.add_argument("--drift", action="store_true", help="hold inputs and answers against those of the build")
    samples = f"samples that are held against the build's at once: 64, 256 or 1024 (default: {DRIFT_WINDOW})"
    parser.add_argument("--drift-window", type=int, default=DRIFT_WINDOW, metavar="N", help=samples)
    parser.add_argument("--drift-every", type=int, default=1, metavar="K", help="of all samples each K-th (default: 1)")
    parser.add_argument("--no-selftest", action="store_true", help="serve without the self-test before")


def request_of(arguments: Arguments) -> ServeRequest:
    """What a parsed command line asks for."""
    return ServeRequest(**{name: getattr(arguments, name) for name in (one.name for one in fields(ServeRequest))})

"""``serve`` as a command: what it refuses, and the server from its start to its end."""

from __future__ import annotations

import logging
import threading
from typing import Callable, Dict, List, Sequence, Tuple

from ..errors import InputError
from ..package.archive import to_json
from ..predictor import Predictor
from ..records import record
from ..schemas import PACKAGE, RESULT
from ..serving.access import LOCAL, Access, is_loopback, read_tls, read_token
from ..serving.models import Models, Served
from ..serving.queue import MicroBatcher, usual_workers
from ..serving.routes import Routes
from ..serving.server import Server, Settings, listen
from ..serving.stream import Limits, Room
from ..tasks.arrays import BLOCK_BYTES
from ..watching.drift import DriftOptions
from ..watching.health import WatchdogOptions
from ..watching.keeper import Keeper
from ..watching.logs import SILENT, open_log
from ..watching.shutdown import Stop, exit_code, stoppable
from ..watching.watch import Watch
from ..words import line
from .serve_options import ServeRequest

__all__ = ["Opened", "open_server", "serve"]

_log = logging.getLogger(__name__)


@record
class Opened:
    """A server that listens and does not serve yet; its models, each with the queue before it."""

    server: Server
    models: Sequence[Tuple[Watch, MicroBatcher]]


def serve(
    predictors: Sequence[Predictor],
    request: ServeRequest,
    show: Callable[[str], None],
    say: Callable[[str], None],
    as_json: bool = False,
) -> int:
    """Serves until it is told to end (SIGTERM, Ctrl-C), and answers what had begun; the exit code.

    Raises:
        InputError: as ``open_server``. PackageError: a model cannot be run. SelfTestFailed: it computes something else
            here than where it was built.
    """
    opened = open_server(predictors, request)
    with stoppable() as stop, Keeper([watch for watch, _ in opened.models]) as keeper:
        # From now on it says that it lives and is not ready yet.
        threading.Thread(target=_run, args=(opened.server, stop), name="server", daemon=True).start()
        for watch, queue in opened.models:
            watch.start(not request.no_selftest, queue.warm_up)
        found = _found(opened, request)
        show(to_json(found).decode("utf-8").rstrip("\n") if as_json else "\n".join(_lines(found)))
        keeper.ready(f"serving on {found['url']}")
        stop.wait()
        keeper.stopping()
        say("ending: no more connections are taken, what has begun is answered")
        drained = opened.server.drain(request.drain_s)
        say("ended" if drained else f"ended, though not all was answered within {request.drain_s:g} s")
        return exit_code(stop, drained)


def open_server(predictors: Sequence[Predictor], request: ServeRequest) -> Opened:
    """A server of the packages, as ``request`` says.

    Raises:
        InputError: an option is out of range, the address is open to others without a token and TLS, it is taken, or
            two packages have one name.
    """
    _check(request)
    log = SILENT if request.log_json is None else open_log(request.log_json)
    models: List[Tuple[Watch, MicroBatcher]] = []
    for one in predictors:
        drift = DriftOptions(request.drift_window, request.drift_every) if request.drift else False
        watch = Watch(one, WatchdogOptions(request.watchdog_s), log, drift)
        workers = usual_workers(one) if request.workers is None else request.workers
        batches = (request.max_batch, request.max_wait_ms, request.capacity)
        models.append((watch, MicroBatcher(watch.predictor, *batches, observe=watch.waited, workers=workers)))
    token = read_token(request.token_file) if request.token_file is not None else None
    tls = None
    if request.tls_cert is not None and request.tls_key is not None:
        tls = read_tls(request.tls_cert, request.tls_key)
    local = is_loopback(request.host)
    hosts = LOCAL | {f"[{request.host}]" if ":" in request.host else request.host.lower()} if local else None
    limits = Limits(body_bytes=request.max_body_mib * 1024**2)
    memory = Room(2 * BLOCK_BYTES)  # of all models together
    known = Models([Served(watch, queue, memory=memory) for watch, queue in models])
    routes = Routes(known, Access(token, hosts), str(PACKAGE))
    settings = Settings(request.connections, limits, tls)
    return Opened(Server(listen(request.host, request.port), routes, settings), models)


def _run(server: Server, stop: Stop) -> None:
    try:
        server.run()
    except Exception:  # the border: this thread's fault is the process's
        stop.failed = True
        _log.exception("the server broke down")
    finally:
        stop.ask()


def _check(request: ServeRequest) -> None:
    ranges = {"port": (0, 65_535), "connections": (1, 4_096), "max_body_mib": (1, 4_096)}
    for name, (least, most) in ranges.items():
        value = getattr(request, name)
        if not least <= value <= most:
            raise InputError(f"--{name.replace('_', '-')} is {value}; must be {least} to {most}")
    if not 0 <= request.drain_s <= 3600:
        raise InputError(f"--drain-s is {request.drain_s:g}; must be 0 to 3600")
    if (request.tls_cert is None) != (request.tls_key is None):
        raise InputError("--tls-cert and --tls-key belong together; give both or neither")
    if is_loopback(request.host) or request.insecure:
        return
    missing = [
        name
        for name, value in (("--token-file", request.token_file), ("--tls-cert and --tls-key", request.tls_cert))
        if value is None
    ]
    if missing:
        raise InputError(
            f"host is {line(request.host)}, which others reach: give {' and '.join(missing)} too; or --insecure, where "
            "something before it asks who they are"
        )


def _found(opened: Opened, request: ServeRequest) -> Dict[str, object]:
    host, port = opened.server.address
    named = f"[{host}]" if ":" in host else host
    url = f"{'https' if request.tls_cert else 'http'}://{named}:{port}"
    packages = [watch.predictor.package for watch, _ in opened.models]
    models = [{"name": one.name, "version": one.version} for one in packages]
    return {"schema": RESULT, "url": url, "models": models}


def _lines(found: Dict[str, object]) -> List[str]:
    models = found["models"]
    assert isinstance(models, list)
    return [
        f"{line(one['name'])} {line(one['version'])}\t{found['url']}/v2/models/{line(one['name'])}" for one in models
    ]
